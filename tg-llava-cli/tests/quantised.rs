//! `--quantize`: what is said about it, and where it is refused.
#![cfg(feature = "flex")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{chat, fixture, program};
use serde_json::{Value, json};

#[test]
fn an_answer_over_eight_bits_is_that_of_the_floats() {
    let model = fixture("models/vicuna-tiny");
    let answer = |options: &[&str]| {
        let mut command = program();
        command.args(["chat", "--max-new-tokens", "1", "--model"]).arg(&model).args(options);
        command.arg("--image").arg(model.join("photo.png")).arg("What is this?");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let floats = answer(&[]);
    assert_eq!(answer(&["--quantize", "q8_0"]), floats);
    assert_eq!(answer(&["--quantize", "q8_0", "--activations", "f32"]), floats);
}

#[test]
fn other_formats_than_asked_for_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.json");
    let turns = json!([{ "from": "human", "value": "<image>\nWhat?" }, { "from": "gpt", "value": "A cat." }]);
    let samples = json!([{ "id": "a", "image": "photo_b.png", "conversations": turns }]);
    std::fs::write(&data, samples.to_string()).unwrap();
    let mut command = program();
    command.args(["eval", "--max-new-tokens", "2", "--json", "--quantize", "q4_k_m", "--device", "flex"]);
    command.arg("--model").arg(fixture("models/qwen2-tiny")).arg("--data").arg(&data);
    command.arg("--image-folder").arg(fixture("preprocess/images"));
    let output = command.output().unwrap();
    let (told, value) = (String::from_utf8_lossy(&output.stderr), &output.stdout);
    assert!(told.contains("are Q8_0 where Q4_K was asked for"), "{told}");
    let value: Value = serde_json::from_slice(value).unwrap();
    let others = value["quantised"]["other_than_asked"].as_array().unwrap();
    // Two blocks of seven matrices, whose rows are 48 and 88 long.
    assert_eq!(others.len(), 14, "{value}");
    assert_eq!(value["quantised"]["formats"]["Q8_0"]["tensors"], 16, "{value}");
}

#[test]
fn a_file_of_other_blocks_than_asked_for_stays_as_it_is_and_is_named() {
    let model = fixture("models/vicuna-tiny");
    let dir = tempfile::tempdir().unwrap();
    program()
        .args(["convert", "--to", "q4_0", "--model"])
        .arg(&model)
        .arg("--out")
        .arg(dir.path())
        .assert()
        .success();
    let output = chat(dir.path()).args(["--quantize", "q8_0", "Hello"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("14 matrices are Q4_0 where Q8_0 was asked for"), "{told}");
}

#[test]
fn formats_that_nothing_computes_with_are_said_to_become_floats() {
    for (format, said) in [("bnb-nf4", "in nf4"), ("bnb-int8", "in int8")] {
        let base = fixture("quant").join(format).join("vicuna-tiny");
        let told = |options: &[&str]| {
            let mut command = chat(&fixture("models/vicuna-tiny"));
            let output = command.arg("--base").arg(&base).args(options).arg("Hello").output().unwrap();
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        let text = told(&[]);
        assert!(
            text.contains(&format!("14 tensors that the files hold {said} are held as floats (f32)")),
            "{text}"
        );
        let text = told(&["--quantize", "q8_0"]);
        assert!(!text.contains("are held as floats"), "{text}");
    }
}

#[test]
fn half_precision_is_refused() {
    let mut command = chat(&fixture("models/vicuna-tiny"));
    let output = command.args(["--quantize", "q8_0", "--dtype", "f16", "Hello"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("on the CPU alone, in f32"), "{told}");
}
