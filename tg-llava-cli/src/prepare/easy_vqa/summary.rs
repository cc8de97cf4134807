//! What was made of the data set.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EasyVqaSummary {
    /// The folder.
    pub out: PathBuf,
    /// The split to train on.
    pub train: SplitSummary,
    /// The split to test with.
    pub test: SplitSummary,
    /// Samples of the curriculum; `None` where there is none.
    pub curriculum: Option<usize>,
    /// The answers of both splits, and how many questions of the package have each.
    pub answers: BTreeMap<String, usize>,
}

/// What was written of one split.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SplitSummary {
    /// Samples in the JSON file.
    pub samples: usize,
    /// Questions in these samples, those about copies included.
    pub questions: usize,
    /// Pictures of the package.
    pub pictures: usize,
    /// Picture files, copies included.
    pub files: usize,
}
