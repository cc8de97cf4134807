//! Answers: one-shot and in conversations.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{chat, fixture, photo, stdout};
use serde_json::Value;

fn vicuna() -> std::path::PathBuf {
    fixture("models/vicuna-tiny")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn an_answer_about_a_picture() {
    let ask = |json: bool| {
        let mut command = chat(&vicuna());
        command.arg("--image").arg(photo()).arg("What is this?").args(json.then_some("--json"));
        stdout(&mut command)
    };
    let record = json(&ask(true));
    let answer = record["answer"].as_str().unwrap();
    assert!(!answer.is_empty());
    assert_eq!(ask(false), format!("{answer}\n"));
    assert_eq!(record["tokens"], 12);
    assert_eq!(record["finish_reason"], "length");
    // 22 tokens of the picture and the text around it.
    assert!(record["prompt_tokens"].as_u64().unwrap() > 22);
    assert!(record["seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_picture_and_the_guide_matter() {
    let ask = |arguments: &[&str]| stdout(chat(&vicuna()).arg("What is this?").args(arguments));
    let photo = photo();
    let photo = photo.to_str().unwrap();
    let answer = ask(&["--image", photo]);
    assert_ne!(answer, ask(&[]));
    assert_eq!(answer, ask(&["--image", photo, "--temperature", "0", "--seed", "5"]));
    assert_ne!(answer, ask(&["--image", photo, "--template", "llava_v0"]));
    assert_ne!(answer, ask(&["--image", photo, "--image", photo]));
}

#[test]
fn chance_follows_the_seed() {
    let ask = |seed: &str| {
        stdout(chat(&vicuna()).args(["Hi", "--temperature", "2", "--top-k", "0", "--seed", seed]))
    };
    assert_eq!(ask("1"), ask("1"));
    assert!((2..6).any(|seed| ask(&seed.to_string()) != ask("1")));
}

#[test]
fn a_plain_decoder_answers_in_text() {
    assert!(!stdout(chat(&fixture("models/vicuna-tiny/base-llm")).arg("Hi")).trim().is_empty());
}

#[test]
fn weights_are_found_by_the_variable() {
    let mut command = common::program();
    command.args(["chat", "--max-new-tokens", "2", "Hi"]).args(common::device());
    stdout(command.env("TG_LLAVA_WEIGHTS", vicuna()));
    command.env("TG_LLAVA_WEIGHTS", fixture("preprocess")).assert().code(2);
}

#[test]
fn a_conversation_through_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("turns.json");
    let lines = format!(
        "/image {}\nWhat is this?\n\nAnd\u{a0}now?\n/image nowhere.png\n/frobnicate\n/save {}\n/reset\nHello?\n/quit\nnot read\n",
        photo().display(),
        file.display()
    );
    let output = chat(&vicuna()).write_stdin(lines).output().unwrap();
    let (answers, messages) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{messages}");

    let saved = json(&std::fs::read_to_string(&file).unwrap());
    let turns = saved["conversations"].as_array().unwrap();
    let values: Vec<_> = turns.iter().map(|turn| turn["value"].as_str().unwrap()).collect();
    assert_eq!((values.len(), values[0], values[2]), (4, "<image>\nWhat is this?", "And\u{a0}now?"));
    assert_eq!(saved["images"][0], photo().to_str().unwrap());
    assert_eq!(saved["template"], "v1");
    assert_eq!(turns[1]["from"], "gpt");

    // What a single question about the same picture gives; and after /reset, what a fresh start gives.
    let alone = stdout(chat(&vicuna()).arg("--image").arg(photo()).arg("What is this?"));
    let fresh = stdout(chat(&vicuna()).arg("Hello?"));
    assert_eq!(answers, format!("{alone}{}\n{fresh}", values[3]));

    assert!(messages.contains("error: nowhere.png: "), "{messages}");
    assert!(messages.contains("error: there is no command /frobnicate"), "{messages}");
}

#[test]
fn a_question_that_fails_is_taken_back() {
    let lines = format!("{}\nHello?\n", "much too long ".repeat(300));
    let output = chat(&vicuna()).write_stdin(lines).output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the model's context 512"));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), stdout(chat(&vicuna()).arg("Hello?")));
}

#[test]
fn answers_as_json_lines() {
    let text = stdout(chat(&vicuna()).arg("--json").write_stdin("One?\nTwo?"));
    let records: Vec<_> = text.lines().map(json).collect();
    assert_eq!(records.len(), 2);
    assert!(records[1]["prompt_tokens"].as_u64() > records[0]["prompt_tokens"].as_u64());
}

/// A reader that goes away is no error.
#[cfg(unix)]
#[test]
fn a_closed_pipe_ends_quietly() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_tg-llava-cli"))
        .args(["inspect", "-v"])
        .arg(vicuna())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}
