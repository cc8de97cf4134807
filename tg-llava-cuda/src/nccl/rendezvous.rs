use std::path::PathBuf;
use std::time::Duration;

use tg_llava_train::parallel::{ParallelError, World};

use super::handshake::{OwnFile, follow, lead};

/// Bytes of what NCCL's ranks must agree on before they meet.
pub const ID_LEN: usize = 128;

/// How long a rank waits for the others.
const WAIT: Duration = Duration::from_secs(300);

/// Where ranks find each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rendezvous {
    /// On one machine: the launcher has set `NCCL_COMM_ID=127.0.0.1:PORT` for all ranks, from which each makes the same id. A world of
    /// one needs no such variable.
    Loopback,
    /// A file in a folder that all ranks see, with others of nearly that name beside it. What earlier starts have left there does no
    /// harm, but ranks that start at the same time for different runs need different names.
    File(PathBuf),
}

/// What a rank joins with.
#[derive(Debug)]
pub struct Agreed {
    /// NCCL's id.
    pub id: [u8; ID_LEN],
    /// This rank's file, to be kept until all have joined.
    pub file: Option<OwnFile>,
}

impl Rendezvous {
    /// The id under which all ranks meet; `make` is NCCL's.
    ///
    /// # Errors
    /// [`ParallelError::Transport`] where there is none: no variable, a rank that does not come, or a file that cannot be written.
    pub fn agree(
        &self,
        world: World,
        make: impl FnOnce() -> Result<[u8; ID_LEN], String>,
    ) -> Result<Agreed, ParallelError> {
        let found = match self {
            Self::Loopback if world.size() > 1 && std::env::var_os("NCCL_COMM_ID").is_none() => {
                Err("NCCL_COMM_ID is not set; start the ranks of one machine with `train --nproc N`".into())
            }
            Self::Loopback => make().map(|id| (id, None)),
            Self::File(path) if world.leads() => {
                make().and_then(|id| Ok((id, Some(lead(path, world, &id, WAIT)?))))
            }
            Self::File(path) => follow(path, world, WAIT).map(|(id, own)| (id, Some(own))),
        };
        let (id, file) = found.map_err(|reason| ParallelError::Transport { rank: world.rank(), reason })?;
        Ok(Agreed { id, file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_0_alone_makes_the_id_and_its_error_ends_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let rendezvous = Rendezvous::File(folder.path().join("nccl-job.id"));
        let world = World::new(0, 3, 1).unwrap();
        let error = rendezvous.agree(world, || Err("no network".into())).unwrap_err().to_string();
        assert!(error.contains("no network"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
