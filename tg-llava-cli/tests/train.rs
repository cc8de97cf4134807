//! `train`: what a user meets when something is wrong, and what a killed run leaves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::program;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// The arguments of a short run into `out`.
fn arguments(out: &Path) -> Vec<String> {
    let (examples, out) = (examples(), out.display().to_string());
    let file = examples.join("runs/easy-vqa/train.toml").display().to_string();
    let set = [
        format!("output_dir={out}"),
        format!("model.path={}", examples.join("runs/easy-vqa/model").display()),
        "model.dropout=0.1".to_owned(),
        format!("data.path={}", examples.join("data/easy-vqa/train.json").display()),
        format!("data.image_folder={}", examples.join("data/easy-vqa/images").display()),
        format!("data.validation.path={}", examples.join("data/easy-vqa/test.json").display()),
        "data.validation.samples=2".to_owned(),
        "data.validation.every=0".to_owned(),
        "run.batch_size=2".to_owned(),
        "run.max_steps=12".to_owned(),
        "run.save_steps=1".to_owned(),
        "run.log_every=1".to_owned(),
    ];
    let mut arguments = vec!["train".to_owned(), "--config".to_owned(), file];
    arguments.extend(["--device", "flex", "-q"].map(str::to_owned));
    for assignment in set {
        arguments.extend(["--set".to_owned(), assignment]);
    }
    arguments
}

/// What the program says when it refuses a run.
fn refusal(out: &Path, extra: &[&str]) -> String {
    let output = program().args(arguments(out)).args(extra).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_run_killed_again_and_again_ends_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    program().args(arguments(&whole)).assert().success();
    // Ever longer, so that every part of a step and of a save is hit and the run still ends.
    for round in 0..12u64 {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tg-llava-cli"));
        let child = command.args(arguments(&killed)).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.unwrap();
        std::thread::sleep(Duration::from_millis(60 + 23 * round));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    program().args(arguments(&killed)).assert().success();
    let read = |dir: &Path| std::fs::read(dir.join("model.safetensors")).unwrap();
    assert!(read(&whole) == read(&killed));
}

#[test]
fn wrong_input_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let data = |text: &str| {
        let path = dir.path().join("data.json");
        std::fs::write(&path, text).unwrap();
        format!("data.path={}", path.display())
    };
    let sample = |image: &str, from: &str, value: &str| {
        format!(
            r#"[{{"id":"x7"{image},"conversations":[{{"from":"{from}","value":"{value}"}},{{"from":"gpt","value":"b"}}]}}]"#
        )
    };
    for (text, words) in [
        ("[{\"id\": 1,\n \"conversations\": 5}]".to_owned(), &["line 2", "conversations"][..]),
        (sample(r#","image":"train/0.png""#, "human", "no mark"), &["x7", "<image>"]),
        (sample("", "human", "<image> but no picture"), &["x7", "<image>"]),
        (sample("", "robot", "hi"), &["x7", "robot"]),
        (r#"[{"id":"x7","conversations":[]}]"#.to_owned(), &["x7", "conversations"]),
    ] {
        let message = refusal(&out, &["--set", &data(&text)]);
        assert!(words.iter().all(|word| message.contains(word)), "{text}: {message}");
    }
    let message = refusal(&out, &["--set", "data.image_folder=/nowhere"]);
    assert!(message.contains("/nowhere") && message.contains("image folder"), "{message}");
    let message = refusal(&out, &["--set", "optim.learning_rat=1"]);
    assert!(message.contains("optim.learning_rat"), "{message}");
    let message = refusal(&out, &["--set", "run.max_steps=0"]);
    assert!(message.contains("run.max_steps"), "{message}");
    for key in [
        "data.workers",
        "data.prefetch",
        "run.accumulation",
        "run.batch_size",
        "run.loss_chunk",
        "run.max_steps",
    ] {
        for value in ["9223372036854775807", "4294967296"] {
            let message = refusal(&out, &["--set", &format!("{key}={value}")]);
            assert!(message.contains(key) && message.contains("from 1 to"), "{message}");
        }
    }
    // A million samples at once fit into no machine, and the first step is never tried.
    let message = refusal(&out, &["--set", "run.batch_size=1048576"]);
    assert!(message.contains("memory") && message.contains("gradient_checkpointing"), "{message}");
}

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let output = program().args(arguments(&out)).args(["--dry-run", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["samples"], 248);
    assert_eq!(value["steps"], 12);
    assert!(value["parameters"]["total"].as_u64().unwrap() > 500_000);
    assert!(value["memory_total"].as_u64().unwrap() > 1 << 20 && value["seconds"].as_f64().unwrap() > 0.0);
    assert!(!out.exists());
}

#[test]
fn the_shipped_checkpoint_answers_the_slice() {
    let data = examples().join("data/easy-vqa");
    let output = program()
        .args(["eval", "--json", "--device", "flex", "--max-new-tokens", "8", "--data"])
        .arg(data.join("test.json"))
        .arg("--image-folder")
        .arg(data.join("images"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value["exact_match"].as_f64().unwrap() >= 0.98, "{value}");
}
