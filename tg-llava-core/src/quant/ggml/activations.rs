use super::block::{inverse, nearest};

/// Values that share a scale, in activations and in the smallest blocks.
pub const GROUP: usize = 32;

/// Activations as 8-bit integers with a scale, in one line of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(align(64))]
pub struct Int8Group {
    /// The integers, from -127 to 127.
    pub quants: [i8; GROUP],
    /// The sum of four integers each, with its sign turned.
    pub minus_fours: [i16; GROUP / 4],
    /// `max |x| / 127`; not finite where one of the values is not.
    pub scale: f32,
}

/// A row of activations as 8-bit integers; filled up with zeros to whole blocks of any format.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Int8Row {
    /// [`GROUP`] values each.
    pub groups: Vec<Int8Group>,
    /// The sum of each group's integers, times its scale.
    pub sums: Vec<f32>,
}

impl Int8Row {
    /// `values` as integers: each is the nearest one, to even from halfway.
    pub fn new(values: &[f32]) -> Self {
        /// Groups of the largest block.
        const BLOCK: usize = 256 / GROUP;
        let mut groups: Vec<Int8Group> = values.chunks(GROUP).map(Int8Group::new).collect();
        groups.resize(groups.len().next_multiple_of(BLOCK), Int8Group::default());
        let sums = groups.iter().map(Int8Group::sum).collect();
        Self { groups, sums }
    }
}

impl Int8Group {
    fn new(values: &[f32]) -> Self {
        // Among magnitudes bits are in the order of values, and those of what is no number come last: such a group's scale, and
        // with it each product, is none either.
        let largest = values.iter().map(|x| x.abs().to_bits()).max().map_or(0.0, f32::from_bits);
        let scale = largest / 127.0;
        let inverse = inverse(scale);
        let mut group = Self { scale, ..Self::default() };
        for (quant, x) in group.quants.iter_mut().zip(values) {
            *quant = nearest(x * inverse) as i8;
        }
        for (sum, quants) in group.minus_fours.iter_mut().zip(group.quants.as_chunks::<4>().0) {
            *sum = -quants.iter().map(|&quant| i16::from(quant)).sum::<i16>();
        }
        group
    }

    fn sum(&self) -> f32 {
        self.scale * f32::from(-self.minus_fours.iter().sum::<i16>())
    }
}
