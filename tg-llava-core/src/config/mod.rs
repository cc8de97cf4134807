//! What a model is made of: sizes and switches, read from and written to Hugging Face's config.json.

mod bounds;
mod bridge;
mod hf;
mod hub_cache;
mod llm;
mod lora;
mod model;
mod preset;
mod tower;

pub use bridge::{DetailPerceiverConfig, FeatureGuideConfig, ProjectorConfig};
pub(crate) use hf::tower_folders;
pub use hf::{
    GenerationDefaults, locate_tower, model_config_json, read_model_config, read_model_config_over,
    read_tower_configs, write_model_config,
};
pub(crate) use hf::{read_json, unknown_tower};
pub use hub_cache::{
    HubCache, MAIN_REVISION, folder_name, hub_name_of, hugging_face_home, is_hub_name, reference_to,
};
pub use llm::{LlmConfig, LlmFamily};
pub use lora::{
    ADAPTER_CONFIG, BLOCK_LINEARS, LoraConfig, LoraScaling, LoraSize, Patterns, TargetModules,
    block_linear_names,
};
pub use model::{GuidePadding, ModelConfig, MultimodalConfig, PaddingSide, SelectFeature, TowerLocation};
pub use preset::{LLM_PRESETS, TOWER_PRESETS, llm_preset, multimodal, tiny, tower_preset};
pub use tower::{EosRule, TextTowerConfig, TowerFamily, VisionTowerConfig};
