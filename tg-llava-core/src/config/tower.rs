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

    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// [`Error::Config`] with the key that is wrong.
    pub fn validate(&self) -> Result<()> {
        if self.patch_size == 0 || self.image_size < self.patch_size {
            return Err(Error::Config(format!(
                "vision tower: image_size = {} with patch_size = {}",
                self.image_size, self.patch_size
            )));
        }
        check_heads("vision tower", self.hidden_size, self.num_attention_heads)
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
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// [`Error::Config`] with the key that is wrong.
    pub fn validate(&self) -> Result<()> {
        if self.max_position_embeddings < 2 || self.vocab_size == 0 {
            return Err(Error::Config(format!(
                "text tower: max_position_embeddings = {}, vocab_size = {}",
                self.max_position_embeddings, self.vocab_size
            )));
        }
        check_heads("text tower", self.hidden_size, self.num_attention_heads)
    }
}

/// Checks that `hidden_size` divides into heads.
pub(super) fn check_heads(what: &str, hidden_size: usize, num_heads: usize) -> Result<()> {
    if num_heads == 0 || hidden_size == 0 || !hidden_size.is_multiple_of(num_heads) {
        return Err(Error::Config(format!(
            "{what}: hidden_size = {hidden_size} does not divide into {num_heads} attention heads"
        )));
    }
    Ok(())
}
