//! The thread that owns the model: requests in by a channel, events out by one channel a request.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Receiver;

use tg_llava_core::assistant::Assistant;
use tg_llava_core::generate::{Engine, EngineOptions, Event, FinishReason, Logprobs, RequestId};
use tokio::sync::mpsc::UnboundedSender;

use super::intake::Work;
use super::metrics::Metrics;

/// What the model's thread is told.
pub enum Command {
    /// Answer this.
    Ask(Box<Ask>),
    /// Nobody waits for the request of this number any more; it may be complete.
    Cancel(u64),
}

/// A request that waits for its answers.
pub struct Ask {
    /// Its number, never used twice.
    pub number: u64,
    /// The number of the model that is asked.
    pub of: usize,
    /// What is asked.
    pub work: Work,
    /// Where the answers go: not more than their tokens, so that it is bounded by them.
    pub events: UnboundedSender<Result<ModelEvent, Trouble>>,
}

/// What became of a request.
#[derive(Debug)]
pub enum ModelEvent {
    /// An answer's next token, with the text that became certain.
    Token {
        /// Which of the answers.
        answer: usize,
        /// The token.
        token: i64,
        /// Where they are asked for.
        logprobs: Option<Logprobs>,
        /// Whole characters, maybe none.
        text: String,
    },
    /// An answer is complete.
    Finished {
        /// Which of the answers.
        answer: usize,
        /// Why.
        reason: FinishReason,
        /// What was held back.
        text: String,
    },
}

/// Why there will be no more.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// The request cannot be answered.
    Refused(String),
    /// Something went wrong that is not the request's fault.
    Broken(String),
}

/// How much the model does at once.
#[derive(Debug, Clone, Copy)]
pub struct ModelLimits {
    /// Most answers under way; a request that asks for more runs alone.
    pub max_running: usize,
    /// The engine's budgets.
    pub engine: EngineOptions,
}

impl ModelLimits {
    /// What each of several models has of these.
    fn shared_by(self, models: usize) -> Self {
        let share = |bytes: u64| bytes / models.max(1) as u64;
        let engine = EngineOptions {
            cache_bytes: self.engine.cache_bytes.map(share),
            vision_bytes: share(self.engine.vision_bytes),
            guided_bytes: share(self.engine.guided_bytes),
            ..self.engine
        };
        Self { engine, ..self }
    }
}

/// A request in the engine.
struct Running {
    number: u64,
    answers: usize,
    events: UnboundedSender<Result<ModelEvent, Trouble>>,
}

/// The engine, who is in it, and who waits.
struct Desk<'m> {
    assistant: &'m Assistant,
    limits: ModelLimits,
    metrics: &'m Metrics,
    engine: Engine<'m>,
    running: BTreeMap<RequestId, Running>,
    waiting: VecDeque<Ask>,
}

/// Answers until nobody can ask any more. Models take turns, a step each.
pub fn serve(assistants: &[Assistant], limits: ModelLimits, commands: &Receiver<Command>, metrics: &Metrics) {
    let limits = limits.shared_by(assistants.len());
    let desk = |assistant| Desk {
        assistant,
        limits,
        metrics,
        engine: new_engine(assistant, limits),
        running: BTreeMap::new(),
        waiting: VecDeque::new(),
    };
    let mut desks: Vec<Desk<'_>> = assistants.iter().map(desk).collect();
    loop {
        if desks.iter().all(Desk::is_idle) {
            tell(&desks, metrics);
            let Ok(command) = commands.recv() else { return };
            hear(&mut desks, command);
        }
        commands.try_iter().for_each(|command| hear(&mut desks, command));
        for index in 0..desks.len() {
            if desks[index].is_idle() {
                continue;
            }
            // What the device does may panic; whoever is in the engine then is told, and the others go on.
            let worked = catch_unwind(AssertUnwindSafe(|| {
                desks[index].admit_waiting();
                tell(&desks, metrics);
                desks[index].step();
            }));
            if let Err(panic) = worked {
                desks[index].fail_all(&message_of(&*panic));
            }
        }
    }
}

fn hear(desks: &mut [Desk<'_>], command: Command) {
    match command {
        Command::Ask(ask) => desks[ask.of].waiting.push_back(*ask),
        Command::Cancel(number) => desks.iter_mut().for_each(|desk| desk.cancel(number)),
    }
}

/// What all models together are at.
fn tell(desks: &[Desk<'_>], metrics: &Metrics) {
    let sum = |of: &dyn Fn(&Desk<'_>) -> u64| desks.iter().map(of).sum();
    metrics.running.set(sum(&|desk| desk.running.len() as u64));
    metrics.waiting.set(sum(&|desk| desk.waiting.len() as u64));
    metrics.vision_hits.set(sum(&|desk| desk.engine.picture_counts().vision.hits));
    metrics.vision_misses.set(sum(&|desk| desk.engine.picture_counts().vision.misses));
    metrics.guided_hits.set(sum(&|desk| desk.engine.picture_counts().guided.hits));
    metrics.guided_misses.set(sum(&|desk| desk.engine.picture_counts().guided.misses));
}

fn new_engine(assistant: &Assistant, limits: ModelLimits) -> Engine<'_> {
    Engine::with_options(&assistant.model, Some(&assistant.tokenizer), limits.engine)
}

impl<'m> Desk<'m> {
    fn is_idle(&self) -> bool {
        self.engine.is_empty() && self.waiting.is_empty()
    }

    fn cancel(&mut self, number: u64) {
        self.waiting.retain(|ask| ask.number != number);
        let request = self.running.iter().find(|(_, running)| running.number == number);
        if let Some(request) = request.map(|(request, _)| *request) {
            self.running.remove(&request);
            self.engine.cancel(request);
        }
    }

    /// Takes in who waits, as far as there is room. At most one request's pictures are looked at before the next step, so that nobody's
    /// next token waits for all of them.
    fn admit_waiting(&mut self) {
        while let Some(ask) = self.next_in_line() {
            let looks = !ask.work.pictures.is_empty();
            self.admit(ask);
            if looks && self.running.len() > 1 {
                break;
            }
        }
    }

    /// Brings everybody one step on.
    fn step(&mut self) {
        for event in self.engine.step() {
            self.pass_on(event);
        }
    }

    /// The request that is to be answered next, where there is room for it. Nobody is overtaken.
    fn next_in_line(&mut self) -> Option<Ask> {
        let answers = self.waiting.front()?.work.request.options.num_answers;
        let under_way: usize = self.running.values().map(|running| running.answers).sum();
        let fits = under_way == 0 || under_way + answers <= self.limits.max_running;
        fits.then(|| self.waiting.pop_front())?
    }

    fn admit(&mut self, ask: Ask) {
        let Ask { number, of: _, work: Work { mut request, pictures, prompt_tokens }, events } = ask;
        let answers = request.options.num_answers;
        // Picture by picture, so that each gives what it gives alone.
        let admitted =
            pictures.into_iter().map(|picture| self.engine.encode(picture)).collect::<Result<_, _>>();
        let admitted = admitted.and_then(|images| {
            request.images = images;
            self.engine.admit(request)
        });
        match admitted {
            Ok(request) => {
                self.metrics.prompt_tokens.add(prompt_tokens as u64);
                self.running.insert(request, Running { number, answers, events });
            }
            Err(error) => {
                let _ = events.send(Err(Trouble::Refused(error.to_string())));
            }
        }
    }

    /// Sends an event to whom it concerns. Whoever has gone has cancelled, or is about to.
    fn pass_on(&mut self, event: Event) {
        let (request, event) = match event {
            Event::Token { request, answer, token, logprobs, text, .. } => {
                self.metrics.generated_tokens.add(1);
                (request, Ok(ModelEvent::Token { answer, token, logprobs, text }))
            }
            Event::Finished { request, answer, reason, text } => {
                (request, Ok(ModelEvent::Finished { answer, reason, text }))
            }
            Event::Failed { request, error } => (request, Err(Trouble::Broken(error.to_string()))),
        };
        let Some(running) = self.running.get_mut(&request) else { return };
        running.answers -= usize::from(matches!(event, Ok(ModelEvent::Finished { .. })));
        let over = running.answers == 0 || event.is_err();
        let _ = running.events.send(event);
        if over {
            self.running.remove(&request);
        }
    }

    /// Starts afresh, after something that leaves nobody knows what.
    fn fail_all(&mut self, reason: &str) {
        for running in std::mem::take(&mut self.running).into_values() {
            let _ = running.events.send(Err(Trouble::Broken(reason.to_owned())));
        }
        self.engine = new_engine(self.assistant, self.limits);
    }
}

/// What a panic said.
pub fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}
