use burn::tensor::{DType, Device, Int, Tensor};

use super::{Collective, ParallelError, World};

/// How much [`check`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckSize {
    /// Times that everything is done.
    pub rounds: usize,
    /// Rows and columns of the products in between; a power of two, so that they are exact. Tensors have up to `side * side` values.
    pub side: usize,
}

/// Numbers of values to send at once, as parts of the largest tensor.
const PARTS: [usize; 3] = [1, 16, 256];

/// Calls every collective with values that are known, amid products that make them late and reuse their memory; `each` is called
/// after every round.
///
/// Nothing waits for the device but [`Collective::exchange`], so that what is read too early, or written over, shows.
///
/// # Errors
/// [`ParallelError::Wrong`] where other values arrive, and the collectives' own errors.
pub fn check(
    collective: &mut dyn Collective,
    device: &Device,
    size: CheckSize,
    mut each: impl FnMut(usize),
) -> Result<(), ParallelError> {
    let world = collective.world();
    let dtypes: Vec<DType> = [DType::F32, DType::BF16, DType::F16]
        .into_iter()
        .filter(|&dtype| device.supports_dtype(dtype))
        .collect();
    for round in 0..size.rounds {
        let made = Made { world, round, side: size.side, device };
        let mut wrong: Vec<(&str, Tensor<1>)> = Vec::new();
        for &dtype in &dtypes {
            let found = collective.transpose(made.each(|len| made.full(len, world.rank(), dtype)))?;
            wrong.push(("transpose", differences(found, made.each(|len| made.transposed(len, dtype)))));
            let shards = made.each(|len| made.shard(len, world.rank(), dtype));
            let old = made.each(|len| Tensor::zeros([len * world.local_size()], (device, dtype)));
            let found = collective.all_gather(shards, old)?;
            wrong.push(("all_gather", differences(found, made.each(|len| made.gathered(len, dtype)))));
        }
        let found = collective.sum_nodes(made.each(|len| made.shard(len, world.rank(), DType::F32)))?;
        wrong.push(("sum_nodes", differences(found, made.each(|len| made.summed(len)))));
        let bytes = collective.exchange(&made.bytes(world.rank()))?;
        if (0..world.size()).any(|rank| bytes.get(rank) != Some(&made.bytes(rank))) {
            return Err(made.wrong("exchange"));
        }
        for (what, differences) in wrong {
            let sum = differences.try_into_vec_as::<f32>().map_err(|error| ParallelError::Transport {
                rank: world.rank(),
                reason: error.to_string(),
            })?;
            if sum != [0.0] {
                return Err(made.wrong(what));
            }
        }
        each(round);
    }
    Ok(())
}

/// The values of one round.
struct Made<'a> {
    world: World,
    round: usize,
    side: usize,
    device: &'a Device,
}

impl Made<'_> {
    /// `make` for every length of a slice.
    fn each(&self, make: impl Fn(usize) -> Tensor<1>) -> Vec<Tensor<1>> {
        PARTS
            .into_iter()
            .map(|part| make((self.side * self.side / self.world.local_size() / part).max(1)))
            .collect()
    }

    /// Whole numbers below 251, which every format holds: `len` of those that belong to a rank, from one on.
    fn values(&self, start: usize, len: usize, rank: usize, dtype: DType) -> Tensor<1> {
        let seed = (7 * start + 31 * rank + 13 * self.round) as i64;
        Tensor::<1, Int>::arange(0..len as i64, self.device)
            .mul_scalar(7)
            .add_scalar(seed)
            .remainder_scalar(251)
            .float()
            .cast(dtype)
    }

    /// The same values, when the device is done with a product.
    fn late(&self, values: Tensor<1>) -> Tensor<1> {
        let (len, side) = (values.dims()[0], self.side);
        let ones = Tensor::<2>::ones([side, side], (self.device, values.dtype()));
        let product = ones.clone().matmul(ones).div_scalar(side as f32);
        values * product.reshape([side * side]).narrow(0, 0, len)
    }

    fn full(&self, len: usize, rank: usize, dtype: DType) -> Tensor<1> {
        self.late(self.values(0, len * self.world.local_size(), rank, dtype))
    }

    fn shard(&self, len: usize, rank: usize, dtype: DType) -> Tensor<1> {
        self.late(self.values(0, len, rank, dtype))
    }

    fn transposed(&self, len: usize, dtype: DType) -> Tensor<1> {
        let start = self.world.local_rank() * len;
        Tensor::cat(self.peers().map(|rank| self.values(start, len, rank, dtype)).collect(), 0)
    }

    fn gathered(&self, len: usize, dtype: DType) -> Tensor<1> {
        Tensor::cat(self.peers().map(|rank| self.values(0, len, rank, dtype)).collect(), 0)
    }

    fn summed(&self, len: usize) -> Tensor<1> {
        let ranks = (self.world.local_rank()..self.world.size()).step_by(self.world.local_size());
        ranks
            .map(|rank| self.values(0, len, rank, DType::F32))
            .fold(Tensor::zeros([len], (self.device, DType::F32)), |sum, values| sum + values)
    }

    /// The ranks of this node.
    fn peers(&self) -> impl Iterator<Item = usize> {
        let first = self.world.node() * self.world.local_size();
        first..first + self.world.local_size()
    }

    /// Bytes of a length that differs by rank and round, none among them.
    fn bytes(&self, rank: usize) -> Vec<u8> {
        let len = 1000 * ((rank + self.round) % 3) * (rank + 1) + (self.round % 2) * rank;
        (0..len).map(|place| (place * 7 + rank * 31 + self.round) as u8).collect()
    }

    fn wrong(&self, what: &str) -> ParallelError {
        ParallelError::Wrong { rank: self.world.rank(), what: format!("{what}, round {}", self.round) }
    }
}

/// How far the values are from those that they should be, together; not a number where lengths differ.
fn differences(found: Vec<Tensor<1>>, right: Vec<Tensor<1>>) -> Tensor<1> {
    let same = found.len() == right.len() && found.iter().zip(&right).all(|(a, b)| a.dims() == b.dims());
    let device = right[0].device();
    let start = if same { 0.0 } else { f32::NAN };
    found
        .into_iter()
        .zip(right)
        .filter(|_| same)
        .fold(Tensor::full([1], start, (&device, DType::F32)), |sum, (found, right)| {
            sum + (found.cast(DType::F32) - right.cast(DType::F32)).abs().sum()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Single;

    const SIZE: CheckSize = CheckSize { rounds: 3, side: 32 };

    /// One rank that spoils one collective in the second round.
    struct Spoiled {
        what: &'static str,
        calls: usize,
    }

    impl Spoiled {
        fn late(&mut self, what: &str) -> bool {
            self.calls += usize::from(self.what == what);
            self.what == what && self.calls == 4
        }
    }

    impl Collective for Spoiled {
        fn world(&self) -> World {
            World::SINGLE
        }
        fn transpose(&mut self, mut full: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
            if self.late("transpose") {
                full[1] = full[1].clone().flip([0]);
            }
            Ok(full)
        }
        fn all_gather(
            &mut self,
            mut shards: Vec<Tensor<1>>,
            old: Vec<Tensor<1>>,
        ) -> Result<Vec<Tensor<1>>, ParallelError> {
            if self.late("all_gather") {
                shards[2] = old[2].clone();
            }
            Ok(shards)
        }
        fn sum_nodes(&mut self, mut shards: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError> {
            if self.late("sum_nodes") {
                shards.pop();
            }
            Ok(shards)
        }
        fn exchange(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ParallelError> {
            Ok(if self.late("exchange") { vec![] } else { vec![bytes.to_vec()] })
        }
    }

    #[test]
    fn one_rank_alone_is_right_and_every_spoiled_collective_is_found() {
        let device = Device::flex();
        let mut rounds = Vec::new();
        check(&mut Single, &device, SIZE, |round| rounds.push(round)).unwrap();
        assert_eq!(rounds, [0, 1, 2]);
        for what in ["transpose", "all_gather", "sum_nodes", "exchange"] {
            let size = CheckSize { rounds: 5, ..SIZE };
            let found = check(&mut Spoiled { what, calls: 0 }, &device, size, |_| ());
            assert!(
                matches!(&found, Err(ParallelError::Wrong { rank: 0, what: told }) if told.starts_with(what)),
                "{what}: {found:?}"
            );
        }
    }
}
