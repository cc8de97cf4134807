use super::bounds::{LAYERS, check};
use super::{
    DetailPerceiverConfig, FeatureGuideConfig, LlmConfig, ProjectorConfig, TextTowerConfig, VisionTowerConfig,
};
use crate::conversation::GuideTurn;
use crate::error::{Error, Result};
use crate::preprocess::{AspectRatio, DetailSource};

/// A whole model. Without [`ModelConfig::multimodal`] it is a plain text decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The decoder.
    pub llm: LlmConfig,
    /// Towers, bridges and how pictures enter the text.
    pub multimodal: Option<MultimodalConfig>,
    /// Name of the conversation template, where the checkpoint states one.
    pub conversation: Option<String>,
    /// Sequences are cut to this many tokens after pictures were spliced in.
    pub max_length: usize,
    /// Where short rows of a batch are filled up.
    pub padding_side: PaddingSide,
}

/// Which vision features are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelectFeature {
    /// Patches alone.
    Patch,
    /// The class token and the patches.
    ClsPatch,
}

/// Where short rows are filled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaddingSide {
    /// Behind the text.
    Right,
    /// Before the text.
    Left,
}

/// What a batch's guide texts see of their padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuidePadding {
    /// Nothing: a row of a batch equals the single run.
    Masked,
    /// The reference's behaviour: CLIP masks id 0 alone and the perceiver sees all positions, so that
    /// results depend on batch mates. For parity.
    Visible,
}

/// Where a tower's weights and tokenizer were found or shall be looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TowerLocation {
    /// `mm_vision_tower` as config.json has it: a folder (relative ones count from the checkpoint) or a hub name.
    pub vision: String,
    /// `mm_text_tower`.
    pub text: String,
}

/// Towers, bridges and how pictures enter the text.
#[derive(Debug, Clone, PartialEq)]
pub struct MultimodalConfig {
    /// The vision tower.
    pub vision: VisionTowerConfig,
    /// The text tower; needed where there is a guide or a detail perceiver.
    pub text: Option<TextTowerConfig>,
    /// Where the towers live.
    pub towers: TowerLocation,
    /// The feature guide; `None` leaves it out (ablation).
    pub guide: Option<FeatureGuideConfig>,
    /// The detail perceiver; `None` leaves it out (ablation).
    pub detail: Option<DetailPerceiverConfig>,
    /// The projector.
    pub projector: ProjectorConfig,
    /// Hidden state of the vision tower; negative counts from the end.
    pub select_layer: i64,
    /// Patches, or the class token too.
    pub select_feature: SelectFeature,
    /// How pictures that are not square are fitted.
    pub aspect_ratio: AspectRatio,
    /// Which human turn guides the vision features.
    pub guide_turn: GuideTurn,
    /// Whether guide texts see their padding.
    pub guide_padding: GuidePadding,
    /// What the detail crops show.
    pub detail_source: DetailSource,
    /// Whether pictures stand between start and end tokens in the text (`mm_use_im_start_end`).
    pub use_im_start_end: bool,
}

impl MultimodalConfig {
    /// Vision tokens of one picture after feature selection.
    pub fn num_vision_tokens(&self) -> usize {
        match self.select_feature {
            SelectFeature::Patch => self.vision.num_patches(),
            SelectFeature::ClsPatch => self.vision.num_positions(),
        }
    }

    /// Decoder tokens that stand for one picture: projected vision tokens, then detail tokens.
    pub fn num_image_tokens(&self) -> usize {
        self.num_vision_tokens() + self.detail.as_ref().map_or(0, |d| d.num_latents)
    }
}

impl ModelConfig {
    /// Whether the projector is one plain linear layer, whose keys have no index in checkpoints.
    pub fn has_plain_linear_projector(&self) -> bool {
        self.multimodal.as_ref().is_some_and(|mm| mm.projector == ProjectorConfig::Linear)
    }

    /// Checks that all parts fit together.
    ///
    /// # Errors
    /// [`Error::Config`] with the first thing that does not fit.
    pub fn validate(&self) -> Result<()> {
        self.llm.validate()?;
        check("tokenizer_model_max_length", self.max_length, 1..=usize::MAX)?;
        let Some(mm) = &self.multimodal else { return Ok(()) };
        mm.vision.validate()?;
        if let Some(text) = &mm.text {
            text.validate()?;
        }
        let text_width = mm.text.as_ref().map(|text| text.hidden_size);
        mm.vision.hidden_state_index(mm.select_layer)?;
        if mm.select_feature == SelectFeature::ClsPatch && !mm.vision.has_class_token() {
            return Err(Error::Config(
                "mm_vision_select_feature = \"cls_patch\": a SigLIP tower has no class token; use \"patch\""
                    .into(),
            ));
        }
        let fits = |what: &str, got: usize, wanted: usize| {
            if got == wanted {
                return Ok(());
            }
            Err(Error::Config(format!("{what} = {got}, but the towers and the decoder need {wanted}")))
        };
        if let Some(guide) = &mm.guide {
            guide.validate()?;
            fits("tg_llava.qformer.hidden_size", guide.hidden_size, mm.vision.hidden_size)?;
            fits("tg_llava.num_query_tokens", guide.num_query_tokens, mm.num_vision_tokens())?;
            fits("mm_text_hidden_size", guide.text_hidden_size, text_width.unwrap_or(0))?;
        }
        if let Some(detail) = &mm.detail {
            detail.validate()?;
            fits("tg_llava.perceiver.hidden_size", detail.hidden_size, mm.vision.hidden_size)?;
            fits("tg_llava.num_patch_positions", detail.num_positions, 4 * mm.num_vision_tokens())?;
            fits("mm_text_hidden_size", detail.text_hidden_size, text_width.unwrap_or(0))?;
            fits("the detail perceiver's output width", detail.output_size, self.llm.hidden_size)?;
        }
        if let ProjectorConfig::MlpGelu(layers) = mm.projector {
            check("mm_projector_type: layers", layers, LAYERS)?;
        }
        if mm.projector == ProjectorConfig::Identity {
            fits(
                "mm_projector_type = \"identity\": the vision width",
                mm.vision.hidden_size,
                self.llm.hidden_size,
            )?;
        }
        Ok(())
    }
}
