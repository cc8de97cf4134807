use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use pytorch_reader::PytorchReader;
use safetensors::tensor::{SafeTensorError, SafeTensors, TensorInfo};

use super::WeightsError;
use crate::error::{Error, Result};

/// Element types that checkpoints hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoredDType {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// bfloat16.
    BF16,
    /// Anything that is not a float: buffers such as `position_ids`.
    Other,
}

/// One tensor of a file, with its bytes not yet read.
#[derive(Clone)]
pub struct StoredTensor {
    /// The file.
    pub path: Arc<PathBuf>,
    /// Key in the file.
    pub key: String,
    /// Element type.
    pub dtype: StoredDType,
    /// Element type as the file spells it.
    pub dtype_name: String,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    bytes: Bytes,
}

#[derive(Clone)]
enum Bytes {
    Mapped { map: Arc<Mmap>, start: usize, end: usize },
    Pytorch(Arc<pytorch_reader::Tensor>),
}

impl StoredTensor {
    /// Number of elements.
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The raw little-endian bytes.
    ///
    /// # Errors
    /// [`WeightsError::Damaged`] where the file cannot give them.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        match &self.bytes {
            Bytes::Mapped { map, start, end } => Ok(Cow::Borrowed(&map[*start..*end])),
            Bytes::Pytorch(tensor) => tensor.read().map(Cow::Owned).map_err(|e| {
                let reason = format!("{}: {e}", self.key);
                WeightsError::Damaged { path: self.path.to_path_buf(), reason }.into()
            }),
        }
    }
}

/// Opens a weights file: safetensors, or a PyTorch pickle (`.bin`, `.pt`, `.pth`).
pub(super) fn open_file(path: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("safetensors") => open_safetensors(path),
        _ => open_pytorch(path),
    }
}

fn damaged(path: &Path, reason: String) -> Error {
    WeightsError::Damaged { path: path.to_path_buf(), reason }.into()
}

#[expect(unsafe_code, reason = "memory-mapping: weights of many GB are read tensor by tensor without a copy")]
fn map_file(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the map is read-only; another process that truncates the file meanwhile would fault, as with
    // every reader of mapped weights.
    unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))
}

fn open_safetensors(path: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if size < 8 {
        return Err(damaged(path, format!("{size} bytes is too short for a safetensors file")));
    }
    let map = map_file(path)?;
    let (header_len, metadata) = SafeTensors::read_metadata(&map).map_err(|e| match e {
        SafeTensorError::MetadataIncompleteBuffer => damaged(path, cut_reason(&map)),
        other => damaged(path, format!("not a valid safetensors file: {other}")),
    })?;
    let (map, path, data) = (Arc::new(map), Arc::new(path.to_path_buf()), 8 + header_len);
    let tensor = |(key, info): (String, &TensorInfo)| {
        let (start, end) = (data + info.data_offsets.0, data + info.data_offsets.1);
        let stored = StoredTensor {
            path: path.clone(),
            key: key.clone(),
            dtype: match info.dtype {
                safetensors::Dtype::F64 => StoredDType::F64,
                safetensors::Dtype::F32 => StoredDType::F32,
                safetensors::Dtype::F16 => StoredDType::F16,
                safetensors::Dtype::BF16 => StoredDType::BF16,
                _ => StoredDType::Other,
            },
            dtype_name: format!("{:?}", info.dtype),
            shape: info.shape.clone(),
            bytes: Bytes::Mapped { map: map.clone(), start, end },
        };
        (key, stored)
    };
    Ok(metadata.tensors().into_iter().map(tensor).collect())
}

/// Says which tensor a cut file ends in.
fn cut_reason(map: &[u8]) -> String {
    let first_cut = || -> Option<String> {
        let header_len = usize::try_from(u64::from_le_bytes(map.get(..8)?.try_into().ok()?)).ok()?;
        let data = map.get(8..8usize.checked_add(header_len)?)?;
        let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(data).ok()?;
        let available = (map.len() - 8 - header_len) as u64;
        let beyond = header.iter().filter_map(|(key, info)| {
            let offsets = info.get("data_offsets")?.as_array()?;
            let (start, end) = (offsets.first()?.as_u64()?, offsets.get(1)?.as_u64()?);
            (end > available).then_some((start, end, key))
        });
        let (_, end, key) = beyond.min()?;
        Some(format!(
            "the file is cut: tensor {key} ends at byte {end} of the data, but only {available} are there; fetch the file again"
        ))
    };
    first_cut().unwrap_or_else(|| "the tensors do not fill the file as its header says".into())
}

fn open_pytorch(path: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    let reader =
        PytorchReader::new(path).map_err(|e| damaged(path, format!("not a readable PyTorch file: {e}")))?;
    let path = Arc::new(path.to_path_buf());
    let tensor = |(key, tensor): (String, pytorch_reader::Tensor)| {
        let stored = StoredTensor {
            path: path.clone(),
            key: key.clone(),
            dtype: match tensor.dtype() {
                pytorch_reader::DType::F64 => StoredDType::F64,
                pytorch_reader::DType::F32 => StoredDType::F32,
                pytorch_reader::DType::F16 => StoredDType::F16,
                pytorch_reader::DType::BF16 => StoredDType::BF16,
                _ => StoredDType::Other,
            },
            dtype_name: format!("{:?}", tensor.dtype()),
            shape: tensor.shape().to_vec(),
            bytes: Bytes::Pytorch(Arc::new(tensor)),
        };
        (key, stored)
    };
    Ok(reader.into_tensors().into_iter().map(tensor).collect())
}
