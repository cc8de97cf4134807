//! How core's options are spelled in TOML.

/// A module for `#[serde(with = ...)]` on one of core's enums or an `Option` of it.
macro_rules! spelled {
    ($module:ident, $what:literal, $kind:ty, $($name:literal => $value:path),+) => {
        #[doc = $what]
        pub(super) mod $module {
            use serde::{Deserialize, Deserializer, Serializer, de::Error};

            pub fn serialize<V, S>(value: &V, serializer: S) -> Result<S::Ok, S::Error>
            where
                V: Copy + Into<Option<$kind>>,
                S: Serializer,
            {
                match (*value).into() {
                    None => serializer.serialize_none(),
                    $(Some($value) => serializer.serialize_str($name),)+
                }
            }

            pub fn deserialize<'de, V: From<$kind>, D: Deserializer<'de>>(deserializer: D) -> Result<V, D::Error> {
                match String::deserialize(deserializer)?.as_str() {
                    $($name => Ok($value.into()),)+
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
