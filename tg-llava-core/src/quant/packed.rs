//! Quantised matrices in the memory of a GPU, and who computes with them.

use std::ops::Range;
use std::sync::OnceLock;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::GgmlMatrix;
use super::ggml::{GgmlType, WordLayout, Words};

/// A matrix of GGML's blocks in the memory of a GPU, `[d_output, d_input]`, its blocks taken apart into words. Cloning it copies nothing.
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    format: GgmlType,
    shape: [usize; 2],
    quants: Tensor<1, Int>,
    scales: Tensor<1, Int>,
}

/// Products with [`PackedMatrix`].
pub trait PackedProducts: Send + Sync {
    /// Whether it computes on `device`.
    fn serves(&self, device: &Device) -> bool;

    /// `x matrixᵗ` for a few rows; `None` where there are more than it is made for, or gradients are recorded for `x`.
    ///
    /// # Shapes
    /// - x: `[rows, d_input]`, output: `[rows, d_output]`
    fn product(&self, x: &Tensor<2>, matrix: &PackedMatrix) -> Option<Tensor<2>>;

    /// Some rows of the matrix as floats, `[rows.len(), d_input]`; nothing is recorded for it.
    ///
    /// # Shapes
    /// - rows: u32, `[rows]`, beside the matrix
    fn rows(&self, matrix: &PackedMatrix, rows: Tensor<1, Int>, dtype: DType) -> Tensor<2>;
}

static PRODUCTS: OnceLock<Box<dyn PackedProducts>> = OnceLock::new();

/// Lets quantised matrices lie where `products` computes, in this process from now on; whether nobody else was in place already.
pub fn use_packed_products(products: Box<dyn PackedProducts>) -> bool {
    PRODUCTS.set(products).is_ok()
}

impl PackedMatrix {
    /// Whether matrices may lie in the memory of `device`.
    pub fn may_lie_on(device: &Device) -> bool {
        products(device).is_some()
    }

    /// The matrix in the memory of `device`; `None` where nobody computes with it there, or it is no blocks but floats.
    pub fn place(matrix: &GgmlMatrix, device: &Device) -> Option<Self> {
        products(device)?;
        let (format, [rows, columns]) = (matrix.format(), matrix.shape());
        let layout = WordLayout::of(format)?;
        let Words { quants, scales } = layout.take_apart(format, matrix.blocks(), columns);
        let device = device.clone().inner();
        let upload = |words: Vec<u32>| {
            let len = words.len();
            Tensor::from_data(TensorData::new(words, [len]), (&device, DType::U32))
        };
        Some(Self { format, shape: [rows, columns], quants: upload(quants), scales: upload(scales) })
    }

    /// `[d_output, d_input]`
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The format of the blocks.
    pub fn format(&self) -> GgmlType {
        self.format
    }

    /// Low bits of the integers, as [`Words::quants`] has them.
    pub fn quants(&self) -> &Tensor<1, Int> {
        &self.quants
    }

    /// Scales and high bits, as [`Words::scales`] has them.
    pub fn scales(&self) -> &Tensor<1, Int> {
        &self.scales
    }

    /// Bytes in memory.
    pub fn num_bytes(&self) -> usize {
        (self.quants.dims()[0] + self.scales.dims()[0]) * size_of::<u32>()
    }

    /// `x matrixᵗ` for a few rows, where it is made for so many (see [`PackedProducts::product`]).
    pub fn product(&self, x: &Tensor<2>) -> Option<Tensor<2>> {
        PRODUCTS.get()?.product(x, self)
    }

    /// Rows as floats, without gradients.
    ///
    /// # Panics
    /// Where there are no such rows: a programmer's error.
    pub fn dequantised(&self, rows: Range<usize>, dtype: DType) -> Tensor<2> {
        assert!(rows.end <= self.shape[0], "rows {rows:?} of {}", self.shape[0]);
        let device = self.quants.device();
        self.floats(Tensor::arange(rows.start as i64..rows.end as i64, (&device, DType::U32)), dtype)
    }

    /// The rows of these numbers as floats, without gradients.
    ///
    /// # Panics
    /// Where there is no such row: a programmer's error.
    pub fn picked(&self, rows: &[usize], dtype: DType) -> Tensor<2> {
        assert!(rows.iter().all(|&row| row < self.shape[0]), "rows of {}", self.shape[0]);
        if rows.is_empty() {
            return Tensor::empty([0, self.shape[1]], (&self.quants.device(), dtype));
        }
        let numbers: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        let device = self.quants.device();
        self.floats(Tensor::from_data(TensorData::new(numbers, [rows.len()]), (&device, DType::U32)), dtype)
    }

    fn floats(&self, rows: Tensor<1, Int>, dtype: DType) -> Tensor<2> {
        let products = PRODUCTS.get().expect("who placed the matrix computes with it");
        products.rows(self, rows, dtype)
    }
}

/// Who computes with packed matrices on `device`.
fn products(device: &Device) -> Option<&'static dyn PackedProducts> {
    PRODUCTS.get().map(Box::as_ref).filter(|products| products.serves(device))
}
