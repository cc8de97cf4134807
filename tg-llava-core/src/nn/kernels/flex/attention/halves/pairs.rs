use half::bf16;
use half::slice::HalfFloatSliceExt;
use pulp::bytemuck::cast_slice_mut;
use pulp::x86::V4;
use pulp::{NullaryFnOnce, Simd, f32x16};

use super::super::super::half::{OnV4, Values};
use super::super::super::pairs::Pairs;
use super::super::super::tile::{self, Buffer, Rows, Sink};
use super::super::super::turn::Turner;
use super::super::with_turned;
use super::{Engine, Place, Queries};

/// Columns in panels: of the width of a tile, each all along its columns.
pub(super) struct Panels {
    values: Buffer,
    /// Pairs of a column.
    depth: usize,
}

/// By sums of two products at a time.
impl Engine for Pairs {
    type Columns = Panels;

    fn turned(self, rows: &[bf16], dim: usize) -> Option<Panels> {
        let (pairs, depth, width) = (Self::of(rows, dim)?, dim / 2, tile::width::<V4>());
        let count = rows.len() / dim;
        let mut values = Buffer::new(count.next_multiple_of(width) * depth);
        self.vectorize(Turn { panels: values.values(), pairs, depth });
        Some(Panels { values, depth })
    }

    fn upright(self, rows: &[bf16], dim: usize) -> Option<Panels> {
        let (width, lanes) = (tile::width::<V4>(), V4::F32_LANES);
        let (depth, padded) = ((rows.len() / dim).div_ceil(2), dim.next_multiple_of(lanes));
        let mut values = Buffer::new(depth * padded);
        let all: &mut [[u16; 2]] = cast_slice_mut(values.values());
        for (index, panel) in all[..depth * padded].chunks_mut(depth * width).enumerate() {
            let columns = panel.len() / depth;
            let used = columns.min(dim - index * width);
            for (out, two) in panel.chunks_exact_mut(columns).zip(rows.chunks(2 * dim)) {
                for (half, row) in two.chunks_exact(dim).enumerate() {
                    for (out, value) in out.iter_mut().zip(&row[index * width..][..used]) {
                        out[half] = value.to_bits();
                    }
                }
            }
        }
        Some(Panels { values, depth })
    }

    fn run(self, task: Queries<'_, Self>) {
        self.vectorize(OnV4(self.simd(), task));
    }

    #[inline(always)]
    fn scores<S: Simd>(self, rows: &[bf16], keys: &Panels, [dim, last]: [usize; 2], out: &mut [f32]) {
        let Some(pairs) = Self::of(rows, dim) else { return };
        with_turned(self.simd(), (pairs, self), keys.values.as_values(), [keys.depth, last], out);
    }

    #[inline(always)]
    fn narrow(self, to: &mut [bf16], from: &[f32]) {
        let (vectors, rest) = V4::as_simd_f32s(from);
        let (out, out_rest) = pulp::as_arrays_mut::<16, u16>(to.reinterpret_cast_mut());
        for (out, vector) in out.iter_mut().zip(vectors) {
            *out = self.narrow(*vector);
        }
        let last = self.narrow(self.simd().partial_load_f32s(rest));
        out_rest.copy_from_slice(&last[..rest.len()]);
    }

    #[inline(always)]
    fn outputs(self, weights: &[bf16], [stride, seen]: [usize; 2], values: &Panels, mut place: Place<'_>) {
        let Some(pairs) = Self::of(weights, stride) else { return };
        let a = Rows { values: pairs, start: 0, stride: stride / 2, products: self };
        let padded = place.dim.next_multiple_of(V4::F32_LANES);
        let sizes = [weights.len() / stride, seen.div_ceil(2), padded];
        tile::multiply(
            self.simd(),
            a,
            sizes,
            (values.values.as_values(), values.depth),
            &mut Rounded { pairs: self, place: &mut place },
        );
    }
}

impl NullaryFnOnce for OnV4<Queries<'_, Pairs>> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.1.compute(self.0);
    }
}

/// Fills panels with rows of `depth` pairs as columns.
struct Turn<'a> {
    panels: &'a mut [f32],
    pairs: &'a [f32],
    depth: usize,
}

impl NullaryFnOnce for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { panels, pairs, depth } = self;
        let width = tile::width::<V4>();
        let mut turner = Turner::new(width);
        for (panel, rows) in panels.chunks_exact_mut(width * depth).zip(pairs.chunks(width * depth)) {
            turner.turn(panel, [rows.len() / depth, depth], Values::F32(rows), |row| row * depth);
        }
    }
}

/// Rounds what it is given.
struct Rounded<'a, 'o> {
    pairs: Pairs,
    place: &'a mut Place<'o>,
}

impl Sink<V4> for Rounded<'_, '_> {
    #[inline(always)]
    fn take(&mut self, _: V4, row: usize, column: usize, sums: &[f32x16]) {
        for (v, &sum) in sums.iter().enumerate() {
            let column = column + v * V4::F32_LANES;
            let len = V4::F32_LANES.min(self.place.dim.saturating_sub(column));
            if len > 0 {
                let out = self.place.at(row, column, len).reinterpret_cast_mut();
                out.copy_from_slice(&self.pairs.narrow(sum)[..len]);
            }
        }
    }
}
