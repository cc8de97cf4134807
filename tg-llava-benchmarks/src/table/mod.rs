//! Tables of VLMEvalKit: tab-separated, read as pandas reads them.

mod cells;
mod column;

use std::collections::BTreeMap;

pub(crate) use column::is_missing;

use crate::score::Predictions;
use crate::text;

/// Longest cell of the column `image` that is the index of another row.
const LONGEST_INDEX: usize = 64;

/// Why a table cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// A quote that nothing closes.
    #[error("{file}, line {line}: a quote opens here and is never closed")]
    Quote {
        /// The table.
        file: String,
        /// Line, from 1.
        line: usize,
    },
    /// More cells than columns.
    #[error("{file}, line {line}: {found} cells, but the header names {columns} columns")]
    Cells {
        /// The table.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Cells of the line.
        found: usize,
        /// Columns of the table.
        columns: usize,
    },
    /// A column that is needed and not there.
    #[error("{file}: no column `{column}`; it has {columns}")]
    Column {
        /// The table.
        file: String,
        /// What is needed.
        column: String,
        /// What is there.
        columns: String,
    },
    /// A row whose picture is that of a row that is not there.
    #[error(
        "{file}, line {line}: column `image` names row {named}, which has no picture of its own; it must be base64, or another row's index"
    )]
    Picture {
        /// The table.
        file: String,
        /// Line, from 1.
        line: usize,
        /// What the cell names.
        named: String,
    },
    /// A row without an answer.
    #[error(
        "{file}, line {line}: no prediction has the index {index}; are these predictions of another data set?"
    )]
    NoPrediction {
        /// The table.
        file: String,
        /// Line, from 1.
        line: usize,
        /// The row's index.
        index: String,
    },
    /// The same index twice.
    #[error("{file}, line {line}: index {index} is there a second time; every row needs one of its own")]
    Duplicate {
        /// The table.
        file: String,
        /// Line, from 1.
        line: usize,
        /// The index.
        index: String,
    },
}

/// A table by columns.
#[derive(Debug, Clone)]
pub struct Table {
    file: String,
    columns: Vec<String>,
    by_name: BTreeMap<String, Vec<Option<String>>>,
    lines: Vec<usize>,
}

impl Table {
    /// Reads a table; `file` is what errors call it.
    ///
    /// # Errors
    /// [`TableError`] with the line that is wrong.
    pub fn read(text: &str, file: &str) -> Result<Self, TableError> {
        let file = file.to_owned();
        let mut lines =
            cells::split(text).map_err(|line| TableError::Quote { file: file.clone(), line })?.into_iter();
        let columns = lines.next().map(|line| line.cells).unwrap_or_default();
        let mut cells: Vec<Vec<Option<String>>> = vec![Vec::new(); columns.len()];
        let mut numbers = Vec::new();
        for cells::Line { number: line, cells: row } in lines {
            if row.len() > columns.len() {
                let (found, columns) = (row.len(), columns.len());
                return Err(TableError::Cells { file, line, found, columns });
            }
            numbers.push(line);
            let mut row = row.into_iter();
            cells.iter_mut().for_each(|column| column.push(row.next()));
        }
        let by_name = columns.iter().cloned().zip(cells.into_iter().map(column::read)).collect();
        Ok(Self { file, columns, by_name, lines: numbers })
    }

    /// What errors call it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Names of the columns, in their order.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether there is a column `name`.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The cell of `row` (from 0) in column `name`; `None` where it is missing.
    pub fn cell(&self, row: usize, name: &str) -> Option<&str> {
        self.by_name.get(name)?.get(row)?.as_deref()
    }

    /// The cell as text, as Python shows it where it is missing.
    pub fn shown(&self, row: usize, name: &str) -> &str {
        self.cell(row, name).unwrap_or("nan")
    }

    /// The row's line in the file, from 1.
    pub fn line(&self, row: usize) -> usize {
        self.lines.get(row).copied().unwrap_or(0)
    }

    /// The pictures of a row, each in base64; those of another row where the cell is no longer than an index.
    ///
    /// # Errors
    /// [`TableError::Picture`] where that row is not there.
    pub fn pictures(&self, row: usize) -> Result<Vec<String>, TableError> {
        let Some(cell) = self.cell(row, "image") else { return Ok(Vec::new()) };
        let is_index = |cell: &str| cell.chars().count() <= LONGEST_INDEX;
        let own = if is_index(cell) {
            let named = (0..self.len()).find(|&other| self.cell(other, "index") == Some(cell));
            let found = named.and_then(|other| self.cell(other, "image")).filter(|cell| !is_index(cell));
            found.ok_or_else(|| TableError::Picture {
                file: self.file.clone(),
                line: self.line(row),
                named: cell.to_owned(),
            })?
        } else {
            cell
        };
        Ok(text::list(own).unwrap_or_else(|| vec![own.to_owned()]))
    }

    /// Files of a row's pictures, for a table without pictures of its own: one name, or a list of them, in column `image_path`.
    pub fn picture_files(&self, row: usize) -> Vec<String> {
        let cell = self.cell(row, "image_path");
        cell.map_or_else(Vec::new, |cell| text::list(cell).unwrap_or_else(|| vec![cell.to_owned()]))
    }

    /// Fails unless every row that counts has an answer.
    ///
    /// # Errors
    /// [`TableError::NoPrediction`] with the first row that has none.
    pub fn need_answers(&self, predictions: &Predictions) -> Result<(), TableError> {
        let bare = self.rows()?.into_iter().find(|&row| !predictions.has(self.shown(row, "index")));
        bare.map_or(Ok(()), |row| {
            let (file, index) = (self.file.clone(), self.shown(row, "index").to_owned());
            Err(TableError::NoPrediction { file, line: self.line(row), index })
        })
    }

    /// Fails unless all `names` are columns.
    ///
    /// # Errors
    /// [`TableError::Column`] with the first that is not.
    pub fn need(&self, names: &[&str]) -> Result<(), TableError> {
        let missing = names.iter().find(|name| !self.has(name));
        missing.map_or(Ok(()), |&column| {
            Err(TableError::Column {
                file: self.file.clone(),
                column: column.to_owned(),
                columns: self.columns.join(", "),
            })
        })
    }

    /// The rows that count: those with a picture, where the table has pictures.
    ///
    /// # Errors
    /// [`TableError`] where the table has no column `index`, or an index twice.
    pub fn rows(&self) -> Result<Vec<usize>, TableError> {
        self.need(&["index"])?;
        let pictured = |&row: &usize| !self.has("image") || self.cell(row, "image").is_some();
        let rows: Vec<usize> = (0..self.len()).filter(pictured).collect();
        let mut seen = std::collections::BTreeSet::new();
        for &row in &rows {
            if !seen.insert(self.shown(row, "index")) {
                let (file, index) = (self.file.clone(), self.shown(row, "index").to_owned());
                return Err(TableError::Duplicate { file, line: self.line(row), index });
            }
        }
        Ok(rows)
    }
}

/// Rows of cells as text; quotes stand around those that need them.
pub fn separated(rows: impl IntoIterator<Item = Vec<String>>, separator: char) -> String {
    let cell = |cell: &String| match cell.contains([separator, '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.clone(),
    };
    let line =
        |cells: Vec<String>| cells.iter().map(cell).collect::<Vec<_>>().join(&separator.to_string()) + "\n";
    rows.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        Table::read(text, "a.tsv").unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn pictures_may_be_lists_and_other_rows() {
        let (one, two) = ("x".repeat(65), format!("['{}', 'b']", "y".repeat(65)));
        let table = table(&format!("index\timage\n1\t{one}\n2\t1\n3\t{two}\n4\t3\n5\t4\n6\t\n"));
        let counts: Vec<_> = (0..4).map(|row| table.pictures(row).unwrap().len()).collect();
        assert_eq!(counts, [1, 1, 2, 2]);
        let error = table.pictures(4).unwrap_err().to_string();
        assert!(error.starts_with("a.tsv, line 6: column `image` names row 4"), "{error}");
        assert_eq!(table.rows().unwrap(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn errors_name_file_and_line() {
        let error = |text: &str| Table::read(text, "a.tsv").unwrap_err().to_string();
        assert_eq!(error("a\tb\n1\t2\t3\n"), "a.tsv, line 2: 3 cells, but the header names 2 columns");
        assert!(error("a\n\"b\n").starts_with("a.tsv, line 2: a quote opens here"));
        let twice = table("index\ta\n1\t\n1\t\n");
        assert!(
            twice
                .rows()
                .unwrap_err()
                .to_string()
                .starts_with("a.tsv, line 3: index 1 is there a second time")
        );
        assert!(
            twice
                .need(&["a", "answer"])
                .unwrap_err()
                .to_string()
                .contains("no column `answer`; it has index, a")
        );
        let answers = Predictions::new([("1".to_owned(), "x".to_owned())]);
        let error = table("index\ta\n1\t\n2\t\n").need_answers(&answers).unwrap_err().to_string();
        assert!(error.contains("line 3: no prediction has the index 2"), "{error}");
    }
}
