//! Checkpoints of a run, written and read, and the model at its end.

use std::path::Path;

use burn::tensor::{DType, Tensor, TensorData};

use super::super::save::{SavedForm, save_trained};
use super::Session;
use crate::checkpoint::{
    Checkpoint, CheckpointError, Dtype, OPTIMIZER_FILE, TensorSource, TrainState, write_tensors,
};
use crate::config::Init;
use crate::engine::{LossScale, Trainer};
use crate::optim::OptimizerStates;
use crate::run::{Observer, RunError};

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

impl Session {
    /// Saves a checkpoint of the step that was made last, unless there is one.
    pub(super) fn save(&mut self, observer: &mut dyn Observer) -> Result<(), RunError> {
        let step = self.trainer.steps();
        if self.saved_at == Some(step) {
            return Ok(());
        }
        let scale = self.trainer.options().loss_scale;
        let state = TrainState {
            step,
            position: self.position,
            rng: serde_json::to_value(RngState {
                loss_scale: scale,
                adamw_steps: self.trainer.optimizer().steps(),
            })
            .map_err(|e| RunError::Engine(e.to_string()))?,
            seconds: self.seconds,
            loss_scale: Some(scale.scale),
            best: self.best.clone(),
            fingerprint: self.fingerprint.clone(),
        };
        let saved = self.store.save(step, |folder| self.write_checkpoint(folder, &state))?;
        saved.rotation.problems.iter().for_each(|problem| observer.note(&problem.to_string()));
        self.saved_at = Some(step);
        Ok(())
    }

    fn write_checkpoint(&self, folder: &Path, state: &TrainState) -> Result<(), BoxedError> {
        self.write_model(folder)?;
        let tensors = self.trainer.optimizer().tensors().map(|(name, tensor)| {
            let shape = tensor.dims().to_vec();
            TensorSource::new(name, Dtype::F32, shape, move || {
                Ok::<_, std::convert::Infallible>(tensor.into_data().into_bytes())
            })
        });
        write_tensors(&folder.join(OPTIMIZER_FILE), tensors)?;
        Ok(state.write(folder)?)
    }

    pub(super) fn write_model(&self, folder: &Path) -> tg_llava_core::Result<()> {
        let form = SavedForm::of(self.trainer.options().parts, self.config.model.init == Init::Random);
        let limit = self.config.run.max_shard_bytes;
        save_trained(self.trainer.model(), folder, form, &self.setup.start, limit)
    }
}

/// What decides the next step besides tensors and data. All randomness is drawn afresh from the seed and the
/// step's number, so no generator's state is kept.
#[derive(serde::Serialize, serde::Deserialize)]
struct RngState {
    loss_scale: LossScale,
    adamw_steps: std::collections::BTreeMap<String, i32>,
}

/// Puts the optimizer and the counters of `checkpoint` into `trainer`.
pub(super) fn restore(
    trainer: &mut Trainer,
    checkpoint: &Checkpoint,
    state: &TrainState,
) -> Result<(), RunError> {
    let rng: RngState = serde_json::from_value(state.rng.clone())
        .map_err(|e| RunError::Engine(format!("state.json: {e}")))?;
    let file = checkpoint.optimizer()?;
    let masters: std::collections::BTreeSet<String> = file.names().into_iter().collect();
    let device = trainer.device().inner();
    let adamw = trainer.options().adamw;
    let optimizer =
        OptimizerStates::restore(adamw, &rng.adamw_steps, &|name| masters.contains(name), &mut |name| {
            let shape = file.layout(name).map(|(_, shape)| shape.to_vec()).unwrap_or_default();
            let bytes = file.read(name, Dtype::F32, &shape)?;
            let values: Vec<f32> =
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            let count = values.len();
            Ok::<_, CheckpointError>(Tensor::<1>::from_data(
                TensorData::new(values, [count]),
                (&device, DType::F32),
            ))
        })?;
    trainer.restore(optimizer, state.step, rng.loss_scale);
    Ok(())
}
