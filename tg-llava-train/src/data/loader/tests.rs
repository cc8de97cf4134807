use super::*;
use crate::data::{Dealing, EncodeOptions, EpochBatches, Prefetch};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tg_llava_core::{
    config::tiny,
    conversation::Template,
    multimodal::{IMAGE_TOKEN_INDEX, SpliceSettings},
    nn::IGNORE_INDEX,
    preprocess::ImageProcessor,
    tokenizer::{GuideTokenizer, TextTokenizer},
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn encoder(max_length: usize) -> SampleEncoder {
    let tokenizers = fixtures().join("conversations/tokenizers");
    let template = Template::for_version("v1");
    SampleEncoder {
        tokenizer: TextTokenizer::from_dir(tokenizers.join("llama")).unwrap(),
        guide: Some(GuideTokenizer::from_dir(tokenizers.join("clip"), None).unwrap()),
        images: ImageProcessor::clip(14),
        options: EncodeOptions::new(template, fixtures().join("preprocess/images"), max_length),
    }
}

fn loader(json: &str, max_length: usize, on_bad_sample: OnBadSample) -> Loader {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), json).unwrap();
    let dataset = LlavaDataset::open(file.path(), on_bad_sample).unwrap();
    Loader::new(dataset, encoder(max_length), on_bad_sample).unwrap()
}

/// A small model over the tokenizers' vocabularies; a picture has more tokens than an answer.
fn model(max_length: usize) -> ModelConfig {
    let mut model = ModelConfig { max_length, ..tiny(32_100) };
    let mm = model.multimodal.as_mut().unwrap();
    mm.text.as_mut().unwrap().vocab_size = 49_408;
    mm.detail.as_mut().unwrap().num_latents = 16;
    model
}

fn line(id: &str, images: &[&str], question: &str) -> String {
    let turns = serde_json::json!([
        { "from": "human", "value": question }, { "from": "gpt", "value": "An answer." },
    ]);
    format!("{}\n", serde_json::json!({ "id": id, "image": images, "conversations": turns }))
}

#[test]
fn pictures_and_text_come_out_as_they_went_in() {
    let json = line("p", &["photo_b.png"], "<image>\nWhat?") + &line("t", &[], "Why?");
    let model = model(2048);
    let micro = loader(&json, 2048, OnBadSample::Error).micro(&[1, 0], &model).unwrap();
    let [text, picture] = &micro.batch.examples[..] else { panic!("two samples") };
    assert_eq!((text.id.as_str(), text.pictures.len()), ("t", 0));
    assert_eq!((picture.id.as_str(), picture.pictures.len()), ("p", 1));
    assert_eq!(picture.pictures[0].crops.len(), 4 * 3 * 14 * 14);
    assert_eq!(picture.input_ids.iter().filter(|&&id| id == IMAGE_TOKEN_INDEX).count(), 1);
    assert!(text.has_target() && picture.has_target());
    assert_eq!(micro.samples, ["t", "p"]);
    let per_image = SpliceSettings::of(&model).image_tokens;
    assert_eq!(micro.tokens(), text.input_ids.len() + picture.input_ids.len() - 1 + per_image);
    let learned = text.labels.iter().chain(&picture.labels).filter(|&&label| label != IGNORE_INDEX).count();
    assert_eq!(micro.supervised(), learned);
}

#[test]
fn a_cut_sample_keeps_the_pictures_whose_place_is_left() {
    let json = line("p", &["photo_b.png"], "<image>\nWhat?");
    let whole = loader(&json, 2048, OnBadSample::Error).example(0).unwrap();
    let place = whole.input_ids.iter().position(|&id| id == IMAGE_TOKEN_INDEX).unwrap();
    for (length, pictures) in [(place, 0), (place + 1, 1)] {
        let loader = loader(&json, length, OnBadSample::Error);
        let cut = loader.example(0).unwrap();
        assert_eq!(cut.input_ids, whole.input_ids[..length]);
        assert_eq!(cut.pictures, whole.pictures[..pictures]);
        assert!(cut.notes.contains(&LabelNote::Cut { ids: whole.input_ids.len() - length }));
    }
}

/// The text alone fits; with the picture's tokens the answer does not.
#[test]
fn a_sample_whose_answer_is_cut_off_is_a_bad_sample() {
    let question = "<image>\nWhat is there to be seen in this picture of ours?";
    let json = line("behind", &["tiny.png"], question) + &line("good", &[], "Why?");
    let length = loader(&json, 2048, OnBadSample::Error).example(0).unwrap().input_ids.len();
    for length in [length, length - 8] {
        let model = model(length);
        let error = loader(&json, length, OnBadSample::Error).micro(&[0], &model).unwrap_err().to_string();
        let words = ["line 1", "sample behind", &format!("the {length} tokens"), "model.max_length"];
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        let loader = loader(&json, length, OnBadSample::Skip);
        let micro = loader.micro(&[0, 1], &model).unwrap();
        assert_eq!(micro.samples, ["good"]);
        let none = loader.micro(&[0], &model).unwrap();
        assert!(none.is_empty() && none.tokens() == 0);
        let notices = loader.notices();
        assert_eq!((notices.len(), notices[0].outcome), (1, Outcome::Skipped));
    }
}

#[test]
fn a_sample_without_an_answer_is_noted_and_left_out() {
    let turns = serde_json::json!([{ "from": "human", "value": "Hm." }]);
    let json = serde_json::json!([{ "id": "silent", "conversations": turns }]).to_string();
    let loader = loader(&json, 2048, OnBadSample::Error);
    assert!(loader.micro(&[0], &model(2048)).unwrap().is_empty());
    let notices = loader.notices();
    assert_eq!((notices.len(), notices[0].outcome), (1, Outcome::NoTarget));
}

#[test]
fn what_does_not_fit_the_model_is_named_before_any_device_work() {
    let json = line("p", &["tiny.png"], "<image>\nWhat?");
    let loader = loader(&json, 2048, OnBadSample::Error);
    let words = |change: &dyn Fn(&mut ModelConfig)| {
        let mut model = model(2048);
        change(&mut model);
        loader.micro(&[0], &model).unwrap_err().to_string()
    };
    let error = words(&|model| model.llm.vocab_size = 9);
    assert!(error.contains("sample p") && error.contains("vocabulary of 9"), "{error}");
    let text =
        |model: &mut ModelConfig| model.multimodal.as_mut().unwrap().text.as_mut().unwrap().vocab_size = 9;
    let error = words(&text);
    assert!(error.contains("sample p") && error.contains('9'), "{error}");
}

#[test]
fn a_bad_picture_stops_or_is_skipped_and_counted_once() {
    let json = line("good", &["tiny.png"], "<image>") + &line("lost", &["no_such.png"], "<image>");
    match loader(&json, 2048, OnBadSample::Error).micro(&[0, 1], &model(2048)).unwrap_err() {
        DataError::Sample { id, line: 2, problem, .. } => {
            assert_eq!(id, "lost");
            assert!(matches!(*problem, SampleProblem::Image(_)), "{problem}");
            assert!(problem.to_string().contains("no_such.png"), "{problem}");
        }
        other => panic!("{other}"),
    }
    let loader = loader(&json, 2048, OnBadSample::Skip);
    let model = model(2048);
    for _epoch in 0..2 {
        assert_eq!(loader.micro(&[0, 1], &model).unwrap().samples, ["good"]);
        assert!(loader.micro(&[1], &model).unwrap().is_empty());
    }
    let notices = loader.notices();
    assert_eq!((notices.len(), notices[0].outcome), (1, Outcome::Skipped));
    assert!(notices[0].message.contains("sample lost") && notices[0].message.contains("no_such.png"));
    // A sample that is not there is the caller's mistake, not a bad sample.
    assert!(matches!(loader.micro(&[7], &model), Err(DataError::OutOfRange { .. })));
}

#[test]
fn a_picture_outside_of_the_folder_needs_leave() {
    let json = line("out", &["../images/tiny.png"], "<image>");
    let mut loader = loader(&json, 2048, OnBadSample::Error);
    let error = loader.micro(&[0], &model(2048)).unwrap_err().to_string();
    let words = ["sample out", "../images/tiny.png", "data.allow_outside"];
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
    loader.encoder.options.allow_outside = true;
    assert_eq!(loader.micro(&[0], &model(2048)).unwrap().samples, ["out"]);
}

#[test]
fn pictures_need_a_folder_and_text_does_not() {
    let open = |json: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), json).unwrap();
        let mut encoder = encoder(99);
        encoder.options.image_folder = "no/such/folder".into();
        let dataset = LlavaDataset::open(file.path(), OnBadSample::Error).unwrap();
        Loader::new(dataset, encoder, OnBadSample::Skip)
    };
    assert!(open(&line("t", &[], "Why?")).is_ok());
    let error = open(&line("p", &["a.png"], "<image>")).unwrap_err();
    assert!(matches!(&error, DataError::ImageFolder { folder, .. } if folder.ends_with("folder")), "{error}");
}

#[test]
fn threads_change_nothing() {
    let json: String =
        (0..11).map(|at| line(&at.to_string(), &["tiny.png"][..at % 2], &"<image>"[..at % 2 * 7])).collect();
    let loader = Arc::new(loader(&json, 2048, OnBadSample::Error));
    let model = model(2048);
    let make = || {
        let (loader, model) = (Arc::clone(&loader), model.clone());
        move |indices: Vec<usize>| loader.micro(&indices, &model)
    };
    let batches = || EpochBatches::new((0..11).rev().collect(), 0, Dealing::single(2, 1));
    let expected: Vec<_> = batches().map(|indices| loader.micro(&indices, &model).unwrap()).collect();
    for (threads, ahead) in [(1, 1), (3, 4), (2, 100)] {
        let found: Vec<_> = Prefetch::new(make(), batches(), threads, ahead).map(Result::unwrap).collect();
        assert_eq!(found, expected);
    }
    // Dropped half way.
    assert!(Prefetch::new(make(), batches(), 3, 4).nth(1).is_some());
    // An error comes in its place.
    let failing = [vec![0], vec![99], vec![1]].into_iter();
    let found: Vec<_> = Prefetch::new(make(), failing, 2, 2).map(|batch| batch.is_ok()).collect();
    assert_eq!(found, [true, false, true]);
}
