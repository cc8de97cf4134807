//! Data sets with options.

use std::collections::BTreeMap;

use super::option::{Rules, infer};
use super::{Predictions, mean};
use crate::dataset::Choice;
use crate::judge::{Judge, Tries};
use crate::prompt::options;
use crate::table::{Table, TableError};

/// What became of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceItem {
    /// The row's index.
    pub index: String,
    /// The option that was read from its answer.
    pub inferred: Option<char>,
    /// Whether it counts as right; `None` for a row that counts with another one.
    pub hit: Option<bool>,
}

/// Scores of one split by name: `Overall`, groups of abilities, abilities. Fractions.
pub type SplitScores = BTreeMap<String, f64>;

/// Verdicts and scores of a data set with options.
#[derive(Debug, Clone, PartialEq)]
pub struct ChoiceScores {
    /// The rows in their order.
    pub items: Vec<ChoiceItem>,
    /// Scores by split; `none` where the table has no splits.
    pub splits: BTreeMap<String, SplitScores>,
}

/// MMBench's six abilities, as reports shorten them.
const SHORT: [(&str, &str); 6] = [
    ("coarse_perception", "CP"),
    ("finegrained_perception (instance-level)", "FP-S"),
    ("finegrained_perception (cross-instance)", "FP-C"),
    ("logic_reasoning", "LR"),
    ("relation_reasoning", "RR"),
    ("attribute_reasoning", "AR"),
];

/// Rows of one question in circular data are as far apart.
const ROTATION: i64 = 1_000_000;

/// Scores `predictions` by `rules`; what they cannot read, a judge reads, where there is one.
///
/// # Errors
/// [`TableError`] where the table lacks a column, or has an index twice.
pub fn score(
    table: &Table,
    choice: Choice,
    predictions: &Predictions,
    rules: Rules,
    mut judge: Option<&mut dyn Judge>,
) -> Result<ChoiceScores, TableError> {
    table.need(&["answer"])?;
    let rows = table.rows()?;
    let read: Vec<Read> = rows.iter().map(|&row| Read::new(table, row, choice, predictions, rules)).collect();
    let mut hits = vec![None; rows.len()];
    for group in groups(table, &rows, choice) {
        let mut members = group.iter().map(|&at| &read[at]);
        // Where a row that could be read is wrong, nobody is asked about the others.
        let lost = members.clone().any(|row| row.inferred.is_some_and(|letter| !row.is_right(letter)));
        let hit = !lost && members.all(|row| row.hits(rules, &mut judge));
        hits[group[0]] = Some(hit);
    }
    let items = read.into_iter().zip(&hits).map(|(row, &hit)| ChoiceItem {
        index: row.index,
        inferred: row.inferred,
        hit,
    });
    let items = items.collect();
    let counted: Vec<(usize, bool)> =
        rows.iter().zip(&hits).filter_map(|(&row, &hit)| Some((row, hit?))).collect();
    Ok(ChoiceScores { items, splits: report(table, &counted) })
}

/// A row as rules read it.
struct Read {
    index: String,
    options: Vec<(char, String)>,
    right: String,
    inferred: Option<char>,
}

/// Three tries, all alike.
const TRIES: Tries = Tries { count: 3, first: 0.0, step: 0.0, max_tokens: 2048 };

impl Read {
    fn new(table: &Table, row: usize, choice: Choice, predictions: &Predictions, rules: Rules) -> Self {
        let (options, right) = options_and_right(table, row, choice);
        let index = table.shown(row, "index").to_owned();
        let inferred = infer(predictions.seen(&index), &options, rules);
        Self { index, options, right, inferred }
    }

    fn is_right(&self, letter: char) -> bool {
        self.right.chars().eq([letter])
    }

    /// Whether the answer is right; one that cannot be read is wrong, where the original draws an option.
    fn hits(&self, rules: Rules, judge: &mut Option<&mut dyn Judge>) -> bool {
        let letter = self.inferred.or_else(|| {
            let read = |reply: &str| infer(reply, &self.options, rules);
            judge.as_mut().and_then(|judge| TRIES.ask(*judge, &self.index, read))
        });
        letter.is_some_and(|letter| self.is_right(letter))
    }
}

/// Places of rows that count together, in the order of their first ones.
fn groups(table: &Table, rows: &[usize], choice: Choice) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut known: BTreeMap<i64, usize> = BTreeMap::new();
    for (at, &row) in rows.iter().enumerate() {
        let index = table.shown(row, "index").parse::<i64>().ok().filter(|_| choice == Choice::Circular);
        let next = groups.len();
        let group = index.map_or(next, |index| *known.entry(index.rem_euclid(ROTATION)).or_insert(next));
        match groups.get_mut(group) {
            Some(group) => group.push(at),
            None => groups.push(vec![at]),
        }
    }
    groups
}

/// The options of a row by letter, as they are scored.
pub fn options_of(table: &Table, row: usize, choice: Choice) -> Vec<(char, String)> {
    options_and_right(table, row, choice).0
}

fn options_and_right(table: &Table, row: usize, choice: Choice) -> (Vec<(char, String)>, String) {
    match choice {
        Choice::Mmmu => of_mmmu(table, row),
        Choice::Plain | Choice::Circular => (options(table, row), table.shown(row, "answer").to_owned()),
    }
}

/// Options and right letter of a row of MMMU, where an open question has its answer and everything else as options.
fn of_mmmu(table: &Table, row: usize) -> (Vec<(char, String)>, String) {
    let right = table.shown(row, "answer");
    let letter = |text: &str| text.len() == 1 && text.starts_with(|c: char| c.is_ascii_uppercase());
    let mut found = options(table, row);
    if table.cell(row, "A").is_none() {
        found.retain(|&(letter, _)| letter != 'A' && letter != 'B');
        found.insert(0, ('A', right.to_owned()));
        found.insert(1, ('B', "Other Answers".to_owned()));
    }
    (found, if letter(right) { right } else { "A" }.to_owned())
}

fn report(table: &Table, rows: &[(usize, bool)]) -> BTreeMap<String, SplitScores> {
    let split = |row: usize| if table.has("split") { table.shown(row, "split") } else { "none" };
    let mut hits: BTreeMap<String, BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    for group in [None, Some("l2-category"), Some("category")] {
        if group.is_some_and(|group| !table.has(group)) {
            continue;
        }
        let mut of_group: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
        for &(row, hit) in rows {
            let name = match group {
                None => "Overall",
                Some(group) => {
                    let name = table.shown(row, group);
                    SHORT.iter().find(|(long, _)| *long == name).map_or(name, |(_, short)| short)
                }
            };
            of_group
                .entry((split(row).to_owned(), name.to_owned()))
                .or_default()
                .push(f64::from(u8::from(hit)));
        }
        // An ability that is called as its group is replaces it, as in the original.
        for ((split, name), found) in of_group {
            hits.entry(split).or_default().insert(name, found);
        }
    }
    let means = |scores: BTreeMap<String, Vec<f64>>| {
        scores.into_iter().map(|(name, hits)| (name, mean(&hits))).collect()
    };
    hits.into_iter().map(|(split, scores)| (split, means(scores))).collect()
}
