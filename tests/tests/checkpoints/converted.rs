//! Checkpoints written anew in other formats.

use burn::tensor::DType;
use tg_llava_core::quant::ggml::{GgmlType, dequantise, quantise};
use tg_llava_core::quant::{Activations, Scheme};
use tg_llava_core::weights::{
    Component, Encoding, ExistingModel, MergeOptions, Quantization, StoredDType, convert_checkpoint,
};

use super::*;

fn options(device: &Device) -> MergeOptions<'_> {
    MergeOptions {
        base: None,
        dtype: None,
        base_through: Encoding::Floats,
        device,
        max_shard_bytes: u64::MAX,
        existing: ExistingModel::Refuse,
    }
}

fn stored_values(source: &TensorSource, key: &str) -> Vec<f32> {
    let mut values = Vec::new();
    source.get(key).unwrap().read_values(|piece| values.extend_from_slice(piece)).unwrap();
    values
}

/// The library quantised the same decoders.
#[test]
fn bitsandbytes_formats_are_those_of_the_library() {
    let device = Device::flex();
    for (case, format, encoding) in [
        ("vicuna-tiny", "nf4", Encoding::Nf4),
        ("qwen2-tiny", "nf4", Encoding::Nf4),
        ("vicuna-tiny", "int8", Encoding::Int8),
        ("qwen2-tiny", "int8", Encoding::Int8),
    ] {
        let golden = fixture("quant").join(format!("bnb-{format}")).join(case);
        let out = tempfile::tempdir().unwrap();
        let from = fixture("models").join(case);
        let converted = convert_checkpoint(&from, out.path(), &options(&device), encoding).unwrap();
        assert_eq!(converted.quantised.len(), 14);
        let read = |dir: &Path| std::fs::read(dir.join("model.safetensors")).unwrap();
        let (ours, theirs) = (read(out.path()), read(&golden));
        let ours = safetensors::SafeTensors::deserialize(&ours).unwrap();
        let theirs = safetensors::SafeTensors::deserialize(&theirs).unwrap();
        for (name, theirs) in theirs.tensors() {
            let ours = ours.tensor(&name).unwrap();
            if name.contains("quant_state") {
                let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
                assert_eq!(json(ours.data()), json(theirs.data()), "{case} {name}");
            } else {
                assert!(
                    ours.shape() == theirs.shape() && ours.data() == theirs.data(),
                    "{case} {format} {name}"
                );
            }
        }
        let said = json_of(&out.path().join("config.json"))["quantization_config"].clone();
        assert_eq!(said["quant_method"], "bitsandbytes");
        assert_eq!(said["load_in_4bit"], format == "nf4");
    }
}

#[test]
fn blocks_in_a_checkpoint_are_those_of_its_floats() {
    let device = Device::flex();
    let from = fixture("models/vicuna-tiny");
    let floats = TensorSource::from_folder(&from).unwrap();
    for scheme in Scheme::ALL {
        let out = tempfile::tempdir().unwrap();
        // Several shards, so that a matrix and its state are apart.
        let options = MergeOptions { max_shard_bytes: 100_000, ..options(&device) };
        let converted = convert_checkpoint(&from, out.path(), &options, Encoding::Ggml(scheme)).unwrap();
        assert_eq!(converted.quantised.len(), 16, "both blocks, embedding and head");
        let source = TensorSource::from_folder(out.path()).unwrap();
        for (key, stored) in source.iter() {
            let before = stored_values_of(&floats, key);
            let StoredDType::Ggml(format) = stored.dtype else {
                if let Some(before) = before {
                    assert_eq!(stored_values(&source, key), before, "{key}");
                }
                continue;
            };
            let (before, width) = (before.unwrap(), stored.shape[1]);
            let mut after = vec![0.0; before.len()];
            let blocks = quantise(format, &before, width);
            assert_eq!(stored.bytes().unwrap(), blocks, "{key}");
            dequantise(format, &blocks, width, &mut after);
            assert_eq!(stored_values(&source, key), after, "{key}");
        }
        // In memory as in the file; what is 40 wide has no blocks of 256.
        let quantization = Quantization { activations: Activations::F32, ..Quantization::default() };
        let load = LoadOptions { quantization: Some(quantization), ..LoadOptions::default() };
        let loaded = load_model(out.path(), &device, &load, &mut |_| {}).unwrap();
        assert_eq!(loaded.report.quantised.len(), 16);
        if scheme == Scheme::Q4KM {
            assert!(converted.quantised.iter().all(|tensor| tensor.format == GgmlType::Q8_0.name()));
            assert_eq!(converted.quantised.iter().filter(|tensor| tensor.other().is_some()).count(), 14);
        }
    }
}

/// Values of floats; none of buffers and of keys that are not there.
fn stored_values_of(source: &TensorSource, key: &str) -> Option<Vec<f32>> {
    source.get(key).filter(|stored| stored.dtype != StoredDType::Other)?;
    Some(stored_values(source, key))
}

#[test]
fn a_gguf_file_becomes_a_folder_of_floats() {
    let device = Device::flex();
    let golden = fixture("quant/gguf/llama");
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(golden.join("config.json"), dir.path().join("config.json")).unwrap();
    let file = golden.join("decoder.gguf");
    let options = MergeOptions { base: Some(&file), dtype: Some(DType::F32), ..options(&device) };
    let out = tempfile::tempdir().unwrap();
    convert_checkpoint(dir.path(), out.path(), &options, Encoding::Floats).unwrap();
    let over = LoadOptions { base: Some(file.clone()), ..LoadOptions::default() };
    let expected = load_model(dir.path(), &device, &over, &mut |_| {}).unwrap().model;
    let found = load(out.path()).unwrap();
    assert_eq!(tg_llava_tests::weights(&found), tg_llava_tests::weights(&expected));
    let card = std::fs::read_to_string(out.path().join("README.md")).unwrap();
    assert!(card.contains("- decoder: `decoder.gguf`\n- all else is float32\n"), "{card}");
}

#[test]
fn a_quantised_checkpoint_keeps_towers_and_bridges_and_says_what_it_is() {
    let device = Device::flex();
    let from = fixture("models/qwen2-tiny");
    let out = tempfile::tempdir().unwrap();
    convert_checkpoint(&from, out.path(), &options(&device), Encoding::Nf4).unwrap();
    let (before, after) = (load(&from).unwrap(), load(out.path()).unwrap());
    let (before, after) = (tg_llava_tests::weights(&before), tg_llava_tests::weights(&after));
    for (key, values) in &before {
        let same = after[key] == *values;
        let matrix = Component::of_key(key) == Some(Component::Llm) && key.contains("_proj.weight");
        assert_eq!(same, !matrix, "{key}");
    }
    let config = json_of(&out.path().join("config.json"));
    let skipped = config["quantization_config"]["llm_int8_skip_modules"].as_array().unwrap();
    assert!(skipped.contains(&"vision_tower".into()) && skipped.contains(&"mm_projector".into()), "{config}");
    // From there to floats again: nothing says any more that it is quantised.
    let floats = tempfile::tempdir().unwrap();
    let options = MergeOptions { dtype: Some(DType::BF16), ..options(&device) };
    convert_checkpoint(out.path(), floats.path(), &options, Encoding::Floats).unwrap();
    let config = json_of(&floats.path().join("config.json"));
    assert_eq!((config.get("quantization_config"), &config["torch_dtype"]), (None, &"bfloat16".into()));
    let card = std::fs::read_to_string(floats.path().join("README.md")).unwrap();
    assert_eq!(card.matches("## Conversion").count(), 2, "{card}");
}

#[test]
fn a_result_never_takes_the_place_of_what_it_is_made_of() {
    let device = Device::flex();
    let from = fixture("models/vicuna-tiny");
    let error = convert_checkpoint(&from, &from, &options(&device), Encoding::Nf4).unwrap_err().to_string();
    assert!(error.contains("choose another folder"), "{error}");
    // Nor that of a tower, even where models may be replaced.
    let copy = tempfile::tempdir().unwrap();
    let (model, tower) = (copy.path().join("model"), copy.path().join("clip-tower"));
    for (from, to) in [(from.clone(), &model), (from.join("clip-tower"), &tower)] {
        std::fs::create_dir(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    let replace = MergeOptions { existing: ExistingModel::Replace, ..options(&device) };
    let error = convert_checkpoint(&model, &tower, &replace, Encoding::Nf4).unwrap_err().to_string();
    assert!(error.contains("what it is made of"), "{error}");
    // A failure leaves nothing that reads as a checkpoint.
    let out = tempfile::tempdir().unwrap();
    let base = fixture("quant/bnb-nf4/qwen2-tiny");
    let options = MergeOptions { base: Some(&base), ..options(&device) };
    convert_checkpoint(&from, out.path(), &options, Encoding::Int8).unwrap_err();
    assert!(names(out.path()).is_empty(), "{:?}", names(out.path()));
}

/// What a format gives back of values that are no numbers are numbers again, so that nothing would show later.
#[test]
fn values_that_are_not_finite_are_listed_those_too_large_for_the_format_among_them() {
    let device = Device::flex();
    let dir = tempfile::tempdir().unwrap();
    let from = fixture("models/vicuna-tiny/base-llm");
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let listed = |dtype, base_through| {
        let out = tempfile::tempdir().unwrap();
        let options = MergeOptions { dtype: Some(dtype), base_through, ..options(&device) };
        convert_checkpoint(dir.path(), out.path(), &options, Encoding::Floats).unwrap().not_finite
    };
    let (norm, matrix) = ("model.norm.weight", "model.layers.0.mlp.up_proj.weight");
    assert!(listed(DType::F16, Encoding::Floats).is_empty());
    change_first(dir.path(), norm, 1e6);
    assert_eq!(listed(DType::F16, Encoding::Floats), [norm]);
    assert!(listed(DType::BF16, Encoding::Floats).is_empty());
    change_first(dir.path(), matrix, f32::NAN);
    assert_eq!(listed(DType::F32, Encoding::Floats), [matrix]);
    assert_eq!(listed(DType::F32, Encoding::Nf4), [matrix]);
    assert_eq!(listed(DType::F16, Encoding::Int8), [matrix, norm]);
}

/// Puts `value` in the place of a tensor's first one.
fn change_first(dir: &Path, key: &str, value: f32) {
    let path = dir.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let said: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    assert_eq!(said[key]["dtype"], "F32");
    let at = header + said[key]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
}
