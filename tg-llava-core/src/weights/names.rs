//! Our module paths and the reference's keys; which component has which beginning stands in [`Component`].

use super::Component;
use super::adapter::PEFT_PREFIX;
use crate::quant::MatrixSite;

/// Rewrites of a module path inside towers and decoder, tried in order; the first rule whose left side is a prefix
/// applies. Bridges change their component's name alone.
const PREFIXES: [(&str, &str); 10] = [
    ("vision_tower.embeddings.", "model.vision_tower.vision_tower.vision_model.embeddings."),
    ("vision_tower.pre_layernorm.", "model.vision_tower.vision_tower.vision_model.pre_layrnorm."),
    ("vision_tower.post_layernorm.", "model.vision_tower.vision_tower.vision_model.post_layernorm."),
    ("vision_tower.layers.", "model.vision_tower.vision_tower.vision_model.encoder.layers."),
    ("text_tower.layers.", "model.text_tower.text_tower.text_model.encoder.layers."),
    ("text_tower.final_layer_norm.", "model.text_tower.text_tower.text_model.final_layer_norm."),
    ("text_tower.head.", "model.text_tower.text_tower.text_model.head."),
    ("text_tower.", "model.text_tower.text_tower.text_model.embeddings."),
    ("llm.lm_head.", "lm_head."),
    ("llm.", "model."),
];

/// Parts of the feature guide's paths.
const QFORMER: [(&str, &str); 10] = [
    (".qformer.embed_norm.", ".Qformer.bert.embeddings.LayerNorm."),
    (".qformer.layers.", ".Qformer.bert.encoder.layer."),
    (".cross_attention.", ".crossattention."),
    ("attention.query.", "attention.self.query."),
    ("attention.key.", "attention.self.key."),
    ("attention.value.", "attention.self.value."),
    ("attention.dense.", "attention.output.dense."),
    ("attention.norm.", "attention.output.LayerNorm."),
    (".ffn.up.", ".intermediate_query.dense."),
    (".ffn.down.", ".output_query.dense."),
];

/// What a branch's two matrices are called in our module tree and in PEFT's files.
const LORA: [(&str, &str); 2] = [(".lora.a", ".lora_A.weight"), (".lora.b", ".lora_B.weight")];

/// The reference's key of the parameter at `path` in our module tree (`model.*` and `lm_head.*`; those of an adapter as PEFT has
/// them).
///
/// `plain_linear_projector` tells `linear` (its keys have no index) from `mlp1x_gelu`.
pub fn reference_key(path: &str, plain_linear_projector: bool) -> String {
    let path = match path.rsplit_once('.') {
        Some((head, "gamma")) => format!("{head}.weight"),
        Some((head, "beta")) => format!("{head}.bias"),
        _ => path.to_owned(),
    };
    for (ours, theirs) in LORA {
        if let Some(module) = path.strip_suffix(ours) {
            return format!("{PEFT_PREFIX}{}{theirs}", reference_key(module, plain_linear_projector));
        }
    }
    if let Some(rest) = path.strip_prefix("projector.layers.") {
        let (index, leaf) = rest.split_once('.').unwrap_or((rest, ""));
        let prefix = Component::Projector.key_prefix();
        return match (plain_linear_projector, index.parse::<usize>()) {
            (false, Ok(index)) => format!("{prefix}{}.{leaf}", 2 * index),
            _ => format!("{prefix}{leaf}"),
        };
    }
    let path = match vocabulary_piece(&path) {
        Some((whole, _)) => format!("{whole}.weight"),
        None => path,
    };
    let component = Component::of_path(&path);
    let bridge = component.filter(|component| component.bridge_stem().is_some());
    let bridge =
        bridge.and_then(|bridge| Some((bridge, path.strip_prefix(bridge.name())?.strip_prefix('.')?)));
    let Some((bridge, rest)) = bridge else {
        let mut rules = PREFIXES.iter();
        let renamed = rules.find_map(|(ours, theirs)| Some(format!("{theirs}{}", path.strip_prefix(ours)?)));
        return renamed.unwrap_or(path);
    };
    let mut key = format!("{}{rest}", bridge.key_prefix());
    match bridge {
        Component::FeatureGuide => {
            for (ours, theirs) in QFORMER {
                key = key.replace(ours, theirs);
            }
            key = key.replace(".ffn.norm.", ".output_query.LayerNorm.");
        }
        Component::DetailPerceiver => {
            for name in ["pre_mlp", "proj"] {
                key = key.replace(&format!(".{name}.fc1."), &format!(".{name}.0."));
                key = key.replace(&format!(".{name}.fc2."), &format!(".{name}.2."));
            }
        }
        _ => {}
    }
    key
}

/// Whether the parameter at `path` of the module tree belongs to an adapter.
pub fn is_adapter_path(path: &str) -> bool {
    LORA.iter().any(|(ours, _)| path.ends_with(ours))
}

/// The linear layer of a decoder block whose matrix a full checkpoint has under `key`.
pub(super) fn block_linear(key: &str) -> Option<&str> {
    let in_block = matches!(MatrixSite::of_key(key)?, MatrixSite::Block { .. });
    key.strip_suffix(".weight").filter(|_| in_block)
}

/// Whether a full checkpoint has the matrix of a linear layer of a decoder block under `key`.
pub fn is_block_matrix(key: &str) -> bool {
    block_linear(key).is_some()
}

/// Whether a key is one of an adapter's file.
pub fn is_adapter_key(key: &str) -> bool {
    key.starts_with(PEFT_PREFIX) && LORA.iter().any(|(_, theirs)| key.ends_with(theirs))
}

/// The whole and the number of the piece, for a piece of the vocabulary's tables: checkpoints know the wholes alone.
pub(super) fn vocabulary_piece(path: &str) -> Option<(&'static str, usize)> {
    ["llm.embed_tokens", "llm.lm_head"].into_iter().find_map(|whole| {
        let rest = path.strip_prefix(whole)?;
        let number = match rest.strip_prefix("_more.") {
            Some(more) => more.strip_suffix(".weight")?.parse::<usize>().ok()? + 1,
            None => (rest == ".weight").then_some(0)?,
        };
        Some((whole, number))
    })
}

/// Whether `key` is in the reference's files but takes no part in the model: the only keys that loading
/// skips.
///
/// - BERT's word and position embeddings, text branch and language-model head under `mm_cross_attn`
/// - index buffers (`position_ids`) and rotary frequencies (`rotary_emb.inv_freq`)
/// - CLIP's and SigLIP's projections, logit scale and bias, and SigLIP's pooling head
pub fn is_unused_key(key: &str) -> bool {
    if key.ends_with(".position_ids") || key.ends_with("rotary_emb.inv_freq") {
        return true;
    }
    if let Some(rest) = key.strip_prefix("model.mm_cross_attn.Qformer.") {
        return rest.starts_with("cls.")
            || rest.starts_with("bert.embeddings.word_embeddings.")
            || rest.starts_with("bert.embeddings.position_embeddings.")
            || is_text_branch(rest);
    }
    let tower = key
        .strip_prefix("model.vision_tower.vision_tower.")
        .or_else(|| key.strip_prefix("model.text_tower.text_tower."));
    match tower {
        Some(rest) => is_unused_tower_key(rest),
        None => false,
    }
}

/// The same for the keys of a tower's own folder.
pub(super) fn is_unused_tower_key(key: &str) -> bool {
    matches!(key, "logit_scale" | "logit_bias" | "text_projection.weight" | "visual_projection.weight")
        || key.ends_with(".position_ids")
        || key.starts_with("vision_model.head.")
}

/// `bert.encoder.layer.N.intermediate.*` and `bert.encoder.layer.N.output.*`: BERT's text feed-forward.
fn is_text_branch(rest: &str) -> bool {
    let Some(layer) = rest.strip_prefix("bert.encoder.layer.") else { return false };
    let Some((_, part)) = layer.split_once('.') else { return false };
    part.starts_with("intermediate.") || part.starts_with("output.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_every_part() {
        for (path, key) in [
            ("llm.layers.3.self_attn.q_proj.weight", "model.layers.3.self_attn.q_proj.weight"),
            ("llm.layers.3.input_layernorm.gamma", "model.layers.3.input_layernorm.weight"),
            ("llm.layers.3.mlp.up_proj.lora.b", "base_model.model.model.layers.3.mlp.up_proj.lora_B.weight"),
            ("llm.lm_head.weight", "lm_head.weight"),
            ("llm.lm_head_more.1.weight", "lm_head.weight"),
            ("llm.embed_tokens_more.0.weight", "model.embed_tokens.weight"),
            ("feature_guide.query_tokens", "model.mm_cross_attn.query_tokens"),
            (
                "feature_guide.qformer.layers.0.cross_attention.query.weight",
                "model.mm_cross_attn.Qformer.bert.encoder.layer.0.crossattention.self.query.weight",
            ),
            (
                "feature_guide.qformer.layers.1.attention.norm.beta",
                "model.mm_cross_attn.Qformer.bert.encoder.layer.1.attention.output.LayerNorm.bias",
            ),
            (
                "feature_guide.qformer.layers.1.ffn.norm.gamma",
                "model.mm_cross_attn.Qformer.bert.encoder.layer.1.output_query.LayerNorm.weight",
            ),
            ("detail_perceiver.pre_mlp.fc2.bias", "model.mm_patch_encoder.pre_mlp.2.bias"),
            (
                "detail_perceiver.perceiver.layers.1.mlp.up_proj.weight",
                "model.mm_patch_encoder.perceiver.layers.1.mlp.up_proj.weight",
            ),
            ("projector.layers.1.weight", "model.mm_projector.2.weight"),
            (
                "text_tower.token_embedding.weight",
                "model.text_tower.text_tower.text_model.embeddings.token_embedding.weight",
            ),
        ] {
            assert_eq!(reference_key(path, false), key);
        }
        assert_eq!(reference_key("projector.layers.0.bias", true), "model.mm_projector.bias");
    }

    #[test]
    fn only_named_keys_are_skipped() {
        let bert = "model.mm_cross_attn.Qformer.bert.";
        assert!(is_unused_key(&format!("{bert}embeddings.word_embeddings.weight")));
        assert!(is_unused_key(&format!("{bert}encoder.layer.1.output.dense.bias")));
        assert!(!is_unused_key(&format!("{bert}encoder.layer.1.output_query.dense.bias")));
        assert!(!is_unused_key(&format!("{bert}encoder.layer.1.attention.output.dense.bias")));
        assert!(!is_unused_key("model.layers.0.mlp.up_proj.weight"));
        assert!(!is_unused_key("model.something_else"));
    }
}
