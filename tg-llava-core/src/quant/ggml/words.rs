//! Blocks taken apart into whole words of 32 bits, as GPUs like to read them: the integers of all rows in one list, what belongs to them
//! in another. No bit is lost and few are added.

use super::block::array;
use super::format::with_block;
use super::k_quants::six_bits;
use super::{Block, GROUP, GgmlType};

/// How the values of a format lie in words.
///
/// Value `k` of a row is `(low | high << low_bits) - zero`, times the scale of its 16 values, plus their offset. `low` has `low_bits`
/// bits in [`Words::quants`], from the lowest bit of a word on; `high` has `high_bits` bits behind the row's scales, in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WordLayout {
    /// 8 or 4.
    pub low_bits: usize,
    /// 0, 1 or 2.
    pub high_bits: usize,
    /// What stored integers begin at.
    pub zero: u32,
    /// How scales are stored.
    pub scales: ScaleWords,
}

/// How the scales of a row lie in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScaleWords {
    /// An f16 for 32 values, two in a word.
    Single,
    /// For 32 values a word: scale and offset as f16.
    WithOffset,
    /// For 256 values five words: scale and minimum of all as f16, then a byte of scale and a byte of minimum for each 32, to be multiplied
    /// with those. The minimum is taken off.
    Grouped,
    /// For 256 values five words: the scale of all as f16, then a byte for each 16, 128 too large.
    Signed,
}

/// A matrix in words, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// Low bits of all values, [`WordLayout::quant_words`] a row.
    pub quants: Vec<u32>,
    /// Scales, then high bits: [`WordLayout::scale_words`] and [`WordLayout::high_words`] a row.
    pub scales: Vec<u32>,
}

impl WordLayout {
    /// The layout of a format; `None` for plain floats.
    pub fn of(format: GgmlType) -> Option<Self> {
        let (low_bits, high_bits, scales) = match format {
            GgmlType::Q4_0 => (4, 0, ScaleWords::Single),
            GgmlType::Q4_1 => (4, 0, ScaleWords::WithOffset),
            GgmlType::Q5_0 => (4, 1, ScaleWords::Single),
            GgmlType::Q5_1 => (4, 1, ScaleWords::WithOffset),
            GgmlType::Q8_0 => (8, 0, ScaleWords::Single),
            GgmlType::Q4_K => (4, 0, ScaleWords::Grouped),
            GgmlType::Q5_K => (4, 1, ScaleWords::Grouped),
            GgmlType::Q6_K => (4, 2, ScaleWords::Signed),
            GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 => return None,
        };
        let zero = with_block!(format, B => u32::from(B::ZERO), float => return None);
        Some(Self { low_bits, high_bits, zero, scales })
    }

    /// Words of low bits in a row of `columns` values, which are whole blocks.
    pub fn quant_words(self, columns: usize) -> usize {
        columns * self.low_bits / 32
    }

    /// Words of scales.
    pub fn scale_words(self, columns: usize) -> usize {
        match self.scales {
            ScaleWords::Single => columns.div_ceil(2 * GROUP),
            ScaleWords::WithOffset => columns / GROUP,
            ScaleWords::Grouped | ScaleWords::Signed => 5 * (columns / 256),
        }
    }

    /// Words of high bits.
    pub fn high_words(self, columns: usize) -> usize {
        columns * self.high_bits / 32
    }

    /// Takes rows of `columns` values apart, which are stored as `blocks`, in all threads; the last block of a row may be filled up.
    ///
    /// # Panics
    /// Where `format` is not that of the layout, or blocks are no whole rows: a programmer's error.
    pub fn take_apart(self, format: GgmlType, blocks: &[u8], columns: usize) -> Words {
        assert_eq!(Self::of(format), Some(self), "the layout of {format}");
        let row_bytes = format.row_bytes(columns).max(1);
        assert!(blocks.len().is_multiple_of(row_bytes), "whole rows of {columns} {format}");
        let filled = columns.next_multiple_of(format.block_values());
        let rows = blocks.len() / row_bytes;
        let quants = self.quant_words(filled);
        let [scales, high] = [self.scale_words(filled), self.high_words(filled)];
        let mut words = Words { quants: vec![0; rows * quants], scales: vec![0; rows * (scales + high)] };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let stretch = rows.div_ceil(threads).max(1);
        let into = words.quants.chunks_mut((stretch * quants).max(1));
        let into = into.zip(words.scales.chunks_mut((stretch * (scales + high)).max(1)));
        std::thread::scope(|scope| {
            for (blocks, (into_quants, into_scales)) in blocks.chunks(stretch * row_bytes).zip(into) {
                scope.spawn(move || {
                    let rows = into_quants.chunks_exact_mut(quants.max(1));
                    let rows = rows.zip(into_scales.chunks_exact_mut((scales + high).max(1)));
                    for (row, (quants, extra)) in blocks.chunks_exact(row_bytes).zip(rows) {
                        let (scales, high) = extra.split_at_mut(scales);
                        self.scales.collect(row.chunks_exact(format.block_bytes()), scales);
                        with_block!(format, B => self.integers::<B>(row, quants, high), float => {});
                    }
                });
            }
        });
        words
    }

    /// The integers of a row.
    fn integers<B: Block>(self, row: &[u8], low: &mut [u32], high: &mut [u32]) {
        let mask = (1u32 << self.low_bits) - 1;
        let mut values = row
            .chunks_exact(B::BYTES)
            .flat_map(|block| (0..B::VALUES / GROUP).flat_map(move |group| B::part(block, group).quants))
            .map(|quant| (i32::from(quant) + self.zero as i32) as u32);
        let mut pending = high.iter_mut();
        // A word of high bits takes the values of several words of low ones.
        let (mut word, mut bits): (Option<&mut u32>, usize) = (None, 32);
        for low in low {
            for at in 0..32 / self.low_bits {
                let Some(value) = values.next() else { return };
                *low |= (value & mask) << (self.low_bits * at);
                if self.high_bits == 0 {
                    continue;
                }
                if bits == 32 {
                    (word, bits) = (pending.next(), 0);
                }
                if let Some(word) = word.as_deref_mut() {
                    *word |= (value >> self.low_bits) << bits;
                }
                bits += self.high_bits;
            }
        }
    }
}

impl ScaleWords {
    /// The scales of a row.
    fn collect<'a>(self, blocks: impl Iterator<Item = &'a [u8]>, words: &mut [u32]) {
        let word = |block: &[u8]| u32::from_le_bytes(array(block, 0));
        let half = |block: &[u8], place| u32::from(u16::from_le_bytes(array(block, place)));
        for (i, block) in blocks.enumerate() {
            match self {
                Self::Single => words[i / 2] |= half(block, 0) << (16 * (i % 2)),
                Self::WithOffset => words[i] = word(block),
                Self::Grouped => {
                    let words = &mut words[5 * i..5 * (i + 1)];
                    words[0] = word(block);
                    for group in 0..256 / GROUP {
                        let (scale, min) = six_bits(&block[4..16], group);
                        let both = u32::from(scale) | u32::from(min) << 8;
                        words[1 + group / 2] |= both << (16 * (group % 2));
                    }
                }
                Self::Signed => {
                    let words = &mut words[5 * i..5 * (i + 1)];
                    words[0] = half(block, 208);
                    for (place, word) in words[1..].iter_mut().enumerate() {
                        *word = u32::from_le_bytes(array(block, 192 + 4 * place)) ^ 0x8080_8080;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::quant::ggml::{dequantise, quantise};

    /// A row read as the layout says.
    fn read(layout: WordLayout, words: &Words, row: usize, columns: usize, filled: usize) -> Vec<f32> {
        let quants = &words.quants[row * layout.quant_words(filled)..];
        let (scale_words, high_words) = (layout.scale_words(filled), layout.high_words(filled));
        let scales = &words.scales[row * (scale_words + high_words)..];
        let bits = |words: &[u32], width: usize, k: usize| {
            words[k * width / 32] >> (k * width % 32) & ((1u32 << width) - 1)
        };
        let half = |bits: u32| f16::from_bits(bits as u16).to_f32();
        let value = |k: usize| {
            let low = bits(quants, layout.low_bits, k);
            let high = match layout.high_bits {
                0 => 0,
                width => bits(&scales[scale_words..], width, k),
            };
            let integer = (low | high << layout.low_bits) as f32 - layout.zero as f32;
            let (block, group) = (&scales[5 * (k / 256).min(scale_words / 5)..], k / 32);
            let (scale, offset) = match layout.scales {
                ScaleWords::Single => (half(bits(scales, 16, group)), -0.0),
                ScaleWords::WithOffset => (half(scales[group]), half(scales[group] >> 16)),
                ScaleWords::Grouped => {
                    let of_group = |at: usize| bits(&block[1..], 8, 2 * (group % 8) + at) as f32;
                    (half(block[0]) * of_group(0), -(half(block[0] >> 16) * of_group(1)))
                }
                ScaleWords::Signed => {
                    (half(block[0]) * (bits(&block[1..], 8, k % 256 / 16) as f32 - 128.0), -0.0)
                }
            };
            integer * scale + offset
        };
        (0..columns).map(value).collect()
    }

    #[test]
    fn words_mean_what_the_blocks_mean_to_the_bit() {
        for format in GgmlType::ALL {
            let Some(layout) = WordLayout::of(format) else { continue };
            for columns in [32usize, 96, 256, 768, 40] {
                let filled = columns.next_multiple_of(format.block_values());
                let values: Vec<f32> = (0..3 * columns)
                    .map(|i| ((i * 37 % 101) as f32 - 40.0) * 1e-5 * (1 + i % 7 * 300) as f32)
                    .collect();
                let blocks = quantise(format, &values, columns);
                let mut wanted = vec![0.0; values.len()];
                dequantise(format, &blocks, columns, &mut wanted);
                let words = layout.take_apart(format, &blocks, columns);
                assert_eq!(words.quants.len(), 3 * layout.quant_words(filled));
                let found: Vec<f32> =
                    (0..3).flat_map(|row| read(layout, &words, row, columns, filled)).collect();
                let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&found), bits(&wanted), "{format}, rows of {columns}");
            }
        }
    }
}
