use serde::Serialize;

/// What a request cost, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Template, texts and pictures.
    pub prompt_tokens: usize,
    /// All that was generated, end tokens included, over all choices.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
}

/// A whole answer, or a chunk of one that is streamed.
#[derive(Debug, Clone, Serialize)]
pub struct Completion<'a> {
    /// The same for all chunks of a stream.
    pub id: &'a str,
    /// `chat.completion` or `chat.completion.chunk`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's served name.
    pub model: &'a str,
    /// Program, device and number format: the same fingerprint and seed give the same answer.
    pub system_fingerprint: &'a str,
    /// The choices, or what is new of them.
    pub choices: Vec<Choice>,
    /// What it cost; in a stream where it is asked for, at the end, and `null` before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
}

/// One of the answers, or what is new of it.
#[derive(Debug, Clone, Serialize)]
pub struct Choice {
    /// Counts from 0.
    pub index: usize,
    /// A whole answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Delta>,
    /// What is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<Delta>,
    /// Where they are asked for.
    pub logprobs: Option<Logprobs>,
    /// `stop` or `length`, at the end.
    pub finish_reason: Option<&'static str>,
}

/// A message of the assistant, or what is new of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Delta {
    /// `assistant`, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// Text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Never one; clients expect the field in a whole message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Option<String>>,
}

/// Log-probabilities of an answer's tokens.
#[derive(Debug, Clone, Serialize)]
pub struct Logprobs {
    /// Those of the text.
    pub content: Vec<TokenLogprob>,
    /// Never one.
    pub refusal: Option<String>,
}

/// A token with its log-probability.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenLogprob {
    /// As text; not exact for a part of a character.
    pub token: String,
    /// The model's own, before temperature and penalties.
    pub logprob: f64,
    /// As bytes of UTF-8.
    pub bytes: Vec<u8>,
    /// The most likely tokens, most likely first; `None` for one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<Vec<TokenLogprob>>,
}

impl Usage {
    /// From both counts.
    pub fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

impl Choice {
    /// A whole answer.
    pub fn whole(
        index: usize,
        text: String,
        logprobs: Option<Vec<TokenLogprob>>,
        reason: &'static str,
    ) -> Self {
        let message = Delta { role: Some("assistant"), content: Some(text), refusal: Some(None) };
        Self {
            index,
            message: Some(message),
            delta: None,
            logprobs: of(logprobs),
            finish_reason: Some(reason),
        }
    }

    /// What is new of an answer.
    pub fn new(index: usize, delta: Delta, logprobs: Option<Vec<TokenLogprob>>) -> Self {
        Self { index, message: None, delta: Some(delta), logprobs: of(logprobs), finish_reason: None }
    }
}

fn of(tokens: Option<Vec<TokenLogprob>>) -> Option<Logprobs> {
    tokens.map(|content| Logprobs { content, refusal: None })
}
