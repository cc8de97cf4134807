use std::ops::Range;

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::cast_to;

/// How rotary frequencies change for contexts longer than the model was trained on (`rope_scaling`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Positions are divided by the factor.
    Linear {
        /// Division of the positions.
        factor: f64,
    },
    /// The base grows with the sequence once it is longer than the trained context ("NTK-aware").
    Dynamic {
        /// Growth of the base.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths are divided, short ones kept, those between interpolated.
    Llama3 {
        /// Division of the low frequencies.
        factor: f64,
        /// Wavelengths over `original / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths under `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context that the model was trained on before scaling, in tokens.
        original_max_position_embeddings: usize,
    },
}

/// What rotary position embeddings depend on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RotaryConfig {
    /// Width of one attention head.
    pub head_dim: usize,
    /// Base of the frequencies (`rope_theta`).
    pub theta: f64,
    /// Context that the model was trained on, in tokens.
    pub max_position_embeddings: usize,
    /// Scaling for longer contexts.
    pub scaling: Option<RopeScaling>,
}

/// Cosines and sines of a batch's positions, in f32, each `[batch or 1, 1, len, head_dim]`.
#[derive(Debug, Clone)]
pub struct RotaryTables {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl RotaryConfig {
    /// Angle per position for each of the `head_dim / 2` frequencies, with `seq_len` tokens in the context.
    ///
    /// In f32 step by step as PyTorch computes it, since rounding of the frequencies shows at far positions.
    pub fn inverse_frequencies(&self, seq_len: usize) -> Vec<f32> {
        let dim = self.head_dim as f64;
        let theta = match self.scaling {
            Some(RopeScaling::Dynamic { factor }) if seq_len > self.max_position_embeddings => {
                let growth = factor * seq_len as f64 / self.max_position_embeddings as f64 - (factor - 1.0);
                self.theta * growth.powf(dim / (dim - 2.0))
            }
            _ => self.theta,
        };
        let plain = (0..self.head_dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / self.head_dim as f32;
            1.0 / (theta as f32).powf(exponent)
        });
        match self.scaling {
            Some(RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            }) => {
                let original = original_max_position_embeddings as f64;
                plain
                    .map(|freq| {
                        let wavelength = 2.0 * std::f64::consts::PI / f64::from(freq);
                        let smooth = ((original / wavelength - low_freq_factor)
                            / (high_freq_factor - low_freq_factor))
                            .clamp(0.0, 1.0);
                        let scaled = f64::from(freq) / factor;
                        ((1.0 - smooth) * scaled + smooth * f64::from(freq)) as f32
                    })
                    .collect()
            }
            _ => plain.collect(),
        }
    }

    /// Tables for `positions`: one row a sample, rows of equal length. `seq_lens` is the number of tokens in each
    /// row's context (it matters for dynamic scaling alone).
    pub fn tables(&self, positions: &[Vec<usize>], seq_lens: &[usize], device: &Device) -> RotaryTables {
        // Rows are mostly alike; one row then serves the whole batch.
        let alike = positions.iter().zip(seq_lens).all(|row| row == (&positions[0], &seq_lens[0]));
        let rows = if alike { positions.len().min(1) } else { positions.len() };
        let len = positions.first().map_or(0, Vec::len);
        let texts = positions.iter().take(rows).zip(seq_lens);
        let texts = texts.map(|(positions, &seq_len)| (positions.iter().copied(), seq_len));
        self.tables_of(texts, [rows, len], device)
    }

    /// Tables for texts that stand one behind the other in one row: the positions of each, and the number of tokens in
    /// its context.
    pub fn tables_in_a_row(&self, texts: &[(Range<usize>, usize)], device: &Device) -> RotaryTables {
        let len = texts.iter().map(|(positions, _)| positions.len()).sum();
        self.tables_of(texts.iter().cloned(), [1, len], device)
    }

    fn tables_of<P: Iterator<Item = usize>>(
        &self,
        texts: impl Iterator<Item = (P, usize)>,
        [rows, len]: [usize; 2],
        device: &Device,
    ) -> RotaryTables {
        let divisor = match self.scaling {
            Some(RopeScaling::Linear { factor }) => factor as f32,
            _ => 1.0,
        };
        let mut cos = Vec::with_capacity(rows * len * self.head_dim);
        let mut sin = Vec::with_capacity(cos.capacity());
        for (positions, seq_len) in texts {
            let frequencies = self.inverse_frequencies(seq_len);
            for position in positions {
                let angles: Vec<f32> = frequencies.iter().map(|f| position as f32 / divisor * f).collect();
                // Hugging Face's layout: the two halves of a head, not neighbours, form the rotated pairs.
                for _half in 0..2 {
                    cos.extend(angles.iter().map(|a| a.cos()));
                    sin.extend(angles.iter().map(|a| a.sin()));
                }
            }
        }
        let tensor = |values: Vec<f32>| {
            Tensor::from_data(TensorData::new(values, [rows, 1, len, self.head_dim]), (device, DType::F32))
        };
        RotaryTables { cos: tensor(cos), sin: tensor(sin) }
    }
}

impl RotaryTables {
    /// For as many samples of one token as there are positions in a row.
    pub fn one_a_sample(self) -> Self {
        let turn = |table: Tensor<4>| {
            let [_, _, len, head_dim] = table.dims();
            table.reshape([len, 1, 1, head_dim])
        };
        Self { cos: turn(self.cos), sin: turn(self.sin) }
    }
}

/// Rotates queries or keys by their positions, in f32.
///
/// # Shapes
/// - x: `[batch, num_heads, len, head_dim]`, output the same shape and dtype
pub fn apply_rotary(x: Tensor<4>, tables: &RotaryTables) -> Tensor<4> {
    if let Some(y) = super::kernels::rotate(&x, &tables.cos, &tables.sin) {
        return y;
    }
    let dtype = x.dtype();
    let half = x.dims()[3] / 2;
    let x = cast_to(x, DType::F32);
    let rotated = Tensor::cat(vec![x.clone().narrow(3, half, half).neg(), x.clone().narrow(3, 0, half)], 3);
    cast_to(x * tables.cos.clone() + rotated * tables.sin.clone(), dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(scaling: Option<RopeScaling>) -> RotaryConfig {
        RotaryConfig { head_dim: 8, theta: 10_000.0, max_position_embeddings: 16, scaling }
    }

    #[test]
    fn quarter_turn_pairs_the_halves() {
        let device = Device::flex();
        let config = RotaryConfig { head_dim: 2, ..config(None) };
        let tables = config.tables(&[vec![1]], &[1], &device);
        let x = Tensor::<1>::from_floats([1.0, 0.0], &device).reshape([1, 1, 1, 2]);
        let y = apply_rotary(x, &tables).into_data().try_to_vec::<f32>().unwrap();
        assert!((y[0] - 1f32.cos()).abs() < 1e-6 && (y[1] - 1f32.sin()).abs() < 1e-6);
    }

    #[test]
    fn dynamic_equals_plain_within_the_context() {
        let plain = config(None).inverse_frequencies(16);
        let dynamic = config(Some(RopeScaling::Dynamic { factor: 2.0 }));
        assert_eq!(dynamic.inverse_frequencies(16), plain);
        // theta * (2 * 32 / 16 - 1)^(8/6) at twice the context
        let theta = 10_000f64 * 3f64.powf(8.0 / 6.0);
        assert!((f64::from(dynamic.inverse_frequencies(32)[1]) - theta.powf(-0.25)).abs() < 1e-7);
    }

    #[test]
    fn llama3_keeps_short_waves_and_divides_long_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64,
        };
        let (plain, scaled) =
            (config(None).inverse_frequencies(16), config(Some(scaling)).inverse_frequencies(16));
        assert_eq!(scaled[0], plain[0]);
        assert!((scaled[3] * 8.0 - plain[3]).abs() < 1e-9);
    }
}
