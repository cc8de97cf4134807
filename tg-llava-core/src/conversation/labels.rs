//! Ids and labels of one training conversation.

use std::ops::Range;

use super::{
    ConversationError, ImageMarks, SeparatorStyle, Template, Turn, place_image_tags, single, training,
};
use crate::nn::IGNORE_INDEX;
use crate::tokenizer::{TextTokenizer, Tokenized};

/// Where the labels of the `###` templates come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SingleLabels {
    /// Counted off turn by turn, as in the reference. With a tokenizer that adds a BOS the count runs ahead by an
    /// id or two with every turn, so that in a long conversation the ends of questions are supervised and the
    /// beginnings of answers are not; existing checkpoints were trained so.
    #[default]
    Counted,
    /// The answers' own places in the text, each with the `###` behind it.
    Spans,
}

/// How a conversation is labelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LabelOptions {
    /// Whether the sample has a picture: its tags are put in place and become
    /// [`IMAGE_TOKEN_INDEX`](crate::multimodal::IMAGE_TOKEN_INDEX). Without one, `<image>` is text like any other.
    pub picture: bool,
    /// What is written around a picture's tag.
    pub marks: ImageMarks,
    /// Samples WITHOUT a picture are cut to this many ids; with one, cutting comes after the picture's
    /// features are spliced in.
    pub max_length: Option<usize>,
    /// Where the labels of the `###` templates come from.
    pub single: SingleLabels,
}

/// Something about a sample that its owner may want to know; none of it is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelNote {
    /// The conversation began with an answer, which is left out.
    LeadingAnswerDropped,
    /// This answer is empty, so nothing of it is learned.
    EmptyAnswer {
        /// Its place among the turns, from 0.
        turn: usize,
    },
    /// The conversation ends with a question, which nothing is learned from.
    OpenEnded,
    /// The sample was cut to `max_length`.
    Cut {
        /// How many ids were cut off.
        ids: usize,
    },
    /// No id is supervised: the sample adds nothing to the loss.
    NothingToLearn,
}

/// Ids and labels of one conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabeledSample {
    /// Token ids; [`IMAGE_TOKEN_INDEX`](crate::multimodal::IMAGE_TOKEN_INDEX) stands for a picture.
    pub ids: Vec<i64>,
    /// One for each id: the id itself where it is learned, else [`IGNORE_INDEX`]. A picture inside an answer
    /// keeps its id here, as in the reference; splicing its features in makes it ignored.
    pub labels: Vec<i64>,
    /// What is worth telling about the sample.
    pub notes: Vec<LabelNote>,
}

/// Writes `turns` in the layout of `template`, tokenizes the whole, and labels the assistant's answers together
/// with the marks that end them.
///
/// The ids are the reference's (`preprocess` in LLaVA's `train.py`). So are the labels wherever the reference
/// counts right; where its count fails it ignores the whole sample, while here an answer is found by its place
/// in the text, so that no sample is lost.
///
/// # Errors
/// [`ConversationError`] where the template cannot write these turns, or the text cannot be tokenized.
pub fn label_conversation(
    tokenizer: &TextTokenizer,
    template: &Template,
    turns: &[Turn],
    options: &LabelOptions,
) -> Result<LabeledSample, ConversationError> {
    let placed;
    let turns = if options.picture {
        placed = place_image_tags(turns, template, options.marks);
        &placed
    } else {
        turns
    };
    let pictures = options.picture || template.style == SeparatorStyle::Plain;
    let cutter = Cutter { tokenizer, pictures, limit: options.max_length.filter(|_| !pictures) };
    let (text, tokens, labels) = if template.style == SeparatorStyle::Single {
        let text = single::lay_out(template, turns)?;
        let tokens = cutter.tokens(&text.training.prompt.text)?;
        let labels = match options.single {
            SingleLabels::Spans => labels_of(&tokens.kept, &text.training.prompt.answers),
            SingleLabels::Counted => single::counted_labels(&cutter, &text, turns, &tokens.kept.ids)?,
        };
        (text.training, tokens, labels)
    } else {
        let text = training::lay_out(template, turns)?;
        let tokens = cutter.tokens(&text.prompt.text)?;
        let labels = labels_of(&tokens.kept, &text.prompt.answers);
        (text, tokens, labels)
    };
    let mut notes = text.notes;
    if tokens.cut > 0 {
        notes.push(LabelNote::Cut { ids: tokens.cut });
    }
    if labels.iter().all(|&label| label == IGNORE_INDEX) {
        notes.push(LabelNote::NothingToLearn);
    }
    Ok(LabeledSample { ids: tokens.kept.ids, labels, notes })
}

/// Tokenizes the texts of one sample, all by the same rules.
pub(super) struct Cutter<'a> {
    tokenizer: &'a TextTokenizer,
    pictures: bool,
    limit: Option<usize>,
}

/// The ids that are kept, and the number that is not.
pub(super) struct CutTokens {
    pub kept: Tokenized,
    cut: usize,
}

impl Cutter<'_> {
    pub fn tokens(&self, text: &str) -> Result<CutTokens, ConversationError> {
        let mut kept = if self.pictures {
            self.tokenizer.encode_with_images(text)?
        } else {
            self.tokenizer.encode_with_spans(text, true)?
        };
        let cut = kept.len().saturating_sub(self.limit.unwrap_or(usize::MAX));
        kept.truncate(kept.len() - cut);
        Ok(CutTokens { kept, cut })
    }
}

/// The ids that begin inside an answer. An id that reaches into an answer from before it (a run of line breaks
/// that is one token) belongs to the prompt: generation starts behind it.
fn labels_of(tokens: &Tokenized, answers: &[Range<usize>]) -> Vec<i64> {
    let inside = |at: usize| answers.iter().any(|answer| answer.contains(&at));
    let label = |(&id, span): (&i64, &Option<Range<usize>>)| {
        let learned = span.as_ref().is_some_and(|span| inside(span.start));
        if learned { id } else { IGNORE_INDEX }
    };
    tokens.ids.iter().zip(&tokens.spans).map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::Speaker;
    use proptest::prelude::*;
    use serde_json::Value;

    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/conversations");

    fn tokenizer(name: &str) -> TextTokenizer {
        TextTokenizer::from_dir(format!("{FIXTURES}/tokenizers/{name}")).unwrap()
    }

    fn template(name: &str) -> &'static Template {
        Template::by_name(name).unwrap()
    }

    fn ids(value: &Value) -> Vec<i64> {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn ids_and_labels_equal_the_references() {
        let golden = std::fs::read(format!("{FIXTURES}/preprocess.json")).unwrap();
        let golden: Value = serde_json::from_slice(&golden).unwrap();
        let mut compared = 0;
        for (name, group) in golden["groups"].as_object().unwrap() {
            let tokenizer = tokenizer(group["tokenizer"].as_str().unwrap());
            let template = template(group["version"].as_str().unwrap());
            for case in group["cases"].as_array().unwrap() {
                let conversations = golden["conversations"].as_array().unwrap();
                let sample = conversations.iter().find(|c| c["id"] == case["id"]).unwrap();
                let turns: Vec<Turn> = serde_json::from_value(sample["conv"].clone()).unwrap();
                let marked = name == "v1_im_start_end";
                let options = LabelOptions {
                    picture: sample["has_image"] == true,
                    marks: if marked { ImageMarks::StartEnd } else { ImageMarks::None },
                    max_length: group["model_max_length"].as_u64().map(|n| n as usize),
                    ..LabelOptions::default()
                };
                let ours = label_conversation(&tokenizer, template, &turns, &options);
                if case["error"].is_string() {
                    assert!(ours.is_err(), "{name} {}", case["id"]);
                    continue;
                }
                let ours = ours.unwrap();
                assert_eq!(ours.ids, ids(&case["input_ids"]), "{name} {}", case["id"]);
                // Where the reference warns, or an empty answer confuses its ChatML count, its labels are lost.
                let empty = turns.iter().any(|turn| turn.from == Speaker::Gpt && turn.value.is_empty());
                if case["warnings"].is_null() && !(empty && template.version == "mpt") {
                    assert_eq!(ours.labels, ids(&case["labels"]), "{name} {}", case["id"]);
                    compared += 1;
                }
            }
        }
        assert!(compared > 150, "{compared}");
    }

    /// The prompt's text under the supervised ids.
    fn learned(tokenizer: &TextTokenizer, text: &str, sample: &LabeledSample, picture: bool) -> String {
        let tokens = if picture {
            tokenizer.encode_with_images(text)
        } else {
            tokenizer.encode_with_spans(text, true)
        };
        let tokens = tokens.unwrap();
        assert_eq!(tokens.ids, sample.ids);
        let mut spans: Vec<_> = tokens
            .spans
            .into_iter()
            .zip(&sample.labels)
            .filter_map(|(span, &label)| span.filter(|_| label != IGNORE_INDEX))
            .collect();
        spans.dedup();
        spans.into_iter().map(|span| &text[span]).collect()
    }

    fn expected(template: &Template, answer: &str) -> String {
        let mark = template.end_mark();
        match template.style {
            SeparatorStyle::Two => format!(" {answer}{mark}"),
            SeparatorStyle::Llama2 => format!(" {answer} {mark}"),
            SeparatorStyle::Single => format!(" {answer}\n{mark}"),
            _ => format!("{answer}{mark}"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn labels_cover_the_answers_and_their_marks(
            said in prop::collection::vec("[a-zA-Z0-9é漢🐱][a-zA-Z0-9 .,?é漢🐱]{0,12}", 2..7),
            at in 0..18usize,
            with in 0..3usize,
            picture: bool,
        ) {
            let template = &Template::all()[at];
            prop_assume!(template.style != SeparatorStyle::Plain);
            let name = match template.style {
                SeparatorStyle::Mpt | SeparatorStyle::Qwen2 => ["qwen2", "qwen2", "qwen2"],
                SeparatorStyle::Llama3 => ["llama3", "llama3-nobos", "llama3"],
                _ => ["llama", "llama", "llama3"],
            }[with];
            let tokenizer = tokenizer(name);
            let mut turns: Vec<Turn> = said
                .iter()
                .enumerate()
                .map(|(i, text)| if i % 2 == 0 { Turn::human(text.clone()) } else { Turn::gpt(text.clone()) })
                .collect();
            if picture {
                turns[0].value += "<image>";
            }
            let options = LabelOptions { picture, single: SingleLabels::Spans, ..LabelOptions::default() };
            let sample = label_conversation(&tokenizer, template, &turns, &options).unwrap();
            let placed = if picture { place_image_tags(&turns, template, options.marks) } else { turns.clone() };
            let text = if template.style == SeparatorStyle::Single {
                single::lay_out(template, &placed).unwrap().training.prompt.text
            } else {
                training::lay_out(template, &placed).unwrap().prompt.text
            };
            let answers: String =
                said.iter().skip(1).step_by(2).map(|answer| expected(template, answer)).collect();
            // "</s>" and the like are one id only to the tokenizers that know them; the text is the same.
            prop_assert_eq!(learned(&tokenizer, &text, &sample, picture), answers);
            prop_assert_eq!(sample.notes.contains(&LabelNote::OpenEnded), said.len() % 2 == 1);
        }
    }

    #[test]
    fn what_is_lost_is_told() {
        let llama = tokenizer("llama");
        let label = |turns: &[Turn], max_length| {
            let options = LabelOptions { max_length, ..LabelOptions::default() };
            label_conversation(&llama, template("v1"), turns, &options).unwrap().notes
        };
        let turns = [Turn::gpt("Hello"), Turn::human("a"), Turn::gpt(""), Turn::human("b")];
        let expected = [
            LabelNote::LeadingAnswerDropped,
            LabelNote::EmptyAnswer { turn: 2 },
            LabelNote::OpenEnded,
            LabelNote::NothingToLearn,
        ];
        assert_eq!(label(&turns, None), expected);
        let cut = label(&[Turn::human("a"), Turn::gpt("b")], Some(20));
        assert!(matches!(cut[..], [LabelNote::Cut { .. }, LabelNote::NothingToLearn]), "{cut:?}");
        assert_eq!(label(&[Turn::human("a"), Turn::gpt("b")], Some(2048)), []);
    }

    #[test]
    fn turns_that_do_not_fit_are_named() {
        let llama = tokenizer("llama");
        let fails = |name: &str, turns: &[Turn]| {
            let sample = label_conversation(&llama, template(name), turns, &LabelOptions::default());
            sample.unwrap_err().to_string()
        };
        assert!(fails("v1", &[]).contains("empty"));
        assert!(fails("v1", &[Turn::gpt("Hello")]).contains("no human turn"));
        let twice = [Turn::human("a"), Turn::human("b"), Turn::gpt("c")];
        assert_eq!(fails("v1", &twice), "turn 1 is from \"human\" again; turns must alternate");
        assert!(fails("plain", &twice).contains("found 3 turns"));
        assert!(fails("plain", &[Turn::human("a"), Turn::gpt("b")]).contains("<image>"));
        assert!(fails("v0", &[]).contains("empty"));
    }
}
