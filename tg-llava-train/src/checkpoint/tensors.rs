use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::error::BoxedError;
use super::{CheckpointError, Result, TensorProblem};

/// Bytes before the header: its length.
const PREFIX: u64 = 8;

/// Longest header that safetensors readers accept, in bytes.
const MAX_HEADER: u64 = 100_000_000;

type Values<'a> = Box<dyn Deref<Target = [u8]> + 'a>;

/// A tensor that is about to be written, fetched when its turn comes.
pub struct TensorSource<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    read: Box<dyn FnOnce() -> Result<Values<'a>, BoxedError> + 'a>,
}

impl<'a> TensorSource<'a> {
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
}

/// Writes a safetensors file with one tensor in memory at a time, in the order of safetensors: wide elements
/// first, then by name. Nothing is flushed to the disk: [`CheckpointStore::save`] does that for all files.
///
/// [`CheckpointStore::save`]: super::CheckpointStore::save
///
/// # Errors
/// Where the file cannot be written, a name comes twice, or a tensor's values cannot be had or do not fill
/// its shape. What was written so far stays.
pub fn write_tensors<'a>(path: &Path, tensors: impl IntoIterator<Item = TensorSource<'a>>) -> Result<()> {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
    let (header, total) = header_of(path, &tensors)?;
    let failed = |error| CheckpointError::io(path, error).with_needed(Some(total));
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
    file.write_all(&header).map_err(failed)?;
    for TensorSource { name, dtype, shape, read } in tensors {
        let wrong =
            |problem| CheckpointError::Tensor { path: path.to_path_buf(), name: name.clone(), problem };
        let expected = byte_len(dtype, &shape).map_err(wrong)? as u64;
        let values = read().map_err(|e| wrong(TensorProblem::Values(e)))?;
        let found = values.len() as u64;
        if found != expected {
            return Err(wrong(TensorProblem::Length { expected, found }));
        }
        file.write_all(&values).map_err(failed)?;
    }
    file.flush().map_err(failed)
}

/// The start of the file, and the bytes of the whole file.
fn header_of(path: &Path, tensors: &[TensorSource<'_>]) -> Result<(Vec<u8>, u64)> {
    let mut names = BTreeSet::new();
    let mut infos = Vec::with_capacity(tensors.len());
    let mut end = 0usize;
    for TensorSource { name, dtype, shape, .. } in tensors {
        let wrong =
            |problem| CheckpointError::Tensor { path: path.to_path_buf(), name: name.clone(), problem };
        if !names.insert(name) {
            return Err(wrong(TensorProblem::Duplicate));
        }
        let start = end;
        end = byte_len(*dtype, shape)
            .ok()
            .and_then(|bytes| start.checked_add(bytes))
            .ok_or_else(|| wrong(TensorProblem::TooLarge { shape: shape.clone() }))?;
        infos.push((
            name.clone(),
            TensorInfo { dtype: *dtype, shape: shape.clone(), data_offsets: (start, end) },
        ));
    }
    let unusable = |reason: String| CheckpointError::TensorHeader { path: path.to_path_buf(), reason };
    let metadata = Metadata::new(None, infos).map_err(|e| unusable(e.to_string()))?;
    let mut json = serde_json::to_vec(&metadata).map_err(|e| unusable(e.to_string()))?;
    json.resize(json.len().next_multiple_of(PREFIX as usize), b' ');
    let length = json.len() as u64;
    if length > MAX_HEADER {
        return Err(unusable(format!("a header of {length} bytes is longer than readers accept")));
    }
    let mut header = length.to_le_bytes().to_vec();
    header.append(&mut json);
    let total = (header.len() as u64).saturating_add(end as u64);
    Ok((header, total))
}

fn byte_len(dtype: Dtype, shape: &[usize]) -> Result<usize, TensorProblem> {
    let elements = shape.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent));
    let bits = elements.and_then(|elements| elements.checked_mul(dtype.bitsize()));
    bits.map(|bits| bits.div_ceil(8)).ok_or_else(|| TensorProblem::TooLarge { shape: shape.to_vec() })
}

/// A safetensors file that is read one tensor at a time.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    /// Where the tensors start in the file.
    start: u64,
    header: Metadata,
}

impl TensorFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// Where it cannot be read, or the header does not fit the file.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let io = |e| CheckpointError::io(&path, e);
        let unusable = |reason: String| CheckpointError::TensorHeader { path: path.clone(), reason };
        let mut file = File::open(&path).map_err(io)?;
        let total = file.metadata().map_err(io)?.len();
        if total < PREFIX {
            return Err(unusable(format!("{total} bytes are too few")));
        }
        let mut prefix = [0; PREFIX as usize];
        file.read_exact(&mut prefix).map_err(io)?;
        let length = u64::from_le_bytes(prefix);
        if length > MAX_HEADER.min(total - PREFIX) {
            return Err(unusable(format!("a header of {length} bytes in a file of {total}")));
        }
        let mut json = vec![0; length as usize];
        file.read_exact(&mut json).map_err(io)?;
        let header: Metadata = serde_json::from_slice(&json).map_err(|e| unusable(e.to_string()))?;
        let start = PREFIX + length;
        let (expected, found) = (header.data_len() as u64, total - start);
        if expected != found {
            return Err(unusable(format!("{found} bytes of tensors instead of {expected}")));
        }
        Ok(Self { path, file, start, header })
    }

    /// Names of all tensors, in the order of the file.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// Element type and shape of a tensor, if the file has it.
    pub fn layout(&self, name: &str) -> Option<(Dtype, &[usize])> {
        self.header.info(name).map(|info| (info.dtype, info.shape.as_slice()))
    }

    /// The little-endian bytes of a tensor that must have this element type and shape.
    ///
    /// # Errors
    /// Where the file does not have it, has it otherwise, or cannot be read.
    pub fn read(&mut self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Vec<u8>> {
        let wrong =
            |problem| CheckpointError::Tensor { path: self.path.clone(), name: name.to_owned(), problem };
        let info = self.header.info(name).ok_or_else(|| wrong(TensorProblem::Missing))?;
        if info.dtype != dtype || info.shape != shape {
            return Err(wrong(TensorProblem::Layout {
                expected: format!("{dtype} {shape:?}"),
                found: format!("{} {:?}", info.dtype, info.shape),
            }));
        }
        let (from, to) = info.data_offsets;
        let mut read = || -> io::Result<Vec<u8>> {
            self.file.seek(SeekFrom::Start(self.start + from as u64))?;
            let mut values = vec![0; to - from];
            self.file.read_exact(&mut values)?;
            Ok(values)
        };
        read().map_err(|e| CheckpointError::io(&self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use proptest::prelude::*;

    fn source<'a>(name: &str, dtype: Dtype, shape: &[usize], values: &'a [u8]) -> TensorSource<'a> {
        TensorSource::new(name, dtype, shape, move || Ok::<_, BoxedError>(values))
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("optimizer.safetensors");
        (folder, path)
    }

    #[test]
    fn our_files_are_read_by_safetensors_and_by_us() {
        let (_folder, path) = file();
        let moments: Vec<u8> = (0..24).collect();
        let tensors = [
            source("first/a", Dtype::F32, &[2, 3], &moments),
            source("rng", Dtype::U64, &[2], &moments[..16]),
            source("step", Dtype::I32, &[], &moments[4..8]),
            source("none", Dtype::F32, &[0, 5], &[]),
        ];
        write_tensors(&path, tensors).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(theirs.tensor("first/a").unwrap().data(), moments);
        assert_eq!(theirs.tensor("rng").unwrap().shape(), [2]);

        let mut ours = TensorFile::open(&path).unwrap();
        assert_eq!(ours.names()[0], "rng", "wide elements come first, so that all are aligned");
        assert_eq!(ours.layout("step"), Some((Dtype::I32, [0usize; 0].as_slice())));
        assert_eq!(ours.read("step", Dtype::I32, &[]).unwrap(), &moments[4..8]);
        assert_eq!(ours.read("first/a", Dtype::F32, &[2, 3]).unwrap(), moments);
        assert!(ours.read("none", Dtype::F32, &[0, 5]).unwrap().is_empty());
        let error = ours.read("first/a", Dtype::F32, &[3, 2]).unwrap_err().to_string();
        assert!(error.ends_with("tensor `first/a`: expected F32 [3, 2], found F32 [2, 3]"), "{error}");
        let error = ours.read("second/a", Dtype::F32, &[3, 2]).unwrap_err().to_string();
        assert!(error.ends_with("tensor `second/a`: not in the file"), "{error}");
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
            TensorSource::new(format!("t{at}"), Dtype::U8, [3], move || {
                alive.set(alive.get() + 1);
                most.set(most.get().max(alive.get()));
                Ok::<_, BoxedError>(Held(vec![at; 3], alive))
            })
        });
        write_tensors(&path, tensors).unwrap();
        assert_eq!((alive.get(), most.get()), (0, 1));
        assert_eq!(TensorFile::open(&path).unwrap().read("t4", Dtype::U8, &[3]).unwrap(), [4; 3]);
    }

    #[test]
    fn bad_tensors_are_named() {
        let (_folder, path) = file();
        let say = |tensors: Vec<TensorSource>| write_tensors(&path, tensors).unwrap_err().to_string();
        let twice = || source("a", Dtype::U8, &[1], &[1]);
        assert!(say(vec![twice(), twice()]).ends_with("tensor `a`: there are two of this name"));
        let short = say(vec![source("b", Dtype::F32, &[2], &[0; 4])]);
        assert!(short.ends_with("tensor `b`: its shape takes 8 bytes, but 4 were given"), "{short}");
        let large = say(vec![source("c", Dtype::F32, &[usize::MAX, 2], &[])]);
        assert!(large.contains("tensor `c`: shape") && large.ends_with("too large"), "{large}");
        let lost = TensorSource::new("d", Dtype::F32, [1], || Err::<Vec<u8>, _>("device lost"));
        assert!(say(vec![lost]).ends_with("tensor `d`: its values could not be read: device lost"));
    }

    /// Writing fails at once where the disk is full, be it the header or a tensor that does not fit.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_names_the_file_and_the_bytes() {
        let values = vec![0; 3_000_000];
        for count in [1, values.len()] {
            let tensor = source("a", Dtype::U8, &[count], &values[..count]);
            let error = write_tensors(Path::new("/dev/full"), [tensor]).unwrap_err();
            assert!(matches!(error, CheckpointError::DiskFull { .. }), "{error}");
            let text = error.to_string();
            let amount = if count == 1 { " bytes" } else { "3.1 MB" };
            assert!(text.starts_with("/dev/full: ") && text.contains(amount), "{text}");
        }
    }

    proptest! {
        /// No file makes us panic or ask for memory beyond the file's length.
        #[test]
        fn any_bytes_give_an_error_or_a_file(
            length in 0u64..200, json in "[{}\"a-z:,\\[\\]0-9]{0,80}", cut in 0usize..80,
        ) {
            let (_folder, path) = file();
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend_from_slice(json.as_bytes());
            bytes.truncate(cut);
            std::fs::write(&path, &bytes).unwrap();
            if let Err(error) = TensorFile::open(&path) {
                prop_assert!(error.to_string().contains("optimizer.safetensors"));
            }
        }

        #[test]
        fn a_cut_file_is_noticed(cut in 0usize..100) {
            let (_folder, path) = file();
            write_tensors(&path, [source("a", Dtype::U8, &[40], &[7; 40])]).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let cut = cut % bytes.len();
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let noticed = matches!(TensorFile::open(&path), Err(CheckpointError::TensorHeader { .. }));
            prop_assert!(noticed);
        }
    }
}
