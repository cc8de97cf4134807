use burn::module::{Module, Param};
use burn::nn::{EmbeddingConfig, Initializer};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::matrix::{apply_quantised, pick_quantised, quantised_rows_alike};
use super::{Matrix, RowsAlike, kernels, rows_alike, vendor};

/// Vectors of tokens. Burn's `Embedding`, but for what the table may be besides plain floats.
#[derive(Module, Debug)]
pub struct TokenTable {
    /// One vector a token, `[num_tokens, hidden]`.
    pub weight: Matrix,
}

impl TokenTable {
    /// A table of `N(0, std)`.
    pub fn init(num_tokens: usize, hidden: usize, std: f64, device: &Device) -> Self {
        let normal = Initializer::Normal { mean: 0.0, std };
        let embedding = EmbeddingConfig::new(num_tokens, hidden).with_initializer(normal).init(device);
        Self { weight: Matrix::Float(embedding.weight) }
    }

    /// Number of tokens and width of a vector.
    pub fn shape(&self) -> [usize; 2] {
        match &self.weight {
            Matrix::Float(weight) => weight.lazy_shape().dims(),
            Matrix::Quantised(matrix) => matrix.shape(),
        }
    }

    /// Vectors of the tokens `rows`, `[rows.len(), hidden]`, beside other weights as `like` has them.
    pub fn pick(&self, rows: Vec<i64>, like: &Param<Tensor<1>>) -> Tensor<2> {
        match &self.weight {
            Matrix::Float(weight) => {
                let count = rows.len();
                let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &weight.device());
                weight.val().select(0, rows)
            }
            Matrix::Quantised(matrix) => {
                let rows: Vec<usize> = rows.into_iter().map(|row| row as usize).collect();
                pick_quantised(matrix, &rows, &like.device(), like.dtype())
            }
        }
    }

    /// The rows that may go through [`TokenTable::scores`] together.
    pub fn rows_alike(&self) -> RowsAlike {
        match &self.weight {
            Matrix::Float(weight) => rows_alike(&weight.val().transpose()),
            Matrix::Quantised(matrix) => quantised_rows_alike(matrix),
        }
    }

    /// `x tableᵗ`, as an output head that is the embedding does.
    ///
    /// # Shapes
    /// - x: `[rows, hidden]`, output: `[rows, num_tokens]`
    pub fn scores(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.weight {
            Matrix::Float(weight) => {
                let weight = weight.val().transpose();
                let product =
                    kernels::linear(&x, &weight, None).or_else(|| vendor::linear(&x, &weight, None));
                product.unwrap_or_else(|| x.matmul(weight))
            }
            Matrix::Quantised(matrix) => apply_quantised(matrix, x, None),
        }
    }
}
