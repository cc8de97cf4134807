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
}
