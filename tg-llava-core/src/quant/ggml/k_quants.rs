//! The formats with blocks of 256: scales of groups that are small integers themselves.

use super::block::{array, nearest, read_f16, write_f16};
use super::search::{ScaleSearch, TINY, scales_and_minimums, symmetric_scales};
use super::{Block, GROUP, Part};

/// [`GgmlType::Q4_K`](super::GgmlType::Q4_K)
#[derive(Debug, Clone, Copy)]
pub struct Q4K;
/// [`GgmlType::Q5_K`](super::GgmlType::Q5_K)
#[derive(Debug, Clone, Copy)]
pub struct Q5K;
/// [`GgmlType::Q6_K`](super::GgmlType::Q6_K)
#[derive(Debug, Clone, Copy)]
pub struct Q6K;

/// Values in a block.
const VALUES: usize = 256;
/// Groups of 32 in a block.
const GROUPS: usize = VALUES / GROUP;

/// Scale and minimum of all, 6 bits of each for a group, then 4 bits of each value.
impl Block for Q4K {
    type Bytes = [u8; Self::BYTES];

    const VALUES: usize = VALUES;
    const BYTES: usize = 144;
    const ZERO: u8 = 0;
    const OFFSET: bool = true;

    #[inline(always)]
    fn part(block: &[u8], index: usize) -> Part {
        let quants = nibbles(array(block, 16 + index / 2 * GROUP), index);
        let (scale, offset) = group_scale(block, index);
        Part { quants, scales: [scale; 2], offset }
    }

    #[inline(always)]
    fn encode(values: &[f32], block: &mut [u8]) {
        let quants =
            encode_groups(values, block, &ScaleSearch { most: 15, first: -1.0, step: 0.1, steps: 20 });
        pack_nibbles(&quants, &mut block[16..]);
    }
}

/// As [`Q4K`], with bit 4 of each value before the lower ones: bit `i` of 32 bytes belongs to group `i`.
impl Block for Q5K {
    type Bytes = [u8; Self::BYTES];

    const VALUES: usize = VALUES;
    const BYTES: usize = 176;
    const ZERO: u8 = 0;
    const OFFSET: bool = true;

    #[inline(always)]
    fn part(block: &[u8], index: usize) -> Part {
        let mut quants = nibbles(array(block, 48 + index / 2 * GROUP), index);
        for (quant, high) in quants.iter_mut().zip(array::<GROUP>(block, 16)) {
            *quant |= if high & (1 << index) == 0 { 0 } else { 16 };
        }
        let (scale, offset) = group_scale(block, index);
        Part { quants, scales: [scale; 2], offset }
    }

    #[inline(always)]
    fn encode(values: &[f32], block: &mut [u8]) {
        let quants =
            encode_groups(values, block, &ScaleSearch { most: 31, first: -0.5, step: 0.1, steps: 15 });
        block[16..48].fill(0);
        for (i, quant) in quants.iter().enumerate() {
            block[16 + i % GROUP] |= (quant >> 4) << (i / GROUP);
        }
        pack_nibbles(&quants.map(|quant| quant & 15), &mut block[48..]);
    }
}

/// 4 low bits of each value, 2 high ones, 8 bits of scale for each 16 values, the scale of all.
///
/// Each half of the block has its four groups of 32 side by side: the low bits of groups 0 and 2, and of 1 and 3, share
/// 32 bytes; the high bits of all four share 32 more.
impl Block for Q6K {
    type Bytes = [u8; Self::BYTES];

    const VALUES: usize = VALUES;
    const BYTES: usize = 210;
    const ZERO: u8 = 32;
    const OFFSET: bool = false;

    #[inline(always)]
    fn part(block: &[u8], index: usize) -> Part {
        let (half, group) = (index / 4, index % 4);
        let low = array::<GROUP>(block, 64 * half + GROUP * (group % 2));
        let high = array::<GROUP>(block, 128 + GROUP * half);
        // By numbers that the compiler knows: processors shift no single bytes by others.
        let quants = match group {
            0 => six_bit_quants::<0, 0>(low, high),
            1 => six_bit_quants::<0, 2>(low, high),
            2 => six_bit_quants::<4, 4>(low, high),
            _ => six_bit_quants::<4, 6>(low, high),
        };
        let scale = read_f16(block, 208);
        let scale_of = |i: usize| scale * f32::from(block[192 + 2 * index + i] as i8);
        Part { quants, scales: [scale_of(0), scale_of(1)], offset: -0.0 }
    }

    #[inline(always)]
    fn encode(values: &[f32], block: &mut [u8]) {
        let mut quants = [32u8; VALUES];
        let scales = symmetric_scales::<{ VALUES / 16 }, 16>(values, 32, &mut quants);
        let largest =
            scales.iter().fold(0.0, |largest: f32, &x| if x.abs() > largest.abs() { x } else { largest });
        if largest.abs() < TINY {
            return block.fill(0);
        }
        let inverse = -128.0 / largest;
        write_f16(block, 208, 1.0 / inverse);
        let scale = read_f16(block, 208);
        for (i, group_scale) in scales.iter().enumerate() {
            let stored = nearest(inverse * group_scale).min(127.0) as i8;
            block[192 + i] = stored as u8;
            let scale = scale * f32::from(stored);
            if scale == 0.0 {
                continue;
            }
            for (quant, x) in quants[16 * i..].iter_mut().zip(&values[16 * i..16 * (i + 1)]) {
                *quant = (nearest(x / scale).clamp(-32.0, 31.0) as i8 + 32) as u8;
            }
        }
        block[..192].fill(0);
        for (i, quant) in quants.iter().enumerate() {
            let (half, group, place) = (i / 128, i % 128 / GROUP, i % GROUP);
            block[64 * half + GROUP * (group % 2) + place] |= (quant & 15) << (4 * (group / 2));
            block[128 + GROUP * half + place] |= (quant >> 4) << (2 * group);
        }
    }
}

/// 4 low bits of each value and 2 high ones, so far up in their bytes, less 32.
#[inline(always)]
fn six_bit_quants<const LOW: u32, const HIGH: u32>(low: [u8; GROUP], high: [u8; GROUP]) -> [i8; GROUP] {
    let mut quants = [0; GROUP];
    for ((quant, low), high) in quants.iter_mut().zip(low).zip(high) {
        *quant = (((low >> LOW) & 15) | (((high >> HIGH) & 3) << 4)) as i8 - 32;
    }
    quants
}

/// 4 bits of 32 values: the low halves of the bytes for an even group, the high ones for an odd one.
#[inline(always)]
fn nibbles(bytes: [u8; GROUP], index: usize) -> [i8; GROUP] {
    let shift = 4 * (index % 2);
    let mut quants = [0; GROUP];
    for (quant, byte) in quants.iter_mut().zip(bytes) {
        *quant = ((byte >> shift) & 15) as i8;
    }
    quants
}

#[inline(always)]
fn pack_nibbles(quants: &[u8; VALUES], bytes: &mut [u8]) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        let first = i / GROUP * 2 * GROUP + i % GROUP;
        *byte = quants[first] | quants[first + GROUP] << 4;
    }
}

/// Scale of a group and what is added to its values.
#[inline(always)]
fn group_scale(block: &[u8], index: usize) -> (f32, f32) {
    let (scale, min) = six_bits(&block[4..16], index);
    (read_f16(block, 0) * f32::from(scale), -(read_f16(block, 2) * f32::from(min)))
}

/// 6 bits of scale and of minimum of a group: eight groups in 12 bytes.
#[inline(always)]
pub(super) fn six_bits(bytes: &[u8], index: usize) -> (u8, u8) {
    match index {
        0..4 => (bytes[index] & 63, bytes[index + 4] & 63),
        _ => (
            (bytes[index + 4] & 15) | ((bytes[index - 4] >> 6) << 4),
            (bytes[index + 4] >> 4) | ((bytes[index] >> 6) << 4),
        ),
    }
}

/// Writes scales and minimums of `values` into the first 16 bytes of `block`, and gives the values as integers.
#[inline(always)]
fn encode_groups(values: &[f32], block: &mut [u8], search: &ScaleSearch) -> [u8; VALUES] {
    let mut quants = [0u8; VALUES];
    let (scales, mins) = scales_and_minimums::<GROUPS, GROUP>(values, search, &mut quants);
    let most = |all: &[f32]| all.iter().fold(0.0, |most: f32, &x| if x > most { x } else { most });
    let (max_scale, max_min) = (most(&scales), most(&mins));
    let factor = |most: f32| if most > 0.0 { 63.0 / most } else { 0.0 };
    let (scale_factor, min_factor) = (factor(max_scale), factor(max_min));
    write_f16(block, 0, max_scale / 63.0);
    write_f16(block, 2, max_min / 63.0);
    block[4..16].fill(0);
    for i in 0..GROUPS {
        let stored = |factor: f32, value: f32| nearest(factor * value).min(63.0) as u8;
        let (scale, min) = (stored(scale_factor, scales[i]), stored(min_factor, mins[i]));
        let bytes = &mut block[4..16];
        match i {
            0..4 => (bytes[i], bytes[i + 4]) = (scale, min),
            _ => {
                bytes[i + 4] = (scale & 15) | (min & 15) << 4;
                bytes[i - 4] |= (scale >> 4) << 6;
                bytes[i] |= (min >> 4) << 6;
            }
        }
    }
    for (i, (values, quants)) in values.chunks(GROUP).zip(quants.chunks_mut(GROUP)).enumerate() {
        let (scale, offset) = group_scale(block, i);
        if scale == 0.0 {
            continue;
        }
        for (quant, x) in quants.iter_mut().zip(values) {
            *quant = nearest((x - offset) / scale).clamp(0.0, search.most as f32) as u8;
        }
    }
    quants
}
