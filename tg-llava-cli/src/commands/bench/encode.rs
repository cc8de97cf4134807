//! A picture and its four crops through the vision tower.

use burn::tensor::{DType, Distribution, Tensor};
use serde_json::Value;
use tg_llava_core::model::ImageBatch;

use super::Bench;
use super::model::{Part, config};
use super::timing::{repeat, round};
use super::work::Work;
use crate::failure::Failure;

/// Times `TgLlava::vision_features` for one sample.
///
/// # Errors
/// As the model, and where the device fails.
pub(super) fn measure(bench: &Bench) -> Result<Value, Failure> {
    let device = &bench.opened.device;
    let model = bench.model(Part::Vision)?;
    let config = config(bench.args)?;
    let input = |error: tg_llava_core::Error| Failure::Input(error.into());
    let mm = config.multimodal.as_ref().ok_or_else(|| Failure::input("the preset has no vision tower"))?;
    let size = mm.vision.image_size;
    let noise = |count: usize| {
        let shape = [count, mm.vision.num_channels, size, size];
        Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), (device, DType::F32))
    };
    let batch = ImageBatch { pixels: noise(1), crops: Some(noise(4).unsqueeze_dim(0)) };
    let times = repeat(device, bench.args.reps, || {
        drop(model.vision_features(&batch).map_err(input)?);
        Ok(())
    })?;
    bench.note("encode", times.milliseconds());
    let layers = mm.vision.hidden_state_index(mm.select_layer).map_err(input)?;
    let work = Work::vision(&mm.vision, layers, 5, bench.opened.dtype.size());
    let mut report = bench.machine.compare(work, &times);
    report["pictures"] = 5.into();
    report["pictures_per_s"] = round(5.0 / times.median()).into();
    Ok(report)
}
