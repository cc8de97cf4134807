//! The metrics file: one JSON object a line, readable while the run writes it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{LogError, Record};

/// Appends records to a metrics file; each one is handed to the system before `append` returns.
///
/// A run that is killed and resumed leaves the same lines as one that went through, but for the fields that tell
/// time, speed and memory, provided that every record of a step is appended before that step's checkpoint.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    length: u64,
    seconds: f64,
}

impl MetricsLog {
    /// An empty log at `path`, instead of any file there. The folder must exist.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, LogError> {
        let path = path.as_ref();
        File::create(path).map_err(LogError::io(path))?;
        Self::open(path, 0, 0.0)
    }

    /// Goes on with the log at `path` after optimizer step `step`: the lines of later steps and a last line
    /// that was cut off are dropped, the others stay as they are. Without a file there, the log starts empty.
    ///
    /// The shorter log is written beside the old one and renamed, so that a kill leaves one or the other.
    pub fn resume(path: impl AsRef<Path>, step: usize) -> Result<Self, LogError> {
        let path = path.as_ref();
        let old = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::create(path),
            read => read.map_err(LogError::io(path))?,
        };
        let mut kept = Vec::with_capacity(old.len());
        let mut seconds = 0.0;
        for line in records(path, &old) {
            let (text, record) = line?;
            if record.step() <= step {
                kept.extend_from_slice(text);
                kept.push(b'\n');
                seconds = record.seconds();
            }
        }
        if kept != old {
            replace(path, &kept)?;
        }
        Self::open(path, kept.len() as u64, seconds)
    }

    /// Adds one record as a line.
    ///
    /// When the disk is full the part that fitted is taken back, so that later lines stay whole.
    pub fn append(&mut self, record: &Record) -> Result<(), LogError> {
        let mut line = serde_json::to_vec(record)
            .map_err(|error| LogError::Io { path: self.path.clone(), source: error.into() })?;
        line.push(b'\n');
        if let Err(source) = self.file.write_all(&line).and_then(|()| self.file.flush()) {
            // The first error is the one to tell; a torn line that stays is dropped on the next resume.
            let _ = self.file.set_len(self.length);
            return Err(LogError::Io { path: self.path.clone(), source });
        }
        self.length += line.len() as u64;
        self.seconds = record.seconds();
        Ok(())
    }

    /// `seconds` of the last record, 0 in an empty log: where the clock of a resumed run goes on.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// The metrics file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// In append mode each write goes to the end, also after a failed one was taken back.
    fn open(path: &Path, length: u64, seconds: f64) -> Result<Self, LogError> {
        let file = OpenOptions::new().append(true).open(path).map_err(LogError::io(path))?;
        Ok(Self { path: path.to_path_buf(), file, length, seconds })
    }
}

/// All records of a metrics file, in the order of the file; a last line that was cut off is left out.
pub fn read_metrics(path: impl AsRef<Path>) -> Result<Vec<Record>, LogError> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(LogError::io(path))?;
    records(path, &bytes).map(|line| line.map(|(_, record)| record)).collect()
}

/// The lines of `bytes` with their records, without a torn last one. Empty lines are passed over.
fn records<'a>(
    path: &'a Path,
    bytes: &'a [u8],
) -> impl Iterator<Item = Result<(&'a [u8], Record), LogError>> + 'a {
    let lines: Vec<(usize, &[u8])> = (1..)
        .zip(bytes.split(|&byte| byte == b'\n'))
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .collect();
    let last = lines.last().map_or(0, |&(number, _)| number);
    lines.into_iter().filter_map(move |(number, text)| match serde_json::from_slice(text) {
        Ok(record) => Some(Ok((text, record))),
        // A kill or a crash tears only the end of the file.
        Err(_) if number == last => None,
        Err(error) => {
            Some(Err(LogError::Line { path: path.to_path_buf(), line: number, message: error.to_string() }))
        }
    })
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), LogError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    let beside = path.with_file_name(name);
    let mut file = File::create(&beside).map_err(LogError::io(&beside))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(LogError::io(&beside))?;
    fs::rename(&beside, path).map_err(LogError::io(path))
}

#[cfg(test)]
mod tests {
    use super::super::{EvalRecord, NoteRecord, StepRecord};
    use super::*;
    use proptest::prelude::*;

    /// Six steps, a validation after each second one and a remark.
    fn run() -> Vec<Record> {
        let mut records = Vec::new();
        for step in 1..=6 {
            let seconds = step as f64 / 4.0;
            // 0.1 + 0.2 and its like need all digits to come back.
            let loss = 0.1 + 0.2 / step as f64;
            records.push(Record::from(StepRecord { step, loss, seconds, ..Default::default() }));
            if step % 2 == 0 {
                records.push(Record::from(EvalRecord {
                    step,
                    loss,
                    samples: 3,
                    seconds,
                    ..Default::default()
                }));
            }
        }
        records.push(Record::from(NoteRecord { step: 6, text: "done: \u{1F999}\n".into(), seconds: 1.5 }));
        records
    }

    fn write(path: &Path, records: &[Record]) {
        let mut log = MetricsLog::create(path).unwrap();
        records.iter().for_each(|record| log.append(record).unwrap());
    }

    fn rest_of(step: usize) -> impl Iterator<Item = Record> {
        run().into_iter().filter(move |record| record.step() > step)
    }

    #[test]
    fn what_is_appended_is_there_at_once_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        assert_eq!((log.seconds(), log.path()), (0.0, path.as_path()));
        for (count, record) in (1..).zip(run()) {
            log.append(&record).unwrap();
            assert_eq!(read_metrics(&path).unwrap(), run()[..count]);
        }
        assert_eq!(log.seconds(), 1.5);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), run().len());
    }

    #[test]
    fn a_killed_run_that_is_resumed_leaves_the_file_of_one_that_went_through() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        write(&path, &run());
        let whole = fs::read(&path).unwrap();
        for step in 0..=6 {
            // The kill may fall on any byte after the checkpoint of `step`.
            write(&path, &run().into_iter().filter(|record| record.step() <= step).collect::<Vec<_>>());
            let kept = fs::read(&path).unwrap().len();
            for cut in (kept..=whole.len()).step_by(41) {
                fs::write(&path, &whole[..cut]).unwrap();
                let mut log = MetricsLog::resume(&path, step).unwrap();
                assert_eq!(log.seconds(), step as f64 / 4.0, "step {step}, cut {cut}");
                rest_of(step).for_each(|record| log.append(&record).unwrap());
                assert!(fs::read(&path).unwrap() == whole, "step {step}, cut {cut}");
            }
        }
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(files.len(), 1, "{files:?}");
    }

    #[test]
    fn a_last_line_that_only_lacks_its_end_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        write(&path, &run());
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        MetricsLog::resume(&path, 6).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn a_log_that_needs_no_cut_is_not_rewritten_and_a_missing_one_starts_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        write(&path, &run());
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        MetricsLog::resume(&path, 6).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        fs::remove_file(&path).unwrap();
        assert_eq!(MetricsLog::resume(&path, 6).unwrap().seconds(), 0.0);
        assert_eq!(read_metrics(&path).unwrap(), []);
    }

    #[test]
    fn numbers_keep_their_digits_through_a_resume() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        // As another program writes it: spaces, an exponent, a key that we do not know.
        let line = "{\"kind\": \"note\", \"step\": 1, \"text\": \"\", \"seconds\": 1.50e0, \"extra\": [1]}\n";
        fs::write(&path, format!("{line}\n{}", line.replace("1,", "2,"))).unwrap();
        MetricsLog::resume(&path, 1).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), line);
    }

    #[test]
    fn a_bad_line_inside_is_an_error_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        write(&path, &run());
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("\"step\":2", "\"step\":-2", 1)).unwrap();
        for error in [read_metrics(&path).unwrap_err(), MetricsLog::resume(&path, 6).unwrap_err()] {
            assert!(matches!(&error, LogError::Line { line: 2, .. }), "{error}");
            assert!(error.to_string().contains("metrics.jsonl, line 2: "), "{error}");
        }
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent/metrics.jsonl");
        for error in [read_metrics(&path).unwrap_err(), MetricsLog::create(&path).unwrap_err()] {
            assert!(error.to_string().contains("absent"), "{error}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let error = MetricsLog::create("/dev/full").unwrap().append(&run()[0]).unwrap_err();
        assert!(error.to_string().starts_with("/dev/full: "), "{error}");
    }

    proptest! {
        #[test]
        fn any_finite_number_reads_back_as_it_was(loss in proptest::num::f64::NORMAL, step in 0usize..1 << 40) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("metrics.jsonl");
            let record = Record::from(EvalRecord { step, loss, ..Default::default() });
            write(&path, std::slice::from_ref(&record));
            let read = read_metrics(&path).unwrap();
            let [Record::Eval(read)] = read.as_slice() else { panic!("{read:?}") };
            prop_assert_eq!(read.step, step);
            prop_assert_eq!(read.loss.to_bits(), loss.to_bits());
        }
    }
}
