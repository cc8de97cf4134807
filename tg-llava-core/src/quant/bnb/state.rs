use half::{bf16, f16};
use serde::{Deserialize, Deserializer, Serialize};

use super::{BnbError, FourBitKind};

/// What a 4-bit tensor was: the JSON under `<key>.quant_state.bitsandbytes__<kind>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct QuantState {
    /// What the codes stand for.
    #[serde(rename = "quant_type")]
    pub kind: FourBitKind,
    /// Values of a block.
    pub blocksize: usize,
    /// Number format of the tensor before, as PyTorch calls it; dequantised values are rounded to it.
    pub dtype: String,
    /// Extents of the tensor, outermost first.
    pub shape: Vec<usize>,
    /// How the blocks' absmax is quantised in turn.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub nested: Option<NestedState>,
}

/// The part of a state that describes an absmax in eight bits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NestedState {
    /// Absmax of a block.
    #[serde(rename = "nested_blocksize")]
    pub blocksize: usize,
    /// Number format of the absmax before.
    #[serde(rename = "nested_dtype")]
    pub dtype: String,
    /// Mean of all absmax, which was subtracted.
    #[serde(rename = "nested_offset")]
    pub offset: f64,
}

/// The keys of the JSON: those of a nested absmax are there together, or none of them.
#[derive(Deserialize)]
struct Fields {
    #[serde(rename = "quant_type")]
    kind: FourBitKind,
    blocksize: usize,
    dtype: String,
    shape: Vec<usize>,
    #[serde(default, deserialize_with = "present")]
    nested_blocksize: Option<usize>,
    #[serde(default, deserialize_with = "present")]
    nested_dtype: Option<String>,
    #[serde(default, deserialize_with = "present")]
    nested_offset: Option<f64>,
}

/// A key that may be missing, but not `null`.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

impl TryFrom<Fields> for QuantState {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        let Fields { kind, blocksize, dtype, shape, .. } = fields;
        let nested = match (fields.nested_blocksize, fields.nested_dtype, fields.nested_offset) {
            (None, None, None) => None,
            (Some(blocksize), Some(dtype), Some(offset)) => Some(NestedState { blocksize, dtype, offset }),
            _ => {
                return Err(
                    "nested_blocksize, nested_dtype and nested_offset must be there together, or none of them",
                );
            }
        };
        Ok(Self { kind, blocksize, dtype, shape, nested })
    }
}

impl QuantState {
    /// Reads the JSON of a file.
    ///
    /// # Errors
    /// [`BnbError::State`] where it is not the library's, [`BnbError::EmptyBlocks`] and [`BnbError::TooLarge`] for sizes that cannot be.
    pub fn parse(json: &[u8]) -> Result<Self, BnbError> {
        let state: Self = serde_json::from_slice(json).map_err(BnbError::State)?;
        if state.blocksize == 0 || state.nested.as_ref().is_some_and(|nested| nested.blocksize == 0) {
            return Err(BnbError::EmptyBlocks);
        }
        let elements = state.shape.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent));
        match elements {
            Some(elements) if elements <= isize::MAX as usize => Ok(state),
            _ => Err(BnbError::TooLarge { shape: state.shape }),
        }
    }

    /// The JSON for a file.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and strings alone")
    }

    /// Rounds a value to the number format that the tensor had, as the library does.
    pub fn rounding(&self) -> fn(f32) -> f32 {
        match self.dtype.as_str() {
            "float16" => |value| f16::from_f32(value).to_f32(),
            "bfloat16" => |value| bf16::from_f32(value).to_f32(),
            _ => |value| value,
        }
    }

    /// Values of the tensor.
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Blocks of the tensor; the last may be short.
    pub fn num_blocks(&self) -> usize {
        self.num_elements().div_ceil(self.blocksize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_cannot_be_is_refused() {
        let parse = |json: &str| QuantState::parse(json.as_bytes()).map_err(|error| error.to_string());
        let state =
            parse(r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [3, 33]}"#).unwrap();
        assert_eq!((state.num_elements(), state.num_blocks(), state.nested.is_none()), (99, 2, true));
        for (json, part) in [
            (r#"{"quant_type": "nf5", "blocksize": 64, "dtype": "float32", "shape": [1]}"#, "nf5"),
            (r#"{"quant_type": "nf4", "blocksize": 0, "dtype": "float32", "shape": [1]}"#, "block size of 0"),
            (
                r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [4294967296, 4294967296]}"#,
                "too large",
            ),
            (r#"{"quant_type": "nf4", "dtype": "float32", "shape": [1]}"#, "blocksize"),
            ("", "not valid JSON"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_nested_state_is_whole_or_not_there() {
        let parse = |nested: &str| {
            let json = format!(
                r#"{{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [4]{nested}}}"#
            );
            QuantState::parse(json.as_bytes()).map_err(|error| error.to_string())
        };
        let whole = r#", "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.5"#;
        let state = parse(whole).unwrap();
        assert_eq!(state.nested.as_ref().map(|nested| (nested.blocksize, nested.offset)), Some((256, 0.5)));
        assert_eq!(QuantState::parse(&state.to_json()).unwrap(), state);
        assert!(parse("").unwrap().nested.is_none());
        for (nested, part) in [
            (r#", "nested_blocksize": 256"#, "together"),
            (r#", "nested_blocksize": 256, "nested_dtype": "float32""#, "together"),
            (r#", "nested_blocksize": null, "nested_dtype": null, "nested_offset": null"#, "null"),
            (r#", "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": "a""#, "invalid type"),
        ] {
            let error = parse(nested).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
