//! The Python package `easy-vqa`: a wheel, which is a zip archive, or the folder it was unpacked to.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

use crate::prepare::PrepareError;

/// Where the data lie inside the package.
const DATA: &str = "easy_vqa/data";

/// Most bytes of one file of the package; the largest one has 2 MB.
const MAX_BYTES: u64 = 64 << 20;

/// The licence, in case the package came without it.
const LICENCE: &str = include_str!("licence.txt");

/// The package, open for reading.
#[derive(Debug)]
pub(super) struct Package {
    path: PathBuf,
    store: Store,
}

#[derive(Debug)]
enum Store {
    Wheel(Box<ZipArchive<BufReader<File>>>),
    /// The data, and the folder beside the code where the licence may be.
    Folder {
        data: PathBuf,
        site: PathBuf,
    },
}

impl Package {
    /// Opens a wheel; or a folder that holds `easy_vqa/`, `data/` or the data themselves.
    ///
    /// # Errors
    /// [`PrepareError::Read`], or [`PrepareError::NotThePackage`] where it is something else.
    pub fn open(path: &Path) -> Result<Self, PrepareError> {
        let store = if fs::metadata(path).map_err(|e| PrepareError::read(path, e))?.is_dir() {
            Self::open_folder(path)?
        } else {
            let file = File::open(path).map_err(|e| PrepareError::read(path, e))?;
            let archive = ZipArchive::new(BufReader::new(file)).map_err(|e| PrepareError::NotThePackage {
                path: path.to_path_buf(),
                reason: format!(
                    "{e}; expected the wheel easy_vqa-1.0-py3-none-any.whl, which is a zip archive"
                ),
            })?;
            Store::Wheel(Box::new(archive))
        };
        Ok(Self { path: path.to_path_buf(), store })
    }

    fn open_folder(path: &Path) -> Result<Store, PrepareError> {
        // The folder that Python's packages lie in, the package's own, and that of its data.
        for (data, up) in [(DATA, 0), ("data", 1), ("", 2)] {
            let data = path.join(data);
            if data.join("answers.txt").is_file() {
                let absolute = fs::canonicalize(path).map_err(|e| PrepareError::read(path, e))?;
                let site = absolute.ancestors().nth(up).unwrap_or(&absolute).to_path_buf();
                return Ok(Store::Folder { data, site });
            }
        }
        let reason = format!(
            "the folder has neither {DATA}/answers.txt nor data/answers.txt; expected what the wheel \
             easy_vqa-1.0-py3-none-any.whl unpacks to"
        );
        Err(PrepareError::NotThePackage { path: path.to_path_buf(), reason })
    }

    /// A file under the data folder, such as `train/questions.json`.
    ///
    /// # Errors
    /// [`PrepareError::Entry`] where it is missing, damaged or too large.
    pub fn read(&mut self, name: &str) -> Result<Vec<u8>, PrepareError> {
        let found = match &mut self.store {
            Store::Folder { data, .. } => {
                File::open(data.join(name)).map_err(Missing::from).and_then(read_all)
            }
            Store::Wheel(archive) => {
                let entry = archive.by_name(&format!("{DATA}/{name}"));
                entry.map_err(Missing::from).and_then(read_all)
            }
        };
        found.map_err(|missing| {
            let reason = match missing {
                Missing::Absent => "there is no such file; expected the whole package easy-vqa 1.0".into(),
                Missing::Unreadable(reason) => reason,
            };
            self.wrong(name, reason)
        })
    }

    /// The error for a file under the data folder that cannot be used.
    pub fn wrong(&self, name: &str, reason: impl Into<String>) -> PrepareError {
        let entry = match self.store {
            Store::Wheel(_) => format!("{DATA}/{name}"),
            Store::Folder { .. } => name.to_owned(),
        };
        PrepareError::Entry { package: self.path.clone(), entry, reason: reason.into() }
    }

    /// The text of the licence: the package's own, else the one known here.
    pub fn licence(&mut self) -> String {
        self.own_licence().filter(|text| !text.trim().is_empty()).unwrap_or_else(|| LICENCE.into())
    }

    fn own_licence(&mut self) -> Option<String> {
        let bytes = match &mut self.store {
            Store::Wheel(archive) => {
                let names = archive.file_names().filter_map(Result::ok);
                let name = names.filter(|name| is_licence(name)).min()?.into_owned();
                read_all(archive.by_name(&name).ok()?)
            }
            Store::Folder { site, .. } => {
                let entries = fs::read_dir(&*site).ok()?.filter_map(Result::ok);
                let folders = entries.filter_map(|entry| entry.file_name().into_string().ok());
                let files = folders.flat_map(|f| [format!("{f}/LICENSE"), format!("{f}/licenses/LICENSE")]);
                let name = files.filter(|name| is_licence(name) && site.join(name).is_file()).min()?;
                read_all(File::open(site.join(name)).ok()?)
            }
        };
        String::from_utf8(bytes.ok()?).ok()
    }
}

/// Whether this is the licence among a package's metadata.
fn is_licence(name: &str) -> bool {
    let Some((folder, file)) = name.split_once('/') else { return false };
    let ours = folder.starts_with("easy_vqa-") && folder.ends_with(".dist-info");
    ours && matches!(file, "LICENSE" | "licenses/LICENSE")
}

/// Why a file cannot be had.
enum Missing {
    Absent,
    Unreadable(String),
}

impl From<io::Error> for Missing {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Absent,
            _ => Self::Unreadable(error.to_string()),
        }
    }
}

impl From<ZipError> for Missing {
    fn from(error: ZipError) -> Self {
        match error {
            ZipError::FileNotFound => Self::Absent,
            other => Self::Unreadable(other.to_string()),
        }
    }
}

/// Everything, but no more than [`MAX_BYTES`], whatever the archive's headers announce.
fn read_all(source: impl Read) -> Result<Vec<u8>, Missing> {
    let mut bytes = Vec::new();
    source.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Missing::Unreadable(format!(
            "over {MAX_BYTES} bytes; no file of easy-vqa 1.0 is so large"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    fn wheel(dir: &Path, entries: &[(&str, &str)]) -> PathBuf {
        let path = dir.join("easy_vqa-1.0-py3-none-any.whl");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        for (name, text) in entries {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    #[test]
    fn wheel_and_folders_give_the_same_files() {
        let dir = tempfile::tempdir().unwrap();
        let entries = [
            ("easy_vqa/data/answers.txt", "yes\n"),
            ("easy_vqa/data/test/questions.json", "[]"),
            ("easy_vqa-1.0.dist-info/LICENSE", "MIT License, whole\n"),
        ];
        let wheel = wheel(dir.path(), &entries);
        let site = dir.path().join("site-packages");
        for (name, text) in entries {
            fs::create_dir_all(site.join(name).parent().unwrap()).unwrap();
            fs::write(site.join(name), text).unwrap();
        }
        for path in [wheel, site.clone(), site.join("easy_vqa"), site.join("easy_vqa/data")] {
            let mut package = Package::open(&path).unwrap();
            assert_eq!(package.read("test/questions.json").unwrap(), b"[]", "{path:?}");
            assert_eq!(package.licence(), "MIT License, whole\n", "{path:?}");
            let error = package.read("train/questions.json").unwrap_err().to_string();
            assert!(error.contains("train/questions.json: there is no such file"), "{error}");
            assert!(error.starts_with(path.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn a_package_without_its_licence_gets_the_known_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = wheel(dir.path(), &[("other-1.0.dist-info/LICENSE", "other")]);
        let licence = Package::open(&path).unwrap().licence();
        assert!(licence.starts_with("MIT License\n\nCopyright (c) 2019 Victor Zhou\n"), "{licence}");
    }

    #[test]
    fn something_else_is_no_package() {
        let dir = tempfile::tempdir().unwrap();
        let open = |path: &Path| Package::open(path).unwrap_err();
        let text = dir.path().join("a.whl");
        fs::write(&text, "not a zip archive").unwrap();
        let error = open(&text).to_string();
        assert!(
            error.contains("a.whl: not the easy-vqa package") && error.contains("zip archive"),
            "{error}"
        );
        let error = open(dir.path()).to_string();
        assert!(error.contains("easy_vqa/data/answers.txt"), "{error}");
        assert!(matches!(open(&dir.path().join("none.whl")), PrepareError::Read { .. }));
    }

    #[test]
    fn a_damaged_entry_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = wheel(dir.path(), &[("easy_vqa/data/answers.txt", &"yes or no, ".repeat(40))]);
        let mut bytes = fs::read(&path).unwrap();
        let at = "easy_vqa/data/answers.txt".len() + 40;
        bytes[at] ^= 0x55;
        fs::write(&path, bytes).unwrap();
        let error = Package::open(&path).unwrap().read("answers.txt").unwrap_err().to_string();
        assert!(error.contains("easy_vqa/data/answers.txt: "), "{error}");
    }
}
