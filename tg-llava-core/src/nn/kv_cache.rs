use burn::tensor::{DType, Device, Tensor};

/// Keys and values of one decoder layer, in memory that is allocated once.
#[derive(Debug)]
pub struct LayerCache {
    // `Option` so that the one reference can be moved into the in-place update.
    key: Option<Tensor<4>>,
    value: Option<Tensor<4>>,
}

impl LayerCache {
    /// Writes `key` and `value` behind the `filled` tokens and returns all that is cached then.
    ///
    /// # Shapes
    /// - key, value: `[batch, num_kv_heads, len, head_dim]`
    /// - output: two of `[batch, num_kv_heads, filled + len, head_dim]`
    pub(crate) fn append(
        &mut self,
        filled: usize,
        key: Tensor<4>,
        value: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        (write(&mut self.key, filled, key), write(&mut self.value, filled, value))
    }
}

fn write(slot: &mut Option<Tensor<4>>, filled: usize, new: Tensor<4>) -> Tensor<4> {
    let [batch, heads, len, head_dim] = new.dims();
    let end = filled + len;
    let all = slot.take().expect("the cache is only empty inside this function");
    let all = all.slice_assign([0..batch, 0..heads, filled..end, 0..head_dim], new);
    *slot = Some(all.clone());
    all.narrow(2, 0, end)
}

/// The decoder's memory of the tokens it has read, for a batch of rows with a common slot counter.
///
/// Rows of unequal length share slots: padding occupies slots too and is hidden by `key_mask`.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    filled: usize,
    capacity: usize,
    /// Per row, whether each filled slot holds a real token.
    key_mask: Vec<Vec<bool>>,
}

impl KvCache {
    /// An empty cache for `batch` rows of at most `capacity` tokens in each of `num_layers` layers.
    pub fn new(num_layers: usize, shape: [usize; 4], dtype: DType, device: &Device) -> Self {
        let [batch, _, capacity, _] = shape;
        let layers = (0..num_layers)
            .map(|_| LayerCache {
                key: Some(Tensor::zeros(shape, (device, dtype))),
                value: Some(Tensor::zeros(shape, (device, dtype))),
            })
            .collect();
        Self { layers, filled: 0, capacity, key_mask: vec![Vec::with_capacity(capacity); batch] }
    }

    /// Slots in use.
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether nothing was read yet.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Slots there are.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Per row, whether each filled slot holds a real token.
    pub fn key_mask(&self) -> &[Vec<bool>] {
        &self.key_mask
    }

    pub(crate) fn layer(&mut self, index: usize) -> &mut LayerCache {
        &mut self.layers[index]
    }

    /// Notes the tokens that are about to be appended to every layer; `real[row][i]` is false for padding.
    pub(crate) fn note(&mut self, real: &[Vec<bool>]) {
        for (row, new) in self.key_mask.iter_mut().zip(real) {
            row.extend(new);
        }
    }

    pub(crate) fn advance(&mut self, len: usize) {
        self.filled += len;
    }
}
