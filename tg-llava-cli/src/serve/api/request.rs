use serde_json::Value;
use tg_llava_core::generate::{GenerateOptions, Sampling};

use super::fields::wrong_value;
use super::{ApiError, Fields, Message, messages};

/// Temperatures below this take the most probable token: scores divided by less overflow.
const LEAST_TEMPERATURE: f64 = 1e-5;
/// Most answers to one request.
const MAX_ANSWERS: i128 = 8;
/// Most stop strings.
const MAX_STOPS: usize = 4;
/// Most values in the JSON of a request: each takes many times the memory that it takes in the text.
const MAX_VALUES: usize = 100_000;
/// Most alternatives of a token.
const MAX_TOP_LOGPROBS: i128 = 20;

/// A chat completion that was asked for, checked but for its pictures and its length.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// The model's name, where one is given.
    pub model: Option<String>,
    /// What replaces the template's own system text.
    pub system: Option<String>,
    /// What was said and shown, the user's and the assistant's in turn.
    pub turns: Vec<Message>,
    /// What guides the pictures instead of the questions.
    pub guide: Option<String>,
    /// Whether the answer is sent while it grows.
    pub stream: bool,
    /// Whether a stream ends with the usage.
    pub include_usage: bool,
    /// Longest answer in tokens; `None` for what the context leaves.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Division of the scores of tokens that the answer holds; `None` for the checkpoint's own.
    pub repetition_penalty: Option<f64>,
    /// Number of answers.
    pub n: usize,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Whether each token comes with its log-probability, and with those of so many alternatives.
    pub top_logprobs: Option<usize>,
}

impl ChatRequest {
    /// Reads a body. `seed` is drawn for a request without one.
    ///
    /// # Errors
    /// A refusal with status 400 that names the field.
    pub fn read(body: &[u8], seed: impl FnOnce() -> u64) -> Result<Self, ApiError> {
        if values_at_least(body) > MAX_VALUES {
            let message = format!("the body has more than {MAX_VALUES} values");
            return Err(ApiError { param: None, ..ApiError::field("", "invalid_json", message) });
        }
        let body: Value = serde_json::from_slice(body).map_err(|error| ApiError {
            param: None,
            ..ApiError::field("", "invalid_json", format!("the body is no JSON: {error}"))
        })?;
        let fields = Fields::of_body(&body)?;
        refuse_unsupported(fields)?;
        let model = fields.text("model")?.map(str::to_owned);
        let (system, turns) = messages::read(fields.get("messages"))?;
        let stream = fields.flag("stream")?;
        Ok(Self {
            model,
            system,
            turns,
            guide: fields.text("guide")?.map(str::to_owned),
            stream,
            include_usage: include_usage(fields, stream)?,
            max_tokens: max_tokens(fields)?,
            sampling: sampling(fields, seed)?,
            repetition_penalty: fields.number("repetition_penalty", 0.01..=100.0)?,
            n: fields.integer("n", 1..=MAX_ANSWERS)?.unwrap_or(1) as usize,
            stop: stop(fields)?,
            top_logprobs: top_logprobs(fields)?,
        })
    }

    /// How the engine answers, by the checkpoint's own `defaults`: its end tokens and its template's end mark hold as well.
    pub fn options(&self, defaults: GenerateOptions) -> GenerateOptions {
        GenerateOptions {
            max_new_tokens: self.max_tokens.unwrap_or(usize::MAX),
            sampling: self.sampling,
            repetition_penalty: self.repetition_penalty.unwrap_or(defaults.repetition_penalty),
            stop_strings: defaults.stop_strings.iter().chain(&self.stop).cloned().collect(),
            num_answers: self.n,
            top_logprobs: self.top_logprobs,
            ..defaults
        }
    }
}

/// How many values a JSON text has at least: each but the first in a list or an object follows a comma, and each list or object begins
/// with a bracket, outside of strings.
fn values_at_least(text: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in text {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b',' | b'[' | b'{') => count += 1,
            _ => {}
        }
    }
    count
}

/// Fields that would change the answer are refused, never ignored.
fn refuse_unsupported(fields: Fields<'_>) -> Result<(), ApiError> {
    let is_empty = |value: &Value| match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    for name in ["tools", "functions", "logit_bias"] {
        fields.refuse(name, is_empty)?;
    }
    for name in ["frequency_penalty", "presence_penalty"] {
        fields.number(name, -2.0..=2.0)?;
        fields.refuse(name, |value| value.as_f64() == Some(0.0))?;
    }
    let Some(format) = fields.get("response_format") else { return Ok(()) };
    let kind = Fields::of(format, "response_format")?.get("type").and_then(Value::as_str);
    match kind {
        Some("text") => Ok(()),
        Some("json_object" | "json_schema") => Err(ApiError::field(
            "response_format",
            "unsupported_value",
            "response_format text alone is supported: this server cannot hold an answer to a form",
        )),
        _ => Err(wrong_value("response_format", "{\"type\": \"text\"}")),
    }
}

fn include_usage(fields: Fields<'_>, stream: bool) -> Result<bool, ApiError> {
    let Some(options) = fields.get("stream_options") else { return Ok(false) };
    let options = Fields::of(options, "stream_options")?;
    if !stream {
        return Err(ApiError::field("stream_options", "invalid_value", "stream_options needs stream = true"));
    }
    options.flag("include_usage")
}

fn max_tokens(fields: Fields<'_>) -> Result<Option<usize>, ApiError> {
    let read = |name| fields.integer(name, 1..=i128::from(u32::MAX));
    let (first, second) = (read("max_completion_tokens")?, read("max_tokens")?);
    Ok(first.or(second).map(|count| count as usize))
}

fn sampling(fields: Fields<'_>, seed: impl FnOnce() -> u64) -> Result<Sampling, ApiError> {
    let temperature = fields.number("temperature", 0.0..=2.0)?.unwrap_or(1.0);
    let top_p = fields.number("top_p", 0.0..=1.0)?.unwrap_or(1.0);
    if top_p == 0.0 {
        return Err(wrong_value("top_p", "a number above 0 and at most 1"));
    }
    // -1 is how vLLM's clients say all.
    let top_k = fields.integer("top_k", -1..=i128::from(u32::MAX))?.unwrap_or(0).max(0) as usize;
    // Negative seeds are as good as any.
    let given = fields.integer("seed", i128::from(i64::MIN)..=i128::from(u64::MAX))?.map(|seed| seed as u64);
    if temperature < LEAST_TEMPERATURE {
        return Ok(Sampling::Greedy);
    }
    Ok(Sampling::Random { temperature, top_k, top_p, seed: given.unwrap_or_else(seed) })
}

fn stop(fields: Fields<'_>) -> Result<Vec<String>, ApiError> {
    let expected = format!("a string or a list of at most {MAX_STOPS} strings, none empty");
    let list = match fields.get("stop") {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(list)) => {
            let texts =
                list.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
            texts.ok_or_else(|| wrong_value("stop", &expected))?
        }
        Some(_) => return Err(ApiError::field("stop", "invalid_type", format!("stop must be {expected}"))),
    };
    match list.len() <= MAX_STOPS && list.iter().all(|text| !text.is_empty()) {
        true => Ok(list),
        false => Err(wrong_value("stop", &expected)),
    }
}

fn top_logprobs(fields: Fields<'_>) -> Result<Option<usize>, ApiError> {
    let wanted = fields.flag("logprobs")?;
    let count = fields.integer("top_logprobs", 0..=MAX_TOP_LOGPROBS)?;
    if count.is_some() && !wanted {
        return Err(ApiError::field("top_logprobs", "invalid_value", "top_logprobs needs logprobs = true"));
    }
    Ok(wanted.then(|| count.unwrap_or(0) as usize))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(more: Value) -> Result<ChatRequest, ApiError> {
        let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ChatRequest::read(body.to_string().as_bytes(), || 7)
    }

    #[test]
    fn what_is_not_given_is_openais_default() {
        let request =
            read(json!({"model": null, "stop": null, "tools": [], "logit_bias": {}, "surprise": 1})).unwrap();
        let sampling = Sampling::Random { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 7 };
        assert_eq!((request.sampling, request.n, request.max_tokens), (sampling, 1, None));
        assert_eq!((request.stream, request.top_logprobs, request.stop.len()), (false, None, 0));
    }

    #[test]
    fn what_is_given_holds() {
        let request = read(json!({
            "max_tokens": 9, "max_completion_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": -1, "seed": -1, "n": 8,
            "stop": "x", "logprobs": true, "top_logprobs": 20, "stream": true, "stream_options": {"include_usage": true},
            "repetition_penalty": 1.2, "guide": "colour",
        }))
        .unwrap();
        let sampling = Sampling::Random { temperature: 0.5, top_k: 0, top_p: 0.9, seed: u64::MAX };
        assert_eq!((request.sampling, request.n, request.max_tokens), (sampling, 8, Some(5)));
        assert_eq!((request.stream, request.include_usage, request.top_logprobs), (true, true, Some(20)));
        let defaults = GenerateOptions { stop_strings: vec!["</s>".into()], ..GenerateOptions::default() };
        assert_eq!(request.options(defaults).stop_strings, ["</s>", "x"]);
        assert_eq!(read(json!({"temperature": 0, "seed": 3})).unwrap().sampling, Sampling::Greedy);
    }

    #[test]
    fn a_wrong_value_is_named() {
        for more in [
            json!({"max_tokens": "five"}),
            json!({"max_tokens": 0}),
            json!({"max_tokens": 1.5}),
            json!({"max_completion_tokens": -3}),
            json!({"temperature": 2.5}),
            json!({"temperature": "hot"}),
            json!({"top_p": 0}),
            json!({"top_p": 1.5}),
            json!({"top_k": -2}),
            json!({"repetition_penalty": 0}),
            json!({"n": 9}),
            json!({"n": true}),
            json!({"stop": ["a", "b", "c", "d", "e"]}),
            json!({"stop": 5}),
            json!({"stop": [""]}),
            json!({"stop": ["a", 1]}),
            json!({"seed": "x"}),
            json!({"top_logprobs": 2}),
            json!({"stream": "yes"}),
            json!({"stream_options": {"include_usage": true}}),
            json!({"model": 7}),
            json!({"guide": 5}),
            json!({"response_format": {"type": "sound"}}),
            json!({"response_format": {"type": "json_object"}}),
            json!({"response_format": "json"}),
            json!({"tools": [{}]}),
            json!({"logit_bias": {"5": 1}}),
            json!({"frequency_penalty": 0.5}),
            json!({"presence_penalty": "x"}),
        ] {
            let error = read(more.clone()).unwrap_err();
            let name = more.as_object().unwrap().keys().next().unwrap().clone();
            assert_eq!((error.status.as_u16(), error.param), (400, Some(name)), "{more}");
        }
    }

    #[test]
    fn values_are_counted_outside_of_strings() {
        for (text, count) in [(r#"{"a": [1, 2, {}], "b": "x,[\"{,"}"#, 6), ("", 0), (r#""\\","#, 1)] {
            assert_eq!(values_at_least(text.as_bytes()), count, "{text}");
        }
        assert!(read(json!({"guide": ",[{".repeat(MAX_VALUES)})).is_ok());
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        let (deep, wide) = ("[".repeat(50_000), format!("[{}0]", "0,".repeat(MAX_VALUES)));
        let bodies =
            [&b""[..], b"{\"model\": ", b"[1]", b"null", b"\"text\"", b"\xff\xfe", b"{\"model\": \"\xff\"}"];
        for body in bodies.into_iter().chain([deep.as_bytes(), wide.as_bytes()]) {
            let error = ChatRequest::read(body, || 0).unwrap_err();
            assert_eq!((error.status.as_u16(), error.code, error.param), (400, "invalid_json", None));
        }
    }
}
