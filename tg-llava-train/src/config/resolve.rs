//! Defaults that depend on the stage.

use tg_llava_core::preprocess::AspectRatio;

use super::{Component, PerComponent, Stage, TrainConfig};
use crate::{data::SampleOrder, schedule::Warmup};

impl Stage {
    /// Peak learning rate of the published runs.
    pub fn default_lr(self) -> f64 {
        match self {
            Self::Pretrain => 1e-3,
            Self::Finetune => 2e-5,
        }
    }
}

impl TrainConfig {
    /// Whether `component` learns: as `[train]` says, else as the stage has it and as far as the model has it.
    pub fn trains(&self, component: Component) -> bool {
        self.train.get(component).unwrap_or(match component {
            Component::VisionTower | Component::TextTower => false,
            Component::FeatureGuide => self.model.feature_guide,
            Component::DetailPerceiver => self.model.detail_perceiver,
            Component::Projector => true,
            Component::Llm => self.stage == Stage::Finetune,
        })
    }

    /// Peak learning rate of `component`.
    pub fn lr(&self, component: Component) -> f64 {
        self.optim.lr_of.get(component).unwrap_or(self.peak_lr())
    }

    /// Peak learning rate of the components without one of their own.
    pub fn peak_lr(&self) -> f64 {
        self.optim.lr.unwrap_or(self.stage.default_lr())
    }

    /// The order of an epoch.
    pub fn order(&self) -> SampleOrder {
        self.data.order.unwrap_or(match self.stage {
            Stage::Pretrain => SampleOrder::Shuffled,
            Stage::Finetune => SampleOrder::ModalityLength,
        })
    }

    /// How pictures that are not square are fitted.
    pub fn aspect_ratio(&self) -> AspectRatio {
        self.data.aspect_ratio.unwrap_or(match self.stage {
            Stage::Pretrain => AspectRatio::Square,
            Stage::Finetune => AspectRatio::Pad,
        })
    }

    /// This run with all defaults of its stage written out.
    ///
    /// What depends on the start or the device stays open. To resolve twice changes nothing.
    #[must_use]
    pub fn resolve(mut self) -> Self {
        self.train = PerComponent::from_fn(|component| Some(self.trains(component)));
        self.data.order = Some(self.order());
        self.data.aspect_ratio = Some(self.aspect_ratio());
        self.optim.lr = Some(self.peak_lr());
        (self.optim.warmup_ratio, self.optim.warmup_steps) = match self.optim.warmup() {
            Warmup::Ratio(ratio) => (Some(ratio), None),
            Warmup::Steps(steps) => (None, Some(steps)),
        };
        if self.stage == Stage::Pretrain {
            self.model.template.get_or_insert_with(|| "plain".into());
        }
        if self.model.text_tower.is_none() {
            self.model.text_tower.clone_from(&self.model.vision_tower);
        }
        self
    }
}
