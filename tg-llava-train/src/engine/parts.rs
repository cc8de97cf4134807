//! Which components of the model learn.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use tg_llava_core::model::TgLlava;
use tg_llava_core::pass::Site;
use tg_llava_core::weights::{ParameterMapper, ParameterPath, is_adapter_path, map_parameters};

use crate::config::{Component, PerComponent};

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

    /// Whether the parameter at `path` of a model learns. Of a decoder `with_adapter`, that alone does.
    pub fn learns(&self, path: &str, with_adapter: bool) -> bool {
        let Some(component) = Component::of_path(path) else { return false };
        let frozen = component == Component::Llm && with_adapter && !is_adapter_path(path);
        *self.get(component) && !frozen
    }

    /// Whether the step at `site` holds weights that learn.
    pub fn learn_at(&self, site: Site, with_adapter: bool) -> bool {
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
            Site::DecoderBlock(_) => self.llm,
            Site::Splice | Site::DecoderNorm => self.llm && !with_adapter,
            Site::VisionFeatures | Site::Guides | Site::GuidedFeatures | Site::ImageTokens => false,
        }
    }

    /// Whether nothing learns but what stage-1 files hold.
    pub fn bridges_only(&self) -> bool {
        !(self.vision_tower || self.text_tower || self.llm)
    }

    /// Freezes what does not learn of `model`.
    pub fn freeze(self, mut model: TgLlava) -> TgLlava {
        fn keep<M: Module>(module: M, learns: bool) -> M {
            if learns { module } else { module.no_grad() }
        }
        model.vision_tower = model.vision_tower.map(|m| keep(m, self.vision_tower));
        model.text_tower = model.text_tower.map(|m| keep(m, self.text_tower));
        model.feature_guide = model.feature_guide.map(|m| keep(m, self.feature_guide));
        model.detail_perceiver = model.detail_perceiver.map(|m| keep(m, self.detail_perceiver));
        model.projector = model.projector.map(|m| keep(m, self.projector));
        if self.llm && model.llm.has_adapter() {
            return map_parameters(model, &mut AdapterAlone);
        }
        model.llm = keep(model.llm, self.llm);
        model
    }
}

/// Freezes a decoder but for the adapter over it.
struct AdapterAlone;

impl ParameterMapper for AdapterAlone {
    fn map<const D: usize>(&mut self, path: &ParameterPath, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = path.dotted();
        match Component::of_path(&path) {
            Some(Component::Llm) => param.set_require_grad(is_adapter_path(&path)),
            _ => param,
        }
    }
}
