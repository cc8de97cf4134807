//! The run under burn-train: its events, terminal view and interrupter, with our own loop as the strategy.

use std::sync::{Arc, Mutex, PoisonError};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::lr_scheduler::constant::ConstantLr;
use burn::module::Module;
use burn::optim::SgdConfig;
use burn::tensor::{Device, ExecutionError, Tensor, TensorReadError};
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Adaptor, LearningRateMetric, LossInput, LossMetric, Metric, MetricAttributes, MetricMetadata, MetricName,
    Numeric, NumericAttributes, NumericEntry, SerializedEntry,
};
use burn::train::renderer::MetricsRenderer;
use burn::train::{
    EventProcessorTraining, InferenceStep, Interrupter, ItemLazy, Learner, LearnerEvent,
    SupervisedLearningStrategy, SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader,
    TrainOutput, TrainStep, TrainingComponents, TrainingItem, TrainingStrategy, ValidLoader,
};
use tg_llava_core::model::{ModelBatch, TgLlava};

use super::{Observer, RunError, Session, Summary};
use crate::log::{EvalRecord, StepRecord};

/// The model as burn-train sees it.
#[derive(Module, Debug)]
struct Learning {
    model: TgLlava,
}

/// The numbers of one step or check, for burn-train's metrics.
#[derive(Debug, Clone, Default)]
pub struct StepMetrics {
    /// Mean loss.
    pub loss: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens a second.
    pub tokens_per_s: f64,
    /// Share of the time spent waiting for data, in percent.
    pub data_wait: f64,
    /// Share of right answers, in percent; NaN where none were generated.
    pub exact_match: f64,
}

/// Runs `session` under burn-train. `renderer` shows its metrics, and `interrupter` ends it after the step under way;
/// `observer` sees the same events.
///
/// # Errors
/// As [`Session::run`].
pub fn launch(
    session: Session,
    renderer: Box<dyn MetricsRenderer>,
    interrupter: &Interrupter,
    observer: Box<dyn Observer + Send>,
) -> Result<Summary, RunError> {
    let directory = session.config().output_dir.clone();
    let learner = Learner::new(
        Learning { model: session.trainer().model().clone() },
        // Steps, schedule and optimizer are the session's: f32 state by path, clipping by the global norm.
        SgdConfig::new().init(),
        ConstantLr::new(0.0),
    );
    let shared = Arc::new(Shared { run: Mutex::new(Some((session, observer))), result: Mutex::new(None) });
    let strategy = RunStrategy(Arc::clone(&shared));
    let ended = SupervisedTraining::new(directory, Arc::new(OwnLoader), Arc::new(OwnLoader))
        .with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)))
        .with_interrupter(interrupter.clone())
        .with_application_logger(None)
        .with_metric_logger(InMemoryMetricLogger::default())
        .renderer(renderer)
        .metric_train_numeric(LossMetric::new())
        .metric_valid_numeric(LossMetric::new())
        .metric_train_numeric(LearningRateMetric::new())
        .metric_train_numeric(Number::new("Gradient norm", |m| m.grad_norm))
        .metric_train_numeric(Number::new("Tokens per second", |m| m.tokens_per_s))
        .metric_train_numeric(Number::new("Waiting for data (%)", |m| m.data_wait))
        .metric_valid_numeric(Number::new("Exact match (%)", |m| m.exact_match))
        .launch(learner);
    let result = shared.result.lock().unwrap_or_else(PoisonError::into_inner).take();
    let summary = result.unwrap_or_else(|| Err(RunError::Engine("the run did not start".into())))?;
    match ended.error {
        Some(error) => Err(RunError::Engine(error.to_string())),
        None => Ok(summary),
    }
}

struct Shared {
    run: Mutex<Option<(Session, Box<dyn Observer + Send>)>>,
    result: Mutex<Option<Result<Summary, RunError>>>,
}

struct RunStrategy(Arc<Shared>);

impl SupervisedLearningStrategy<Learning> for RunStrategy {
    fn fit(
        &self,
        components: TrainingComponents<Learning>,
        learner: Learner<Learning>,
        _train: TrainLoader<Learning>,
        _valid: ValidLoader<Learning>,
        _starting_epoch: usize,
    ) -> (Learning, SupervisedTrainingEventProcessor<Learning>) {
        let mut processor = components.event_processor;
        let run = self.0.run.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((mut session, mut observer)) = run else { return (learner.model(), processor) };
        // The session replaces the weights; a second owner would only keep the old ones alive.
        drop(learner);
        let interrupter = components.interrupter;
        let total_items = session.total_steps();
        let start = LearnerEvent::StartSplit { epoch_number: 1, total_items };
        interrupter.fail_on_error(processor.process_train(start));
        let mut events =
            Events { processor: &mut processor, interrupter: &interrupter, observer: observer.as_mut() };
        let result = session.run(&mut events);
        interrupter.fail_on_error(processor.process_train(LearnerEvent::EndSplit(1)));
        *self.0.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        (Learning { model: session.trainer().model().clone() }, processor)
    }
}

/// Passes a session's events on to burn-train and to the observer.
struct Events<'a> {
    processor: &'a mut SupervisedTrainingEventProcessor<Learning>,
    interrupter: &'a Interrupter,
    observer: &'a mut dyn Observer,
}

impl Observer for Events<'_> {
    fn step(&mut self, record: &StepRecord, (done, total): (usize, usize)) {
        let metrics = StepMetrics {
            loss: record.loss,
            grad_norm: record.grad_norm.unwrap_or(f64::NAN),
            tokens_per_s: record.tokens_per_s,
            data_wait: 100.0 * record.data_wait,
            exact_match: f64::NAN,
        };
        let progress = Progress::new(done, total, Some("steps".to_owned()));
        let item = TrainingItem::new(metrics, progress, Some(done), Some(record.lr.into()));
        self.interrupter.fail_on_error(self.processor.process_train(LearnerEvent::ProcessedItem(item)));
        self.observer.step(record, (done, total));
    }

    fn evaluated(&mut self, record: &EvalRecord) {
        let metrics = StepMetrics {
            loss: record.loss,
            exact_match: record.exact_match.map_or(f64::NAN, |share| 100.0 * share),
            ..StepMetrics::default()
        };
        let progress = Progress::new(record.samples, record.samples, Some("samples".to_owned()));
        let item = TrainingItem::new(metrics, progress, Some(record.step), None);
        let events = [
            LearnerEvent::StartSplit { epoch_number: 1, total_items: record.samples },
            LearnerEvent::ProcessedItem(item),
            LearnerEvent::EndSplit(1),
        ];
        for event in events {
            self.interrupter.fail_on_error(self.processor.process_valid(event));
        }
        self.observer.evaluated(record);
    }

    fn note(&mut self, text: &str) {
        self.observer.note(text);
    }

    fn should_stop(&mut self) -> bool {
        self.interrupter.should_stop() || self.observer.should_stop()
    }
}

impl TrainStep for Learning {
    type Input = ModelBatch;
    type Output = StepMetrics;

    fn step(&self, batch: ModelBatch) -> TrainOutput<StepMetrics> {
        let loss = self.model.loss(&batch).unwrap_or_else(|error| panic!("{error}"));
        let value = loss.clone().inner().into_scalar::<f32>();
        let metrics = StepMetrics { loss: value.into(), ..StepMetrics::default() };
        TrainOutput::new(self, loss.backward(), metrics)
    }
}

impl InferenceStep for Learning {
    type Input = ModelBatch;
    type Output = StepMetrics;

    fn step(&self, batch: ModelBatch) -> StepMetrics {
        let loss = self.model.loss(&batch).unwrap_or_else(|error| panic!("{error}"));
        StepMetrics { loss: loss.into_scalar::<f32>().into(), ..StepMetrics::default() }
    }
}

impl ItemLazy for StepMetrics {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<LossInput> for StepMetrics {
    fn adapt(&self) -> LossInput {
        LossInput::new(Tensor::from_floats([self.loss as f32], &Device::default()))
    }
}

impl Adaptor<Self> for StepMetrics {
    fn adapt(&self) -> Self {
        self.clone()
    }
}

/// One of the numbers as a metric.
#[derive(Clone)]
struct Number {
    name: MetricName,
    pick: fn(&StepMetrics) -> f64,
    state: NumericMetricState,
}

impl Number {
    fn new(name: &str, pick: fn(&StepMetrics) -> f64) -> Self {
        Self { name: Arc::new(name.to_owned()), pick, state: NumericMetricState::default() }
    }
}

impl Metric for Number {
    type Input = StepMetrics;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes { unit: None, higher_is_better: true }.into()
    }

    fn update(
        &mut self,
        item: &StepMetrics,
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.state.update((self.pick)(item), 1);
        Ok(self.state.compute_update(FormatOptions::new(self.name()).precision(2)))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.state.compute_final(FormatOptions::new(self.name()).precision(2)))
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl Numeric for Number {
    fn value(&self) -> Option<NumericEntry> {
        Some(self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}

/// burn-train's loaders go through an epoch from its start; a session goes on from any sample and reads its own
/// batches, so this one has none.
struct OwnLoader;

impl DataLoader<ModelBatch> for OwnLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<ModelBatch> + 'a> {
        Box::new(NoBatches)
    }

    fn num_items(&self) -> usize {
        0
    }

    fn to_device(&self, _device: &Device) -> Arc<dyn DataLoader<ModelBatch>> {
        Arc::new(Self)
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<ModelBatch>> {
        Arc::new(Self)
    }
}

struct NoBatches;

impl Iterator for NoBatches {
    type Item = Result<ModelBatch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}

impl DataLoaderIterator<ModelBatch> for NoBatches {
    fn progress(&self) -> Progress {
        Progress::new(0, 0, None)
    }
}
