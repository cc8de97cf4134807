//! Guide texts of one batch, brought to one length.

/// Rows of guide ids of equal length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuideBatch {
    /// Ids, `[batch][length]`.
    pub ids: Vec<Vec<i64>>,
    /// `true` where the id belongs to the text, `false` where it only fills up the row.
    pub mask: Vec<Vec<bool>>,
}

impl GuideBatch {
    /// Fills `rows` up on the right with `pad_id`, to `length` or to the longest row, whichever is longer.
    pub fn pad(rows: &[Vec<i64>], pad_id: i64, length: Option<usize>) -> Self {
        let length = rows.iter().map(Vec::len).chain(length).max().unwrap_or(0);
        let ids = rows.iter().map(|row| {
            let mut row = row.clone();
            row.resize(length, pad_id);
            row
        });
        let mask = rows.iter().map(|row| (0..length).map(|i| i < row.len()).collect());
        Self { ids: ids.collect(), mask: mask.collect() }
    }

    /// Length of the rows.
    pub fn length(&self) -> usize {
        self.ids.first().map_or(0, Vec::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_get_one_length_and_a_mask() {
        let batch = GuideBatch::pad(&[vec![1, 2, 3], vec![4]], 9, None);
        assert_eq!(batch.ids, [[1, 2, 3], [4, 9, 9]]);
        assert_eq!(batch.mask, [[true, true, true], [true, false, false]]);
        assert_eq!(GuideBatch::pad(&[vec![1]], 0, Some(3)).length(), 3);
        assert_eq!(GuideBatch::pad(&[], 0, None).length(), 0);
    }
}
