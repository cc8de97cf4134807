//! Products of blocks with activations as 8-bit integers.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod stored;

use std::marker::PhantomData;

#[cfg(target_arch = "x86_64")]
use avx512::Wide;
use pulp::{NullaryFnOnce, Simd, WithSimd};

#[cfg(target_arch = "x86_64")]
use super::super::{AHEAD, LINE};
use crate::quant::ggml::{Block, GgmlType, Int8Row, dot_int8, with_block};

/// Products of rows of blocks with a few rows of activations: for each row of blocks, its product with each row of `x`.
pub(super) struct Products<'a> {
    pub format: GgmlType,
    /// Bytes of each row of blocks.
    pub row_bytes: usize,
    /// Rows of blocks.
    pub blocks: &'a [u8],
    /// At most [`MOST_ROWS`].
    pub x: &'a [Int8Row],
    pub out: &'a mut [f32],
}

/// The same with registers of one kind, for one format and number of rows.
#[cfg(target_arch = "x86_64")]
struct Task<'a, I, B, const R: usize> {
    simd: I,
    x: [&'a Int8Row; R],
    products: Products<'a>,
    block: PhantomData<B>,
}

/// Most rows of activations at once.
pub(super) const MOST_ROWS: usize = 4;

impl Products<'_> {
    /// Computes them all.
    ///
    /// # Panics
    /// For formats without blocks, and more than [`MOST_ROWS`] rows: a programmer's error.
    pub fn run(self) {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            return with_block!(self.format, B => match *self.x {
                [ref x0] => self.by_rows::<B, 1>(simd, [x0]),
                [ref x0, ref x1] => self.by_rows::<B, 2>(simd, [x0, x1]),
                [ref x0, ref x1, ref x2] => self.by_rows::<B, 3>(simd, [x0, x1, x2]),
                [ref x0, ref x1, ref x2, ref x3] => self.by_rows::<B, 4>(simd, [x0, x1, x2, x3]),
                _ => panic!("{} rows of activations", self.x.len()),
            }, float => panic!("{} has no blocks", self.format));
        }
        pulp::Arch::new().dispatch(self);
    }

    /// In registers of 512 bits as far as they take several rows of blocks, in those of 256 bits what is left.
    #[cfg(target_arch = "x86_64")]
    fn by_rows<B: stored::Stored, const R: usize>(mut self, simd: pulp::x86::V3, x: [&Int8Row; R]) {
        if let Some(simd) = pulp::x86::V4::try_new() {
            let rows = self.blocks.len() / self.row_bytes / avx512::ROWS * avx512::ROWS;
            let (blocks, rest) = self.blocks.split_at(rows * self.row_bytes);
            let (out, out_of_rest) = std::mem::take(&mut self.out).split_at_mut(rows * R);
            let products = Self { blocks, out, ..self };
            match tg_llava_x86::Vnni::try_new() {
                Some(vnni) => {
                    let simd = (simd, vnni);
                    vnni.vectorize(Wide::<_, B, R>(Task { simd, x, products, block: PhantomData }));
                }
                None => simd.vectorize(Wide::<_, B, R>(Task { simd, x, products, block: PhantomData })),
            }
            self.blocks = rest;
            self.out = out_of_rest;
        }
        simd.vectorize(Task::<_, B, R> { simd, x, products: self, block: PhantomData });
    }
}

/// As written out; the compiler makes of it what the processor has.
impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rows = self.blocks.chunks_exact(self.row_bytes);
        for (row, out) in rows.zip(self.out.chunks_exact_mut(self.x.len())) {
            for (out, x) in out.iter_mut().zip(self.x) {
                *out = dot_int8(self.format, row, x);
            }
        }
    }
}
