use super::bounds::{
    EPSILON, LAYERS, PATCHES, PIXELS, POSITIONS, VOCABULARY, WIDTH, check, check_heads, check_sizes, named,
};
use crate::error::{Error, Result};
use crate::nn::Activation;

/// Families of the towers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TowerFamily {
    /// OpenAI CLIP: class token, pre-norm, causal text.
    Clip,
    /// SigLIP: patches alone, bidirectional text of a fixed length.
    Siglip,
}

/// Sizes of a vision transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionTowerConfig {
    /// CLIP or SigLIP.
    pub family: TowerFamily,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width of the feed-forward.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Colour channels.
    pub num_channels: usize,
    /// Edge of the square input, in pixels.
    pub image_size: usize,
    /// Edge of a patch, in pixels.
    pub patch_size: usize,
    /// Function of the feed-forward.
    pub hidden_act: Activation,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
}

impl VisionTowerConfig {
    /// Patches of one picture.
    pub fn num_patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Whether a class token stands before the patches.
    pub fn has_class_token(&self) -> bool {
        self.family == TowerFamily::Clip
    }

    /// Tokens of one picture inside the tower.
    pub fn num_positions(&self) -> usize {
        self.num_patches() + usize::from(self.has_class_token())
    }

    /// Index into the hidden states (0 = before the first block) that `select_layer` names; negative
    /// values count from the end as in Python.
    ///
    /// # Errors
    /// [`Error::Config`] where there is no such hidden state.
    pub fn hidden_state_index(&self, select_layer: i64) -> Result<usize> {
        let count = self.num_hidden_layers as i64 + 1;
        let index = if select_layer < 0 { count + select_layer } else { select_layer };
        usize::try_from(index).ok().filter(|&i| i < count as usize).ok_or_else(|| {
            Error::Config(format!(
                "mm_vision_select_layer = {select_layer}: the vision tower has hidden states 0 to {} (or -{count} to -1)",
                count - 1
            ))
        })
    }

    /// Checks that the sizes are in their bounds and fit together.
    ///
    /// # Errors
    /// [`Error::Config`] with the key that is wrong.
    pub fn validate(&self) -> Result<()> {
        let part = "vision tower";
        check_sizes(
            part,
            [
                ("intermediate_size", self.intermediate_size, WIDTH),
                ("num_hidden_layers", self.num_hidden_layers, LAYERS),
                ("num_channels", self.num_channels, 3..=3),
                ("image_size", self.image_size, PIXELS),
                ("patch_size", self.patch_size, 1..=self.image_size),
            ],
        )?;
        check(&named(part, "patches of a picture"), self.num_patches(), PATCHES)?;
        check(&named(part, "layer_norm_eps"), self.layer_norm_eps, EPSILON)?;
        check_heads(part, self.hidden_size, self.num_attention_heads)
    }
}

/// Where a CLIP text tower finds the end of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EosRule {
    /// The highest id; what transformers does for configs whose `eos_token_id` is 2 (OpenAI's own).
    HighestId,
    /// The first occurrence of this id.
    FirstOf(i64),
}

/// Sizes of a text transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct TextTowerConfig {
    /// CLIP or SigLIP.
    pub family: TowerFamily,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width of the feed-forward.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Longest text, in tokens, start and end included.
    pub max_position_embeddings: usize,
    /// Function of the feed-forward.
    pub hidden_act: Activation,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
    /// How the pooled position is found (CLIP alone; SigLIP pools the last position).
    pub eos_rule: EosRule,
}

impl TextTowerConfig {
    /// Checks that the sizes are in their bounds and fit together.
    ///
    /// # Errors
    /// [`Error::Config`] with the key that is wrong.
    pub fn validate(&self) -> Result<()> {
        let part = "text tower";
        check_sizes(
            part,
            [
                ("vocab_size", self.vocab_size, VOCABULARY),
                ("intermediate_size", self.intermediate_size, WIDTH),
                ("num_hidden_layers", self.num_hidden_layers, LAYERS),
                ("max_position_embeddings", self.max_position_embeddings, 2..=*POSITIONS.end()),
            ],
        )?;
        check(&named(part, "layer_norm_eps"), self.layer_norm_eps, EPSILON)?;
        check_heads(part, self.hidden_size, self.num_attention_heads)
    }
}
