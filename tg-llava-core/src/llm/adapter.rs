//! A decoder with low-rank branches over its blocks.

use super::{DecoderLayer, Llm};
use crate::config::{BLOCK_LINEARS, LoraConfig, block_linear_names};
use crate::error::{Error, Result};
use crate::nn::{BlockLinear, LoraBranch};
use crate::quant::MatrixSite;

impl DecoderLayer {
    /// The linear layers, with the names that keys have for them.
    pub fn linears(&self) -> impl Iterator<Item = (&'static str, &BlockLinear)> {
        let Self { self_attn: attention, mlp, .. } = self;
        let (q, k, v) = (&attention.q_proj, &attention.k_proj, &attention.v_proj);
        let all = [q, k, v, &attention.o_proj, &mlp.gate_proj, &mlp.up_proj, &mlp.down_proj];
        BLOCK_LINEARS.into_iter().zip(all)
    }

    /// The same, to change them.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut BlockLinear)> {
        let Self { self_attn: attention, mlp, .. } = self;
        let (q, k, v) = (&mut attention.q_proj, &mut attention.k_proj, &mut attention.v_proj);
        let all = [q, k, v, &mut attention.o_proj, &mut mlp.gate_proj, &mut mlp.up_proj, &mut mlp.down_proj];
        BLOCK_LINEARS.into_iter().zip(all)
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
        for (layer, block) in self.layers.iter_mut().enumerate() {
            for (name, linear) in block.linears_mut() {
                let size = config.branch(&MatrixSite::Block { layer, name }.module())?;
                linear.lora = size.map(|size| LoraBranch::init(linear.weight.dims(), size, &device));
                found |= linear.lora.is_some();
            }
        }
        if found {
            return Ok(());
        }
        Err(Error::Config(format!(
            "target_modules: fits no linear layer of a decoder block; these are {}",
            block_linear_names().join(", ")
        )))
    }

    /// Whether a branch lies over any layer.
    pub fn has_adapter(&self) -> bool {
        self.layers.iter().flat_map(DecoderLayer::linears).any(|(_, linear)| linear.lora.is_some())
    }
}
