/// Values that share a scale, in activations and in the smallest blocks.
pub const GROUP: usize = 32;

/// A row of activations as 8-bit integers, a scale for each [`GROUP`]; filled up with zeros to whole groups.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Int8Row {
    /// The integers, from -127 to 127.
    pub quants: Vec<i8>,
    /// `max |x| / 127` of each group.
    pub scales: Vec<f32>,
}

impl Int8Row {
    /// `values` as integers: each is the nearest one, to even from halfway.
    pub fn new(values: &[f32]) -> Self {
        let mut row = Self::default();
        row.quants.reserve(values.len().next_multiple_of(GROUP));
        for group in values.chunks(GROUP) {
            let scale = group.iter().fold(0.0f32, |max, x| max.max(x.abs())) / 127.0;
            let inverse = super::block::inverse(scale);
            row.quants.extend(group.iter().map(|x| (x * inverse).round_ties_even() as i8));
            row.scales.push(scale);
        }
        row.quants.resize(values.len().next_multiple_of(GROUP), 0);
        row
    }
}
