//! Writes safetensors files with one tensor in memory at a time.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::error::BoxedError;
use super::{TensorProblem, WeightsError};
use crate::error::{Error, Result};

/// Longest header that safetensors readers accept, in bytes.
pub(super) const MAX_HEADER: u64 = 100_000_000;

/// Little-endian bytes of a tensor.
pub(super) type Values<'a> = Box<dyn Deref<Target = [u8]> + 'a>;

/// A tensor that is about to be written, fetched when its turn comes.
pub struct NewTensor<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    read: Box<dyn FnOnce() -> Result<Values<'a>, BoxedError> + 'a>,
}

impl<'a> NewTensor<'a> {
    /// A tensor of row-major `shape`; none of its extents for a scalar. `read` gives its little-endian bytes.
    pub fn new<B, E>(
        name: impl Into<String>,
        dtype: Dtype,
        shape: impl Into<Vec<usize>>,
        read: impl FnOnce() -> Result<B, E> + 'a,
    ) -> Self
    where
        B: Deref<Target = [u8]> + 'a,
        E: Into<BoxedError>,
    {
        let read = move || match read() {
            Ok(values) => Ok(Box::new(values) as Values<'a>),
            Err(error) => Err(error.into()),
        };
        Self { name: name.into(), dtype, shape: shape.into(), read: Box::new(read) }
    }

    /// Bytes of its values; `None` where a file cannot hold as many.
    pub fn byte_len(&self) -> Option<usize> {
        let elements = self.shape.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent))?;
        Some(elements.checked_mul(self.dtype.bitsize())?.div_ceil(8))
    }
}

/// Writes a safetensors file and flushes it to the disk; tensors stand in the order of safetensors, wide elements
/// first, then by name. `about` goes into the header as it is.
///
/// # Errors
/// Where the file cannot be written, a name comes twice, or a tensor's values cannot be had or do not fill
/// its shape. What was written so far stays.
pub fn write_safetensors<'a>(
    path: &Path,
    about: Option<HashMap<String, String>>,
    tensors: impl IntoIterator<Item = NewTensor<'a>>,
) -> Result<()> {
    NewFile::new(path, about, tensors)?.write()
}

/// A safetensors file that is about to be written.
pub(super) struct NewFile<'a> {
    path: PathBuf,
    /// Its first bytes, which say where each tensor is.
    pub header: Vec<u8>,
    /// In the order of the file.
    tensors: Vec<NewTensor<'a>>,
}

impl<'a> NewFile<'a> {
    /// # Errors
    /// Where a name comes twice, or a shape is too large for any file.
    pub fn new(
        path: &Path,
        about: Option<HashMap<String, String>>,
        tensors: impl IntoIterator<Item = NewTensor<'a>>,
    ) -> Result<Self> {
        let mut tensors: Vec<_> = tensors.into_iter().collect();
        tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
        let header = header_of(path, about, &tensors)?;
        Ok(Self { path: path.to_path_buf(), header, tensors })
    }

    /// Where it will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of all of it.
    pub fn byte_len(&self) -> u64 {
        let tensors = self.tensors.iter().filter_map(NewTensor::byte_len).sum::<usize>();
        (self.header.len() + tensors) as u64
    }

    /// Writes it and flushes it to the disk.
    ///
    /// # Errors
    /// As [`write_safetensors`].
    pub fn write(self) -> Result<()> {
        let path = self.path.clone();
        let failed = |error| Error::io(&path, error);
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(failed)?);
        file.write_all(&self.header).map_err(failed)?;
        for tensor in self.tensors() {
            file.write_all(&tensor.read()?).map_err(failed)?;
        }
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)
    }

    /// What follows the header.
    pub fn tensors(self) -> impl Iterator<Item = FileTensor<'a>> {
        self.tensors.into_iter().map(move |tensor| FileTensor { path: self.path.clone(), tensor })
    }
}

/// A tensor of a [`NewFile`].
pub(super) struct FileTensor<'a> {
    path: PathBuf,
    tensor: NewTensor<'a>,
}

impl<'a> FileTensor<'a> {
    /// Its bytes in the file.
    pub fn byte_len(&self) -> u64 {
        self.tensor.byte_len().unwrap_or(usize::MAX) as u64
    }

    /// Fetches its values.
    ///
    /// # Errors
    /// Where they cannot be had or do not fill its shape.
    pub fn read(self) -> Result<Values<'a>> {
        let expected = self.byte_len();
        let NewTensor { name, read, .. } = self.tensor;
        let wrong = |problem| WeightsError::Tensor { path: self.path, name, problem };
        let values = match read() {
            Ok(values) => values,
            Err(error) => return Err(wrong(TensorProblem::Values(error)).into()),
        };
        match values.len() as u64 {
            found if found == expected => Ok(values),
            found => Err(wrong(TensorProblem::Length { expected, found }).into()),
        }
    }
}

/// The start of the file: the header's length, and the header.
fn header_of(
    path: &Path,
    about: Option<HashMap<String, String>>,
    tensors: &[NewTensor<'_>],
) -> Result<Vec<u8>> {
    let mut names = BTreeSet::new();
    let mut infos = Vec::with_capacity(tensors.len());
    let mut end = 0usize;
    for tensor in tensors {
        let NewTensor { name, dtype, shape, .. } = tensor;
        let wrong = |problem| WeightsError::Tensor { path: path.to_path_buf(), name: name.clone(), problem };
        if !names.insert(name) {
            return Err(wrong(TensorProblem::Duplicate).into());
        }
        let start = end;
        end = tensor
            .byte_len()
            .and_then(|bytes| start.checked_add(bytes))
            .ok_or_else(|| wrong(TensorProblem::TooLarge { shape: shape.clone() }))?;
        let info = TensorInfo { dtype: *dtype, shape: shape.clone(), data_offsets: (start, end) };
        infos.push((name.clone(), info));
    }
    let unusable = |reason: String| WeightsError::Write { path: path.to_path_buf(), reason };
    let metadata = Metadata::new(about, infos).map_err(|e| unusable(e.to_string()))?;
    let mut json = serde_json::to_vec(&metadata).map_err(|e| unusable(e.to_string()))?;
    json.resize(json.len().next_multiple_of(size_of::<u64>()), b' ');
    let length = json.len() as u64;
    if length > MAX_HEADER {
        return Err(unusable(format!("a header of {length} bytes is longer than readers accept")).into());
    }
    let mut header = length.to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn tensor<'a>(name: &str, dtype: Dtype, shape: &[usize], values: &'a [u8]) -> NewTensor<'a> {
        NewTensor::new(name, dtype, shape, move || Ok::<_, BoxedError>(values))
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.safetensors");
        (folder, path)
    }

    #[test]
    fn files_equal_those_of_the_safetensors_crate() {
        let (_folder, path) = file();
        let bytes: Vec<u8> = (0..24).collect();
        let about = Some(HashMap::from([("format".to_owned(), "pt".to_owned())]));
        let rows = [
            ("first/a", Dtype::F32, vec![2, 3], &bytes[..]),
            ("rng", Dtype::U64, vec![2], &bytes[..16]),
            ("step", Dtype::I32, vec![], &bytes[4..8]),
            ("none", Dtype::F32, vec![0, 5], &[]),
            ("half", Dtype::BF16, vec![3], &bytes[..6]),
        ];
        let ours = rows.iter().map(|(name, dtype, shape, values)| tensor(name, *dtype, shape, values));
        write_safetensors(&path, about.clone(), ours).unwrap();
        let theirs = rows.iter().map(|(name, dtype, shape, values)| {
            (*name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), values).unwrap())
        });
        assert_eq!(std::fs::read(&path).unwrap(), safetensors::serialize(theirs, about).unwrap());
    }

    #[test]
    fn one_tensor_is_held_at_a_time() {
        struct Held<'a>(Vec<u8>, &'a Cell<usize>);
        impl Deref for Held<'_> {
            type Target = [u8];
            fn deref(&self) -> &[u8] {
                &self.0
            }
        }
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                self.1.set(self.1.get() - 1);
            }
        }
        let (_folder, path) = file();
        let (alive, most) = (Cell::new(0), Cell::new(0));
        let (alive, most) = (&alive, &most);
        let tensors = (0..5).map(|at| {
            NewTensor::new(format!("t{at}"), Dtype::U8, [3], move || {
                alive.set(alive.get() + 1);
                most.set(most.get().max(alive.get()));
                Ok::<_, BoxedError>(Held(vec![at; 3], alive))
            })
        });
        write_safetensors(&path, None, tensors).unwrap();
        assert_eq!((alive.get(), most.get()), (0, 1));
        let source = super::super::TensorSource::from_file(&path).unwrap();
        assert_eq!(source.get("t4").unwrap().bytes().unwrap(), [4; 3]);
    }

    #[test]
    fn bad_tensors_are_named() {
        let (_folder, path) = file();
        let say = |tensors: Vec<NewTensor>| write_safetensors(&path, None, tensors).unwrap_err().to_string();
        let twice = || tensor("a", Dtype::U8, &[1], &[1]);
        assert!(say(vec![twice(), twice()]).ends_with("tensor `a`: there are two of this name"));
        let short = say(vec![tensor("b", Dtype::F32, &[2], &[0; 4])]);
        assert!(short.ends_with("tensor `b`: its shape takes 8 bytes, but 4 were given"), "{short}");
        let large = say(vec![tensor("c", Dtype::F32, &[usize::MAX, 2], &[])]);
        assert!(large.contains("tensor `c`: shape") && large.ends_with("too large"), "{large}");
        let lost = NewTensor::new("d", Dtype::F32, [1], || Err::<Vec<u8>, _>("device lost"));
        assert!(say(vec![lost]).ends_with("tensor `d`: its values could not be read: device lost"));
    }
}
