use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Cube, DispatchDevice};
use burn::tensor::{DType, Device, Int, Tensor};
use tg_llava_core::quant::{PackedMatrix, PackedProducts};

use crate::operations::{Description, PackedOps};

/// Most rows of `x` that are multiplied by the matrix as it is stored; more are better off with its floats in memory.
const MOST_ROWS: usize = 16;

/// Products on every device that CubeCL computes for.
#[derive(Debug, Clone, Copy, Default)]
pub struct CubeProducts;

impl PackedProducts for CubeProducts {
    fn serves(&self, device: &Device) -> bool {
        matches!(device.clone().inner().as_dispatch(), DispatchDevice::Cube(_))
    }

    fn product(&self, x: &Tensor<2>, matrix: &PackedMatrix) -> Option<Tensor<2>> {
        let rows = x.dims()[0];
        let described = describe(matrix)?;
        if rows == 0 || rows > MOST_ROWS || matrix.shape()[0] == 0 {
            return None;
        }
        let x = fill_up(x, described.filled());
        let recording = x.device().is_autodiff();
        let x: FloatTensor<Cube> = match recording {
            true => {
                let x = x.try_into_primitive::<Autodiff<Cube>>().ok()?;
                (!x.is_tracked()).then(|| x.into_primitive())?
            }
            false => x.try_into_primitive::<Cube>().ok()?,
        };
        let y = Cube::packed_product(x, words(matrix.quants())?, words(matrix.scales())?, described);
        let y = Tensor::from_primitive::<Cube>(y);
        Some(if recording { Tensor::from_inner(y) } else { y })
    }

    fn rows(&self, matrix: &PackedMatrix, rows: Tensor<1, Int>, dtype: DType) -> Tensor<2> {
        let parts = || Some((words(matrix.quants())?, words(matrix.scales())?, words(&rows)?));
        let (described, (quants, scales, rows)) =
            describe(matrix).zip(parts()).expect("blocks on a device of CubeCL's");
        Tensor::from_primitive::<Cube>(Cube::packed_rows(quants, scales, rows, described, dtype))
    }
}

fn describe(matrix: &PackedMatrix) -> Option<Description> {
    Description::new(matrix.format(), matrix.shape())
}

/// The backend's own tensor.
fn words(tensor: &Tensor<1, Int>) -> Option<IntTensor<Cube>> {
    tensor.clone().try_into_primitive::<Cube>().ok()
}

/// `x` with zeros behind its rows, so that they have `filled` values.
fn fill_up(x: &Tensor<2>, filled: usize) -> Tensor<2> {
    let [rows, width] = x.dims();
    if width == filled {
        return x.clone();
    }
    let zeros = Tensor::zeros([rows, filled - width], (&x.device(), x.dtype()));
    Tensor::cat(vec![x.clone(), zeros], 1)
}
