//! The kernels as operations of Burn's backend, fused or not.

use burn::backend::cubecl::dtype_to_elem_type;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, backend_extension};
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::calculate_cube_count_elemwise;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use tg_llava_core::quant::ggml::{GgmlType, WordLayout};

use crate::kernels::{CHUNK, GROUPS, LANES, ROWS_A_GROUP, STRIP, few_rows, floats};

/// A matrix in words, without the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    layout: WordLayout,
    /// `[d_output, d_input]`
    shape: [usize; 2],
    /// Values of a row, filled up to whole blocks.
    filled: usize,
}

impl Description {
    /// Of a matrix `[d_output, d_input]`; `None` for plain floats.
    pub fn new(format: GgmlType, shape: [usize; 2]) -> Option<Self> {
        let filled = shape[1].next_multiple_of(format.block_values());
        Some(Self { layout: WordLayout::of(format)?, shape, filled })
    }

    /// Values of a row, filled up to whole blocks.
    pub fn filled(self) -> usize {
        self.filled
    }

    fn extra_words(self) -> usize {
        self.layout.scale_words(self.filled) + self.layout.high_words(self.filled)
    }
}

/// What a backend of Burn needs besides its own operations.
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
pub trait PackedOps: Backend {
    /// `x matrixᵗ`, `[rows, d_output]`; `x` is `[rows, filled]`.
    #[fusion(dtype = x, shape = Shape::new([x[0], matrix.shape[0]]))]
    fn packed_product(
        x: FloatTensor<Self>,
        quants: IntTensor<Self>,
        scales: IntTensor<Self>,
        matrix: Description,
    ) -> FloatTensor<Self>;

    /// The rows of the numbers `rows`, which are u32, as floats, `[rows.len(), d_input]`.
    #[fusion(dtype = *dtype, shape = Shape::new([rows[0], matrix.shape[1]]))]
    fn packed_rows(
        quants: IntTensor<Self>,
        scales: IntTensor<Self>,
        rows: IntTensor<Self>,
        matrix: Description,
        dtype: DType,
    ) -> FloatTensor<Self>;
}

impl PackedOps for CubeBackend {
    fn packed_product(
        x: CubeTensor,
        quants: CubeTensor,
        scales: CubeTensor,
        matrix: Description,
    ) -> CubeTensor {
        let x = into_contiguous(x);
        let (dtype, rows) = (x.dtype, x.shape()[0]);
        let Description { layout, shape: [d_output, _], filled } = matrix;
        let out = empty(&x, [rows, d_output], dtype);
        let strip = rows.clamp(1, STRIP);
        let cubes = CubeCount::Static(
            d_output.div_ceil(GROUPS * ROWS_A_GROUP) as u32,
            rows.div_ceil(strip) as u32,
            1,
        );
        few_rows::launch(
            &out.client,
            cubes,
            CubeDim::new_2d(LANES as u32, GROUPS as u32),
            4,
            CHUNK * layout.low_bits / 32,
            x.into_tensor_arg(),
            quants.into_tensor_arg(),
            scales.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            filled / CHUNK,
            layout.scale_words(filled),
            matrix.extra_words(),
            layout,
            strip,
            dtype_to_elem_type(dtype),
        );
        out
    }

    fn packed_rows(
        quants: CubeTensor,
        scales: CubeTensor,
        rows: CubeTensor,
        matrix: Description,
        dtype: DType,
    ) -> CubeTensor {
        let Description { layout, shape: [_, width], filled } = matrix;
        let (rows, num_rows) = (into_contiguous(rows.clone()), rows.shape()[0]);
        let out = empty(&quants, [num_rows, width], dtype);
        let size = if width.is_multiple_of(4) { 4 } else { 1 };
        let count = num_rows * width / size;
        let dim = CubeDim::new(&out.client, count);
        floats::launch(
            &out.client,
            calculate_cube_count_elemwise(&out.client, count, dim),
            dim,
            size,
            quants.into_tensor_arg(),
            scales.into_tensor_arg(),
            rows.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            count,
            width / size,
            layout.quant_words(filled),
            layout.scale_words(filled),
            matrix.extra_words(),
            layout,
            dtype_to_elem_type(dtype),
        );
        out
    }
}

/// Memory beside `like`.
fn empty(like: &CubeTensor, shape: [usize; 2], dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), Shape::new(shape), dtype)
}
