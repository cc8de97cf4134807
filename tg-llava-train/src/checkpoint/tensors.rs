//! The optimizer's tensors, in safetensors files that the library writes and reads.

use std::ops::Range;
use std::path::{Path, PathBuf};

use tg_llava_core::weights::{
    StoredTensor, TensorProblem, TensorSource as Stored, WeightsError, write_safetensors,
};

pub use tg_llava_core::weights::NewTensor as TensorSource;

use super::{CheckpointError, Dtype, Result};

/// Writes a safetensors file with one tensor in memory at a time; see [`write_safetensors`].
///
/// # Errors
/// Where the file cannot be written, a name comes twice, or a tensor's values cannot be had or do not fill
/// its shape. What was written so far stays.
pub fn write_tensors<'a>(path: &Path, tensors: impl IntoIterator<Item = TensorSource<'a>>) -> Result<()> {
    let tensors: Vec<_> = tensors.into_iter().collect();
    let bytes = tensors.iter().filter_map(TensorSource::byte_len).fold(0, usize::saturating_add);
    let written = write_safetensors(path, None, tensors);
    written.map_err(|error| CheckpointError::from(error).with_needed(Some(bytes as u64)))
}

/// A safetensors file that is read one tensor at a time.
pub struct TensorFile {
    path: PathBuf,
    tensors: Stored,
}

impl TensorFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// Where it cannot be read, or the header does not fit the file.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let tensors = Stored::from_file(&path)?;
        Ok(Self { path, tensors })
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        self.tensors.iter().map(|(name, _)| name.to_owned()).collect()
    }

    /// Element type, as safetensors spells it, and shape of a tensor, if the file has it.
    pub fn layout(&self, name: &str) -> Option<(&str, &[usize])> {
        self.tensors.get(name).map(|stored| (stored.dtype_name.as_str(), stored.shape.as_slice()))
    }

    /// The little-endian bytes of a tensor that must have this element type and shape.
    ///
    /// # Errors
    /// Where the file does not have it, has it otherwise, or cannot be read.
    pub fn read(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Vec<u8>> {
        Ok(self.find(name, dtype, shape)?.bytes()?)
    }

    /// The same of some rows of it, of which no others are read.
    ///
    /// # Errors
    /// As [`Self::read`].
    ///
    /// # Panics
    /// Where `shape` has no such rows.
    pub fn read_rows(
        &self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        rows: Range<usize>,
    ) -> Result<Vec<u8>> {
        Ok(self.find(name, dtype, shape)?.rows(rows.start, rows.len()).bytes()?)
    }

    fn find(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&StoredTensor> {
        let wrong =
            |problem| WeightsError::Tensor { path: self.path.clone(), name: name.to_owned(), problem };
        let stored = self.tensors.get(name).ok_or_else(|| wrong(TensorProblem::Missing));
        let stored = stored.map_err(tg_llava_core::Error::from)?;
        if stored.dtype_name != dtype.to_string() || stored.shape != shape {
            let expected = format!("{dtype} {shape:?}");
            let found = format!("{} {:?}", stored.dtype_name, stored.shape);
            return Err(tg_llava_core::Error::from(wrong(TensorProblem::Layout { expected, found })).into());
        }
        Ok(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::BoxedError;
    use super::*;

    fn source<'a>(name: &str, dtype: Dtype, shape: &[usize], values: &'a [u8]) -> TensorSource<'a> {
        TensorSource::new(name, dtype, shape, move || Ok::<_, BoxedError>(values))
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("optimizer.safetensors");
        (folder, path)
    }

    #[test]
    fn what_is_written_is_read_and_checked() {
        let (_folder, path) = file();
        let moments: Vec<u8> = (0..24).collect();
        let tensors = [
            source("first/a", Dtype::F32, &[2, 3], &moments),
            source("rng", Dtype::U64, &[2], &moments[..16]),
            source("step", Dtype::I32, &[], &moments[4..8]),
            source("none", Dtype::F32, &[0, 5], &[]),
        ];
        write_tensors(&path, tensors).unwrap();
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.names(), ["first/a", "none", "rng", "step"]);
        assert_eq!(file.layout("step"), Some(("I32", [0usize; 0].as_slice())));
        assert_eq!(file.read("step", Dtype::I32, &[]).unwrap(), &moments[4..8]);
        assert_eq!(file.read("first/a", Dtype::F32, &[2, 3]).unwrap(), moments);
        assert!(file.read("none", Dtype::F32, &[0, 5]).unwrap().is_empty());
        let error = file.read("first/a", Dtype::F32, &[3, 2]).unwrap_err().to_string();
        assert!(error.ends_with("tensor `first/a`: expected F32 [3, 2], found F32 [2, 3]"), "{error}");
        let error = file.read("second/a", Dtype::F32, &[3, 2]).unwrap_err().to_string();
        assert!(error.ends_with("tensor `second/a`: not in the file"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_names_the_file_and_the_bytes() {
        let values = vec![0; 3_000_000];
        for (count, amount) in [(1, "1 bytes"), (values.len(), "3.0 MB")] {
            let tensor = source("a", Dtype::U8, &[count], &values[..count]);
            let error = write_tensors(Path::new("/dev/full"), [tensor]).unwrap_err();
            assert!(matches!(error, CheckpointError::DiskFull { .. }), "{error}");
            let text = error.to_string();
            assert!(text.starts_with("/dev/full: ") && text.contains(amount), "{text}");
        }
    }
}
