//! Ids and texts are those of the reference's tokenizers.

use serde_json::Value;

use super::*;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/conversations");

fn golden() -> Value {
    serde_json::from_slice(&std::fs::read(format!("{FIXTURES}/tokenization.json")).unwrap()).unwrap()
}

fn folder(name: &str) -> String {
    format!("{FIXTURES}/tokenizers/{name}")
}

#[test]
fn texts_and_their_ids_equal_the_references() {
    for (name, cases) in golden()["texts"].as_object().unwrap() {
        let tokenizer = TextTokenizer::from_dir(folder(name)).unwrap();
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids, "{name} {text:?}");
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), case["decoded"], "{name}");
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), case["decoded_skip_special"], "{name}");
        }
    }
}

#[test]
fn the_older_files_give_the_slow_tokenizers_ids() {
    for (name, cases) in golden()["texts"].as_object().unwrap() {
        let dir = folder(name);
        let tokenizer = match name.as_str() {
            "qwen2" => TextTokenizer::from_vocab_and_merges(dir).unwrap(),
            "llama" | "llama-legacy-false" => TextTokenizer::from_sentencepiece(dir).unwrap(),
            _ => continue,
        };
        for case in cases.as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids = case.get("slow_ids").unwrap_or(&case["ids"]);
            let ids: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids, "{name} {text:?}");
        }
    }
}

#[test]
fn prompts_with_pictures_equal_the_references() {
    for case in golden()["tokenizer_image_token"].as_array().unwrap() {
        let tokenizer = TextTokenizer::from_dir(folder(case["tokenizer"].as_str().unwrap())).unwrap();
        let prompt = case["prompt"].as_str().unwrap();
        let ids: Vec<i64> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode_with_images(prompt).unwrap().ids, ids, "{prompt:?}");
    }
}

#[test]
fn the_bytes_of_tokens_add_up_to_the_text() {
    for name in ["llama", "qwen2", "llama3"] {
        let tokenizer = TextTokenizer::from_dir(folder(name)).unwrap();
        for text in ["A grey cat, ça va? 日本語 🦀🦀 end\n", "é", "\tplain  words"] {
            let ids = tokenizer.encode(text, false).unwrap();
            let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id).unwrap()).collect();
            let whole = String::from_utf8(bytes).unwrap();
            assert_eq!(whole.strip_prefix(' ').unwrap_or(&whole), text, "{name}");
        }
        let eos = tokenizer.special().eos.unwrap();
        assert_eq!(tokenizer.token_bytes(eos), tokenizer.token(eos).map(String::into_bytes));
        assert_eq!(tokenizer.token_bytes(u32::MAX), None);
    }
}

#[test]
fn raw_bytes_that_are_no_text_count_as_they_are_decoded() {
    let tokenizer = TextTokenizer::from_dir(folder("llama")).unwrap();
    let byte = |b: u8| tokenizer.token_id(&format!("<0x{b:02X}>")).unwrap();
    let word = tokenizer.encode("a", false).unwrap()[0];
    let ids = [word, byte(b'('), byte(0xFF), word, byte(0xC3), byte(0xA9), word];
    let whole = String::from_utf8(tokenizer.bytes_in_text(&ids).concat()).unwrap();
    assert_eq!(whole.trim_start(), tokenizer.decode_verbatim(&ids, true).unwrap().trim_start());
    assert!(whole.contains("\u{FFFD}\u{FFFD}") && whole.contains('é'), "{whole}");
}

#[test]
fn special_tokens_are_known() {
    let special = |name: &str| TextTokenizer::from_dir(folder(name)).unwrap();
    let llama = special("llama");
    assert_eq!(llama.special(), SpecialIds { bos: Some(1), eos: Some(2), pad: Some(0), unk: Some(0) });
    assert_eq!((llama.adds_bos(), llama.pad_id(), llama.model_max_length()), (true, 0, Some(2048)));
    let qwen = special("qwen2");
    assert_eq!((qwen.special().bos, qwen.adds_bos(), qwen.pad_id()), (None, false, 436));
    let llama3 = special("llama3");
    assert_eq!((llama3.adds_bos(), llama3.pad_id()), (true, 428));
    assert!(!special("llama3-nobos").adds_bos());
}

#[test]
fn spans_point_into_the_text() {
    for name in ["llama", "llama-legacy-false", "llama3", "qwen2"] {
        for tokenizer in
            [TextTokenizer::from_dir(folder(name)).ok(), TextTokenizer::from_sentencepiece(folder(name)).ok()]
        {
            let Some(tokenizer) = tokenizer else { continue };
            let text = "One 漢 two";
            let tokens = tokenizer.encode_with_spans(text, true).unwrap();
            let spans: Vec<_> = tokens.spans.iter().flatten().cloned().collect();
            assert_eq!(spans[0].start, 0, "{name}");
            assert_eq!(spans.last().unwrap().end, text.len(), "{name}");
            assert!(spans.iter().all(|span| text.get(span.clone()).is_some()), "{name} {spans:?}");
            assert_eq!(tokens.spans[0].is_none(), tokenizer.adds_bos(), "{name}");
        }
    }
}

#[test]
fn added_tokens_come_behind_the_vocabulary() {
    let mut tokenizer = TextTokenizer::from_dir(folder("llama")).unwrap();
    let size = tokenizer.vocab_size() as u32;
    assert_eq!(tokenizer.add_special_tokens(&["<im_start>", "</s>"]).unwrap(), 1);
    assert_eq!(tokenizer.encode("<im_start>", false).unwrap(), [size]);
}

#[test]
fn an_empty_folder_says_what_is_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let error = TextTokenizer::from_dir(dir.path()).unwrap_err().to_string();
    assert!(error.contains("tokenizer.model") && error.contains("merges.txt"), "{error}");
    std::fs::write(dir.path().join("tokenizer.model"), b"\x0a\xff").unwrap();
    let error = TextTokenizer::from_dir(dir.path()).unwrap_err().to_string();
    assert!(error.contains("tokenizer.model") && error.contains("cut short"), "{error}");
    std::fs::write(dir.path().join("tokenizer.json"), "{").unwrap();
    let error = TextTokenizer::from_dir(dir.path()).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
}

#[test]
fn a_merge_without_a_space_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("vocab.json"), r#"{"a": 0, "b": 1, "ab": 2}"#).unwrap();
    std::fs::write(dir.path().join("merges.txt"), "#version: 0.2\nab\n").unwrap();
    let error = TextTokenizer::from_dir(dir.path()).unwrap_err().to_string();
    assert!(error.contains("merges.txt: line 2"), "{error}");
    std::fs::write(dir.path().join("merges.txt"), "#version: 0.2\na b\nb a\n").unwrap();
    let error = TextTokenizer::from_dir(dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("merges.txt: line 3: token \"ba\" is not in vocab.json"), "{error}");
    std::fs::write(dir.path().join("merges.txt"), "#version: 0.2\na b\n").unwrap();
    assert_eq!(TextTokenizer::from_dir(dir.path()).unwrap().encode("ab", true).unwrap(), [2]);
}

/// A folder with the fixture's tokenizer.json, its decoder exchanged.
fn with_decoder(decoder: &str) -> tempfile::TempDir {
    let text = std::fs::read_to_string(format!("{}/tokenizer.json", folder("llama"))).unwrap();
    let mut json: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    json.insert("decoder".into(), "HERE".into());
    let text = Value::Object(json).to_string().replace("\"HERE\"", decoder);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), text).unwrap();
    dir
}

#[test]
fn a_malformed_decoder_is_an_error_that_names_the_file() {
    for decoder in [
        r#"{"type": "Fuse", "#,
        r#"{"type": }"#,
        r#"{"type": "Strip", "content": "x", "start": -}"#,
        r#"{"type": "Nothing"}"#,
        "3",
        r#"{"type": "Sequence", "decoders": [{"type": "Replace"}]}"#,
    ] {
        let dir = with_decoder(decoder);
        let error = TextTokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json"), "{decoder}: {error}");
    }
}

#[test]
fn a_decoder_that_fails_over_a_text_is_an_error_that_names_the_file() {
    let dir = with_decoder(r#"{"type": "Strip", "content": "a", "start": 1, "stop": 1}"#);
    let tokenizer = TextTokenizer::from_dir(dir.path()).unwrap();
    let id = tokenizer.token_id("a").unwrap();
    let error = tokenizer.decode(&[id], false).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
}
