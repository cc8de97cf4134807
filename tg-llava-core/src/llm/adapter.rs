//! A decoder with low-rank branches over its blocks.

use super::{DecoderLayer, Llm};
use crate::config::{BLOCK_LINEARS, LoraConfig};
use crate::error::{Error, Result};
use crate::nn::{BlockLinear, LoraBranch};

impl DecoderLayer {
    /// The linear layers, with the names that keys have for them.
    pub fn linears(&self) -> [(&'static str, &BlockLinear); 7] {
        let Self { self_attn, mlp, .. } = self;
        [
            ("self_attn.q_proj", &self_attn.q_proj),
            ("self_attn.k_proj", &self_attn.k_proj),
            ("self_attn.v_proj", &self_attn.v_proj),
            ("self_attn.o_proj", &self_attn.o_proj),
            ("mlp.gate_proj", &mlp.gate_proj),
            ("mlp.up_proj", &mlp.up_proj),
            ("mlp.down_proj", &mlp.down_proj),
        ]
    }

    /// The same, to change them.
    pub fn linears_mut(&mut self) -> [(&'static str, &mut BlockLinear); 7] {
        let Self { self_attn, mlp, .. } = self;
        [
            ("self_attn.q_proj", &mut self_attn.q_proj),
            ("self_attn.k_proj", &mut self_attn.k_proj),
            ("self_attn.v_proj", &mut self_attn.v_proj),
            ("self_attn.o_proj", &mut self_attn.o_proj),
            ("mlp.gate_proj", &mut mlp.gate_proj),
            ("mlp.up_proj", &mut mlp.up_proj),
            ("mlp.down_proj", &mut mlp.down_proj),
        ]
    }
}

impl Llm {
    /// Lays fresh branches over the layers that `config` names; whoever had one loses it.
    ///
    /// # Errors
    /// [`Error::Config`] where `config` names none of them.
    pub fn add_adapter(&mut self, config: &LoraConfig) -> Result<()> {
        let mut found = false;
        let device = self.norm.gamma.lazy_device();
        for (block, layer) in self.layers.iter_mut().enumerate() {
            for (name, linear) in layer.linears_mut() {
                let size = config.branch(&format!("model.layers.{block}.{name}"))?;
                linear.lora = size.map(|size| LoraBranch::init(linear.weight.dims(), size, &device));
                found |= linear.lora.is_some();
            }
        }
        if found {
            return Ok(());
        }
        Err(Error::Config(format!(
            "target_modules: fits no linear layer of a decoder block; these are {}",
            BLOCK_LINEARS.join(", ")
        )))
    }

    /// Whether a branch lies over any layer.
    pub fn has_adapter(&self) -> bool {
        self.layers.iter().flat_map(DecoderLayer::linears).any(|(_, linear)| linear.lora.is_some())
    }
}
