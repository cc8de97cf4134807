/// Why ranks cannot go on together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParallelError {
    /// Numbers of ranks that cannot be.
    #[error(
        "rank {rank} of {size} with {local_size} ranks a node cannot be: ranks count from 0, and every node needs as many"
    )]
    World {
        /// This rank.
        rank: usize,
        /// All ranks.
        size: usize,
        /// Ranks a node.
        local_size: usize,
    },
    /// A rank ended while others wait for it.
    #[error("rank {rank} is gone while rank {waiting} waits for it in {at}")]
    Gone {
        /// The rank that ended.
        rank: usize,
        /// The rank that tells.
        waiting: usize,
        /// The collective, with its number.
        at: String,
    },
    /// Ranks do different things.
    #[error(
        "the ranks have parted: rank {rank} does {does}, rank {other} does {other_does}; this is a fault of the program"
    )]
    Parted {
        /// One rank.
        rank: usize,
        /// Its collective.
        does: String,
        /// Another.
        other: usize,
        /// Its collective.
        other_does: String,
    },
    /// Ranks were started with different programs, runs or data.
    #[error(
        "rank {rank} was started otherwise than rank 0: {what}; start all ranks with the same program, options and files"
    )]
    Unlike {
        /// The rank that differs.
        rank: usize,
        /// What differs.
        what: String,
    },
    /// Bytes or tensors could not be sent or received.
    #[error("rank {rank} cannot reach the others: {reason}")]
    Transport {
        /// The rank that tells.
        rank: usize,
        /// What the library said.
        reason: String,
    },
    /// Values arrived that nobody sent.
    #[error(
        "rank {rank} got wrong values from {what}; the network, its driver or its library is not to be trusted here"
    )]
    Wrong {
        /// The rank that tells.
        rank: usize,
        /// The collective.
        what: String,
    },
    /// Another rank failed.
    #[error("rank {rank}: {message}")]
    Other {
        /// The rank.
        rank: usize,
        /// Its error.
        message: String,
    },
}
