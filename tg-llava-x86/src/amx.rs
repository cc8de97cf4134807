use std::arch::asm;
use std::arch::x86_64::{
    __cpuid_count, __m512i, _mm512_shuffle_i32x4, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::mem::transmute;
use std::sync::OnceLock;

use crate::packed::{BLOCK, SIDE, STEP};
use crate::{PackedColumns, PackedRows};

/// Rows of a register.
const TILE_ROWS: usize = 16;

/// The permission to compute with AMX's registers: there is a value of it only where the processor has them and the system lends them.
#[derive(Debug, Clone, Copy)]
pub struct Tiles(());

impl Tiles {
    /// Finds out, once, whether the processor multiplies bf16 in matrix registers, and asks the system for them.
    pub fn detect() -> Option<Self> {
        static FOUND: OnceLock<bool> = OnceLock::new();
        (*FOUND.get_or_init(|| has_instructions() && is_permitted())).then_some(Self(()))
    }

    /// Packs rows of a matrix, of `packed.depth` values of bf16 each, given by their bits, as the columns of a product.
    ///
    /// # Panics
    /// Where the values are no whole rows: a programmer's error.
    pub fn pack_columns(self, packed: &mut PackedColumns, rows: &[u16]) {
        let depth = packed.depth;
        assert!(rows.len().is_multiple_of(depth), "{} values in rows of {depth}", rows.len());
        let steps = depth.div_ceil(STEP);
        packed.columns = rows.len() / depth;
        packed.values.resize(packed.columns.div_ceil(SIDE) * steps * BLOCK, 0);
        for (block, rows) in packed.values.chunks_exact_mut(steps * BLOCK).zip(rows.chunks(SIDE * depth)) {
            for (index, step) in block.chunks_exact_mut(BLOCK).enumerate() {
                let from = index * STEP;
                let len = STEP.min(depth - from);
                for (half, tile) in step.chunks_exact_mut(TILE_ROWS * STEP).enumerate() {
                    let mut lines = [[0; STEP]; TILE_ROWS];
                    let rows = rows.chunks_exact(depth).skip(half * TILE_ROWS);
                    for (line, row) in lines.iter_mut().zip(rows) {
                        match row[from..].first_chunk() {
                            Some(values) => *line = *values,
                            None => line[..len].copy_from_slice(&row[from..]),
                        }
                    }
                    // SAFETY: a value of `Tiles` exists where the processor has AVX-512.
                    let lines = unsafe { transpose(lines) };
                    tile.copy_from_slice(lines.as_flattened());
                }
            }
        }
    }

    /// Packs the rows of a matrix of `columns` columns, one for each value that the columns have, given by their bits.
    ///
    /// # Panics
    /// Where the values are not `packed.depth` rows: a programmer's error.
    pub fn pack_rows(self, packed: &mut PackedColumns, rows: &[u16], columns: usize) {
        let depth = packed.depth;
        assert_eq!(rows.len(), depth * columns, "values in {depth} rows");
        packed.columns = columns;
        let steps = depth.div_ceil(STEP);
        packed.values.resize(columns.div_ceil(SIDE) * steps * BLOCK, 0);
        for (place, tile) in packed.values.chunks_exact_mut(TILE_ROWS * STEP).enumerate() {
            let (block, step, half) = (place / 2 / steps, place / 2 % steps, place % 2);
            let column = block * SIDE + half * TILE_ROWS;
            let used = TILE_ROWS.min(columns.saturating_sub(column));
            for (pair, line) in tile.chunks_exact_mut(STEP).enumerate() {
                let mut two = [[0; TILE_ROWS]; 2];
                for (row, values) in (step * STEP + 2 * pair..depth).zip(&mut two) {
                    if used > 0 {
                        values[..used].copy_from_slice(&rows[row * columns + column..][..used]);
                    }
                }
                for (i, out) in line.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                    *out = [two[0][i], two[1][i]];
                }
            }
        }
    }

    /// Gives `sink` the products of all rows with the first `count` columns in f32: the row, the first column, and the values of this
    /// and the next columns, which may be changed. Of longer columns the first values count. A value is summed up in one order, whatever
    /// rows and columns stand beside it.
    ///
    /// # Panics
    /// Where there are not so many columns, or rows are longer: a programmer's error.
    pub fn multiply(
        self,
        rows: &PackedRows,
        columns: &PackedColumns,
        count: usize,
        mut sink: impl FnMut(usize, usize, &mut [f32]),
    ) {
        self.each_block(rows, columns, count, |[first_row, first_column], [height, width], sums| {
            for (row, sums) in sums.0.chunks_exact_mut(SIDE).take(height).enumerate() {
                sink(first_row + row, first_column, &mut sums[..width]);
            }
        });
    }

    /// [`Tiles::multiply`], with `bias` added to the columns, in bf16, by the bits: the nearest values, ties to even.
    ///
    /// # Panics
    /// As [`Tiles::multiply`], and where the bias has not `count` values: a programmer's error.
    pub fn multiply_narrow(
        self,
        rows: &PackedRows,
        columns: &PackedColumns,
        (count, bias): (usize, Option<&[f32]>),
        mut sink: impl FnMut(usize, usize, &[u16]),
    ) {
        assert!(bias.is_none_or(|bias| bias.len() == count), "a bias for {count} columns");
        let mut narrow_sums = [[0; SIDE]; SIDE];
        self.each_block(rows, columns, count, |[first_row, first_column], [height, width], sums| {
            let mut block_bias = [0.0; SIDE];
            if let Some(bias) = bias {
                block_bias[..width].copy_from_slice(&bias[first_column..first_column + width]);
            }
            for (to, from) in narrow_sums.iter_mut().zip(sums.0.as_chunks::<SIDE>().0).take(height) {
                // SAFETY: a value of `Tiles` exists where the processor has AVX-512.
                unsafe { add_and_narrow(to, from, &block_bias) };
            }
            for (row, sums) in narrow_sums.iter().take(height).enumerate() {
                sink(first_row + row, first_column, &sums[..width]);
            }
        });
    }

    /// Computes blocks of the first `count` columns, and gives `sink` their places, sizes and sums.
    fn each_block(
        self,
        rows: &PackedRows,
        columns: &PackedColumns,
        count: usize,
        mut sink: impl FnMut([usize; 2], [usize; 2], &mut Sums),
    ) {
        assert!(rows.depth() <= columns.depth && count <= columns.columns, "a product of matrices that fit");
        let steps = rows.depth().div_ceil(STEP);
        let column_steps = columns.depth.div_ceil(STEP);
        let mut sums = Sums([0.0; SIDE * SIDE]);
        for (row, rows_block) in (0..rows.rows()).step_by(SIDE).zip(rows.values.chunks_exact(steps * BLOCK)) {
            let blocks = columns.values.chunks_exact(column_steps * BLOCK);
            for (column, columns_block) in (0..count).step_by(SIDE).zip(blocks) {
                self.multiply_block(rows_block, &columns_block[..steps * BLOCK], &mut sums);
                sink([row, column], [SIDE.min(rows.rows() - row), SIDE.min(count - column)], &mut sums);
            }
        }
    }

    /// The nearest values of bf16, ties to even, by their bits.
    ///
    /// # Panics
    /// Where the lengths differ: a programmer's error.
    pub fn narrow(self, to: &mut [u16], from: &[f32]) {
        assert_eq!(to.len(), from.len(), "values to narrow");
        // SAFETY: a value of `Tiles` exists where the processor has AVX-512.
        unsafe { narrow(to, from) }
    }

    /// One block of results: four registers of sums, two of rows and two of columns.
    fn multiply_block(self, rows: &[u16], columns: &[u16], sums: &mut Sums) {
        assert!(rows.len() == columns.len() && !rows.is_empty() && rows.len().is_multiple_of(BLOCK));
        // SAFETY: a value of `Tiles` exists where the processor has the instructions and the system lends the registers. The loop reads
        // `rows.len() / BLOCK` times 2 KiB of both slices, which is all of them, as asserted; `sums` takes 32 rows of 128 bytes. The
        // configuration is that of 8 registers of 16 rows of 64 bytes, and is given back at the end.
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{rows} + {line}*1]",
                "tileloadd tmm6, [{columns} + {line}*1]",
                "tileloadd tmm7, [{columns} + {line}*1 + 1024]",
                "tileloadd tmm5, [{rows} + {line}*1 + 1024]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {rows}, 2048",
                "add {columns}, 2048",
                "dec {steps}",
                "jnz 2b",
                "add {line}, 64",
                "tilestored [{sums} + {line}*1], tmm0",
                "tilestored [{sums} + {line}*1 + 64], tmm1",
                "tilestored [{sums} + {line}*1 + 2048], tmm2",
                "tilestored [{sums} + {line}*1 + 2112], tmm3",
                "tilerelease",
                config = in(reg) &raw const CONFIG,
                rows = inout(reg) rows.as_ptr() => _,
                columns = inout(reg) columns.as_ptr() => _,
                sums = in(reg) sums.0.as_mut_ptr(),
                steps = inout(reg) rows.len() / BLOCK => _,
                line = inout(reg) 64usize => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

/// Sums of a block, from the start of a cache line on.
#[repr(align(64))]
struct Sums([f32; SIDE * SIDE]);

/// What `ldtilecfg` reads: 8 registers of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// AMX for bf16 (Intel's manual, `CPUID` leaf 7: `AMX-BF16` is bit 22 of EDX, `AMX-TILE` bit 24), and AVX-512 for packing.
fn has_instructions() -> bool {
    const NEEDED: u32 = 1 << 22 | 1 << 24;
    is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && __cpuid_count(7, 0).edx & NEEDED == NEEDED
}

/// Linux lends the registers to a process that asks (`arch_prctl`, `ARCH_REQ_XCOMP_PERM`, feature 18: tile data).
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of the process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn narrow(to: &mut [u16], from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = nearest(*from);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn add_and_narrow(to: &mut [u16; SIDE], from: &[f32; SIDE], bias: &[f32; SIDE]) {
    for i in 0..SIDE {
        to[i] = nearest(from[i] + bias[i]);
    }
}

/// The bits of the nearest bf16, of an even one from halfway.
#[inline(always)]
fn nearest(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    let quiet = bits | 0x0040_0000;
    ((if value.is_nan() { quiet } else { rounded }) >> 16) as u16
}

/// Lines of 16 pairs to lines of one pair of each.
#[target_feature(enable = "avx512f")]
fn transpose(lines: [[u16; STEP]; TILE_ROWS]) -> [[u16; STEP]; TILE_ROWS] {
    // SAFETY: both are 1,024 bytes in which every bit pattern is a value.
    let a: [__m512i; 16] = unsafe { transmute(lines) };
    let mut b = a;
    for i in 0..8 {
        b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
    }
    // Four lines each: in lane l of vector k, pair 4 l + k of the lines.
    let mut c = b;
    for i in 0..4 {
        c[4 * i] = _mm512_unpacklo_epi64(b[4 * i], b[4 * i + 2]);
        c[4 * i + 1] = _mm512_unpackhi_epi64(b[4 * i], b[4 * i + 2]);
        c[4 * i + 2] = _mm512_unpacklo_epi64(b[4 * i + 1], b[4 * i + 3]);
        c[4 * i + 3] = _mm512_unpackhi_epi64(b[4 * i + 1], b[4 * i + 3]);
    }
    let mut out = c;
    for k in 0..4 {
        let low = _mm512_shuffle_i32x4::<0b10_00_10_00>(c[k], c[4 + k]);
        let low_odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(c[k], c[4 + k]);
        let high = _mm512_shuffle_i32x4::<0b10_00_10_00>(c[8 + k], c[12 + k]);
        let high_odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(c[8 + k], c[12 + k]);
        out[k] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low, high);
        out[4 + k] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low_odd, high_odd);
        out[8 + k] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low, high);
        out[12 + k] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low_odd, high_odd);
    }
    // SAFETY: as above.
    unsafe { transmute(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bf16(x: f32) -> u16 {
        (x.to_bits() >> 16) as u16
    }

    /// Small whole numbers, whose products and sums are exact.
    fn whole(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7 + seed * 13 + i / 5) % 17) as f32 - 8.0).collect()
    }

    #[test]
    fn products_of_whole_numbers_are_exact() {
        let Some(tiles) = Tiles::detect() else { return };
        for (rows, depth, columns) in [(1, 1, 1), (5, 40, 3), (32, 32, 32), (33, 64, 65), (70, 576, 100)] {
            let (x, w) = (whole(rows * depth, 1), whole(columns * depth, 2));
            let bits = |values: &[f32]| values.iter().map(|&x| bf16(x)).collect::<Vec<_>>();
            let packed_rows = PackedRows::new(&bits(&x), depth);
            let mut packed = PackedColumns::new(depth);
            // The room of an earlier, larger packing shows no trace.
            tiles.pack_columns(&mut packed, &bits(&whole(300 * depth, 3)));
            tiles.pack_columns(&mut packed, &bits(&w));
            let mut out = vec![f32::NAN; rows * columns];
            let mut check = |packed: &PackedColumns| {
                out.fill(f32::NAN);
                tiles.multiply(&packed_rows, packed, columns, |row, column, sums| {
                    out[row * columns + column..][..sums.len()].copy_from_slice(sums);
                });
                for (i, out) in out.iter().enumerate() {
                    let (x, w) = (&x[i / columns * depth..][..depth], &w[i % columns * depth..][..depth]);
                    let exact: f32 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                    assert_eq!(*out, exact, "{rows} x {depth} x {columns}, value {i}");
                }
            };
            check(&packed);
            let bias: Vec<f32> = (0..columns).map(|i| (i % 5) as f32).collect();
            tiles.multiply_narrow(&packed_rows, &packed, (columns, Some(&bias)), |row, column, sums| {
                for (i, sum) in sums.iter().enumerate() {
                    let (x, w) = (&x[row * depth..][..depth], &w[(column + i) * depth..][..depth]);
                    let exact = x.iter().zip(w).map(|(x, w)| x * w).sum::<f32>() + bias[column + i];
                    assert_eq!(*sum, nearest(exact), "{rows} x {depth} x {columns}, narrow");
                }
            });
            // The same columns, with more values behind, as rows.
            let longer = depth + 40;
            let by_rows =
                |i: usize| if i / columns < depth { w[i % columns * depth + i / columns] } else { 3.0 };
            let turned: Vec<f32> = (0..longer * columns).map(by_rows).collect();
            let mut packed = PackedColumns::new(longer);
            tiles.pack_rows(&mut packed, &bits(&turned), columns);
            check(&packed);
        }
    }

    #[test]
    fn pairs_are_transposed() {
        if !is_x86_feature_detected!("avx512f") {
            return;
        }
        let mut lines = [[0; STEP]; TILE_ROWS];
        for (i, value) in lines.as_flattened_mut().iter_mut().enumerate() {
            *value = i as u16;
        }
        // SAFETY: the processor has AVX-512.
        let turned = unsafe { transpose(lines) };
        for row in 0..16 {
            for pair in 0..16 {
                assert_eq!(
                    turned[row][2 * pair..2 * pair + 2],
                    lines[pair][2 * row..2 * row + 2],
                    "{row}, {pair}"
                );
            }
        }
    }
}
