//! Files whose bytes are used where the system keeps them, and not read into memory of one's own.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::TensorSource;
use super::stored::Bytes as Stored;

/// All bytes of a file, where they are. A program has it from the system (`mmap`); this library forbids itself the `unsafe` that
/// it takes: what a file is changed to meanwhile, in its place, changes under whoever reads it.
pub type MapFile = fn(&File) -> std::io::Result<Bytes>;

impl TensorSource {
    /// Shows the files' tensors where `map` has them: those whose values need no conversion are then no memory of the program's own.
    /// What cannot be shown is read.
    pub(super) fn map_files(&mut self, map: MapFile) {
        let mut files: BTreeMap<Arc<PathBuf>, Option<Bytes>> = BTreeMap::new();
        for tensor in self.tensors_mut() {
            let Stored::Plain { offset, len } = tensor.bytes else { continue };
            let path = &tensor.path;
            let open = || File::open(&**path).and_then(|file| map(&file)).ok();
            let Some(file) = files.entry(Arc::clone(path)).or_insert_with(open) else { continue };
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            if start.checked_add(len).is_some_and(|end| end <= file.len()) {
                tensor.bytes = Stored::Mapped(file.slice(start..start + len));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;
    use safetensors::Dtype;

    use super::super::convert::read_as;
    use super::super::{NewTensor, StoredTensor, write_safetensors};
    use super::*;

    fn read_whole(file: &File) -> std::io::Result<Bytes> {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut &*file, &mut bytes)?;
        Ok(bytes.into())
    }

    fn refuse(_: &File) -> std::io::Result<Bytes> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn shortened(file: &File) -> std::io::Result<Bytes> {
        Ok(read_whole(file)?.slice(..100))
    }

    #[test]
    fn tensors_are_the_same_wherever_their_bytes_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.safetensors");
        let bytes: Vec<u8> = (0..4_000_000u32).map(|i| (i * 7 % 120) as u8).collect();
        let tensor = |name: &str, dtype, columns| {
            let bytes = bytes.clone();
            let read = move || Ok::<_, std::convert::Infallible>(bytes.clone());
            NewTensor::new(name, dtype, [1000, columns], read)
        };
        let both = [tensor("half", Dtype::F16, 2000), tensor("single", Dtype::F32, 1000)];
        write_safetensors(&path, None, both).unwrap();
        let read = TensorSource::from_file(&path).unwrap();
        for (map, shows) in [(read_whole as MapFile, true), (refuse, false), (shortened, false)] {
            let mut mapped = TensorSource::from_file(&path).unwrap();
            mapped.map_files(map);
            let is_mapped = |tensor: &StoredTensor| matches!(tensor.bytes, Stored::Mapped(_));
            assert_eq!(mapped.iter().all(|(_, tensor)| is_mapped(tensor)), shows);
            for (key, stored) in read.iter() {
                let mapped = mapped.get(key).unwrap();
                assert_eq!(stored.byte_len(), mapped.byte_len());
                assert!(
                    stored.equals(mapped).unwrap()
                        && stored.rows(3, 500).equals(&mapped.rows(3, 500)).unwrap()
                );
                for dtype in [DType::F16, DType::F32] {
                    assert!(read_as(stored, dtype).unwrap() == read_as(mapped, dtype).unwrap(), "{key}");
                }
            }
        }
    }
}
