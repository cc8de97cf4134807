//! A tensor of a file, with its bytes not yet read.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{WeightsError, convert};
use crate::error::{Error, Result, shortened};
use crate::quant::bnb::FourBitKind;
use crate::quant::ggml::GgmlType;

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
    /// Blocks of a GGUF file; each row is made of whole blocks.
    Ggml(GgmlType),
    /// Four bits of bitsandbytes.
    FourBit(FourBitKind),
    /// Eight bits of bitsandbytes, with a scale for each row.
    Int8,
    /// Anything that is no weight: buffers such as `position_ids`.
    Other,
}

impl StoredDType {
    /// Bytes of a row of so many values; 0 where they are not in one place, or no floats.
    pub(super) fn row_bytes(self, values: usize) -> usize {
        match self {
            Self::F64 => 8 * values,
            Self::F32 => 4 * values,
            Self::F16 | Self::BF16 => 2 * values,
            Self::Ggml(format) => format.row_bytes(values),
            Self::FourBit(_) | Self::Int8 | Self::Other => 0,
        }
    }

    /// Whether values have to be computed from codes and scales.
    pub fn is_quantised(self) -> bool {
        matches!(self, Self::Ggml(_) | Self::FourBit(_) | Self::Int8)
    }
}

/// One tensor of a file, with its bytes not yet read.
#[derive(Debug, Clone)]
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
    pub(super) bytes: Bytes,
}

/// Where a tensor's bytes are.
#[derive(Debug, Clone)]
pub(super) enum Bytes {
    /// At this offset of the file.
    Plain {
        offset: u64,
        len: usize,
    },
    /// These.
    Mapped(bytes::Bytes),
    Pytorch(Arc<pytorch_reader::Tensor>),
    /// Some of another tensor's bytes.
    Within {
        whole: Box<StoredTensor>,
        skip: usize,
        len: usize,
    },
    /// Rows of heads whose two halves the file interleaves.
    Interleaved {
        offset: u64,
        len: usize,
        head_bytes: usize,
        row_bytes: usize,
    },
    /// Several tensors of files that are one tensor of the model, from its value number `first` on.
    Parts {
        parts: Arc<[StoredTensor]>,
        first: usize,
    },
}

/// Bytes that are read at once; a multiple of every float's size.
const CHUNK: usize = 1 << 20;

impl StoredTensor {
    /// Number of values.
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Rows `first..first + count` along the outermost extent of weights, as a tensor of their own; of floats and blocks, no other
    /// bytes are read for it.
    ///
    /// # Panics
    /// Where there are not as many rows.
    pub fn rows(&self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.shape[0], "rows {first}..{} of {:?}", first + count, self.shape);
        let values = self.shape[1..].iter().product::<usize>();
        let row = self.dtype.row_bytes(values);
        let (skip, len) = (first * row, count * row);
        let bytes = match &self.bytes {
            Bytes::Plain { offset, .. } => Bytes::Plain { offset: offset + skip as u64, len },
            Bytes::Mapped(all) => Bytes::Mapped(all.slice(skip..skip + len)),
            Bytes::Parts { parts, first: before } => {
                Bytes::Parts { parts: parts.clone(), first: before + first * values }
            }
            _ => Bytes::Within { whole: Box::new(self.clone()), skip, len },
        };
        let mut shape = self.shape.clone();
        shape[0] = count;
        Self { shape, bytes, ..self.clone() }
    }

    /// Bytes in the file, its scales and the like included.
    pub fn byte_len(&self) -> u64 {
        match &self.bytes {
            Bytes::Plain { len, .. } | Bytes::Within { len, .. } | Bytes::Interleaved { len, .. } => {
                *len as u64
            }
            Bytes::Mapped(all) => all.len() as u64,
            Bytes::Pytorch(tensor) => {
                (tensor.shape().iter().product::<usize>() * tensor.dtype().size()) as u64
            }
            Bytes::Parts { parts, .. } => parts.iter().map(Self::byte_len).sum(),
        }
    }

    /// Puts the files that its bytes are in into `files`.
    pub(super) fn add_files(&self, files: &mut BTreeSet<PathBuf>) {
        files.insert(self.path.to_path_buf());
        match &self.bytes {
            Bytes::Parts { parts, .. } => parts.iter().for_each(|part| part.add_files(files)),
            Bytes::Within { whole, .. } => whole.add_files(files),
            Bytes::Plain { .. } | Bytes::Mapped(_) | Bytes::Pytorch(_) | Bytes::Interleaved { .. } => {}
        }
    }

    /// Calls `take` with the values in order, in f32 and a piece at a time. Quantised ones are computed on the way.
    ///
    /// # Errors
    /// [`WeightsError::DType`] for what is no weight, [`WeightsError::Damaged`] and [`WeightsError::Tensor`] where the file cannot
    /// give them.
    pub fn read_values(&self, mut take: impl FnMut(&[f32])) -> Result<()> {
        convert::read_values(self, &mut take)
    }

    /// The same values along one extent.
    pub(super) fn in_a_row(&self) -> Self {
        Self { shape: vec![self.num_elements()], ..self.clone() }
    }

    /// Whether [`StoredTensor::rows`] reads no more than those rows.
    pub(super) fn is_cut_cheaply(&self) -> bool {
        matches!(self.bytes, Bytes::Plain { .. } | Bytes::Mapped(_))
    }

    /// The raw little-endian bytes; those of all parts, one after the other, where it has several.
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
            Bytes::Plain { .. } | Bytes::Mapped(_) | Bytes::Interleaved { .. } => Ok(()),
            Bytes::Pytorch(_) | Bytes::Within { .. } | Bytes::Parts { .. } => self.read_chunks(|_| ()),
        }
    }

    /// Calls `take` with the raw little-endian bytes in order, whole values at a time, and of blocks whole rows. A safetensors file
    /// never has more than a chunk in memory.
    ///
    /// # Errors
    /// [`WeightsError::Damaged`] where the file cannot give them.
    pub fn read_chunks(&self, mut take: impl FnMut(&[u8])) -> Result<()> {
        self.give_chunks(&mut take)
    }

    /// Fills `to` with the raw little-endian bytes, and calls `look` with each piece of them while it is in the cache.
    ///
    /// # Errors
    /// [`WeightsError::Damaged`] where the file cannot give them.
    ///
    /// # Panics
    /// Where `to` is shorter.
    pub(super) fn read_into(&self, to: &mut [u8], mut look: impl FnMut(&[u8])) -> Result<()> {
        let Bytes::Plain { offset, .. } = &self.bytes else {
            let mut done = 0;
            return self.read_chunks(|chunk| {
                to[done..done + chunk.len()].copy_from_slice(chunk);
                done += chunk.len();
                look(chunk);
            });
        };
        let mut read = || {
            let mut file = self.open_at(*offset)?;
            for part in to.chunks_mut(CHUNK) {
                file.read_exact(part)?;
                look(part);
            }
            Ok(())
        };
        read().map_err(|e| self.unreadable(e))
    }

    fn open_at(&self, offset: u64) -> std::io::Result<File> {
        let mut file = File::open(&*self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file)
    }

    fn unreadable(&self, error: std::io::Error) -> Error {
        damaged(&self.path, format!("{}: {error}", self.key))
    }

    fn give_chunks(&self, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        let fail = |e| self.unreadable(e);
        match &self.bytes {
            Bytes::Plain { offset, len } => {
                self.read_range(*offset, *len, self.chunk(), take).map_err(fail)?;
            }
            Bytes::Mapped(all) => all.chunks(self.chunk()).for_each(take),
            Bytes::Interleaved { offset, len, head_bytes, row_bytes } => {
                let mut halves = vec![0; *head_bytes];
                let apart = &mut |head: &[u8]| {
                    let (first, second) = halves.split_at_mut(head_bytes / 2);
                    let rows = first.chunks_mut(*row_bytes).zip(second.chunks_mut(*row_bytes));
                    for ((first, second), pair) in rows.zip(head.chunks(2 * row_bytes)) {
                        first.copy_from_slice(&pair[..*row_bytes]);
                        second.copy_from_slice(&pair[*row_bytes..]);
                    }
                    take(&halves);
                };
                self.read_range(*offset, *len, *head_bytes, apart).map_err(fail)?;
            }
            Bytes::Parts { parts, .. } => parts.iter().try_for_each(|part| part.give_chunks(take))?,
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

    /// Bytes that are given at once.
    fn chunk(&self) -> usize {
        match self.dtype {
            StoredDType::Ggml(format) => {
                let row = format.row_bytes(self.shape.last().copied().unwrap_or(1)).max(1);
                (CHUNK / row).max(1) * row
            }
            _ => CHUNK,
        }
    }

    /// Calls `take` with `len` bytes of the file from `offset` on, `chunk` at a time.
    fn read_range(
        &self,
        offset: u64,
        len: usize,
        chunk: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> std::io::Result<()> {
        let mut file = self.open_at(offset)?;
        let mut buffer = vec![0; chunk.min(len)];
        let mut left = len;
        while left > 0 {
            let part = &mut buffer[..chunk.min(left)];
            file.read_exact(part)?;
            take(part);
            left -= part.len();
        }
        Ok(())
    }
}

pub(super) fn damaged(path: &Path, reason: String) -> Error {
    WeightsError::Damaged { path: path.to_path_buf(), reason: shortened(&reason) }.into()
}
