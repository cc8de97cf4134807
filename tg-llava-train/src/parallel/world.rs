use super::ParallelError;

/// Which of all ranks this one is. Ranks are numbered node by node, and all nodes have as many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct World {
    rank: usize,
    size: usize,
    local_size: usize,
}

impl World {
    /// One rank alone.
    pub const SINGLE: Self = Self { rank: 0, size: 1, local_size: 1 };

    /// Rank `rank` of `size`, of which `local_size` share a node.
    ///
    /// # Errors
    /// [`ParallelError::World`] where these do not fit together.
    pub fn new(rank: usize, size: usize, local_size: usize) -> Result<Self, ParallelError> {
        if rank < size && local_size > 0 && size.is_multiple_of(local_size) {
            return Ok(Self { rank, size, local_size });
        }
        Err(ParallelError::World { rank, size, local_size })
    }

    /// This rank, from 0.
    pub fn rank(self) -> usize {
        self.rank
    }

    /// All ranks.
    pub fn size(self) -> usize {
        self.size
    }

    /// This rank's number within its node.
    pub fn local_rank(self) -> usize {
        self.rank % self.local_size
    }

    /// Ranks on this node; they share out the optimizer's state.
    pub fn local_size(self) -> usize {
        self.local_size
    }

    /// This rank's node, from 0.
    pub fn node(self) -> usize {
        self.rank / self.local_size
    }

    /// All nodes; each holds the whole optimizer state.
    pub fn nodes(self) -> usize {
        self.size / self.local_size
    }

    /// Whether this rank speaks for all: it logs, and writes what is written once.
    pub fn leads(self) -> bool {
        self.rank == 0
    }

    /// Whether slot `place` of a step is this rank's.
    pub fn owns(self, place: usize) -> bool {
        place % self.size == self.rank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_numbered_node_by_node() {
        let world = World::new(5, 8, 4).unwrap();
        assert_eq!((world.node(), world.nodes(), world.local_rank()), (1, 2, 1));
        assert!(world.owns(13) && !world.owns(4) && !world.leads());
        for (rank, size, local) in [(8, 8, 8), (0, 8, 3), (0, 0, 1), (0, 4, 0)] {
            assert!(World::new(rank, size, local).is_err());
        }
    }
}
