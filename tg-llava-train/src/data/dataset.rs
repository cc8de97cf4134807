//! A LLaVA file opened lazily: an index of some 24 bytes a sample in memory, the samples themselves on disk.

use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::checkpoint::HashingReader;

use super::{
    error::{DataError, OnBadSample},
    records::{Records, ScanError, Span},
    sample::{Sample, Summary, salvage_id},
};

/// Bytes read at once while indexing.
const READ_AHEAD: usize = 1 << 20;

/// What the reference adds for a picture in [`LlavaDataset::lengths`].
const IMAGE_WORDS: i64 = 128;

/// The samples of a LLaVA JSON array or JSON-lines file, in the order of the file.
///
/// Opening reads the file once, checks every sample's fields and remembers where it lies; a sample is parsed
/// again when it is asked for. May be shared by worker threads.
#[derive(Debug)]
pub struct LlavaDataset {
    files: Vec<DataFile>,
    entries: Vec<Entry>,
    rejected: Vec<DataError>,
}

#[derive(Debug)]
struct DataFile {
    path: PathBuf,
    file: Mutex<File>,
    /// Number of its first usable sample.
    first: usize,
    /// Hash of what it held when it was opened.
    digest: String,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: u64,
    bytes: u32,
    line: u32,
    place: u32,
    words_and_image: u32,
}

/// Top bit of [`Entry::words_and_image`].
const IMAGE_BIT: u32 = 1 << 31;

impl Entry {
    fn new(span: Span, bytes: u32, place: usize, summary: Summary) -> Self {
        let image = if summary.has_image { IMAGE_BIT } else { 0 };
        Self {
            offset: span.offset,
            bytes,
            line: u32::try_from(span.line).unwrap_or(u32::MAX),
            place: u32::try_from(place).unwrap_or(u32::MAX),
            words_and_image: summary.words.min(IMAGE_BIT - 1) | image,
        }
    }

    fn has_image(&self) -> bool {
        self.words_and_image & IMAGE_BIT != 0
    }

    fn words(&self) -> i64 {
        i64::from(self.words_and_image & !IMAGE_BIT)
    }
}

impl LlavaDataset {
    /// Opens and indexes the file at `path`.
    ///
    /// # Errors
    /// If the file cannot be read, is neither of the two layouts, or holds no sample; and, unless
    /// `on_bad_sample` is [`OnBadSample::Skip`], if a sample's fields are wrong. Skipped samples are listed
    /// by [`Self::rejected`].
    pub fn open(path: impl AsRef<Path>, on_bad_sample: OnBadSample) -> Result<Self, DataError> {
        Self::open_all(&[path.as_ref().to_path_buf()], on_bad_sample)
    }

    /// Opens and indexes several files as one data set, one after the other.
    ///
    /// # Errors
    /// As [`Self::open`], for each of them.
    pub fn open_all(paths: &[PathBuf], on_bad_sample: OnBadSample) -> Result<Self, DataError> {
        let mut all = Self { files: Vec::new(), entries: Vec::new(), rejected: Vec::new() };
        for path in paths {
            all.add(path, on_bad_sample)?;
        }
        all.entries.shrink_to_fit();
        Ok(all)
    }

    fn add(&mut self, path: &Path, on_bad_sample: OnBadSample) -> Result<(), DataError> {
        let io = |source| DataError::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io)?;
        let mut hashing = HashingReader::new(&file);
        let mut records = Records::new(BufReader::with_capacity(READ_AHEAD, &mut hashing));
        let (mut entries, mut rejected, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let span = match records.next_into(&mut buffer) {
                Ok(Some(span)) => span,
                Ok(None) => break,
                Err(ScanError::Io(source)) => return Err(io(source)),
                Err(ScanError::Layout { line, message }) => {
                    return Err(DataError::Layout { path: path.to_path_buf(), line, message });
                }
            };
            let Ok(bytes) = u32::try_from(buffer.len()) else {
                let message = format!("one sample of {} bytes; at most 4 GiB are possible", buffer.len());
                return Err(DataError::Layout { path: path.to_path_buf(), line: span.line, message });
            };
            let place = entries.len() + rejected.len();
            match Summary::parse(&buffer, span.line) {
                Ok(summary) => entries.push(Entry::new(span, bytes, place, summary)),
                Err(problem) => {
                    let id = salvage_id(&buffer).unwrap_or_else(|| unnamed(place));
                    let error = problem.at(path, span.line, id);
                    match on_bad_sample {
                        OnBadSample::Error => return Err(error),
                        OnBadSample::Skip => rejected.push(error),
                    }
                }
            }
        }
        if entries.is_empty() {
            let (path, count) = (path.to_path_buf(), rejected.len());
            return Err(match rejected.into_iter().next() {
                None => DataError::Empty { path },
                Some(first) => DataError::AllBad { path, count, first: Box::new(first) },
            });
        }
        let first = self.entries.len();
        let digest = hashing.digest();
        self.files.push(DataFile { path: path.to_path_buf(), file: Mutex::new(file), first, digest });
        self.entries.append(&mut entries);
        self.rejected.append(&mut rejected);
        Ok(())
    }

    /// The file that holds sample `index`; the last one beyond the end.
    pub fn path(&self, index: usize) -> &Path {
        self.file(index).map_or(Path::new(""), |file| &file.path)
    }

    fn file(&self, index: usize) -> Option<&DataFile> {
        self.files[..self.files.partition_point(|file| file.first <= index)].last()
    }

    /// How many usable samples there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never true: a file without samples does not open.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Hashes of what the files held when they were opened, in their order.
    pub fn digests(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| file.digest.as_str())
    }

    /// The samples that were left out when the file was opened, each a [`DataError::Sample`].
    pub fn rejected(&self) -> &[DataError] {
        &self.rejected
    }

    /// Whether sample `index` has a picture; `false` beyond the end.
    pub fn has_image(&self, index: usize) -> bool {
        self.entries.get(index).is_some_and(Entry::has_image)
    }

    /// The line of the file on which sample `index` starts, from 1; 0 beyond the end.
    pub fn line(&self, index: usize) -> u64 {
        self.entries.get(index).map_or(0, |entry| entry.line.into())
    }

    /// The place of sample `index` in the file, from 0: not `index` where samples before it were left out.
    pub fn place(&self, index: usize) -> usize {
        self.entries.get(index).map_or(index, |entry| entry.place as usize)
    }

    /// Words of each sample, plus 128 where it has a picture (`lengths` of the reference's dataset).
    pub fn lengths(&self) -> Vec<i64> {
        self.entries.iter().map(|e| e.words() + if e.has_image() { IMAGE_WORDS } else { 0 }).collect()
    }

    /// Words of each sample, negative where it has no picture (`modality_lengths` of the reference's dataset).
    pub fn modality_lengths(&self) -> Vec<i64> {
        self.entries.iter().map(|e| if e.has_image() { e.words() } else { -e.words() }).collect()
    }

    /// Reads sample `index`.
    ///
    /// # Errors
    /// If there is no such sample, or the file was changed or became unreadable since it was opened.
    pub fn sample(&self, index: usize) -> Result<Sample, DataError> {
        let Some(entry) = self.entries.get(index) else {
            let path = self.path(index).to_path_buf();
            return Err(DataError::OutOfRange { path, index, count: self.len() });
        };
        let Some(DataFile { path, file, .. }) = self.file(index) else {
            return Err(DataError::OutOfRange { path: PathBuf::new(), index, count: self.len() });
        };
        let mut json = vec![0; entry.bytes as usize];
        {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(entry.offset))
                .and_then(|_| file.read_exact(&mut json))
                .map_err(|source| DataError::Io { path: path.clone(), source })?;
        }
        let mut sample = Sample::parse(&json, self.line(index))
            .map_err(|problem| problem.at(path, self.line(index), unnamed(self.place(index))))?;
        if sample.id.is_empty() {
            sample.id = unnamed(self.place(index));
        }
        Ok(sample)
    }
}

/// What a sample without `id` is called.
fn unnamed(place: usize) -> String {
    format!("#{place}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SampleProblem;
    use std::io::Write;

    const GOOD: &str = r#"{"id": "a", "image": "a.png", "conversations": [{"from": "human", "value": "<image>\nwhat now"}]}"#;
    const TEXT: &str = r#"{"id": "b", "conversations": [{"from": "human", "value": "one two three"}]}"#;
    const BAD: &str = r#"{"id": "bad", "conversations": [{"from": "human", "value": "<image>"}]}"#;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn arrays_and_lines_give_the_same_samples() {
        let array = file(&format!("[\n{GOOD},\n{TEXT}]"));
        let lines = file(&format!("{GOOD}\n\n{TEXT}\n"));
        for path in [array.path(), lines.path()] {
            let data = LlavaDataset::open(path, OnBadSample::Error).unwrap();
            assert_eq!(data.lengths(), [131, 3]);
            assert_eq!(data.modality_lengths(), [3, -3]);
            assert_eq!(data.sample(1).unwrap().id, "b");
            assert_eq!(data.sample(0).unwrap().images, ["a.png"]);
            assert!(matches!(data.sample(2), Err(DataError::OutOfRange { index: 2, count: 2, .. })));
        }
    }

    #[test]
    fn a_bad_sample_stops_or_is_listed() {
        let file = file(&format!("{GOOD}\n{BAD}\n{{\"id\": 1,\n{TEXT}\n"));
        let error = LlavaDataset::open(file.path(), OnBadSample::Error).unwrap_err().to_string();
        assert!(error.contains("line 2, sample bad: 1 `<image>`"), "{error}");

        let data = LlavaDataset::open(file.path(), OnBadSample::Skip).unwrap();
        assert_eq!((data.len(), data.line(1), data.place(1)), (2, 4, 3));
        match data.rejected() {
            [DataError::Sample { id, .. }, DataError::Sample { id: second, problem, line: 3, .. }] => {
                assert_eq!((id.as_str(), second.as_str()), ("bad", "#2"));
                assert!(matches!(**problem, SampleProblem::Syntax { line: 3, .. }), "{problem}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_without_a_usable_sample_does_not_open() {
        let open = |text: &str| LlavaDataset::open(file(text).path(), OnBadSample::Skip).unwrap_err();
        assert!(matches!(open("[]"), DataError::Empty { .. }));
        assert!(matches!(open(BAD), DataError::AllBad { count: 1, .. }));
        assert!(matches!(open("[3]"), DataError::Layout { line: 1, .. }));
        let missing = LlavaDataset::open("no/such.json", OnBadSample::Skip).unwrap_err();
        assert!(matches!(&missing, DataError::Io { path, .. } if path.ends_with("such.json")), "{missing}");
    }

    #[test]
    fn another_text_of_the_same_length_has_another_digest() {
        let digest = |text: &str| {
            let data = LlavaDataset::open(file(text).path(), OnBadSample::Error).unwrap();
            data.digests().map(str::to_owned).collect::<Vec<_>>()
        };
        let text = format!("[{GOOD},{TEXT}]\n");
        assert_eq!(digest(&text), [crate::checkpoint::hash_bytes(text.as_bytes())]);
        assert_ne!(digest(&text), digest(&text.replace("three", "seven")));
    }

    #[test]
    fn a_file_cut_after_opening_is_an_error() {
        let file = file(&format!("{GOOD}\n{TEXT}\n"));
        let data = LlavaDataset::open(file.path(), OnBadSample::Error).unwrap();
        file.as_file().set_len(10).unwrap();
        assert!(matches!(data.sample(1), Err(DataError::Io { .. })));
    }
}
