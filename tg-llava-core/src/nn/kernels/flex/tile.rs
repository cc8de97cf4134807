//! Small products in vector registers, out of which the large ones are made.
//!
//! Every value of a product is one sum along the input, front to back in stretches of [`depth`] at most, whatever stands beside it: so a
//! row's values do not depend on the number of rows.

use std::ops::Range;

use pulp::{Simd, as_arrays};

use super::LINE;

/// Most rows of a tile. With [`width`]'s vectors its sums fill the registers.
pub(super) const ROWS: usize = 6;

/// Inputs after which sums are written down, so that a panel of columns stays in a cache: the second one where panels are wide, since
/// writing sums down costs more than reading from there.
#[inline(always)]
pub(super) fn depth<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 768 } else { 256 }
}

/// Columns of a panel.
#[inline(always)]
pub(super) fn width<S: Simd>() -> usize {
    vectors::<S>() * S::F32_LANES
}

#[inline(always)]
fn vectors<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 4 } else { 2 }
}

/// Rows of values: the first one begins at `start`, each next one `stride` further on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a, P = Floats> {
    pub values: &'a [f32],
    pub start: usize,
    pub stride: usize,
    pub products: P,
}

/// What the values of a product are.
pub(super) trait Products<S: Simd>: Copy {
    /// `sums` and the products of `a` and `b`.
    fn add(self, simd: S, sums: S::f32s, a: S::f32s, b: S::f32s) -> S::f32s;
}

/// Each value is a float.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floats;

impl<S: Simd> Products<S> for Floats {
    #[inline(always)]
    fn add(self, simd: S, sums: S::f32s, a: S::f32s, b: S::f32s) -> S::f32s {
        simd.mul_add_e_f32s(a, b, sums)
    }
}

/// The same turned: the values of all rows at one depth lie side by side, and those at the next one `stride` further on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turned<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

/// The left operand of a product.
pub(super) trait Left<S: Simd>: Copy {
    /// The sums of `R` rows from `row` on with a panel, in `V` vectors of columns.
    fn tile<const R: usize, const V: usize>(
        self,
        simd: S,
        row: usize,
        panel: &[[S::f32s; V]],
    ) -> [[S::f32s; V]; R];
}

/// What becomes of sums.
pub(super) trait Sink<S: Simd> {
    /// Hears that sums of these rows come next, from `column` on.
    #[inline(always)]
    fn expect(&self, _rows: Range<usize>, _column: usize) {}

    /// Takes the sums of `row` in the columns from `column` on.
    fn take(&mut self, simd: S, row: usize, column: usize, sums: &[S::f32s]);
}

/// Gives `sink` the products of `rows` rows of `a` with panels that follow each other: all of [`width`] columns but the last one,
/// whose columns fill registers.
///
/// # Shapes
/// - a: `[rows, depth]`
/// - panels: `[whole, columns]` each, of which the first `depth` rows count
#[inline(always)]
pub(super) fn multiply<S: Simd>(
    simd: S,
    a: impl Left<S>,
    [rows, depth, columns]: [usize; 3],
    (panels, whole): (&[f32], usize),
    sink: &mut impl Sink<S>,
) {
    for column in (0..columns).step_by(width::<S>()) {
        let used = width::<S>().min(columns - column);
        let panel = S::as_simd_f32s(&panels[whole * column..][..depth * used]).0;
        match used / S::F32_LANES {
            4 => strip::<S, 4>(simd, a, rows, panel, column, sink),
            3 => strip::<S, 3>(simd, a, rows, panel, column, sink),
            2 => strip::<S, 2>(simd, a, rows, panel, column, sink),
            _ => strip::<S, 1>(simd, a, rows, panel, column, sink),
        }
    }
}

/// All rows, in `V` vectors of columns.
#[inline(always)]
fn strip<S: Simd, const V: usize>(
    simd: S,
    a: impl Left<S>,
    rows: usize,
    panel: &[S::f32s],
    column: usize,
    sink: &mut impl Sink<S>,
) {
    let panel = as_arrays::<V, _>(panel).0;
    let mut row = 0;
    while row < rows {
        sink.expect(row..rows.min(row + ROWS), column);
        row += match rows - row {
            ROWS.. => put(simd, a.tile::<ROWS, V>(simd, row, panel), (row, column), sink),
            4.. => put(simd, a.tile::<4, V>(simd, row, panel), (row, column), sink),
            2.. => put(simd, a.tile::<2, V>(simd, row, panel), (row, column), sink),
            _ => put(simd, a.tile::<1, V>(simd, row, panel), (row, column), sink),
        };
    }
}

#[inline(always)]
fn put<S: Simd, const R: usize, const V: usize>(
    simd: S,
    sums: [[S::f32s; V]; R],
    (row, column): (usize, usize),
    sink: &mut impl Sink<S>,
) -> usize {
    for (r, sums) in sums.iter().enumerate() {
        sink.take(simd, row + r, column, sums);
    }
    R
}

// In both, loops and no closures, which would not be compiled for the wide registers.

impl<S: Simd, P: Products<S>> Left<S> for Rows<'_, P> {
    #[inline(always)]
    fn tile<const R: usize, const V: usize>(
        self,
        simd: S,
        row: usize,
        panel: &[[S::f32s; V]],
    ) -> [[S::f32s; V]; R] {
        let depth = panel.len();
        let mut rows = [&self.values[..0]; R];
        for (r, values) in rows.iter_mut().enumerate() {
            let start = self.start + (row + r) * self.stride;
            *values = &self.values[start..start + depth];
        }
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        for i in 0..depth {
            let b = panel[i];
            for r in 0..R {
                let a = simd.splat_f32s(rows[r][i]);
                for v in 0..V {
                    sums[r][v] = self.products.add(simd, sums[r][v], a, b[v]);
                }
            }
        }
        sums
    }
}

impl<S: Simd> Left<S> for Turned<'_> {
    #[inline(always)]
    fn tile<const R: usize, const V: usize>(
        self,
        simd: S,
        row: usize,
        panel: &[[S::f32s; V]],
    ) -> [[S::f32s; V]; R] {
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        for (values, b) in self.values.chunks(self.stride).zip(panel) {
            let values = &values[row..row + R];
            for r in 0..R {
                let a = simd.splat_f32s(values[r]);
                for v in 0..V {
                    sums[r][v] = simd.mul_add_e_f32s(a, b[v], sums[r][v]);
                }
            }
        }
        sums
    }
}

/// Values that begin where a cache line does, so that no vector lies across two.
pub(super) struct Buffer {
    values: Vec<f32>,
    start: usize,
}

impl Buffer {
    pub fn new(len: usize) -> Self {
        let values = vec![0.0; len + LINE / size_of::<f32>()];
        let start = values.as_ptr().align_offset(LINE);
        Self { values, start }
    }

    pub fn values(&mut self) -> &mut [f32] {
        &mut self.values[self.start..]
    }

    pub fn as_values(&self) -> &[f32] {
        &self.values[self.start..]
    }
}
