use crate::config::BLOCK_LINEARS;

/// Where a matrix of the decoder stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatrixSite {
    /// Vectors of tokens.
    Embedding,
    /// Output head, where it is not the embedding.
    Head,
    /// In a block.
    Block {
        /// Number of the block.
        layer: usize,
        /// Name in the block, one of [`BLOCK_LINEARS`].
        name: &'static str,
    },
}

impl MatrixSite {
    /// All matrices of so many blocks.
    pub fn of_blocks(num_layers: usize) -> impl Iterator<Item = Self> {
        (0..num_layers).flat_map(|layer| BLOCK_LINEARS.map(|name| Self::Block { layer, name }))
    }

    /// What the reference calls the layer.
    pub fn module(self) -> String {
        match self {
            Self::Embedding => "model.embed_tokens".into(),
            Self::Head => "lm_head".into(),
            Self::Block { layer, name } => format!("model.layers.{layer}.{name}"),
        }
    }

    /// The reference's key.
    pub fn key(self) -> String {
        self.module() + ".weight"
    }

    /// Where the matrix that a full checkpoint has under `key` stands; `None` for what is no matrix of the decoder.
    pub fn of_key(key: &str) -> Option<Self> {
        let fixed = [Self::Embedding, Self::Head].into_iter().find(|site| site.key() == key);
        fixed.or_else(|| {
            let (layer, rest) = key.strip_prefix("model.layers.")?.split_once('.')?;
            let name = BLOCK_LINEARS.into_iter().find(|name| rest.strip_suffix(".weight") == Some(name))?;
            Some(Self::Block { layer: layer.parse().ok()?, name })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_found_by_their_keys() {
        let mut model = crate::config::tiny(30).init(&burn::tensor::Device::flex()).unwrap();
        for (site, _) in model.llm.matrices_mut() {
            assert_eq!(MatrixSite::of_key(&site.key()), Some(site));
        }
        for key in [
            "model.layers.1.self_attn.q_proj.bias",
            "model.layers.1.input_layernorm.weight",
            "model.layers.1.mlp.q_proj.weight",
            "model.mm_patch_encoder.perceiver.layers.1.mlp.up_proj.weight",
        ] {
            assert_eq!(MatrixSite::of_key(key), None, "{key}");
        }
    }
}
