//! The formats with blocks of 32: scale, minimum where there is one, high bits where there are 5, then the low bits of
//! values 0 to 15 in the low halves of 16 bytes and of values 16 to 31 in the high halves.

use super::block::{array, inverse, read_f16, write_f16};
use super::{Block, GROUP, Part};

/// [`GgmlType::Q4_0`](super::GgmlType::Q4_0)
#[derive(Debug, Clone, Copy)]
pub struct Q4_0;
/// [`GgmlType::Q4_1`](super::GgmlType::Q4_1)
#[derive(Debug, Clone, Copy)]
pub struct Q4_1;
/// [`GgmlType::Q5_0`](super::GgmlType::Q5_0)
#[derive(Debug, Clone, Copy)]
pub struct Q5_0;
/// [`GgmlType::Q5_1`](super::GgmlType::Q5_1)
#[derive(Debug, Clone, Copy)]
pub struct Q5_1;
/// [`GgmlType::Q8_0`](super::GgmlType::Q8_0)
#[derive(Debug, Clone, Copy)]
pub struct Q8_0;

impl Block for Q4_0 {
    const VALUES: usize = GROUP;
    const BYTES: usize = 18;
    const SIGNED: bool = true;
    const OFFSET: bool = false;
    const SCALE_FIRST: bool = true;

    #[inline(always)]
    fn part(block: &[u8], _: usize) -> Part {
        let quants = low_bits::<8>(array(block, 2));
        Part { quants, scales: [read_f16(block, 0); 2], offset: -0.0 }
    }

    fn encode(values: &[f32], block: &mut [u8]) {
        let scale = largest(values) / -8.0;
        write_f16(block, 0, scale);
        let inverse = inverse(scale);
        pack(values.iter().map(|x| (((x * inverse + 8.5) as i8) as u8).min(15)), &mut [], &mut block[2..]);
    }
}

impl Block for Q4_1 {
    const VALUES: usize = GROUP;
    const BYTES: usize = 20;
    const SIGNED: bool = false;
    const OFFSET: bool = true;
    const SCALE_FIRST: bool = true;

    #[inline(always)]
    fn part(block: &[u8], _: usize) -> Part {
        let scale = read_f16(block, 0);
        Part { quants: low_bits::<0>(array(block, 4)), scales: [scale; 2], offset: read_f16(block, 2) }
    }

    fn encode(values: &[f32], block: &mut [u8]) {
        let (min, scale) = range(values, 15.0);
        write_f16(block, 0, scale);
        write_f16(block, 2, min);
        let inverse = inverse(scale);
        let quants = values.iter().map(|x| (((x - min) * inverse + 0.5) as u8).min(15));
        pack(quants, &mut [], &mut block[4..]);
    }
}

impl Block for Q5_0 {
    const VALUES: usize = GROUP;
    const BYTES: usize = 22;
    const SIGNED: bool = true;
    const OFFSET: bool = false;
    const SCALE_FIRST: bool = true;

    #[inline(always)]
    fn part(block: &[u8], _: usize) -> Part {
        let quants = five_bits::<16>(array(block, 2), array(block, 6));
        Part { quants, scales: [read_f16(block, 0); 2], offset: -0.0 }
    }

    fn encode(values: &[f32], block: &mut [u8]) {
        let scale = largest(values) / -16.0;
        write_f16(block, 0, scale);
        let inverse = inverse(scale);
        let (high, low) = block[2..].split_at_mut(4);
        pack(values.iter().map(|x| (((x * inverse + 16.5) as i8) as u8).min(31)), high, low);
    }
}

impl Block for Q5_1 {
    const VALUES: usize = GROUP;
    const BYTES: usize = 24;
    const SIGNED: bool = false;
    const OFFSET: bool = true;
    const SCALE_FIRST: bool = true;

    #[inline(always)]
    fn part(block: &[u8], _: usize) -> Part {
        let quants = five_bits::<0>(array(block, 4), array(block, 8));
        Part { quants, scales: [read_f16(block, 0); 2], offset: read_f16(block, 2) }
    }

    fn encode(values: &[f32], block: &mut [u8]) {
        let (min, scale) = range(values, 31.0);
        write_f16(block, 0, scale);
        write_f16(block, 2, min);
        let inverse = inverse(scale);
        let (high, low) = block[4..].split_at_mut(4);
        pack(values.iter().map(|x| (((x - min) * inverse + 0.5) as u8).min(31)), high, low);
    }
}

impl Block for Q8_0 {
    const VALUES: usize = GROUP;
    const BYTES: usize = 34;
    const SIGNED: bool = true;
    const OFFSET: bool = false;
    const SCALE_FIRST: bool = true;

    #[inline(always)]
    fn part(block: &[u8], _: usize) -> Part {
        let mut quants = [0; GROUP];
        for (quant, byte) in quants.iter_mut().zip(array::<GROUP>(block, 2)) {
            *quant = byte as i8;
        }
        Part { quants, scales: [read_f16(block, 0); 2], offset: -0.0 }
    }

    fn encode(values: &[f32], block: &mut [u8]) {
        let scale = largest(values).abs() / 127.0;
        write_f16(block, 0, scale);
        let inverse = inverse(scale);
        for (byte, x) in block[2..].iter_mut().zip(values) {
            *byte = ((x * inverse).round() as i8) as u8;
        }
    }
}

/// 4 bits of 32 values, less `ZERO`.
#[inline(always)]
fn low_bits<const ZERO: i8>(bytes: [u8; 16]) -> [i8; GROUP] {
    let mut quants = [0; GROUP];
    for (i, byte) in bytes.into_iter().enumerate() {
        quants[i] = (byte & 15) as i8 - ZERO;
        quants[i + 16] = (byte >> 4) as i8 - ZERO;
    }
    quants
}

/// 5 bits of 32 values, less `ZERO`; bit `i` of `high` belongs to value `i`.
#[inline(always)]
fn five_bits<const ZERO: i8>(high: [u8; 4], low: [u8; 16]) -> [i8; GROUP] {
    let high = u32::from_le_bytes(high);
    let mut quants = low_bits::<ZERO>(low);
    for (i, quant) in quants.iter_mut().enumerate() {
        *quant += ((high >> i & 1) << 4) as i8;
    }
    quants
}

/// Writes 32 integers: bit 4 of each into `high`, where there is room, the lower ones into `low`.
fn pack(quants: impl Iterator<Item = u8>, high: &mut [u8], low: &mut [u8]) {
    high.fill(0);
    for (i, quant) in quants.enumerate() {
        match i {
            0..16 => low[i] = quant & 15,
            _ => low[i - 16] |= (quant & 15) << 4,
        }
        if let Some(byte) = high.get_mut(i / 8) {
            *byte |= (quant >> 4) << (i % 8);
        }
    }
}

/// The value farthest from 0, with its sign; the first of several.
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest: f32, &x| if x.abs() > largest.abs() { x } else { largest })
}

/// The smallest value, and the step that divides the range into `steps`.
fn range(values: &[f32], steps: f32) -> (f32, f32) {
    let min = values.iter().copied().fold(f32::MAX, |min, x| if x < min { x } else { min });
    let max = values.iter().copied().fold(-f32::MAX, |max, x| if x > max { x } else { max });
    (min, (max - min) / steps)
}
