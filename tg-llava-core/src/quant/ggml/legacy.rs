//! The formats with blocks of 32: scale, minimum where there is one, high bits where there are 5, then the low bits of
//! values 0 to 15 in the low halves of 16 bytes and of values 16 to 31 in the high halves.

use super::block::{array, inverse, read_f16, write_f16};
use super::lanes::Lanes;
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
    type Bytes = [u8; Self::BYTES];

    const VALUES: usize = GROUP;
    const BYTES: usize = 18;
    const ZERO: u8 = 8;
    const OFFSET: bool = false;

    #[inline(always)]
    fn part(block: &[u8], _: usize) -> Part {
        let quants = low_bits::<8>(array(block, 2));
        Part { quants, scales: [read_f16(block, 0); 2], offset: -0.0 }
    }

    #[inline(always)]
    fn encode(values: &[f32], block: &mut [u8]) {
        let scale = largest(values) / -8.0;
        write_f16(block, 0, scale);
        let (inverse, mut quants) = (inverse(scale), [0; GROUP]);
        for (quant, x) in quants.iter_mut().zip(values) {
            *quant = (((x * inverse + 8.5) as i8) as u8).min(15);
        }
        pack_low(&quants, &mut block[2..]);
    }
}

impl Block for Q4_1 {
    type Bytes = [u8; Self::BYTES];

    const VALUES: usize = GROUP;
    const BYTES: usize = 20;
    const ZERO: u8 = 0;
    const OFFSET: bool = true;

    #[inline(always)]
    fn part(block: &[u8], _: usize) -> Part {
        let scale = read_f16(block, 0);
        Part { quants: low_bits::<0>(array(block, 4)), scales: [scale; 2], offset: read_f16(block, 2) }
    }

    #[inline(always)]
    fn encode(values: &[f32], block: &mut [u8]) {
        let (min, scale) = range(values, 15.0);
        write_f16(block, 0, scale);
        write_f16(block, 2, min);
        let (inverse, mut quants) = (inverse(scale), [0; GROUP]);
        for (quant, x) in quants.iter_mut().zip(values) {
            *quant = (((x - min) * inverse + 0.5) as u8).min(15);
        }
        pack_low(&quants, &mut block[4..]);
    }
}

impl Block for Q5_0 {
    type Bytes = [u8; Self::BYTES];

    const VALUES: usize = GROUP;
    const BYTES: usize = 22;
    const ZERO: u8 = 16;
    const OFFSET: bool = false;

    #[inline(always)]
    fn part(block: &[u8], _: usize) -> Part {
        let quants = five_bits::<16>(array(block, 2), array(block, 6));
        Part { quants, scales: [read_f16(block, 0); 2], offset: -0.0 }
    }

    #[inline(always)]
    fn encode(values: &[f32], block: &mut [u8]) {
        let scale = largest(values) / -16.0;
        write_f16(block, 0, scale);
        let (inverse, mut quants) = (inverse(scale), [0; GROUP]);
        for (quant, x) in quants.iter_mut().zip(values) {
            *quant = (((x * inverse + 16.5) as i8) as u8).min(31);
        }
        pack_high(&quants, &mut block[2..6]);
        pack_low(&quants, &mut block[6..]);
    }
}

impl Block for Q5_1 {
    type Bytes = [u8; Self::BYTES];

    const VALUES: usize = GROUP;
    const BYTES: usize = 24;
    const ZERO: u8 = 0;
    const OFFSET: bool = true;

    #[inline(always)]
    fn part(block: &[u8], _: usize) -> Part {
        let quants = five_bits::<0>(array(block, 4), array(block, 8));
        Part { quants, scales: [read_f16(block, 0); 2], offset: read_f16(block, 2) }
    }

    #[inline(always)]
    fn encode(values: &[f32], block: &mut [u8]) {
        let (min, scale) = range(values, 31.0);
        write_f16(block, 0, scale);
        write_f16(block, 2, min);
        let (inverse, mut quants) = (inverse(scale), [0; GROUP]);
        for (quant, x) in quants.iter_mut().zip(values) {
            *quant = (((x - min) * inverse + 0.5) as u8).min(31);
        }
        pack_high(&quants, &mut block[4..8]);
        pack_low(&quants, &mut block[8..]);
    }
}

impl Block for Q8_0 {
    type Bytes = [u8; Self::BYTES];

    const VALUES: usize = GROUP;
    const BYTES: usize = 34;
    const ZERO: u8 = 128;
    const OFFSET: bool = false;

    #[inline(always)]
    fn part(block: &[u8], _: usize) -> Part {
        let mut quants = [0; GROUP];
        for (quant, byte) in quants.iter_mut().zip(array::<GROUP>(block, 2)) {
            *quant = byte as i8;
        }
        Part { quants, scales: [read_f16(block, 0); 2], offset: -0.0 }
    }

    #[inline(always)]
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
    let mut quants = low_bits::<ZERO>(low);
    // Each byte in the places of its eight values, where the one bit of each is looked at.
    let mut spread = [[0; 8]; 4];
    for (spread, byte) in spread.iter_mut().zip(high) {
        *spread = [byte; 8];
    }
    for (i, (quant, byte)) in quants.iter_mut().zip(spread.as_flattened()).enumerate() {
        *quant += if byte & (1 << (i % 8)) == 0 { 0 } else { 16 };
    }
    quants
}

/// Writes the four low bits of 32 integers.
#[inline(always)]
fn pack_low(quants: &[u8; GROUP], bytes: &mut [u8]) {
    let (first, second) = quants.split_at(GROUP / 2);
    for ((byte, first), second) in bytes.iter_mut().zip(first).zip(second) {
        *byte = (first & 15) | (second & 15) << 4;
    }
}

/// Writes bit 4 of 32 integers.
#[inline(always)]
fn pack_high(quants: &[u8; GROUP], bytes: &mut [u8]) {
    for (byte, quants) in bytes.iter_mut().zip(quants.chunks_exact(8)) {
        *byte = quants.iter().rev().fold(0, |bits, quant| bits << 1 | quant >> 4);
    }
}

/// The value farthest from 0, with its sign; the first of several.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let mut most = Lanes::<8>::all(0.0);
    for x in values.as_chunks().0 {
        let x = Lanes(*x).abs();
        most = most.if_less(x, x, most);
    }
    let most = most.0.into_iter().fold(0.0, |most: f32, x| if x > most { x } else { most });
    values.iter().copied().find(|x| most > 0.0 && x.abs() == most).unwrap_or(0.0)
}

/// The smallest value, and the step that divides the range into `steps`.
#[inline(always)]
fn range(values: &[f32], steps: f32) -> (f32, f32) {
    let (mut min, mut max) = (f32::MAX, -f32::MAX);
    for &x in values {
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
    }
    (min, (max - min) / steps)
}
