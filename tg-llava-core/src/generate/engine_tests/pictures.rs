//! Pictures of several requests, and those that come again.

use super::*;
use crate::generate::pictures::least_guide_len;

/// The shipped checkpoint's pictures go through the bridges together.
#[test]
fn questions_about_pictures_are_answered_together_as_alone() {
    let assistant = load(&repository().join("weights/easy-vqa"));
    assert!(least_guide_len(&assistant.model).is_some_and(|least| least < 8));
    let images = repository().join("examples/data/easy-vqa/images/test");
    let mut files: Vec<_> = std::fs::read_dir(images).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let questions =
        ["what color is the shape?", "what shape is in the image?", "is there a red shape in the image?"];
    let mut requests = Vec::new();
    for (file, question) in files.iter().take(5).flat_map(|file| questions.map(|question| (file, question))) {
        let picture = decode_file(file, &DecodeOptions::default()).unwrap();
        let mut chat = Chat::new();
        chat.show(assistant.encode_image(&picture).unwrap());
        chat.ask(question).unwrap();
        requests.push(assistant.request(&chat, &assistant.generate_options()).unwrap());
    }
    let (mut engine, mut outcomes) = (assistant.engine(), Outcomes::new());
    let ids: Vec<_> =
        requests.iter().map(|request| admit(&mut engine, &mut outcomes, request.clone())).collect();
    finish(&mut engine, &mut outcomes);
    for (id, request) in ids.into_iter().zip(requests) {
        assert_eq!(outcomes[&id], alone(&assistant, request));
    }
}

#[test]
fn pictures_that_come_again_are_known() {
    let assistant = assistant();
    let photo = decode_file(model().join("photo.png"), &DecodeOptions::default()).unwrap();
    let mm = assistant.model.multimodal().unwrap();
    let prepared = assistant.processor.as_ref().unwrap().prepare(&photo, mm.aspect_ratio, mm.detail_source);
    for bytes in [0, 1 << 20] {
        let options = EngineOptions { vision_bytes: bytes, guided_bytes: bytes, ..EngineOptions::default() };
        let mut engine = Engine::with_options(&assistant.model, Some(&assistant.tokenizer), options);
        let mut told = Vec::new();
        for question in ["What is it?", "What is it?", "Why?"] {
            let mut chat = Chat::new();
            chat.show(engine.encode(prepared.clone()).unwrap());
            chat.ask(question).unwrap();
            let request = assistant.request(&chat, &assistant.generate_options()).unwrap();
            let mut outcomes = Outcomes::new();
            let id = admit(&mut engine, &mut outcomes, request.clone());
            finish(&mut engine, &mut outcomes);
            told.push(outcomes.remove(&id).unwrap());
            assert_eq!(told[told.len() - 1], alone(&assistant, request));
        }
        let PictureCounts { vision, guided } = engine.picture_counts();
        let kept = bytes > 0;
        assert_eq!(
            (vision.hits, vision.misses, vision.bytes > 0),
            if kept { (2, 1, true) } else { (0, 3, false) }
        );
        assert_eq!(
            (guided.hits, guided.misses, guided.bytes > 0),
            if kept { (1, 2, true) } else { (0, 3, false) }
        );
    }
}
