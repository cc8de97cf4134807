//! What a golden comparison found: rows, verdicts, and their table.

use serde::Serialize;

/// Outcome of one group of comparisons.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "verdict", content = "note", rename_all = "snake_case")]
pub enum Verdict {
    /// Every value lies within the tolerance.
    Pass,
    /// Something differs; the text names the worst or the first difference.
    Fail(String),
    /// The reference itself is wrong here; the text says what we give instead.
    ByDesign(String),
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was compared, for example `pair.logits` or `v1 labels`.
    pub group: String,
    /// Number of values (or strings, or samples) compared.
    pub compared: usize,
    /// Worst difference found, in units of the tensor's scale; 0 for exact groups.
    pub worst: f64,
    /// Largest difference that passes; 0 means exact.
    pub tolerance: f64,
    /// The outcome.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl Row {
    /// A numeric comparison: passes where `worst <= tolerance` (a NaN never passes).
    pub fn numeric(group: impl Into<String>, compared: usize, worst: f64, tolerance: f64) -> Self {
        let verdict = if worst <= tolerance {
            Verdict::Pass
        } else {
            Verdict::Fail(format!("worst difference {worst:.2e} is over {tolerance:.0e}"))
        };
        Self { group: group.into(), compared, worst, tolerance, verdict }
    }

    /// An exact comparison: `difference` describes the first difference, if any.
    pub fn exact(group: impl Into<String>, compared: usize, difference: Option<String>) -> Self {
        let verdict = difference.map_or(Verdict::Pass, Verdict::Fail);
        Self { group: group.into(), compared, worst: 0.0, tolerance: 0.0, verdict }
    }

    /// The reference is wrong here by its own account; `note` says what we give instead.
    pub fn by_design(group: impl Into<String>, compared: usize, note: impl Into<String>) -> Self {
        let verdict = Verdict::ByDesign(note.into());
        Self { group: group.into(), compared, worst: 0.0, tolerance: 0.0, verdict }
    }

    /// Whether the row is a difference that must not be.
    pub fn failed(&self) -> bool {
        matches!(self.verdict, Verdict::Fail(_))
    }
}

/// The rows of one folder.
#[derive(Debug, Clone, Serialize)]
pub struct FolderReport {
    /// The folder.
    pub folder: std::path::PathBuf,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// Everything that was compared.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Folder by folder.
    pub folders: Vec<FolderReport>,
}

impl Report {
    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.folders.iter().flat_map(|folder| &folder.rows)
    }

    /// Rows that must not be.
    pub fn failures(&self) -> usize {
        self.rows().filter(|row| row.failed()).count()
    }

    /// The report as a table for people, with a summary line.
    pub fn table(&self) -> String {
        let width = self.rows().map(|row| row.group.chars().count()).max().unwrap_or(0).min(64);
        let mut out = String::new();
        for folder in &self.folders {
            out += &format!("{}\n", folder.folder.display());
            for row in &folder.rows {
                let (verdict, note) = match &row.verdict {
                    Verdict::Pass => ("pass", ""),
                    Verdict::Fail(reason) => ("FAIL", reason.as_str()),
                    Verdict::ByDesign(note) => ("by design", note.as_str()),
                };
                let line = format!(
                    "  {:width$}  {:>9}  {:>8.1e}  {:>7.0e}  {verdict:9}  {note}",
                    row.group, row.compared, row.worst, row.tolerance
                );
                out += line.trim_end();
                out.push('\n');
            }
        }
        let designed = self.rows().filter(|row| matches!(row.verdict, Verdict::ByDesign(_))).count();
        let total = self.rows().count();
        let values: usize = self.rows().map(|row| row.compared).sum();
        out += &format!(
            "{} of {total} groups pass ({designed} by design), {} fail; {values} values compared\n",
            total - self.failures(),
            self.failures()
        );
        out
    }
}
