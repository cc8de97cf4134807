//! Checkpoints written anew by the program, and asked about a picture.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::{chat, fixture, outcome, program, stdout};
use serde_json::Value;

fn convert(model: &Path, to: &str, out: &Path) -> Value {
    let mut command = program();
    command.arg("convert").arg("--model").arg(model).args(["--to", to, "--json", "--out"]).arg(out);
    serde_json::from_str(&stdout(&mut command)).unwrap()
}

fn answer(model: &Path, base: Option<&Path>) -> String {
    let mut command = chat(model);
    command.args(["What is this?", "--image"]).arg(fixture("models/vicuna-tiny/photo.png"));
    if let Some(base) = base {
        command.arg("--base").arg(base);
    }
    stdout(&mut command)
}

/// The library's own pre-quantised decoder under a checkpoint's bridges answers as the checkpoint that was converted.
#[test]
fn a_converted_checkpoint_answers_as_one_over_the_quantised_decoder() {
    let model = fixture("models/vicuna-tiny");
    let dir = tempfile::tempdir().unwrap();
    for (to, base) in [("nf4", "bnb-nf4"), ("int8", "bnb-int8")] {
        let out = dir.path().join(to);
        let report = convert(&model, to, &out);
        assert_eq!(report["quantised"][to], 14, "{report}");
        let base = fixture("quant").join(base).join("vicuna-tiny");
        assert_eq!(answer(&out, None), answer(&model, Some(&base)), "{to}");
        program().arg("inspect").arg(&out).assert().success();
    }
}

#[test]
fn a_matrix_that_gets_another_format_than_asked_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let report = convert(&fixture("models/vicuna-tiny"), "q4_k_m", dir.path());
    assert_eq!(report["quantised"]["Q8_0"], 16, "{report}");
    let other = report["other_format"].as_array().unwrap();
    assert_eq!(other.len(), 14, "{report}");
    assert_eq!(other[0], "model.layers.0.mlp.down_proj.weight (Q8_0, not Q4_K)");
    assert_eq!(report["not_finite"], Value::Array(Vec::new()));
}

#[test]
fn another_model_goes_only_when_forced() {
    let out = common::copy_of("vicuna-tiny");
    let config = std::fs::read_to_string(out.path().join("config.json")).unwrap();
    let written = |arguments: &[&str], model: &str| {
        let mut command = program();
        command.args(arguments).arg("--model").arg(fixture(model)).arg("--out").arg(out.path());
        outcome(&mut command, &[])
    };
    let base = fixture("models/vicuna-tiny");
    let merge = ["merge", "--base", base.to_str().unwrap()];
    for (arguments, model) in
        [(&["convert", "--to", "f16"][..], "models/qwen2-tiny"), (&merge, "lora/vicuna-tiny/r4_split/final")]
    {
        let text = written(arguments, model);
        assert!(text.starts_with("exit code 2") && text.contains("--force"), "{text}");
        assert_eq!(std::fs::read_to_string(out.path().join("config.json")).unwrap(), config);
        let text = written(&[arguments, &["--force"]].concat(), model);
        assert!(text.starts_with("exit code 0"), "{text}");
        std::fs::write(out.path().join("config.json"), &config).unwrap();
    }
}

#[test]
fn what_cannot_be_converted_is_said() {
    let model = fixture("models/vicuna-tiny");
    let refused = |arguments: &[&str], out: &Path| {
        let mut command = program();
        command.arg("convert").arg("--model").arg(&model).args(arguments).arg("--out").arg(out);
        outcome(&mut command, &[])
    };
    let dir = tempfile::tempdir().unwrap();
    for (arguments, out, part) in [
        (&["--to", "nf4"][..], model.as_path(), "choose another folder"),
        (&["--to", "f16", "--dtype", "f32"], dir.path(), "--dtype is for what --to does not quantise"),
        (&["--to", "q3_k"], dir.path(), "q4_k_m"),
    ] {
        let text = refused(arguments, out);
        assert!(text.starts_with("exit code 2") && text.contains(part), "{text}");
    }
}
