//! Checkpoints of a run, written and read, and the model at its end.

use std::ops::Range;
use std::path::Path;

use burn::tensor::{DType, Tensor, TensorData};

use super::super::save::{SavedForm, save_trained};
use super::Session;
use crate::checkpoint::{
    Checkpoint, CheckpointError, Dtype, TensorFile, TensorSource, TrainState, optimizer_file, write_tensors,
};
use crate::config::{Init, TrainConfig};
use crate::engine::{LossScale, ParameterInfo, Trainer};
use crate::optim::OptimizerStates;
use crate::parallel::watch::{Phase, Progress};
use crate::parallel::{ShardLayout, agree};
use crate::run::{Observer, RunError};
use crate::start::ModelSetup;

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

impl Session {
    /// Saves a checkpoint of the step that was made last, unless there is one, together with the other ranks.
    pub(super) fn save(&mut self, observer: &mut dyn Observer) -> Result<(), RunError> {
        let step = self.trainer.steps();
        if self.saved_at == Some(step) || self.trainer.collective().is_simulated() {
            return Ok(());
        }
        let _saving = Progress::of_process().during(Phase::Saving);
        let saved = match self.trainer.world().leads() {
            true => self.save_as_leader(step),
            false => self.save_slices().map(|()| None),
        };
        let rotated = saved.as_ref().ok().cloned().flatten();
        agree(self.trainer.collective(), saved.map(|_| ()))?;
        rotated.unwrap_or_default().iter().for_each(|problem| observer.note(problem));
        self.saved_at = Some(step);
        Ok(())
    }

    /// Writes all but the other ranks' slices; gives problems that hinder nothing.
    fn save_as_leader(&mut self, step: usize) -> Result<Option<Vec<String>>, RunError> {
        let state = self.state();
        let Self { store, trainer, config, setup, .. } = self;
        let mut begun = false;
        let saved = store.save(step, |folder| -> Result<(), BoxedError> {
            begun = true;
            // Its name alone, which is ours; paths need not be UTF-8.
            let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
            agree::<_, RunError>(trainer.collective(), Ok(name))?;
            let written = write_model(trainer, config, setup, folder)
                .map_err(RunError::from)
                .and_then(|()| Ok(state?.write(folder)?))
                .and_then(|()| Ok(write_slices(trainer, folder)?));
            agree(trainer.collective(), written)?;
            Ok(())
        });
        let saved = saved.map_err(RunError::from);
        if begun {
            return Ok(Some(saved?.rotation.problems.iter().map(ToString::to_string).collect()));
        }
        // The other ranks wait for the folder.
        let nothing = saved.and_then(|_| Err(RunError::Engine("the checkpoint was not begun".into())));
        agree::<Option<String>, _>(trainer.collective(), nothing)?;
        Ok(None)
    }

    /// Writes this rank's slices into the folder that the leader names.
    fn save_slices(&mut self) -> Result<(), RunError> {
        let names = agree::<Option<String>, RunError>(self.trainer.collective(), Ok(None))?;
        // Every node has all slices.
        let written = match names.into_iter().flatten().next() {
            Some(name) if self.trainer.world().node() == 0 => {
                write_slices(&self.trainer, &self.config.output_dir.join(name))
            }
            _ => Ok(()),
        };
        agree(self.trainer.collective(), written.map_err(RunError::from))?;
        Ok(())
    }

    fn state(&self) -> Result<TrainState, RunError> {
        let loss_scale = self.trainer.options().loss_scale;
        let rng = RngState { loss_scale, adamw_steps: self.trainer.optimizer().steps() };
        Ok(TrainState {
            step: self.trainer.steps(),
            position: self.position,
            rng: serde_json::to_value(rng).map_err(|e| RunError::Engine(e.to_string()))?,
            seconds: self.seconds,
            loss_scale: Some(loss_scale.scale),
            best: self.best.clone(),
            fingerprint: self.fingerprint.clone(),
        })
    }

    /// Writes the trained model into `output_dir`.
    pub(super) fn save_trained(&mut self) -> Result<(), RunError> {
        if self.trainer.collective().is_simulated() {
            return Ok(());
        }
        let _saving = Progress::of_process().during(Phase::Saving);
        let written = match self.trainer.world().leads() {
            true => write_model(&self.trainer, &self.config, &self.setup, &self.config.output_dir),
            false => Ok(()),
        };
        agree(self.trainer.collective(), written.map_err(RunError::from))?;
        Ok(())
    }
}

fn write_model(
    trainer: &Trainer,
    config: &TrainConfig,
    setup: &ModelSetup,
    folder: &Path,
) -> tg_llava_core::Result<()> {
    let adapter = setup.adapter(config).map(|lora| (lora, setup.decoder().to_path_buf()));
    let form = SavedForm::of(trainer.options().parts, adapter, config.model.init == Init::Random);
    save_trained(trainer.model(), folder, form, &setup.start, config.run.max_shard_bytes)
}

/// Writes the values that this rank has of the optimizer's tensors, without the zeros that fill its slices up.
fn write_slices(trainer: &Trainer, folder: &Path) -> Result<(), CheckpointError> {
    let world = trainer.world();
    let tensors = trainer.optimizer().tensors().map(|(path, part, tensor)| {
        let count = trainer.table().get(path).map_or(0, ParameterInfo::count);
        let own = ShardLayout { count, ranks: world.local_size() }.range(world.local_rank()).len();
        TensorSource::new(format!("{path}.{part}"), Dtype::F32, vec![own], move || {
            let mut bytes = tensor.into_data().into_bytes().to_vec();
            bytes.truncate(4 * own);
            Progress::of_process().tick();
            Ok::<_, std::convert::Infallible>(bytes)
        })
    });
    write_tensors(&folder.join(optimizer_file(world.local_rank(), world.local_size())), tensors)
}

/// What decides the next step besides tensors and data. All randomness is drawn afresh from the seed and the
/// step's number, so no generator's state is kept.
#[derive(serde::Serialize, serde::Deserialize)]
struct RngState {
    loss_scale: LossScale,
    adamw_steps: std::collections::BTreeMap<String, i32>,
}

/// Puts the optimizer and the counters of `checkpoint` into `trainer`, whatever ranks it was saved by.
pub(super) fn restore(
    trainer: &mut Trainer,
    checkpoint: &Checkpoint,
    state: &TrainState,
) -> Result<(), RunError> {
    let rng: RngState = serde_json::from_value(state.rng.clone())
        .map_err(|e| RunError::Engine(format!("state.json: {e}")))?;
    let files = checkpoint.optimizer()?;
    let has =
        |path: &str, part: &str| files.iter().any(|file| file.layout(&format!("{path}.{part}")).is_some());
    let (device, world) = (trainer.device().inner(), trainer.world());
    let table = trainer.table();
    let mut read = |path: &str, part: &str| -> Result<Tensor<1>, CheckpointError> {
        let count = table.get(path).map_or(0, ParameterInfo::count);
        let layout = ShardLayout { count, ranks: world.local_size() };
        let values = read_range(&files, &format!("{path}.{part}"), count, layout.range(world.local_rank()))?;
        let own = values.len();
        let values = Tensor::<1>::from_data(TensorData::new(values, [own]), (&device, DType::F32));
        let zeros = layout.len() - own;
        Ok(match zeros {
            0 => values,
            _ => Tensor::cat(vec![values, Tensor::zeros([zeros], (&device, DType::F32))], 0),
        })
    };
    let optimizer = OptimizerStates::restore(trainer.options().adamw, &rng.adamw_steps, &has, &mut read)?;
    trainer.restore(optimizer, state.step, rng.loss_scale);
    Ok(())
}

/// The values `range` of a tensor of `count` whose slices lie in `files`, by the rank that saved them.
fn read_range(
    files: &[TensorFile],
    name: &str,
    count: usize,
    range: Range<usize>,
) -> Result<Vec<f32>, CheckpointError> {
    let layout = ShardLayout { count, ranks: files.len() };
    let mut values = Vec::with_capacity(range.len());
    for (rank, file) in files.iter().enumerate() {
        let slice = layout.range(rank);
        let (start, end) = (range.start.max(slice.start), range.end.min(slice.end));
        if start < end {
            let wanted = start - slice.start..end - slice.start;
            let bytes = file.read_rows(name, Dtype::F32, &[slice.len()], wanted)?;
            values.extend(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            Progress::of_process().tick();
        }
    }
    Ok(values)
}
