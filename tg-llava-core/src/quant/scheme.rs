use super::MatrixSite;
use super::ggml::GgmlType;

/// Which formats a decoder's matrices are quantised to. Towers, bridges, norms and biases stay floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Q8_0 throughout: hardly to be told from the floats.
    Q8_0,
    /// Q4_K, and Q6_K where it matters: half of the value and down projections. Embedding and head Q8_0.
    Q4KM,
    /// Q4_0; embedding and head Q8_0. For comparisons: Q4_K loses less.
    Q4_0,
}

/// The format that a scheme asks for, and the one that the matrix can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// By the scheme.
    pub asked: GgmlType,
    /// [`Choice::asked`], or Q8_0 where rows are no whole number of its blocks of 256.
    pub format: GgmlType,
}

impl Scheme {
    /// All schemes.
    pub const ALL: [Self; 3] = [Self::Q8_0, Self::Q4KM, Self::Q4_0];

    /// The name, as llama.cpp has it, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "q8_0",
            Self::Q4KM => "q4_k_m",
            Self::Q4_0 => "q4_0",
        }
    }

    /// The format of the matrix at `site`, of rows of `d_input`, in a decoder of `num_layers` blocks.
    pub fn choose(self, site: MatrixSite, num_layers: usize, d_input: usize) -> Choice {
        let asked = match (self, site) {
            (Self::Q8_0, _) | (_, MatrixSite::Embedding | MatrixSite::Head) => GgmlType::Q8_0,
            (Self::Q4_0, _) => GgmlType::Q4_0,
            (Self::Q4KM, MatrixSite::Block { layer, name }) => {
                let sensitive = matches!(name, "self_attn.v_proj" | "mlp.down_proj");
                match sensitive && gets_more_bits(layer, num_layers) {
                    true => GgmlType::Q6_K,
                    false => GgmlType::Q4_K,
                }
            }
        };
        let fits = asked.block_values() <= 32 || d_input.is_multiple_of(asked.block_values());
        Choice { asked, format: if fits { asked } else { GgmlType::Q8_0 } }
    }
}

/// llama.cpp's choice: the first and the last eighth of the blocks, and every third between them.
fn gets_more_bits(layer: usize, num_layers: usize) -> bool {
    let eighth = num_layers / 8;
    layer < eighth || layer >= 7 * num_layers / 8 || (layer - eighth) % 3 == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_sensitive_matrices_get_six_bits() {
        let format = |layer, name| Scheme::Q4KM.choose(MatrixSite::Block { layer, name }, 32, 4096).format;
        let six: Vec<usize> = (0..32).filter(|&i| format(i, "mlp.down_proj") == GgmlType::Q6_K).collect();
        assert_eq!(six, [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]);
        assert_eq!(format(0, "self_attn.v_proj"), GgmlType::Q6_K);
        assert_eq!(format(0, "self_attn.k_proj"), GgmlType::Q4_K);
        assert_eq!(Scheme::Q4KM.choose(MatrixSite::Head, 32, 4096).format, GgmlType::Q8_0);
    }

    #[test]
    fn what_does_not_fit_into_large_blocks_is_q8_0_and_both_are_told() {
        let site = MatrixSite::Block { layer: 4, name: "mlp.up_proj" };
        let choice = Scheme::Q4KM.choose(site, 32, 576);
        assert_eq!(choice, Choice { asked: GgmlType::Q4_K, format: GgmlType::Q8_0 });
        let choice = Scheme::Q4_0.choose(site, 32, 40);
        assert_eq!(choice, Choice { asked: GgmlType::Q4_0, format: GgmlType::Q4_0 }, "a short row");
    }
}
