use std::ops::BitAnd;
use std::sync::LazyLock;

use burn::tensor::{AllocationProperty, DType, Element, TensorData};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::stored::Bytes;
use super::{StoredDType, StoredTensor, WeightsError, bnb};
use crate::error::{Error, Result};
use crate::quant::ggml;

/// A tensor's values in the dtype that was asked for, and whether all of them are finite.
///
/// Converts while it reads, large tensors in several threads; so memory holds the result and a chunk of the file a thread.
///
/// # Errors
/// [`WeightsError::DType`] for what is no weight, [`WeightsError::Damaged`] for unreadable bytes, [`WeightsError::Tensor`] for parts
/// that do not fit together.
pub(super) fn read_as(stored: &StoredTensor, dtype: DType) -> Result<(TensorData, bool)> {
    if stored.dtype.is_quantised() {
        return match dtype {
            DType::F16 => computed(stored, f16::from_f32),
            DType::BF16 => computed(stored, bf16::from_f32),
            _ => computed(stored, |value| value),
        };
    }
    if stored.dtype == StoredDType::Other {
        return Err(no_weight(stored));
    }
    match dtype {
        DType::F16 => collect::<f16>(stored),
        DType::BF16 => collect::<bf16>(stored),
        _ => collect::<f32>(stored),
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

/// Values for which a thread is worth its start.
const PART: usize = 1 << 20;

/// Asking the system for it takes as long as reading a small tensor.
static THREADS: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

fn collect<T: Float>(stored: &StoredTensor) -> Result<(TensorData, bool)> {
    if let (Bytes::Mapped(bytes), true) = (&stored.bytes, as_it_is::<T>(stored))
        && bytes.as_ptr().align_offset(align_of::<T>()) == 0
    {
        let shared = burn::tensor::Bytes::from_shared(bytes.clone(), AllocationProperty::File);
        let data = TensorData::from_bytes(shared, stored.shape.clone(), T::dtype());
        return Ok((data, all_finite::<T>(bytes)));
    }
    let len = stored.num_elements();
    let parts = if stored.is_cut_cheaply() { num_parts(len) } else { 1 };
    // Zeros that the system gives; it would take as long as the reading to write them.
    let mut values: Vec<T> = bytemuck::zeroed_vec(len);
    let finite = match parts {
        1 => fill(stored, &mut values)?,
        _ => fill_parts(stored, &mut values, len.div_ceil(parts))?,
    };
    Ok((TensorData::new(values, stored.shape.clone()), finite))
}

/// Whether all values of a file's bytes are finite; large ones are looked through, and so fetched, by several threads.
fn all_finite<T: Float>(bytes: &[u8]) -> bool {
    match num_parts(bytes.len() / size_of::<T>()) {
        1 => T::are_finite(bytes),
        parts => {
            let size = bytes.len().div_ceil(parts).next_multiple_of(size_of::<T>());
            let tasks = bytes.chunks(size).map(|part| move || T::are_finite(part));
            in_threads(tasks).into_iter().all(|finite| finite)
        }
    }
}

/// [`fill`], a thread for each `size` of the values.
fn fill_parts<T: Float>(stored: &StoredTensor, values: &mut [T], size: usize) -> Result<bool> {
    let row = stored.in_a_row();
    let tasks = values.chunks_mut(size).enumerate().map(|(index, part)| {
        let stored = row.rows(index * size, part.len());
        move || fill(&stored, part)
    });
    in_threads(tasks).into_iter().reduce(|a, b| Ok(a? & b?)).unwrap_or(Ok(true))
}

/// Threads that reading so many values is worth.
fn num_parts(values: usize) -> usize {
    (values / PART).clamp(1, *THREADS)
}

/// What the tasks give, each of which has a thread.
fn in_threads<R: Send, F: FnOnce() -> R + Send>(tasks: impl Iterator<Item = F>) -> Vec<R> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = tasks.map(|task| scope.spawn(task)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// Whether the bytes of the file are the values in memory.
fn as_it_is<T: Float>(stored: &StoredTensor) -> bool {
    stored.dtype == T::STORED && cfg!(target_endian = "little")
}

/// Fills `values` with those of the file; whether all are finite.
fn fill<T: Float>(stored: &StoredTensor, values: &mut [T]) -> Result<bool> {
    let (mut finite, mut done) = (true, 0);
    if as_it_is::<T>(stored) {
        stored.read_into(bytemuck::cast_slice_mut(values), |chunk| finite &= T::are_finite(chunk))?;
        return Ok(finite);
    }
    stored.read_chunks(|chunk| {
        let count = chunk.len() / stored.dtype.row_bytes(1);
        let to = &mut values[done..done + count];
        done += count;
        finite &= match stored.dtype {
            StoredDType::F16 => convert::<f16, T>(chunk, to),
            StoredDType::BF16 => convert::<bf16, T>(chunk, to),
            StoredDType::F32 => convert::<f32, T>(chunk, to),
            _ => convert::<f64, T>(chunk, to),
        };
    })?;
    Ok(finite)
}

/// Converts by way of f32, which holds every half value exactly; whether all values are finite.
fn convert<S: Source, T: Float>(chunk: &[u8], to: &mut [T]) -> bool {
    const BLOCK: usize = 2048;
    let mut single = [0.0; BLOCK];
    let mut finite = true;
    for (chunk, to) in chunk.chunks(BLOCK * size_of::<S>()).zip(to.chunks_mut(BLOCK)) {
        let single = &mut single[..to.len()];
        S::widen(chunk, single);
        finite &= single.iter().fold(true, |finite, value| finite & value.is_finite());
        T::narrow(single, to);
    }
    finite
}

/// A float of a file, little-endian.
trait Source: Sized {
    /// Fills `to`.
    fn widen(bytes: &[u8], to: &mut [f32]);
}

/// A float of memory.
trait Float: Element + bytemuck::Pod + Send {
    /// The same in a file.
    const STORED: StoredDType;

    /// Whether all values of a file's bytes are finite.
    fn are_finite(bytes: &[u8]) -> bool;

    /// Fills `to` with the nearest values.
    fn narrow(from: &[f32], to: &mut [Self]);
}

/// Calls `put` with each value's bytes and its place.
fn each<const N: usize, T>(bytes: &[u8], to: &mut [T], put: impl Fn([u8; N]) -> T) {
    for (to, bytes) in to.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *to = put(*bytes);
    }
}

/// Whether no float has all bits of `exponent`.
fn exponents_below<const N: usize, B>(bytes: &[u8], bits: impl Fn([u8; N]) -> B, exponent: B) -> bool
where
    B: Copy + PartialEq + BitAnd<Output = B>,
{
    // Without an end before the end, which would keep the loop out of wide registers
    bytes.as_chunks::<N>().0.iter().fold(true, |below, raw| below & (bits(*raw) & exponent != exponent))
}

impl Source for f64 {
    fn widen(bytes: &[u8], to: &mut [f32]) {
        each(bytes, to, |raw| Self::from_le_bytes(raw) as f32);
    }
}

impl Source for f32 {
    fn widen(bytes: &[u8], to: &mut [f32]) {
        each(bytes, to, Self::from_le_bytes);
    }
}

impl Source for f16 {
    fn widen(bytes: &[u8], to: &mut [f32]) {
        const BLOCK: usize = 256;
        let mut block = [Self::ZERO; BLOCK];
        for (bytes, to) in bytes.chunks(2 * BLOCK).zip(to.chunks_mut(BLOCK)) {
            let block = &mut block[..to.len()];
            each(bytes, block, Self::from_le_bytes);
            block.convert_to_f32_slice(to);
        }
    }
}

impl Source for bf16 {
    fn widen(bytes: &[u8], to: &mut [f32]) {
        each(bytes, to, |raw| f32::from_bits(u32::from(u16::from_le_bytes(raw)) << 16));
    }
}

impl Float for f32 {
    const STORED: StoredDType = StoredDType::F32;

    fn are_finite(bytes: &[u8]) -> bool {
        exponents_below(bytes, u32::from_le_bytes, 0x7f80_0000)
    }

    fn narrow(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
}

impl Float for f16 {
    const STORED: StoredDType = StoredDType::F16;

    fn are_finite(bytes: &[u8]) -> bool {
        exponents_below(bytes, u16::from_le_bytes, 0x7c00)
    }

    fn narrow(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
}

impl Float for bf16 {
    const STORED: StoredDType = StoredDType::BF16;

    fn are_finite(bytes: &[u8]) -> bool {
        exponents_below(bytes, u16::from_le_bytes, 0x7f80)
    }

    fn narrow(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::super::file::open_file;
    use super::super::{NewTensor, write_safetensors};
    use super::*;

    /// A file of one tensor.
    fn stored(dtype: Dtype, shape: [usize; 2], bytes: Vec<u8>) -> (tempfile::TempDir, StoredTensor) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.safetensors");
        let read = || Ok::<_, std::convert::Infallible>(bytes.clone());
        write_safetensors(&path, None, [NewTensor::new("a", dtype, shape, read)]).unwrap();
        let stored = open_file(&path).unwrap().remove("a").unwrap();
        (folder, stored)
    }

    /// Tensors of several parts, chunks and blocks, from every type to every type.
    #[test]
    fn every_value_is_converted_in_its_place() {
        let shape = [1021, 1031];
        let exact: Vec<f32> =
            (0..shape[0] * shape[1]).map(|i| ((i * 7919) % 255) as f32 / 64.0 - 2.0).collect();
        let files = [
            (Dtype::F64, exact.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect::<Vec<_>>()),
            (Dtype::F32, exact.iter().flat_map(|x| x.to_le_bytes()).collect()),
            (Dtype::F16, exact.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()),
            (Dtype::BF16, exact.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()),
        ];
        for (dtype, bytes) in files {
            let (_folder, stored) = stored(dtype, shape, bytes);
            for to in [DType::F32, DType::F16, DType::BF16] {
                let (data, finite) = read_as(&stored, to).unwrap();
                assert!(finite && data.dtype() == to && *data.shape() == shape.into());
                assert!(data.convert::<f32>().try_into_vec::<f32>().unwrap() == exact, "{dtype:?} to {to:?}");
            }
        }
    }

    #[test]
    fn one_infinite_value_is_noticed_wherever_it_is() {
        for place in [0, 600_000, 999_999] {
            for (dtype, one, infinite) in [(Dtype::F16, 0x3c00u16, 0xfc00u16), (Dtype::BF16, 0x3f80, 0x7fc0)]
            {
                let mut bits = vec![one; 1_000_000];
                bits[place] = infinite;
                let (_folder, stored) =
                    stored(dtype, [1000, 1000], bits.iter().flat_map(|b| b.to_le_bytes()).collect());
                for to in [DType::F32, DType::F16, DType::BF16] {
                    assert!(!read_as(&stored, to).unwrap().1, "{place} of {dtype:?}");
                }
            }
        }
    }
}
