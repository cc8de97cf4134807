//! From a sample to what the model learns from: ids, labels, guide ids and pixels, not padded.

use std::path::PathBuf;

use tg_llava_core::{
    config::MultimodalConfig,
    conversation::{
        GuideTurn, ImageMarks, LabelNote, LabelOptions, SingleLabels, Template, guide_text,
        label_conversation,
    },
    multimodal::{IMAGE_TOKEN_INDEX, SpliceRow},
    nn::IGNORE_INDEX,
    preprocess::{AspectRatio, DecodeOptions, DetailSource, ImageProcessor, PreparedImage, decode_file},
    tokenizer::{GuideCut, GuideTokenizer, TextTokenizer},
};

use super::{error::SampleProblem, sample::Sample};

/// How samples are encoded; the defaults of [`EncodeOptions::new`] are the reference's but for `guide_cut`.
#[derive(Debug, Clone)]
pub struct EncodeOptions {
    /// The layout of the conversation.
    pub template: Template,
    /// What is written around `<image>`.
    pub marks: ImageMarks,
    /// Where the labels of the `###` templates come from.
    pub single: SingleLabels,
    /// Which questions guide the picture's features.
    pub guide_turn: GuideTurn,
    /// What is done with a guide that is too long for the text tower.
    pub guide_cut: GuideCut,
    /// What is done about pictures that are not square.
    pub aspect: AspectRatio,
    /// What the detail crops show.
    pub detail: DetailSource,
    /// How picture files are read, and their limits.
    pub decode: DecodeOptions,
    /// The folder that the samples' file names are relative to.
    pub image_folder: PathBuf,
    /// Most ids of a sample, a picture counting as one (`model_max_length`).
    pub max_length: usize,
}

impl EncodeOptions {
    /// The same with the guide turn, the shapes of pictures and the marks around them that a model has.
    pub fn of_model(self, mm: &MultimodalConfig) -> Self {
        Self {
            guide_turn: mm.guide_turn,
            aspect: mm.aspect_ratio,
            detail: mm.detail_source,
            marks: match mm.use_im_start_end {
                true => ImageMarks::StartEnd,
                false => ImageMarks::default(),
            },
            ..self
        }
    }

    /// The defaults for `template`, with pictures in `image_folder` and samples cut to `max_length` ids.
    pub fn new(template: &Template, image_folder: impl Into<PathBuf>, max_length: usize) -> Self {
        Self {
            template: template.clone(),
            marks: ImageMarks::default(),
            single: SingleLabels::default(),
            guide_turn: GuideTurn::default(),
            guide_cut: GuideCut::default(),
            aspect: AspectRatio::default(),
            detail: DetailSource::default(),
            decode: DecodeOptions::default(),
            image_folder: image_folder.into(),
            max_length,
        }
    }
}

/// One sample as the model takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Its number in the data set.
    pub index: usize,
    /// Its `id`, or `#n` (its place in the file, from 0) where it has none.
    pub id: String,
    /// Token ids; [`IMAGE_TOKEN_INDEX`] stands for a picture.
    pub input_ids: Vec<i64>,
    /// One for each id: the id where it is learned, else [`IGNORE_INDEX`].
    pub labels: Vec<i64>,
    /// Ids of the guide text, framed by its start and end; none without a text tower.
    pub guide_ids: Vec<i64>,
    /// One picture for each [`IMAGE_TOKEN_INDEX`], in order; none for a text-only sample.
    pub pictures: Vec<PreparedImage>,
    /// What is worth telling about the sample, such as that it was cut.
    pub notes: Vec<LabelNote>,
}

impl Example {
    /// Whether any id is learned. Without one the sample adds nothing to the loss.
    pub fn has_target(&self) -> bool {
        self.labels.iter().any(|&label| label != IGNORE_INDEX)
    }

    /// The sample as a row of a batch in which its pictures are counted from `first_picture`.
    pub fn row(&self, first_picture: usize) -> SpliceRow {
        SpliceRow {
            input_ids: self.input_ids.clone(),
            labels: Some(self.labels.clone()),
            images: (first_picture..first_picture + self.pictures.len()).collect(),
        }
    }

    /// Cuts ids and labels to `length`; pictures whose place is cut off go too.
    fn truncate(&mut self, length: usize) {
        let cut = self.input_ids.len().saturating_sub(length);
        if cut == 0 {
            return;
        }
        self.input_ids.truncate(length);
        self.labels.truncate(length);
        self.pictures.truncate(count_places(&self.input_ids));
        self.notes.push(LabelNote::Cut { ids: cut });
        if !self.has_target() && !self.notes.contains(&LabelNote::NothingToLearn) {
            self.notes.push(LabelNote::NothingToLearn);
        }
    }
}

/// Encodes samples; may be shared by worker threads.
#[derive(Debug, Clone)]
pub struct SampleEncoder {
    /// The language model's tokenizer.
    pub tokenizer: TextTokenizer,
    /// The text tower's tokenizer, where the model has a text tower.
    pub guide: Option<GuideTokenizer>,
    /// Prepares pictures for the vision tower.
    pub images: ImageProcessor,
    /// How samples are encoded.
    pub options: EncodeOptions,
}

impl SampleEncoder {
    /// Encodes `sample`, number `index` of its data set; its pictures are read from disk.
    ///
    /// # Errors
    /// [`SampleProblem`] where a picture, the conversation or the guide text cannot be used.
    pub fn encode(&self, sample: &Sample, index: usize) -> Result<Example, SampleProblem> {
        let mut example = self.encode_text(sample, index)?;
        // What lies behind the cut need not be decoded.
        for file in sample.images.iter().take(count_places(&example.input_ids)) {
            let picture = decode_file(self.options.image_folder.join(file), &self.options.decode)?;
            example.pictures.push(self.images.prepare(&picture, self.options.aspect, self.options.detail));
        }
        Ok(example)
    }

    /// As [`Self::encode`], without reading pictures: for statistics and label previews.
    ///
    /// # Errors
    /// [`SampleProblem`] where the conversation or the guide text cannot be used.
    pub fn encode_text(&self, sample: &Sample, index: usize) -> Result<Example, SampleProblem> {
        let options = &self.options;
        let label_options = LabelOptions {
            picture: !sample.is_text_only(),
            marks: options.marks,
            max_length: Some(options.max_length),
            single: options.single,
        };
        let labelled =
            label_conversation(&self.tokenizer, &options.template, &sample.conversations, &label_options)?;
        let kept = count_places(&labelled.ids);
        if kept != sample.images.len() {
            return Err(SampleProblem::MergedMarks { kept, images: sample.images.len() });
        }
        let guide_ids = match &self.guide {
            Some(guide) => {
                let text = guide_text(&sample.conversations, options.guide_turn)?;
                guide.encode(&text, options.guide_cut)?
            }
            None => Vec::new(),
        };
        let mut example = Example {
            index,
            id: sample.id.clone(),
            input_ids: labelled.ids,
            labels: labelled.labels,
            guide_ids,
            pictures: Vec::new(),
            notes: labelled.notes,
        };
        example.truncate(options.max_length);
        Ok(example)
    }
}

/// How many pictures go into `ids`.
fn count_places(ids: &[i64]) -> usize {
    ids.iter().filter(|&&id| id == IMAGE_TOKEN_INDEX).count()
}
