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
fn a_beam_search_finds_another_answer_and_is_not_left_to_chance() {
    let ask = |arguments: &[&str]| stdout(chat(&vicuna()).arg("Hi").args(arguments));
    assert_eq!(ask(&["--num-beams", "1"]), ask(&[]));
    let found = ask(&["--num-beams", "5"]);
    assert_ne!(found, ask(&[]));
    assert_eq!(found, ask(&["--num-beams", "5", "--seed", "3"]));
    let record = json(&ask(&["--num-beams", "5", "--length-penalty", "-1", "--json"]));
    assert!(record["tokens"].as_u64().unwrap() > 0 && record["finish_reason"].is_string());
    let output = chat(&vicuna()).args(["Hi", "--num-beams", "5", "--top-k", "3"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be used with"));
}

#[test]
fn a_plain_decoder_answers_in_text() {
    assert!(!stdout(chat(&fixture("models/vicuna-tiny/base-llm")).arg("Hi")).trim().is_empty());
}

#[test]
fn an_answer_is_the_same_wherever_the_weights_lie() {
    let ask = |arguments: &[&str]| {
        stdout(chat(&vicuna()).arg("--image").arg(photo()).args(arguments).arg("What is this?"))
    };
    for dtype in [&[][..], &["--dtype", "f16"]] {
        assert_eq!(ask(dtype), ask(&[dtype, &["--no-mmap"]].concat()));
    }
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
        "/image {}\nWhat is this?\n\nAnd\u{a0}now?\n/save {}\n/reset\nHello?\n/quit\nnot read\n",
        photo().display(),
        file.display()
    );
    let answers = stdout(chat(&vicuna()).write_stdin(lines));

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
}

/// Exit code, the lines of stdout, and stderr.
fn piped(command: &mut assert_cmd::Command, lines: &str) -> (i32, Vec<String>, String) {
    let output = command.write_stdin(lines).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    (output.status.code().unwrap(), lines, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_goes_wrong_in_a_pipe_shows_in_the_exit_code() {
    let fresh = stdout(chat(&vicuna()).arg("Hello?"));
    for (line, message) in [
        ("/frobnicate".to_owned(), "error: there is no command /frobnicate"),
        ("/save".to_owned(), "error: /save needs a file"),
        ("much too long ".repeat(300), "the model's context 512"),
    ] {
        let (code, answers, messages) = piped(&mut chat(&vicuna()), &format!("{line}\nHello?\n"));
        assert!(messages.contains(message), "{messages}");
        // What failed is taken back, and the rest goes on.
        assert_eq!((code, answers.join("\n")), (1, fresh.trim_end().to_owned()), "{line}");
    }
}

#[test]
fn no_question_is_answered_without_the_picture_it_asks_about() {
    let photo = photo();
    let photo = photo.display();
    let lines =
        format!("/image {photo}\n/image nowhere.png\nOne?\nTwo?\n/image {photo}\nThree?\n/reset\nFour?\n");
    let (code, answers, messages) = piped(chat(&vicuna()).arg("--json"), &lines);
    assert_eq!(code, 1);
    assert!(messages.contains("error: nowhere.png: "), "{messages}");
    let answers: Vec<Value> = answers.iter().map(|line| json(line)).collect();
    for failed in &answers[..2] {
        assert!(failed["error"].as_str().unwrap().contains("nowhere.png could not be shown"), "{failed}");
        assert_eq!(failed["answer"], Value::Null);
    }
    // The picture before the lost one is not shown with another question.
    let alone = json(&stdout(chat(&vicuna()).args(["--json", "Three?", "--image"]).arg(photo.to_string())));
    assert_eq!(answers[2]["answer"], alone["answer"]);
    assert_eq!(answers[2]["prompt_tokens"], alone["prompt_tokens"]);
    assert!(answers[3]["answer"].is_string());
    assert_eq!(answers.len(), 4);
}

/// Not by another picture for the same question, nor where the picture's name could not be read.
#[test]
fn a_lost_picture_is_not_made_up_for_by_the_next_one() {
    let photo = photo();
    let photo = photo.to_str().unwrap();
    for lost in [&b"nowhere.png"[..], b"caf\xe9.png", b"ftp://a/b.png"] {
        let rest = format!("\n/image {photo}\nOne?\n/image {photo}\nTwo?\n");
        let lines = [b"/image ", lost, rest.as_bytes()].concat();
        let output = chat(&vicuna()).arg("--json").write_stdin(lines).output().unwrap();
        let answers: Vec<Value> = String::from_utf8(output.stdout).unwrap().lines().map(json).collect();
        assert_eq!((output.status.code(), answers.len()), (Some(1), 2), "{answers:?}");
        assert!(answers[0]["error"].as_str().unwrap().starts_with("not asked"), "{}", answers[0]);
        assert!(answers[1]["answer"].is_string(), "{}", answers[1]);
    }
}

#[test]
fn a_line_that_is_no_text_is_a_question_without_an_answer() {
    let output = chat(&vicuna()).arg("--json").write_stdin(&b"\xff\nHello?\n"[..]).output().unwrap();
    let lines: Vec<Value> = String::from_utf8(output.stdout).unwrap().lines().map(json).collect();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!((lines.len(), &lines[0]["error"]), (2, &"standard input is not UTF-8 text".into()));
    assert!(lines[1]["answer"].is_string());
}

#[test]
fn a_file_is_replaced_only_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("turns.json");
    std::fs::write(&file, "mine").unwrap();
    let save = |command: &str| piped(&mut chat(&vicuna()), &format!("Hi\n{command} {}\n", file.display()));
    let (code, _, messages) = save("/save");
    assert!(code == 1 && messages.contains("there is such a file already"), "{messages}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    assert_eq!(save("/save!").0, 0);
    assert_eq!(json(&std::fs::read_to_string(&file).unwrap())["conversations"][0]["value"], "Hi");
}

/// A name that is no text is a file like any other.
#[cfg(unix)]
#[test]
fn a_picture_may_have_any_name() {
    use std::os::unix::ffi::OsStringExt;
    let dir = tempfile::tempdir().unwrap();
    let name = std::ffi::OsString::from_vec(b"ph\xf6to.png".to_vec());
    std::fs::copy(photo(), dir.path().join(&name)).unwrap();
    let answer = stdout(chat(&vicuna()).arg("What?").arg("--image").arg(dir.path().join(&name)));
    assert_eq!(answer, stdout(chat(&vicuna()).arg("What?").arg("--image").arg(photo())));
}

#[test]
fn the_end_tokens_of_generation_config_end_an_answer() {
    let ask = |model: &std::path::Path| json(&stdout(chat(model).args(["--json", "Hi"])));
    let model = common::copy_of("vicuna-tiny");
    let first = common::first_token(&vicuna(), "Hi");
    common::end_with(model.path(), first);
    let answer = ask(model.path());
    assert_eq!((&answer["tokens"], &answer["finish_reason"]), (&1.into(), &"end_of_turn".into()));
    assert_eq!(ask(&vicuna())["tokens"], 12);
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
