//! Tables of VLMEvalKit: tab-separated, read as pandas reads them.

mod cells;
mod column;

use std::collections::BTreeMap;

pub(crate) use column::is_missing;

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
