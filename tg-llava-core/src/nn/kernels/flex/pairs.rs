//! Products of many rows in bf16 where the processor adds up products of two values at a time. Two values take the place of a float.

use half::bf16;
use half::slice::HalfFloatSliceExt;
use pulp::bytemuck::try_cast_slice;
use pulp::x86::V4;
use pulp::{NullaryFnOnce, Simd, cast, f32x16};
use tg_llava_x86::Bf16Pairs;

use super::half::Values;
use super::matvec::each_stretch;
use super::tile::{self, Buffer, Products, Rows, Sink};
use super::turn::Turner;
use super::{product, zeros};

/// Most pairs before sums are written down: a panel of so many stays in the second cache.
const DEPTH: usize = 1024;

/// The permission to compute so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pairs(V4, Bf16Pairs);

impl Pairs {
    pub fn detect() -> Option<Self> {
        Some(Self(V4::try_new()?, Bf16Pairs::try_new()?))
    }

    /// Rows of `len` values in pairs; `None` where that is no whole number of them, or they do not lie as floats do.
    pub fn of(values: &[bf16], len: usize) -> Option<&[f32]> {
        let values: &[u16] = values.reinterpret_cast();
        try_cast_slice(values).ok().filter(|_| len.is_multiple_of(2))
    }

    #[inline(always)]
    pub fn simd(self) -> V4 {
        self.0
    }

    /// Runs `task` compiled for these instructions.
    pub fn vectorize<F: NullaryFnOnce>(self, task: F) -> F::Output {
        self.1.vectorize(task)
    }

    /// The nearest values, ties to even; zeros for what is subnormal.
    #[inline(always)]
    pub fn narrow(self, values: f32x16) -> [u16; 16] {
        cast(self.1.narrow(cast(values)))
    }
}

impl Products<V4> for Pairs {
    #[inline(always)]
    fn add(self, _: V4, sums: f32x16, a: f32x16, b: f32x16) -> f32x16 {
        cast(self.1.add_products(cast(sums), cast(a), cast(b)))
    }
}

/// `[rows, d_output]`, from rows and columns of `d_input` values, with sums in f32 that are rounded once; `None` where these are no pairs.
pub(super) fn multiply(
    pairs: Pairs,
    x: &[bf16],
    columns: &[bf16],
    d_input: usize,
    bias: Option<&[f32]>,
) -> Option<Vec<bf16>> {
    let d_output = columns.len() / d_input;
    let rows = x.len() / d_input;
    let (x, columns, d_input) = (Pairs::of(x, d_input)?, Pairs::of(columns, d_input)?, d_input / 2);
    let mut values = zeros(rows * d_output);
    let stretch = product::stretch(d_output, rayon::current_num_threads());
    each_stretch(&mut values, d_output, stretch, |first, out| {
        let columns = &columns[first * d_input..][..out[0].len() * d_input];
        let bias = bias.map(|bias| &bias[first..][..out[0].len()]);
        pairs.vectorize(Columns { pairs, out, x, columns, d_input, bias });
    });
    Some(values)
}

/// Some columns of all rows.
struct Columns<'a, 'o> {
    pairs: Pairs,
    out: &'a mut [&'o mut [bf16]],
    /// Rows of `d_input` pairs.
    x: &'a [f32],
    /// The same.
    columns: &'a [f32],
    d_input: usize,
    bias: Option<&'a [f32]>,
}

impl NullaryFnOnce for Columns<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { pairs, out, x, columns, d_input, bias } = self;
        let (rows, width) = (out.len(), tile::width::<V4>());
        let depth = d_input.div_ceil(d_input.div_ceil(DEPTH));
        let mut panel = Buffer::new(depth * width);
        let mut turner = Turner::new(width);
        let mut partial = Buffer::new(if depth < d_input { rows * width } else { 0 });
        let partial = partial.values();
        for column in (0..columns.len() / d_input).step_by(width) {
            let used = width.min(columns.len() / d_input - column);
            for begin in (0..d_input).step_by(depth) {
                let depth = depth.min(d_input - begin);
                let panel = &mut panel.values()[..depth * width];
                let start = |row| (column + row) * d_input + begin;
                turner.turn(panel, [used, depth], Values::F32(columns), start);
                let ends = begin + depth == d_input;
                let bias = bias.map(|bias| &bias[column..column + used]);
                let mut sums = Sums { pairs, out, column, used, partial, begins: begin == 0, ends, bias };
                let a = Rows { values: x, start: begin, stride: d_input, products: pairs };
                tile::multiply(pairs.simd(), a, [rows, depth, width], (panel, depth), &mut sums);
            }
        }
    }
}

/// Adds up the stretches of the input, and rounds their sum.
struct Sums<'a, 'o> {
    pairs: Pairs,
    out: &'a mut [&'o mut [bf16]],
    column: usize,
    used: usize,
    /// What earlier stretches gave, `[rows, width]`, where there are several.
    partial: &'a mut [f32],
    begins: bool,
    ends: bool,
    bias: Option<&'a [f32]>,
}

impl Sink<V4> for Sums<'_, '_> {
    #[inline(always)]
    fn take(&mut self, simd: V4, row: usize, column: usize, sums: &[f32x16]) {
        const LANES: usize = V4::F32_LANES;
        for (v, &sum) in sums.iter().enumerate() {
            let from = column + v * LANES;
            if from >= self.used {
                return;
            }
            let mut sum = sum;
            if !(self.begins && self.ends) {
                let place = row * tile::width::<V4>() + from;
                let partial = &mut V4::as_mut_simd_f32s(&mut self.partial[place..place + LANES]).0[0];
                if !self.begins {
                    sum = simd.add_f32s(sum, *partial);
                }
                if !self.ends {
                    *partial = sum;
                    continue;
                }
            }
            let to = self.used.min(from + LANES);
            if let Some(bias) = self.bias {
                let bias = match bias[from..to].first_chunk::<LANES>() {
                    Some(bias) => cast(*bias),
                    None => simd.partial_load_f32s(&bias[from..to]),
                };
                sum = simd.add_f32s(sum, bias);
            }
            let rounded = self.pairs.narrow(sum);
            let out: &mut [u16] = self.out[row][self.column + from..self.column + to].reinterpret_cast_mut();
            match out.first_chunk_mut::<LANES>() {
                Some(out) => *out = rounded,
                None => out.copy_from_slice(&rounded[..to - from]),
            }
        }
    }
}
