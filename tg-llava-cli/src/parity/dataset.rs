//! Training data: collated batches and samplers against a `dataset` folder.

mod golden;
mod samplers;
mod tally;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result};
use safetensors::SafeTensors;
use serde::Deserialize;
use tg_llava_core::{
    conversation::{SeparatorStyle, Speaker, Template, Turn, guide_text},
    nn::IGNORE_INDEX,
    preprocess::{AspectRatio, ImageProcessor, decode_file},
    tokenizer::{GuideCut, GuideTokenizer, TextTokenizer},
};
use tg_llava_train::data::{EncodeOptions, Example, LlavaDataset, OnBadSample, SampleEncoder};

use self::{
    golden::GoldenBatch,
    samplers::RecordedSampler,
    tally::{Tally, Worst, padded_equal},
};
use super::report::Row;

/// Normalised values: one rounding of f32 over their scale, and no grey level (0.015) less.
const PIXEL_TOLERANCE: f64 = 1e-6;
/// One grey level of a normalised value: the JPEG format leaves its decoders' rounding open.
const JPEG_TOLERANCE: f64 = 0.016;

/// Compares everything that the folder `dir` holds. The tokenizers lie beside it, in `../conversations/tokenizers`.
///
/// # Errors
/// Where the folder's own files cannot be read or contradict its layout.
pub fn run(dir: &Path) -> Result<Vec<Row>> {
    let meta = dir.join("meta.json");
    let text = fs::read_to_string(&meta).with_context(|| meta.display().to_string())?;
    let meta: Meta = serde_json::from_str(&text).with_context(|| meta.display().to_string())?;
    let golden = dir.join("golden.safetensors");
    let bytes = fs::read(&golden).with_context(|| golden.display().to_string())?;
    let tensors = SafeTensors::deserialize(&bytes).with_context(|| golden.display().to_string())?;
    let dataset = LlavaDataset::open(dir.join("data.json"), OnBadSample::Skip)?;

    let mut rows = Vec::new();
    let mut used = BTreeSet::new();
    for (version, info) in &meta.info {
        let version = Version::new(dir, &meta, version, info, &dataset, &tensors)?;
        rows.extend(version.compare(&mut used)?);
    }
    for (at, recorded) in meta.samplers.iter().enumerate() {
        rows.push(recorded.compare(at));
    }
    let names = tensors.names();
    let unused: Vec<_> = names.iter().filter(|name| !used.contains(**name)).copied().collect();
    let difference = (!unused.is_empty()).then(|| format!("not compared: {}", unused.join(", ")));
    rows.push(Row::exact("every tensor of the folder was compared", names.len(), difference));
    Ok(rows)
}

#[derive(Deserialize)]
struct Meta {
    image_folder: String,
    /// By version of the conversation template.
    info: BTreeMap<String, Info>,
    #[serde(default)]
    samplers: Vec<RecordedSampler>,
}

#[derive(Deserialize)]
struct Info {
    tokenizer: String,
    image_aspect_ratio: String,
    image_size: usize,
    model_max_length: usize,
    batches: Vec<Vec<usize>>,
    pad_token_id: i64,
    lengths: Vec<i64>,
    modality_lengths: Vec<i64>,
}

/// One template's batches.
struct Version<'a> {
    name: &'a str,
    info: &'a Info,
    encoder: SampleEncoder,
    dataset: &'a LlavaDataset,
    tensors: &'a SafeTensors<'a>,
    /// Sample numbers by place in the file.
    by_place: BTreeMap<usize, usize>,
}

/// What was found so far, by kind of tensor.
#[derive(Default)]
struct Findings {
    ids: Tally,
    labels: Tally,
    masks: Tally,
    guides: Tally,
    lengths: Tally,
    pixels: Worst,
    jpegs: Worst,
    zeros: Worst,
    /// Samples that are right here and not in the reference, by what is done about them.
    by_design: BTreeMap<&'static str, BTreeSet<String>>,
}

const MASKED_WHOLE: &str =
    "the reference loses count of the labels; each answer is learned, by its place in the text";
const HIDDEN_IDS: &str = "the reference hides ids of the text that equal the padding's; they are seen";
const CUT_END: &str =
    "the reference cuts the guide's end token off; by default it is kept, and the ids before it are the same";
const MISREAD_AXES: &str =
    "the reference takes the rows for channels; the picture is read as height x width x 3";
const CUT_PICTURE: &str = "the picture's place is cut off; it is not read";
const REFUSED: &str = "the sample is refused with an error that names it";

impl<'a> Version<'a> {
    fn new(
        dir: &Path,
        meta: &Meta,
        name: &'a str,
        info: &'a Info,
        dataset: &'a LlavaDataset,
        tensors: &'a SafeTensors<'a>,
    ) -> Result<Self> {
        let tokenizers = dir.join("../conversations/tokenizers");
        let mut options = EncodeOptions::new(
            Template::for_version(name),
            dir.join(&meta.image_folder),
            info.model_max_length,
        );
        options.aspect = AspectRatio::from_hf(Some(&info.image_aspect_ratio));
        options.guide_cut = GuideCut::DropEnd;
        let encoder = SampleEncoder {
            tokenizer: TextTokenizer::from_dir(tokenizers.join(&info.tokenizer))?,
            guide: Some(GuideTokenizer::from_dir(tokenizers.join("clip"), None)?),
            images: ImageProcessor::clip(info.image_size),
            options,
        };
        let by_place = (0..dataset.len()).map(|index| (dataset.place(index), index)).collect();
        Ok(Self { name, info, encoder, dataset, tensors, by_place })
    }

    fn compare(&self, used: &mut BTreeSet<String>) -> Result<Vec<Row>> {
        let mut found = Findings::default();
        let pad = self.encoder.options.template.pad_id(&self.encoder.tokenizer);
        found.ids.check(i64::from(pad) == self.info.pad_token_id, || {
            format!("padding id {pad}, expected {}", self.info.pad_token_id)
        });
        self.compare_lengths(&mut found);
        for (at, batch) in self.info.batches.iter().enumerate() {
            let golden = GoldenBatch::take(self.tensors, &format!("{}.b{at}", self.name), batch.len(), used)?;
            for (row, &place) in batch.iter().enumerate() {
                let Some(&index) = self.by_place.get(&place) else {
                    found.note(REFUSED, format!("#{place}"));
                    continue;
                };
                self.compare_sample(index, &golden, row, &mut found)?;
            }
        }
        Ok(found.rows(self.name))
    }

    fn compare_lengths(&self, found: &mut Findings) {
        let kinds = [
            ("lengths", self.dataset.lengths(), &self.info.lengths),
            ("modality_lengths", self.dataset.modality_lengths(), &self.info.modality_lengths),
        ];
        for (kind, ours, golden) in kinds {
            for (&place, &index) in &self.by_place {
                let (ours, golden) = (ours[index], golden.get(place).copied());
                found
                    .lengths
                    .check(Some(ours) == golden, || format!("#{place}: {kind} {ours}, expected {golden:?}"));
            }
        }
    }

    fn compare_sample(
        &self,
        index: usize,
        golden: &GoldenBatch,
        row: usize,
        found: &mut Findings,
    ) -> Result<()> {
        let sample = self.dataset.sample(index)?;
        let place = format!("{} in {}", sample.id, golden.name);
        let example = match self.encoder.encode(&sample, index) {
            Ok(example) => example,
            Err(problem) => {
                found.ids.check(false, || format!("{place}: {problem}"));
                return Ok(());
            }
        };
        let ids = golden.input_ids.row(row);
        found.ids.check_row(&place, &example.input_ids, self.info.pad_token_id, ids);
        self.compare_labels(&example, &sample.conversations, golden.labels.row(row), &place, found);
        self.compare_mask(&example, golden.attention_mask.row(row), &place, found);
        self.compare_guide(&example, &sample.conversations, golden.guide_ids.row(row), &place, found)?;
        self.compare_pictures(&example, &sample.images, golden, row, found)
    }

    fn compare_labels(
        &self,
        example: &Example,
        turns: &[Turn],
        golden: &[i64],
        place: &str,
        found: &mut Findings,
    ) {
        let same = padded_equal(&example.labels, IGNORE_INDEX, golden);
        if same || !self.count_fails(turns) {
            return found.labels.check_row(place, &example.labels, IGNORE_INDEX, golden);
        }
        let stray =
            example.labels.iter().zip(&example.input_ids).position(|(&l, &id)| l != IGNORE_INDEX && l != id);
        found.labels.check(stray.is_none(), || format!("{place}: label {stray:?} differs from its id"));
        found.note(MASKED_WHOLE, place);
    }

    /// Whether the reference is known to miscount the labels of such a sample.
    fn count_fails(&self, turns: &[Turn]) -> bool {
        let template = &self.encoder.options.template;
        let separators = match template.style {
            SeparatorStyle::Plain | SeparatorStyle::Single => return false,
            SeparatorStyle::Llama2 => [template.end_mark(), "[/INST] "],
            _ => [template.end_mark(), template.roles[1]],
        };
        let drifts = template.style == SeparatorStyle::Mpt
            || (template.style == SeparatorStyle::Llama3 && !self.encoder.tokenizer.adds_bos());
        drifts
            || turns.last().is_some_and(|turn| turn.from == Speaker::Human)
            || turns.iter().any(|turn| turn.from == Speaker::Gpt && turn.value.is_empty())
            || turns.iter().any(|turn| separators.iter().any(|separator| turn.value.contains(separator)))
    }

    fn compare_mask(&self, example: &Example, golden: &[i64], place: &str, found: &mut Findings) {
        let ids = &example.input_ids;
        let hidden = |at: usize| ids.get(at) == Some(&self.info.pad_token_id);
        let wrong = (0..golden.len()).find(|&at| (golden[at] != 0) != (at < ids.len()) && !hidden(at));
        found.masks.check(wrong.is_none(), || format!("{place}: attention_mask differs at {wrong:?}"));
        if (0..golden.len()).any(|at| golden[at] == 0 && hidden(at)) {
            found.note(HIDDEN_IDS, place);
        }
    }

    fn compare_guide(
        &self,
        example: &Example,
        turns: &[Turn],
        golden: &[i64],
        place: &str,
        found: &mut Findings,
    ) -> Result<()> {
        let Some(guide) = &self.encoder.guide else { return Ok(()) };
        let ours = &example.guide_ids;
        found.guides.check_row(place, ours, guide.pad_id(), golden);
        if ours.last() != Some(&guide.end_id()) {
            let text = guide_text(turns, self.encoder.options.guide_turn)?;
            let kept = guide.encode(&text, GuideCut::KeepEnd)?;
            let same = kept.split_last() == Some((&guide.end_id(), &ours[..ours.len() - 1]));
            found.guides.check(same, || format!("{place}: {kept:?} is not the cut guide with its end token"));
            found.note(CUT_END, place);
        }
        Ok(())
    }

    fn compare_pictures(
        &self,
        example: &Example,
        files: &[String],
        golden: &GoldenBatch,
        row: usize,
        found: &mut Findings,
    ) -> Result<()> {
        let tensors = || [golden.images.as_ref(), golden.crops.as_ref()].into_iter().flatten();
        let Some(file) = files.first() else {
            tensors().for_each(|tensor| {
                let pixels = tensor.row(row);
                found.zeros.compare(&vec![0.0; pixels.len()], pixels);
            });
            return Ok(());
        };
        let Some(picture) = example.pictures.first() else {
            found.note(CUT_PICTURE, &example.id);
            return Ok(());
        };
        let options = &self.encoder.options;
        let (width, height) = decode_file(options.image_folder.join(file), &options.decode)?.dimensions();
        // What the reference's image processor takes for the number of channels, if it can be one.
        let first_axis = if options.aspect == AspectRatio::Pad { width.max(height) } else { height };
        if matches!(first_axis, 1 | 3) {
            found.note(MISREAD_AXES, &example.id);
            return Ok(());
        }
        let extension = Path::new(file).extension().unwrap_or_default();
        let lossy = ["jpg", "jpeg"].iter().any(|jpeg| extension.eq_ignore_ascii_case(jpeg));
        let worst = if lossy { &mut found.jpegs } else { &mut found.pixels };
        for (tensor, ours) in [(&golden.images, &picture.pixels), (&golden.crops, &picture.crops)] {
            if let Some(tensor) = tensor {
                worst.compare(ours, tensor.row(row));
            }
        }
        Ok(())
    }
}

impl Findings {
    fn note(&mut self, what: &'static str, sample: impl Into<String>) {
        self.by_design.entry(what).or_default().insert(sample.into());
    }

    fn rows(self, version: &str) -> Vec<Row> {
        let exact = [
            ("lengths", self.lengths),
            ("input_ids", self.ids),
            ("labels", self.labels),
            ("attention_mask", self.masks),
            ("text_guide_ids", self.guides),
        ];
        let pixels = [
            ("images and crops", self.pixels, PIXEL_TOLERANCE),
            ("images and crops from JPEG", self.jpegs, JPEG_TOLERANCE),
            ("images of text-only samples", self.zeros, 0.0),
        ];
        let group = |kind: &str| format!("{version} {kind}");
        let exact =
            exact.into_iter().map(|(kind, tally)| Row::exact(group(kind), tally.compared, tally.difference));
        let pixels =
            pixels.into_iter().filter(|(_, worst, _)| worst.compared > 0).map(|(kind, worst, tolerance)| {
                Row::numeric(group(kind), worst.compared, worst.difference, tolerance)
            });
        let by_design = self.by_design.into_iter().map(|(note, samples)| {
            let names: Vec<_> = samples.iter().map(String::as_str).collect();
            Row::by_design(group("samples"), samples.len(), format!("{}: {note}", names.join(", ")))
        });
        exact.chain(pixels).chain(by_design).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixtures_agree() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/dataset");
        let rows = run(&dir).unwrap();
        let failed: Vec<_> = rows.iter().filter(|row| row.failed()).collect();
        assert!(failed.is_empty() && rows.len() > 20, "{failed:#?}");
    }
}
