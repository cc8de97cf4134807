//! One LLaVA sample: `{"id", "image"?, "conversations": [{"from", "value"}]}`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use tg_llava_core::{
    conversation::{Speaker, Turn},
    tokenizer::IMAGE_TAG,
};

use super::error::SampleProblem;

/// One training sample, checked: roles are known, there is a turn, and marks and pictures agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The sample's `id`, or `#n` (its place in the file, from 0) where it has none.
    pub id: String,
    /// File names of the pictures, relative to the image folder; none for a text-only sample.
    pub images: Vec<String>,
    /// The turns, at least one.
    pub conversations: Vec<Turn>,
}

/// What the samplers need of a sample, found without copying its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    /// Words of all turns, as Python's `str.split()` counts them.
    pub words: u32,
    /// Whether the sample has a picture.
    pub has_image: bool,
}

#[derive(Deserialize)]
struct RawSample<'a> {
    #[serde(borrow, default)]
    id: Option<RawId<'a>>,
    #[serde(borrow, default)]
    image: Option<RawImages<'a>>,
    #[serde(borrow)]
    conversations: Vec<RawTurn<'a>>,
}

#[derive(Deserialize)]
struct RawTurn<'a> {
    #[serde(borrow)]
    from: Cow<'a, str>,
    #[serde(borrow)]
    value: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawId<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Number(serde_json::Number),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawImages<'a> {
    One(#[serde(borrow)] Cow<'a, str>),
    Many(Vec<String>),
}

impl RawId<'_> {
    fn into_string(self) -> String {
        match self {
            Self::Text(text) => text.into_owned(),
            Self::Number(number) => number.to_string(),
        }
    }
}

impl RawImages<'_> {
    fn count(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(files) => files.len(),
        }
    }
}

impl Sample {
    /// Reads and checks one sample; `line` is the line of the file on which `json` starts. A sample without `id`
    /// gets an empty one.
    pub(super) fn parse(json: &[u8], line: u64) -> Result<Self, SampleProblem> {
        let raw = RawSample::parse(json, line)?;
        raw.check(line)?;
        let images = match raw.image {
            None => Vec::new(),
            Some(RawImages::One(file)) => vec![file.into_owned()],
            Some(RawImages::Many(files)) => files,
        };
        let conversations = raw
            .conversations
            .into_iter()
            .enumerate()
            .map(|(at, turn)| Ok(Turn { from: turn.speaker(at, line)?, value: turn.value.into_owned() }))
            .collect::<Result<_, SampleProblem>>()?;
        Ok(Self { id: raw.id.map_or_else(String::new, RawId::into_string), images, conversations })
    }

    /// Whether the sample has no picture.
    pub fn is_text_only(&self) -> bool {
        self.images.is_empty()
    }
}

impl Summary {
    /// Reads and checks one sample, keeping only what the samplers need.
    pub(super) fn parse(json: &[u8], line: u64) -> Result<Self, SampleProblem> {
        let raw = RawSample::parse(json, line)?;
        raw.check(line)?;
        let words: usize = raw.conversations.iter().map(|turn| count_words(&turn.value)).sum();
        let has_image = raw.image.is_some_and(|images| images.count() > 0);
        Ok(Self { words: u32::try_from(words).unwrap_or(u32::MAX), has_image })
    }
}

impl<'a> RawSample<'a> {
    fn parse(json: &'a [u8], line: u64) -> Result<Self, SampleProblem> {
        serde_json::from_slice(json).map_err(|error| explain(json, line, &error))
    }

    fn check(&self, line: u64) -> Result<(), SampleProblem> {
        if self.conversations.is_empty() {
            let message = "is empty; expected at least one turn".into();
            return Err(SampleProblem::Field { field: "conversations".into(), line, message });
        }
        for (at, turn) in self.conversations.iter().enumerate() {
            turn.speaker(at, line)?;
        }
        let marks = self.conversations.iter().map(|turn| turn.value.matches(IMAGE_TAG).count()).sum();
        let images = self.image.as_ref().map_or(0, RawImages::count);
        if marks == images { Ok(()) } else { Err(SampleProblem::ImageCount { marks, images }) }
    }
}

impl RawTurn<'_> {
    fn speaker(&self, at: usize, line: u64) -> Result<Speaker, SampleProblem> {
        [Speaker::Human, Speaker::Gpt].into_iter().find(|speaker| speaker.name() == self.from).ok_or_else(
            || SampleProblem::Field {
                field: format!("conversations[{at}].from"),
                line,
                message: format!("unknown role {:?}; expected \"human\" or \"gpt\"", self.from),
            },
        )
    }
}

/// The `id` of a sample that is otherwise unusable, where it can still be read.
pub(super) fn salvage_id(json: &[u8]) -> Option<String> {
    match serde_json::from_slice::<Value>(json).ok()?.get("id")? {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

/// `len(text.split())` of Python: it also splits at the separators U+001C to U+001F.
fn count_words(text: &str) -> usize {
    let blank = |c: char| c.is_whitespace() || matches!(c, '\x1c'..='\x1f');
    let mut words = 0;
    let mut inside = false;
    for c in text.chars() {
        let outside = blank(c);
        words += usize::from(!outside && !inside);
        inside = !outside;
    }
    words
}

/// Finds which field made the typed parse fail: serde names the line only.
fn explain(json: &[u8], first_line: u64, error: &serde_json::Error) -> SampleProblem {
    let line = first_line + (error.line() as u64).saturating_sub(1);
    let problem = serde_json::from_slice::<Value>(json).ok().and_then(|value| wrong_field(&value));
    match problem {
        Some((field, message)) => SampleProblem::Field { field, line, message },
        None => SampleProblem::Syntax { line, column: error.column(), message: without_place(error) },
    }
}

/// The parser's words without its own "at line .. column ..", which counts from the sample's start.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

fn wrong_field(sample: &Value) -> Option<(String, String)> {
    let found = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    let wrong = |field: String, value: Option<&Value>, expected: &str| {
        let message = match value {
            None => format!("is missing; expected {expected}"),
            Some(value) => format!("is {}; expected {expected}", found(value)),
        };
        Some((field, message))
    };
    match &sample["id"] {
        Value::Null | Value::String(_) | Value::Number(_) => {}
        other => return wrong("id".into(), Some(other), "a string or a number"),
    }
    match &sample["image"] {
        Value::Null | Value::String(_) => {}
        Value::Array(files) => {
            if let Some((at, file)) = files.iter().enumerate().find(|(_, file)| !file.is_string()) {
                return wrong(format!("image[{at}]"), Some(file), "a file name");
            }
        }
        other => return wrong("image".into(), Some(other), "a file name or a list of file names"),
    }
    let Some(turns) = sample.get("conversations").and_then(Value::as_array) else {
        return wrong("conversations".into(), sample.get("conversations"), "a list of turns");
    };
    for (at, turn) in turns.iter().enumerate() {
        if !turn.is_object() {
            return wrong(format!("conversations[{at}]"), Some(turn), "an object with `from` and `value`");
        }
        for key in ["from", "value"] {
            if !turn.get(key).is_some_and(Value::is_string) {
                return wrong(format!("conversations[{at}].{key}"), turn.get(key), "a string");
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(value: &str) -> String {
        serde_json::json!([{ "from": "human", "value": value }, { "from": "gpt", "value": "a b" }])
            .to_string()
    }

    #[test]
    fn pictures_are_one_a_list_or_none() {
        for (image, text, expected) in [
            ("\"image\": \"a.png\",", "<image>\nhi", vec!["a.png"]),
            ("\"image\": [\"a.png\", \"b.png\"],", "<image><image>", vec!["a.png", "b.png"]),
            ("\"image\": [],", "hi", vec![]),
            ("\"image\": null,", "hi", vec![]),
            ("", "hi", vec![]),
        ] {
            let json = format!("{{\"id\": 7, {image} \"model\": \"x\", \"conversations\": {}}}", turns(text));
            let sample = Sample::parse(json.as_bytes(), 1).unwrap();
            assert_eq!(sample.id, "7");
            assert_eq!(sample.images, expected);
            assert_eq!(Summary::parse(json.as_bytes(), 1).unwrap().has_image, !expected.is_empty());
        }
    }

    #[test]
    fn words_are_counted_as_python_does() {
        // len("a\x1cb\u00a0c\x85 d\u200be\u3000".split()) in Python
        assert_eq!(count_words("a\x1cb\u{a0}c\u{85} d\u{200b}e\u{3000}"), 4);
        assert_eq!(count_words(" \n"), 0);
    }

    #[test]
    fn errors_name_the_field_and_the_line() {
        for (json, expected) in [
            ("{\"id\": \"x\"}", "field `conversations` (line 5): is missing; expected a list of turns"),
            ("{\"conversations\": []}", "field `conversations` (line 5): is empty"),
            (
                "{\n\"conversations\": [\n{\"from\": \"human\", \"value\": 3}]}",
                "field `conversations[0].value` (line 7): is a number; expected a string",
            ),
            (
                "{\"conversations\": [{\"value\": \"x\"}]}",
                "field `conversations[0].from` (line 5): is missing; expected a string",
            ),
            ("{\"image\": 3, \"conversations\": []}", "field `image` (line 5): is a number"),
            ("{\"image\": [\"a\", 3], \"conversations\": []}", "field `image[1]` (line 5): is a number"),
            ("{\"id\": [], \"conversations\": []}", "field `id` (line 5): is a list"),
            ("{\"conversations\": [3]}", "field `conversations[0]` (line 5): is a number"),
            (
                "{\"conversations\": [{\"from\": \"user\", \"value\": \"x\"}]}",
                "field `conversations[0].from` (line 5): unknown role \"user\"; expected \"human\" or \"gpt\"",
            ),
            ("{\"conversations\"\n: nope}", "not valid JSON at line 6, column"),
        ] {
            let parsed = Sample::parse(json.as_bytes(), 5).unwrap_err().to_string();
            assert!(parsed.starts_with(expected), "{json}: {parsed}");
            assert_eq!(Summary::parse(json.as_bytes(), 5).unwrap_err().to_string(), parsed);
        }
    }

    #[test]
    fn marks_and_pictures_must_agree_both_ways() {
        let without_mark = format!("{{\"image\": \"a.png\", \"conversations\": {}}}", turns("hi"));
        let without_image = format!("{{\"conversations\": {}}}", turns("<image>\nhi"));
        for (json, counts) in [(without_mark, (0, 1)), (without_image, (1, 0))] {
            match Sample::parse(json.as_bytes(), 1).unwrap_err() {
                SampleProblem::ImageCount { marks, images } => assert_eq!((marks, images), counts),
                other => panic!("{other}"),
            }
        }
    }
}
