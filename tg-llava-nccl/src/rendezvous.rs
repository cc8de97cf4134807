use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tg_llava_train::parallel::{ParallelError, World};

/// Bytes of what NCCL's ranks must agree on before they meet.
pub const ID_LEN: usize = 128;

/// How long a rank waits for the id.
const WAIT: Duration = Duration::from_secs(300);

/// Where ranks find each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rendezvous {
    /// On one machine: the launcher has set `NCCL_COMM_ID=127.0.0.1:PORT` for all ranks, from which each makes the same id. A world of
    /// one needs no such variable.
    Loopback,
    /// A file in a folder that all ranks see. Rank 0 writes the id into it and removes it when all have met, so the name must be new
    /// for each start: the job's, with the number of its restarts.
    File(PathBuf),
}

impl Rendezvous {
    /// The id under which all ranks meet; `make` is NCCL's.
    ///
    /// # Errors
    /// [`ParallelError::Transport`] where there is none: no variable, no file in time, or one that cannot be written.
    pub fn agree(
        &self,
        world: World,
        make: impl FnOnce() -> Result<[u8; ID_LEN], String>,
    ) -> Result<[u8; ID_LEN], ParallelError> {
        let found = match self {
            Self::Loopback if world.size() > 1 && std::env::var_os("NCCL_COMM_ID").is_none() => {
                Err("NCCL_COMM_ID is not set; start the ranks of one machine with `train --nproc N`".into())
            }
            Self::Loopback => make(),
            Self::File(path) if world.leads() => make().and_then(|id| write(path, &id).map(|()| id)),
            Self::File(path) => wait(path, WAIT),
        };
        found.map_err(|reason| ParallelError::Transport { rank: world.rank(), reason })
    }

    /// Cleans up, once all ranks have met.
    pub fn leave(&self, world: World) {
        if let Self::File(path) = self
            && world.leads()
        {
            // It has done its work; one that stays is only untidy.
            let _ = fs::remove_file(path);
        }
    }
}

/// The file is whole or not there.
fn write(path: &Path, id: &[u8; ID_LEN]) -> Result<(), String> {
    let partial = path.with_extension("partial");
    fs::write(&partial, id)
        .and_then(|()| fs::rename(&partial, path))
        .map_err(|error| format!("{}: cannot write where the ranks meet: {error}", path.display()))
}

fn wait(path: &Path, limit: Duration) -> Result<[u8; ID_LEN], String> {
    let until = Instant::now() + limit;
    loop {
        match fs::read(path) {
            Ok(bytes) => {
                return bytes.try_into().map_err(|bytes: Vec<u8>| {
                    format!(
                        "{}: {} bytes instead of NCCL's {ID_LEN}; remove the file and start all ranks again",
                        path.display(),
                        bytes.len()
                    )
                });
            }
            Err(error) if Instant::now() >= until => {
                return Err(format!(
                    "{}: rank 0 has not written where the ranks meet within {} s ({error}); all ranks need the same \
                     output_dir, on a file system that they share",
                    path.display(),
                    limit.as_secs()
                ));
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(rank: usize) -> World {
        World::new(rank, 3, 1).unwrap()
    }

    #[test]
    fn ranks_meet_by_a_file_that_is_gone_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let rendezvous = Rendezvous::File(folder.path().join("nccl-job-0.id"));
        let id: [u8; ID_LEN] = std::array::from_fn(|place| place as u8);
        let found: Vec<_> = thread::scope(|scope| {
            let ranks: Vec<_> = (0..3)
                .rev()
                .map(|rank| {
                    let rendezvous = &rendezvous;
                    scope.spawn(move || {
                        rendezvous.agree(world(rank), || match rank {
                            0 => Ok(id),
                            _ => Err("rank 0 alone makes it".into()),
                        })
                    })
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        assert_eq!(found, vec![Ok(id); 3]);
        rendezvous.leave(world(1));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        rendezvous.leave(world(0));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_not_an_id_or_never_comes_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nccl-job-0.id");
        let error = wait(&path, Duration::ZERO).unwrap_err();
        assert!(error.contains("nccl-job-0.id") && error.contains("share"), "{error}");
        fs::write(&path, [1, 2, 3]).unwrap();
        let error = wait(&path, Duration::ZERO).unwrap_err();
        assert!(error.contains("3 bytes instead of NCCL's 128"), "{error}");
        let nowhere = Rendezvous::File(folder.path().join("missing/nccl-job-0.id"));
        let error = nowhere.agree(world(0), || Ok([0; ID_LEN])).unwrap_err().to_string();
        assert!(error.contains("missing/nccl-job-0.id"), "{error}");
    }
}
