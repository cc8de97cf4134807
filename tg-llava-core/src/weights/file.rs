//! Weights files as the tensors that they hold.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use pytorch_reader::PytorchReader;
use safetensors::tensor::{Metadata, TensorInfo};

use super::gguf::Gguf;
use super::stored::{Bytes, damaged};
use super::write::MAX_HEADER;
use super::{StoredDType, StoredTensor};
use crate::error::{Error, Result};

/// Opens a weights file: safetensors, GGUF, or a PyTorch pickle (`.bin`, `.pt`, `.pth`).
pub(super) fn open_file(path: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("safetensors") => open_safetensors(path),
        Some("gguf") => Ok(Gguf::open(path)?.into_tensors()),
        _ => open_pytorch(path),
    }
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
