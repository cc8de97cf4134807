use rayon::prelude::*;

/// Rows or columns of a block of results.
pub(crate) const SIDE: usize = 32;

/// Values of a row that one step multiplies.
pub(crate) const STEP: usize = 32;

/// Values of a block's rows, or columns, in one step.
pub(crate) const BLOCK: usize = SIDE * STEP;

/// Blocks of rows that a thread packs at least.
const PARALLEL: usize = 4;

/// The left matrix of a product, in bf16: blocks of 32 rows, each step by step of 32 values. What is missing in the last block and step
/// is zero.
#[derive(Debug, Clone)]
pub struct PackedRows {
    pub(crate) values: Vec<u16>,
    rows: usize,
    depth: usize,
}

impl PackedRows {
    /// Packs rows of `depth` values of bf16, given by their bits, in all threads.
    ///
    /// # Panics
    /// Where the values are no whole rows: a programmer's error.
    pub fn new(values: &[u16], depth: usize) -> Self {
        Self::strided(values, depth, depth)
    }

    /// As [`PackedRows::new`], of the first `depth` values of each `stride`.
    ///
    /// # Panics
    /// Where the values are no whole rows, and where these are shorter: a programmer's error.
    pub fn strided(values: &[u16], stride: usize, depth: usize) -> Self {
        assert!(
            (1..=stride).contains(&depth) && values.len().is_multiple_of(stride),
            "{} values in rows of {stride}, of which {depth} count",
            values.len()
        );
        let rows = values.len() / stride;
        let steps = depth.div_ceil(STEP);
        let mut packed = vec![0; rows.div_ceil(SIDE) * steps * BLOCK];
        let blocks = packed.par_chunks_exact_mut(steps * BLOCK).zip(values.par_chunks(SIDE * stride));
        blocks.with_min_len(PARALLEL).for_each(|(block, rows)| {
            for (row, values) in rows.chunks_exact(stride).enumerate() {
                let (whole, rest) = values[..depth].as_chunks::<STEP>();
                // Of a length that is known, or each would be a call.
                for (step, values) in block.as_chunks_mut::<BLOCK>().0.iter_mut().zip(whole) {
                    step.as_chunks_mut::<STEP>().0[row] = *values;
                }
                if !rest.is_empty() {
                    block[whole.len() * BLOCK + row * STEP..][..rest.len()].copy_from_slice(rest);
                }
            }
        });
        Self { values: packed, rows, depth }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    pub fn depth(&self) -> usize {
        self.depth
    }
}

/// Columns of the right matrix of a product, in bf16: blocks of 32, each step by step, pairs of values of neighbouring columns side by side.
/// The room is kept from one packing to the next.
#[derive(Debug, Clone, Default)]
pub struct PackedColumns {
    pub(crate) values: Vec<u16>,
    pub(crate) columns: usize,
    pub(crate) depth: usize,
}

impl PackedColumns {
    /// For columns of `depth` values.
    ///
    /// # Panics
    /// For columns without values: a programmer's error.
    pub fn new(depth: usize) -> Self {
        assert!(depth > 0, "columns without values");
        Self { values: Vec::new(), columns: 0, depth }
    }

    /// Number of columns that were packed.
    pub fn columns(&self) -> usize {
        self.columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_rows_does_not_count() {
        for (rows, stride, depth) in [(1, 1, 1), (3, 50, 33), (40, 100, 64), (33, 70, 70)] {
            let values: Vec<u16> = (0..rows * stride).map(|i| i as u16).collect();
            let counted: Vec<u16> = values.chunks(stride).flat_map(|row| row[..depth].to_vec()).collect();
            let (packed, expected) =
                (PackedRows::strided(&values, stride, depth), PackedRows::new(&counted, depth));
            assert_eq!(packed.values, expected.values, "{rows} rows of {stride}, {depth} of each");
            assert_eq!((packed.rows(), packed.depth()), (rows, depth));
        }
    }
}
