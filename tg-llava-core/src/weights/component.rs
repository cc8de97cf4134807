//! The parts of the model, with their names in paths, keys and files.

use serde::{Deserialize, Serialize};

use super::adapter::PEFT_PREFIX;

/// A part of the model that learns, is saved or is absent as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// The vision tower.
    VisionTower,
    /// The text tower.
    TextTower,
    /// The feature guide (`mm_cross_attn`).
    FeatureGuide,
    /// The detail perceiver (`mm_patch_encoder`).
    DetailPerceiver,
    /// The projector (`mm_projector`).
    Projector,
    /// The decoder, with its embeddings and its head.
    Llm,
}

impl Component {
    /// All components, in the order of the data flow.
    pub const ALL: [Self; 6] = [
        Self::VisionTower,
        Self::TextTower,
        Self::FeatureGuide,
        Self::DetailPerceiver,
        Self::Projector,
        Self::Llm,
    ];

    /// What stage 1 trains, and saves in files of their own.
    pub const BRIDGES: [Self; 3] = [Self::Projector, Self::FeatureGuide, Self::DetailPerceiver];

    /// The one table: the field of the model (and key under `[train]`), the beginning of the reference's keys, what
    /// it is called.
    const fn row(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::VisionTower => ("vision_tower", "model.vision_tower.", "vision tower"),
            Self::TextTower => ("text_tower", "model.text_tower.", "text tower"),
            Self::FeatureGuide => ("feature_guide", "model.mm_cross_attn.", "feature guide"),
            Self::DetailPerceiver => ("detail_perceiver", "model.mm_patch_encoder.", "detail perceiver"),
            Self::Projector => ("projector", "model.mm_projector.", "projector"),
            // What is under `model.` and no other part's; the head is under `lm_head.`.
            Self::Llm => ("llm", "model.", "decoder"),
        }
    }

    /// The model's field, which is also its key in a run's options.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// What it is called in texts for people.
    pub fn title(self) -> &'static str {
        self.row().2
    }

    /// The beginning of its keys in a full checkpoint; the decoder's is the beginning of all keys but the head's.
    pub fn key_prefix(self) -> &'static str {
        self.row().1
    }

    /// The name of its stage-1 file without extension, which is the part's name in keys; `None` for what stage 1 does
    /// not train.
    pub fn bridge_stem(self) -> Option<&'static str> {
        let inner = self.key_prefix().strip_prefix("model.")?.strip_suffix('.')?;
        inner.starts_with("mm_").then_some(inner)
    }

    /// The component that the parameter at `path` of the module tree belongs to.
    pub fn of_path(path: &str) -> Option<Self> {
        let first = path.split('.').next().unwrap_or(path);
        Self::ALL.into_iter().find(|component| component.name() == first)
    }

    /// The component that a key of a full checkpoint or an adapter belongs to; `None` where the key is of no model.
    pub fn of_key(key: &str) -> Option<Self> {
        let key = key.strip_prefix(PEFT_PREFIX).unwrap_or(key);
        if key.starts_with("lm_head.") {
            return Some(Self::Llm);
        }
        // The decoder, whose prefix begins all others, is the last.
        Self::ALL.into_iter().find(|component| key.starts_with(component.key_prefix()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_paths_belong_to_components() {
        for (key, component) in [
            ("model.vision_tower.vision_tower.vision_model.a", Some(Component::VisionTower)),
            ("model.mm_projector.0.weight", Some(Component::Projector)),
            ("model.mm_patch_encoder.latents", Some(Component::DetailPerceiver)),
            ("model.layers.0.mlp.up_proj.weight", Some(Component::Llm)),
            ("lm_head.weight", Some(Component::Llm)),
            ("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", Some(Component::Llm)),
            ("optimizer.step", None),
        ] {
            assert_eq!(Component::of_key(key), component, "{key}");
        }
        assert_eq!(Component::of_path("feature_guide.query_tokens"), Some(Component::FeatureGuide));
        assert_eq!(Component::of_path("lm_head.weight"), None);
    }

    #[test]
    fn paths_and_keys_agree() {
        let model = crate::config::tiny(30).init(&burn::tensor::Device::flex()).unwrap();
        struct Check;
        impl crate::weights::ParameterVisitor for Check {
            fn visit<const D: usize>(
                &mut self,
                path: &crate::weights::ParameterPath,
                _: &burn::module::Param<burn::tensor::Tensor<D>>,
            ) {
                let path = path.dotted();
                let key = crate::weights::reference_key(&path, false);
                assert!(Component::of_path(&path).is_some(), "{path}");
                assert_eq!(Component::of_key(&key), Component::of_path(&path), "{path}");
            }
        }
        crate::weights::visit_parameters(&model, &mut Check);
    }

    #[test]
    fn stage_1_files_are_called_as_in_the_reference() {
        let stems = Component::BRIDGES.map(|bridge| bridge.bridge_stem().unwrap());
        assert_eq!(stems, ["mm_projector", "mm_cross_attn", "mm_patch_encoder"]);
        assert_eq!(Component::VisionTower.bridge_stem(), None);
    }
}
