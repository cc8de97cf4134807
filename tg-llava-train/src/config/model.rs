//! `[model]`: what the training starts from.

use std::{fmt, path::PathBuf};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use tg_llava_core::{
    config::{GuidePadding, SelectFeature},
    conversation::GuideTurn,
    preprocess::DetailSource,
};

use super::names;

/// What the training starts from, and how pictures and guide texts enter the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelOptions {
    /// Folder of the start: a plain decoder (Hugging Face), or a TG-LLaVA checkpoint; empty means not given.
    /// Required (`model_name_or_path`).
    pub path: PathBuf,
    /// Folder or preset of the vision tower. Default: as the start's config says; needed where the start is a plain
    /// decoder.
    pub vision_tower: Option<String>,
    /// Folder or preset of the text tower. Default: that of `vision_tower`, whose folder holds both.
    pub text_tower: Option<String>,
    /// Trained bridges to start from, as stage 1 saves them: the folder, or a table of files. Default: those of the
    /// start, else fresh ones.
    pub bridges: Option<Bridges>,
    /// Whether the weights of the start are taken, or its sizes and tokenizers alone. Default `checkpoint`.
    pub init: Init,
    /// Standard deviation of fresh matrices and convolutions with `init = "random"`. Default: as the reference has
    /// them, 0.02 for most; a model of width 64 learns nothing from so little and wants 0.08.
    pub init_std: Option<f64>,
    /// Shape of the projector: `linear`, `mlpNx_gelu` or `identity` (`mm_projector_type`). Default: as the start's
    /// config says, else `mlp2x_gelu`.
    pub projector_type: Option<String>,
    /// Hidden state of the vision tower that is used; negative counts from the end (`mm_vision_select_layer`).
    /// Default: as the start's config says, else -2.
    pub select_layer: Option<i64>,
    /// `patch`, or `cls_patch` with the class token too (`mm_vision_select_feature`). Default: as the start's config
    /// says, else `patch`.
    #[serde(with = "names::select_feature", skip_serializing_if = "Option::is_none")]
    pub select_feature: Option<SelectFeature>,
    /// Whether the question guides the vision features; `false` leaves the feature guide out. Default true.
    pub feature_guide: bool,
    /// Whether detail tokens are added; `false` leaves the detail perceiver out. Default true.
    pub detail_perceiver: bool,
    /// Which questions of a conversation guide: `last`, `first` or `joined`. Default: as the start's config says,
    /// else `last`.
    pub guide_turn: Option<GuideTurn>,
    /// Whether guide texts see the padding of their batch: `masked`, or `visible` as in the reference. Default: as
    /// the start's config says, else `masked`.
    #[serde(with = "names::guide_padding", skip_serializing_if = "Option::is_none")]
    pub guide_padding: Option<GuidePadding>,
    /// Detail crops from the `upsampled` picture as in the reference, or from the `native` one. Default: as the
    /// start's config says, else `upsampled`.
    #[serde(with = "names::detail_source", skip_serializing_if = "Option::is_none")]
    pub detail_source: Option<DetailSource>,
    /// Whether pictures stand between start and end tokens in the text (`mm_use_im_start_end`). Default: as the
    /// start's config says, else false.
    pub use_im_start_end: Option<bool>,
    /// Dropout of the feature guide in training, a share in `[0, 1)`. Default: as the start's config says, else 0.1.
    pub dropout: Option<f64>,
    /// Longest sequence in tokens, pictures included; what is longer is cut (`model_max_length`). Default 2048.
    pub max_length: usize,
    /// Conversation template (`--version`): `plain`, `v1`, `llama_3`, `qwen_2`, ... Default: `plain` in stage 1; in
    /// stage 2 by the start.
    pub template: Option<String>,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            vision_tower: None,
            text_tower: None,
            bridges: None,
            init: Init::default(),
            init_std: None,
            projector_type: None,
            select_layer: None,
            select_feature: None,
            feature_guide: true,
            detail_perceiver: true,
            guide_turn: None,
            guide_padding: None,
            detail_source: None,
            use_im_start_end: None,
            dropout: None,
            max_length: 2048,
            template: None,
        }
    }
}

/// Where the first weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// From the folder of the start.
    #[default]
    Checkpoint,
    /// Random ones; the folder of the start gives sizes and tokenizers.
    Random,
}

/// Trained bridges to start from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Bridges {
    /// The folder that stage 1 saved.
    Folder(PathBuf),
    /// One file a bridge, as LLaVA's flags name them.
    Files(BridgeFiles),
}

/// Files of trained bridges; a bridge without one starts as it would without any.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeFiles {
    /// The projector (`pretrain_mm_mlp_adapter`).
    pub projector: Option<PathBuf>,
    /// The feature guide (`pretrain_mm_cross_attn`).
    pub feature_guide: Option<PathBuf>,
    /// The detail perceiver (`pretrain_mm_patch_encoder`).
    pub detail_perceiver: Option<PathBuf>,
}

impl<'de> Deserialize<'de> for Bridges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BridgesVisitor;
        impl<'de> Visitor<'de> for BridgesVisitor {
            type Value = Bridges;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a folder, or a table of files: projector, feature_guide, detail_perceiver")
            }

            fn visit_str<E>(self, folder: &str) -> Result<Bridges, E> {
                Ok(Bridges::Folder(folder.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, files: A) -> Result<Bridges, A::Error> {
                BridgeFiles::deserialize(MapAccessDeserializer::new(files)).map(Bridges::Files)
            }
        }
        deserializer.deserialize_any(BridgesVisitor)
    }
}
