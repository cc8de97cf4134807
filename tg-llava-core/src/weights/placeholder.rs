//! Tensors that the reference's files hold but no forward pass reads.

use crate::config::FeatureGuideConfig;

/// A tensor that is written for the reference's loader alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placeholder {
    pub key: String,
    pub shape: Vec<usize>,
    pub value: PlaceholderValue,
}

/// What a placeholder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlaceholderValue {
    /// Zeros.
    Zeros,
    /// Ones: the weights of norms.
    Ones,
    /// 0, 1, 2 ... as 64-bit integers: an index buffer.
    Range,
}

/// BERT's unused tensors under `mm_cross_attn`, with the shapes of `config`.
pub(super) fn placeholders(config: &FeatureGuideConfig) -> Vec<Placeholder> {
    use PlaceholderValue::{Ones, Range, Zeros};
    let (hidden, inter) = (config.hidden_size, config.intermediate_size);
    let (vocab, positions) = (config.unused_vocab_size, config.unused_max_positions);
    let mut out = Vec::new();
    let mut add = |name: &str, shape: &[usize], value| {
        let key = format!("model.mm_cross_attn.Qformer.{name}");
        out.push(Placeholder { key, shape: shape.to_vec(), value });
    };
    add("bert.embeddings.position_ids", &[1, positions], Range);
    add("bert.embeddings.word_embeddings.weight", &[vocab, hidden], Zeros);
    add("bert.embeddings.position_embeddings.weight", &[positions, hidden], Zeros);
    for layer in 0..config.num_hidden_layers {
        let prefix = format!("bert.encoder.layer.{layer}");
        add(&format!("{prefix}.intermediate.dense.weight"), &[inter, hidden], Zeros);
        add(&format!("{prefix}.intermediate.dense.bias"), &[inter], Zeros);
        add(&format!("{prefix}.output.dense.weight"), &[hidden, inter], Zeros);
        add(&format!("{prefix}.output.dense.bias"), &[hidden], Zeros);
        add(&format!("{prefix}.output.LayerNorm.weight"), &[hidden], Ones);
        add(&format!("{prefix}.output.LayerNorm.bias"), &[hidden], Zeros);
    }
    add("cls.predictions.bias", &[vocab], Zeros);
    add("cls.predictions.transform.dense.weight", &[hidden, hidden], Zeros);
    add("cls.predictions.transform.dense.bias", &[hidden], Zeros);
    add("cls.predictions.transform.LayerNorm.weight", &[hidden], Ones);
    add("cls.predictions.transform.LayerNorm.bias", &[hidden], Zeros);
    out
}
