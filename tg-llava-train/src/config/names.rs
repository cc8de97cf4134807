//! How core's options are spelled in TOML.

/// A module for `#[serde(with = ...)]` on an `Option` of one of core's enums.
macro_rules! spelled {
    ($module:ident, $what:literal, $kind:ty, $($name:literal => $value:path),+) => {
        #[doc = $what]
        pub(super) mod $module {
            use serde::{Deserialize, Deserializer, Serializer, de::Error};

            pub fn serialize<S: Serializer>(value: &Option<$kind>, serializer: S) -> Result<S::Ok, S::Error> {
                match value {
                    None => serializer.serialize_none(),
                    $(Some($value) => serializer.serialize_str($name),)+
                }
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<$kind>, D::Error> {
                match String::deserialize(deserializer)?.as_str() {
                    $($name => Ok(Some($value)),)+
                    other => Err(D::Error::unknown_variant(other, &[$($name),+])),
                }
            }
        }
    };
}

spelled!(
    select_feature, "`model.select_feature`.", tg_llava_core::config::SelectFeature,
    "patch" => tg_llava_core::config::SelectFeature::Patch,
    "cls_patch" => tg_llava_core::config::SelectFeature::ClsPatch
);
spelled!(
    guide_padding, "`model.guide_padding`.", tg_llava_core::config::GuidePadding,
    "masked" => tg_llava_core::config::GuidePadding::Masked,
    "visible" => tg_llava_core::config::GuidePadding::Visible
);
spelled!(
    detail_source, "`model.detail_source`.", tg_llava_core::preprocess::DetailSource,
    "upsampled" => tg_llava_core::preprocess::DetailSource::Upsampled,
    "native" => tg_llava_core::preprocess::DetailSource::Native
);
spelled!(
    aspect_ratio, "`data.aspect_ratio`.", tg_llava_core::preprocess::AspectRatio,
    "square" => tg_llava_core::preprocess::AspectRatio::Square,
    "pad" => tg_llava_core::preprocess::AspectRatio::Pad
);
