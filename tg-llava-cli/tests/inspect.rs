//! What `inspect` says about checkpoints, whole and damaged.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::{copy_of, fixture, outcome, program, rewrite};
use serde_json::Value;

fn inspect(dir: &Path, arguments: &[&str]) -> String {
    outcome(program().arg("inspect").arg(dir).args(arguments), &[(dir, "MODEL")])
}

fn json(dir: &Path, arguments: &[&str]) -> Value {
    let output = program().arg("inspect").arg(dir).arg("--json").args(arguments).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_kind_of_folder() {
    for (name, folder) in [
        ("full", "vicuna-tiny"),
        ("plain_decoder", "vicuna-tiny/base-llm"),
        ("tower", "vicuna-tiny/clip-tower"),
    ] {
        insta::assert_snapshot!(format!("inspect_{name}"), inspect(&fixture("models").join(folder), &[]));
    }
    for case in ["llama3-tiny", "qwen2-tiny", "linear-tiny", "identity-tiny"] {
        program().arg("inspect").arg(fixture("models").join(case)).assert().success();
    }
}

#[test]
fn quantised_weights() {
    for (name, path) in [("nf4", "bnb-nf4/vicuna-tiny"), ("gguf", "gguf/llama/decoder.gguf")] {
        let path = fixture("quant").join(path);
        insta::assert_snapshot!(format!("inspect_{name}"), inspect(&path, &["-v"]));
    }
    let model = copy_of("vicuna-tiny");
    let base = fixture("quant/bnb-int8/vicuna-tiny");
    let found = json(model.path(), &["--base", base.to_str().unwrap(), "-v"]);
    assert_eq!(found["complete"], true, "{found}");
    assert_eq!(found["parts"]["llm"]["dtypes"]["int8"], 14, "{found}");
}

/// Stage-1 files with their sizes in config.json, over the decoder beside them and without it.
#[test]
fn stage_1_files() {
    let dir = tempfile::tempdir().unwrap();
    let model = copy_of("vicuna-tiny");
    let stage1 = dir.path().join("stage1");
    std::fs::create_dir(&stage1).unwrap();
    std::fs::rename(model.path().join("clip-tower"), dir.path().join("clip-tower")).unwrap();
    std::fs::copy(model.path().join("config.json"), stage1.join("config.json")).unwrap();
    for part in ["mm_projector", "mm_cross_attn", "mm_patch_encoder"] {
        let file = format!("{part}.bin");
        std::fs::copy(fixture("models/vicuna-tiny/stage1").join(&file), stage1.join(&file)).unwrap();
    }
    let names = [(stage1.as_path(), "STAGE1"), (dir.path(), "DIR")];
    insta::assert_snapshot!("inspect_stage1_alone", outcome(program().arg("inspect").arg(&stage1), &names));
    let base = dir.path().join("decoder");
    std::fs::create_dir(&base).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture("models/vicuna-tiny/base-llm").join(file), base.join(file)).unwrap();
    }
    let mut command = program();
    command.arg("inspect").arg(&stage1).arg("--base").arg(&base);
    insta::assert_snapshot!("inspect_stage1_over_base", outcome(&mut command, &names));
}

/// The base is a full checkpoint, so that towers are there too.
#[test]
fn an_adapter_is_inspected_over_its_base_and_merged_into_it() {
    let (adapter, base) = (fixture("lora/vicuna-tiny/r4_split/final"), fixture("models/vicuna-tiny"));
    let names = [(adapter.as_path(), "ADAPTER"), (base.as_path(), "BASE")];
    let mut command = program();
    command.arg("inspect").arg(&adapter).arg("--base").arg(&base);
    insta::assert_snapshot!("inspect_adapter", outcome(&mut command, &names));
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("merged");
    let merge = |base: &Path| {
        let mut command = program();
        command.arg("merge").arg("--model").arg(&adapter).arg("--base").arg(base).arg("--out").arg(&out);
        command
    };
    merge(&base).assert().success();
    program().arg("inspect").arg(&out).assert().success();
    let ask = |model: &Path, arguments: &[&Path]| {
        common::stdout(common::chat(model).arg("What is this?").args(arguments))
    };
    assert_eq!(ask(&adapter, &[Path::new("--base"), &base]), ask(&out, &[]));
    // A base of other sizes.
    let other = fixture("lora/qwen2-tiny/base-llm");
    std::fs::rename(out.join("clip-tower"), dir.path().join("clip-tower")).unwrap();
    let decoder = dir.path().join("decoder");
    std::fs::create_dir(&decoder).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(other.join(file), decoder.join(file)).unwrap();
    }
    let refused = outcome(merge(&decoder).arg("--force"), &[]);
    assert!(refused.contains("wrong shape") && !refused.contains("lora_A"), "{refused}");
}

#[test]
fn damage_is_listed_and_fails() {
    let model = copy_of("vicuna-tiny");
    rewrite(&model.path().join("model.safetensors"), |tensors| {
        tensors.get_mut("model.norm.weight").unwrap().shape = vec![8, 5];
        let head = tensors.remove("lm_head.weight").unwrap();
        tensors.insert("lm_haed.weight".into(), head);
        tensors.retain(|key, _| !key.starts_with("model.mm_projector."));
    });
    insta::assert_snapshot!("inspect_damaged", inspect(model.path(), &[]));
    let found = json(model.path(), &[]);
    assert_eq!(found["complete"], false);
    assert_eq!(found["missing"].as_array().unwrap().len(), 5);
    assert_eq!(found["unknown"][0]["key"], "lm_haed.weight");
    assert_eq!(found["misshapen"][0]["expected"], serde_json::json!([40]));
}

#[test]
fn folders_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    program().arg("inspect").arg(dir.path()).assert().code(2);
    program().arg("inspect").arg(dir.path().join("nowhere")).assert().code(2);
    let model = copy_of("vicuna-tiny");
    std::fs::write(model.path().join("model.safetensors"), b"short").unwrap();
    let text = inspect(model.path(), &[]);
    assert!(text.starts_with("exit code 2\n") && text.contains("MODEL/model.safetensors"), "{text}");
}

#[test]
fn json_counts_what_is_there() {
    let dir = fixture("models/vicuna-tiny");
    let found = json(&dir, &["-v"]);
    assert_eq!((&found["kind"], &found["complete"]), (&"full".into(), &true.into()));
    let tensors = found["tensors"].as_array().unwrap();
    let used = tensors.iter().filter(|tensor| tensor["used"] == true);
    let values: u64 = used
        .map(|tensor| {
            tensor["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product::<u64>()
        })
        .sum();
    let parts = found["parts"].as_object().unwrap();
    assert_eq!(values, parts.values().map(|part| part["parameters"].as_u64().unwrap()).sum::<u64>());
    assert_eq!(parts.len(), 6);
    assert!(json(&dir, &[]).get("tensors").is_none());
}

#[test]
fn verbose_names_every_tensor() {
    let text = inspect(&fixture("models/vicuna-tiny"), &["-v"]);
    assert!(text.contains("model.mm_projector.2.bias"), "{text}");
    assert!(text.contains("not used"), "{text}");
}

/// Whatever `chat` reads besides the weights is read here as well.
#[test]
fn small_files_that_chat_cannot_read_are_found() {
    // Its end tokens are the model's, so it is read with config.json.
    for text in [r#"{"do_sample": true, "temperature": -1.0}"#, "{"] {
        let model = copy_of("vicuna-tiny");
        std::fs::write(model.path().join("generation_config.json"), text).unwrap();
        let output = program().arg("inspect").arg(model.path()).output().unwrap();
        let problem = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && problem.contains("generation_config.json"), "{problem}");
    }
    for (file, text) in [
        ("clip-tower/preprocessor_config.json", r#"{"size": "large"}"#),
        ("tokenizer_config.json", r#"{"eos_token": 3}"#),
        ("tokenizer.json", r#"{"version": "1.0", "decoder": {"type": "Fuse", }}"#),
    ] {
        let model = copy_of("vicuna-tiny");
        std::fs::write(model.path().join(file), text).unwrap();
        let found = json(model.path(), &[]);
        assert_eq!(found["complete"], false, "{file}");
        let problem = found["problems"][0].as_str().unwrap().to_owned();
        assert!(problem.contains(file.rsplit('/').next().unwrap()), "{file}: {problem}");
    }
}

/// A PyTorch file has checksums, which are checked without being asked.
#[test]
fn a_changed_byte_in_a_pytorch_file_is_found() {
    let model = copy_of("vicuna-tiny");
    std::fs::remove_file(model.path().join("model.safetensors")).unwrap();
    let mut bytes = std::fs::read(fixture("models/vicuna-tiny/torch/pytorch_model.bin")).unwrap();
    let file = model.path().join("pytorch_model.bin");
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(json(model.path(), &[])["complete"], true);
    // Well inside the storages, which are most of the file.
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 64] {
        *byte ^= 0x55;
    }
    std::fs::write(&file, &bytes).unwrap();
    let found = json(model.path(), &[]);
    assert_eq!(found["complete"], false);
    let problem = found["problems"][0].as_str().unwrap();
    assert!(problem.contains("pytorch_model.bin"), "{problem}");
}
