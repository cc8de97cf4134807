//! An answer in company is the answer alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use proptest::prelude::*;

use super::pictures::least_guide_len;
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
    tokens: Vec<i64>,
    scores: Vec<Vec<f32>>,
    text: String,
    reason: Option<FinishReason>,
    error: Option<String>,
}

type Outcomes = BTreeMap<RequestId, Outcome>;

fn step(engine: &mut Engine, outcomes: &mut Outcomes) {
    for event in engine.step() {
        let (Event::Token { request, .. } | Event::Finished { request, .. } | Event::Failed { request, .. }) =
            &event;
        let outcome = outcomes.get_mut(request).expect("an event of a request that runs");
        match event {
            Event::Token { token, scores, text, .. } => {
                outcome.tokens.push(token);
                outcome.scores.push(scores);
                outcome.text += &text;
            }
            Event::Finished { reason, text, .. } => {
                outcome.text += &text;
                outcome.reason = Some(reason);
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
    // One ends by its second token, one by its text.
    let second = alone(assistant, all[4].clone()).tokens[1];
    all[4].options.eos_token_ids.push(second);
    let text = alone(assistant, all[7].clone()).text;
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
        assert!(alone.iter().any(|outcome| outcome.reason == Some(reason)), "{reason:?}");
    }
    // Which request comes, how many steps are made before, and which of those before it is cancelled.
    let arrival = (0..requests.len(), 0..4usize, prop::option::weighted(0.2, 0..12usize));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20) };
    proptest!(config, |(arrivals in prop::collection::vec(arrival, 1..14), prefill_tokens in 1..400usize)| {
        let options = EngineOptions { prefill_tokens };
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
    damaged.images[0].images = damaged.images[0].images.clone() * f32::NAN;
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
    let refused = [
        (text(vec![1; 512], plain()), "the prompt has 512 tokens and the model's context 512"),
        (text(vec![], plain()), "row 0 is empty"),
        (text(vec![1], GenerateOptions { max_new_tokens: 0, ..plain() }), "max_new_tokens = 0"),
        (text(vec![1], assistant.generate_options()), "stop strings need a tokenizer"),
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
    assert_eq!((outcomes[&id].tokens.len(), outcomes[&id].reason), (7, Some(FinishReason::Length)));
}

/// A long prompt is read piece by piece, while another answer goes on with each step.
#[test]
fn a_long_prompt_does_not_hold_up_the_others() {
    let assistant = assistant();
    let mut engine = Engine::with_options(&assistant.model, None, EngineOptions { prefill_tokens: 80 });
    let mut outcomes = Outcomes::new();
    let options = |max_new_tokens| GenerateOptions { max_new_tokens, ..GenerateOptions::default() };
    let short = admit(&mut engine, &mut outcomes, Request::text(vec![1, 5, 9], options(20)));
    step(&mut engine, &mut outcomes);
    let long = admit(&mut engine, &mut outcomes, Request::text(vec![7; 400], options(20)));
    for steps in 1..=5 {
        step(&mut engine, &mut outcomes);
        assert_eq!(outcomes[&short].tokens.len(), 1 + steps);
        assert_eq!(outcomes[&long].tokens.len(), usize::from(steps == 5));
    }
    // Nobody else waits: as many pieces as it takes.
    assert!(engine.cancel(short) && engine.cancel(long));
    let long = admit(&mut engine, &mut outcomes, Request::text(vec![7; 400], options(20)));
    step(&mut engine, &mut outcomes);
    assert_eq!(outcomes[&long].tokens.len(), 1);
}

/// The shipped checkpoint's pictures go through the bridges together.
#[test]
fn questions_about_pictures_are_answered_together_as_alone() {
    let assistant = load(&repository().join("weights/easy-vqa"));
    assert!(least_guide_len(&assistant.model).is_some_and(|least| least < 8));
    let images = repository().join("examples/data/easy-vqa/images/test");
    let mut files: Vec<_> = std::fs::read_dir(images).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let questions =
        ["what color is the shape?", "what shape is in the image?", "is there a red shape in the image?"];
    let mut requests = Vec::new();
    for (file, question) in files.iter().take(5).flat_map(|file| questions.map(|question| (file, question))) {
        let picture = decode_file(file, &DecodeOptions::default()).unwrap();
        let mut chat = Chat::new();
        chat.show(assistant.encode_image(&picture).unwrap());
        chat.ask(question).unwrap();
        requests.push(assistant.request(&chat, &assistant.generate_options()).unwrap());
    }
    let (mut engine, mut outcomes) = (assistant.engine(), Outcomes::new());
    let ids: Vec<_> =
        requests.iter().map(|request| admit(&mut engine, &mut outcomes, request.clone())).collect();
    finish(&mut engine, &mut outcomes);
    for (id, request) in ids.into_iter().zip(requests) {
        assert_eq!(outcomes[&id], alone(&assistant, request));
    }
}
