//! What `chat` says about bad input: every message names what was wrong and what to do, and nothing panics.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::{chat, copy_of, fixture, outcome, photo, program, rewrite};

fn vicuna() -> std::path::PathBuf {
    fixture("models/vicuna-tiny")
}

/// Runs `chat` with a damaged model.
fn with_model(dir: &Path) -> String {
    outcome(chat(dir).arg("Hi"), &[(dir, "MODEL")])
}

fn assert_snapshot(name: &str, text: &str) {
    // Messages name the devices that this build has.
    let filters = vec![(r"this build has [a-z, ]+", "this build has [DEVICES]")];
    insta::with_settings!({ filters => filters }, { insta::assert_snapshot!(name, text) });
}

#[test]
fn folders_that_are_no_model() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = String::new();
    all += "=== no such folder\n";
    all += &outcome(chat(&dir.path().join("nowhere")).arg("Hi"), &[(dir.path(), "DIR")]);
    all += "=== an empty folder\n";
    all += &outcome(chat(dir.path()).arg("Hi"), &[(dir.path(), "DIR")]);
    let copy = copy_of("vicuna-tiny");
    all += "=== a folder too high\n";
    std::fs::create_dir(dir.path().join("above")).unwrap();
    std::fs::rename(copy.path().join("clip-tower"), dir.path().join("above/clip-tower")).unwrap();
    all += &outcome(chat(&dir.path().join("above")).arg("Hi"), &[(dir.path(), "DIR")]);
    all += "=== a tower\n";
    all += &outcome(chat(&dir.path().join("above/clip-tower")).arg("Hi"), &[(dir.path(), "DIR")]);
    all += "=== a file\n";
    all += &outcome(chat(&photo()).arg("Hi"), &[(&photo(), "photo.png")]);
    all += "=== its tower is gone\n";
    all += &with_model(copy.path());
    all += "=== no such base\n";
    all += &outcome(
        chat(&vicuna()).arg("--base").arg(dir.path().join("base")).arg("Hi"),
        &[(dir.path(), "DIR"), (&vicuna(), "MODEL")],
    );
    assert_snapshot("folders", &all);
}

#[test]
fn damaged_models() {
    let mut all = String::new();

    let model = copy_of("vicuna-tiny");
    std::fs::write(model.path().join("config.json"), "{\"model_type\": \"llama\", ").unwrap();
    all += &format!("=== config.json is cut\n{}", with_model(model.path()));

    let model = copy_of("vicuna-tiny");
    std::fs::remove_file(model.path().join("model.safetensors")).unwrap();
    all += &format!("=== no weights\n{}", with_model(model.path()));

    let model = copy_of("vicuna-tiny");
    std::fs::remove_file(model.path().join("tokenizer.json")).unwrap();
    std::fs::remove_file(model.path().join("tokenizer.model")).unwrap();
    all += &format!("=== no tokenizer\n{}", with_model(model.path()));

    let model = copy_of("vicuna-tiny");
    let weights = model.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() * 2 / 3]).unwrap();
    all += &format!("=== weights are cut\n{}", with_model(model.path()));

    let model = copy_of("vicuna-tiny");
    rewrite(&model.path().join("model.safetensors"), |tensors| {
        tensors.get_mut("model.norm.weight").unwrap().shape = vec![8, 5];
        let head = tensors.remove("lm_head.weight").unwrap();
        tensors.insert("lm_haed.weight".into(), head);
    });
    all += &format!("=== wrong shape, missing and unknown\n{}", with_model(model.path()));

    let model = copy_of("linear-tiny");
    std::fs::remove_file(model.path().join("model.safetensors")).unwrap();
    for entry in std::fs::read_dir(fixture("models/linear-tiny/sharded")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("model") {
            std::fs::copy(&path, model.path().join(name)).unwrap();
        }
    }
    std::fs::remove_file(model.path().join("model-00002-of-00004.safetensors")).unwrap();
    all += &format!("=== missing shard\n{}", with_model(model.path()));

    assert_snapshot("damaged_models", &all);
}

#[test]
fn nan_weights_are_a_warning_and_no_answer() {
    let model = copy_of("vicuna-tiny");
    rewrite(&model.path().join("model.safetensors"), |tensors| {
        let norm = tensors.get_mut("model.norm.weight").unwrap();
        norm.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        let guide = tensors.get_mut("model.mm_cross_attn.query_tokens").unwrap();
        guide.bytes[4..8].copy_from_slice(&f32::INFINITY.to_le_bytes());
    });
    let output = chat(model.path()).arg("Hi").output().unwrap();
    let messages = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{messages}");
    assert_snapshot("nan_weights", &messages);
}

#[test]
fn pictures_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let good = std::fs::read(photo()).unwrap();
    let mut bomb = good[..33].to_vec();
    bomb[16..20].copy_from_slice(&50_000u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&50_000u32.to_be_bytes());
    let sum = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&sum.to_be_bytes());
    bomb.extend(&good[33..]);
    for (name, bytes) in [
        ("text.png", &b"This is no picture."[..]),
        ("empty.png", b""),
        ("truncated.png", &good[..good.len() / 2]),
        ("bomb.png", &bomb),
    ] {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let mut all = String::new();
    for name in ["nowhere.png", ".", "text.png", "empty.png", "truncated.png", "bomb.png"] {
        let file = if name == "." { dir.path().to_path_buf() } else { dir.path().join(name) };
        let mut command = chat(&vicuna());
        command.arg("--image").arg(file).arg("Hi");
        all += &format!("=== {name}\n{}", outcome(&mut command, &[(dir.path(), "DIR")]));
    }
    all += "=== over the limits\n";
    for limit in [["--max-image-bytes", "100"], ["--max-image-pixels", "100"]] {
        let mut command = chat(&vicuna());
        command.arg("--image").arg(photo()).args(limit).arg("Hi");
        all += &outcome(&mut command, &[(&photo(), "photo.png")]);
    }
    all += "=== another kind of address\n";
    all += &outcome(chat(&vicuna()).args(["--image", "ftp://example.org/a.png", "Hi"]), &[]);
    all += "=== a decoder without a tower\n";
    let decoder = fixture("models/vicuna-tiny/base-llm");
    all += &outcome(chat(&decoder).arg("--image").arg(photo()).arg("Hi"), &[]);
    assert_snapshot("pictures", &all);
}

#[test]
fn questions_that_cannot_be_asked() {
    let mut all = String::new();
    all += "=== empty\n";
    all += &outcome(chat(&vicuna()).arg(" \n"), &[]);
    all += "=== longer than the context\n";
    all += &outcome(chat(&vicuna()).arg("much too long ".repeat(300)), &[]);
    all += "=== more marks than pictures\n";
    all += &outcome(chat(&vicuna()).arg("<image> What is this?"), &[]);
    assert_snapshot("questions", &all);
}

/// 200 words are far over the text tower's 77 tokens and still fit the decoder.
#[test]
fn a_question_over_77_tokens_is_cut_for_the_guide_alone() {
    let question = "a b ".repeat(50);
    chat(&vicuna()).arg("--image").arg(photo()).arg(question).assert().success();
}

#[test]
fn a_picture_one_pixel_high() {
    chat(&vicuna())
        .arg("--image")
        .arg(fixture("preprocess/images/strip_h1.png"))
        .arg("Hi")
        .assert()
        .success();
}

#[test]
fn flags_that_name_nothing() {
    let mut all = String::new();
    for arguments in [
        &["--template", "vicuna"][..],
        &["--device", "tpu"],
        &["--device", "cuda:first"],
        &["--dtype", "f64"],
        &["--guide-turn", "middle"],
        &["--temperature", "-1"],
        &["--top-p", "1.5"],
        &["--max-new-tokens", "0"],
    ] {
        let mut command = program();
        command.args(["chat", "Hi"]).args(arguments);
        all += &format!("=== {}\n{}", arguments.join(" "), outcome(&mut command, &[]));
    }
    assert_snapshot("flags", &all);
}

#[test]
fn devices_that_this_build_lacks() {
    for (name, built) in [
        ("flex", cfg!(feature = "flex")),
        ("ndarray", cfg!(feature = "ndarray")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("cuda", cfg!(feature = "cuda")),
    ] {
        if built {
            continue;
        }
        let text = outcome(program().args(["chat", "--device", name, "Hi"]), &[]);
        assert_snapshot(&format!("device_{name}"), &text);
    }
}

#[cfg(feature = "flex")]
#[test]
fn half_precision_on_a_cpu_is_nothing_to_warn_of() {
    for dtype in ["bf16", "f16"] {
        let text = outcome(chat(&vicuna()).args(["--dtype", dtype, "--json", "Hi"]), &[]);
        assert!(text.contains("exit code 0") && !text.contains("warning"), "{text}");
    }
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc: u32, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}
