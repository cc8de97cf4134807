//! Which components of the model learn.

use burn::module::Module;
use tg_llava_core::model::TgLlava;
use tg_llava_core::pass::Site;

use crate::config::PerComponent;

/// Which components learn; the others get no gradient, no optimizer state and no graph.
pub type TrainedParts = PerComponent<bool>;

impl PerComponent<bool> {
    /// Stage 1 of the reference: bridges and projector; gradients flow through the frozen decoder.
    pub const PRETRAIN: Self = Self {
        vision_tower: false,
        text_tower: false,
        feature_guide: true,
        detail_perceiver: true,
        projector: true,
        llm: false,
    };
    /// Stage 2 of the reference: those and the decoder.
    pub const FINETUNE: Self = Self { llm: true, ..Self::PRETRAIN };
    /// Everything, from scratch.
    pub const ALL: Self = Self { vision_tower: true, text_tower: true, ..Self::FINETUNE };

    /// Whether the step at `site` holds weights that learn.
    pub fn learn_at(&self, site: Site) -> bool {
        match site {
            Site::VisionEmbed | Site::VisionBlock(_) => self.vision_tower,
            Site::TextEmbed | Site::TextBlock(_) | Site::TextFeatures => self.text_tower,
            Site::GuideEmbed
            | Site::GuideSelfAttention(_)
            | Site::GuideCrossAttention(_)
            | Site::GuideBlock(_)
            | Site::GuideMask => self.feature_guide,
            Site::DetailEmbed
            | Site::DetailAttention(_)
            | Site::DetailBlock(_)
            | Site::DetailNorm
            | Site::DetailTokens => self.detail_perceiver,
            Site::Projector => self.projector,
            Site::Splice | Site::DecoderBlock(_) | Site::DecoderNorm => self.llm,
            Site::VisionFeatures | Site::Guides | Site::GuidedFeatures | Site::ImageTokens => false,
        }
    }

    /// Whether nothing learns but what stage-1 files hold.
    pub fn bridges_only(&self) -> bool {
        !(self.vision_tower || self.text_tower || self.llm)
    }

    /// Freezes the components of `model` that do not learn.
    pub fn freeze(self, mut model: TgLlava) -> TgLlava {
        fn keep<M: Module>(module: M, learns: bool) -> M {
            if learns { module } else { module.no_grad() }
        }
        model.vision_tower = model.vision_tower.map(|m| keep(m, self.vision_tower));
        model.text_tower = model.text_tower.map(|m| keep(m, self.text_tower));
        model.feature_guide = model.feature_guide.map(|m| keep(m, self.feature_guide));
        model.detail_perceiver = model.detail_perceiver.map(|m| keep(m, self.detail_perceiver));
        model.projector = model.projector.map(|m| keep(m, self.projector));
        model.llm = keep(model.llm, self.llm);
        model
    }
}
