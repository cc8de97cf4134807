//! `preprocessor_config.json`.

use std::path::Path;

use serde::Deserialize;

use super::{
    processor::{Fit, ImageProcessor},
    resize::Filter,
};
use crate::error::{Error, Result};

/// Side assumed by both processors where the file names none.
const DEFAULT_SIDE: usize = 224;
/// What a picture may be fitted or cut to; no vision tower takes more.
const SIDES: std::ops::RangeInclusive<usize> = 1..=4096;

pub(super) fn read(path: &Path) -> Result<ImageProcessor> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
    let raw: Raw = serde_json::from_str(&text).map_err(|source| Error::json(path, source))?;
    raw.build().map_err(|detail| Error::Config(format!("{}: {detail}", path.display())))
}

/// The keys read; others (`do_convert_rgb`: RGB is all we take) change nothing here.
#[derive(Deserialize)]
struct Raw {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    do_resize: Option<bool>,
    size: Option<RawSize>,
    resample: Option<u64>,
    do_center_crop: Option<bool>,
    crop_size: Option<RawSize>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(untagged, expecting = "a size is a number, {\"shortest_edge\": n} or {\"height\": n, \"width\": n}")]
enum RawSize {
    Side(usize),
    Shortest { shortest_edge: usize },
    Sides { height: usize, width: usize },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Clip,
    Siglip,
}

impl Raw {
    fn build(&self) -> Result<ImageProcessor, String> {
        let family = self.family()?;
        let default = match family {
            Family::Clip => ImageProcessor::clip(DEFAULT_SIDE),
            Family::Siglip => ImageProcessor::siglip(DEFAULT_SIDE),
        };
        let processor = ImageProcessor {
            fit: self.fit(family, default.fit)?,
            crop: self.crop(default.crop)?,
            filter: self.filter(default.filter)?,
            rescale: match self.do_rescale {
                Some(false) => 1.0,
                _ => self.rescale_factor.unwrap_or(default.rescale),
            },
            mean: self.image_mean.unwrap_or(default.mean),
            std: self.image_std.unwrap_or(default.std),
        };
        let processor = match self.do_normalize {
            Some(false) => processor.with_normalization([0.0; 3], [1.0; 3]),
            _ => processor,
        };
        processor.check()?;
        Ok(processor)
    }

    fn family(&self) -> Result<Family, String> {
        let named = self.image_processor_type.as_deref().or(self.feature_extractor_type.as_deref());
        match named {
            None | Some("CLIPImageProcessor" | "CLIPImageProcessorFast" | "CLIPFeatureExtractor") => {
                Ok(Family::Clip)
            }
            Some("SiglipImageProcessor" | "SiglipImageProcessorFast") => Ok(Family::Siglip),
            Some(other) => Err(format!(
                "image_processor_type \"{other}\" is not known; \"CLIPImageProcessor\" and \"SiglipImageProcessor\" are"
            )),
        }
    }

    fn fit(&self, family: Family, default: Fit) -> Result<Fit, String> {
        if self.do_resize == Some(false) {
            return Ok(Fit::Keep);
        }
        match (self.size, family) {
            (None, _) => Ok(default),
            // A plain number means the shorter side to CLIP's processor, and both sides to SigLIP's.
            (Some(RawSize::Side(side)), Family::Siglip) => Ok(Fit::Stretch(side)),
            (Some(RawSize::Side(side)), Family::Clip) => Ok(Fit::Shortest(side)),
            (Some(RawSize::Shortest { shortest_edge }), _) => Ok(Fit::Shortest(shortest_edge)),
            (Some(RawSize::Sides { height, width }), _) => Ok(Fit::Stretch(square("size", height, width)?)),
        }
    }

    fn crop(&self, default: Option<usize>) -> Result<Option<usize>, String> {
        if !self.do_center_crop.unwrap_or(default.is_some()) {
            return Ok(None);
        }
        match self.crop_size {
            None => Ok(default.or(Some(DEFAULT_SIDE))),
            Some(RawSize::Side(side)) => Ok(Some(side)),
            Some(RawSize::Sides { height, width }) => square("crop_size", height, width).map(Some),
            Some(RawSize::Shortest { .. }) => {
                Err("crop_size wants {\"height\": n, \"width\": n}, not a shortest_edge".into())
            }
        }
    }

    fn filter(&self, default: Filter) -> Result<Filter, String> {
        let Some(number) = self.resample else { return Ok(default) };
        Filter::from_number(number)
            .ok_or_else(|| format!("resample {number} is no filter of Pillow; 0 to 5 are"))
    }
}

impl ImageProcessor {
    /// Whether every picture comes out as a square of one size, with finite values.
    fn check(&self) -> Result<(), String> {
        if self.crop.is_none() && !matches!(self.fit, Fit::Stretch(_)) {
            return Err("pictures would come out in different sizes; set do_center_crop and crop_size, or \
                 size with height and width"
                .into());
        }
        let fitted = match self.fit {
            Fit::Keep => None,
            Fit::Shortest(side) | Fit::Stretch(side) => Some(side),
        };
        if [Some(self.image_size()), fitted].into_iter().flatten().any(|side| !SIDES.contains(&side)) {
            let (least, most) = SIDES.into_inner();
            return Err(format!("size and crop_size want between {least} and {most} pixels"));
        }
        if self.std.iter().any(|&std| !std.is_normal()) || !self.rescale.is_finite() {
            return Err(format!(
                "image_std {:?} and rescale_factor {} want finite values, image_std none of zero",
                self.std, self.rescale
            ));
        }
        Ok(())
    }
}

fn square(key: &str, height: usize, width: usize) -> Result<usize, String> {
    if height == width {
        Ok(height)
    } else {
        Err(format!("{key} {width}x{height} is not square, and vision towers take squares"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<ImageProcessor, String> {
        serde_json::from_str::<Raw>(json).map_err(|error| error.to_string())?.build()
    }

    #[test]
    fn both_forms_mean_the_same() {
        let old = parse(r#"{"size": 42, "crop_size": 42, "feature_extractor_type": "CLIPFeatureExtractor"}"#);
        let new = parse(
            r#"{"size": {"shortest_edge": 42}, "crop_size": {"height": 42, "width": 42}, "resample": 3,
                "image_processor_type": "CLIPImageProcessor", "do_rescale": true}"#,
        );
        assert_eq!(old, new);
        assert_eq!(new, Ok(ImageProcessor::clip(42)));
        assert_eq!(parse("{}"), Ok(ImageProcessor::clip(224)));
    }

    #[test]
    fn files_of_both_forms_are_read() {
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/models");
        for (case, side) in [("vicuna-tiny", 56), ("llama3-tiny", 42), ("qwen2-tiny", 42)] {
            let path = format!("{models}/{case}/clip-tower/preprocessor_config.json");
            assert_eq!(ImageProcessor::from_file(path).expect("reads"), ImageProcessor::clip(side), "{case}");
        }
        let error = ImageProcessor::from_file("no/preprocessor_config.json").expect_err("must fail");
        assert!(error.to_string().starts_with("no/preprocessor_config.json: "), "{error}");
    }

    #[test]
    fn siglip_stretches() {
        let json = r#"{"image_processor_type": "SiglipImageProcessor", "size": {"height": 384, "width": 384},
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}"#;
        assert_eq!(parse(json), Ok(ImageProcessor::siglip(384)));
        assert_eq!(
            parse(r#"{"image_processor_type": "SiglipImageProcessor", "size": 30}"#),
            Ok(ImageProcessor::siglip(30))
        );
    }

    #[test]
    fn steps_can_be_left_out() {
        let processor =
            parse(r#"{"do_resize": false, "do_normalize": false, "do_rescale": false, "crop_size": 2}"#);
        let processor = processor.expect("a fixed crop is a fixed size");
        let picture = image::RgbImage::from_fn(4, 4, |x, y| image::Rgb([(x + 4 * y) as u8, 0, 0]));
        let fitted = processor.fit_picture(&picture, super::super::AspectRatio::Square);
        assert_eq!(processor.normalize(&fitted).data[..4], [5.0, 6.0, 9.0, 10.0]);
    }

    #[test]
    fn what_cannot_work_is_named() {
        for (json, named) in [
            (r#"{"image_processor_type": "ViTImageProcessor"}"#, "ViTImageProcessor"),
            (r#"{"do_center_crop": false}"#, "do_center_crop"),
            (r#"{"crop_size": {"height": 4, "width": 5}}"#, "crop_size 5x4"),
            (r#"{"resample": 9}"#, "resample 9"),
            (r#"{"image_std": [0.5, 0.0, 0.5]}"#, "image_std"),
            (r#"{"size": {"longest_edge": 5}}"#, "shortest_edge"),
            (r#"{"crop_size": 0}"#, "between 1 and 4096 pixels"),
            (r#"{"size": 9223372036854775808, "crop_size": 224}"#, "between 1 and 4096 pixels"),
        ] {
            let error = parse(json).expect_err(json);
            assert!(error.contains(named), "{json}: {error}");
        }
    }
}
