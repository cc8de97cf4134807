//! What the machine can do at best: measured, not read from a data sheet.

use std::time::Instant;

use burn::tensor::{DType, Device, Distribution, Tensor};
use serde_json::{Value, json};

use super::timing::{Times, repeat, round};
use super::work::Work;
use crate::device::Opened;
use crate::failure::Failure;

/// Runs of each measurement; the best one counts.
const REPS: usize = 5;

/// The two slopes of the roofline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Machine {
    /// Operations a second of a large matrix product, in the number format of the run.
    pub(super) flops: f64,
    /// Bytes a second, read and written, of a large copy.
    pub(super) bandwidth: f64,
}

impl Machine {
    /// Measures both on the device.
    ///
    /// # Errors
    /// [`Failure::Run`] where the device fails.
    pub(super) fn measure(opened: &Opened) -> Result<Self, Failure> {
        let (device, on_cpu) = (&opened.device, opened.spec.backend.is_cpu());
        let bandwidth = if on_cpu { host_copy() } else { device_copy(device)? };
        Ok(Self { flops: product(device, opened.dtype, if on_cpu { 2048 } else { 8192 })?, bandwidth })
    }

    /// The least seconds that `work` can take here.
    pub(super) fn roofline(self, work: Work) -> f64 {
        (work.flops / self.flops).max(work.bytes / self.bandwidth)
    }

    /// Time, throughput and roofline of `work`.
    pub(super) fn compare(self, work: Work, times: &Times) -> Value {
        let roofline = self.roofline(work);
        json!({
            "ms": round(times.milliseconds()),
            "range_ms": times.range(),
            "gflop": round(work.flops / 1e9),
            "gbyte": round(work.bytes / 1e9),
            "gflop_per_s": round(work.flops / 1e9 / times.median()),
            "gbyte_per_s": round(work.bytes / 1e9 / times.median()),
            "roofline_ms": round(roofline * 1e3),
            "share_of_roofline": round(roofline / times.median()),
        })
    }

    /// Both slopes, for the report.
    pub(super) fn report(self) -> Value {
        json!({
            "matmul_gflop_per_s": round(self.flops / 1e9),
            "copy_gbyte_per_s": round(self.bandwidth / 1e9),
        })
    }
}

/// Threads that the CPU backends use.
pub(super) fn threads() -> usize {
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse().ok()).filter(|&n| n > 0);
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

fn product(device: &Device, dtype: DType, size: usize) -> Result<f64, Failure> {
    let matrix = || Tensor::<2>::random([size, size], Distribution::Normal(0.0, 1.0), (device, dtype));
    let (a, b) = (matrix(), matrix());
    let times = repeat(device, REPS, || {
        drop(a.clone().matmul(b.clone()));
        Ok(())
    })?;
    Ok(2.0 * (size as f64).powi(3) / times.shortest())
}

/// A copy in all threads, far larger than the caches.
fn host_copy() -> f64 {
    const BYTES: usize = 256 << 20;
    let (source, mut target) = (vec![1u8; BYTES], vec![0u8; BYTES]);
    let part = BYTES.div_ceil(threads());
    let seconds = (0..=REPS).map(|_| {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for (to, from) in target.chunks_mut(part).zip(source.chunks(part)) {
                scope.spawn(|| to.copy_from_slice(from));
            }
        });
        start.elapsed().as_secs_f64()
    });
    let times = Times::new(seconds.skip(1).collect());
    2.0 * BYTES as f64 / times.shortest()
}

fn device_copy(device: &Device) -> Result<f64, Failure> {
    const VALUES: usize = 64 << 20;
    let source = Tensor::<1>::zeros([VALUES], (device, DType::F32));
    let times = repeat(device, REPS, || {
        drop(source.clone() + 1.0);
        Ok(())
    })?;
    Ok(2.0 * 4.0 * VALUES as f64 / times.shortest())
}
