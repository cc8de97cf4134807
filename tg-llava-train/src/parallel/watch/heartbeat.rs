use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::progress::Standing;

/// What a rank tells the others every few seconds, in a file of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Heartbeat {
    /// The start of the job that it belongs to.
    pub job: Option<String>,
    /// The rank.
    pub rank: usize,
    /// Its process.
    pub pid: u32,
    /// The machine of the process.
    pub host: String,
    /// How often it was written.
    pub beat: u64,
    /// How far the rank is.
    #[serde(flatten)]
    pub standing: Standing,
    /// Seconds since that last changed.
    pub still: f64,
    /// The most of those that it has got over so far while it learned.
    pub longest: f64,
    /// How the rank ended, where it has.
    pub end: Option<End>,
}

/// How a rank ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum End {
    /// As it should.
    Done,
    /// With this error.
    Failed(String),
}

impl Heartbeat {
    /// Where `rank` tells.
    pub(super) fn path(folder: &Path, rank: usize) -> PathBuf {
        folder.join(format!("rank-{rank:05}.json"))
    }

    /// Writes it for others to read whole, or not at all.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let path = Self::path(folder, self.rank);
        let new = path.with_extension("json.new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, path)
    }

    /// What `rank` has told last; `None` where it told nothing, or nothing that can be understood.
    pub(super) fn read(folder: &Path, rank: usize) -> Option<Self> {
        let text = fs::read(Self::path(folder, rank)).ok()?;
        serde_json::from_slice(&text).ok().filter(|beat: &Self| beat.rank == rank)
    }
}

/// The name of this machine.
pub(super) fn host() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    match name.trim() {
        "" => "an unnamed machine".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::watch::Progress;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut beat = Heartbeat {
            job: Some("7-0".into()),
            rank: 3,
            pid: 41,
            host: host(),
            beat: 1,
            standing: Progress::default().standing(),
            still: 0.25,
            longest: 0.0,
            end: None,
        };
        assert_eq!(Heartbeat::read(dir.path(), 3), None);
        for end in [None, Some(End::Done), Some(End::Failed("no \"memory\"".into()))] {
            beat.end = end;
            beat.write(dir.path()).unwrap();
            assert_eq!(Heartbeat::read(dir.path(), 3).as_ref(), Some(&beat));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(Heartbeat::path(dir.path(), 3), "{").unwrap();
        assert_eq!(Heartbeat::read(dir.path(), 3), None);
    }
}
