//! Writes PyTorch files (`torch.save`'s zip form), which the reference's own code reads stage-1 weights from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use burn::tensor::DType;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::save::PendingTensor;
use crate::error::{Error, Result};

/// `torch.save` aligns tensors to this many bytes, so that they can be mapped into memory.
const ALIGNMENT: u16 = 64;

/// Writes `tensors` as a state dict, one at a time, and flushes it to the disk.
pub(super) fn write_state_dict(path: &Path, tensors: &BTreeMap<String, PendingTensor>) -> Result<()> {
    write(path, tensors).map_err(|source| Error::io(path, source))
}

fn write(path: &Path, tensors: &BTreeMap<String, PendingTensor>) -> std::io::Result<()> {
    let mut zip = ZipWriter::new(BufWriter::new(File::create(path)?));
    // No time stamp: equal weights give equal files.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .large_file(true)
        .with_alignment(ALIGNMENT);
    let mut entry = |name: &str, bytes: &[u8]| -> std::io::Result<()> {
        zip.start_file(format!("archive/{name}"), options)?;
        zip.write_all(bytes)
    };
    entry("data.pkl", &pickle(tensors))?;
    entry("byteorder", b"little")?;
    for (index, tensor) in tensors.values().enumerate() {
        entry(&format!("data/{index}"), &tensor.bytes().map_err(std::io::Error::other)?)?;
    }
    entry("version", b"3\n")?;
    zip.finish()?.into_inner().map_err(|error| error.into_error())?.sync_all()
}

/// A pickle (protocol 2) of `{key: torch._utils._rebuild_tensor_v2(storage, 0, shape, stride, False, {})}`.
fn pickle(tensors: &BTreeMap<String, PendingTensor>) -> Vec<u8> {
    let mut out = Pickle(vec![0x80, 2]);
    out.raw(b"}(");
    for (index, (key, tensor)) in tensors.iter().enumerate() {
        let count: usize = tensor.shape().iter().product();
        let storage = match tensor.dtype() {
            DType::F16 => "HalfStorage",
            DType::BF16 => "BFloat16Storage",
            DType::I64 => "LongStorage",
            _ => "FloatStorage",
        };
        out.text(key);
        out.global("torch._utils", "_rebuild_tensor_v2");
        // The arguments, the first of which names the storage; a tuple as the persistent id.
        out.raw(b"((");
        out.text("storage");
        out.global("torch", storage);
        out.text(&index.to_string());
        out.text("cpu");
        out.number(count);
        out.raw(b"tQ");
        out.number(0);
        out.tuple(tensor.shape());
        out.tuple(&strides(tensor.shape()));
        out.raw(b"\x89");
        out.global("collections", "OrderedDict");
        out.raw(b")RtR");
    }
    out.raw(b"u.");
    out.0
}

fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides: Vec<usize> = shape
        .iter()
        .rev()
        .scan(1, |stride, &extent| {
            let this = *stride;
            *stride *= extent.max(1);
            Some(this)
        })
        .collect();
    strides.reverse();
    strides
}

/// The few opcodes that a state dict needs.
struct Pickle(Vec<u8>);

impl Pickle {
    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// BINUNICODE.
    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.raw(text.as_bytes());
    }

    /// GLOBAL.
    fn global(&mut self, module: &str, name: &str) {
        self.raw(format!("c{module}\n{name}\n").as_bytes());
    }

    /// LONG1 of eight bytes and a sign byte, whatever the number.
    fn number(&mut self, number: usize) {
        self.raw(&[0x8a, 9]);
        self.0.extend((number as u64).to_le_bytes());
        self.0.push(0);
    }

    /// MARK, the numbers, TUPLE.
    fn tuple(&mut self, numbers: &[usize]) {
        self.0.push(b'(');
        numbers.iter().for_each(|&number| self.number(number));
        self.0.push(b't');
    }
}

#[cfg(test)]
mod tests {
    use super::super::{StoredDType, TensorSource};
    use super::*;
    use crate::config::tiny;
    use crate::weights::reference_tensors;

    #[test]
    fn what_is_written_is_read() {
        let model = tiny(300).init(&burn::tensor::Device::flex()).unwrap();
        let tensors = reference_tensors(&model);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.bin");
        write_state_dict(&path, &tensors).unwrap();
        let source = TensorSource::from_file(&path).unwrap();
        assert_eq!(source.len(), tensors.len());
        for (key, tensor) in &tensors {
            let stored = source.get(key).unwrap();
            assert_eq!(stored.shape, tensor.shape(), "{key}");
            if stored.dtype == StoredDType::Other {
                continue;
            }
            let (half, bytes) = (stored.shape[0] / 2, stored.bytes().unwrap());
            let rows = [stored.rows(0, half), stored.rows(half, stored.shape[0] - half)];
            assert_eq!(rows.map(|rows| rows.bytes().unwrap()).concat(), bytes, "{key}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), {
            write_state_dict(&path, &tensors).unwrap();
            std::fs::read(&path).unwrap()
        });
    }
}
