//! Which components of the model learn.

use burn::module::Module;
use serde::{Deserialize, Serialize};
use tg_llava_core::model::TgLlava;

/// The components that can be trained or frozen one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// Pictures to features.
    VisionTower,
    /// Guide text to features.
    TextTower,
    /// `mm_cross_attn`.
    FeatureGuide,
    /// `mm_patch_encoder`.
    DetailPerceiver,
    /// `mm_projector`.
    Projector,
    /// The decoder.
    Llm,
}

impl Component {
    /// All of them, in the order of the data flow.
    pub const ALL: [Self; 6] = [
        Self::VisionTower,
        Self::TextTower,
        Self::FeatureGuide,
        Self::DetailPerceiver,
        Self::Projector,
        Self::Llm,
    ];

    /// Its name in configs and in the module tree.
    pub fn name(self) -> &'static str {
        match self {
            Self::VisionTower => "vision_tower",
            Self::TextTower => "text_tower",
            Self::FeatureGuide => "feature_guide",
            Self::DetailPerceiver => "detail_perceiver",
            Self::Projector => "projector",
            Self::Llm => "llm",
        }
    }

    /// The component that the parameter at `path` belongs to.
    pub fn of_path(path: &str) -> Option<Self> {
        let first = path.split('.').next().unwrap_or(path);
        Self::ALL.into_iter().find(|component| component.name() == first)
    }
}

/// Which components learn; the others get no gradient, no optimizer state and no graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainedParts {
    /// See [`Component::VisionTower`].
    pub vision_tower: bool,
    /// See [`Component::TextTower`].
    pub text_tower: bool,
    /// See [`Component::FeatureGuide`].
    pub feature_guide: bool,
    /// See [`Component::DetailPerceiver`].
    pub detail_perceiver: bool,
    /// See [`Component::Projector`].
    pub projector: bool,
    /// See [`Component::Llm`].
    pub llm: bool,
}

impl TrainedParts {
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

    /// Whether `component` learns.
    pub fn trains(self, component: Component) -> bool {
        match component {
            Component::VisionTower => self.vision_tower,
            Component::TextTower => self.text_tower,
            Component::FeatureGuide => self.feature_guide,
            Component::DetailPerceiver => self.detail_perceiver,
            Component::Projector => self.projector,
            Component::Llm => self.llm,
        }
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
