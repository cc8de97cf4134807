//! The kernels, one source for all formats, number formats and GPUs.
//!
//! All loads of a matrix are of whole words, neighbours by neighbouring units.

use burn_cubecl::cubecl;
use cubecl::prelude::*;
use tg_llava_core::quant::ggml::{ScaleWords, WordLayout};

/// Values that a unit takes at a time: they have one scale in every format.
pub const CHUNK: usize = 16;
/// Units that share a row of the matrix.
pub const LANES: usize = 32;
/// Groups of units in a cube.
pub const GROUPS: usize = 4;
/// Rows of the matrix that a group of units has, so that each value of `x` is read once for several.
pub const ROWS_A_GROUP: usize = 2;
/// Most rows of `x` that meet a word of the matrix while it is there.
pub const STRIP: usize = 4;

/// `x matrixᵗ`: each group of units has some rows of the matrix, and its units take turns along them. Sums are f32.
///
/// # Shapes
/// - x: `[rows, columns / 4]` of vectors of 4; columns filled up to whole blocks
/// - quants: vectors of the words of [`CHUNK`] values
/// - out: `[rows, d_output]`, rows in strips of `strip`
#[cube(launch)]
pub fn few_rows<F: Float, NX: Size, NW: Size>(
    x: &Tensor<Vector<F, NX>>,
    quants: &Tensor<Vector<u32, NW>>,
    scales: &Tensor<u32>,
    out: &mut Tensor<F>,
    chunks: usize,
    scale_words: usize,
    extra_words: usize,
    #[comptime] layout: WordLayout,
    #[comptime] strip: usize,
    #[define(F)] _dtype: ElemType,
) {
    let lane = UNIT_POS_X as usize;
    let (rows, d_output) = (out.shape(0), out.shape(1));
    let first_row = CUBE_POS_Y as usize * strip;
    let first_output = (CUBE_POS_X as usize * GROUPS + UNIT_POS_Y as usize) * ROWS_A_GROUP;
    let num_sums = comptime!(strip * ROWS_A_GROUP);

    let mut sums = Array::<f32>::new(num_sums);
    #[unroll]
    for i in 0..num_sums {
        sums[i] = 0.0f32;
    }
    let mut chunk = lane;
    while chunk < chunks {
        let mut values = Array::<f32>::new(comptime!(strip * CHUNK));
        let mut totals = Array::<f32>::new(strip);
        #[unroll]
        for m in 0..strip {
            // What stands for a missing row is not written.
            let row = (first_row + m).min(rows - 1);
            let at = (row * chunks + chunk) * comptime!(CHUNK / 4);
            let mut total = 0.0f32;
            #[unroll]
            for v in 0..comptime!(CHUNK / 4) {
                let four = x[at + v];
                #[unroll]
                for j in 0..4 {
                    let value = f32::cast_from(four.extract(j));
                    values[comptime!(m * CHUNK + 4 * v + j)] = value;
                    total += value;
                }
            }
            totals[m] = total;
        }
        #[unroll]
        for r in 0..ROWS_A_GROUP {
            let output = (first_output + r).min(d_output - 1);
            let words = quants[output * chunks + chunk];
            let extra = output * extra_words;
            let (scale, offset) = scale_and_offset(scales, extra, chunk, layout);
            let high = high_bits(scales, extra + scale_words, chunk, layout);
            let mut dots = Array::<f32>::new(strip);
            #[unroll]
            for m in 0..strip {
                dots[m] = 0.0f32;
            }
            #[unroll]
            for k in 0..CHUNK {
                let word = words.extract(comptime!(k * layout.low_bits / 32));
                let low = bits(word, comptime!(k * layout.low_bits % 32), layout.low_bits);
                let quant = integer(low, high, k, layout);
                #[unroll]
                for m in 0..strip {
                    dots[m] += quant * values[comptime!(m * CHUNK + k)];
                }
            }
            #[unroll]
            for m in 0..strip {
                sums[comptime!(m * ROWS_A_GROUP + r)] += scale * dots[m] + offset * totals[m];
            }
        }
        chunk += LANES;
    }

    // Apart by one more, so that units that add up different sums do not read from one bank.
    let mut shared = Shared::<[f32]>::new_slice(comptime!(GROUPS * num_sums * (LANES + 1)));
    let of_group = UNIT_POS_Y as usize * num_sums;
    #[unroll]
    for i in 0..num_sums {
        shared[(of_group + i) * comptime!(LANES + 1) + lane] = sums[i];
    }
    sync_cube();
    if lane < num_sums {
        let mut sum = 0.0f32;
        for from in 0..LANES {
            sum += shared[(of_group + lane) * comptime!(LANES + 1) + from];
        }
        let row = first_row + lane / ROWS_A_GROUP;
        let output = first_output + lane % ROWS_A_GROUP;
        if row < rows && output < d_output {
            out[row * d_output + output] = F::cast_from(sum);
        }
    }
}

/// Some rows of a matrix as floats.
///
/// # Shapes
/// - rows: the rows' numbers
/// - out: `[rows.len(), width]`, in `count` vectors that lie within chunks
#[cube(launch)]
pub fn floats<F: Float, NO: Size>(
    quants: &Tensor<u32>,
    scales: &Tensor<u32>,
    rows: &Tensor<u32>,
    out: &mut Tensor<Vector<F, NO>>,
    count: usize,
    vectors_a_row: usize,
    quant_words: usize,
    scale_words: usize,
    extra_words: usize,
    #[comptime] layout: WordLayout,
    #[define(F)] _dtype: ElemType,
) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let size = out.vector_size();
    let row = rows[ABSOLUTE_POS / vectors_a_row] as usize;
    let first = ABSOLUTE_POS % vectors_a_row * size;
    let extra = row * extra_words;
    let chunk = first / CHUNK;
    let (scale, offset) = scale_and_offset(scales, extra, chunk, layout);
    let high = high_bits(scales, extra + scale_words, chunk, layout);
    let mut values = Vector::<F, NO>::empty();
    #[unroll]
    for j in 0..size {
        let k = first + j;
        let word = quants[row * quant_words + k * layout.low_bits / 32];
        let low = (word >> (k * layout.low_bits % 32) as u32) & comptime!((1u32 << layout.low_bits) - 1);
        let quant = integer_at(low, high, k % CHUNK, layout);
        values.insert(j, F::cast_from(quant * scale + offset));
    }
    out[ABSOLUTE_POS] = values;
}

/// `count` bits of a word from bit `from` on.
#[cube]
fn bits(word: u32, #[comptime] from: usize, #[comptime] count: usize) -> u32 {
    (word >> comptime!(from as u32)) & comptime!((1u32 << count) - 1)
}

/// The high bits of a chunk's values, from the lowest bit on.
#[cube]
fn high_bits(scales: &Tensor<u32>, first: usize, chunk: usize, #[comptime] layout: WordLayout) -> u32 {
    if comptime!(layout.high_bits == 2) {
        scales[first + chunk]
    } else if comptime!(layout.high_bits == 1) {
        scales[first + chunk / 2] >> (16 * (chunk % 2)) as u32
    } else {
        0u32.runtime()
    }
}

/// Value `k` of a chunk without its scale.
#[cube]
fn integer(low: u32, high: u32, #[comptime] k: usize, #[comptime] layout: WordLayout) -> f32 {
    if comptime!(layout.high_bits == 0) {
        f32::cast_from(low) - comptime!(layout.zero as f32)
    } else {
        let high = bits(high, comptime!(k * layout.high_bits), layout.high_bits);
        f32::cast_from(low | (high << comptime!(layout.low_bits as u32))) - comptime!(layout.zero as f32)
    }
}

/// The same for a `k` that only the unit knows.
#[cube]
fn integer_at(low: u32, high: u32, k: usize, #[comptime] layout: WordLayout) -> f32 {
    if comptime!(layout.high_bits == 0) {
        integer(low, high, 0usize, layout)
    } else {
        integer(low, high >> (k * layout.high_bits) as u32, 0usize, layout)
    }
}

/// Scale of a chunk, and what is added to its values. `row` is where the row's scales begin.
#[cube]
fn scale_and_offset(
    scales: &Tensor<u32>,
    row: usize,
    chunk: usize,
    #[comptime] layout: WordLayout,
) -> (f32, f32) {
    match comptime!(layout.scales) {
        ScaleWords::Single => {
            let word = scales[row + chunk / 4];
            (half(word >> (16 * (chunk / 2 % 2)) as u32), 0.0f32)
        }
        ScaleWords::WithOffset => {
            let word = scales[row + chunk / 2];
            (half(word), half(word >> 16u32))
        }
        ScaleWords::Grouped => {
            let block = row + 5 * (chunk / 16);
            let (both, group) = (scales[block], chunk / 2 % 8);
            let word = scales[block + 1 + group / 2] >> (16 * (group % 2)) as u32;
            let (scale, min) = (f32::cast_from(word & 255u32), f32::cast_from((word >> 8u32) & 255u32));
            (half(both) * scale, -(half(both >> 16u32) * min))
        }
        ScaleWords::Signed => {
            let block = row + 5 * (chunk / 16);
            let place = chunk % 16;
            let word = scales[block + 1 + place / 4] >> (8 * (place % 4)) as u32;
            (half(scales[block]) * (f32::cast_from(word & 255u32) - 128.0f32), 0.0f32)
        }
    }
}

/// The f16 in the lower half of a word; GPUs need not know f16.
#[cube]
fn half(word: u32) -> f32 {
    let magnitude = (word & 0x7fffu32) << 13u32;
    let exponent = word & 0x7c00u32;
    // Between the exponents' biases lie 112.
    let mut value = f32::reinterpret(magnitude + 0x3800_0000u32);
    if exponent == 0u32 {
        // Less than 2^-14, which GPUs may take for zero as an f32 of the same digits.
        value = f32::reinterpret(magnitude | 0x3880_0000u32) - 6.103_515_6e-5f32;
    } else if exponent == 0x7c00u32 {
        value = f32::reinterpret(magnitude | 0x7f80_0000u32);
    }
    f32::reinterpret(u32::reinterpret(value) | ((word & 0x8000u32) << 16u32))
}
