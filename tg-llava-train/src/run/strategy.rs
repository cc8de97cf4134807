//! The run under burn-train: its events, terminal view and interrupter, with our own loop as the strategy.

use std::sync::{Arc, Mutex, PoisonError};

use burn::data::dataloader::Progress;
use burn::tensor::TensorReadError;
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    LearningRateMetric, LossMetric, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric,
    NumericAttributes, NumericEntry, SerializedEntry,
};
use burn::train::renderer::MetricsRenderer;
use burn::train::{
    EventProcessorTraining, Interrupter, Learner, LearnerEvent, SupervisedLearningStrategy,
    SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingItem,
    TrainingStrategy, ValidLoader,
};

use super::{Observer, RunError, Session, Summary};
use crate::learner::{EpochLoader, Learning, StepMetrics};
use crate::log::{EvalRecord, StepRecord};

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
    // The session drives model, optimizer and schedule of its own: burn-train's learner keeps the last two to itself, and updates a
    // clone of the first (see `crate::learner`).
    let trainer = session.trainer();
    let learning = Learning::new(trainer.model().clone(), trainer.options().clone());
    let (optimizer, rate) = (learning.optimizer(), learning.rate());
    let learner = Learner::new(learning, optimizer, rate);
    let loader = Arc::new(EpochLoader::new(session.shared_data(), session.config().run.batch_size));
    let shared = Arc::new(Shared { run: Mutex::new(Some((session, observer))), result: Mutex::new(None) });
    let strategy = RunStrategy(Arc::clone(&shared));
    let ended = SupervisedTraining::new(directory, loader.clone(), loader)
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
        let trainer = session.trainer();
        (Learning::new(trainer.model().clone(), trainer.options().clone()), processor)
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
