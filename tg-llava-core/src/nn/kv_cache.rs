use burn::tensor::{DType, Device, Tensor};

use super::attention;

/// The decoder's memory of the tokens it has read: a slot a sequence, with a length and a capacity of its own.
///
/// A slot owns its tensors, so that sequences of any length come and go while others run: taking a slot allocates
/// what this sequence needs and nothing moves, freeing it gives the memory back. Attention reads each sequence at
/// exactly its own length, with no padding and no mask, and so gives the bits of the sequence alone; it reads the
/// same bytes whether sequences go one by one or together. The matrices of the decoder, which are what decoding
/// waits for, are read once for all rows. One tensor for all sequences would save a GPU some kernel launches, and
/// cost padding to the longest, copies when a row leaves, and sums in another order.
#[derive(Debug)]
pub struct KvCache {
    slots: Vec<Option<Slot>>,
    num_layers: usize,
    /// Shape of one token's keys: heads and their width.
    token: [usize; 2],
    dtype: DType,
    device: Device,
}

#[derive(Debug)]
struct Slot {
    layers: Vec<LayerMemory>,
    len: usize,
    capacity: usize,
}

/// Keys and values of one sequence in one layer, in memory that is allocated once.
#[derive(Debug)]
struct LayerMemory {
    // `Option` so that the one reference can be moved into the in-place update.
    key: Option<Tensor<4>>,
    value: Option<Tensor<4>>,
}

impl KvCache {
    /// A cache without any slot, for `num_layers` layers of `num_kv_heads` heads of width `head_dim`.
    pub fn new(
        num_layers: usize,
        [num_kv_heads, head_dim]: [usize; 2],
        dtype: DType,
        device: &Device,
    ) -> Self {
        Self { slots: Vec::new(), num_layers, token: [num_kv_heads, head_dim], dtype, device: device.clone() }
    }

    /// Takes a slot for a sequence of at most `capacity` tokens; its number is one that was freed, where there is one.
    pub fn take(&mut self, capacity: usize) -> usize {
        let [heads, head_dim] = self.token;
        let memory = || Some(Tensor::zeros([1, heads, capacity, head_dim], (&self.device, self.dtype)));
        let layers = (0..self.num_layers).map(|_| LayerMemory { key: memory(), value: memory() }).collect();
        let slot = Some(Slot { layers, len: 0, capacity });
        match self.slots.iter().position(Option::is_none) {
            Some(number) => {
                self.slots[number] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        }
    }

    /// Frees a slot and its memory.
    pub fn free(&mut self, slot: usize) {
        self.slots[slot] = None;
    }

    /// Tokens that a slot holds; 0 for a free one.
    pub fn len(&self, slot: usize) -> usize {
        self.slots.get(slot).and_then(Option::as_ref).map_or(0, |slot| slot.len)
    }

    /// Slots that are taken.
    pub fn taken(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// The sequences that go through the decoder together: one a row, in this order.
    ///
    /// # Panics
    /// Where a slot is free or named twice: a programmer's error.
    pub fn rows<'a>(&'a mut self, slots: &[usize]) -> CachedRows<'a> {
        let mut all: Vec<Option<&mut Slot>> = self.slots.iter_mut().map(Option::as_mut).collect();
        let rows = slots.iter().map(|&slot| all[slot].take().expect("a slot that is taken, once")).collect();
        CachedRows { rows }
    }
}

/// Sequences of a [`KvCache`] that go through the decoder together, one a row.
#[derive(Debug)]
pub struct CachedRows<'a> {
    rows: Vec<&'a mut Slot>,
}

impl CachedRows<'_> {
    /// Tokens that each row holds.
    pub fn lengths(&self) -> Vec<usize> {
        self.rows.iter().map(|row| row.len).collect()
    }

    /// Whether every row has room for `len` more tokens.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        self.rows.iter().all(|row| row.len + len <= row.capacity)
    }

    /// One layer's part.
    pub(crate) fn layer(&mut self, index: usize) -> LayerRows<'_> {
        let rows = self.rows.iter_mut().map(|row| (row.len, &mut row.layers[index])).collect();
        LayerRows { rows }
    }

    /// Notes `len` new tokens of each row, once every layer has them.
    pub(crate) fn advance(&mut self, len: usize) {
        self.rows.iter_mut().for_each(|row| row.len += len);
    }
}

/// One layer's keys and values of [`CachedRows`], each with the number of tokens before this pass.
#[derive(Debug)]
pub struct LayerRows<'a> {
    rows: Vec<(usize, &'a mut LayerMemory)>,
}

impl LayerRows<'_> {
    /// Keeps the new tokens' keys and values, and attends to all that is kept, row by row.
    ///
    /// # Shapes
    /// - query: `[rows, num_heads, len, head_dim]`, output the same
    /// - key, value: `[rows, num_kv_heads, len, head_dim]`
    /// - bias: as [`attention`] takes it, for one row
    pub(crate) fn attend(
        self,
        query: Tensor<4>,
        key: Tensor<4>,
        value: Tensor<4>,
        bias: Option<&Tensor<4>>,
    ) -> Tensor<4> {
        let attend = |(past, memory): (usize, &mut LayerMemory), [query, key, value]: [Tensor<4>; 3]| {
            let key = append(&mut memory.key, past, key);
            let value = append(&mut memory.value, past, value);
            attention(query, key, value, bias, None)
        };
        let mut rows = self.rows.into_iter().enumerate();
        if rows.len() == 1 {
            return rows.next().map(|(_, row)| attend(row, [query, key, value])).expect("one row");
        }
        let row_of = |tensor: &Tensor<4>, row: usize| tensor.clone().narrow(0, row, 1);
        let attended =
            rows.map(|(row, memory)| attend(memory, [&query, &key, &value].map(|t| row_of(t, row))));
        Tensor::cat(attended.collect(), 0)
    }
}

/// Writes `new` behind `past` tokens and returns all that is kept then, `[1, heads, past + len, head_dim]`.
fn append(memory: &mut Option<Tensor<4>>, past: usize, new: Tensor<4>) -> Tensor<4> {
    let [_, heads, len, head_dim] = new.dims();
    let end = past + len;
    let all = memory.take().expect("the memory is only taken inside this function");
    let all = all.slice_assign([0..1, 0..heads, past..end, 0..head_dim], new);
    *memory = Some(all.clone());
    all.narrow(2, 0, end)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    fn random(rows: usize, heads: usize, len: usize, device: &Device) -> Tensor<4> {
        Tensor::random([rows, heads, len, 4], Distribution::Normal(0.0, 1.0), device)
    }

    fn values(tensor: Tensor<4>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn freed_slots_are_taken_again() {
        let mut cache = KvCache::new(2, [1, 4], DType::F32, &Device::flex());
        assert_eq!((cache.take(3), cache.take(5), cache.take(1)), (0, 1, 2));
        cache.rows(&[1]).advance(4);
        cache.free(1);
        assert_eq!((cache.taken(), cache.len(1)), (2, 0));
        assert_eq!(cache.take(9), 1);
        assert_eq!(cache.rows(&[2, 1]).lengths(), [0, 0]);
        assert!(cache.rows(&[1]).has_room(9) && !cache.rows(&[1, 2]).has_room(2));
    }

    /// Rows of unequal length attend together as each would alone, to the bit.
    #[test]
    fn rows_attend_as_if_alone() {
        let device = Device::flex();
        device.seed(3);
        let mut cache = KvCache::new(1, [2, 4], DType::F32, &device);
        let mut alone = KvCache::new(1, [2, 4], DType::F32, &device);
        let lengths = [3, 1, 6];
        for (slot, len) in lengths.into_iter().enumerate() {
            let prompt = [random(1, 4, len, &device), random(1, 2, len, &device), random(1, 2, len, &device)];
            for cache in [&mut cache, &mut alone] {
                assert_eq!(cache.take(len + 2), slot);
                let [query, key, value] = prompt.clone();
                let mut rows = cache.rows(&[slot]);
                rows.layer(0).attend(query, key, value, None);
                rows.advance(len);
            }
        }
        let [query, key, value] =
            [random(3, 4, 1, &device), random(3, 2, 1, &device), random(3, 2, 1, &device)];
        let order = [2, 0, 1];
        let together = cache.rows(&order).layer(0).attend(query.clone(), key.clone(), value.clone(), None);
        for (row, slot) in order.into_iter().enumerate() {
            let [query, key, value] = [&query, &key, &value].map(|t| t.clone().narrow(0, row, 1));
            let single = alone.rows(&[slot]).layer(0).attend(query, key, value, None);
            assert_eq!(values(together.clone().narrow(0, row, 1)), values(single));
        }
    }
}
