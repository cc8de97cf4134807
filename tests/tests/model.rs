//! What the model does beyond the recorded cases.

use burn::tensor::{DType, Device, Tensor};
use tg_llava_core::assistant::{Assistant, AssistantOptions, Chat};
use tg_llava_core::config::{GuidePadding, tiny};
use tg_llava_core::conversation::GuideTurn;
use tg_llava_core::generate::{GenerateOptions, Sampling};
use tg_llava_core::model::{GuideTexts, ImageBatch, ModelBatch, TgLlava};
use tg_llava_core::multimodal::{IMAGE_TOKEN_INDEX, SpliceRow};
use tg_llava_core::nn::LossError;
use tg_llava_core::pass::{Site, Trace};
use tg_llava_core::preprocess::{DecodeOptions, DetailSource, PreparedImage, decode_file};
use tg_llava_core::weights::{LoadOptions, load_model};
use tg_llava_tests::fixture;

fn assistant(options: AssistantOptions) -> Assistant {
    Assistant::load(&fixture("models/vicuna-tiny"), &Device::flex(), &options, &mut |_| {}).unwrap()
}

fn ask(assistant: &Assistant, questions: &[&str], options: &GenerateOptions) -> (String, Vec<i64>) {
    let photo = decode_file(fixture("models/vicuna-tiny/photo.png"), &DecodeOptions::default()).unwrap();
    let mut chat = Chat::new();
    chat.show(assistant.encode_image(&photo).unwrap());
    let mut last = (String::new(), Vec::new());
    for question in questions {
        chat.ask(question).unwrap();
        let mut answer = assistant.answer(&chat, options).unwrap();
        let text = answer.text().unwrap();
        last = (text.clone(), answer.token_ids().to_vec());
        chat.answered(&text);
    }
    last
}

fn short() -> GenerateOptions {
    GenerateOptions { max_new_tokens: 8, ..GenerateOptions::default() }
}

#[test]
fn two_runs_with_one_seed_agree_and_others_differ() {
    let assistant = assistant(AssistantOptions::default());
    let sampled = |seed| GenerateOptions {
        sampling: Sampling::Random { temperature: 2.0, top_k: 0, top_p: 1.0, seed },
        ..short()
    };
    let run = |seed| ask(&assistant, &["What?"], &sampled(seed)).1;
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn what_is_wrong_with_a_tokenizer_is_said_though_weights_are_damaged_too() {
    let dir = tempfile::tempdir().unwrap();
    let from = fixture("models/vicuna-tiny/base-llm");
    for file in ["config.json", "tokenizer_config.json"] {
        std::fs::copy(from.join(file), dir.path().join(file)).unwrap();
    }
    let load = || Assistant::load(dir.path(), &Device::flex(), &AssistantOptions::default(), &mut |_| {});
    std::fs::write(dir.path().join("model.safetensors"), "no weights").unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), "{").unwrap();
    let error = load().unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
    std::fs::copy(from.join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let error = load().unwrap_err().to_string();
    assert!(error.contains("model.safetensors"), "{error}");
}

#[test]
fn the_guide_turn_changes_the_answer_of_later_turns_alone() {
    let with = |turn| assistant(AssistantOptions { guide_turn: Some(turn), ..AssistantOptions::default() });
    let ids = |turn, questions: &[&str]| ask(&with(turn), questions, &short()).1;
    let one = ["What is on the table?"];
    assert_eq!(ids(GuideTurn::First, &one), ids(GuideTurn::Last, &one));
    assert_eq!(ids(GuideTurn::Joined, &one), ids(GuideTurn::Last, &one));
    let model = with(GuideTurn::First);
    let first = model.model.multimodal().unwrap().guide_turn;
    assert_eq!(first, GuideTurn::First);
}

#[test]
fn native_crops_are_other_pixels_of_the_same_shape() {
    let load = |source| AssistantOptions { detail_source: Some(source), ..AssistantOptions::default() };
    let (up, native) = (assistant(load(DetailSource::Upsampled)), assistant(load(DetailSource::Native)));
    let photo = decode_file(fixture("preprocess/images/photo_a.jpg"), &DecodeOptions::default()).unwrap();
    let prepare = |assistant: &Assistant| {
        let mm = assistant.model.multimodal().unwrap();
        assistant.processor.as_ref().unwrap().prepare(&photo, mm.aspect_ratio, mm.detail_source)
    };
    let (a, b) = (prepare(&up), prepare(&native));
    assert_eq!((a.pixels == b.pixels, a.crops.len()), (true, b.crops.len()));
    assert_ne!(a.crops, b.crops);
    assert!(ask(&native, &["What?"], &short()).1.len() <= 8);
}

fn batch(rows: Vec<SpliceRow>, pictures: usize, device: &Device) -> ModelBatch {
    let picture = |i: usize| {
        let mut image = PreparedImage::zeros(28);
        image.pixels.iter_mut().enumerate().for_each(|(p, v)| *v = ((p * (i + 3)) % 17) as f32 / 9.0);
        image.crops.iter_mut().enumerate().for_each(|(p, v)| *v = ((p * (i + 5)) % 13) as f32 / 7.0);
        image
    };
    let images: Vec<PreparedImage> = (0..pictures).map(picture).collect();
    let sample = |i: usize| rows.iter().position(|row| row.images.contains(&i)).unwrap();
    ModelBatch {
        guides: GuideTexts {
            ids: (0..rows.len()).map(|i| vec![598, 5 + i as i64, 599]).collect(),
            pad_id: 599,
            sample_of_image: (0..pictures).map(sample).collect(),
        },
        images: (pictures > 0).then(|| ImageBatch::new(&images, true, device)),
        rows,
    }
}

fn row(input_ids: &[i64], images: &[usize]) -> SpliceRow {
    SpliceRow {
        labels: Some(input_ids.iter().map(|&id| if id < 0 { -100 } else { id }).collect()),
        input_ids: input_ids.to_vec(),
        images: images.to_vec(),
    }
}

fn hidden(model: &TgLlava, batch: &ModelBatch) -> Vec<f32> {
    model.forward(batch).unwrap().hidden_states.into_data().try_to_vec().unwrap()
}

const IMG: i64 = IMAGE_TOKEN_INDEX;

#[test]
fn several_pictures_of_a_sample_are_its_own() {
    let device = Device::flex();
    device.seed(3);
    let model = tiny(50).init(&device).unwrap();
    let two = batch(vec![row(&[1, IMG, 7, IMG, 9], &[0, 1])], 2, &device);
    let swapped = batch(vec![row(&[1, IMG, 7, IMG, 9], &[1, 0])], 2, &device);
    let (a, b) = (hidden(&model, &two), hidden(&model, &swapped));
    assert_eq!(a.len(), 32 * (3 + 2 * (4 + 4)));
    assert_ne!(a, b);
    // The first token has seen no picture yet.
    assert_eq!(a[..32], b[..32]);
}

#[test]
fn an_untrained_guide_changes_nothing() {
    let device = Device::flex();
    device.seed(4);
    let model = tiny(50).init(&device).unwrap();
    let input = batch(vec![row(&[1, IMG, 7], &[0])], 1, &device);
    let mut without = model.clone();
    without.feature_guide = None;
    assert_eq!(hidden(&model, &input), hidden(&without, &input));
}

/// Six pictures with four crops each are more than go through the tower at once.
#[test]
fn an_observer_sees_every_step_in_order_and_changes_nothing() {
    let device = Device::flex();
    device.seed(5);
    let model = tiny(50).init(&device).unwrap();
    let input = batch(vec![row(&[1, IMG, IMG, IMG, IMG, IMG, IMG, 7], &[0, 1, 2, 3, 4, 5])], 6, &device);
    let expected = hidden(&model, &input);
    let mut seen: Vec<(Site, usize)> = Vec::new();
    let mut trace = Trace::new(|at, outputs: &[Tensor<3>]| seen.push((at, outputs[0].dims()[0])));
    let states = model.walk(&mut trace, &input, &model.plan(&input).unwrap()).unwrap();
    assert_eq!(states.into_data().try_to_vec::<f32>().unwrap(), expected);
    let embedded: Vec<usize> =
        seen.iter().filter(|(at, _)| *at == Site::VisionEmbed).map(|(_, rows)| *rows).collect();
    assert_eq!(embedded, [20, 10]);
    let sites: Vec<Site> =
        seen.iter().map(|(at, _)| *at).skip_while(|at| *at != Site::VisionFeatures).collect();
    let llm = model.llm.layers.len();
    assert_eq!(sites[sites.len() - llm - 2], Site::Splice);
    assert_eq!(sites.last(), Some(&Site::DecoderNorm));
    for once in
        [Site::TextFeatures, Site::GuideMask, Site::GuidedFeatures, Site::DetailTokens, Site::ImageTokens]
    {
        assert_eq!(sites.iter().filter(|at| **at == once).count(), 1, "{once:?}");
    }
}

/// What a text tower hides of a text does not depend on how padding is treated.
#[test]
fn a_guide_with_id_0_alone_is_the_references_single_run() {
    let device = Device::flex();
    device.seed(6);
    let mut model = tiny(50).init(&device).unwrap();
    let mut input = batch(vec![row(&[1, IMG, 7], &[0])], 1, &device);
    input.guides.ids[0] = vec![598, 0, 7, 0, 599];
    let mut with = |padding| {
        model.configure(|c| c.multimodal.as_mut().unwrap().guide_padding = padding).unwrap();
        hidden(&model, &input)
    };
    assert_eq!(with(GuidePadding::Masked), with(GuidePadding::Visible));
}

#[test]
fn a_batch_without_labels_is_an_error() {
    let device = Device::flex();
    let model = tiny(50).init(&device).unwrap();
    let mut input = batch(vec![row(&[1, 2], &[])], 0, &device);
    input.rows[0].labels = Some(vec![-100, -100]);
    let error = model.loss(&input).unwrap_err();
    assert!(matches!(error, tg_llava_core::Error::Loss(LossError::NoLabels { rows: 1 })));
}

#[test]
fn half_precision_stays_near_the_single_one() {
    let dir = fixture("models/llama3-tiny");
    let states = |dtype| {
        let options = LoadOptions { dtype, ..LoadOptions::default() };
        let mut model = load_model(&dir, &Device::flex(), &options, &mut |_| {}).unwrap().model;
        model.configure(|c| c.multimodal.as_mut().unwrap().guide_padding = GuidePadding::Masked).unwrap();
        let input = batch(vec![row(&[1, 9, 7, 30], &[])], 0, &Device::flex());
        let states = model.forward(&input).unwrap().hidden_states;
        assert_eq!(states.dtype(), dtype);
        states.cast(DType::F32).into_data().try_to_vec::<f32>().unwrap()
    };
    let single = states(DType::F32);
    let scale = single.iter().fold(0f32, |a, b| a.max(b.abs()));
    for (dtype, tolerance) in [(DType::F16, 0.01), (DType::BF16, 0.06)] {
        let half = states(dtype);
        let worst = single.iter().zip(&half).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(worst <= tolerance * scale, "{dtype:?}: {worst} of {scale}");
        assert!(worst > 0.0, "{dtype:?} was not used");
    }
}
