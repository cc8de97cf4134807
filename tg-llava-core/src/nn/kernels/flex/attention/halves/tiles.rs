use half::bf16;
use half::slice::HalfFloatSliceExt;
use pulp::{Simd, WithSimd};
use tg_llava_x86::{PackedColumns, PackedRows, Tiles};

use super::super::stride;
use super::{Engine, Place, Queries};

/// In the processor's matrix registers.
impl Engine for Tiles {
    type Columns = PackedColumns;

    fn turned(self, rows: &[bf16], dim: usize) -> Option<PackedColumns> {
        let mut packed = PackedColumns::new(dim);
        self.pack_columns(&mut packed, rows.reinterpret_cast());
        Some(packed)
    }

    fn upright(self, rows: &[bf16], dim: usize) -> Option<PackedColumns> {
        let mut packed = PackedColumns::new(rows.len() / dim);
        self.pack_rows(&mut packed, rows.reinterpret_cast(), dim);
        Some(packed)
    }

    fn run(self, task: Queries<'_, Self>) {
        pulp::Arch::new().dispatch(task);
    }

    #[inline(always)]
    fn scores<S: Simd>(self, rows: &[bf16], keys: &PackedColumns, [dim, last]: [usize; 2], out: &mut [f32]) {
        let (rows, stride) = (PackedRows::new(rows.reinterpret_cast(), dim), stride::<S>(last));
        self.multiply(&rows, keys, last, |row, column, sums| {
            out[row * stride + column..][..sums.len()].copy_from_slice(sums);
        });
    }

    #[inline(always)]
    fn narrow(self, to: &mut [bf16], from: &[f32]) {
        Self::narrow(self, to.reinterpret_cast_mut(), from);
    }

    #[inline(always)]
    fn outputs(
        self,
        weights: &[bf16],
        [stride, seen]: [usize; 2],
        values: &PackedColumns,
        mut place: Place<'_>,
    ) {
        let rows = PackedRows::strided(weights.reinterpret_cast(), stride, seen);
        self.multiply_narrow(&rows, values, (place.dim, None), |row, column, sums| {
            place.at(row, column, sums.len()).reinterpret_cast_mut().copy_from_slice(sums);
        });
    }
}

impl WithSimd for Queries<'_, Tiles> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.compute(simd);
    }
}
