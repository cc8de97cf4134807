//! The loop: batches to steps, with everything that happens between two of them.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::evaluate::{EvaluateOptions, evaluate};
use super::fingerprint::fingerprint;
use super::save::{SavedForm, save_trained};
use super::stream::BatchStream;
use super::{Observer, RunError};
use crate::checkpoint::{
    Best, Checkpoint, CheckpointError, CheckpointStore, Dtype, Fingerprint, OPTIMIZER_FILE, TensorSource,
    TrainState, write_tensors,
};
use crate::config::{Component, Init, LossScale as ScaleOption, OnNan, PerComponent, TrainConfig};
use crate::data::{DataError, DataPosition, Micro, SampleNotice, optimizer_steps};
use crate::engine::{Activations, LossScale, StepOutcome, Trainer, TrainerOptions};
use crate::log::{
    EvalRecord, EventWriter, MetricsLog, NoteRecord, Record, StepRecord, StepWork, Throughput, memory_bytes,
    plot_run, read_metrics,
};
use crate::optim::{AdamWConfig, OptimizerStates};
use crate::schedule::LrSchedule;
use crate::start::{Plan, StartError, TrainingData, load_weights};

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// Steps over which speeds are averaged.
const SPEED_WINDOW: usize = 20;

/// Names of the files in `output_dir`.
const METRICS: &str = "metrics.jsonl";
const EVENTS: &str = "tensorboard";
const RESOLVED: &str = "run.toml";
const PLOT: &str = "loss.png";

/// What a run needs besides its configuration.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Where the model lives.
    pub device: Device,
    /// The number format of the computation.
    pub dtype: DType,
    /// Whether to begin anew although there are checkpoints.
    pub restart: bool,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Optimizer steps done.
    pub steps: usize,
    /// Optimizer steps of the whole run.
    pub total_steps: usize,
    /// Loss of the last step.
    pub loss: f64,
    /// The last check on held-out samples.
    pub evaluation: Option<EvalRecord>,
    /// The best checkpoint.
    pub best: Option<Best>,
    /// Where the trained model, or after an interruption the last checkpoint, is.
    pub saved: PathBuf,
    /// Whether it was interrupted.
    pub interrupted: bool,
    /// Samples that were left out or taught nothing.
    pub notices: Vec<SampleNotice>,
}

/// A run, ready to go on from where it stands.
pub struct Session {
    config: TrainConfig,
    plan: Plan,
    data: Arc<TrainingData>,
    trainer: Trainer,
    store: CheckpointStore,
    fingerprint: Fingerprint,
    position: DataPosition,
    seconds: f64,
    total_steps: usize,
    best: Option<Best>,
    evaluation: Option<EvalRecord>,
    last_loss: f64,
    saved_at: Option<usize>,
    messages: Vec<String>,
}

/// The optimizer steps of a run over `samples` samples.
pub fn total_steps(config: &TrainConfig, samples: usize) -> usize {
    let batches = samples.div_ceil(config.run.batch_size.max(1));
    let steps = optimizer_steps(batches, config.run.accumulation, config.run.epochs);
    config.run.max_steps.unwrap_or(steps)
}

/// How the trainer learns, as `config` has it.
pub fn trainer_options(config: &TrainConfig, total_steps: usize, dtype: DType) -> TrainerOptions {
    let optim = &config.optim;
    let lr = optim.lr.unwrap_or(config.stage.default_lr());
    let own = |c: Component| optim.lr_of.get(c).map(|lr| (c, lr));
    TrainerOptions {
        parts: PerComponent::from_fn(|component| config.trains(component)),
        activations: match config.run.gradient_checkpointing {
            true => Activations::Recompute,
            false => Activations::Keep,
        },
        loss_chunk: config.run.loss_chunk,
        adamw: AdamWConfig { beta1: optim.beta1, beta2: optim.beta2, epsilon: optim.epsilon },
        lr,
        lr_of: Component::ALL.into_iter().filter_map(own).collect(),
        weight_decay: optim.weight_decay,
        decay_rule: optim.decay_rule,
        max_grad_norm: optim.max_grad_norm,
        schedule: LrSchedule::new(optim.schedule, optim.warmup(), total_steps),
        loss_mean: optim.loss_mean,
        loss_scale: match (dtype, optim.loss_scale) {
            (DType::F16, ScaleOption::Dynamic) => LossScale::dynamic(),
            (DType::F16, ScaleOption::Fixed(scale)) => LossScale::fixed(scale),
            _ => LossScale::ONE,
        },
        seed: config.seed,
    }
}

impl Session {
    /// Loads everything; goes on from the newest checkpoint in `output_dir` that is whole, if there is one.
    /// `progress` is told how many values each tensor brought.
    ///
    /// # Errors
    /// Where the start, the data or a checkpoint cannot be used, or there is no step to make.
    pub fn open(
        config: TrainConfig,
        plan: Plan,
        data: TrainingData,
        options: &SessionOptions,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self, RunError> {
        let total_steps = total_steps(&config, data.len());
        if total_steps == 0 {
            let reason = "run.max_steps or run.epochs leaves none".to_owned();
            return Err(StartError::NoSteps { reason }.into());
        }
        let keep = config.run.save_total_limit.and_then(NonZeroUsize::new);
        let store = CheckpointStore::open(&config.output_dir, keep)?;
        let mut messages: Vec<String> = store
            .clean()?
            .iter()
            .map(|path| format!("removed what an interrupted save left: {}", path.display()))
            .collect();
        let latest = store.latest()?;
        messages.extend(latest.damaged.iter().map(|damaged| format!("not used: {damaged}")));
        let checkpoint = latest.checkpoint.filter(|_| !options.restart);
        let fingerprint = fingerprint(&config, &plan, &data);
        let state = checkpoint.as_ref().map(|checkpoint| checkpoint.state(&fingerprint)).transpose()?;

        let folder = checkpoint.as_ref().map(Checkpoint::path);
        let device = options.device.clone().autodiff();
        let started = load_weights(&config, &plan, folder, &device, options.dtype, progress)?;
        if !started.report.initialised.is_empty() {
            let count = started.report.initialised.len();
            messages.push(format!("{count} tensors of the bridges start fresh"));
        }
        if !started.report.not_finite.is_empty() {
            messages.push(format!("values that are not finite in {}", started.report.not_finite.join(", ")));
        }
        let mut trainer = Trainer::new(started.model, trainer_options(&config, total_steps, options.dtype));
        let mut session_start = (DataPosition::default(), 0.0, None);
        if let (Some(checkpoint), Some(state)) = (&checkpoint, &state) {
            restore(&mut trainer, checkpoint, state)?;
            messages.push(format!("going on after step {} from {}", state.step, checkpoint.path().display()));
            session_start = (state.position, state.seconds, state.best.clone());
        }
        let (position, seconds, best) = session_start;
        Ok(Self {
            saved_at: state.map(|state| state.step),
            config,
            plan,
            data: Arc::new(data),
            trainer,
            store,
            fingerprint,
            position,
            seconds,
            total_steps,
            best,
            evaluation: None,
            last_loss: f64::NAN,
            messages,
        })
    }

    /// The trainer with the model.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// The run's configuration.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The samples.
    pub fn data(&self) -> &TrainingData {
        &self.data
    }

    /// The samples, to share.
    pub fn shared_data(&self) -> Arc<TrainingData> {
        Arc::clone(&self.data)
    }

    /// Optimizer steps of the whole run.
    pub fn total_steps(&self) -> usize {
        self.total_steps
    }

    /// What opening found worth telling.
    pub fn messages(&self) -> &[String] {
        &self.messages
    }

    /// Trains to the last step, or until `observer` wants to stop; either way everything is saved.
    ///
    /// # Errors
    /// Where a sample cannot be used, the loss is not finite, or a file cannot be written. Checkpoints made before
    /// stay as they are.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Summary, RunError> {
        for message in std::mem::take(&mut self.messages) {
            observer.note(&message);
        }
        let mut log = RunLog::open(&self.config, self.trainer.steps())?;
        let data = Arc::clone(&self.data);
        let options = &self.config.data;
        // A step begins when all of its micro-batches are there.
        let (threads, ahead) = (options.workers, options.prefetch.max(self.config.run.accumulation));
        let mut stream = BatchStream::new(&data, self.config.run.batch_size, threads, ahead, self.position);
        let mut speed = Throughput::new(SPEED_WINDOW);
        let mut interrupted = false;
        while self.trainer.steps() < self.total_steps {
            let begin = Instant::now();
            let (outcome, micros) = self.one_step(&mut stream)?;
            let samples: Vec<&str> = micros.iter().flat_map(|m| &m.samples).map(String::as_str).collect();
            let tokens = micros.iter().map(Micro::tokens).sum();
            let done = self.trainer.steps();
            self.position = stream.position();
            let elapsed = begin.elapsed();
            self.seconds += elapsed.as_secs_f64();
            speed.push(StepWork { samples: samples.len(), tokens, elapsed, waited: stream.take_waited() });
            let record = self.step_record(&outcome, stream.epochs(), &speed);
            self.last_loss = outcome.loss;
            if !outcome.updated {
                self.not_updated(&outcome, &samples, &mut log, observer)?;
            }
            if done.is_multiple_of(self.config.run.log_every) || done == self.total_steps {
                log.write(&record.clone().into())?;
                observer.step(&record, (done, self.total_steps));
            }
            let check = self.config.data.validation.as_ref().map(|v| v.every);
            if check.is_some_and(|every| every.is_due(done, self.total_steps)) {
                self.check(&mut log, observer)?;
            }
            if self.config.run.save_steps.is_due(done, self.total_steps) {
                self.save(observer)?;
            }
            if observer.should_stop() && done < self.total_steps {
                interrupted = true;
                break;
            }
        }
        self.finish(log, interrupted, observer)
    }

    /// Micro-batches until an optimizer step is full, and the step.
    fn one_step(&mut self, stream: &mut BatchStream<'_>) -> Result<(StepOutcome, Vec<Micro>), RunError> {
        let micros = (0..self.config.run.accumulation).map(|_| stream.next_micro());
        let micros = micros.collect::<Result<Vec<Micro>, DataError>>()?;
        Ok((self.trainer.step(&micros)?, micros))
    }

    fn step_record(&self, outcome: &StepOutcome, epoch: f64, speed: &Throughput) -> StepRecord {
        StepRecord {
            step: self.trainer.steps(),
            epoch,
            loss: outcome.loss,
            lr: outcome.lr,
            grad_norm: Some(outcome.grad_norm),
            samples_per_s: speed.samples_per_s(),
            tokens_per_s: speed.tokens_per_s(),
            data_wait: speed.data_wait(),
            memory_bytes: memory_bytes(),
            seconds: self.seconds,
            skipped: !outcome.updated,
            loss_scale: Some(self.trainer.options().loss_scale.scale).filter(|&scale| scale != 1.0),
        }
    }

    /// A step that left the weights alone: nothing to learn, an overflow that the loss scale answers, or trouble.
    fn not_updated(
        &self,
        outcome: &StepOutcome,
        samples: &[&str],
        log: &mut RunLog,
        observer: &mut dyn Observer,
    ) -> Result<(), RunError> {
        let step = self.trainer.steps();
        let text = if outcome.micro_losses.is_empty() {
            format!("step {step}: no sample with anything to learn; the weights stay as they are")
        } else if self.trainer.options().loss_scale.dynamic && outcome.loss.is_finite() {
            let scale = self.trainer.options().loss_scale.scale;
            format!("step {step}: the gradient overflowed; the loss scale is {scale} from now on")
        } else if self.config.optim.on_nan == OnNan::Skip {
            let (loss, norm) = (outcome.loss, outcome.grad_norm);
            let samples = samples.join(", ");
            format!("step {step} left out: loss {loss}, norm {norm}; its samples: {samples}")
        } else {
            return Err(RunError::NotFinite {
                step,
                loss: outcome.loss,
                grad_norm: outcome.grad_norm,
                samples: samples.join(", "),
            });
        };
        log.write(&NoteRecord { step, text: text.clone(), seconds: self.seconds }.into())?;
        observer.note(&text);
        Ok(())
    }

    /// Checks the model on the held-out samples; the best so far is saved.
    fn check(&mut self, log: &mut RunLog, observer: &mut dyn Observer) -> Result<(), RunError> {
        let (Some(options), Some((loader, indices))) = (&self.config.data.validation, &self.data.validation)
        else {
            return Ok(());
        };
        let settings = EvaluateOptions {
            batch_size: options.batch_size,
            loss: true,
            max_new_tokens: options.generate.then_some(options.max_new_tokens),
        };
        let model = self.trainer.model().clone().valid();
        let result = evaluate(&model, loader, indices, &settings, &mut |_| true)?;
        let step = self.trainer.steps();
        let record = EvalRecord {
            step,
            loss: result.loss.unwrap_or(f64::NAN),
            exact_match: result.exact_match(),
            samples: result.samples,
            seconds: self.seconds,
        };
        log.write(&record.clone().into())?;
        observer.evaluated(&record);
        let (metric, value, better): (_, _, fn(f64, f64) -> bool) = match record.exact_match {
            Some(share) => ("exact_match", share, |new, old| new > old),
            None => ("loss", record.loss, |new, old| new < old),
        };
        let improved =
            self.best.as_ref().is_none_or(|best| best.metric != metric || better(value, best.value));
        if improved && value.is_finite() {
            let best = Best { step, metric: metric.to_owned(), value };
            self.best = Some(best.clone());
            self.save(observer)?;
            let rotation = self.store.mark_best(&best)?;
            rotation.problems.iter().for_each(|problem| observer.note(&problem.to_string()));
        }
        self.evaluation = Some(record);
        Ok(())
    }

    /// Saves a checkpoint of the step that was made last, unless there is one.
    fn save(&mut self, observer: &mut dyn Observer) -> Result<(), RunError> {
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

    fn write_model(&self, folder: &Path) -> tg_llava_core::Result<()> {
        let form = SavedForm::of(self.trainer.options().parts, self.config.model.init == Init::Random);
        let limit = self.config.run.max_shard_bytes;
        save_trained(self.trainer.model(), folder, form, &self.plan.start, limit)
    }

    /// The last checkpoint, the trained model in `output_dir`, and the plot.
    fn finish(
        &mut self,
        log: RunLog,
        interrupted: bool,
        observer: &mut dyn Observer,
    ) -> Result<Summary, RunError> {
        self.save(observer)?;
        let saved = match interrupted {
            true => self.store.path_of(self.trainer.steps()),
            false => {
                self.write_model(&self.config.output_dir)?;
                self.config.output_dir.clone()
            }
        };
        if let Err(error) = log.plot(&self.config) {
            observer.note(&format!("no plot: {error}"));
        }
        let mut notices = self.data.loader.notices();
        notices.extend(self.data.validation.iter().flat_map(|(loader, _)| loader.notices()));
        notices.dedup();
        Ok(Summary {
            steps: self.trainer.steps(),
            total_steps: self.total_steps,
            loss: self.last_loss,
            evaluation: self.evaluation.clone(),
            best: self.best.clone(),
            saved,
            interrupted,
            notices,
        })
    }
}

/// What decides the next step besides tensors and data. All randomness is drawn afresh from the seed and the
/// step's number, so no generator's state is kept.
#[derive(serde::Serialize, serde::Deserialize)]
struct RngState {
    loss_scale: LossScale,
    adamw_steps: std::collections::BTreeMap<String, i32>,
}

fn restore(trainer: &mut Trainer, checkpoint: &Checkpoint, state: &TrainState) -> Result<(), RunError> {
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

/// The files that a run writes while it goes on.
struct RunLog {
    metrics: MetricsLog,
    events: EventWriter,
}

impl RunLog {
    fn open(config: &TrainConfig, step: usize) -> Result<Self, RunError> {
        let dir = &config.output_dir;
        let path = dir.join(RESOLVED);
        let text = config.to_toml().map_err(StartError::from)?;
        std::fs::write(&path, text).map_err(|source| crate::log::LogError::Io { path, source })?;
        let (metrics, events) = match step {
            0 => (MetricsLog::create(dir.join(METRICS))?, EventWriter::create(dir.join(EVENTS))?),
            _ => (MetricsLog::resume(dir.join(METRICS), step)?, EventWriter::resume(dir.join(EVENTS), step)?),
        };
        Ok(Self { metrics, events })
    }

    fn write(&mut self, record: &Record) -> Result<(), RunError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.append(record)?;
        Ok(self.events.record(record, now.as_secs_f64())?)
    }

    fn plot(&self, config: &TrainConfig) -> Result<(), RunError> {
        let records = read_metrics(self.metrics.path())?;
        let name =
            config.output_dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(plot_run(config.output_dir.join(PLOT), &name, &records)?)
    }
}
