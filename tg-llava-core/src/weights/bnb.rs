//! Tensors that bitsandbytes stores under several keys, such as `q_proj.weight`, `q_proj.weight.absmax` and so on: one tensor each.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::file::Bytes;
use super::ggml_blocks::join_blocks;
use super::{StoredDType, StoredTensor, TensorProblem, WeightsError};
use crate::config::read_json;
use crate::error::{Error, Result};
use crate::quant::bnb::{Absmax, BnbError, FourBit, FourBitKind, Int8Rows, NestedAbsmax, QuantState};

/// Values that are computed at once.
const PIECE: usize = 1 << 16;

/// What follows a 4-bit tensor's key in that of its state, before the kind.
const STATE: &str = ".quant_state.bitsandbytes__";

/// Checks that a folder's weights are not quantised in a way that is not read.
pub(super) fn check_method(dir: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Config {
        quantization_config: Option<Quantization>,
    }
    #[derive(Deserialize)]
    struct Quantization {
        quant_method: Option<String>,
    }
    let path = dir.join("config.json");
    if !path.is_file() {
        return Ok(());
    }
    let config: Config = read_json(&path)?;
    let method = config.quantization_config.and_then(|config| config.quant_method);
    // Older libraries did not write the method: it was theirs.
    match method.filter(|method| !["bitsandbytes", "ggml"].contains(&method.as_str())) {
        Some(method) => Err(WeightsError::QuantMethod { path, method }.into()),
        None => Ok(()),
    }
}

/// Puts one tensor in the place of the parts of each quantised one. Parts without their tensor stay, and are unknown keys.
pub(super) fn join_parts(tensors: &mut BTreeMap<String, StoredTensor>) -> Result<()> {
    let kinds = [FourBitKind::Nf4, FourBitKind::Fp4];
    let four_bit = |key: &String| {
        let (weight, kind) = key.split_once(STATE)?;
        Some((weight.to_owned(), kinds.into_iter().find(|known| known.name() == kind)?))
    };
    for (weight, kind) in tensors.keys().filter_map(four_bit).collect::<Vec<_>>() {
        join_four_bit(tensors, &weight, kind)?;
    }
    let scales = |key: &String| key.strip_suffix(".SCB").map(str::to_owned);
    for stem in tensors.keys().filter_map(scales).collect::<Vec<_>>() {
        join_int8(tensors, &stem)?;
    }
    join_blocks(tensors)
}

/// Takes the tensor `key` out; `beside` is one that needs it.
fn part(
    tensors: &mut BTreeMap<String, StoredTensor>,
    key: String,
    beside: &StoredTensor,
) -> Result<StoredTensor> {
    tensors.remove(&key).ok_or_else(|| {
        let (path, problem) = (beside.path.to_path_buf(), TensorProblem::Missing);
        WeightsError::Tensor { path, name: key, problem }.into()
    })
}

pub(super) fn wrong(tensor: &StoredTensor, problem: impl Into<TensorProblem>) -> Error {
    let (path, name) = (tensor.path.to_path_buf(), tensor.key.clone());
    WeightsError::Tensor { path, name, problem: problem.into() }.into()
}

fn join_four_bit(tensors: &mut BTreeMap<String, StoredTensor>, key: &str, kind: FourBitKind) -> Result<()> {
    let Some(state_tensor) = tensors.remove(&format!("{key}{STATE}{}", kind.name())) else { return Ok(()) };
    let state = read_state(&state_tensor)?;
    let mut parts = vec![part(tensors, key.to_owned(), &state_tensor)?];
    let nested: &[&str] = if state.nested.is_some() { &["nested_absmax", "nested_quant_map"] } else { &[] };
    for name in ["absmax", "quant_map"].iter().chain(nested) {
        parts.push(part(tensors, format!("{key}.{name}"), &state_tensor)?);
    }
    parts.insert(1, state_tensor);
    put(tensors, key, StoredDType::FourBit(kind), (kind.name(), state.shape), parts);
    Ok(())
}

fn join_int8(tensors: &mut BTreeMap<String, StoredTensor>, stem: &str) -> Result<()> {
    let Some(scales) = tensors.remove(&format!("{stem}.SCB")) else { return Ok(()) };
    let key = format!("{stem}.weight");
    let weight = part(tensors, key.clone(), &scales)?;
    let expected = [scales.num_elements(), weight.shape.last().copied().unwrap_or(0)];
    if weight.shape != expected || !weight.dtype_name.eq_ignore_ascii_case("i8") {
        let found = format!("{} {:?}", weight.dtype_name, weight.shape);
        return Err(wrong(&weight, TensorProblem::Layout { expected: format!("I8 {expected:?}"), found }));
    }
    let shape = weight.shape.clone();
    let mut parts = vec![weight, scales];
    // Files of older versions lack it.
    if let Some(format) = tensors.remove(&format!("{stem}.weight_format")) {
        match format.bytes()?.first().copied() {
            None | Some(0) => parts.push(format),
            Some(other) => return Err(wrong(&format, TensorProblem::WeightFormat(other))),
        }
    }
    put(tensors, &key, StoredDType::Int8, ("int8", shape), parts);
    Ok(())
}

fn put(
    tensors: &mut BTreeMap<String, StoredTensor>,
    key: &str,
    dtype: StoredDType,
    (name, shape): (&str, Vec<usize>),
    parts: Vec<StoredTensor>,
) {
    let path = parts[0].path.clone();
    let bytes = Bytes::Parts { parts: parts.into(), first: 0 };
    let joined = StoredTensor { path, key: key.to_owned(), dtype, dtype_name: name.to_owned(), shape, bytes };
    tensors.insert(key.to_owned(), joined);
}

fn read_state(tensor: &StoredTensor) -> Result<QuantState> {
    QuantState::parse(&tensor.bytes()?).map_err(|error| wrong(tensor, error))
}

/// The parts of a tensor that was joined, and the first of its values that counts.
fn parts_of(stored: &StoredTensor) -> (&Arc<[StoredTensor]>, usize) {
    match &stored.bytes {
        Bytes::Parts { parts, first } => (parts, *first),
        _ => unreachable!("join_parts alone gives tensors of these types"),
    }
}

impl StoredTensor {
    /// A tensor of four bits as bitsandbytes holds it, with nothing computed; `None` for every other one, and for some rows of one.
    ///
    /// # Errors
    /// Where the file cannot give it, or its parts do not fit together.
    pub fn four_bit(&self) -> Result<Option<FourBit>> {
        match self.dtype {
            StoredDType::FourBit(_) if parts_of(self).1 == 0 => {
                let tensor = read_four_bit(self)?;
                Ok((tensor.state().shape == self.shape).then_some(tensor))
            }
            _ => Ok(None),
        }
    }

    /// A matrix of eight bits as bitsandbytes holds it, with nothing computed; `None` for every other one, and for some rows of one.
    ///
    /// # Errors
    /// As [`StoredTensor::four_bit`].
    pub fn int8(&self) -> Result<Option<Int8Rows>> {
        match self.dtype {
            StoredDType::Int8 if parts_of(self).1 == 0 => {
                let matrix = read_int8(self)?;
                Ok((matrix.shape()[..] == self.shape).then_some(matrix))
            }
            _ => Ok(None),
        }
    }
}

fn read_four_bit(stored: &StoredTensor) -> Result<FourBit> {
    let (parts, _) = parts_of(stored);
    let [weight, state, absmax, map, nested @ ..] = &parts[..] else { unreachable!("join_four_bit") };
    let state = read_state(state)?;
    let map = exactly(map, floats(map)?)?;
    let absmax = match (&state.nested, nested) {
        (Some(described), [nested_absmax, nested_map]) => Absmax::Double(NestedAbsmax {
            codes: absmax.bytes()?,
            absmax: floats(nested_absmax)?,
            map: Box::new(exactly(nested_map, floats(nested_map)?)?),
            blocksize: described.blocksize,
            offset: described.offset as f32,
        }),
        _ => Absmax::Single(floats(absmax)?),
    };
    FourBit::new(state, weight.bytes()?, absmax, map).map_err(|error| wrong(stored, error))
}

fn read_int8(stored: &StoredTensor) -> Result<Int8Rows> {
    let (parts, _) = parts_of(stored);
    let codes = parts[0].bytes()?.into_iter().map(|byte| byte as i8).collect();
    Int8Rows::new(parts[0].shape[1], codes, floats(&parts[1])?).map_err(|error| wrong(stored, error))
}

fn floats(tensor: &StoredTensor) -> Result<Vec<f32>> {
    let mut values = Vec::with_capacity(tensor.num_elements());
    tensor.read_values(|piece| values.extend_from_slice(piece))?;
    Ok(values)
}

fn exactly<const N: usize>(tensor: &StoredTensor, values: Vec<f32>) -> Result<[f32; N]> {
    values.try_into().map_err(|values: Vec<f32>| {
        wrong(tensor, BnbError::Length { part: "map", expected: N, found: values.len() })
    })
}

/// Calls `take` with the values, rounded to the dtype that a 4-bit tensor had before, as the library's are.
pub(super) fn read_values(stored: &StoredTensor, take: &mut dyn FnMut(&[f32])) -> Result<()> {
    let (first, count) = (parts_of(stored).1, stored.num_elements());
    if stored.dtype == StoredDType::Int8 {
        let matrix = read_int8(stored)?;
        pieces(first, count, |first, out| matrix.dequantise(first, out), take);
        return Ok(());
    }
    let tensor = read_four_bit(stored)?;
    let round = tensor.state().rounding();
    let compute = |first: usize, out: &mut [f32]| {
        tensor.dequantise(first, out);
        out.iter_mut().for_each(|value| *value = round(*value));
    };
    pieces(first, count, compute, take);
    Ok(())
}

fn pieces(first: usize, count: usize, compute: impl Fn(usize, &mut [f32]), take: &mut dyn FnMut(&[f32])) {
    let mut buffer = vec![0.0; PIECE.min(count)];
    for start in (0..count).step_by(PIECE) {
        let piece = &mut buffer[..PIECE.min(count - start)];
        compute(first + start, piece);
        take(piece);
    }
}
