use std::ops::Range;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::collective::CommunicatorCollectives;
use mpi::datatype::PartitionMut;
use mpi::topology::{Color, Communicator, SimpleCommunicator};

use super::{Call, ParallelError, World};

/// How long a rank that ends waits for the others to end as well.
pub(super) const PARTING: Duration = Duration::from_secs(30);

/// Bytes of all ranks in one call. MPI counts with 32 bits; less than that keeps the copies in the caches.
const PIECE: usize = 1 << 20;

/// The ranks that talk to each other.
pub(super) struct Groups {
    world: SimpleCommunicator,
    /// Those of this node.
    node: SimpleCommunicator,
    /// Those of the same local rank, by node.
    across: SimpleCommunicator,
    /// All, for the last call alone.
    parting: SimpleCommunicator,
}

/// Starts MPI, makes the calls that come, and ends MPI.
pub(super) fn serve(tell: &mpsc::Sender<Result<World, ParallelError>>, todo: mpsc::Receiver<Call>) {
    let Some((universe, threading)) = mpi::initialize_with_threading(Threading::Funneled) else {
        let reason = "MPI has been joined before; a process can join it once".into();
        let _ = tell.send(Err(ParallelError::Transport { rank: 0, reason }));
        return;
    };
    let joined = match threading {
        Threading::Single => Err(ParallelError::Transport {
            rank: 0,
            reason: "this MPI bears no threads beside its own; use one built with MPI_THREAD_FUNNELED".into(),
        }),
        _ => Groups::new(universe.world()),
    };
    let all_leave = match joined {
        Ok((groups, world)) => {
            let _ = tell.send(Ok(world));
            for call in todo {
                call(&groups);
            }
            groups.part()
        }
        // What is wrong is so for all ranks, so all come here.
        Err(error) => {
            let _ = tell.send(Err(error));
            true
        }
    };
    if !all_leave {
        // Finalize would wait for the others.
        std::mem::forget(universe);
    }
}

impl Groups {
    fn new(world: SimpleCommunicator) -> Result<(Self, World), ParallelError> {
        let (rank, size) = (world.rank(), world.size());
        let node = world.split_shared(rank);
        let own = [node.rank(), node.size()];
        let mut all = vec![0; 2 * count(size)];
        world.all_gather_into(&own, &mut all[..]);
        let by_node = (0..).zip(all.chunks_exact(2)).all(|(rank, of)| of == [rank % own[1], own[1]]);
        if !by_node {
            let reason =
                "the ranks are not numbered node by node with as many on each; start them with `mpirun \
                          --map-by slot`, and the same number of slots on every node"
                    .into();
            return Err(ParallelError::Transport { rank: count(rank), reason });
        }
        let across = world.split_by_color_with_key(Color::with_value(own[0]), rank).ok_or_else(|| {
            ParallelError::Transport { rank: count(rank), reason: "MPI made no group over the nodes".into() }
        })?;
        let numbers = World::new(count(rank), count(size), count(own[1]))?;
        Ok((Self { node, across, parting: world.duplicate(), world }, numbers))
    }

    /// Slice `r` of each rank's bytes to rank `r` of the node.
    pub(super) fn transpose(&self, full: &[u8]) -> Vec<u8> {
        let ranks = count(self.node.size());
        let len = full.len() / ranks;
        let mut received = vec![0; full.len()];
        for piece in pieces(len, ranks) {
            let sent: Vec<&[u8]> = full.chunks_exact(len).map(|slice| &slice[piece.clone()]).collect();
            let sent = sent.concat();
            let mut part = vec![0; sent.len()];
            self.node.all_to_all_into(&sent[..], &mut part[..]);
            put(&mut received, len, &piece, &part);
        }
        received
    }

    /// The bytes of all ranks of the node, one after the other.
    pub(super) fn all_gather(&self, shard: &[u8]) -> Vec<u8> {
        let len = shard.len();
        let mut received = vec![0; len * count(self.node.size())];
        gather(&self.node, shard, |piece, part| put(&mut received, len, &piece, part));
        received
    }

    /// The sums of f32 values over the nodes, added in their order.
    pub(super) fn sum_nodes(&self, shard: &[u8]) -> Vec<u8> {
        let mut sums = Vec::with_capacity(shard.len());
        gather(&self.across, shard, |piece, part| {
            // What zero is to others: it leaves the first node's values as they are, the sign of a zero too.
            let mut sum = vec![-0.0f32; piece.len() / size_of::<f32>()];
            for node in part.chunks_exact(piece.len()) {
                for (sum, value) in sum.iter_mut().zip(node.as_chunks().0) {
                    *sum += f32::from_ne_bytes(*value);
                }
            }
            sums.extend(sum.into_iter().flat_map(f32::to_ne_bytes));
        });
        sums
    }

    /// The bytes of all ranks of the world, of any lengths.
    pub(super) fn exchange(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let ranks = count(self.world.size());
        let mut lens = vec![0u64; ranks];
        self.world.all_gather_into(&(bytes.len() as u64), &mut lens[..]);
        let longest = lens.iter().copied().max().unwrap_or(0);
        let mut all = vec![Vec::new(); ranks];
        for piece in pieces(longest as usize, ranks) {
            let own = |len: usize| piece.start.min(len)..piece.end.min(len);
            let counts: Vec<i32> = lens.iter().map(|&len| own(len as usize).len() as i32).collect();
            let starts: Vec<i32> =
                counts.iter().scan(0, |next, count| Some(std::mem::replace(next, *next + count))).collect();
            let mut part = vec![0; counts.iter().map(|&count| count as usize).sum()];
            let mut into = PartitionMut::new(&mut part[..], &counts[..], &starts[..]);
            self.world.all_gather_varcount_into(&bytes[own(bytes.len())], &mut into);
            for ((all, &start), &count) in all.iter_mut().zip(&starts).zip(&counts) {
                all.extend_from_slice(&part[start as usize..(start + count) as usize]);
            }
        }
        all
    }

    /// Waits for all ranks to come here; whether they did.
    fn part(self) -> bool {
        let until = Instant::now() + PARTING;
        let mut barrier = self.parting.immediate_barrier();
        loop {
            match barrier.test() {
                Ok(_) => return true,
                Err(waiting) if Instant::now() < until => barrier = waiting,
                Err(waiting) => {
                    // Neither a request nor a group can be given back alone.
                    std::mem::forget(waiting);
                    std::mem::forget(self);
                    return false;
                }
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A number of ranks, which MPI gives as a signed one.
fn count(ranks: i32) -> usize {
    ranks.unsigned_abs() as usize
}

/// Ranges of at most [`PIECE`] bytes over all ranks, whole values of any dtype each, that cover `len` bytes.
fn pieces(len: usize, ranks: usize) -> impl Iterator<Item = Range<usize>> {
    let step = (PIECE / ranks).next_multiple_of(size_of::<f64>());
    (0..len).step_by(step).map(move |start| start..len.min(start + step))
}

/// Calls `take` with each piece of `own` and that piece of all ranks, one after the other.
fn gather(group: &SimpleCommunicator, own: &[u8], mut take: impl FnMut(Range<usize>, &[u8])) {
    let ranks = count(group.size());
    for piece in pieces(own.len(), ranks) {
        let mut part = vec![0; piece.len() * ranks];
        group.all_gather_into(&own[piece.clone()], &mut part[..]);
        take(piece, &part);
    }
}

/// Puts a piece of every rank's slice of `len` bytes where it belongs.
fn put(into: &mut [u8], len: usize, piece: &Range<usize>, part: &[u8]) {
    for (slice, part) in into.chunks_exact_mut(len).zip(part.chunks_exact(piece.len())) {
        slice[piece.clone()].copy_from_slice(part);
    }
}
