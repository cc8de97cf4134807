//! A checkpoint's matrices in fewer bits, as they are written: one of them in memory at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, TensorData};
use serde_json::{Value, json};

use super::ggml_blocks::{self, BlockState};
use super::matrix_format::MatrixFormat;
use super::save::PendingTensor;
use super::{QuantisedTensor, StoredDType, WeightsError};
use crate::error::Result;
use crate::quant::bnb::{Absmax, AbsmaxStorage, FourBit};
use crate::quant::{MatrixSite, QuantMatrix, Scheme};

/// What the decoder's matrices are written as, or held as in memory. Towers, bridges, norms and biases stay floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// Floats.
    #[default]
    Floats,
    /// NF4 with double quantisation, as bitsandbytes has it; the matrices of the blocks alone.
    Nf4,
    /// Eight bits with a scale a row, as bitsandbytes has it; the matrices of the blocks alone.
    Int8,
    /// Blocks of GGML; embedding and head as well.
    Ggml(Scheme),
}

/// The format of a matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    /// The one that it can have.
    pub format: MatrixFormat,
    /// The name of the one that was asked for.
    pub asked: &'static str,
}

/// What a part of a matrix is called behind the matrix's key without `.weight`, its dtype and its shape.
type Layout = Vec<(String, DType, Vec<usize>)>;

/// Bytes of the parts by name.
type Parts = BTreeMap<String, Vec<u8>>;

/// The parts of the matrix that was encoded last, with its key.
type Latest = Arc<Mutex<Option<(String, Arc<Parts>)>>>;

impl Encoding {
    /// The key `quantization_config` of a config.json; none for floats. `dtype` is what PyTorch calls the floats beside, `skipped` are
    /// modules that are not quantised.
    pub(super) fn config(self, dtype: &str, skipped: &[&str]) -> Option<Value> {
        let bitsandbytes = |four_bit: bool| {
            json!({
                "quant_method": "bitsandbytes",
                "load_in_4bit": four_bit,
                "load_in_8bit": !four_bit,
                "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_use_double_quant": true,
                "bnb_4bit_compute_dtype": dtype,
                "bnb_4bit_quant_storage": "uint8",
                "llm_int8_threshold": 6.0,
                "llm_int8_skip_modules": skipped,
                "llm_int8_has_fp16_weight": false,
                "llm_int8_enable_fp32_cpu_offload": false,
            })
        };
        match self {
            Self::Floats => None,
            Self::Nf4 => Some(bitsandbytes(true)),
            Self::Int8 => Some(bitsandbytes(false)),
            Self::Ggml(scheme) => Some(json!({ "quant_method": "ggml", "scheme": scheme.name() })),
        }
    }

    /// What the encoding is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Floats => "floats",
            Self::Nf4 => "nf4",
            Self::Int8 => "int8",
            Self::Ggml(scheme) => scheme.name(),
        }
    }

    /// The format of the matrix at `site`, of rows of `d_input`, in a decoder of `num_layers` blocks; none where it is floats.
    pub(super) fn choose(self, site: MatrixSite, num_layers: usize, d_input: usize) -> Option<Choice> {
        let in_block = |format: MatrixFormat| {
            let block = matches!(site, MatrixSite::Block { .. });
            block.then_some(Choice { format, asked: format.name() })
        };
        match self {
            Self::Floats => None,
            Self::Nf4 => in_block(MatrixFormat::Nf4),
            Self::Int8 => in_block(MatrixFormat::Int8),
            Self::Ggml(scheme) => {
                let choice = scheme.choose(site, num_layers, d_input);
                Some(Choice { format: MatrixFormat::Ggml(choice.format), asked: choice.asked.name() })
            }
        }
    }

    /// Whether the matrix at `site` stays as a file holds it.
    pub(super) fn keeps(self, site: MatrixSite, stored: StoredDType) -> bool {
        let in_block = matches!(site, MatrixSite::Block { .. });
        match (self, stored) {
            (Self::Floats | Self::Ggml(_), StoredDType::Ggml(_)) => true,
            (Self::Nf4, StoredDType::FourBit(_)) | (Self::Int8, StoredDType::Int8) => in_block,
            _ => false,
        }
    }
}

/// `tensors` with the matrices of a decoder of `num_layers` blocks encoded, and a list of these.
pub(super) fn encode(
    tensors: BTreeMap<String, PendingTensor>,
    encoding: Encoding,
    num_layers: usize,
) -> (BTreeMap<String, PendingTensor>, Vec<QuantisedTensor>) {
    let latest = Latest::default();
    let (mut written, mut list) = (BTreeMap::new(), Vec::new());
    for (key, tensor) in tensors {
        let shape = <[usize; 2]>::try_from(tensor.shape());
        let chosen = MatrixSite::of_key(&key).zip(shape.ok());
        let chosen =
            chosen.and_then(|(site, shape)| Some((encoding.choose(site, num_layers, shape[1])?, shape)));
        let Some((Choice { format, asked }, shape)) = chosen else {
            written.insert(key, tensor);
            continue;
        };
        let layout = format.layout(shape, tensor.dtype());
        let bytes =
            layout.iter().map(|(_, dtype, shape)| shape.iter().product::<usize>() * dtype.size()).sum();
        list.push(QuantisedTensor { key: key.clone(), asked: Some(asked), format: format.name(), bytes });
        let matrix =
            Arc::new(Matrix { key: key.clone(), format, shape, tensor, latest: Arc::clone(&latest) });
        let stem = key.strip_suffix(".weight").unwrap_or(&key);
        for (name, dtype, shape) in layout {
            let (matrix, part, extents) = (Arc::clone(&matrix), name.clone(), shape.clone());
            let read = move || {
                let bytes = matrix.parts()?.get(&part).cloned().unwrap_or_default();
                Ok(TensorData::from_bytes_vec(bytes, extents.clone(), dtype))
            };
            written.insert(format!("{stem}.{name}"), PendingTensor::new(shape, dtype, read));
        }
    }
    (written, list)
}

/// A matrix whose parts are written one after the other. They are computed together, and kept until those of another one are.
struct Matrix {
    key: String,
    format: MatrixFormat,
    shape: [usize; 2],
    tensor: PendingTensor,
    latest: Latest,
}

impl Matrix {
    fn parts(&self) -> Result<Arc<Parts>> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, parts)) = latest.as_ref().filter(|(key, _)| *key == self.key) {
            return Ok(Arc::clone(parts));
        }
        *latest = None;
        let values = self.tensor.values()?;
        // Blocks would hold plain numbers in their place, and nobody would notice.
        if !values.iter().all(|value| value.is_finite()) {
            let (key, format) = (self.key.clone(), self.format.name());
            return Err(WeightsError::NotFinite { key, format }.into());
        }
        let matrix = self.format.quantise(&values, self.shape, torch_name(self.tensor.dtype()));
        let parts = Arc::new(parts(&matrix, self.tensor.dtype()));
        *latest = Some((self.key.clone(), Arc::clone(&parts)));
        Ok(parts)
    }
}

/// Longest spelling of a number of 64 bits.
const NUMBER: usize = 24;

impl MatrixFormat {
    /// The parts, known before the values are: the file's header comes first.
    fn layout(self, shape: [usize; 2], dtype: DType) -> Layout {
        let part = |name: &str, dtype, shape: &[usize]| (name.to_owned(), dtype, shape.to_vec());
        match self {
            Self::Nf4 => {
                // Of a matrix that is zero but of this shape: the state's length depends on nothing else but the offset's digits.
                let values = shape.iter().product::<usize>();
                let blocks = values.div_ceil(64);
                vec![
                    part("weight", DType::U8, &[values.div_ceil(2), 1]),
                    part("weight.absmax", DType::U8, &[blocks]),
                    part("weight.nested_absmax", DType::F32, &[blocks.div_ceil(256)]),
                    part("weight.nested_quant_map", DType::F32, &[256]),
                    part("weight.quant_map", DType::F32, &[16]),
                    part(NF4_STATE, DType::U8, &[state_len(shape, dtype)]),
                ]
            }
            Self::Int8 => vec![
                part("SCB", DType::F32, &shape[..1]),
                part("weight", DType::I8, &shape),
                part("weight_format", DType::U8, &[]),
            ],
            Self::Ggml(format) => {
                let state = BlockState::new(format, shape).to_json();
                vec![
                    part("weight", DType::U8, &[shape[0], format.row_bytes(shape[1])]),
                    part(&format!("weight{}", ggml_blocks::STATE), DType::U8, &[state.len()]),
                ]
            }
        }
    }
}

/// The parts of a matrix, with lengths as its format's layout has them; `dtype` is that of the floats that it was.
fn parts(quantised: &QuantMatrix, dtype: DType) -> Parts {
    let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let named = |name: &str, bytes: Vec<u8>| (name.to_owned(), bytes);
    let parts = match quantised {
        QuantMatrix::FourBit(matrix) => {
            let tensor = matrix.tensor();
            let mut state = tensor.state().to_json();
            state.resize(state_len(quantised.shape(), dtype), b' ');
            let Absmax::Double(absmax) = tensor.absmax() else { unreachable!("as asked for") };
            vec![
                named("weight", tensor.packed().to_vec()),
                named("weight.absmax", absmax.codes.clone()),
                named("weight.nested_absmax", floats(&absmax.absmax)),
                named("weight.nested_quant_map", floats(&absmax.map[..])),
                named("weight.quant_map", floats(tensor.map())),
                named(NF4_STATE, state),
            ]
        }
        QuantMatrix::Int8(matrix) => {
            let codes = matrix.codes().iter().map(|code| *code as u8).collect();
            vec![
                named("SCB", floats(matrix.scales())),
                named("weight", codes),
                named("weight_format", vec![0]),
            ]
        }
        QuantMatrix::Ggml(blocks) => {
            let state = BlockState::new(blocks.format(), quantised.shape()).to_json();
            vec![
                named("weight", blocks.blocks().to_vec()),
                named(&format!("weight{}", ggml_blocks::STATE), state),
            ]
        }
    };
    parts.into_iter().collect()
}

const NF4_STATE: &str = "weight.quant_state.bitsandbytes__nf4";

/// Bytes of a state with the longest offset; a shorter one is followed by blanks, which JSON allows.
fn state_len(shape: [usize; 2], dtype: DType) -> usize {
    let empty = FourBit::quantise_nf4(&[], &[0, 0], torch_name(dtype), AbsmaxStorage::Double);
    let mut state = empty.state().clone();
    state.shape = shape.to_vec();
    state.to_json().len() + NUMBER
}

/// What PyTorch calls a float.
pub(super) fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::ggml::GgmlType;

    #[test]
    fn parts_have_the_sizes_that_the_header_states() {
        let shape = [6, 50];
        let values: Vec<f32> = (0..300).map(|i| (i as f32 * 0.7).sin() * 1e-3).collect();
        let blocks = [GgmlType::Q8_0, GgmlType::Q4_0].map(MatrixFormat::Ggml);
        for format in [MatrixFormat::Nf4, MatrixFormat::Int8].into_iter().chain(blocks) {
            for dtype in [DType::F32, DType::BF16] {
                let parts = parts(&format.quantise(&values, shape, torch_name(dtype)), dtype);
                let layout = format.layout(shape, dtype);
                assert_eq!(layout.len(), parts.len());
                for (name, dtype, shape) in layout {
                    assert_eq!(
                        parts[&name].len(),
                        shape.iter().product::<usize>() * dtype.size(),
                        "{format:?} {name}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_matrix_that_is_not_finite_is_refused_by_its_key() {
        let key = "model.layers.0.mlp.up_proj.weight";
        let q8 = Scheme::ALL.into_iter().map(Encoding::Ggml);
        for encoding in [Encoding::Nf4, Encoding::Int8].into_iter().chain(q8) {
            for damage in [f32::NAN, f32::INFINITY] {
                let mut values = vec![0.5; 2 * 256];
                values[300] = damage;
                let read = move || Ok(TensorData::new(values.clone(), [2, 256]));
                let tensor = PendingTensor::new(vec![2, 256], DType::F32, read);
                let (written, _) = encode(BTreeMap::from([(key.to_owned(), tensor)]), encoding, 1);
                let error = written[key].bytes().unwrap_err().to_string();
                assert!(error.contains(key) && error.contains("not finite"), "{error}");
            }
        }
    }
}
