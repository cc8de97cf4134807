use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use burn::tensor::{DType, Tensor};

use super::{Collective, ParallelError, World};

/// A rank that is a thread of this process; the threads compute one at a time.
///
/// That is not faster than one rank, but exactly what many would do: for tests, and for machines with one device. One at a time since
/// the CPU backends have one generator of random numbers a process.
pub struct Local {
    world: World,
    calls: u64,
    hub: Arc<Hub>,
}

/// Where the ranks meet.
struct Hub {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The rank that computes.
    turn: Option<usize>,
    /// Meetings that took place.
    met: u64,
    /// What the ranks have brought to the next meeting.
    brought: Vec<Option<Call>>,
    /// What they brought to the last one.
    last: Arc<Vec<Payload>>,
    /// Ranks that ended.
    gone: Vec<bool>,
    failure: Option<ParallelError>,
}

#[derive(Debug)]
struct Call {
    name: &'static str,
    payload: Payload,
}

#[derive(Debug)]
enum Payload {
    Tensors(Vec<Tensor<1>>),
    Bytes(Vec<u8>),
}

impl Call {
    /// What all ranks must have in common.
    fn shape(&self) -> (&'static str, Vec<(usize, DType)>) {
        let tensors = match &self.payload {
            Payload::Tensors(tensors) => tensors.iter().map(|t| (t.dims()[0], t.dtype())).collect(),
            Payload::Bytes(_) => Vec::new(),
        };
        (self.name, tensors)
    }
}

impl Local {
    /// `size` ranks, `local_size` on a (make-believe) node, each for a thread of its own that begins with [`Self::enter`].
    ///
    /// # Errors
    /// [`ParallelError::World`] where the numbers do not fit together.
    pub fn group(size: usize, local_size: usize) -> Result<Vec<Self>, ParallelError> {
        let state =
            State { brought: (0..size).map(|_| None).collect(), gone: vec![false; size], ..State::default() };
        let hub = Arc::new(Hub { state: Mutex::new(state), changed: Condvar::new() });
        let ranks = (0..size.max(1)).map(|rank| {
            let world = World::new(rank, size, local_size)?;
            Ok(Self { world, calls: 0, hub: Arc::clone(&hub) })
        });
        ranks.collect()
    }

    /// Runs `body` on `size` ranks, `local_size` on a node, each in a thread of its own; what came of them, by rank.
    ///
    /// # Errors
    /// [`ParallelError::World`] where the numbers do not fit together.
    ///
    /// # Panics
    /// Where `body` does.
    pub fn run<T: Send>(
        size: usize,
        local_size: usize,
        body: impl Fn(Self) -> T + Sync,
    ) -> Result<Vec<T>, ParallelError> {
        let rank = |local: Self| {
            local.enter();
            body(local)
        };
        let group = Self::group(size, local_size)?;
        Ok(std::thread::scope(|scope| {
            let threads: Vec<_> = group.into_iter().map(|local| scope.spawn(|| rank(local))).collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            ended.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        }))
    }

    /// Waits until it is this rank's turn to compute. It keeps the turn but for the time that it waits in collectives, until it is
    /// dropped.
    pub fn enter(&self) {
        drop(self.take_turn(self.hub.lock()));
    }

    fn take_turn<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.turn.is_some_and(|rank| rank != self.world.rank()) {
            state = self.hub.wait(state);
        }
        state.turn = Some(self.world.rank());
        state
    }

    /// What all ranks bring to their next meeting.
    fn meet(&mut self, name: &'static str, payload: Payload) -> Result<Arc<Vec<Payload>>, ParallelError> {
        let rank = self.world.rank();
        self.calls += 1;
        let mut state = self.hub.lock();
        let meeting = state.met + 1;
        state.brought[rank] = Some(Call { name, payload });
        state.turn = None;
        if state.brought.iter().all(Option::is_some) {
            let calls: Vec<Call> = state.brought.iter_mut().filter_map(Option::take).collect();
            match parted(&calls) {
                Some(failure) => state.failure = Some(failure),
                None => {
                    state.last = Arc::new(calls.into_iter().map(|call| call.payload).collect());
                    state.met = meeting;
                }
            }
        }
        self.hub.changed.notify_all();
        while state.met < meeting && state.failure.is_none() {
            let missing = (0..self.world.size()).find(|&r| state.gone[r] && state.brought[r].is_none());
            match missing {
                Some(gone) => {
                    let at = format!("{name} (number {})", self.calls);
                    state.failure = Some(ParallelError::Gone { rank: gone, waiting: rank, at });
                    self.hub.changed.notify_all();
                }
                None => state = self.hub.wait(state),
            }
        }
        state = self.take_turn(state);
        match &state.failure {
            Some(failure) if state.met < meeting => Err(failure.clone()),
            _ => Ok(Arc::clone(&state.last)),
        }
    }

    fn meet_with_tensors(
        &mut self,
        name: &'static str,
        tensors: Vec<Tensor<1>>,
    ) -> Result<Vec<Vec<Tensor<1>>>, ParallelError> {
        let met = self.meet(name, Payload::Tensors(tensors))?;
        let tensors = met.iter().map(|payload| match payload {
            Payload::Tensors(tensors) => tensors.clone(),
            Payload::Bytes(_) => Vec::new(),
        });
        Ok(tensors.collect())
    }

    /// The ranks of this one's node.
    fn node(&self) -> std::ops::Range<usize> {
        let first = self.world.node() * self.world.local_size();
        first..first + self.world.local_size()
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.gone[self.world.rank()] = true;
        if state.turn == Some(self.world.rank()) {
            state.turn = None;
        }
        drop(state);
        self.hub.changed.notify_all();
    }
}

/// How the ranks differ, if they do.
fn parted(calls: &[Call]) -> Option<ParallelError> {
    let shapes: Vec<_> = calls.iter().map(Call::shape).collect();
    let rank = shapes.iter().position(|shape| *shape != shapes[0])?;
    let words = |(name, tensors): &(&str, Vec<(usize, DType)>)| match tensors.len() {
        0 => (*name).to_owned(),
        _ => format!("{name} of {tensors:?}"),
    };
    Some(ParallelError::Parted {
        rank: 0,
        does: words(&shapes[0]),
        other: rank,
        other_does: words(&shapes[rank]),
    })
}

impl Collective for Local {
    fn world(&self) -> World {
        self.world
    }

    fn transpose(&mut self, full: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
        let (local_rank, local_size) = (self.world.local_rank(), self.world.local_size());
        let all = self.meet_with_tensors("transpose", full)?;
        let node = &all[self.node()];
        let slice = |tensor: &Tensor<1>| {
            let len = tensor.dims()[0] / local_size;
            tensor.clone().narrow(0, local_rank * len, len)
        };
        let slices = |at: usize| Tensor::cat(node.iter().map(|rank| slice(&rank[at])).collect(), 0);
        Ok((0..node[0].len()).map(slices).collect())
    }

    fn all_gather(
        &mut self,
        shards: Vec<Tensor<1>>,
        _old: Vec<Tensor<1>>,
    ) -> Result<Vec<Tensor<1>>, ParallelError> {
        let all = self.meet_with_tensors("all_gather", shards)?;
        let node = &all[self.node()];
        let whole = |at: usize| Tensor::cat(node.iter().map(|rank| rank[at].clone()).collect(), 0);
        Ok((0..node[0].len()).map(whole).collect())
    }

    fn sum_nodes(&mut self, shards: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
        if self.world.nodes() == 1 {
            return Ok(shards);
        }
        let all = self.meet_with_tensors("sum_nodes", shards)?;
        let same = all.iter().skip(self.world.local_rank()).step_by(self.world.local_size());
        let sum = |sums: Vec<Tensor<1>>, next: &Vec<Tensor<1>>| {
            sums.into_iter().zip(next).map(|(sum, next)| sum + next.clone()).collect()
        };
        let mut same = same.cloned();
        let first = same.next().unwrap_or_default();
        Ok(same.fold(first, |sums, next| sum(sums, &next)))
    }

    fn exchange(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ParallelError> {
        let met = self.meet("exchange", Payload::Bytes(bytes.to_vec()))?;
        let bytes = met.iter().map(|payload| match payload {
            Payload::Bytes(bytes) => bytes.clone(),
            Payload::Tensors(_) => Vec::new(),
        });
        Ok(bytes.collect())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn on_ranks<T: Send>(size: usize, local_size: usize, body: impl Fn(&mut Local) -> T + Sync) -> Vec<T> {
        Local::run(size, local_size, |mut rank| body(&mut rank)).unwrap()
    }

    fn tensor(values: impl IntoIterator<Item = f32>) -> Tensor<1> {
        let values: Vec<f32> = values.into_iter().collect();
        Tensor::from_floats(values.as_slice(), &Device::flex())
    }

    fn values(tensors: Vec<Tensor<1>>) -> Vec<Vec<f32>> {
        tensors.into_iter().map(|tensor| tensor.into_data().try_to_vec().unwrap()).collect()
    }

    #[test]
    fn collectives_give_what_they_say() {
        let found = on_ranks(4, 2, |rank| {
            let r = rank.world().rank() as f32;
            let transposed =
                rank.transpose(vec![tensor([r, 10.0 + r]), tensor((0..4).map(|i| 100.0 * r + i as f32))]);
            let gathered = rank.all_gather(vec![tensor([r])], vec![tensor([9.0, 9.0])]);
            let summed = rank.sum_nodes(vec![tensor([r, 1.0])]);
            let told = rank.exchange(&vec![7; rank.world().rank()]);
            (values(transposed.unwrap()), values(gathered.unwrap()), values(summed.unwrap()), told.unwrap())
        });
        assert_eq!(found[2].0, [vec![2.0, 3.0], vec![200.0, 201.0, 300.0, 301.0]]);
        assert_eq!(found[3].0, [vec![12.0, 13.0], vec![202.0, 203.0, 302.0, 303.0]]);
        assert_eq!(found[1].1, [[0.0, 1.0]]);
        assert_eq!(found[3].1, [[2.0, 3.0]]);
        assert_eq!((&found[1].2, &found[2].2), (&vec![vec![4.0, 2.0]], &vec![vec![2.0, 2.0]]));
        assert!(found.iter().all(|found| found.3 == [vec![], vec![7], vec![7, 7], vec![7, 7, 7]]));
    }

    /// Else the others would wait for ever.
    #[test]
    fn a_rank_that_skips_a_collective_ends_all_with_its_number() {
        let found = on_ranks(3, 3, |rank| {
            rank.exchange(&[])?;
            if rank.world().rank() == 1 {
                return Ok(vec![]);
            }
            rank.transpose(vec![tensor([0.0; 3])])
        });
        for rank in [0, 2] {
            let error = found[rank].as_ref().unwrap_err();
            assert!(matches!(error, ParallelError::Gone { rank: 1, .. }), "{error}");
            assert!(error.to_string().contains("transpose (number 2)"), "{error}");
        }
    }

    #[test]
    fn ranks_that_do_different_things_are_told() {
        let other_call = on_ranks(2, 2, |rank| match rank.world().rank() {
            0 => rank.exchange(&[1]).map(|_| ()),
            _ => rank.transpose(vec![tensor([1.0, 2.0])]).map(|_| ()),
        });
        let other_length = on_ranks(2, 2, |rank| {
            let length = 2 + 2 * rank.world().rank();
            rank.transpose(vec![tensor(vec![0.0; length])]).map(|_| ())
        });
        for found in [other_call, other_length] {
            assert!(found.iter().all(|f| matches!(f, Err(ParallelError::Parted { .. }))), "{found:?}");
        }
    }

    #[test]
    fn ranks_share_an_error_and_agree_on_the_rest() {
        let found = on_ranks(2, 2, |rank| {
            let own = rank.world().rank();
            let agreed = crate::parallel::agree::<_, ParallelError>(rank, Ok(own));
            let mine = ParallelError::Transport { rank: own, reason: "cut".into() };
            let failed = crate::parallel::together(rank, if own == 1 { Err(mine) } else { Ok(own) });
            (agreed.unwrap(), failed.unwrap_err())
        });
        assert!(found.iter().all(|(agreed, _)| *agreed == [0, 1]));
        assert!(matches!(&found[0].1, ParallelError::Other { rank: 1, message } if message.contains("cut")));
        assert!(matches!(&found[1].1, ParallelError::Transport { rank: 1, .. }));
    }

    #[test]
    fn one_rank_computes_at_a_time() {
        let inside = std::sync::atomic::AtomicUsize::new(0);
        on_ranks(4, 4, |rank| {
            for _ in 0..50 {
                use std::sync::atomic::Ordering::SeqCst;
                assert_eq!(inside.fetch_add(1, SeqCst), 0);
                std::thread::yield_now();
                inside.fetch_sub(1, SeqCst);
                rank.exchange(&[]).unwrap();
            }
        });
    }
}
