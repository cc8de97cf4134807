//! Ids and labels of training conversations.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use tg_llava_core::conversation::{
    ImageMarks, LabelOptions, LabeledSample, SeparatorStyle, Speaker, Template, Turn, label_conversation,
};
use tg_llava_core::nn::IGNORE_INDEX;
use tg_llava_core::tokenizer::TextTokenizer;

use super::super::report::Row;
use super::{Tally, Tokenizers, parting};

#[derive(Deserialize)]
pub(super) struct File {
    pub conversations: Vec<GoldenConversation>,
    groups: BTreeMap<String, Group>,
}

#[derive(Deserialize)]
pub(super) struct GoldenConversation {
    pub id: String,
    has_image: bool,
    pub conv: Vec<GoldenTurn>,
}

#[derive(Deserialize)]
pub(super) struct GoldenTurn {
    from: String,
    value: String,
}

#[derive(Deserialize)]
struct Group {
    version: String,
    tokenizer: String,
    model_max_length: usize,
    pad_token_id: Option<u32>,
    bos_token_id: Option<u32>,
    note: Option<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    input_ids: Option<Vec<i64>>,
    labels: Option<Vec<i64>>,
    #[serde(default)]
    warnings: Vec<String>,
    error: Option<String>,
    slow_tokenizer: Option<SlowCase>,
}

#[derive(Deserialize)]
struct SlowCase {
    input_ids: Vec<i64>,
    labels: Vec<i64>,
}

/// The turns of a golden conversation; an error where a speaker is unknown.
pub(super) fn turns_of(turns: &[GoldenTurn]) -> Result<Vec<Turn>> {
    let turn = |t: &GoldenTurn| Ok(Turn { from: Speaker::try_from(t.from.clone())?, value: t.value.clone() });
    turns.iter().map(turn).collect()
}

pub(super) fn compare(file: &File, tokenizers: &mut Tokenizers, rows: &mut Vec<Row>) -> Result<()> {
    for (name, group) in &file.groups {
        let rebuilt = tokenizers.rebuilt(&group.tokenizer)?;
        let tokenizer = tokenizers.get(&group.tokenizer)?;
        let template = Template::for_version(&group.version);
        let mut tallies = Tallies::default();
        special_ids(group, template, tokenizer, &mut tallies.ids);
        for case in &group.cases {
            let golden = file.conversations.iter().find(|c| c.id == case.id);
            let golden = golden.with_context(|| format!("{name}: no conversation {:?}", case.id))?;
            Sample { group, template, case, golden }.compare(tokenizer, rebuilt.as_ref(), &mut tallies);
        }
        tallies.report(name, rows);
    }
    Ok(())
}

fn special_ids(group: &Group, template: &Template, tokenizer: &TextTokenizer, tally: &mut Tally) {
    if let Some(theirs) = group.pad_token_id {
        let ours = template.pad_id(tokenizer);
        tally.check(ours == theirs, || format!("padding id {ours}, expected {theirs}"));
    }
    let ours = tokenizer.special().bos;
    tally.check(ours == group.bos_token_id, || format!("BOS id {ours:?}, expected {:?}", group.bos_token_id));
}

/// The comparisons of one group.
#[derive(Default)]
struct Tallies {
    ids: Tally,
    exact: Tally,
    mended: Tally,
    refused: Tally,
    slow: Tally,
}

impl Tallies {
    fn report(self, name: &str, rows: &mut Vec<Row>) {
        self.ids.row(format!("{name} ids"), rows);
        self.exact.row(format!("{name} labels"), rows);
        let note = "the reference loses count and masks the sample; each answer is learned, by its place in the text";
        self.mended.by_design(format!("{name} labels it loses"), note, rows);
        self.refused.row(format!("{name} refused by both"), rows);
        self.slow.row(format!("{name} without tokenizer.json"), rows);
    }
}

/// One conversation in one group.
struct Sample<'a> {
    group: &'a Group,
    template: &'a Template,
    case: &'a Case,
    golden: &'a GoldenConversation,
}

impl Sample<'_> {
    fn label(&self, tokenizer: &TextTokenizer) -> Result<LabeledSample> {
        let turns = turns_of(&self.golden.conv)?;
        // The group that tests the marks says so only in words.
        let marked = self.group.note.as_deref().is_some_and(|note| note.contains("mm_use_im_start_end=True"));
        let options = LabelOptions {
            picture: self.golden.has_image,
            marks: if marked { ImageMarks::StartEnd } else { ImageMarks::None },
            max_length: Some(self.group.model_max_length),
            ..LabelOptions::default()
        };
        Ok(label_conversation(tokenizer, self.template, &turns, &options)?)
    }

    fn compare(&self, tokenizer: &TextTokenizer, rebuilt: Option<&TextTokenizer>, tallies: &mut Tallies) {
        let id = &self.case.id;
        let ours = self.label(tokenizer);
        let (Some(their_ids), Some(their_labels)) = (&self.case.input_ids, &self.case.labels) else {
            return self.compare_refusal(&ours, tallies);
        };
        let ours = match ours {
            Ok(ours) => ours,
            Err(error) => return tallies.ids.check(false, || format!("{id}: {error}")),
        };
        tallies.ids.check(&ours.ids == their_ids, || format!("{id}: {}", parting(&ours.ids, their_ids)));
        let same = &ours.labels == their_labels;
        if !self.case.warnings.is_empty() || (!same && self.count_fails(tokenizer)) {
            let problem = self.problem(&ours);
            tallies.mended.check(problem.is_none(), || format!("{id}: {}", problem.unwrap_or_default()));
        } else {
            tallies.exact.check(same, || format!("{id}: {}", parting(&ours.labels, their_labels)));
        }
        let (Some(theirs), Some(rebuilt)) = (&self.case.slow_tokenizer, rebuilt) else { return };
        let ours = self.label(rebuilt).map(|ours| (ours.ids, ours.labels));
        let same =
            ours.as_ref().is_ok_and(|(ids, labels)| ids == &theirs.input_ids && labels == &theirs.labels);
        tallies.slow.check(same, || match ours {
            Ok((ids, _)) if ids != theirs.input_ids => format!("{id}: {}", parting(&ids, &theirs.input_ids)),
            Ok((_, labels)) => format!("{id} labels: {}", parting(&labels, &theirs.labels)),
            Err(error) => format!("{id}: {error}"),
        });
    }

    /// The reference raises an error: so must we, or else label every answer.
    fn compare_refusal(&self, ours: &Result<LabeledSample>, tallies: &mut Tallies) {
        let id = &self.case.id;
        let (Some(said), Ok(ours)) = (&self.case.error, ours) else {
            return tallies
                .refused
                .check(self.case.error.is_some(), || format!("{id}: neither ids nor an error"));
        };
        let problem = self.problem(ours);
        tallies.mended.check(problem.is_none(), || {
            let problem = problem.unwrap_or_default();
            anyhow!("{id}: the reference says {said}, ours has {problem}").to_string()
        });
    }

    /// Whether the sample is of a kind that the reference is known to miscount without always noticing: an empty
    /// answer; and in samples as long as the limit, where it checks nothing, whatever it loses elsewhere.
    fn count_fails(&self, tokenizer: &TextTokenizer) -> bool {
        let turns = &self.golden.conv;
        let style = self.template.style;
        if matches!(style, SeparatorStyle::Plain | SeparatorStyle::Single) {
            return false;
        }
        let unchecked =
            self.case.input_ids.as_ref().is_some_and(|ids| ids.len() >= self.group.model_max_length);
        let separators = match style {
            SeparatorStyle::Llama2 => vec![self.template.end_mark(), "[/INST] "],
            _ => vec![self.template.end_mark(), self.template.roles[1]],
        };
        let empty_answer = turns.iter().any(|turn| turn.from == "gpt" && turn.value.is_empty());
        let empty_question = turns.iter().any(|turn| turn.from == "human" && turn.value.is_empty());
        let open_ended = turns.last().is_some_and(|turn| turn.from == "human");
        let holds_separator = turns.iter().any(|turn| separators.iter().any(|s| turn.value.contains(s)));
        let drifts =
            style == SeparatorStyle::Mpt || (style == SeparatorStyle::Llama3 && !tokenizer.adds_bos());
        empty_answer || (unchecked && (empty_question || open_ended || holds_separator || drifts))
    }

    /// What is wrong with labels that have no counterpart: each answer must be one run of learned ids.
    fn problem(&self, ours: &LabeledSample) -> Option<String> {
        let pairs = || ours.labels.iter().zip(&ours.ids);
        if pairs().any(|(&label, &id)| label != IGNORE_INDEX && label != id) {
            return Some("a label that differs from its id".into());
        }
        let learned: Vec<bool> = ours.labels.iter().map(|&label| label != IGNORE_INDEX).collect();
        let before = std::iter::once(&false).chain(&learned);
        let runs = learned.iter().zip(before).filter(|(now, before)| **now && !**before).count();

        let turns = &self.golden.conv;
        let first = turns.iter().position(|turn| turn.from == "human").unwrap_or(0);
        let parted =
            |i: usize| self.template.style != SeparatorStyle::Llama2 || !turns[i - 1].value.is_empty();
        let answers = (first + 1..turns.len())
            .filter(|&i| turns[i].from == "gpt" && !turns[i].value.is_empty() && parted(i))
            .count();
        let cut = !self.golden.has_image && ours.ids.len() == self.group.model_max_length;
        (runs != answers && !cut).then(|| format!("{runs} runs of labels for {answers} answers"))
    }
}
