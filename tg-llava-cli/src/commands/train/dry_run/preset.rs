//! `--preset`: the forecast for a published model, before there are weights or data.

use tg_llava_core::burn::tensor::DType;
use tg_llava_train::config::{RunDType, Stage, TrainConfig};
use tg_llava_train::parallel::World;
use tg_llava_train::start::{Attention, StartError, Workload, preset_model};

use super::sizes::Sizes;
use super::{describe_parameters, parameters};
use crate::console::{Console, print, print_json};
use crate::device::Dtype;
use crate::failure::Failure;

/// The run that is forecast where none is given: as the reference's scripts have it.
pub(in super::super) fn usual_run(stage: Stage) -> String {
    let stage = match stage {
        Stage::Pretrain => "pretrain",
        Stage::Finetune => "finetune",
    };
    format!(
        "stage = \"{stage}\"\n[run]\nbatch_size = 8\nglobal_batch_size = 128\ngradient_checkpointing = true\ndtype = \"bf16\"\n"
    )
}

/// What makes of any run one that needs no file.
pub(in super::super) fn without_files(preset: &str) -> [String; 5] {
    let path = format!("model.path={preset}");
    // No folder is read or written, yet a run must name them.
    [path.as_str(), "model.vision_tower=clip-l-336", "model.text_tower=", "data.path=none", "output_dir=none"]
        .map(str::to_owned)
}

/// Says what `config` would take over the decoder `preset` on each rank of `world`.
///
/// # Errors
/// [`Failure::Input`] where the sizes do not fit together.
pub(in super::super) fn run(
    config: &TrainConfig,
    preset: &str,
    (world, dtype): (World, Option<Dtype>),
    console: &Console,
) -> Result<(), Failure> {
    let model = preset_model(config, preset).map_err(|error: StartError| Failure::Input(error.into()))?;
    let table = super::table(config, &model)?;
    let workload = Workload {
        config,
        model: &model,
        table: &table,
        dtype: number_format(config, dtype),
        world,
        attention: Attention::WrittenOut,
        batch_size: config.run.batch_size,
        length: model.max_length,
    };
    let sizes = Sizes::new(&workload);
    if console.json {
        let value = serde_json::json!({
            "preset": preset,
            "stage": config.stage,
            "measured": false,
            "parameters": parameters(&table),
            "forecast": sizes,
        });
        return print_json(&value, true);
    }
    let header = format!("model   {preset}, by its published sizes; nothing was read\n");
    print(&(header + &describe_parameters(&table, console.verbose) + &sizes.text()))
}

/// The format of the computation: as asked, else as the run says, else what GPUs are best at.
fn number_format(config: &TrainConfig, asked: Option<Dtype>) -> DType {
    match (asked, config.run.dtype) {
        (Some(Dtype::F32), _) | (None, Some(RunDType::F32)) => DType::F32,
        (Some(Dtype::F16), _) | (None, Some(RunDType::F16)) => DType::F16,
        (Some(Dtype::Bf16), _) | (None, Some(RunDType::Bf16) | None) => DType::BF16,
    }
}
