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
        /// Name in the block, such as `mlp.down_proj`.
        name: &'static str,
    },
}

impl MatrixSite {
    /// The reference's key.
    pub fn key(self) -> String {
        match self {
            Self::Embedding => "model.embed_tokens.weight".into(),
            Self::Head => "lm_head.weight".into(),
            Self::Block { layer, name } => format!("model.layers.{layer}.{name}.weight"),
        }
    }

    /// Where the matrix that a full checkpoint has under `key` stands; `None` for what is no matrix of the decoder.
    pub fn of_key(key: &str) -> Option<Self> {
        let fixed = [Self::Embedding, Self::Head].into_iter().find(|site| site.key() == key);
        fixed.or_else(|| {
            let (layer, rest) = key.strip_prefix("model.layers.")?.split_once('.')?;
            let name = NAMES.into_iter().find(|name| rest.strip_suffix(".weight") == Some(name))?;
            Some(Self::Block { layer: layer.parse().ok()?, name })
        })
    }
}

/// The matrices of a block.
const NAMES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

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
            "model.mm_patch_encoder.perceiver.layers.1.mlp.up_proj.weight",
        ] {
            assert_eq!(MatrixSite::of_key(key), None, "{key}");
        }
    }
}
