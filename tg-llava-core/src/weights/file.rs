use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pytorch_reader::PytorchReader;
use safetensors::tensor::{Metadata, TensorInfo};

use super::WeightsError;
use super::write::MAX_HEADER;
use crate::error::{Error, Result, shortened};

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

impl StoredDType {
    /// Bytes of one value; 0 for what is no float.
    pub(super) fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Other => 0,
        }
    }
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
    /// At this offset of the file.
    Plain {
        offset: u64,
        len: usize,
    },
    Pytorch(Arc<pytorch_reader::Tensor>),
    /// Some of another tensor's bytes.
    Within {
        whole: Box<StoredTensor>,
        skip: usize,
        len: usize,
    },
}

/// Bytes that are read at once; a multiple of every element size.
const CHUNK: usize = 1 << 20;

impl StoredTensor {
    /// Number of elements.
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Rows `first..first + count` along the outermost extent of floats, as a tensor of their own; no other bytes are read for it.
    ///
    /// # Panics
    /// Where there are not as many rows.
    pub fn rows(&self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.shape[0], "rows {first}..{} of {:?}", first + count, self.shape);
        let row = self.shape[1..].iter().product::<usize>() * self.dtype.size();
        let (skip, len) = (first * row, count * row);
        let bytes = match &self.bytes {
            Bytes::Plain { offset, .. } => Bytes::Plain { offset: offset + skip as u64, len },
            _ => Bytes::Within { whole: Box::new(self.clone()), skip, len },
        };
        let mut shape = self.shape.clone();
        shape[0] = count;
        Self { shape, bytes, ..self.clone() }
    }

    /// The same values along one extent.
    pub(super) fn in_a_row(&self) -> Self {
        Self { shape: vec![self.num_elements()], ..self.clone() }
    }

    /// Whether [`StoredTensor::rows`] reads no more than those rows.
    pub(super) fn is_cut_cheaply(&self) -> bool {
        matches!(self.bytes, Bytes::Plain { .. })
    }

    /// The raw little-endian bytes.
    ///
    /// # Errors
    /// [`WeightsError::Damaged`] where the file cannot give them.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        self.read_chunks(|chunk| all.extend_from_slice(chunk))?;
        Ok(all)
    }

    /// Whether both are of one type and shape and hold the same bytes.
    ///
    /// # Errors
    /// [`WeightsError::Damaged`] where a file cannot give them.
    pub(super) fn equals(&self, other: &Self) -> Result<bool> {
        Ok(self.dtype == other.dtype && self.shape == other.shape && self.bytes()? == other.bytes()?)
    }

    /// Checks the bytes as far as their file says what they must be: a PyTorch file's storages against their sizes
    /// and checksums. A safetensors file has no checksums; its header is checked when it is opened.
    ///
    /// # Errors
    /// [`WeightsError::Damaged`] where they are not.
    pub fn verify(&self) -> Result<()> {
        match &self.bytes {
            Bytes::Plain { .. } => Ok(()),
            Bytes::Pytorch(_) | Bytes::Within { .. } => self.read_chunks(|_| ()),
        }
    }

    /// Calls `take` with the raw little-endian bytes in order, whole elements at a time. A safetensors file
    /// never has more than a chunk in memory.
    ///
    /// # Errors
    /// [`WeightsError::Damaged`] where the file cannot give them.
    pub fn read_chunks(&self, mut take: impl FnMut(&[u8])) -> Result<()> {
        self.give_chunks(&mut take)
    }

    fn give_chunks(&self, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        let fail = |e: std::io::Error| damaged(&self.path, format!("{}: {e}", self.key));
        match &self.bytes {
            Bytes::Plain { offset, len } => {
                let mut file = File::open(&*self.path).map_err(fail)?;
                file.seek(SeekFrom::Start(*offset)).map_err(fail)?;
                let mut buffer = vec![0; CHUNK.min(*len)];
                let mut left = *len;
                while left > 0 {
                    let part = &mut buffer[..CHUNK.min(left)];
                    file.read_exact(part).map_err(fail)?;
                    take(part);
                    left -= part.len();
                }
            }
            Bytes::Pytorch(tensor) => take(&tensor.read().map_err(fail)?),
            Bytes::Within { whole, skip, len } => {
                let (mut passed, end) = (0, skip + len);
                whole.give_chunks(&mut |chunk| {
                    let from = skip.saturating_sub(passed).min(chunk.len());
                    let to = end.saturating_sub(passed).min(chunk.len());
                    take(&chunk[from..to]);
                    passed += chunk.len();
                })?;
            }
        }
        Ok(())
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
    WeightsError::Damaged { path: path.to_path_buf(), reason: shortened(&reason) }.into()
}

fn open_safetensors(path: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    let (data, metadata) = read_header(path)?;
    let path = Arc::new(path.to_path_buf());
    let tensor = |(key, info): (String, &TensorInfo)| {
        let (start, end) = info.data_offsets;
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
            bytes: Bytes::Plain { offset: data + start as u64, len: end - start },
        };
        (key, stored)
    };
    Ok(metadata.tensors().into_iter().map(tensor).collect())
}

/// Where the data begins, and what the header says of it; checked against the size of the file.
fn read_header(path: &Path) -> Result<(u64, Metadata)> {
    let io = |e| Error::io(path, e);
    let mut file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if size < 8 {
        return Err(damaged(path, format!("{size} bytes is too short for a safetensors file")));
    }
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix).map_err(io)?;
    let header_len = u64::from_le_bytes(prefix);
    if header_len > MAX_HEADER.min(size - 8) {
        let reason =
            format!("not a valid safetensors file, or cut: a header of {header_len} bytes in {size}");
        return Err(damaged(path, reason));
    }
    let mut header = Vec::new();
    file.take(header_len).read_to_end(&mut header).map_err(io)?;
    // Parsing also checks that the tensors lie behind each other and that shapes and sizes agree.
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|e| damaged(path, format!("not a valid safetensors file: {e}")))?;
    let (data, available) = (8 + header_len, size - 8 - header_len);
    let needed = metadata.data_len() as u64;
    if needed == available {
        return Ok((data, metadata));
    }
    let mut beyond: Vec<(usize, String)> = metadata
        .tensors()
        .into_iter()
        .filter(|(_, info)| info.data_offsets.1 as u64 > available)
        .map(|(key, info)| (info.data_offsets.0, key))
        .collect();
    beyond.sort();
    let reason = match beyond.first() {
        Some((_, key)) => format!(
            "the file is cut: tensor {key} is not whole, since {available} of {needed} bytes of data are there; fetch the file again"
        ),
        None => format!("{available} bytes of data are there, but the header describes {needed}"),
    };
    Err(damaged(path, reason))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{NewTensor, write_safetensors};
    use super::*;

    proptest! {
        /// No file makes us panic or ask for memory beyond the file's length.
        #[test]
        fn any_bytes_give_an_error_or_a_file(
            length in 0u64..200, json in "[{}\"a-z:,\\[\\]0-9]{0,80}", cut in 0usize..80,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("some.safetensors");
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend_from_slice(json.as_bytes());
            bytes.truncate(cut);
            std::fs::write(&path, &bytes).unwrap();
            if let Err(error) = open_file(&path) {
                prop_assert!(error.to_string().contains("some.safetensors"));
            }
        }

        #[test]
        fn a_cut_file_is_noticed(cut in 0usize..100) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("some.safetensors");
            let read = || Ok::<_, std::convert::Infallible>(vec![7; 40]);
            write_safetensors(&path, None, [NewTensor::new("a", safetensors::Dtype::U8, [40], read)]).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let cut = cut % bytes.len();
            std::fs::write(&path, &bytes[..cut]).unwrap();
            prop_assert!(open_file(&path).is_err());
        }
    }
}
