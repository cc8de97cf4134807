use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// What makes a run this run and no other: settings, model and data by name, such as `seed` or `model_config`
/// (a hash). A resumed run must have the same.
pub type Fingerprint = BTreeMap<String, String>;

/// A checkpoint that was saved by a run with another fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherRun {
    /// Every entry that differs, by name; never empty.
    pub differences: Vec<Difference>,
}

/// One entry that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Name of the entry.
    pub name: String,
    /// Its value in the checkpoint, if it has the entry.
    pub checkpoint: Option<String>,
    /// Its value in the run that was started, if it has the entry.
    pub now: Option<String>,
}

/// Compares fingerprints.
pub(super) fn compare(checkpoint: &Fingerprint, now: &Fingerprint) -> Result<(), OtherRun> {
    let only_now = now.keys().filter(|name| !checkpoint.contains_key(*name));
    let mut names: Vec<_> = checkpoint.keys().chain(only_now).collect();
    names.sort();
    let differences: Vec<_> = names
        .into_iter()
        .filter(|name| checkpoint.get(*name) != now.get(*name))
        .map(|name| Difference {
            name: name.clone(),
            checkpoint: checkpoint.get(name).cloned(),
            now: now.get(name).cloned(),
        })
        .collect();
    if differences.is_empty() { Ok(()) } else { Err(OtherRun { differences }) }
}

impl Display for OtherRun {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("checkpoint of another run or model; ")?;
        for (at, difference) in self.differences.iter().enumerate() {
            write!(f, "{}{difference}", if at > 0 { "; " } else { "" })?;
        }
        f.write_str(". Resume with the values of the checkpoint, or train into another output_dir")
    }
}

impl std::error::Error for OtherRun {}

impl Display for Difference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let is_hash = |value: &Option<String>| value.as_deref().is_some_and(super::hash::is_hash);
        if is_hash(&self.checkpoint) && is_hash(&self.now) {
            // Two hashes tell nobody anything.
            return write!(f, "{}: another one now than in the checkpoint", self.name);
        }
        let value =
            |value: &Option<String>| value.as_ref().map_or("nothing".to_owned(), |v| format!("`{v}`"));
        let (checkpoint, now) = (value(&self.checkpoint), value(&self.now));
        write!(f, "{}: {checkpoint} in the checkpoint, {now} now", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(entries: &[(&str, &str)]) -> Fingerprint {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_difference_is_told_with_both_values() {
        let saved = fingerprint(&[("batch_size", "4"), ("seed", "42"), ("stage", "pretrain"), ("old", "1")]);
        assert_eq!(compare(&saved, &saved), Ok(()));
        let now =
            fingerprint(&[("batch_size", "8"), ("data", "a.json"), ("seed", "42"), ("stage", "finetune")]);
        let error = compare(&saved, &now).unwrap_err();
        assert_eq!(
            error.to_string(),
            "checkpoint of another run or model; batch_size: `4` in the checkpoint, `8` now; \
             data: nothing in the checkpoint, `a.json` now; old: `1` in the checkpoint, nothing now; \
             stage: `pretrain` in the checkpoint, `finetune` now. \
             Resume with the values of the checkpoint, or train into another output_dir"
        );
    }

    #[test]
    fn hashes_are_not_shown() {
        let of = |text: &[u8]| fingerprint(&[("model", &super::super::hash_bytes(text))]);
        let error = compare(&of(b"a"), &of(b"b")).unwrap_err().to_string();
        assert!(error.contains("model: another one now than in the checkpoint"), "{error}");
    }
}
