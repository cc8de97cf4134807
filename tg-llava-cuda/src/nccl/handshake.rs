//! Ranks that meet by files in a folder that all of them see.
//!
//! Names of files repeat from start to start, and a rank that was killed leaves its own there. So every rank begins its file with a
//! nonce of this start. A follower says that it has come; rank 0 lists the nonces of all that have, in one file; a follower that finds
//! its own there repeats rank 0's; when all have, rank 0 adds the id. An id beside another nonce is of another start.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tg_llava_train::parallel::World;

use super::rendezvous::ID_LEN;

/// What tells one start of a rank from all others.
type Nonce = [u8; 16];

/// In place of the nonce of a rank that has not come.
const NOBODY: Nonce = [0; 16];

const PAUSE: Duration = Duration::from_millis(100);

/// Ranks that an error names.
const NAMED: usize = 8;

/// A rank's file, which goes when this does.
#[derive(Debug)]
pub struct OwnFile {
    path: PathBuf,
    nonce: Nonce,
}

impl OwnFile {
    fn new(path: PathBuf) -> Self {
        let half = || RandomState::new().hash_one((std::process::id(), SystemTime::now())).to_ne_bytes();
        let mut nonce = NOBODY;
        nonce[..8].copy_from_slice(&half());
        nonce[8..].copy_from_slice(&half());
        Self { path, nonce }
    }

    /// The file is whole or not there; what an earlier start has left is gone afterwards.
    fn write(&self, rest: &[u8]) -> Result<(), String> {
        let new = suffixed(&self.path, ".new");
        fs::write(&new, [&self.nonce, rest].concat()).and_then(|()| fs::rename(&new, &self.path)).map_err(
            |error| {
                let _ = fs::remove_file(&new);
                format!("{}: cannot write where the ranks meet: {error}", self.path.display())
            },
        )
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        // A later start may have put its own there. A file that stays is only untidy.
        if fs::read(&self.path).is_ok_and(|bytes| bytes.starts_with(&self.nonce)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Rank 0 tells `id` to all others, and returns when each has said that it belongs to this start.
///
/// # Errors
/// A text: a file that cannot be written, or the ranks that have not come within `limit`.
pub fn lead(path: &Path, world: World, id: &[u8; ID_LEN], limit: Duration) -> Result<OwnFile, String> {
    let until = Instant::now() + limit;
    let own = OwnFile::new(path.to_owned());
    let mut nonces = vec![NOBODY; world.size() - 1];
    let mut missing: Vec<usize> = (1..world.size()).collect();
    own.write(nonces.as_flattened())?;
    loop {
        let before = nonces.clone();
        missing.retain(|&rank| match read(&follower(path, rank)).as_deref() {
            Some(&[nonce, answered]) => {
                nonces[rank - 1] = nonce;
                answered != own.nonce
            }
            _ => true,
        });
        if missing.is_empty() {
            own.write(&[nonces.as_flattened(), id].concat())?;
            return Ok(own);
        }
        if nonces != before {
            own.write(nonces.as_flattened())?;
        }
        if Instant::now() >= until {
            return Err(late(path, &missing, limit));
        }
        thread::sleep(PAUSE);
    }
}

/// Any other rank: the id of rank 0 of the same start.
///
/// # Errors
/// As [`lead`].
pub fn follow(path: &Path, world: World, limit: Duration) -> Result<([u8; ID_LEN], OwnFile), String> {
    let until = Instant::now() + limit;
    let own = OwnFile::new(follower(path, world.rank()));
    own.write(&NOBODY)?;
    let mut answered = NOBODY;
    let mut missing = vec![0];
    loop {
        let list = read(path).filter(|list| list.get(world.rank()) == Some(&own.nonce));
        if let Some((nonces, id)) = list.as_deref().and_then(|list| list.split_at_checked(world.size())) {
            if let Ok(id) = id.as_flattened().try_into() {
                return Ok((id, own));
            }
            if answered != nonces[0] {
                answered = nonces[0];
                own.write(&answered)?;
            }
            missing = (0..world.size()).filter(|&rank| nonces[rank] == NOBODY).collect();
        }
        if Instant::now() >= until {
            return Err(late(path, &missing, limit));
        }
        thread::sleep(PAUSE);
    }
}

/// The nonces in a file, or pieces of an id as long; `None` where there is none that is whole.
fn read(path: &Path) -> Option<Vec<Nonce>> {
    let bytes = fs::read(path).ok()?;
    let (pieces, rest) = bytes.as_chunks();
    rest.is_empty().then(|| pieces.to_vec())
}

fn follower(path: &Path, rank: usize) -> PathBuf {
    suffixed(path, &format!(".rank-{rank}"))
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn late(path: &Path, missing: &[usize], limit: Duration) -> String {
    let named: Vec<_> = missing.iter().take(NAMED).map(|rank| format!("rank {rank}")).collect();
    let more = match missing.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let whom = match named.is_empty() {
        true => "a rank that was there before".to_owned(),
        false => named.join(", ") + &more,
    };
    format!(
        "{}: {whom} did not come to where the ranks meet within {} s; all ranks need the same output_dir, on a file system \
         that they share",
        path.display(),
        limit.as_secs()
    )
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
