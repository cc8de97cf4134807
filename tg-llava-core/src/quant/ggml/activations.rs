use super::block::{inverse, nearest};

/// Values that share a scale, in activations and in the smallest blocks.
pub const GROUP: usize = 32;

/// A row of activations as 8-bit integers, a scale for each [`GROUP`]; filled up with zeros to whole blocks of any format.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Int8Row {
    /// The integers, from -127 to 127.
    pub quants: Vec<i8>,
    /// `max |x| / 127` of each group; not finite where one of its values is not.
    pub scales: Vec<f32>,
    /// The sum of each group's integers, times its scale.
    pub sums: Vec<f32>,
}

impl Int8Row {
    /// `values` as integers: each is the nearest one, to even from halfway.
    pub fn new(values: &[f32]) -> Self {
        /// Values of the largest block.
        const BLOCK: usize = 256;
        let len = values.len().next_multiple_of(BLOCK);
        let mut row = Self {
            quants: vec![0; len],
            scales: Vec::with_capacity(len / GROUP),
            sums: Vec::with_capacity(len / GROUP),
        };
        for (values, quants) in values.chunks(GROUP).zip(row.quants.chunks_exact_mut(GROUP)) {
            // Among magnitudes bits are in the order of values, and those of what is no number come last: such a group's scale, and
            // with it each product, is none either.
            let largest = values.iter().map(|x| x.abs().to_bits()).max().map_or(0.0, f32::from_bits);
            let scale = largest / 127.0;
            let inverse = inverse(scale);
            for (quant, x) in quants.iter_mut().zip(values) {
                *quant = nearest(x * inverse) as i8;
            }
            row.scales.push(scale);
            row.sums.push(scale * quants.iter().map(|&quant| i32::from(quant)).sum::<i32>() as f32);
        }
        row.scales.resize(len / GROUP, 0.0);
        row.sums.resize(len / GROUP, 0.0);
        row
    }
}
