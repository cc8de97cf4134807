//! The parts of the model that can be trained apart from each other.

use serde::{Deserialize, Serialize};

pub use tg_llava_core::weights::Component;

/// One value a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, bound(deserialize = "T: Deserialize<'de> + Default"))]
pub struct PerComponent<T> {
    /// For the vision tower.
    pub vision_tower: T,
    /// For the text tower.
    pub text_tower: T,
    /// For the feature guide.
    pub feature_guide: T,
    /// For the detail perceiver.
    pub detail_perceiver: T,
    /// For the projector.
    pub projector: T,
    /// For the decoder.
    pub llm: T,
}

impl<T> PerComponent<T> {
    /// The value for `component`.
    pub fn get(&self, component: Component) -> &T {
        match component {
            Component::VisionTower => &self.vision_tower,
            Component::TextTower => &self.text_tower,
            Component::FeatureGuide => &self.feature_guide,
            Component::DetailPerceiver => &self.detail_perceiver,
            Component::Projector => &self.projector,
            Component::Llm => &self.llm,
        }
    }

    /// A value for each component.
    pub fn from_fn(mut value: impl FnMut(Component) -> T) -> Self {
        Self {
            vision_tower: value(Component::VisionTower),
            text_tower: value(Component::TextTower),
            feature_guide: value(Component::FeatureGuide),
            detail_perceiver: value(Component::DetailPerceiver),
            projector: value(Component::Projector),
            llm: value(Component::Llm),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_keys() {
        let names = PerComponent::from_fn(Component::name);
        let keys: toml::Table = toml::from_str(&toml::to_string(&names).unwrap()).unwrap();
        assert_eq!(keys.len(), Component::ALL.len());
        for component in Component::ALL {
            assert_eq!(keys[component.name()].as_str(), Some(component.name()));
            assert_eq!(*names.get(component), component.name());
        }
    }
}
