use crate::{PackedColumns, PackedRows};

/// What computes with AMX's registers; there is none here.
#[derive(Debug, Clone, Copy)]
pub struct Tiles(std::convert::Infallible);

impl Tiles {
    /// `None`: this processor or system has no such registers.
    pub fn detect() -> Option<Self> {
        None
    }

    /// Packs rows of a matrix as columns.
    pub fn pack_columns(self, _: &mut PackedColumns, _: &[u16]) {
        match self.0 {}
    }

    /// Packs rows of a matrix as they are.
    pub fn pack_rows(self, _: &mut PackedColumns, _: &[u16], _: usize) {
        match self.0 {}
    }

    /// Narrows.
    pub fn narrow(self, _: &mut [u16], _: &[f32]) {
        match self.0 {}
    }

    /// Multiplies, and narrows.
    pub fn multiply_narrow(
        self,
        _: &PackedRows,
        _: &PackedColumns,
        _: (usize, Option<&[f32]>),
        _: impl FnMut(usize, usize, &[u16]),
    ) {
        match self.0 {}
    }

    /// Multiplies.
    pub fn multiply(
        self,
        _: &PackedRows,
        _: &PackedColumns,
        _: usize,
        _: impl FnMut(usize, usize, &mut [f32]),
    ) {
        match self.0 {}
    }
}
