//! Beam searches are those of transformers.

use super::*;

/// Searches of a decoder by Hugging Face, as tests/make_beams.py records them.
#[derive(serde::Deserialize)]
struct Search {
    model: String,
    prompt_ids: Vec<i64>,
    num_beams: usize,
    length_penalty: f64,
    early_stopping: serde_json::Value,
    repetition_penalty: f64,
    eos_token_ids: Vec<i64>,
    max_new_tokens: usize,
    answers: Vec<Found>,
}

#[derive(serde::Deserialize)]
struct Found {
    ids: Vec<i64>,
}

impl Search {
    fn request(&self) -> Request {
        let early_stopping = match &self.early_stopping {
            serde_json::Value::Bool(false) => EarlyStopping::Heuristic,
            serde_json::Value::Bool(true) => EarlyStopping::AtOnce,
            _ => EarlyStopping::Never,
        };
        let beams =
            BeamOptions { num_beams: self.num_beams, length_penalty: self.length_penalty, early_stopping };
        let options = GenerateOptions {
            max_new_tokens: self.max_new_tokens,
            repetition_penalty: self.repetition_penalty,
            eos_token_ids: self.eos_token_ids.clone(),
            num_answers: self.num_beams,
            beams: Some(beams),
            ..GenerateOptions::default()
        };
        Request::text(self.prompt_ids.clone(), options)
    }
}

/// Each search alone, and all in company with answers that are sampled.
#[test]
fn beam_searches_equal_those_of_transformers() {
    let text = std::fs::read_to_string(repository().join("tests/fixtures/beams.json")).unwrap();
    let mut golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    let searches: Vec<Search> = serde_json::from_value(golden["searches"].take()).unwrap();
    assert_eq!(searches.len(), 30);
    for model in ["vicuna-tiny", "llama3-tiny", "qwen2-tiny"] {
        let assistant = load(&repository().join("tests/fixtures/models").join(model));
        let (mut engine, mut outcomes) = (Engine::new(&assistant.model, None), Outcomes::new());
        let others = GenerateOptions { num_answers: 3, max_new_tokens: 9, ..GenerateOptions::default() };
        let mut together = Vec::new();
        for search in searches.iter().filter(|search| search.model == model) {
            together.push((admit(&mut engine, &mut outcomes, search.request()), search));
            admit(&mut engine, &mut outcomes, Request::text(vec![5, 6, 7], others.clone()));
            step(&mut engine, &mut outcomes);
        }
        finish(&mut engine, &mut outcomes);
        for (id, search) in together {
            let mut engine = Engine::new(&assistant.model, None);
            let mut alone = Outcomes::new();
            let alone_id = admit(&mut engine, &mut alone, search.request());
            finish(&mut engine, &mut alone);
            assert_eq!(alone[&alone_id], outcomes[&id]);
            let ours: Vec<&Vec<i64>> = outcomes[&id].answers.values().map(|told| &told.tokens).collect();
            let theirs: Vec<&Vec<i64>> = search.answers.iter().map(|found| &found.ids).collect();
            assert_eq!(ours, theirs, "{model}: {:?}", search.prompt_ids);
        }
    }
}

/// A search that ends answers by the text of a token finds what one finds that ends them by the token.
#[test]
fn a_stop_string_ends_a_beam_as_a_token_does() {
    let mut compared = 0;
    for model in ["vicuna-tiny", "llama3-tiny", "qwen2-tiny"] {
        let assistant = load(&repository().join("tests/fixtures/models").join(model));
        let vocabulary: Vec<String> = (0..assistant.model.config().llm.vocab_size as u32)
            .map(|id| assistant.tokenizer.decode_verbatim(&[id], true).unwrap_or_default())
            .collect();
        for first in 0..6 {
            compared += stops_compared(&assistant, &vocabulary, &[1, 20 + first, 400 - 7 * first]);
        }
    }
    assert!(compared > 3, "{compared}");
}

/// Ends the search behind `prompt` by each token that it finds and whose text tells it from all others; how many answers ended so.
fn stops_compared(assistant: &Assistant, vocabulary: &[String], prompt: &[i64]) -> usize {
    let search = |eos_token_ids: Vec<i64>, stop_strings: Vec<String>| {
        let options = GenerateOptions {
            max_new_tokens: 8,
            num_answers: 3,
            beams: Some(BeamOptions::new(3)),
            eos_token_ids,
            stop_strings,
            ..GenerateOptions::default()
        };
        alone(assistant, Request::text(prompt.to_vec(), options))
    };
    let tokens = |outcome: &Outcome| -> Vec<Vec<i64>> {
        outcome.answers.values().map(|told| told.tokens.clone()).collect()
    };
    let mut compared = 0;
    for token in tokens(&search(Vec::new(), Vec::new())).concat() {
        let text = vocabulary[token as usize].trim();
        // Raw bytes are text only once another token follows.
        let raw = assistant.tokenizer.token(token as u32).is_none_or(|name| name.starts_with("<0x"));
        let alike = vocabulary.iter().filter(|other| other.contains(text)).count();
        if raw || text.is_empty() || text.contains('\u{FFFD}') || alike > 1 {
            continue;
        }
        let by_text = search(Vec::new(), vec![text.to_owned()]);
        assert_eq!(tokens(&by_text), tokens(&search(vec![token], Vec::new())), "{text:?}");
        for told in by_text.answers.values().filter(|told| told.tokens.last() == Some(&token)) {
            assert_eq!(told.reason, Some(FinishReason::StopString));
            assert!(!told.text.contains(text), "{text:?} in {:?}", told.text);
            compared += 1;
        }
    }
    compared
}
