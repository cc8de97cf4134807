//! A configuration in words.

use tg_llava_core::config::{LlmFamily, LoraScaling, ModelConfig, TargetModules, TowerFamily};
use tg_llava_core::weights::Adapter;

use crate::progress::short_count;

/// The parts of a model, a line each.
pub fn model(config: &ModelConfig) -> Vec<(&'static str, String)> {
    let llm = &config.llm;
    let family = match llm.family {
        LlmFamily::Llama => "Llama",
        LlmFamily::Qwen2 => "Qwen2",
    };
    let decoder = format!(
        "{family}, {} layers of width {}, {} heads over {} key/value heads, vocabulary {}, context {}{}",
        llm.num_hidden_layers,
        llm.hidden_size,
        llm.num_attention_heads,
        llm.num_key_value_heads,
        llm.vocab_size,
        llm.max_position_embeddings,
        if llm.tie_word_embeddings { ", tied head" } else { "" },
    );
    let mut out = vec![("decoder", decoder)];
    let Some(mm) = &config.multimodal else { return out };
    let vision = &mm.vision;
    out.push((
        "vision tower",
        format!(
            "{}, {} px in patches of {} px, {} layers of width {} ({})",
            tower_family(vision.family),
            vision.image_size,
            vision.patch_size,
            vision.num_hidden_layers,
            vision.hidden_size,
            mm.towers.vision
        ),
    ));
    if let Some(text) = &mm.text {
        out.push((
            "text tower",
            format!(
                "{}, {} layers of width {}, {} positions ({})",
                tower_family(text.family),
                text.num_hidden_layers,
                text.hidden_size,
                text.max_position_embeddings,
                mm.towers.text
            ),
        ));
    }
    let absent = || "left out".to_owned();
    let guide = mm.guide.as_ref().map_or_else(absent, |guide| {
        format!("{} latents, {} layers", guide.num_query_tokens, guide.num_hidden_layers)
    });
    let detail = mm
        .detail
        .as_ref()
        .map_or_else(absent, |detail| format!("{} latents, {} layers", detail.num_latents, detail.depth));
    out.push(("feature guide", guide));
    out.push(("detail perceiver", detail));
    out.push(("projector", mm.projector.hf_name()));
    out.push(("picture", format!("{} tokens of the decoder", mm.num_image_tokens())));
    out
}

/// An adapter in a line.
pub fn adapter(adapter: &Adapter) -> String {
    let config = &adapter.config;
    let values: usize = adapter.matrices().iter().map(|(_, tensor)| tensor.num_elements()).sum();
    let over = match &config.target_modules {
        TargetModules::Names(names) => names.join(", "),
        TargetModules::Pattern(pattern) => pattern.clone(),
    };
    let scaling = if config.scaling == LoraScaling::RootOfRank { ", rsLoRA" } else { "" };
    format!(
        "rank {}, alpha {}{scaling}, {} values, over {over}",
        config.rank,
        config.alpha,
        short_count(values as u64)
    )
}

fn tower_family(family: TowerFamily) -> &'static str {
    match family {
        TowerFamily::Clip => "CLIP",
        TowerFamily::Siglip => "SigLIP",
    }
}
