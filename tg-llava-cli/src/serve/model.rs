//! The thread that owns the model: requests in by a channel, events out by one channel a request.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Receiver;

use tg_llava_core::assistant::Assistant;
use tg_llava_core::generate::{
    Engine, EngineOptions, Event, FinishReason, Logprobs, PictureCounts, RequestId,
};
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

/// Answers until nobody can ask any more.
pub fn serve(assistant: &Assistant, limits: ModelLimits, commands: &Receiver<Command>, metrics: &Metrics) {
    let (running, waiting) = (BTreeMap::new(), VecDeque::new());
    let engine = new_engine(assistant, limits);
    let mut desk = Desk { assistant, limits, metrics, engine, running, waiting };
    loop {
        if desk.engine.is_empty() && desk.waiting.is_empty() {
            desk.tell();
            let Ok(command) = commands.recv() else { return };
            desk.hear(command);
        }
        commands.try_iter().for_each(|command| desk.hear(command));
        // What the device does may panic; whoever is in the engine then is told, and the others go on.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| desk.work())) {
            desk.fail_all(&message_of(&*panic));
        }
    }
}

fn new_engine(assistant: &Assistant, limits: ModelLimits) -> Engine<'_> {
    Engine::with_options(&assistant.model, Some(&assistant.tokenizer), limits.engine)
}

impl<'m> Desk<'m> {
    fn hear(&mut self, command: Command) {
        match command {
            Command::Ask(ask) => self.waiting.push_back(*ask),
            Command::Cancel(number) => {
                self.waiting.retain(|ask| ask.number != number);
                let request = self.running.iter().find(|(_, running)| running.number == number);
                if let Some(request) = request.map(|(request, _)| *request) {
                    self.running.remove(&request);
                    self.engine.cancel(request);
                }
            }
        }
    }

    /// Brings everybody one step on. At most one request's pictures are looked at before, so that nobody's next token waits
    /// for all of them.
    fn work(&mut self) {
        while let Some(ask) = self.next_in_line() {
            let looks = !ask.work.pictures.is_empty();
            self.admit(ask);
            if looks && self.running.len() > 1 {
                break;
            }
        }
        self.tell();
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
        let Ask { number, work: Work { mut request, pictures, prompt_tokens }, events } = ask;
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

    fn tell(&self) {
        self.metrics.running.set(self.running.len() as u64);
        self.metrics.waiting.set(self.waiting.len() as u64);
        let PictureCounts { vision, guided } = self.engine.picture_counts();
        self.metrics.vision_hits.set(vision.hits);
        self.metrics.vision_misses.set(vision.misses);
        self.metrics.guided_hits.set(guided.hits);
        self.metrics.guided_misses.set(guided.misses);
    }
}

/// What a panic said.
pub fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}
