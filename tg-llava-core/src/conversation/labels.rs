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
