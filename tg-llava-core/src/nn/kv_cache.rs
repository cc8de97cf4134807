use std::ops::Range;

use burn::tensor::{DType, Device, Tensor};

use super::kernels::attend_newest;
use super::{attention, causal_bias};

/// The decoder's memory of the tokens it has read: a slot a text, with a length and a capacity of its own.
///
/// A slot owns its tensors, so that texts of any length come and go while others run: taking a slot allocates
/// what this text needs and nothing moves, freeing it gives the memory back. Attention reads each text at
/// exactly its own length, with no padding, and so gives the bits of the text alone; it reads the
/// same bytes whether texts go one by one or together. The matrices of the decoder, which are what decoding
/// waits for, are read once for all. One tensor for all texts would save a GPU some kernel launches, and
/// cost padding to the longest, copies when a text leaves, and sums in another order.
#[derive(Debug)]
pub struct KvCache {
    slots: Vec<Option<Slot>>,
    num_layers: usize,
    /// Shape of one token's keys: heads and their width.
    token: [usize; 2],
    dtype: DType,
    device: Device,
}

#[derive(Debug, Clone)]
struct Slot {
    layers: Vec<LayerMemory>,
    len: usize,
    /// Tokens of the prompt.
    prompt: usize,
    capacity: usize,
}

/// Keys and values of one text in one layer, in memory that is allocated once.
#[derive(Debug, Clone)]
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

    /// Takes a slot for a prompt of `prompt` tokens and at most `more` behind it; its number is one that was freed, where
    /// there is one.
    pub fn take(&mut self, prompt: usize, more: usize) -> usize {
        let [heads, head_dim] = self.token;
        let capacity = prompt + more;
        let memory = || Some(Tensor::zeros([1, heads, capacity, head_dim], (&self.device, self.dtype)));
        let layers = (0..self.num_layers).map(|_| LayerMemory { key: memory(), value: memory() }).collect();
        self.put(Slot { layers, len: 0, prompt, capacity })
    }

    /// Takes a slot that holds what another one holds, with as much room; memory is shared until either is written to.
    ///
    /// # Panics
    /// Where the slot is free: a programmer's error.
    pub fn fork(&mut self, slot: usize) -> usize {
        self.put(self.slots[slot].clone().expect("a slot that is taken"))
    }

    /// Slots of texts that go on from others: for each, `parents` has the place of the other in `slots`. Those that nobody goes
    /// on from are freed.
    ///
    /// # Panics
    /// Where a slot is free: a programmer's error.
    pub fn follow(&mut self, slots: &[usize], parents: &[usize]) -> Vec<usize> {
        let mut taken = vec![false; slots.len()];
        let mut next = |&parent: &usize| match std::mem::replace(&mut taken[parent], true) {
            false => slots[parent],
            true => self.fork(slots[parent]),
        };
        let followers = parents.iter().map(&mut next).collect();
        let unused = slots.iter().zip(&taken).filter(|(_, taken)| !**taken);
        unused.for_each(|(&slot, _)| self.free(slot));
        followers
    }

    fn put(&mut self, slot: Slot) -> usize {
        let slot = Some(slot);
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

    /// Bytes of a slot with room for so many tokens.
    pub fn bytes_of(&self, tokens: usize) -> u64 {
        let [heads, head_dim] = self.token;
        [2, self.num_layers, heads, head_dim, tokens, self.dtype.size()]
            .into_iter()
            .fold(1, |bytes: u64, factor| bytes.saturating_mul(factor as u64))
    }

    /// Slots that are taken.
    pub fn taken(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// The texts that go through the decoder together: their slots, each with the number of its new tokens. The new tokens
    /// stand one text behind the other, in this order.
    ///
    /// # Panics
    /// Where a slot is free, named twice, or has no room for its tokens: a programmer's error.
    pub fn texts<'a>(&'a mut self, new: &[(usize, usize)]) -> CachedTexts<'a> {
        let mut all: Vec<Option<&mut Slot>> = self.slots.iter_mut().map(Option::as_mut).collect();
        let device = &self.device;
        let text = |&(slot, len): &(usize, usize)| {
            let slot = all[slot].take().expect("a slot that is taken, once");
            let new = slot.len..slot.len + len;
            assert!(new.end <= slot.capacity, "the KV cache is full");
            let context = new.end.max(slot.prompt);
            // The last token of a text sees everything.
            let bias = (new.start + 1 < context).then(|| causal_bias(new.clone(), context, device));
            CachedText { slot, new, context, bias }
        };
        CachedTexts { texts: new.iter().map(text).collect() }
    }
}

/// Texts of a [`KvCache`] that go through the decoder together, one behind the other.
#[derive(Debug)]
pub struct CachedTexts<'a> {
    texts: Vec<CachedText<'a>>,
}

#[derive(Debug)]
struct CachedText<'a> {
    slot: &'a mut Slot,
    /// Places of the new tokens in the text.
    new: Range<usize>,
    /// Tokens that attention reads: those so far and, while a prompt is read in pieces, the rest of it as hidden ones, so that
    /// sums have the order of the prompt at once.
    context: usize,
    /// Hides what comes after each new token.
    bias: Option<Tensor<4>>,
}

impl<'c> CachedTexts<'c> {
    /// New tokens of all texts.
    pub fn num_new(&self) -> usize {
        self.texts.iter().map(|text| text.new.len()).sum()
    }

    /// Whether each text has one new token.
    pub(crate) fn are_single(&self) -> bool {
        self.texts.iter().all(|text| text.new.len() == 1)
    }

    /// Places of each text's new tokens in it, and the number of tokens in its context.
    pub(crate) fn positions(&self) -> Vec<(Range<usize>, usize)> {
        self.texts.iter().map(|text| (text.new.clone(), text.context)).collect()
    }

    /// One layer's part.
    pub(crate) fn layer(&mut self, layer: usize) -> LayerTexts<'_, 'c> {
        LayerTexts { texts: &mut self.texts, layer }
    }

    /// Notes the new tokens, once every layer has them.
    pub(crate) fn advance(&mut self) {
        self.texts.iter_mut().for_each(|text| text.slot.len = text.new.end);
    }
}

/// One layer's keys and values of [`CachedTexts`].
#[derive(Debug)]
pub struct LayerTexts<'a, 'c> {
    texts: &'a mut [CachedText<'c>],
    layer: usize,
}

impl LayerTexts<'_, '_> {
    /// Keeps the new tokens' keys and values, and attends to all that is kept, text by text.
    ///
    /// # Shapes
    /// - query: `[1, num_heads, num_new, head_dim]`, or `[num_new, num_heads, 1, head_dim]` where each text has one; output the same
    /// - key, value: the same with `num_kv_heads`
    pub(crate) fn attend(self, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
        if let [text] = self.texts {
            return text.attend(self.layer, query, key, value);
        }
        if query.dims()[0] == self.texts.len() {
            let place = |tensor: &Tensor<4>, place| tensor.clone().narrow(0, place, 1);
            let texts = self.texts.iter_mut().enumerate();
            let kept: Vec<_> =
                texts.map(|(i, text)| text.keep(self.layer, place(&key, i), place(&value, i))).collect();
            if let Some(attended) = attend_newest(&query, &kept) {
                return attended;
            }
            let rows = kept.into_iter().enumerate();
            return Tensor::cat(rows.map(|(i, kept)| attend_all(place(&query, i), kept, None)).collect(), 0);
        }
        let mut start = 0;
        let mut attended = Vec::with_capacity(self.texts.len());
        for text in self.texts {
            let len = text.new.len();
            let [query, key, value] =
                [&query, &key, &value].map(|tensor| tensor.clone().narrow(2, start, len));
            attended.push(text.attend(self.layer, query, key, value));
            start += len;
        }
        Tensor::cat(attended, 2)
    }
}

/// A text's memory of keys and values, and how many of them attention reads.
type Kept = (Tensor<4>, Tensor<4>, usize);

impl CachedText<'_> {
    fn attend(&mut self, layer: usize, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
        let kept = self.keep(layer, key, value);
        if self.new.len() > 1 {
            return attend_all(query, kept, self.bias.as_ref());
        }
        attend_newest(&query, std::slice::from_ref(&kept)).unwrap_or_else(|| attend_all(query, kept, None))
    }

    /// Writes the new tokens' keys and values into the memory.
    fn keep(&mut self, layer: usize, key: Tensor<4>, value: Tensor<4>) -> Kept {
        let memory = &mut self.slot.layers[layer];
        let key = write(&mut memory.key, self.new.clone(), key);
        let value = write(&mut memory.value, self.new.clone(), value);
        // The newest token sees what stands before it, and no bias need say so.
        let seen = if self.new.len() == 1 { self.new.end } else { self.context };
        (key, value, seen)
    }
}

fn attend_all(query: Tensor<4>, (key, value, len): Kept, bias: Option<&Tensor<4>>) -> Tensor<4> {
    attention(query, key.narrow(2, 0, len), value.narrow(2, 0, len), bias, None)
}

/// Writes `new` at `places`; returns all of the memory.
fn write(memory: &mut Option<Tensor<4>>, places: Range<usize>, new: Tensor<4>) -> Tensor<4> {
    let [_, heads, _, head_dim] = new.dims();
    let all = memory.take().expect("the memory is only taken inside this function");
    let all = all.slice_assign([0..1, 0..heads, places, 0..head_dim], new);
    *memory = Some(all.clone());
    all
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    fn random(heads: usize, len: usize, device: &Device) -> Tensor<4> {
        Tensor::random([1, heads, len, 4], Distribution::Normal(0.0, 1.0), device)
    }

    fn values(tensor: Tensor<4>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn freed_slots_are_taken_again() {
        let mut cache = KvCache::new(2, [1, 4], DType::F32, &Device::flex());
        assert_eq!((cache.take(3, 0), cache.take(3, 2), cache.take(1, 0)), (0, 1, 2));
        cache.texts(&[(1, 4)]).advance();
        assert_eq!(cache.len(1), 4);
        cache.free(1);
        assert_eq!((cache.taken(), cache.len(1)), (2, 0));
        assert_eq!(cache.take(2, 7), 1);
        assert_eq!(cache.texts(&[(2, 1), (1, 2)]).positions(), [(0..1, 1), (0..2, 2)]);
    }

    /// As far as the backend's sums keep their order: longer texts than one stretch of a product, in pieces of the size that
    /// [`RowsAlike`](crate::nn::RowsAlike) allows.
    #[test]
    fn pieces_attend_as_the_whole() {
        let device = Device::flex();
        device.seed(5);
        let weight = Tensor::<2>::zeros([300, 300], &device).transpose();
        let piece = crate::nn::rows_alike(&weight).piece;
        let lengths = [700, piece, 600, piece + 30];
        let len = lengths.iter().sum();
        let mut cache = KvCache::new(1, [1, 4], DType::F32, &device);
        let [query, key, value] = [2, 1, 1].map(|heads| random(heads, len, &device));
        let slots = [cache.take(len, 0), cache.take(len, 0)];
        let whole =
            cache.texts(&[(slots[0], len)]).layer(0).attend(query.clone(), key.clone(), value.clone());
        let mut start = 0;
        for len in lengths {
            let [query, key, value] = [&query, &key, &value].map(|t| t.clone().narrow(2, start, len));
            let mut texts = cache.texts(&[(slots[1], len)]);
            let attended = texts.layer(0).attend(query, key, value);
            texts.advance();
            assert!(values(attended) == values(whole.clone().narrow(2, start, len)), "from {start}");
            start += len;
        }
    }

    /// A fork goes on from the same tokens, and neither sees what the other reads.
    #[test]
    fn forks_share_what_was_read_and_nothing_else() {
        let device = Device::flex();
        device.seed(4);
        let mut cache = KvCache::new(1, [1, 4], DType::F32, &device);
        let read = |cache: &mut KvCache, slot: usize, [query, key, value]: &[Tensor<4>; 3]| {
            let mut texts = cache.texts(&[(slot, key.dims()[2])]);
            let attended = texts.layer(0).attend(query.clone(), key.clone(), value.clone());
            texts.advance();
            values(attended)
        };
        let inputs = |len| [0; 3].map(|_| random(1, len, &device));
        let (prompt, new, other) = (inputs(3), inputs(1), inputs(1));
        let (first, alone) = (cache.take(3, 2), cache.take(3, 2));
        read(&mut cache, first, &prompt);
        read(&mut cache, alone, &prompt);
        let fork = cache.fork(first);
        let expected = [&new, &new].map(|new| read(&mut cache, alone, new));
        assert_eq!(read(&mut cache, first, &new), expected[0]);
        assert_ne!(read(&mut cache, fork, &other), expected[0]);
        assert_eq!(read(&mut cache, first, &new), expected[1]);
        assert_eq!(cache.bytes_of(5), 2 * 4 * 5 * 4);
    }

    #[test]
    #[should_panic(expected = "the KV cache is full")]
    fn a_text_without_room_is_refused() {
        let mut cache = KvCache::new(1, [1, 4], DType::F32, &Device::flex());
        let slot = cache.take(2, 1);
        cache.texts(&[(slot, 4)]);
    }

    /// Texts of unequal length and with unequal numbers of new tokens attend together as each would alone, to the bit.
    #[test]
    fn texts_attend_as_if_alone() {
        let device = Device::flex();
        device.seed(3);
        let mut cache = KvCache::new(1, [2, 4], DType::F32, &device);
        let mut alone = KvCache::new(1, [2, 4], DType::F32, &device);
        let new = |len| [random(4, len, &device), random(2, len, &device), random(2, len, &device)];
        for (slot, len) in [3, 1, 6].into_iter().enumerate() {
            let [query, key, value] = new(len);
            for cache in [&mut cache, &mut alone] {
                assert_eq!(cache.take(len, 5), slot);
                let mut texts = cache.texts(&[(slot, len)]);
                texts.layer(0).attend(query.clone(), key.clone(), value.clone());
                texts.advance();
            }
        }
        let order = [(2, 1), (0, 4), (1, 2)];
        let [query, key, value] = new(7);
        let together = cache.texts(&order).layer(0).attend(query.clone(), key.clone(), value.clone());
        let mut start = 0;
        for (slot, len) in order {
            let [query, key, value] = [&query, &key, &value].map(|t| t.clone().narrow(2, start, len));
            let single = alone.texts(&[(slot, len)]).layer(0).attend(query, key, value);
            assert_eq!(values(together.clone().narrow(2, start, len)), values(single));
            start += len;
        }
    }
}
