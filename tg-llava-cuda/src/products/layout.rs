//! How matrices lie in memory, in the words of cuBLAS: column after column.

/// A matrix whose rows, or whose columns, lie one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    rows: usize,
    cols: usize,
    lines: Lines,
    /// Values from one line to the next.
    stride: usize,
}

/// What of a matrix lies in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Lines {
    Rows,
    Columns,
}

impl View {
    /// The matrix of a tensor's shape and strides; `None` where neither rows nor columns are lines, or lines overlap.
    pub fn of(shape: [usize; 2], strides: [usize; 2]) -> Option<Self> {
        let [rows, cols] = shape;
        if rows == 0 || cols == 0 {
            return None;
        }
        // The stride of a dimension of one says nothing.
        let in_lines = |along: usize, len: usize, across: usize, count: usize| {
            ((along == 1 || len == 1) && (across >= len || count == 1)).then_some(if count == 1 {
                len
            } else {
                across
            })
        };
        if let Some(stride) = in_lines(strides[1], cols, strides[0], rows) {
            return Some(Self { rows, cols, lines: Lines::Rows, stride });
        }
        let stride = in_lines(strides[0], rows, strides[1], cols)?;
        Some(Self { rows, cols, lines: Lines::Columns, stride })
    }

    /// Values from the first to the last, gaps included.
    pub fn span(self) -> usize {
        let (lines, len) = match self.lines {
            Lines::Rows => (self.rows, self.cols),
            Lines::Columns => (self.cols, self.rows),
        };
        (lines - 1) * self.stride + len
    }

    /// As cuBLAS is told of it, where the transposed matrix is what takes part.
    fn transposed_operand(self) -> Operand {
        // Rows that lie one behind the other are the columns of the transposed matrix.
        let (transpose, rows, cols) = match self.lines {
            Lines::Rows => (false, self.cols, self.rows),
            Lines::Columns => (true, self.rows, self.cols),
        };
        Operand { transpose, rows, cols, leading: self.stride }
    }
}

/// A matrix as cuBLAS reads it: columns one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operand {
    /// Whether the product takes it transposed.
    pub transpose: bool,
    /// Rows in memory.
    pub rows: usize,
    /// Columns in memory.
    pub cols: usize,
    /// Values from one column to the next.
    pub leading: usize,
}

/// `lhs rhs`, into rows that lie one behind the other, as cuBLAS is told of it: its result, read by columns, is the transposed product,
/// so the operands change places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Plan {
    /// cuBLAS's A: our right operand.
    pub a: Operand,
    /// cuBLAS's B: our left operand.
    pub b: Operand,
    /// The result.
    pub d: Operand,
}

impl Plan {
    /// # Panics
    /// Where the inner sizes differ: a programmer's error.
    pub fn new(lhs: View, rhs: View) -> Self {
        assert_eq!(lhs.cols, rhs.rows, "columns of the left matrix, rows of the right one");
        let d = Operand { transpose: false, rows: rhs.cols, cols: lhs.rows, leading: rhs.cols };
        Self { a: rhs.transposed_operand(), b: lhs.transposed_operand(), d }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What cuBLAS does, written out: `op(A) op(B)` with all matrices read by columns.
    pub fn by_columns(plan: Plan, a: &[f32], b: &[f32]) -> Vec<f32> {
        let value = |of: Operand, values: &[f32], row: usize, col: usize| {
            let (row, col) = if of.transpose { (col, row) } else { (row, col) };
            assert!(row < of.rows && col < of.cols, "outside of the matrix");
            values[col * of.leading + row]
        };
        let inner = if plan.a.transpose { plan.a.rows } else { plan.a.cols };
        let mut out = vec![f32::NAN; plan.d.rows * plan.d.cols];
        for col in 0..plan.d.cols {
            for row in 0..plan.d.rows {
                let products = (0..inner).map(|i| value(plan.a, a, row, i) * value(plan.b, b, i, col));
                out[col * plan.d.leading + row] = products.sum();
            }
        }
        out
    }

    /// `[rows, cols]` in rows, or in columns, with `gap` unused values behind each line.
    fn matrix(rows: usize, cols: usize, in_rows: bool, gap: usize) -> (Vec<f32>, [usize; 2]) {
        let strides = if in_rows { [cols + gap, 1] } else { [1, rows + gap] };
        let mut values = vec![f32::NAN; (rows + gap) * (cols + gap)];
        for row in 0..rows {
            for col in 0..cols {
                values[row * strides[0] + col * strides[1]] = (row * 7 + col * 3 % 11) as f32 - 9.0;
            }
        }
        (values, strides)
    }

    #[test]
    fn every_layout_gives_the_product() {
        for [m, k, n] in [[3, 4, 5], [1, 6, 2], [5, 1, 3], [4, 3, 1], [1, 1, 1], [8, 16, 8]] {
            for (lhs_rows, rhs_rows, gap) in
                [(true, true, 0), (true, false, 0), (false, true, 3), (false, false, 1)]
            {
                let (lhs, lhs_strides) = matrix(m, k, lhs_rows, gap);
                let (rhs, rhs_strides) = matrix(k, n, rhs_rows, gap);
                let lhs_view = View::of([m, k], lhs_strides).expect("lines");
                let rhs_view = View::of([k, n], rhs_strides).expect("lines");
                let found = by_columns(Plan::new(lhs_view, rhs_view), &rhs, &lhs);
                let at =
                    |values: &[f32], [r, c]: [usize; 2], row: usize, col: usize| values[row * r + col * c];
                for row in 0..m {
                    for col in 0..n {
                        let wanted: f32 = (0..k)
                            .map(|i| at(&lhs, lhs_strides, row, i) * at(&rhs, rhs_strides, i, col))
                            .sum();
                        assert_eq!(found[row * n + col], wanted, "{m} x {k} x {n} at {row}, {col}");
                    }
                }
                assert!(lhs_view.span() <= lhs.len() && rhs_view.span() <= rhs.len());
            }
        }
    }

    #[test]
    fn a_span_ends_with_the_last_value() {
        assert_eq!(View::of([3, 4], [10, 1]).map(View::span), Some(24));
        assert_eq!(View::of([3, 4], [1, 10]).map(View::span), Some(33));
        assert_eq!(View::of([1, 4], [999, 1]).map(View::span), Some(4));
    }

    #[test]
    fn what_cublas_cannot_read_is_left_to_others() {
        assert_eq!(View::of([3, 4], [0, 1]), None, "one row repeated");
        assert_eq!(View::of([3, 4], [8, 2]), None, "every second value");
        assert_eq!(View::of([0, 4], [4, 1]), None, "nothing");
    }
}
