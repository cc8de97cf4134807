//! Rows of a matrix turned into columns of a panel.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::half::Values;

/// Rows that are turned at a time.
const SIDE: usize = 16;

/// Values of each of them.
const BLOCK: usize = 64;

/// Between rows that become f32 first: no power of two, or all of them would compete for the same places in the cache.
const STRIDE: usize = BLOCK + 16;

/// Turns rows of a matrix into columns of a panel.
pub(super) struct Turner {
    width: usize,
    room: Vec<f32>,
}

impl Turner {
    /// For panels of `width` columns.
    pub fn new(width: usize) -> Self {
        Self { width, room: vec![0.0; SIDE * STRIDE] }
    }

    /// Columns of a panel.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Fills `panel`, `[depth, width]`, with `rows` rows of `depth` of `values`, each from its `start` on. Columns without a row
    /// become zeros.
    #[inline(always)]
    pub fn turn(
        &mut self,
        panel: &mut [f32],
        [rows, depth]: [usize; 2],
        values: Values<'_>,
        start: impl Fn(usize) -> usize,
    ) {
        let width = self.width;
        for (part, begin) in panel[..depth * width].chunks_mut(BLOCK * width).zip((0..).step_by(BLOCK)) {
            let len = part.len() / width;
            for column in (0..width).step_by(SIDE) {
                let mut square: [&[f32]; SIDE] = [&[0.0; BLOCK][..len]; SIDE];
                let used = rows.saturating_sub(column).min(SIDE);
                let rooms = self.room.chunks_exact_mut(STRIDE);
                for ((row, square), room) in (column..).zip(&mut square[..used]).zip(rooms) {
                    *square = values.read(start(row) + begin, len, room);
                }
                #[cfg(target_arch = "x86_64")]
                if let (Some(simd), true) = (pulp::x86::V4::try_new(), width - column >= SIDE) {
                    avx512::turn(simd, &square, part, width, column);
                    continue;
                }
                let columns = SIDE.min(width - column);
                for (i, out) in part.chunks_exact_mut(width).enumerate() {
                    for (value, row) in out[column..column + columns].iter_mut().zip(&square) {
                        *value = row[i];
                    }
                }
            }
        }
    }
}

/// The matrix of `rows` rows with rows and columns exchanged.
pub(super) fn transpose(values: &[f32], rows: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    let arch = pulp::Arch::new();
    out.par_chunks_mut(BLOCK * rows).enumerate().for_each(|(index, out)| {
        arch.dispatch(Transpose { out, values, rows, first: index * BLOCK });
    });
    out
}

/// Columns `first..` as rows.
struct Transpose<'a> {
    out: &'a mut [f32],
    values: &'a [f32],
    rows: usize,
    first: usize,
}

impl WithSimd for Transpose<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { out, values, rows, first } = self;
        let (columns, depth) = (values.len() / rows, out.len() / rows);
        let start = |row| row * columns + first;
        Turner::new(rows).turn(out, [rows, depth], Values::F32(values), start);
    }
}

/// Squares in registers: a value alone would be a load and a store.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use pulp::x86::V4;
    use pulp::{Simd, cast, f32x16};

    use super::SIDE;

    /// Fills the columns of `part`, `[len, width]`, from `column` on.
    #[inline(always)]
    pub fn turn(simd: V4, rows: &[&[f32]; SIDE], part: &mut [f32], width: usize, column: usize) {
        for (out, from) in part.chunks_mut(SIDE * width).zip((0..).step_by(SIDE)) {
            let mut square = [simd.splat_f32s(0.0); SIDE];
            for r in 0..SIDE {
                // What loads a part is no single instruction.
                square[r] = match rows[r][from..].first_chunk::<SIDE>() {
                    Some(values) => cast(*values),
                    None => simd.partial_load_f32s(&rows[r][from..]),
                };
            }
            let square = turned(simd, square);
            for (r, out) in out.chunks_exact_mut(width).enumerate() {
                V4::as_mut_simd_f32s(&mut out[column..column + SIDE]).0[0] = square[r];
            }
        }
    }

    /// Rows as columns: by pairs, by fours, and then whole quarters of registers.
    #[inline(always)]
    fn turned(simd: V4, rows: [f32x16; SIDE]) -> [f32x16; SIDE] {
        let avx = simd.avx512f;
        let mut fours = rows;
        for q in (0..SIDE).step_by(4) {
            let [a, b, c, d] = [rows[q], rows[q + 1], rows[q + 2], rows[q + 3]];
            let low = [(a, b), (c, d)].map(|(x, y)| cast(avx._mm512_unpacklo_ps(cast(x), cast(y))));
            let high = [(a, b), (c, d)].map(|(x, y)| cast(avx._mm512_unpackhi_ps(cast(x), cast(y))));
            fours[q] = cast(avx._mm512_unpacklo_pd(low[0], low[1]));
            fours[q + 1] = cast(avx._mm512_unpackhi_pd(low[0], low[1]));
            fours[q + 2] = cast(avx._mm512_unpacklo_pd(high[0], high[1]));
            fours[q + 3] = cast(avx._mm512_unpackhi_pd(high[0], high[1]));
        }
        let mut out = fours;
        for j in 0..4 {
            let [a, b, c, d] = [cast(fours[j]), cast(fours[4 + j]), cast(fours[8 + j]), cast(fours[12 + j])];
            let halves = [avx._mm512_shuffle_f32x4::<0x44>(a, b), avx._mm512_shuffle_f32x4::<0x44>(c, d)];
            out[j] = cast(avx._mm512_shuffle_f32x4::<0x88>(halves[0], halves[1]));
            out[4 + j] = cast(avx._mm512_shuffle_f32x4::<0xdd>(halves[0], halves[1]));
            let halves = [avx._mm512_shuffle_f32x4::<0xee>(a, b), avx._mm512_shuffle_f32x4::<0xee>(c, d)];
            out[8 + j] = cast(avx._mm512_shuffle_f32x4::<0x88>(halves[0], halves[1]));
            out[12 + j] = cast(avx._mm512_shuffle_f32x4::<0xdd>(halves[0], halves[1]));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn a_matrix_turned_twice_is_itself() {
        for [rows, columns] in [[1, 1], [3, 70], [64, 64], [70, 33], [130, 200]] {
            let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let turned = transpose(&values, rows);
            assert_eq!(turned[..rows], (0..rows).map(|row| (row * columns) as f32).collect::<Vec<_>>());
            assert_eq!(transpose(&turned, columns), values, "{rows} x {columns}");
        }
    }

    #[test]
    fn rows_become_columns_and_the_rest_zeros() {
        struct Turn<'a>(&'a mut [f32], Values<'a>, usize, [usize; 2]);
        impl WithSimd for Turn<'_> {
            type Output = ();

            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) {
                let Self(panel, values, width, sizes) = self;
                Turner::new(width).turn(panel, sizes, values, |row| row * sizes[1]);
            }
        }
        for width in [2, 12, 16, 64] {
            for [rows, depth] in [[width, 64], [width, 1], [width - 1, 100], [1, 17], [width, 200]] {
                let values: Vec<f32> = (0..rows * depth).map(|i| 1.0 + (i % 2000) as f32).collect();
                let halves: Vec<f16> = values.iter().map(|&x| f16::from_f32(x)).collect();
                for stored in [Values::F32(&values), Values::F16(&halves)] {
                    let mut panel = vec![f32::NAN; depth * width];
                    pulp::Arch::new().dispatch(Turn(&mut panel, stored, width, [rows, depth]));
                    for (i, turned) in panel.chunks(width).enumerate() {
                        for (column, &value) in turned.iter().enumerate() {
                            let expected = if column < rows { values[column * depth + i] } else { 0.0 };
                            assert_eq!(value, expected, "{width} {rows} {depth}: {i} {column}");
                        }
                    }
                }
            }
        }
    }
}
