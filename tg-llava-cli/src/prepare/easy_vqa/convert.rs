//! easy-VQA as LLaVA data: `train.json`, `test.json`, `curriculum.json`, `images/` and the licence.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::Path;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ImageEncoder, RgbImage};
use tg_llava_core::preprocess::{DecodeOptions, decode_bytes};

use super::curriculum::curriculum;
use super::draws::Draws;
use super::options::{Copies, EasyVqaOptions, QuestionsPerSample};
use super::package::Package;
use super::questions::{Picture, conversation, parse_answers, parse_questions};
use super::summary::{EasyVqaSummary, SplitSummary};
use super::variants::{variant, variant_name};
use crate::prepare::PrepareError;
use crate::prepare::llava::{LlavaSample, to_json};
use crate::prepare::output::OutputFolder;

/// What is written at the top of the output folder; the curriculum where it is asked for.
const ENTRIES: [&str; 5] = ["train.json", "test.json", "curriculum.json", "images", "LICENSE"];

/// One of the two parts of the data set.
#[derive(Debug, Clone, Copy)]
struct Split {
    name: &'static str,
    questions_per_sample: QuestionsPerSample,
    copies: Copies,
}

/// Turns the package `easy-vqa` 1.0 (a wheel, or the folder it was unpacked to) into `train.json`, `test.json`,
/// `images/{train,test}/N.png` and `LICENSE` under `out`, and `curriculum.json` where the options ask for it. The
/// pictures' paths in the JSON files are relative to `out/images`.
///
/// Samples come in the order of the package's questions, those about the copies of a picture behind those about
/// itself. An `id` is the split, the picture's number and copy, and the number of the first question among
/// those about this picture: `train-12-c1-3`. Nothing appears under `out` before all is written.
///
/// # Errors
/// A [`PrepareError`] which names the file that is missing, damaged, without the questions that a curriculum
/// needs, or cannot be written.
pub fn prepare_easy_vqa(
    package: impl AsRef<Path>,
    out: impl AsRef<Path>,
    options: &EasyVqaOptions,
) -> Result<EasyVqaSummary, PrepareError> {
    let mut package = Package::open(package.as_ref())?;
    let listed = package.read("answers.txt")?;
    let known = parse_answers(&listed).map_err(|reason| package.wrong("answers.txt", reason))?;
    let train =
        Split { name: "train", questions_per_sample: options.questions_per_sample, copies: options.copies };
    let test = Split { name: "test", questions_per_sample: QuestionsPerSample::ONE, copies: Copies::ONE };
    let out = out.as_ref();
    let folder = OutputFolder::begin(out, options.existing, &ENTRIES)?;
    let mut answers = BTreeMap::new();
    let mut convert = |split: Split| {
        let mut pictures = split.pictures(&mut package, &known)?;
        pictures.truncate(options.limit.map_or(usize::MAX, Into::into));
        for question in pictures.iter().flat_map(|picture| &picture.questions) {
            *answers.entry(question.answer.clone()).or_default() += 1;
        }
        let summary = split.write(&mut package, &pictures, &folder)?;
        Ok::<_, PrepareError>((pictures, summary))
    };
    let ((pictures, train), (_, test)) = (convert(train)?, convert(test)?);
    if let Some(samples) = options.curriculum {
        let samples = curriculum(&pictures, options.copies, samples)
            .map_err(|reason| package.wrong("train/questions.json", reason))?;
        write_samples("curriculum.json", &samples, &folder)?;
    }
    folder.write("LICENSE", package.licence())?;
    folder.finish()?;
    let curriculum = options.curriculum.map(NonZeroUsize::get);
    Ok(EasyVqaSummary { out: out.to_path_buf(), train, test, curriculum, answers })
}

fn write_samples(file: &str, samples: &[LlavaSample], folder: &OutputFolder) -> Result<(), PrepareError> {
    let json = to_json(samples).map_err(|e| PrepareError::write(file, e.into()))?;
    folder.write(file, json)
}

impl Split {
    /// The pictures with their questions.
    fn pictures(self, package: &mut Package, known: &BTreeSet<String>) -> Result<Vec<Picture>, PrepareError> {
        let name = format!("{}/questions.json", self.name);
        let questions = package.read(&name)?;
        parse_questions(&questions, known).map_err(|reason| package.wrong(&name, reason))
    }

    /// Writes the split's JSON file and pictures.
    fn write(
        self,
        package: &mut Package,
        pictures: &[Picture],
        folder: &OutputFolder,
    ) -> Result<SplitSummary, PrepareError> {
        folder.create_folder(&format!("images/{}", self.name))?;
        let mut samples = Vec::new();
        for picture in pictures {
            self.write_files(package, picture.number, folder)?;
            for copy in 0..self.copies.count() {
                self.add_samples(picture, copy, &mut samples);
            }
        }
        write_samples(&format!("{}.json", self.name), &samples, folder)?;
        let copies = self.copies.count();
        let questions: usize = pictures.iter().map(|picture| picture.questions.len()).sum();
        Ok(SplitSummary {
            samples: samples.len(),
            questions: questions * copies,
            pictures: pictures.len(),
            files: pictures.len() * copies,
        })
    }

    /// A picture's file, byte for byte, and its copies'.
    fn write_files(
        self,
        package: &mut Package,
        number: u64,
        folder: &OutputFolder,
    ) -> Result<(), PrepareError> {
        let name = format!("{}/images/{number}.png", self.name);
        let bytes = package.read(&name)?;
        let picture = decode_bytes(&bytes, &format!("picture {number}"), &DecodeOptions::default())
            .map_err(|e| package.wrong(&name, e.to_string()))?;
        folder.write(&format!("images/{}", self.file(number, 0)), &bytes)?;
        for copy in 1..self.copies.count() {
            let png = to_png(&variant(&picture, &mut Draws::for_copy(number, copy)))
                .map_err(|reason| package.wrong(&name, reason))?;
            folder.write(&format!("images/{}", self.file(number, copy)), png)?;
        }
        Ok(())
    }

    /// The samples about one copy of a picture.
    fn add_samples(self, picture: &Picture, copy: usize, samples: &mut Vec<LlavaSample>) {
        let most = self.questions_per_sample.most();
        let mut first = 0;
        for questions in picture.questions.chunks(most) {
            samples.push(LlavaSample {
                id: format!("{}-{}-{first}", self.name, variant_name(picture.number, copy)),
                image: self.file(picture.number, copy),
                conversations: conversation(questions),
            });
            first += questions.len();
        }
    }

    /// A picture's path under `images`.
    fn file(self, number: u64, copy: usize) -> String {
        format!("{}/{}.png", self.name, variant_name(number, copy))
    }
}

fn to_png(picture: &RgbImage) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::Adaptive);
    let (width, height) = picture.dimensions();
    let written = encoder.write_image(picture.as_raw(), width, height, image::ExtendedColorType::Rgb8);
    written.map(|()| bytes).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests;
