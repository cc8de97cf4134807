//! An answer in company is the answer alone.

mod beams;
mod pictures;
mod turns;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use proptest::prelude::*;

use super::*;
use crate::assistant::{Assistant, AssistantOptions, Chat};
use crate::error::Error;
use crate::preprocess::{DecodeOptions, decode_file};

fn repository() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/..").into()
}

fn model() -> PathBuf {
    repository().join("tests/fixtures/models/vicuna-tiny")
}

fn assistant() -> Assistant {
    load(&model())
}

fn load(dir: &Path) -> Assistant {
    Assistant::load(dir, &Device::flex(), &AssistantOptions::default(), &mut |_| {}).unwrap()
}

/// What an engine told of a request.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    answers: BTreeMap<usize, Told>,
    error: Option<String>,
}

/// What it told of an answer.
#[derive(Debug, Default, PartialEq)]
struct Told {
    tokens: Vec<i64>,
    scores: Vec<Vec<f32>>,
    logprobs: Vec<Option<Logprobs>>,
    text: String,
    reason: Option<FinishReason>,
}

impl Outcome {
    /// The first answer.
    fn first(&self) -> &Told {
        &self.answers[&0]
    }
}

type Outcomes = BTreeMap<RequestId, Outcome>;

fn step(engine: &mut Engine, outcomes: &mut Outcomes) {
    for event in engine.step() {
        let (Event::Token { request, .. } | Event::Finished { request, .. } | Event::Failed { request, .. }) =
            &event;
        let outcome = outcomes.get_mut(request).expect("an event of a request that runs");
        match event {
            Event::Token { answer, token, scores, logprobs, text, .. } => {
                let told = outcome.answers.entry(answer).or_default();
                told.tokens.push(token);
                told.scores.push(scores);
                told.logprobs.push(logprobs);
                told.text += &text;
            }
            Event::Finished { answer, reason, text, .. } => {
                let told = outcome.answers.entry(answer).or_default();
                told.text += &text;
                told.reason = Some(reason);
            }
            Event::Failed { error, .. } => outcome.error = Some(error.to_string()),
        }
    }
}

fn admit(engine: &mut Engine, outcomes: &mut Outcomes, request: Request) -> RequestId {
    let id = engine.admit(request).unwrap();
    outcomes.insert(id, Outcome::default());
    id
}

fn finish(engine: &mut Engine, outcomes: &mut Outcomes) {
    while !engine.is_empty() {
        step(engine, outcomes);
    }
    assert_eq!(engine.cache.taken(), 0, "every slot is free");
}

fn alone(assistant: &Assistant, request: Request) -> Outcome {
    let (mut engine, mut outcomes) = (assistant.engine(), Outcomes::new());
    let id = admit(&mut engine, &mut outcomes, request);
    finish(&mut engine, &mut outcomes);
    outcomes.remove(&id).unwrap()
}

/// Questions of unequal length with and without pictures, greedy and by chance, with ends of every kind.
fn requests(assistant: &Assistant) -> Vec<Request> {
    let photo = decode_file(model().join("photo.png"), &DecodeOptions::default()).unwrap();
    let photo = assistant.encode_image(&photo).unwrap();
    let mut all = Vec::new();
    for (number, question) in ["Hi", "What is on the table, and why?", "Describe it."].into_iter().enumerate()
    {
        for pictures in 0..3 {
            let mut chat = Chat::new();
            (0..pictures).for_each(|_| chat.show(photo.clone()));
            chat.ask(question).unwrap();
            let sampling = match pictures {
                1 => Sampling::Greedy,
                _ => Sampling::Random { temperature: 1.5, top_k: 0, top_p: 0.9, seed: number as u64 },
            };
            let repetition_penalty = if number == 1 { 1.3 } else { 1.0 };
            let max_new_tokens = 2 + 3 * number + pictures;
            let options = GenerateOptions {
                max_new_tokens,
                sampling,
                repetition_penalty,
                ..assistant.generate_options()
            };
            all.push(assistant.request(&chat, &options).unwrap());
        }
    }
    // Long ones, which may be read in pieces.
    let text = |len: usize| (0..len).map(|place| 3 + (place * 31 % 200) as i64).collect();
    let options = GenerateOptions { max_new_tokens: 6, ..assistant.generate_options() };
    all.extend([150, 333].map(|len| Request::text(text(len), options.clone())));
    // Several answers, and what else was likely.
    for (number, count) in [(2, 3), (4, 2), (8, 2), (9, 4)] {
        all[number].options.num_answers = count;
        all[number].options.top_logprobs = Some(number);
    }
    // One ends by its second token, one by its text.
    let second = alone(assistant, all[4].clone()).first().tokens[1];
    all[4].options.eos_token_ids.push(second);
    let text = alone(assistant, all[7].clone()).first().text.clone();
    let end: String = text.chars().skip(text.chars().count() / 2).take(2).collect();
    all[7].options.stop_strings.push(end);
    all
}

/// Whenever requests come and go, and in whatever pieces their prompts are read: tokens, scores to the bit, texts and ends are
/// those of each request alone.
#[test]
fn rows_join_and_leave_without_a_trace_in_the_others() {
    let assistant = assistant();
    let requests = requests(&assistant);
    let alone: Vec<Outcome> = requests.iter().map(|request| alone(&assistant, request.clone())).collect();
    for reason in [FinishReason::EndOfTurn, FinishReason::StopString, FinishReason::Length] {
        assert!(alone.iter().any(|outcome| outcome.first().reason == Some(reason)), "{reason:?}");
    }
    // Which request comes, how many steps are made before, and which of those before it is cancelled.
    let arrival = (0..requests.len(), 0..4usize, prop::option::weighted(0.2, 0..12usize));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) };
    proptest!(config, |(
        arrivals in prop::collection::vec(arrival, 1..14),
        prefill_tokens in 1..400usize,
        // From what the largest request needs to more than all do.
        tokens in 1400..9000usize,
        guided_bytes in prop::sample::select(vec![0, 2000, 1 << 30]),
    )| {
        let cache_bytes = Some(assistant.model.llm.new_cache().bytes_of(tokens));
        let options = EngineOptions { prefill_tokens, cache_bytes, guided_bytes, ..EngineOptions::default() };
        let mut engine = Engine::with_options(&assistant.model, Some(&assistant.tokenizer), options);
        let mut outcomes = Outcomes::new();
        let mut admitted: Vec<(RequestId, usize)> = Vec::new();
        for (which, steps, cancelled) in arrivals {
            (0..steps).for_each(|_| step(&mut engine, &mut outcomes));
            if let Some(&(id, _)) = cancelled.and_then(|place| admitted.get(place)) {
                if engine.cancel(id) {
                    outcomes.remove(&id);
                }
                prop_assert!(!engine.cancel(id));
            }
            admitted.push((admit(&mut engine, &mut outcomes, requests[which].clone()), which));
        }
        finish(&mut engine, &mut outcomes);
        for (id, which) in admitted {
            if let Some(outcome) = outcomes.get(&id) {
                prop_assert_eq!(outcome, &alone[which]);
            }
        }
    });
}

#[test]
fn a_row_that_fails_leaves_the_others_alone() {
    let assistant = assistant();
    let requests = requests(&assistant);
    let mut damaged = requests[1].clone();
    let features = &mut damaged.images[0].features;
    features.images = features.images.clone() * f32::NAN;
    let (mut engine, mut outcomes) = (assistant.engine(), Outcomes::new());
    let good = admit(&mut engine, &mut outcomes, requests[3].clone());
    let bad = admit(&mut engine, &mut outcomes, damaged);
    finish(&mut engine, &mut outcomes);
    let error = outcomes[&bad].error.as_deref().unwrap();
    assert!(error.starts_with("the scores of token 1 hold NaN"), "{error}");
    assert_eq!(outcomes[&good], alone(&assistant, requests[3].clone()));
}

#[test]
fn what_cannot_be_answered_is_not_admitted() {
    let assistant = assistant();
    let mut engine = Engine::new(&assistant.model, None);
    let text = |ids: Vec<i64>, options| Request::text(ids, options);
    let plain = GenerateOptions::default;
    let beams = |count, num_answers| GenerateOptions {
        num_answers,
        beams: Some(BeamOptions::new(count)),
        ..GenerateOptions::default()
    };
    let refused = [
        (text(vec![1; 512], plain()), "the prompt has 512 tokens and the model's context 512"),
        (text(vec![], plain()), "row 0 is empty"),
        (text(vec![1], GenerateOptions { max_new_tokens: 0, ..plain() }), "max_new_tokens = 0"),
        (text(vec![1], assistant.generate_options()), "stop strings need a tokenizer"),
        (text(vec![1], GenerateOptions { num_answers: 0, ..plain() }), "num_answers = 0"),
        (text(vec![1], beams(2000, 1)), "num_beams = 2000"),
        (text(vec![1], beams(2, 3)), "num_beams = 2; it must be at least num_answers = 3"),
        (
            text(vec![1], GenerateOptions { top_logprobs: Some(1), ..beams(2, 1) }),
            "a beam search takes neither",
        ),
    ];
    for (request, message) in refused {
        let error: Error = engine.admit(request).unwrap_err();
        assert!(error.to_string().starts_with(message), "{error}");
    }
    assert!(engine.is_empty() && engine.step().is_empty());
    assert_eq!(engine.cache.taken(), 0);
}

#[test]
fn the_context_ends_an_answer() {
    let assistant = assistant();
    let (mut engine, mut outcomes) = (Engine::new(&assistant.model, None), Outcomes::new());
    let id = admit(&mut engine, &mut outcomes, Request::text(vec![1; 505], GenerateOptions::default()));
    assert_eq!((engine.len(), engine.prompt_len(id)), (1, Some(505)));
    finish(&mut engine, &mut outcomes);
    let told = outcomes[&id].first();
    assert_eq!((told.tokens.len(), told.reason), (7, Some(FinishReason::Length)));
}

#[test]
fn the_first_of_several_answers_is_that_of_one() {
    let assistant = assistant();
    let sampling = Sampling::Random { temperature: 2.0, top_k: 0, top_p: 1.0, seed: 11 };
    let options = |num_answers| GenerateOptions {
        max_new_tokens: 8,
        sampling,
        num_answers,
        top_logprobs: Some(2),
        ..GenerateOptions::default()
    };
    let request = |num_answers| Request::text(vec![1, 20, 30], options(num_answers));
    let (one, four) = (alone(&assistant, request(1)), alone(&assistant, request(4)));
    assert_eq!(one.first(), four.first());
    let tokens: std::collections::BTreeSet<_> = four.answers.values().map(|told| &told.tokens).collect();
    assert_eq!((four.answers.len(), tokens.len()), (4, 4));
    for (place, logprobs) in one.first().logprobs.iter().enumerate() {
        let scores = &one.first().scores[place];
        let expected = Logprobs::new(scores, one.first().tokens[place], 2);
        assert_eq!(logprobs.as_ref(), Some(&expected));
    }
}
