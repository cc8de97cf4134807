//! `[lora]`: low-rank adapters over the decoder instead of its own weights.

use serde::{Deserialize, Serialize};
use tg_llava_core::config::{LoraConfig, LoraScaling, Patterns, TargetModules, block_linear_names};
use tg_llava_core::quant::MatrixSite;
use tg_llava_core::weights::Encoding;

use super::ConfigError;

/// Adapters that learn in the place of the decoder (`--lora_enable`); the table alone turns them on. The bridges learn whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraOptions {
    /// Rank (`lora_r`). Default 128.
    pub rank: usize,
    /// Numerator of the scale `alpha / rank` (`lora_alpha`). Default: twice the rank.
    pub alpha: Option<f64>,
    /// Dropout before the adapters, a share in `[0, 1)` (`lora_dropout`). Default 0.05.
    pub dropout: f64,
    /// Which linear layers of the blocks have an adapter: names, or one regular expression for the whole name. Default all of them:
    /// `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`.
    pub target_modules: TargetModules,
    /// Whether alpha is divided by the root of the rank (rsLoRA). Default false.
    pub rslora: bool,
    /// Ranks of layers whose names end with a pattern. Default: none.
    pub rank_pattern: Patterns<usize>,
    /// Alphas of such layers. Default: none.
    pub alpha_pattern: Patterns<f64>,
    /// How the decoder's block matrices are held while they are frozen: `float`, in the format of the computation, `nf4`, 4.127 bits a value
    /// (QLoRA, `--bits 4`), or `int8`, 8 bits (`--bits 8`). Default `float`.
    pub base: BaseFormat,
    /// The second matrix's learning rate over the first one's (LoRA+, which advises 16). Default 1.
    pub b_lr_ratio: f64,
}

/// How matrices that do not learn are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseFormat {
    /// In the format of the computation.
    #[default]
    Float,
    /// As bitsandbytes' NF4, with double quantisation; a block's matrices are floats while it is at work.
    Nf4,
    /// As bitsandbytes' eight bits with a scale a row; in the same way.
    Int8,
}

impl BaseFormat {
    /// Bytes of a matrix `[d_input, d_output]` whose floats take `float` bytes each.
    pub fn bytes(self, [d_input, d_output]: [usize; 2], float: usize) -> u64 {
        let values = (d_input * d_output) as u64;
        match self {
            Self::Float => float as u64 * values,
            // Codes, an 8-bit scale for 64 of them, an f32 scale for 256 of those, and two tables.
            Self::Nf4 => values.div_ceil(2) + values.div_ceil(64) + 4 * values.div_ceil(64 * 256) + 64 + 1024,
            // Codes, and an f32 scale for each row.
            Self::Int8 => values + 4 * d_output as u64,
        }
    }

    /// What the matrices become while they are read.
    pub fn encoding(self) -> Encoding {
        match self {
            Self::Float => Encoding::Floats,
            Self::Nf4 => Encoding::Nf4,
            Self::Int8 => Encoding::Int8,
        }
    }
}

impl Default for LoraOptions {
    /// Those of the published runs of LLaVA 1.5.
    fn default() -> Self {
        Self {
            rank: 128,
            alpha: None,
            dropout: 0.05,
            target_modules: TargetModules::Names(block_linear_names().map(str::to_owned).to_vec()),
            rslora: false,
            rank_pattern: Patterns::default(),
            alpha_pattern: Patterns::default(),
            base: BaseFormat::default(),
            b_lr_ratio: 1.0,
        }
    }
}

impl LoraOptions {
    /// The adapter over the decoder in `base`.
    pub fn adapter(&self, base: Option<String>) -> LoraConfig {
        LoraConfig {
            rank: self.rank,
            alpha: self.alpha.unwrap_or(2.0 * self.rank as f64),
            dropout: self.dropout,
            target_modules: self.target_modules.clone(),
            scaling: if self.rslora { LoraScaling::RootOfRank } else { LoraScaling::Rank },
            rank_pattern: self.rank_pattern.clone(),
            alpha_pattern: self.alpha_pattern.clone(),
            base,
        }
    }

    /// Checks numbers and patterns, as far as they can be without a decoder.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with the key that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.adapter(None).validate().map_err(invalid)
    }

    /// Checks that each name and pattern decides something over a decoder of so many blocks.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with those that do not, and what would be right.
    pub fn check_all_fit(&self, num_layers: usize) -> Result<(), ConfigError> {
        let modules: Vec<String> = MatrixSite::of_blocks(num_layers).map(MatrixSite::module).collect();
        self.adapter(None).check_all_fit(&modules).map_err(invalid)
    }
}

fn invalid(error: tg_llava_core::Error) -> ConfigError {
    let message = match error {
        tg_llava_core::Error::Config(reason) => reason,
        other => other.to_string(),
    };
    ConfigError::Invalid { key: "lora".into(), message }
}
