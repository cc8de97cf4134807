//! The model's checks on held-out samples.

use burn::module::Module;

use super::super::evaluate::{EvaluateOptions, Evaluation, evaluate};
use super::Session;
use super::files::RunLog;
use crate::checkpoint::{Best, Rotation};
use crate::log::{EvalRecord, NoteRecord};
use crate::parallel::watch::{Phase, Progress};
use crate::parallel::{ParallelError, agree};
use crate::run::{Observer, RunError};

impl Session {
    /// Whether the step that was made last is one to check.
    pub(super) fn check_is_due(&self) -> bool {
        let every = self.config.data.validation.as_ref().map(|validation| validation.every);
        every.is_some_and(|every| every.is_due(self.trainer.steps(), self.total_steps))
    }

    /// Checks the step that was resumed from, where the run ended between saving and checking it.
    pub(super) fn make_up_for_check(
        &mut self,
        log: &mut Option<RunLog>,
        observer: &mut dyn Observer,
    ) -> Result<(), RunError> {
        let step = self.trainer.steps();
        if step == 0 || !self.check_is_due() {
            return Ok(());
        }
        // The rank that leads knows.
        let missing = log.as_ref().map_or(Ok(false), |log| log.has_check(step).map(|has| !has));
        if agree(self.trainer.collective(), missing)?.contains(&true) {
            self.check(log, observer)?;
        }
        Ok(())
    }

    /// Checks the model on the held-out samples; the best so far is saved. What goes wrong with the samples or the
    /// answers is told, and the run goes on.
    pub(super) fn check(
        &mut self,
        log: &mut Option<RunLog>,
        observer: &mut dyn Observer,
    ) -> Result<(), RunError> {
        let Some(options) = &self.config.data.validation else { return Ok(()) };
        let _validating = Progress::of_process().during(Phase::Validating);
        let (step, generate) = (self.trainer.steps(), options.generate);
        let mut result = survivable(self.evaluate(generate, observer))?;
        if let (Err(error), true) = (&result, generate) {
            self.tell(&format!("step {step}: validation without answers: {error}"), log, observer)?;
            result = survivable(self.evaluate(false, observer))?;
        }
        let result = match result {
            Ok(Some(result)) => result,
            Ok(None) => return Ok(()),
            Err(error) => return self.tell(&format!("step {step}: no validation: {error}"), log, observer),
        };
        if let Some(first) = result.failures.first() {
            let (count, first) = (result.failures.len(), &first.message);
            let text = format!(
                "step {step}: {count} sample(s) of the validation could not be checked; the first: {first}"
            );
            self.tell(&text, log, observer)?;
        }
        let record = EvalRecord {
            step,
            loss: result.loss.unwrap_or(f64::NAN),
            exact_match: result.exact_match(),
            samples: result.samples,
            seconds: self.seconds,
        };
        // Scores of another kind than the run's cannot be compared, nor can those of no sample.
        if record.exact_match.is_some() == generate && record.samples > 0 {
            self.keep_if_best(&record, observer)?;
        }
        // Last: a resumed run takes a step with a record for checked.
        self.write(log, &record.clone().into())?;
        observer.evaluated(&record);
        self.evaluation = Some(record);
        Ok(())
    }

    /// Looks at the held-out samples, of which each rank takes every so manyeth batch; `None` where there are none, or a rank wants to
    /// stop.
    fn evaluate(
        &mut self,
        generate: bool,
        observer: &mut dyn Observer,
    ) -> Result<Option<Evaluation>, RunError> {
        let (Some(options), Some((loader, indices))) = (&self.config.data.validation, &self.data.validation)
        else {
            return Ok(None);
        };
        let settings = EvaluateOptions {
            batch_size: options.batch_size,
            loss: true,
            max_new_tokens: generate.then_some(options.max_new_tokens),
            beams: None,
        };
        let world = self.trainer.world();
        let batches = indices.chunks(options.batch_size.max(1)).enumerate();
        let own = batches.filter(|(batch, _)| world.owns(*batch)).flat_map(|(_, batch)| batch);
        let own: Vec<usize> = own.copied().collect();
        let model = self.trainer.model().clone().valid();
        let (mut stopped, sign) = (false, Progress::of_process());
        let result = evaluate(&model, loader, &own, &settings, &mut |_| {
            sign.tick();
            stopped = observer.should_stop();
            !stopped
        });
        drop(model);
        let part = result.map(|result| (stopped, result));
        let parts = agree(self.trainer.collective(), part)?;
        if parts.iter().any(|(stopped, _)| *stopped) {
            return Ok(None);
        }
        Ok(Some(Evaluation::of_parts(parts.into_iter().map(|(_, part)| part).collect())))
    }

    /// Marks the step that `record` is of as the best so far, if it is, and saves it.
    fn keep_if_best(&mut self, record: &EvalRecord, observer: &mut dyn Observer) -> Result<(), RunError> {
        let (metric, value, better): (_, _, fn(f64, f64) -> bool) = match record.exact_match {
            Some(share) => ("exact_match", share, |new, old| new > old),
            None => ("loss", record.loss, |new, old| new < old),
        };
        let improved =
            self.best.as_ref().is_none_or(|best| best.metric != metric || better(value, best.value));
        if improved && value.is_finite() {
            let best = Best { step: record.step, metric: metric.to_owned(), value };
            self.best = Some(best.clone());
            self.save(observer)?;
            let marked = match self.writes() {
                true => self.store.mark_best(&best).map_err(RunError::from),
                false => Ok(Rotation::default()),
            };
            let problems = marked.map(|rotation| rotation.problems.iter().map(ToString::to_string).collect());
            let problems: Vec<Vec<String>> = agree(self.trainer.collective(), problems)?;
            problems.iter().flatten().for_each(|problem| observer.note(problem));
        }
        Ok(())
    }

    /// Notes something in words, in the log and to `observer`.
    pub(super) fn tell(
        &self,
        text: &str,
        log: &mut Option<RunLog>,
        observer: &mut dyn Observer,
    ) -> Result<(), RunError> {
        let record = NoteRecord { step: self.trainer.steps(), text: text.to_owned(), seconds: self.seconds };
        self.write(log, &record.into())?;
        observer.note(text);
        Ok(())
    }
}

/// What a check may end with while the run goes on: not where the ranks have lost one another.
fn survivable<T>(result: Result<T, RunError>) -> Result<Result<T, RunError>, RunError> {
    match result {
        Err(error @ RunError::Parallel(ParallelError::Other { .. })) => Ok(Err(error)),
        Err(error @ RunError::Parallel(_)) => Err(error),
        result => Ok(result),
    }
}
