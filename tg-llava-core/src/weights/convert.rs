use burn::tensor::{DType, Element, TensorData};
use half::{bf16, f16};

use super::{StoredDType, StoredTensor, WeightsError, bnb};
use crate::error::{Error, Result};
use crate::quant::ggml;

/// A tensor's values in the dtype that was asked for, and whether all of them are finite.
///
/// Converts while it reads, so memory holds the result and a chunk of the file.
///
/// # Errors
/// [`WeightsError::DType`] for what is no weight, [`WeightsError::Damaged`] for unreadable bytes, [`WeightsError::Tensor`] for parts
/// that do not fit together.
pub(super) fn read_as(stored: &StoredTensor, dtype: DType) -> Result<(TensorData, bool)> {
    match stored.dtype {
        StoredDType::F32 => convert::<4, f32>(stored, dtype, f32::from_le_bytes),
        StoredDType::F16 => convert::<2, f16>(stored, dtype, f16::from_le_bytes),
        StoredDType::BF16 => convert::<2, bf16>(stored, dtype, bf16::from_le_bytes),
        StoredDType::F64 => convert::<8, f32>(stored, dtype, |raw| f64::from_le_bytes(raw) as f32),
        StoredDType::Ggml(_) | StoredDType::FourBit(_) | StoredDType::Int8 | StoredDType::Other => {
            match dtype {
                DType::F16 => computed(stored, f16::from_f32),
                DType::BF16 => computed(stored, bf16::from_f32),
                _ => computed(stored, |value| value),
            }
        }
    }
}

/// Calls `take` with the values in f32, in order; see [`StoredTensor::read_values`].
pub(super) fn read_values(stored: &StoredTensor, take: &mut dyn FnMut(&[f32])) -> Result<()> {
    match stored.dtype {
        StoredDType::F32 => parsed::<4>(stored, f32::from_le_bytes, take),
        StoredDType::F16 => parsed::<2>(stored, |raw| f16::from_le_bytes(raw).to_f32(), take),
        StoredDType::BF16 => parsed::<2>(stored, |raw| bf16::from_le_bytes(raw).to_f32(), take),
        StoredDType::F64 => parsed::<8>(stored, |raw| f64::from_le_bytes(raw) as f32, take),
        StoredDType::Ggml(format) => {
            let row = stored.shape.last().copied().unwrap_or(1);
            let row_bytes = format.row_bytes(row).max(1);
            let mut values = Vec::new();
            stored.read_chunks(|chunk| {
                values.resize(chunk.len() / row_bytes * row, 0.0);
                ggml::dequantise(format, chunk, row, &mut values);
                take(&values);
            })
        }
        StoredDType::FourBit(_) | StoredDType::Int8 => bnb::read_values(stored, take),
        StoredDType::Other => Err(no_weight(stored)),
    }
}

fn no_weight(stored: &StoredTensor) -> Error {
    let dtype = stored.dtype_name.clone();
    WeightsError::DType { path: stored.path.to_path_buf(), tensor: stored.key.clone(), dtype }.into()
}

fn parsed<const N: usize>(
    stored: &StoredTensor,
    parse: impl Fn([u8; N]) -> f32,
    take: &mut dyn FnMut(&[f32]),
) -> Result<()> {
    let mut values = Vec::new();
    stored.read_chunks(|chunk| {
        values.clear();
        values.extend(chunk.as_chunks().0.iter().map(|raw| parse(*raw)));
        take(&values);
    })
}

/// Values of quantised tensors.
fn computed<U: Element>(stored: &StoredTensor, cast: impl Fn(f32) -> U) -> Result<(TensorData, bool)> {
    let mut finite = true;
    let mut values = Vec::with_capacity(stored.num_elements());
    read_values(stored, &mut |piece| {
        finite &= piece.iter().all(|value| value.is_finite());
        values.extend(piece.iter().map(|value| cast(*value)));
    })?;
    Ok((TensorData::new(values, stored.shape.clone()), finite))
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
    stored: &StoredTensor,
    dtype: DType,
    parse: impl Fn([u8; N]) -> T,
) -> Result<(TensorData, bool)> {
    // f16 and bf16 are exact in f32, so going through a single value loses nothing where the dtype stays.
    match dtype {
        DType::F16 => collect(stored, parse, f16::from_f32),
        DType::BF16 => collect(stored, parse, bf16::from_f32),
        _ => collect(stored, parse, |value| value),
    }
}

fn collect<const N: usize, T: Half, U: Element>(
    stored: &StoredTensor,
    parse: impl Fn([u8; N]) -> T,
    cast: impl Fn(f32) -> U,
) -> Result<(TensorData, bool)> {
    let mut finite = true;
    let mut values = Vec::with_capacity(stored.num_elements());
    stored.read_chunks(|chunk| {
        values.extend(chunk.chunks_exact(N).map(|bytes| {
            let mut raw = [0; N];
            raw.copy_from_slice(bytes);
            let value = parse(raw).single();
            finite &= value.is_finite();
            cast(value)
        }));
    })?;
    Ok((TensorData::new(values, stored.shape.clone()), finite))
}
