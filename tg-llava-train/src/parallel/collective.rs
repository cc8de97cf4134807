use burn::tensor::Tensor;

use super::{ParallelError, World};

/// What ranks do together. All ranks call the same methods in the same order with tensors of the same lengths and dtypes; tensors are
/// flat and without graph.
///
/// Any error is final: the ranks no longer agree, and the caller ends.
pub trait Collective: Send {
    /// Which rank this is.
    fn world(&self) -> World;

    /// Slice `local_rank` of the same tensor of every rank of the node, one after the other by rank.
    ///
    /// # Shapes
    /// - each tensor: `[local_size * len]`, in and out
    ///
    /// # Errors
    /// [`ParallelError`] where a rank is gone, or does something else.
    fn transpose(&mut self, full: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError>;

    /// The tensors whose slices the ranks of the node hold. `old` is what they replace, of which the values are not read by ranks that
    /// really meet: it is given away so that it may go before the new one is there.
    ///
    /// # Shapes
    /// - shards: `[len]` each
    /// - old: `[count]` each, at most `local_size * len`; the zeros behind the last value may be missing
    /// - output: `[local_size * len]` each
    ///
    /// # Errors
    /// As [`Self::transpose`].
    fn all_gather(
        &mut self,
        shards: Vec<Tensor<1>>,
        old: Vec<Tensor<1>>,
    ) -> Result<Vec<Tensor<1>>, ParallelError>;

    /// The sums, over all nodes, of what the ranks with this one's `local_rank` hold.
    ///
    /// # Shapes
    /// - each tensor: `[len]`, in and out
    ///
    /// # Errors
    /// As [`Self::transpose`].
    fn sum_nodes(&mut self, shards: Vec<Tensor<1>>) -> Result<Vec<Tensor<1>>, ParallelError>;

    /// The bytes of every rank of the world, by rank; they may differ in length.
    ///
    /// # Errors
    /// As [`Self::transpose`].
    fn exchange(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, ParallelError>;

    /// Seconds that the device has spent in collectives since the last call, waiting for other ranks included; `None` where the calls
    /// themselves take that time.
    fn take_device_seconds(&mut self) -> Option<f64> {
        None
    }

    /// Whether the other ranks are only imagined, so that nothing that is computed means anything.
    fn is_simulated(&self) -> bool {
        false
    }
}
