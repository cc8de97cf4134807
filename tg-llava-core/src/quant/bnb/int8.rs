use super::BnbError;

/// A matrix in eight bits a value, with one scale a row (`SCB`), as bitsandbytes holds it: a value is `code * scale / 127`.
///
/// LLM.int8 quantises activations as well and keeps some columns apart; here the weights alone are of eight bits.
#[derive(Debug, Clone, PartialEq)]
pub struct Int8Rows {
    columns: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
}

impl Int8Rows {
    /// A matrix `[scales, columns]` from the parts that a file holds.
    ///
    /// # Errors
    /// Where codes and scales do not fill the same rows.
    pub fn new(columns: usize, codes: Vec<i8>, scales: Vec<f32>) -> Result<Self, BnbError> {
        let expected = columns.saturating_mul(scales.len());
        if codes.len() != expected {
            return Err(BnbError::Length { part: "weight", expected, found: codes.len() });
        }
        Ok(Self { columns, codes, scales })
    }

    /// Quantises a matrix of so many columns.
    ///
    /// # Panics
    /// Where the last row is not whole.
    pub fn quantise(values: &[f32], columns: usize) -> Self {
        assert!(values.len().is_multiple_of(columns.max(1)), "{} values in rows of {columns}", values.len());
        let rows = || values.chunks_exact(columns.max(1));
        let scales: Vec<f32> =
            rows().map(|row| row.iter().fold(0f32, |largest, value| largest.max(value.abs()))).collect();
        let codes = rows().zip(&scales).flat_map(|(row, scale)| {
            let factor = if *scale > 0.0 { 127.0 / scale } else { 0.0 };
            row.iter().map(move |value| (value * factor).round_ties_even() as i8)
        });
        Self { columns, codes: codes.collect(), scales }
    }

    /// Writes the values from number `first` on, counted through the flattened matrix, until `out` is full.
    ///
    /// # Panics
    /// Where the matrix ends before.
    pub fn dequantise(&self, first: usize, out: &mut [f32]) {
        let codes = &self.codes[first..first + out.len()];
        for (index, (value, code)) in out.iter_mut().zip(codes).enumerate() {
            *value = f32::from(*code) * self.scales[(first + index) / self.columns] / 127.0;
        }
    }

    /// `[rows, columns]`
    pub fn shape(&self) -> [usize; 2] {
        [self.scales.len(), self.columns]
    }

    /// Bytes in memory.
    pub fn byte_len(&self) -> usize {
        self.codes.len() + size_of_val(&self.scales[..])
    }

    /// The codes, row by row (`weight`).
    pub fn codes(&self) -> &[i8] {
        &self.codes
    }

    /// The largest magnitude of each row (`SCB`).
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_zeros_and_codes_without_rows() {
        let matrix = Int8Rows::quantise(&[0.0, 0.0, 1.0, -2.0], 2);
        assert_eq!((matrix.codes(), matrix.scales()), (&[0, 0, 64, -127][..], &[0.0, 2.0][..]));
        assert!(Int8Rows::new(3, vec![0; 5], vec![1.0; 2]).is_err());
        assert_eq!(Int8Rows::quantise(&[], 0).codes().len(), 0);
    }
}
