use std::path::Path;

use crate::config::{ModelConfig, MultimodalConfig, TowerFamily, locate_tower, unknown_tower};
use crate::error::{Error, Result};
use crate::preprocess::ImageProcessor;
use crate::tokenizer::{GuideTokenizer, TextTokenizer};

/// What turns text and pictures into what a model reads.
#[derive(Debug, Clone)]
pub struct Codecs {
    /// The decoder's tokenizer.
    pub tokenizer: TextTokenizer,
    /// The text tower's tokenizer, where there is a text tower.
    pub guide_tokenizer: Option<GuideTokenizer>,
    /// Pictures to pixels, where there is a vision tower.
    pub processor: Option<ImageProcessor>,
}

impl Codecs {
    /// Those of the checkpoint in `dir` and of the towers that `config` names; all of them may be with the
    /// decoder in `base` instead.
    ///
    /// # Errors
    /// Where a file is missing or damaged, or does not fit the towers.
    pub fn load(dir: &Path, base: Option<&Path>, config: &ModelConfig) -> Result<Self> {
        let mm = config.multimodal.as_ref();
        Ok(Self {
            tokenizer: tokenizer(dir, base)?,
            guide_tokenizer: mm
                .filter(|mm| mm.text.is_some())
                .map(|mm| guide_tokenizer(dir, base, mm))
                .transpose()?,
            processor: mm.map(|mm| processor(dir, base, mm)).transpose()?,
        })
    }
}

/// The decoder's tokenizer: in the checkpoint, or for stage-1 files in the base folder.
fn tokenizer(dir: &Path, base: Option<&Path>) -> Result<TextTokenizer> {
    match (TextTokenizer::from_dir(dir), base) {
        (Err(_), Some(base)) => Ok(TextTokenizer::from_dir(base)?),
        (result, _) => Ok(result?),
    }
}

fn guide_tokenizer(dir: &Path, base: Option<&Path>, mm: &MultimodalConfig) -> Result<GuideTokenizer> {
    let positions = mm.text.as_ref().map(|text| text.max_position_embeddings);
    let name = &mm.towers.text;
    let folder = locate_tower(dir, base, name).unwrap_or_else(|| dir.join(name));
    if !folder.is_dir() {
        return Err(unknown_tower(dir, "mm_text_tower", name));
    }
    Ok(GuideTokenizer::from_dir(folder, positions)?)
}

fn processor(dir: &Path, base: Option<&Path>, mm: &MultimodalConfig) -> Result<ImageProcessor> {
    let folder = locate_tower(dir, base, &mm.towers.vision);
    let file = folder.map(|folder| folder.join("preprocessor_config.json")).filter(|file| file.is_file());
    let processor = match (file, mm.vision.family) {
        (Some(file), _) => ImageProcessor::from_file(file)?,
        (None, TowerFamily::Clip) => ImageProcessor::clip(mm.vision.image_size),
        (None, TowerFamily::Siglip) => ImageProcessor::siglip(mm.vision.image_size),
    };
    if processor.image_size() == mm.vision.image_size {
        return Ok(processor);
    }
    Err(Error::Config(format!(
        "preprocessor_config.json makes pictures of {} pixels, the vision tower takes {}",
        processor.image_size(),
        mm.vision.image_size
    )))
}
