//! How well a model does on samples that it has not seen: loss, and answers that equal the expected ones.

use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor, TensorData};
use serde::Serialize;
use tg_llava_core::assistant::open_prompt;
use tg_llava_core::conversation::{Speaker, Turn, guide_text};
use tg_llava_core::generate::{Decoding, Detokenizer, GenerateOptions};
use tg_llava_core::model::{GuideTexts, ImageBatch, TgLlava, VisionFeatures};
use tg_llava_core::multimodal::{SplicePlan, SpliceRow, SpliceSettings, splice};
use tg_llava_core::preprocess::{PreparedImage, decode_file};
use tg_llava_core::{Error, Result};

use super::RunError;
use crate::data::{Loader, Sample, SampleEncoder};
use crate::engine::{ModelInput, scalar};

/// How a model is checked.
#[derive(Debug, Clone)]
pub struct EvaluateOptions {
    /// Samples at once.
    pub batch_size: usize,
    /// Whether the loss is computed.
    pub loss: bool,
    /// Longest generated answer in tokens; `None` where no answers are generated.
    pub max_new_tokens: Option<usize>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Evaluation {
    /// Samples that were looked at.
    pub samples: usize,
    /// Mean cross-entropy over all supervised tokens.
    pub loss: Option<f64>,
    /// Answers that equal the expected ones, white space around them aside.
    pub correct: Option<usize>,
    /// Each sample's answer, where answers were generated.
    #[serde(skip)]
    pub predictions: Vec<Prediction>,
}

impl Evaluation {
    /// Share of answers that equal the expected ones.
    pub fn exact_match(&self) -> Option<f64> {
        self.correct.map(|correct| correct as f64 / self.samples.max(1) as f64)
    }
}

/// One generated answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Prediction {
    /// The sample's id.
    pub id: String,
    /// The question.
    pub question: String,
    /// What the data set has as the answer.
    pub expected: String,
    /// What the model answered.
    pub answer: String,
}

/// Checks `model`, which must be on a device that does not record gradients, on samples of `loader`.
/// `progress` is told how many samples each batch held; where it returns false, the check ends there.
///
/// # Errors
/// Where a sample cannot be used or the model cannot compute.
pub fn evaluate(
    model: &TgLlava,
    loader: &Loader,
    indices: &[usize],
    options: &EvaluateOptions,
    progress: &mut dyn FnMut(usize) -> bool,
) -> std::result::Result<Evaluation, RunError> {
    let mut result = Evaluation::default();
    let (mut loss, mut tokens) = (0.0, 0.0);
    for chunk in indices.chunks(options.batch_size.max(1)) {
        if options.loss {
            let (sum, count) = batch_loss(model, loader, chunk)?;
            loss += sum;
            tokens += count;
        }
        match options.max_new_tokens {
            Some(budget) => {
                let samples = chunk.iter().map(|&i| loader.dataset().sample(i));
                let samples = samples.collect::<std::result::Result<Vec<Sample>, _>>()?;
                result.predictions.extend(answers(model, loader.encoder(), &samples, budget)?);
            }
            None => result.samples += chunk.len(),
        }
        if !progress(chunk.len()) {
            break;
        }
    }
    if options.loss {
        result.loss = Some(if tokens > 0.0 { loss / tokens } else { f64::NAN });
    }
    if options.max_new_tokens.is_some() {
        result.samples = result.predictions.len();
        let right = |p: &&Prediction| p.answer.trim() == p.expected.trim();
        result.correct = Some(result.predictions.iter().filter(right).count());
    }
    Ok(result)
}

/// Sum of the cross-entropies of a batch, and over how many tokens.
fn batch_loss(
    model: &TgLlava,
    loader: &Loader,
    indices: &[usize],
) -> std::result::Result<(f64, f64), RunError> {
    let micro = loader.micro(indices, model.config())?;
    if micro.is_empty() {
        return Ok((0.0, 0.0));
    }
    let count = micro.supervised() as f64;
    Ok((scalar(model.loss(&micro.batch.on_device(model))?)? * count, count))
}

/// Answers to the last question of each sample. Pictures that samples share are looked at once.
fn answers(
    model: &TgLlava,
    encoder: &SampleEncoder,
    samples: &[Sample],
    max_new_tokens: usize,
) -> std::result::Result<Vec<Prediction>, RunError> {
    let mut rows = Vec::new();
    let mut pictures = Pictures::default();
    let mut guides = GuideTexts { ids: Vec::new(), pad_id: 0, sample_of_image: Vec::new() };
    let mut predictions = Vec::new();
    for sample in samples {
        let Some((asked, expected)) = last_question(&sample.conversations) else { continue };
        let start_end = model.config().multimodal.as_ref().is_some_and(|mm| mm.use_im_start_end);
        let prompt = open_prompt(&encoder.options.template, asked, start_end)?;
        let first = pictures.places.len();
        for file in &sample.images {
            pictures.add(file, encoder)?;
            guides.sample_of_image.push(rows.len());
        }
        rows.push(SpliceRow {
            input_ids: encoder.tokenizer.encode_with_images(&prompt).map_err(Error::from)?.ids,
            labels: None,
            images: (first..pictures.places.len()).collect(),
        });
        let question = guide_text(asked, encoder.options.guide_turn).map_err(Error::from)?;
        match &encoder.guide {
            Some(guide) => {
                guides.pad_id = guide.pad_id();
                guides.ids.push(guide.encode(&question, encoder.options.guide_cut).map_err(Error::from)?);
            }
            None => guides.ids.push(Vec::new()),
        }
        let (id, answer) = (sample.id.clone(), String::new());
        predictions.push(Prediction { id, question, expected: expected.to_owned(), answer });
    }
    if rows.is_empty() {
        return Ok(predictions);
    }
    let image_tokens = match pictures.places.is_empty() {
        true => None,
        false => Some(model.image_tokens(&pictures.features(model)?, &guides)?),
    };
    for (prediction, answer) in
        predictions.iter_mut().zip(generate(model, encoder, &rows, image_tokens, max_new_tokens)?)
    {
        prediction.answer = answer;
    }
    Ok(predictions)
}

/// The conversation up to its last answer, and that answer.
fn last_question(turns: &[Turn]) -> Option<(&[Turn], &str)> {
    let last = turns.iter().rposition(|turn| turn.from == Speaker::Gpt)?;
    Some((&turns[..last], &turns[last].value))
}

/// The pictures of a batch, each file once.
#[derive(Default)]
struct Pictures {
    by_file: BTreeMap<String, usize>,
    prepared: Vec<PreparedImage>,
    /// For each picture mark of the batch, the index in `prepared`.
    places: Vec<i64>,
}

impl Pictures {
    fn add(&mut self, file: &str, encoder: &SampleEncoder) -> Result<()> {
        let place = match self.by_file.get(file) {
            Some(&place) => place,
            None => {
                let options = &encoder.options;
                let picture = decode_file(options.image_folder.join(file), &options.decode)?;
                self.prepared.push(encoder.images.prepare(&picture, options.aspect, options.detail));
                self.by_file.insert(file.to_owned(), self.prepared.len() - 1);
                self.prepared.len() - 1
            }
        };
        self.places.push(place as i64);
        Ok(())
    }

    fn features(&self, model: &TgLlava) -> Result<VisionFeatures> {
        let device = model.llm.device();
        let batch = ImageBatch::new(&self.prepared, model.detail_perceiver.is_some(), &device);
        let features = model.vision_features(&batch)?;
        let count = self.places.len();
        let places: Tensor<1, Int> =
            Tensor::from_data(TensorData::new(self.places.clone(), [count]), &device);
        Ok(VisionFeatures {
            images: features.images.select(0, places.clone()),
            crops: features.crops.map(|crops| crops.select(0, places)),
        })
    }
}

/// Greedy answers of a batch of prompts.
fn generate(
    model: &TgLlava,
    encoder: &SampleEncoder,
    rows: &[SpliceRow],
    image_tokens: Option<Tensor<3>>,
    max_new_tokens: usize,
) -> Result<Vec<String>> {
    let config = model.config();
    let settings = SpliceSettings {
        image_tokens: config.multimodal.as_ref().map_or(0, |mm| mm.num_image_tokens()),
        max_length: usize::MAX,
        padding_side: config.padding_side,
        vocab_size: config.llm.vocab_size,
    };
    let plan = SplicePlan::new(rows, settings)?;
    let inputs_embeds = splice(&plan, &model.llm, image_tokens);
    let mut eos = config.llm.eos_token_ids.clone();
    eos.extend(encoder.options.template.end_ids(&encoder.tokenizer).into_iter().map(i64::from));
    let options =
        GenerateOptions { max_new_tokens, eos_token_ids: eos.clone(), ..GenerateOptions::default() };
    let mut decoding = Decoding::start(model, &plan, inputs_embeds, options)?;
    while decoding.step()?.is_some() {}
    let text = |ids: &Vec<i64>| -> Result<String> {
        let mut detokenizer = Detokenizer::new(&encoder.tokenizer);
        let mut text = String::new();
        for &id in ids.iter().filter(|id| !eos.contains(id)) {
            text += &detokenizer.push(id)?;
        }
        text += &detokenizer.finish()?;
        let end = encoder.options.template.end_mark();
        let text = if end.is_empty() { text.as_str() } else { text.split(end).next().unwrap_or_default() };
        Ok(text.trim().to_owned())
    };
    decoding.answers().iter().map(text).collect()
}
