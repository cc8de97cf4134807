//! Requests to a judge, from texts that are no part of this crate.

use serde::Deserialize;

use super::Ask;
use crate::dataset::{Judged, Kind};
use crate::score::Predictions;
use crate::score::choice::options_of;
use crate::table::Table;
use crate::text;

/// What a judge is asked about one kind of data sets. In `user`, a name in braces stands for the row's cell in the column of that name
/// (`{question}`); `{prediction}` is the answer, and `{options}` has a line `A. text` for each option.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgePrompt {
    /// What the judge is, if it is told.
    #[serde(default)]
    pub system: Option<String>,
    /// What it is asked.
    pub user: String,
    /// What it is asked about a question in Chinese, where that is another text.
    #[serde(default)]
    pub chinese: Option<String>,
}

/// The texts for all kinds of data sets that a judge is asked about; those that are not there are needed only where their kind is scored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgePrompts {
    /// Which option an answer means.
    #[serde(default)]
    pub choice: Option<JudgePrompt>,
    /// Whether an answer means yes or no.
    #[serde(default)]
    pub yes_no: Option<JudgePrompt>,
    /// How right an answer of MM-Vet is.
    #[serde(default)]
    pub mm_vet: Option<JudgePrompt>,
    /// How good two answers of LLaVA-Bench are.
    #[serde(default)]
    pub llava_bench: Option<JudgePrompt>,
    /// The answer within one of MathVista.
    #[serde(default)]
    pub math_vista: Option<JudgePrompt>,
}

/// A request to a judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgeRequest {
    /// What the judge is, if it is told.
    pub system: Option<String>,
    /// What it is asked.
    pub user: String,
}

/// What a judge is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields of `JudgePrompts` say it")]
pub enum JudgeTask {
    Choice,
    YesNo,
    MmVet,
    LlavaBench,
    MathVista,
}

impl JudgeTask {
    /// What is asked for in data sets of a kind; `None` where no judge is asked.
    pub fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Choice(_) => Some(Self::Choice),
            Kind::YesNo(_) => Some(Self::YesNo),
            Kind::Judged(Judged::MmVet) => Some(Self::MmVet),
            Kind::Judged(Judged::LlavaBench) => Some(Self::LlavaBench),
            Kind::Judged(Judged::MathVista) => Some(Self::MathVista),
            Kind::Short(_) | Kind::Ocr => None,
        }
    }

    /// The name that files have for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Choice => "choice",
            Self::YesNo => "yes_no",
            Self::MmVet => "mm_vet",
            Self::LlavaBench => "llava_bench",
            Self::MathVista => "math_vista",
        }
    }
}

impl JudgePrompts {
    /// The text for a task.
    pub fn of(&self, task: JudgeTask) -> Option<&JudgePrompt> {
        let prompt = match task {
            JudgeTask::Choice => &self.choice,
            JudgeTask::YesNo => &self.yes_no,
            JudgeTask::MmVet => &self.mm_vet,
            JudgeTask::LlavaBench => &self.llava_bench,
            JudgeTask::MathVista => &self.math_vista,
        };
        prompt.as_ref()
    }
}

/// The rows that a judge is asked about.
pub trait JudgedRows {
    /// What a name in braces stands for in a request about the row `index`: its answer (`prediction`), its options, or a column.
    fn value(&self, index: &str, name: &str) -> Option<String>;
}

/// The rows of a data set of VLMEvalKit.
#[derive(Debug, Clone, Copy)]
pub struct TableRows<'a> {
    /// The data set.
    pub table: &'a Table,
    /// What it asks for.
    pub kind: Kind,
    /// The answers.
    pub predictions: &'a Predictions,
}

impl JudgedRows for TableRows<'_> {
    fn value(&self, index: &str, name: &str) -> Option<String> {
        let Self { table, kind, predictions } = self;
        let row = (0..table.len()).find(|&row| table.shown(row, "index") == index)?;
        match (name, kind) {
            ("prediction", _) => Some(predictions.seen(index).to_owned()),
            ("options", Kind::Choice(choice)) => {
                let options = options_of(table, row, *choice).into_iter();
                Some(options.map(|(letter, text)| format!("{letter}. {text}\n")).collect())
            }
            ("answer", Kind::Judged(Judged::MmVet)) => {
                let answer = table.shown(row, "answer");
                Some(answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> "))
            }
            (name, _) => table.has(name).then(|| table.shown(row, name).to_owned()),
        }
    }
}

impl JudgePrompt {
    /// What is asked about a row; `None` where there is no such row.
    pub fn request(&self, ask: &Ask<'_>, rows: &dyn JudgedRows) -> Option<JudgeRequest> {
        let question = rows.value(ask.index, "question")?;
        let chinese = self.chinese.as_ref().filter(|_| text::has_chinese(&question));
        let user = fill(chinese.unwrap_or(&self.user), |name| rows.value(ask.index, name));
        Some(JudgeRequest { system: self.system.clone(), user })
    }
}

/// `text` with names in braces replaced, once; braces around anything else stay.
fn fill(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once('{') {
        out += before;
        match behind.split_once('}').and_then(|(name, after)| Some((value(name)?, after))) {
            Some((value, after)) => {
                out += &value;
                rest = after;
            }
            None => {
                out.push('{');
                rest = behind;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_braces_are_replaced_once() {
        let value = |name: &str| match name {
            "a" => Some("{b}".to_owned()),
            "b" => Some("2".to_owned()),
            _ => None,
        };
        assert_eq!(fill("{a} {b} {c} {{b}} {", value), "{b} 2 {c} {2} {");
    }
}
