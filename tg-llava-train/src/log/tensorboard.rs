//! TensorBoard event files.
//!
//! The format is TensorFlow's: a stream of TFRecords (`tensorflow/core/lib/io/record_writer.h`), each holding one
//! `Event` message (`tensorflow/core/util/event.proto`). Five of its fields serve here, so they are encoded by hand.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{LogError, Record};

const PREFIX: &str = "events.out.tfevents.";

/// Writes scalars to an event file `events.out.tfevents.<seconds>.<host>`.
///
/// Every file begins by telling TensorBoard which steps of the files before it no longer count.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// A new run in `folder`, which is made where it is missing. Event files that lie there count no more.
    pub fn create(folder: impl AsRef<Path>) -> Result<Self, LogError> {
        Self::open(folder.as_ref(), 0)
    }

    /// Goes on with the run in `folder` after optimizer step `step`: a new file, and TensorBoard drops what the
    /// files before it hold of later steps.
    pub fn resume(folder: impl AsRef<Path>, step: usize) -> Result<Self, LogError> {
        Self::open(folder.as_ref(), step + 1)
    }

    /// Adds the value of `tag` (`train/loss`) at optimizer step `step`, measured `wall_time` seconds after the
    /// Unix epoch. Kept as f32, as TensorBoard does.
    pub fn scalar(&mut self, tag: &str, value: f64, step: usize, wall_time: f64) -> Result<(), LogError> {
        self.write(&scalar_event(tag, value as f32, step, wall_time))
    }

    /// Adds the numbers of a record under the HF Trainer's tags (`train/loss`, `train/learning_rate`,
    /// `train/grad_norm`, `eval/loss`, ...) and flushes. A note holds none.
    pub fn record(&mut self, record: &Record, wall_time: f64) -> Result<(), LogError> {
        for (tag, value) in scalars(record) {
            if let Some(value) = value {
                self.scalar(tag, value, record.step(), wall_time)?;
            }
        }
        self.flush()
    }

    /// Hands all that was added to the system.
    pub fn flush(&mut self) -> Result<(), LogError> {
        self.file.flush().map_err(LogError::io(&self.path))
    }

    /// The event file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open(folder: &Path, first_step: usize) -> Result<Self, LogError> {
        fs::create_dir_all(folder).map_err(LogError::io(folder))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // TensorBoard reads the files by name, so a later one must have a later time, whatever the clock says.
        let seconds = latest(folder)?.map_or(0, |latest| latest + 1).max(now.as_secs());
        let path = folder.join(format!("{PREFIX}{seconds:010}.{}", host()));
        let file = File::create_new(&path).map_err(LogError::io(&path))?;
        let mut writer = Self { path, file: BufWriter::new(file) };
        writer.write(&version_event(now.as_secs_f64()))?;
        writer.write(&start_event(first_step, now.as_secs_f64()))?;
        writer.flush()?;
        Ok(writer)
    }

    fn write(&mut self, event: &[u8]) -> Result<(), LogError> {
        self.file.write_all(&framed(event)).map_err(LogError::io(&self.path))
    }
}

fn scalars(record: &Record) -> Vec<(&'static str, Option<f64>)> {
    match record {
        Record::Step(step) => vec![
            ("train/loss", Some(step.loss)),
            ("train/learning_rate", Some(step.lr)),
            ("train/grad_norm", step.grad_norm),
            ("train/epoch", Some(step.epoch)),
            ("train/samples_per_second", Some(step.samples_per_s)),
            ("train/tokens_per_second", Some(step.tokens_per_s)),
            ("train/data_wait", Some(step.data_wait)),
            ("train/memory_bytes", step.memory_bytes.map(|bytes| bytes as f64)),
            ("train/loss_scale", step.loss_scale),
            ("train/communication", step.communication),
        ],
        Record::Eval(eval) => vec![("eval/loss", Some(eval.loss)), ("eval/exact_match", eval.exact_match)],
        Record::Note(_) => vec![],
    }
}

/// The largest time in the names of the event files of `folder`.
fn latest(folder: &Path) -> Result<Option<u64>, LogError> {
    let mut latest = None;
    for entry in fs::read_dir(folder).map_err(LogError::io(folder))? {
        let name = entry.map_err(LogError::io(folder))?.file_name();
        let seconds =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok());
        latest = latest.max(seconds);
    }
    Ok(latest)
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").or_else(|_| std::env::var("COMPUTERNAME")).ok())
        .unwrap_or_default();
    let safe: String = name
        .trim()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || "-.".contains(letter) { letter } else { '_' })
        .collect();
    if safe.is_empty() { "localhost".into() } else { safe }
}

/// A TFRecord: length, checksum of the length, data, checksum of the data.
fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), data, &masked_crc(data).to_le_bytes()].concat()
}

/// CRC-32C, turned and shifted so that a checksum over data that holds checksums stays a good one.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn version_event(wall_time: f64) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, wall_time);
    event.bytes(3, b"brain.Event:2");
    event.0
}

/// `SessionLog.START`: what earlier files hold of `first_step` and later steps is void.
fn start_event(first_step: usize, wall_time: f64) -> Vec<u8> {
    let mut session_log = Message::default();
    session_log.varint(1, 1);
    let mut event = Message::default();
    event.double(1, wall_time);
    event.varint(2, first_step as u64);
    event.bytes(7, &session_log.0);
    event.0
}

fn scalar_event(tag: &str, value: f32, step: usize, wall_time: f64) -> Vec<u8> {
    let mut entry = Message::default();
    entry.bytes(1, tag.as_bytes());
    entry.float(2, value);
    let mut summary = Message::default();
    summary.bytes(1, &entry.0);
    let mut event = Message::default();
    event.double(1, wall_time);
    event.varint(2, step as u64);
    event.bytes(5, &summary.0);
    event.0
}

/// A protobuf message in its wire format; a field is named by its number.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, field: u8, value: u64) {
        self.0.push(field << 3);
        self.raw_varint(value);
    }

    fn double(&mut self, field: u8, value: f64) {
        self.0.push(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u8, value: &[u8]) {
        self.0.push(field << 3 | 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u8, value: f32) {
        self.0.push(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    /// Seven bits a byte, the lowest first; the top bit says that more follow.
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EvalRecord, NoteRecord, StepRecord};
    use super::*;

    /// The events of a file, unframed, with their checksums checked.
    fn events(path: &Path) -> Vec<Vec<u8>> {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut events = vec![];
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let data = &rest[12..12 + length];
            assert_eq!(rest[..length + 16], framed(data));
            events.push(data.to_vec());
            rest = &rest[length + 16..];
        }
        events
    }

    /// Without the wall time, which the first two events take from the clock.
    fn timeless(event: &[u8]) -> &[u8] {
        assert_eq!(event[0], 9);
        &event[9..]
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4, and TensorBoard's own masked_crc32c.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!((masked_crc(b"123456789"), masked_crc(b"")), (0xc78a_b0e5, 0xa282_ead8));
    }

    #[test]
    fn a_scalar_has_the_bytes_that_tensorboard_reads_back() {
        // TensorBoard 2.21 reads these as: wall_time 1700000000.5, step 300, "train/loss" 0.75.
        let expected = [
            &[0x21, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x7b, 0xec, 0xf6][..],
            &[0x09, 0x00, 0x00, 0x20, 0x40, 0xfc, 0x54, 0xd9, 0x41, 0x10, 0xac, 0x02],
            &[0x2a, 0x13, 0x0a, 0x11, 0x0a, 0x0a],
            b"train/loss",
            &[0x15, 0x00, 0x00, 0x40, 0x3f],
            &[0x22, 0x46, 0xd4, 0xb6],
        ]
        .concat();
        assert_eq!(framed(&scalar_event("train/loss", 0.75, 300, 1_700_000_000.5)), expected);
    }

    #[test]
    fn a_new_run_voids_all_before_it_and_a_resumed_one_what_is_after_its_step() {
        let folder = tempfile::tempdir().unwrap();
        let first = EventWriter::create(folder.path().join("made/too")).unwrap();
        let folder = first.path().parent().unwrap();
        let second = EventWriter::resume(folder, 299).unwrap();
        let [first, second] = [first.path(), second.path()].map(events);
        assert_eq!(timeless(&first[0]), b"\x1a\x0dbrain.Event:2");
        assert_eq!(timeless(&second[0]), timeless(&first[0]));
        assert_eq!(timeless(&first[1]), [0x10, 0, 0x3a, 2, 8, 1]);
        assert_eq!(timeless(&second[1]), [0x10, 0xac, 0x02, 0x3a, 2, 8, 1]);
        assert_eq!((first.len(), second.len()), (2, 2));
    }

    #[test]
    fn a_later_file_has_a_later_name_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("events.out.tfevents.4000000000.elsewhere"), "").unwrap();
        fs::write(folder.path().join("events.out.tfevents.odd.name"), "").unwrap();
        fs::write(folder.path().join("metrics.jsonl"), "").unwrap();
        for second in ["4000000001", "4000000002"] {
            let writer = EventWriter::resume(folder.path(), 1).unwrap();
            let name = writer.path().file_name().unwrap().to_string_lossy().into_owned();
            assert_eq!(name, format!("events.out.tfevents.{second}.{}", host()));
        }
        assert!(!host().is_empty() && !host().contains(['/', '\n', ' ']));
    }

    #[test]
    fn records_are_in_the_file_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path()).unwrap();
        let step =
            StepRecord { step: 7, loss: 0.5, lr: 1e-3, memory_bytes: Some(1 << 20), ..Default::default() };
        let eval = EvalRecord { step: 7, loss: 0.25, exact_match: Some(1.0), ..Default::default() };
        for record in [step.into(), eval.into(), Record::from(NoteRecord::default())] {
            writer.record(&record, 2.0).unwrap();
        }
        let expected = [
            ("train/loss", 0.5),
            ("train/learning_rate", 1e-3),
            ("train/epoch", 0.0),
            ("train/samples_per_second", 0.0),
            ("train/tokens_per_second", 0.0),
            ("train/data_wait", 0.0),
            ("train/memory_bytes", 1_048_576.0),
            ("eval/loss", 0.25),
            ("eval/exact_match", 1.0),
        ];
        assert_eq!(events(writer.path())[2..], expected.map(|(tag, value)| scalar_event(tag, value, 7, 2.0)));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_with_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = EventWriter::create(file.path().join("runs")).unwrap_err();
        assert!(error.to_string().contains("runs"), "{error}");
    }
}
