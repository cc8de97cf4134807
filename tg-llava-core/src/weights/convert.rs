use burn::tensor::{DType, TensorData};
use half::{bf16, f16};

use super::{StoredDType, StoredTensor, WeightsError};
use crate::error::Result;

/// A tensor's values in the dtype that was asked for, and whether all of them are finite.
///
/// Converts straight from the file's bytes: no f32 copy in between, so memory peaks at the result alone.
///
/// # Errors
/// [`WeightsError::DType`] for anything but floats, [`WeightsError::Damaged`] for unreadable bytes.
pub(super) fn read_as(stored: &StoredTensor, dtype: DType) -> Result<(TensorData, bool)> {
    let bytes = stored.bytes()?;
    let (data, finite) = match stored.dtype {
        StoredDType::F32 => convert::<4, f32>(&bytes, &stored.shape, dtype, f32::from_le_bytes),
        StoredDType::F16 => convert::<2, f16>(&bytes, &stored.shape, dtype, f16::from_le_bytes),
        StoredDType::BF16 => convert::<2, bf16>(&bytes, &stored.shape, dtype, bf16::from_le_bytes),
        StoredDType::F64 => {
            convert::<8, f32>(&bytes, &stored.shape, dtype, |raw| f64::from_le_bytes(raw) as f32)
        }
        StoredDType::Other => {
            return Err(WeightsError::DType {
                path: stored.path.to_path_buf(),
                tensor: stored.key.clone(),
                dtype: stored.dtype_name.clone(),
            }
            .into());
        }
    };
    Ok((data, finite))
}

/// A half or single float.
trait Half: Copy {
    fn single(self) -> f32;
}

impl Half for f32 {
    fn single(self) -> f32 {
        self
    }
}

impl Half for f16 {
    fn single(self) -> f32 {
        self.to_f32()
    }
}

impl Half for bf16 {
    fn single(self) -> f32 {
        self.to_f32()
    }
}

fn convert<const N: usize, T: Half>(
    bytes: &[u8],
    shape: &[usize],
    dtype: DType,
    parse: impl Fn([u8; N]) -> T,
) -> (TensorData, bool) {
    let mut finite = true;
    let values = bytes.chunks_exact(N).map(|chunk| {
        let mut raw = [0; N];
        raw.copy_from_slice(chunk);
        let value = parse(raw).single();
        finite &= value.is_finite();
        value
    });
    // f16 and bf16 are exact in f32, so going through a single value loses nothing where the dtype stays.
    let data = match dtype {
        DType::F16 => TensorData::new(values.map(f16::from_f32).collect::<Vec<_>>(), shape),
        DType::BF16 => TensorData::new(values.map(bf16::from_f32).collect::<Vec<_>>(), shape),
        _ => TensorData::new(values.collect::<Vec<f32>>(), shape),
    };
    (data, finite)
}
