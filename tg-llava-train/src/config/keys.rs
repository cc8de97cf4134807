//! The keys there are, and the one that a misspelt key was meant to be.

use std::sync::LazyLock;

use serde::Deserialize;
use strsim::levenshtein;
use toml::{Table, Value};

use super::{TrainConfig, llava_flags::flag_keys, table::put};

/// A key that no table has.
const UNKNOWN: &str = "?";

/// What the types of [`TrainConfig`] take, in their order.
static KEYS: LazyLock<Keys> = LazyLock::new(Keys::find);

struct Keys {
    /// Paths of values, such as `optim.lr`.
    values: Vec<String>,
    /// Paths of tables.
    tables: Vec<String>,
}

impl Keys {
    fn find() -> Self {
        let mut keys = Self { values: Vec::new(), tables: Vec::new() };
        keys.add("");
        keys
    }

    /// Adds what is below the table `above`.
    fn add(&mut self, above: &str) {
        for name in fields(above) {
            let path = if above.is_empty() { name } else { format!("{above}.{name}") };
            let below = !fields(&path).is_empty();
            // `model.bridges` may be either.
            if !below || takes(&path, Value::from("a path")).is_none() {
                self.values.push(path.clone());
            }
            if below {
                self.tables.push(path.clone());
                self.add(&path);
            }
        }
    }
}

/// The names that the table `path` may hold, from what its type says to one that it may not; none where `path` is no
/// table.
fn fields(path: &str) -> Vec<String> {
    let inside = if path.is_empty() { UNKNOWN.to_owned() } else { format!("{path}.{UNKNOWN}") };
    let message = takes(&inside, Value::from(true)).unwrap_or_default();
    match message.split_once(&format!("unknown field `{UNKNOWN}`, ")) {
        Some((_, expected)) => expected.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
        None => Vec::new(),
    }
}

/// What is wrong with `value` at `path`, if anything.
fn takes(path: &str, value: Value) -> Option<String> {
    let mut run = Table::from_iter([("stage".to_owned(), Value::from("pretrain"))]);
    put(&mut run, path, value);
    TrainConfig::deserialize(run).err().map(|error| error.message().to_owned())
}

/// All keys that hold values, with their tables, such as `optim.lr`.
pub fn known_keys() -> impl Iterator<Item = &'static str> {
    KEYS.values.iter().map(String::as_str)
}

/// Whether `path` holds a value.
pub(super) fn is_key(path: &str) -> bool {
    known_keys().any(|key| key == path)
}

/// Whether `path` may be a table.
pub(super) fn is_table(path: &str) -> bool {
    path.is_empty() || KEYS.tables.iter().any(|table| table == path)
}

/// What to write instead of the unknown `path`: the nearest key, else the keys of the table that it stands in.
pub(super) fn hint(path: &str) -> String {
    let wanted = path.to_lowercase().replace('-', "_");
    let (_, last) = split(&wanted);
    let tolerated = match last.len() {
        0..=3 => 1.0,
        4..=8 => 2.0,
        len => (len / 3) as f64,
    };
    // Keys of the same table come first; then short cuts through the tables; then LLaVA's names.
    let direct = known_keys().map(|key| (apart(&wanted, key) as f64, key));
    let depth = |key: &str| key.matches('.').count() as f64;
    let elsewhere =
        known_keys().map(|key| (apart(last, split(key).1) as f64 + 0.25 + 0.01 * depth(key), key));
    let llava = flag_keys().map(|(flag, key)| (levenshtein(last, flag) as f64 + 0.5, key));
    let nearest = direct.chain(elsewhere).chain(llava).min_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((apart, key)) if apart < tolerated + 1.0 => format!("did you mean `{key}`?"),
        _ => listing(path),
    }
}

/// The keys of the nearest table above `path`, for example "[run] has: batch_size, ...".
fn listing(path: &str) -> String {
    let mut table = split(path).0;
    while !is_table(table) {
        table = split(table).0;
    }
    let names = fields(table);
    let names = names.join(", ");
    if table.is_empty() { format!("known: {names}") } else { format!("[{table}] has: {names}") }
}

/// The table and the name in it.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// How far a misspelt key is from a known one; the beginning of a name is near, in the same table.
fn apart(wanted: &str, key: &str) -> usize {
    let ((table, last), (known_table, name)) = (split(wanted), split(key));
    let begun = table == known_table && last.len() > 2 && name.len() > last.len() && name.starts_with(last);
    if begun { 1 } else { levenshtein(wanted, key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_misplaced_and_foreign_names_lead_to_the_key() {
        for (wrong, right) in [
            ("optim.learning_rat", "optim.lr"),
            ("optim.learning_rate", "optim.lr"),
            ("learning_rate", "optim.lr"),
            ("optim.Weight-Decay", "optim.weight_decay"),
            ("optim.weigth_decay", "optim.weight_decay"),
            ("batch_size", "run.batch_size"),
            ("run.per_device_train_batch_size", "run.batch_size"),
            ("data.validation.batchsize", "data.validation.batch_size"),
            ("optim.lr_of.proj", "optim.lr_of.projector"),
            ("mm_projector_lr", "optim.lr_of.projector"),
            ("run.gradient_checkpoint", "run.gradient_checkpointing"),
            ("output", "output_dir"),
            ("train.lm", "train.llm"),
        ] {
            assert_eq!(hint(wrong), format!("did you mean `{right}`?"), "{wrong}");
        }
    }

    #[test]
    fn a_name_like_no_other_gets_the_keys_of_its_table() {
        assert_eq!(
            hint("train.everything_at_once"),
            "[train] has: vision_tower, text_tower, feature_guide, detail_perceiver, projector, llm"
        );
        assert_eq!(hint("zzzzzz"), "known: stage, seed, output_dir, model, data, train, lora, optim, run");
        assert_eq!(
            hint("nowhere.zzzzzz"),
            "known: stage, seed, output_dir, model, data, train, lora, optim, run"
        );
    }
}
