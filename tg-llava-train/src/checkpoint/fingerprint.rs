use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use super::hash::is_hash;

/// What makes a run this run and no other: settings, model and data by name, such as `seed` or `model_config`
/// (a hash, see [`hash_bytes`](super::hash_bytes)). A resumed run must have the same.
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
    /// Its value in the checkpoint.
    pub checkpoint: String,
    /// Its value in the run that was started, if it has the entry.
    pub now: Option<String>,
}

/// Compares fingerprints; gives the entries that the checkpoint lacks, since an older program wrote it.
pub(super) fn compare(checkpoint: &Fingerprint, now: &Fingerprint) -> Result<Vec<String>, OtherRun> {
    let differences: Vec<_> = checkpoint
        .iter()
        .filter(|(name, value)| now.get(*name) != Some(value))
        .map(|(name, value)| Difference {
            name: name.clone(),
            checkpoint: value.clone(),
            now: now.get(name).cloned(),
        })
        .collect();
    if !differences.is_empty() {
        return Err(OtherRun { differences });
    }
    Ok(now.keys().filter(|name| !checkpoint.contains_key(*name)).cloned().collect())
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
        let Self { name, checkpoint, now } = self;
        match now {
            // The numbers of hashes say nothing.
            Some(now) if is_hash(checkpoint) && is_hash(now) => {
                write!(f, "{name}: not the same as in the checkpoint")
            }
            Some(now) => write!(f, "{name}: `{checkpoint}` in the checkpoint, `{now}` now"),
            None => write!(f, "{name}: in the checkpoint, nothing of the kind now"),
        }
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
        let hash = |text: &str| crate::checkpoint::hash_bytes(text.as_bytes());
        let saved =
            fingerprint(&[("batch_size", "4"), ("data", &hash("a")), ("old", "1"), ("stage", "pretrain")]);
        assert_eq!(compare(&saved, &saved), Ok(Vec::new()));
        let now =
            fingerprint(&[("batch_size", "8"), ("data", &hash("b")), ("new", "2"), ("stage", "finetune")]);
        let error = compare(&saved, &now).unwrap_err();
        assert_eq!(
            error.to_string(),
            "checkpoint of another run or model; batch_size: `4` in the checkpoint, `8` now; \
             data: not the same as in the checkpoint; old: in the checkpoint, nothing of the kind now; \
             stage: `pretrain` in the checkpoint, `finetune` now. \
             Resume with the values of the checkpoint, or train into another output_dir"
        );
    }

    #[test]
    fn what_an_older_program_did_not_note_is_told_and_no_difference() {
        let saved = fingerprint(&[("seed", "42")]);
        let now = fingerprint(&[("seed", "42"), ("data files", "x"), ("tokenizer", "y")]);
        assert_eq!(compare(&saved, &now), Ok(vec!["data files".to_owned(), "tokenizer".to_owned()]));
    }
}
