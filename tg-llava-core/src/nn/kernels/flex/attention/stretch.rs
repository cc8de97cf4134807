//! Attention of single queries to a stretch of their text.

use pulp::{Simd, WithSimd};
use tg_llava_x86::prefetch;

use super::super::exp::exp;
use super::super::half::Number;
#[cfg(target_arch = "x86_64")]
use super::super::half::OnV4;
use super::super::{AHEAD, LINE, reduce};

/// Keys of one task. A text's sums are those of its stretches, one after the other, whatever the threads.
pub(super) const STRETCH: usize = 128;

/// Numbers of a query before its sums of values: its largest score and the sum of its weights.
pub(super) const HEADER: usize = 2;

/// Queries that are computed at a time.
const QUERIES: usize = 4;

/// Some queries, `[queries, head_dim]`, scaled, and at most [`STRETCH`] keys and values, `[keys, head_dim]`, of a type that registers read.
pub(super) struct Opened<'a, N> {
    /// For each query its largest score, the sum of its weights and the sums of values.
    pub out: &'a mut [f32],
    pub queries: &'a [f32],
    pub keys: &'a [N],
    pub values: &'a [N],
    pub head_dim: usize,
}

impl WithSimd for Opened<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.compute(simd);
    }
}

#[cfg(target_arch = "x86_64")]
impl<N: Number<pulp::x86::V4>> pulp::NullaryFnOnce for OnV4<Opened<'_, N>> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.1.compute(self.0);
    }
}

impl<N> Opened<'_, N> {
    #[inline(always)]
    fn compute<S: Simd>(mut self, simd: S)
    where
        N: Number<S>,
    {
        let queries = self.queries.len() / self.head_dim;
        let mut first = 0;
        while first < queries {
            first += match queries - first {
                QUERIES.. => self.some::<S, QUERIES>(simd, first),
                3 => self.some::<S, 3>(simd, first),
                2 => self.some::<S, 2>(simd, first),
                _ => self.some::<S, 1>(simd, first),
            };
        }
    }

    /// `R` queries; returns `R`.
    #[inline(always)]
    fn some<S: Simd, const R: usize>(&mut self, simd: S, first: usize) -> usize
    where
        N: Number<S>,
    {
        let dim = self.head_dim;
        let mut weights = [[0.0f32; STRETCH]; R];
        let queries = &self.queries[first * dim..][..R * dim];
        let len = self.keys.len() / dim;
        scores(simd, queries, self.keys, dim, &mut weights);
        let out = &mut self.out[first * (HEADER + dim)..][..R * (HEADER + dim)];
        for (weights, out) in weights.iter_mut().zip(out.chunks_exact_mut(HEADER + dim)) {
            let weights = &mut weights[..len];
            let largest = reduce::max(simd, weights);
            weights.iter_mut().for_each(|value| *value = exp(*value - largest));
            out[0] = largest;
            out[1] = reduce::sum(simd, weights);
        }
        // As many sums in registers as there are, beside what they are made of.
        match S::REGISTER_COUNT >= 32 {
            true => weighted::<S, N, R, 4>(simd, &weights, self.values, dim, out),
            false => weighted::<S, N, R, 2>(simd, &weights, self.values, dim, out),
        }
        R
    }
}

/// Products of queries with keys.
#[inline(always)]
fn scores<S: Simd, N: Number<S>, const R: usize>(
    simd: S,
    queries: &[f32],
    keys: &[N],
    dim: usize,
    out: &mut [[f32; STRETCH]; R],
) {
    /// Keys at a time.
    const KEYS: usize = 4;
    let mut rows = [queries; R];
    for (row, query) in rows.iter_mut().zip(queries.chunks_exact(dim)) {
        *row = query;
    }
    let mut blocks = keys.chunks_exact(KEYS * dim);
    let mut done = 0;
    for block in &mut blocks {
        let mut keys = [block; KEYS];
        for (key, part) in keys.iter_mut().zip(block.chunks_exact(dim)) {
            *key = part;
        }
        // Of a few registers each: more sums would take longer to add up than they save.
        put(reduce::dots::<S, N, R, KEYS, 1>(simd, rows, keys), done, out);
        done += KEYS;
    }
    for key in blocks.remainder().chunks_exact(dim) {
        put(reduce::dots::<S, N, R, 1, 1>(simd, rows, [key]), done, out);
        done += 1;
    }
}

#[inline(always)]
fn put<const R: usize, const C: usize>(sums: [[f32; C]; R], first: usize, out: &mut [[f32; STRETCH]; R]) {
    for r in 0..R {
        out[r][first..first + C].copy_from_slice(&sums[r]);
    }
}

/// The sums of values, each times its weight, `V` registers of each query at a time.
#[inline(always)]
fn weighted<S: Simd, N: Number<S>, const R: usize, const V: usize>(
    simd: S,
    weights: &[[f32; STRETCH]; R],
    values: &[N],
    dim: usize,
    out: &mut [f32],
) {
    let vectors = dim / S::F32_LANES;
    let mut first = 0;
    while first < vectors {
        first += match vectors - first >= V {
            true => of_registers::<S, N, R, V>(simd, weights, values, dim, first, out),
            false => of_registers::<S, N, R, 1>(simd, weights, values, dim, first, out),
        };
    }
    let done = vectors * S::F32_LANES;
    for (key, row) in values.chunks_exact(dim).enumerate() {
        for r in 0..R {
            for i in done..dim {
                out[r * (HEADER + dim) + HEADER + i] += weights[r][key] * row[i].to_f32();
            }
        }
    }
}

/// `V` registers of each query's sums, from register `first` of a row on; returns `V`.
#[inline(always)]
fn of_registers<S: Simd, N: Number<S>, const R: usize, const V: usize>(
    simd: S,
    weights: &[[f32; STRETCH]; R],
    values: &[N],
    dim: usize,
    first: usize,
    out: &mut [f32],
) -> usize {
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    for (key, row) in values.chunks_exact(dim).enumerate().take(STRETCH) {
        if first == 0 {
            ask_ahead(row);
        }
        let row = &N::vectors(row)[first..first + V];
        let mut factors = [simd.splat_f32s(0.0); R];
        for r in 0..R {
            factors[r] = simd.splat_f32s(weights[r][key]);
        }
        for v in 0..V {
            let value = N::widen(simd, row[v]);
            for r in 0..R {
                sums[r][v] = simd.mul_add_e_f32s(factors[r], value, sums[r][v]);
            }
        }
    }
    for r in 0..R {
        let out = &mut out[r * (HEADER + dim) + HEADER..][..dim];
        let out = &mut S::as_mut_simd_f32s(out).0[first..first + V];
        out.copy_from_slice(&sums[r]);
    }
    V
}

/// What is read next but for a few lines.
#[inline(always)]
fn ask_ahead<N>(rows: &[N]) {
    let line = LINE / size_of::<N>();
    for place in (0..rows.len()).step_by(line) {
        prefetch(rows, place + AHEAD / size_of::<N>());
    }
}
