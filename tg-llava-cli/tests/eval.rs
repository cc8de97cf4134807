//! `eval`: answers, samples that cannot be used, and the file of answers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use common::{copy_of, fixture, program};
use serde_json::{Value, json};

fn vicuna() -> PathBuf {
    fixture("models/vicuna-tiny")
}

/// A sample; `pictures` are named in the data, whatever the text holds.
fn sample(id: &str, pictures: &[&str], question: &str, answer: &str) -> Value {
    let mut sample = json!({
        "id": id,
        "conversations": [{ "from": "human", "value": question }, { "from": "gpt", "value": answer }],
    });
    if !pictures.is_empty() {
        sample["image"] = pictures.into();
    }
    sample
}

fn good(id: &str) -> Value {
    sample(id, &["photo_b.png"], "<image>\nWhat is this?", "A cat.")
}

/// Its answer falls behind the cut once the picture's tokens are in.
fn good_but_long() -> Value {
    sample(
        "bad",
        &["photo_b.png"],
        &format!("<image>\n{}", "word ".repeat(9)),
        "An answer of some tokens here.",
    )
}

/// `eval` of `samples` with a model, which cuts samples at 150 tokens.
fn eval(dir: &Path, samples: &[Value]) -> Command {
    let data = dir.join("data.json");
    std::fs::write(&data, Value::from(samples).to_string()).unwrap();
    let mut command = program();
    command.args(["eval", "--max-new-tokens", "12", "--batch-size", "2", "--json"]).args(common::device());
    command.arg("--data").arg(data).arg("--image-folder").arg(fixture("preprocess/images"));
    command
}

/// Cuts samples of a copied model.
fn short() -> tempfile::TempDir {
    let model = copy_of("vicuna-tiny");
    let path = model.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["tokenizer_model_max_length"] = 150.into();
    std::fs::write(path, config.to_string()).unwrap();
    model
}

/// Exit code and what `--json` prints.
fn result(command: &mut Command) -> (i32, Value) {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(path: &Path) -> Vec<String> {
    lines(path).iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect()
}

/// Each kind of bad sample is named and counted; every other answer is kept, and is what it is without the bad one.
#[test]
fn a_bad_sample_costs_no_other_its_answer() {
    let model = short();
    let dir = tempfile::tempdir().unwrap();
    let all_good: Vec<Value> = ["g0", "g1", "g2"].map(good).into();
    let file = dir.path().join("good.jsonl");
    let mut command = eval(dir.path(), &all_good);
    let (code, whole) = result(command.arg("--model").arg(model.path()).arg("--predictions").arg(&file));
    assert_eq!((code, &whole["samples"], whole["failures"].as_array().unwrap().len()), (0, &3.into(), 0));
    let answers = lines(&file);
    let see = "See <image> here";
    for (bad, reason, answered, learned) in [
        (sample("bad", &["none.png"], "<image>\nWhat?", "x"), "none.png", false, false),
        (sample("bad", &[], &"word ".repeat(600), "x"), "the model's context 512", false, false),
        (sample("bad", &["photo_b.png"], "What?", see), "0 <image> mark(s) and 1 picture(s)", false, true),
        (sample("bad", &[], "What?", see), "1 `<image>` in the conversation but 0", false, false),
        (good_but_long(), "lies behind the 150 tokens", true, false),
        (
            json!({ "id": "bad", "conversations": [{ "from": "human", "value": "What?" }] }),
            "no answer",
            false,
            false,
        ),
        (json!({ "id": "bad", "conversations": 7 }), "`conversations`", false, false),
    ] {
        let mut samples = all_good.clone();
        samples.insert(1, bad);
        let mut command = eval(dir.path(), &samples);
        let file = dir.path().join("mixed.jsonl");
        command.arg("--model").arg(model.path()).arg("--force").arg("--predictions").arg(&file);
        let (code, report) = result(&mut command);
        let failures = report["failures"].as_array().unwrap();
        let message = failures[0].as_str().unwrap();
        assert!(message.contains("sample bad: ") && message.contains(reason), "{reason}: {message}");
        let samples = 3 + usize::from(answered);
        assert_eq!((code, failures.len(), &report["samples"]), (1, 1, &samples.into()), "{reason}");
        let loss = |report: &Value| report["loss"].as_f64().unwrap();
        assert_eq!((loss(&report) - loss(&whole)).abs() < 1e-5, !learned, "{reason}");
        let found: Vec<Value> = lines(&file).into_iter().filter(|line| line["id"] != "bad").collect();
        assert_eq!(found, answers, "{reason}");
    }
}

/// The text of an answer is that of `chat`, whatever ends it.
#[test]
fn answers_end_as_those_of_chat() {
    let dir = tempfile::tempdir().unwrap();
    let answer = |model: &Path| {
        let file = dir.path().join("one.jsonl");
        let mut command = eval(dir.path(), &[sample("one", &[], "Hi", "x")]);
        let (code, _) =
            result(command.arg("--model").arg(model).args(["--force", "--predictions"]).arg(&file));
        assert_eq!(code, 0);
        lines(&file)[0]["answer"].as_str().unwrap().to_owned()
    };
    let said = common::stdout(common::chat(&vicuna()).arg("Hi"));
    assert_eq!(answer(&vicuna()), said.trim_end());
    let model = copy_of("vicuna-tiny");
    common::end_with(model.path(), common::first_token(&vicuna(), "Hi"));
    assert_eq!(answer(model.path()), "");
}

#[test]
fn the_file_of_answers_is_opened_first_and_not_replaced_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("answers.jsonl");
    let run = |file: &Path, model: &Path, force: bool| {
        let mut command = eval(dir.path(), &[good("g0")]);
        command.arg("--model").arg(model).arg("--predictions").arg(file).args(force.then_some("--force"));
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    // Before the model is loaded: this one cannot be.
    let damaged = copy_of("vicuna-tiny");
    std::fs::remove_file(damaged.path().join("model.safetensors")).unwrap();
    let (code, message) = run(&dir.path().join("nowhere/answers.jsonl"), damaged.path(), false);
    assert!(code == 2 && message.contains("nowhere/answers.jsonl cannot be written"), "{message}");
    // A run without an answer leaves nothing behind, and what was there as it was.
    assert_eq!(run(&file, damaged.path(), false).0, 2);
    assert!(!file.exists());
    std::fs::write(&file, "mine\n").unwrap();
    assert_eq!(run(&file, damaged.path(), true).0, 2);
    let (code, message) = run(&file, &vicuna(), false);
    assert!(code == 2 && message.contains("replace it with --force"), "{message}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine\n");
    assert_eq!(run(&file, &vicuna(), true).0, 0);
    assert_eq!(ids(&file), ["g0"]);
}
