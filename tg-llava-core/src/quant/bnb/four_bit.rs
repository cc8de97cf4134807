use super::codes::{DYNAMIC, dynamic_code, nearest_nf4};
use super::mean::mean;
use super::{BnbError, FourBitKind, NestedState, QuantState};

/// Values of a block where we quantise: the library's default.
const BLOCK: usize = 64;
/// Absmax of a block of absmax.
const NESTED_BLOCK: usize = 256;

/// A tensor in four bits a value, as bitsandbytes holds it.
///
/// The tensor is flattened row by row and cut into blocks; a value is `map[code]` times its block's absmax.
#[derive(Debug, Clone, PartialEq)]
pub struct FourBit {
    state: QuantState,
    packed: Vec<u8>,
    absmax: Absmax,
    map: [f32; 16],
}

/// The largest magnitude of each block.
#[derive(Debug, Clone, PartialEq)]
pub enum Absmax {
    /// As it is.
    Single(Vec<f32>),
    /// Quantised in turn.
    Double(NestedAbsmax),
}

/// How quantising stores the largest magnitudes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbsmaxStorage {
    /// In f32: 4.5 bits a value in all.
    Single,
    /// In eight bits ("double quantisation"): 4.127 bits a value in all.
    Double,
}

/// Absmax in eight bits: `map[code]` times the absmax of its block, plus `offset`.
#[derive(Debug, Clone, PartialEq)]
pub struct NestedAbsmax {
    /// A code for each block of the tensor (`absmax`).
    pub codes: Vec<u8>,
    /// Largest magnitudes of the blocks of codes (`nested_absmax`).
    pub absmax: Vec<f32>,
    /// What the codes stand for (`nested_quant_map`).
    pub map: Box<[f32; 256]>,
    /// Codes of a block.
    pub blocksize: usize,
    /// Mean of all absmax.
    pub offset: f32,
}

impl Absmax {
    /// The absmax of block `index` of the tensor.
    pub fn of_block(&self, index: usize) -> f32 {
        match self {
            Self::Single(values) => values[index],
            Self::Double(nested) => {
                let value = nested.map[usize::from(nested.codes[index])];
                value * nested.absmax[index / nested.blocksize] + nested.offset
            }
        }
    }

    fn form(&self) -> &'static str {
        match self {
            Self::Single(_) => "floats",
            Self::Double(_) => "8-bit codes",
        }
    }
}

impl FourBit {
    /// A tensor from the parts that a file holds; `packed` has two codes a byte, the first in the high half.
    ///
    /// # Errors
    /// Where the parts do not fit the state.
    pub fn new(state: QuantState, packed: Vec<u8>, absmax: Absmax, map: [f32; 16]) -> Result<Self, BnbError> {
        let check = |part, expected: usize, found: usize| match expected == found {
            true => Ok(()),
            false => Err(BnbError::Length { part, expected, found }),
        };
        check("weight", state.num_elements().div_ceil(2), packed.len())?;
        match (&absmax, &state.nested) {
            (Absmax::Single(values), None) => check("absmax", state.num_blocks(), values.len())?,
            (Absmax::Double(nested), Some(described)) => {
                check("absmax", state.num_blocks(), nested.codes.len())?;
                check(
                    "nested_absmax",
                    state.num_blocks().div_ceil(described.blocksize),
                    nested.absmax.len(),
                )?;
                if nested.blocksize != described.blocksize {
                    let (expected, found) = (described.blocksize, nested.blocksize);
                    return Err(BnbError::Length { part: "block of absmax", expected, found });
                }
            }
            (stored, described) => {
                let described = if described.is_some() { "8-bit codes" } else { "floats" };
                return Err(BnbError::AbsmaxForm { stored: stored.form(), described });
            }
        }
        Ok(Self { state, packed, absmax, map })
    }

    /// Quantises a tensor of `shape` to NF4. `dtype` is the number format that it has in its file, as PyTorch calls it.
    ///
    /// # Panics
    /// Where `values` do not fill the shape.
    pub fn quantise_nf4(values: &[f32], shape: &[usize], dtype: &str, storage: AbsmaxStorage) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values of shape {shape:?}");
        let absmax: Vec<f32> = values.chunks(BLOCK).map(largest_magnitude).collect();
        let mut packed = vec![0; values.len().div_ceil(2)];
        for ((block, absmax), packed) in values.chunks(BLOCK).zip(&absmax).zip(packed.chunks_mut(BLOCK / 2)) {
            let inverse = inverse(*absmax);
            let code = |value: f32| nearest_nf4(value * inverse);
            for (pair, byte) in block.chunks(2).zip(packed) {
                // What fills the last byte of an odd number of values is a zero.
                *byte = code(pair[0]) << 4 | code(pair.get(1).copied().unwrap_or(0.0));
            }
        }
        let absmax = match storage {
            AbsmaxStorage::Single => Absmax::Single(absmax),
            AbsmaxStorage::Double => Absmax::Double(NestedAbsmax::quantise(&absmax)),
        };
        let nested = match &absmax {
            Absmax::Single(_) => None,
            Absmax::Double(nested) => Some(NestedState {
                blocksize: nested.blocksize,
                dtype: "float32".into(),
                offset: nested.offset.into(),
            }),
        };
        let kind = FourBitKind::Nf4;
        let state = QuantState { kind, blocksize: BLOCK, dtype: dtype.into(), shape: shape.to_vec(), nested };
        Self { state, packed, absmax, map: kind.map() }
    }

    /// Writes the values from number `first` on, counted through the flattened tensor, until `out` is full.
    ///
    /// # Panics
    /// Where the tensor ends before.
    pub fn dequantise(&self, first: usize, out: &mut [f32]) {
        let end = first + out.len();
        assert!(end <= self.state.num_elements(), "values {first}..{end} of {:?}", self.state.shape);
        let (mut at, mut out) = (first, out);
        while !out.is_empty() {
            let block = at / self.state.blocksize;
            let absmax = self.absmax.of_block(block);
            let values = self.map.map(|value| value * absmax);
            let count = ((block + 1) * self.state.blocksize - at).min(out.len());
            let (part, rest) = out.split_at_mut(count);
            self.decode(at, part, &values);
            (at, out) = (at + count, rest);
        }
    }

    /// Writes `values[code]` for the codes from number `at` on.
    fn decode(&self, at: usize, out: &mut [f32], values: &[f32; 16]) {
        let odd = (at % 2).min(out.len());
        let (head, pairs) = out.split_at_mut(odd);
        let packed = &self.packed[at / 2..];
        for value in head {
            *value = values[usize::from(packed[0] & 15)];
        }
        for (pair, byte) in pairs.chunks_mut(2).zip(&packed[odd..]) {
            pair[0] = values[usize::from(byte >> 4)];
            if let Some(second) = pair.get_mut(1) {
                *second = values[usize::from(byte & 15)];
            }
        }
    }

    /// What the tensor was.
    pub fn state(&self) -> &QuantState {
        &self.state
    }

    /// The codes, two a byte, the first in the high half (`weight`).
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// The largest magnitude of each block.
    pub fn absmax(&self) -> &Absmax {
        &self.absmax
    }

    /// What the codes stand for (`quant_map`).
    pub fn map(&self) -> &[f32; 16] {
        &self.map
    }

    /// Bytes in memory.
    pub fn byte_len(&self) -> usize {
        let absmax = match &self.absmax {
            Absmax::Single(values) => size_of_val(&values[..]),
            Absmax::Double(nested) => {
                nested.codes.len() + size_of_val(&nested.absmax[..]) + size_of_val(&nested.map[..])
            }
        };
        self.packed.len() + absmax + size_of_val(&self.map)
    }
}

impl NestedAbsmax {
    fn quantise(absmax: &[f32]) -> Self {
        let offset = mean(absmax);
        let centred: Vec<f32> = absmax.iter().map(|value| value - offset).collect();
        let absmax: Vec<f32> = centred.chunks(NESTED_BLOCK).map(largest_magnitude).collect();
        let blocks = centred.chunks(NESTED_BLOCK).zip(&absmax);
        let codes = blocks.flat_map(|(block, absmax)| {
            let inverse = inverse(*absmax);
            block.iter().map(move |value| dynamic_code(value * inverse))
        });
        Self { codes: codes.collect(), absmax, map: Box::new(*DYNAMIC), blocksize: NESTED_BLOCK, offset }
    }
}

fn largest_magnitude(block: &[f32]) -> f32 {
    block.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// What a block is multiplied by to lie in [-1, 1].
fn inverse(absmax: f32) -> f32 {
    if absmax > 0.0 { 1.0 / absmax } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Any part of a tensor is that part of the whole, whatever its ends.
        #[test]
        fn a_part_is_dequantised_as_in_the_whole(
            values in prop::collection::vec(-3f32..3.0, 1..700), first in 0usize..700, count in 0usize..700,
        ) {
            let first = first % values.len();
            let count = count % (values.len() - first + 1);
            let tensor = FourBit::quantise_nf4(&values, &[values.len()], "float32", AbsmaxStorage::Double);
            let mut whole = vec![0.0; values.len()];
            tensor.dequantise(0, &mut whole);
            let mut part = vec![0.0; count];
            tensor.dequantise(first, &mut part);
            prop_assert_eq!(&part[..], &whole[first..first + count]);
        }

        /// A value moves by at most half of the widest gap between codes, and by what double quantisation moves its absmax.
        #[test]
        fn values_come_back_nearly(values in prop::collection::vec(-3f32..3.0, 1..700)) {
            for (storage, slack) in [(AbsmaxStorage::Single, 0.0), (AbsmaxStorage::Double, 0.08)] {
                let tensor = FourBit::quantise_nf4(&values, &[values.len()], "float32", storage);
                let mut back = vec![0.0; values.len()];
                tensor.dequantise(0, &mut back);
                for (value, back) in values.iter().zip(&back) {
                    prop_assert!((value - back).abs() <= 3.0 * (0.152 + slack), "{} came back as {}", value, back);
                }
            }
        }
    }

    #[test]
    fn a_block_of_zeros_stays_zero() {
        let tensor = FourBit::quantise_nf4(&[0.0; 65], &[65], "float32", AbsmaxStorage::Double);
        let mut back = [1.0; 65];
        tensor.dequantise(0, &mut back);
        assert_eq!(back, [0.0; 65]);
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        let whole = FourBit::quantise_nf4(&[1.0; 130], &[2, 65], "float32", AbsmaxStorage::Single);
        let parts = |packed: usize, absmax: Absmax| {
            FourBit::new(whole.state.clone(), vec![0; packed], absmax, whole.map)
                .map_err(|error| error.to_string())
        };
        assert!(parts(65, whole.absmax.clone()).is_ok());
        assert!(parts(64, whole.absmax.clone()).unwrap_err().contains("weight has 64 values"));
        assert!(parts(65, Absmax::Single(vec![1.0; 2])).unwrap_err().contains("absmax has 2 values"));
        let codes = Absmax::Double(NestedAbsmax::quantise(&[1.0; 3]));
        assert!(parts(65, codes).unwrap_err().contains("stored as 8-bit codes"));
    }
}
