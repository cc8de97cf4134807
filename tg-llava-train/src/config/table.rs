//! From text to a table whose keys and values are known to be good.

use std::{fs, ops::Range, path::Path};

use serde::Deserialize;
use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue, Deserializer},
};

use super::{ConfigError, TrainConfig, keys};

/// Reads a TOML file.
///
/// # Errors
/// [`ConfigError::Io`], or as [`parse_table`].
pub fn read_table(path: &Path) -> Result<Table, ConfigError> {
    let text =
        fs::read_to_string(path).map_err(|source| ConfigError::Io { path: path.to_path_buf(), source })?;
    parse_table(&text, &path.display().to_string())
}

/// Reads TOML that describes a run or a part of one; `name` stands for the text in errors.
///
/// # Errors
/// [`ConfigError`] with line and key where the text is not TOML, has a key that does not exist or a value of the
/// wrong kind.
pub fn parse_table(text: &str, name: &str) -> Result<Table, ConfigError> {
    let syntax = |error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        let (line, column) = position(text, at);
        ConfigError::Syntax { name: name.into(), line, column, message: one_line(error.message()) }
    };
    let place = |span: &Range<usize>| format!("{name}, line {}", position(text, span.start).0);

    let mut spanned = DeTable::parse(text).map_err(syntax)?;
    let mut entries = Vec::new();
    flatten(spanned.get_ref(), "", &mut entries);
    if let Some(entry) = entries.iter().find(|entry| !entry.known) {
        let (place, key, hint) = (place(&entry.key_span), entry.path.clone(), keys::hint(&entry.path));
        return Err(ConfigError::UnknownKey { place, key, hint });
    }

    // A part of a run may leave the stage to another part.
    let (stage, anywhere) = (Spanned::new(0..0, "stage".into()), 0..0);
    spanned.get_mut().entry(stage).or_insert(Spanned::new(anywhere, DeValue::String("pretrain".into())));
    TrainConfig::deserialize(Deserializer::from(spanned)).map_err(|error| {
        let at = error.span().unwrap_or(0..0);
        // The entry with the smallest value around the fault.
        let around = entries.iter().filter(|entry| entry.contains(&at));
        let entry = around.min_by_key(|entry| entry.value_span.len());
        let key = entry.map_or_else(String::new, |entry| entry.path.clone());
        ConfigError::Value { place: place(&at), key, message: one_line(error.message()) }
    })?;
    text.parse().map_err(syntax)
}

/// Carries out `assignment`, written as `key=value` like `optim.lr=2e-5`, on `table`.
///
/// The value is TOML; a bare word is a string. Without a value, the key goes back to its default.
///
/// # Errors
/// [`ConfigError`] where this is no assignment, the key does not exist or the value is of the wrong kind.
pub fn set(table: &mut Table, assignment: &str) -> Result<(), ConfigError> {
    let malformed = || ConfigError::Assignment { text: assignment.into() };
    let (path, text) = assignment.split_once('=').ok_or_else(malformed)?;
    let (path, text) = (path.trim(), text.trim());
    if path.is_empty() {
        return Err(malformed());
    }
    let place = || format!("--set {assignment}");
    if !keys::is_key(path) {
        // A whole table can be set too, as an inline table.
        if !keys::is_table(path) {
            return Err(ConfigError::UnknownKey { place: place(), key: path.into(), hint: keys::hint(path) });
        }
    }
    if text.is_empty() {
        remove(table, path);
        return Ok(());
    }
    insert(table, path, candidates(text)).map_err(|message| ConfigError::Value {
        place: place(),
        key: path.into(),
        message,
    })
}

/// Puts the first of `values` that `path` can hold into `table`, or says why the first one does not fit.
pub(super) fn insert(table: &mut Table, path: &str, values: Vec<Value>) -> Result<(), String> {
    let mut first_error = None;
    for value in values {
        let mut run = Table::from_iter([("stage".to_owned(), Value::from("pretrain"))]);
        put(&mut run, path, value.clone());
        match TrainConfig::deserialize(run) {
            Ok(_) => {
                put(table, path, value);
                return Ok(());
            }
            Err(error) => {
                first_error.get_or_insert_with(|| one_line(error.message()));
            }
        }
    }
    Err(first_error.unwrap_or_else(|| "no value".into()))
}

/// What `text` may mean, the likeliest first: TOML, a number as Python writes it (`1.`), a string.
fn candidates(text: &str) -> Vec<Value> {
    let mut values = Vec::new();
    match format!("value = {text}").parse::<Table>() {
        Ok(mut parsed) if parsed.len() == 1 => values.extend(parsed.remove("value")),
        _ => {}
    }
    if values.is_empty() && text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        values.extend(text.parse().ok().map(Value::Float));
    }
    values.push(Value::from(text));
    values
}

/// Puts `value` at `path`, with the tables that it takes.
pub(super) fn put(table: &mut Table, path: &str, value: Value) {
    let Some((first, rest)) = path.split_once('.') else {
        table.insert(path.into(), value);
        return;
    };
    let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
    // `model.bridges` may have been a folder.
    if !inner.is_table() {
        *inner = Value::Table(Table::new());
    }
    if let Value::Table(inner) = inner {
        put(inner, rest, value);
    }
}

fn remove(table: &mut Table, path: &str) {
    match path.split_once('.') {
        None => {
            table.remove(path);
        }
        Some((first, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(first) {
                remove(inner, rest);
            }
        }
    }
}

/// A key of the text, with its tables.
struct Entry {
    path: String,
    known: bool,
    key_span: Range<usize>,
    value_span: Range<usize>,
}

impl Entry {
    /// Whether a fault at `at` lies in this entry.
    fn contains(&self, at: &Range<usize>) -> bool {
        let within = |span: &Range<usize>| span.start <= at.start && at.end <= span.end && !span.is_empty();
        within(&self.key_span) || within(&self.value_span)
    }
}

fn flatten(table: &DeTable<'_>, above: &str, entries: &mut Vec<Entry>) {
    for (name, value) in table {
        let path =
            if above.is_empty() { name.get_ref().to_string() } else { format!("{above}.{}", name.get_ref()) };
        let below = keys::is_table(&path);
        let known = below || keys::is_key(&path);
        entries.push(Entry { path: path.clone(), known, key_span: name.span(), value_span: value.span() });
        if let (true, DeValue::Table(inner)) = (below, value.get_ref()) {
            flatten(inner, &path, entries);
        }
    }
}

/// Line and column of a byte, from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or(before);
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// A parser's message on one line, and without the names of Rust's types.
fn one_line(message: &str) -> String {
    let message =
        message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(": ");
    let Some((found, expected)) = message.rsplit_once(", expected ") else { return message };
    let expected = match expected {
        "f64" => "a number",
        "i64" => "a whole number",
        "usize" | "u64" => "a whole number of at least 0",
        "path string" => "a path",
        table if table.starts_with("struct ") => "a table",
        other => other,
    };
    format!("{found}, expected {expected}")
}
