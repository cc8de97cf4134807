//! What is asked, row by row, as VLMEvalKit's wrapper of LLaVA and its API models write it.

use crate::dataset::{Choice, Kind, Short};
use crate::table::{Table, TableError};
use crate::text;

/// Before every question of the wrapper: the system text of its conversation `llava_v1`.
const SYSTEM: &str = "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and \
                      polite answers to the human's questions.";

/// What is asked about one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The text without places of pictures.
    pub text: String,
    /// Pictures of the row; all precede the text.
    pub images: usize,
}

/// A part of a message to an API model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A text.
    Text(String),
    /// The picture of this number, from 0.
    Image(usize),
}

impl Question {
    /// The question of `row` in the data set's table.
    ///
    /// # Errors
    /// [`TableError`] where its picture is that of a row that is not there.
    pub fn new(table: &Table, row: usize, kind: Kind) -> Result<Self, TableError> {
        let question = table.shown(row, "question");
        let text = match kind {
            Kind::Choice(_) => choice(table, row),
            Kind::Short(Short::TextVqa | Short::Gqa) => {
                format!("{question}\nAnswer the question using a single word or phrase.")
            }
            Kind::Short(Short::VizWiz) | Kind::YesNo(_) | Kind::Ocr | Kind::Judged(_) => question.to_owned(),
        };
        Ok(Self { text, images: table.pictures(row)?.len() })
    }

    /// The string that the wrapper hands to the tokenizer.
    pub fn prompt(&self) -> String {
        format!("{SYSTEM} USER: {}{} ASSISTANT: ", " <image> ".repeat(self.images), self.text)
    }

    /// What the text tower reads: the question without places of pictures.
    pub fn guide(&self) -> String {
        text::strip(&self.text.replace("<image>", "")).to_owned()
    }
}

/// The options that a row has, by letter.
pub(crate) fn options(table: &Table, row: usize) -> Vec<(char, String)> {
    let cell =
        |letter: char| table.cell(row, letter.encode_utf8(&mut [0; 4])).map(|text| (letter, text.to_owned()));
    ('A'..='Z').filter_map(cell).collect()
}

fn choice(table: &Table, row: usize) -> String {
    let mut text = String::new();
    if let Some(hint) = table.cell(row, "hint") {
        text += hint;
        text.push('\n');
    }
    text += table.shown(row, "question");
    let options = options(table, row);
    options.iter().for_each(|(letter, option)| text += &format!("\n{letter}. {option}"));
    let chinese = text::has_chinese(&text);
    text + match (options.is_empty(), chinese) {
        (false, false) => "\nAnswer with the option's letter from the given choices directly.",
        (false, true) => "\n请直接回答选项字母。",
        (true, false) => "\nAnswer the question directly.",
        (true, true) => "\n请直接回答问题。",
    }
}

/// What an API model is sent about `row`.
///
/// # Errors
/// As [`Question::new`].
pub fn api(table: &Table, row: usize, kind: Kind) -> Result<Vec<Part>, TableError> {
    let Question { text, images } = Question::new(table, row, kind)?;
    let pictures = (0..images).map(Part::Image);
    let Kind::Choice(choice) = kind else {
        return Ok(pictures.chain([Part::Text(text)]).collect());
    };
    let mut text = table.cell(row, "hint").map_or_else(String::new, |hint| format!("Hint: {hint}\n"));
    text += &format!("Question: {}\n", table.shown(row, "question"));
    let options = options(table, row);
    if !options.is_empty() {
        text += "Options:\n";
        options.iter().for_each(|(letter, option)| text += &format!("{letter}. {option}\n"));
        text += "Please select the correct answer from the options above. \n";
    }
    Ok(match choice {
        Choice::Mmmu if text.contains(MARK) => split_at_images(&text),
        _ => pictures.chain([Part::Text(text)]).collect(),
    })
}

/// What a place of a picture begins with in MMMU; its number from 1 and `>` follow.
const MARK: &str = "<image ";

/// Text with `<image 1>` in it, cut there; texts between two pictures are parts even where they are empty, as in the original.
fn split_at_images(text: &str) -> Vec<Part> {
    let mut pieces = text.split(MARK);
    let mut parts: Vec<Part> = pieces.next().map(|piece| Part::Text(piece.to_owned())).into_iter().collect();
    for piece in pieces {
        let (number, rest) = piece.split_once('>').unwrap_or((piece, ""));
        parts.extend(number.parse::<usize>().ok().and_then(|number| number.checked_sub(1)).map(Part::Image));
        parts.push(Part::Text(rest.to_owned()));
    }
    parts
}
