use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use super::input::{Input, Parsed};
use crate::error::{Error, Result};
use crate::quant::ggml::GgmlType;
use crate::weights::WeightsError;
use crate::weights::stored::damaged;

/// Where tensors begin, where the file does not say so.
const ALIGNMENT: u64 = 32;
/// Arrays in arrays; real files have none.
const DEEPEST: usize = 4;
/// Dimensions of a tensor.
const MOST_DIMENSIONS: u32 = 4;

/// What stands before the tensors of a GGUF file (version 2 or 3).
pub(super) struct Header {
    pub metadata: Metadata,
    pub tensors: Vec<TensorInfo>,
}

/// A tensor, its bytes checked to be in the file.
pub(super) struct TensorInfo {
    pub name: String,
    /// Outermost first; the file has them the other way round.
    pub shape: Vec<usize>,
    pub format: GgmlType,
    /// From the beginning of the file.
    pub offset: u64,
    pub len: usize,
}

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    /// Its length; what it holds is not kept.
    Array(u64),
}

/// The key-value pairs.
#[derive(Debug, Default)]
pub(super) struct Metadata(pub BTreeMap<String, Value>);

impl Metadata {
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.0.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn integer(&self, key: &str) -> Option<u64> {
        match self.0.get(key)? {
            Value::Unsigned(value) => Some(*value),
            Value::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    pub fn float(&self, key: &str) -> Option<f64> {
        match self.0.get(key)? {
            Value::Float(value) => Some(*value),
            _ => None,
        }
    }
}

/// A tensor as the table has it.
struct Row {
    name: String,
    shape: Vec<usize>,
    format: u32,
    offset: u64,
}

impl Header {
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io(path, error))?;
        let mut input = Input::new(file).map_err(|error| Error::io(path, error))?;
        let (metadata, rows) = parse(&mut input).map_err(|reason| damaged(path, reason))?;
        let alignment = match metadata.0.get("general.alignment") {
            None => ALIGNMENT,
            Some(_) => metadata.integer("general.alignment").unwrap_or(0),
        };
        if !alignment.is_power_of_two() || alignment > 1 << 20 {
            return Err(damaged(path, format!("general.alignment = {alignment}; it must be a power of two")));
        }
        let data = input.position().next_multiple_of(alignment);
        let mut tensors = Vec::with_capacity(rows.len());
        for row in rows {
            let format = GgmlType::from_id(row.format).ok_or_else(|| unread(path, &row))?;
            if !row.offset.is_multiple_of(alignment) {
                let reason = format!(
                    "tensor {} begins at {}, which is no multiple of {alignment}",
                    row.name, row.offset
                );
                return Err(damaged(path, reason));
            }
            tensors.push(place(row, format, data, input.size()).map_err(|reason| damaged(path, reason))?);
        }
        Ok(Self { metadata, tensors })
    }
}

fn unread(path: &Path, row: &Row) -> Error {
    WeightsError::GgmlType {
        path: path.to_path_buf(),
        tensor: row.name.clone(),
        found: type_name(row.format),
        known: GgmlType::names(),
    }
    .into()
}

fn parse(input: &mut Input) -> Parsed<(Metadata, Vec<Row>)> {
    if input.bytes::<4>()? != *b"GGUF" {
        return Err("not a GGUF file".into());
    }
    match input.u32()? {
        2 | 3 => {}
        version if version.swap_bytes() <= 3 => {
            return Err("the file is big-endian; little-endian ones are read".into());
        }
        version => return Err(format!("GGUF version {version}; 2 and 3 are read")),
    }
    let (tensors, pairs) = (input.u64()?, input.u64()?);
    let mut metadata = Metadata::default();
    for _ in 0..pairs {
        let key = input.text()?;
        let kind = input.u32()?;
        let value = value(input, kind, 0).map_err(|reason| format!("{key}: {reason}"))?;
        if metadata.0.insert(key.clone(), value).is_some() {
            return Err(format!("the key {key} comes twice"));
        }
    }
    let mut rows = Vec::new();
    let mut names = BTreeSet::new();
    for _ in 0..tensors {
        let row = table_row(input)?;
        if !names.insert(row.name.clone()) {
            return Err(format!("two tensors are called {}", row.name));
        }
        rows.push(row);
    }
    Ok((metadata, rows))
}

fn value(input: &mut Input, kind: u32, depth: usize) -> Parsed<Value> {
    Ok(match kind {
        0 => Value::Unsigned(input.bytes().map(u8::from_le_bytes)?.into()),
        1 => Value::Signed(input.bytes().map(i8::from_le_bytes)?.into()),
        2 => Value::Unsigned(input.bytes().map(u16::from_le_bytes)?.into()),
        3 => Value::Signed(input.bytes().map(i16::from_le_bytes)?.into()),
        4 => Value::Unsigned(input.u32()?.into()),
        5 => Value::Signed(input.bytes().map(i32::from_le_bytes)?.into()),
        6 => Value::Float(input.bytes().map(f32::from_le_bytes)?.into()),
        7 => Value::Bool(input.bytes::<1>()? != [0]),
        8 => Value::Text(input.text()?),
        9 => {
            let (kind, count) = (input.u32()?, input.u64()?);
            skip_array(input, kind, count, depth + 1)?;
            Value::Array(count)
        }
        10 => Value::Unsigned(input.u64()?),
        11 => Value::Signed(input.bytes().map(i64::from_le_bytes)?),
        12 => Value::Float(input.bytes().map(f64::from_le_bytes)?),
        other => return Err(format!("value type {other}; types go up to 12")),
    })
}

/// Vocabularies are arrays of hundred thousands, and the tokenizer comes from elsewhere.
fn skip_array(input: &mut Input, kind: u32, count: u64, depth: usize) -> Parsed<()> {
    if depth > DEEPEST {
        return Err(format!("arrays in more than {DEEPEST} arrays"));
    }
    let size = match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        8 => {
            for _ in 0..count {
                let len = input.u64()?;
                input.skip(len)?;
            }
            return Ok(());
        }
        _ => {
            for _ in 0..count {
                value(input, kind, depth)?;
            }
            return Ok(());
        }
    };
    input.skip(count.checked_mul(size).ok_or_else(|| format!("an array of {count} values"))?)
}

fn table_row(input: &mut Input) -> Parsed<Row> {
    let name = input.text()?;
    let dimensions = input.u32()?;
    if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
        return Err(format!("tensor {name} has {dimensions} dimensions; there are 1 to {MOST_DIMENSIONS}"));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        let extent = input.u64()?;
        shape.push(usize::try_from(extent).map_err(|_| format!("tensor {name} has an extent of {extent}"))?);
    }
    shape.reverse();
    Ok(Row { name, shape, format: input.u32()?, offset: input.u64()? })
}

/// Checks that the tensor is made of whole blocks and lies inside the file.
fn place(row: Row, format: GgmlType, data: u64, size: u64) -> Parsed<TensorInfo> {
    let Row { name, shape, offset, .. } = row;
    let width = shape.last().copied().unwrap_or(1);
    if !width.is_multiple_of(format.block_values()) {
        let block = format.block_values();
        return Err(format!(
            "tensor {name} has rows of {width} values, which are no whole {format} blocks of {block}"
        ));
    }
    // Biases and norms are floats in every file; rows of heads could not be told apart in blocks.
    if shape.len() == 1 && !format.is_float() {
        return Err(format!(
            "tensor {name} has one dimension and is of {format} blocks; it must be F32, F16 or BF16"
        ));
    }
    let rows =
        shape[..shape.len() - 1].iter().try_fold(1usize, |product, extent| product.checked_mul(*extent));
    let row_bytes = (width / format.block_values()).checked_mul(format.block_bytes());
    let len = rows.zip(row_bytes).and_then(|(rows, row_bytes)| rows.checked_mul(row_bytes));
    let len = len.filter(|len| *len <= isize::MAX as usize);
    let len = len.ok_or_else(|| format!("tensor {name} of shape {shape:?} is too large"))?;
    let start = data.checked_add(offset);
    let end = start.and_then(|start| start.checked_add(len as u64));
    match (start, end) {
        (Some(offset), Some(end)) if end <= size => Ok(TensorInfo { name, shape, format, offset, len }),
        _ => Err(format!("the file is cut: tensor {name} is not whole; fetch the file again")),
    }
}

/// A type that is not read, by name where it has one (`enum ggml_type`).
fn type_name(id: u32) -> String {
    let name = match id {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        other => return format!("number {other}"),
    };
    name.into()
}
