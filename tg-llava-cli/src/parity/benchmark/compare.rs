//! Comparison of what was recorded with what is found, both as JSON laid out alike.

use serde_json::{Map, Value};

use super::super::report::Row;

/// Scores are recorded in double precision.
const TOLERANCE: f64 = 1e-9;

/// Compares every value.
pub fn compare(group: impl Into<String>, found: &Value, golden: &Value) -> Row {
    let mut walk = Walk::default();
    walk.value("", found, golden);
    match walk.difference {
        Some(difference) => Row::exact(group, walk.compared, Some(difference)),
        None => Row::numeric(group, walk.compared, walk.worst, TOLERANCE),
    }
}

#[derive(Default)]
struct Walk {
    compared: usize,
    worst: f64,
    difference: Option<String>,
}

impl Walk {
    fn value(&mut self, place: &str, found: &Value, golden: &Value) {
        match (found, golden) {
            (Value::Object(found), Value::Object(golden)) => {
                let extra = found.keys().filter(|key| !golden.contains_key(*key));
                for key in golden.keys().chain(extra) {
                    let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                    self.value(&format!("{place}.{key}"), &of(found), &of(golden));
                }
            }
            (Value::Array(found), Value::Array(golden)) if found.len() == golden.len() => {
                for (at, (found, golden)) in found.iter().zip(golden).enumerate() {
                    self.value(&format!("{place}[{at}]"), found, golden);
                }
            }
            _ => {
                self.compared += 1;
                let same = match (found.as_f64(), golden.as_f64()) {
                    (Some(found), Some(golden)) => {
                        self.worst = self.worst.max((found - golden).abs());
                        (found - golden).abs() <= TOLERANCE
                    }
                    // Recorded ids are numbers where all of a column are.
                    _ => found == golden || (is_plain(found, golden) && shown(found) == shown(golden)),
                };
                if !same {
                    let place = place.trim_start_matches('.');
                    self.difference.get_or_insert_with(|| format!("{place}: {found}, recorded {golden}"));
                }
            }
        }
    }
}

/// Whether one is a number, and the other a text.
fn is_plain(found: &Value, golden: &Value) -> bool {
    (found.is_string() && golden.is_number()) || (found.is_number() && golden.is_string())
}

/// Text as a scorer sees a value.
pub fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Recorded scores by what they call themselves under `key`; `none` where they do not.
pub fn by_name(scores: &Value, key: &str) -> Value {
    let entry = |scores: &Value| {
        let mut named = scores.as_object().cloned().unwrap_or_default();
        let name = named.remove(key).map_or("none".to_owned(), |name| shown(&name));
        (name, Value::Object(named))
    };
    let one = std::slice::from_ref(scores);
    Value::Object(scores.as_array().map_or(one, Vec::as_slice).iter().map(entry).collect())
}
