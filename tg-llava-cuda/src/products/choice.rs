//! Who computes products, and how that is chosen.

use std::time::{Duration, Instant};

use burn::tensor::{DType, Device, Distribution, Tensor};

/// Who computes the products of linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Who is faster on this device.
    #[default]
    Auto,
    /// The vendor's library, wherever it can.
    CublasLt,
}

/// What a measurement says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The library's time over Burn's.
    pub ratio: f64,
    /// Whether to take it.
    pub vendor_is_faster: bool,
}

/// Rounds of which the median counts; both take turns.
const ROUNDS: usize = 3;
/// Products a round of each kind.
const REPEATS: usize = 5;

/// Compares `vendor` with Burn's products: of a layer, of its input's gradient, and of its weight's. `size` is that of the layer: rows,
/// inputs, outputs.
///
/// # Errors
/// A text where the device or `vendor` fails, or the results differ by more than rounding.
pub fn measure(
    device: &Device,
    dtype: DType,
    size: [usize; 3],
    vendor: impl Fn(Tensor<2>, Tensor<2>) -> Result<Tensor<2>, String>,
) -> Result<Choice, String> {
    let [rows, inputs, outputs] = size;
    let random =
        |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Uniform(-1.0, 1.0), (device, dtype));
    let (x, weight, grad) = (random([rows, inputs]), random([outputs, inputs]), random([rows, outputs]));
    let pairs = [(x.clone(), weight.clone().transpose()), (grad.clone(), weight), (x.transpose(), grad)];
    let burn = |lhs: Tensor<2>, rhs: Tensor<2>| Ok(lhs.matmul(rhs));
    for (lhs, rhs) in &pairs {
        // Also the first run of each, in which Burn looks for its own best kernel.
        let (found, wanted) = (vendor(lhs.clone(), rhs.clone())?, burn(lhs.clone(), rhs.clone())?);
        let scale = (wanted.clone().cast(DType::F32)).abs().max();
        let off = (found.cast(DType::F32) - wanted.cast(DType::F32)).abs().max() / scale;
        let off = off.try_into_vec_as::<f32>().map_err(|error| error.to_string())?[0];
        // Half precision keeps eight bits or more.
        if off.is_nan() || off > 0.01 {
            return Err(format!("cuBLASLt's product is off by {off:.3} of the largest value"));
        }
    }
    let time = |product: &dyn Fn(Tensor<2>, Tensor<2>) -> Result<Tensor<2>, String>| {
        let start = Instant::now();
        // Kept to the end, since what nobody wants need not be computed.
        let mut kept = Vec::with_capacity(pairs.len() * REPEATS);
        for (lhs, rhs) in pairs.iter().cycle().take(kept.capacity()) {
            kept.push(product(lhs.clone(), rhs.clone())?);
        }
        device.sync().map_err(|error| error.to_string())?;
        Ok::<Duration, String>(start.elapsed())
    };
    let mut ratios = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let (vendor, burn) = (time(&vendor)?, time(&burn)?);
        ratios.push(vendor.as_secs_f64() / burn.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[ROUNDS / 2];
    Ok(Choice { ratio, vendor_is_faster: ratio < 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: [usize; 3] = [8, 16, 12];

    #[test]
    fn a_wrong_product_is_never_chosen() {
        let device = Device::flex();
        let wrong = |lhs: Tensor<2>, rhs: Tensor<2>| Ok(lhs.matmul(rhs) * 1.1);
        let error = measure(&device, DType::F32, SIZE, wrong).unwrap_err();
        assert!(error.contains("off by 0.1"), "{error}");
        let failing = |_: Tensor<2>, _: Tensor<2>| Err("no algorithm".to_owned());
        assert_eq!(measure(&device, DType::F32, SIZE, failing), Err("no algorithm".into()));
        let right = |lhs: Tensor<2>, rhs: Tensor<2>| Ok(lhs.matmul(rhs));
        assert!(measure(&device, DType::F32, SIZE, right).is_ok_and(|choice| choice.ratio > 0.0));
    }
}
