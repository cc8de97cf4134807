//! What is saved is what is loaded.

use tg_llava_core::quant::{Activations, Scheme};
use tg_llava_core::weights::{Encoding, Quantization};

use super::*;

#[test]
fn what_is_saved_loads_bit_for_bit() {
    for case in CASES {
        let dir = fixture("models").join(case);
        let model = load(&dir).unwrap();
        let (once, twice) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let options = SaveOptions { template: Some(dir.clone()), ..SaveOptions::default() };
        save_model(&model, once.path(), &options).unwrap();
        let again = load(once.path()).unwrap();
        assert_eq!(again.config().llm, model.config().llm, "{case}");
        assert_eq!(again.config().multimodal, model.config().multimodal, "{case}");
        let sharded = SaveOptions { max_shard_bytes: 100_000, template: Some(once.path().to_path_buf()) };
        save_model(&again, twice.path(), &sharded).unwrap();
        assert!(twice.path().join("model.safetensors.index.json").is_file(), "{case}");
        let saved = contents(once.path());
        assert_eq!(saved, contents(twice.path()), "{case}");
        // All but the placeholders of BERT's unused parts are the original's values.
        let original = contents(&dir);
        assert!(original.keys().eq(saved.keys()), "{case}");
        for (key, value) in &original {
            if !tg_llava_core::weights::is_unused_key(key) {
                assert_eq!(value, &saved[key], "{case}: {key}");
            }
        }
    }
}

#[test]
fn half_precision_is_kept_and_converted() {
    let dir = fixture("models/qwen2-tiny");
    for dtype in [DType::F16, DType::BF16] {
        let options = LoadOptions { dtype, ..LoadOptions::default() };
        let half = load_model(&dir, &Device::flex(), &options, &mut |_| {}).unwrap().model;
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let save = SaveOptions { template: Some(dir.clone()), ..SaveOptions::default() };
        save_model(&half, first.path(), &save).unwrap();
        let stored = TensorSource::from_folder(first.path()).unwrap();
        let name = if dtype == DType::F16 { "F16" } else { "BF16" };
        assert_eq!(stored.get("lm_head.weight").unwrap().dtype_name, name);
        // Widened to f32 and narrowed again, nothing changes.
        let single = load(first.path()).unwrap();
        assert_eq!(single.llm.dtype(), DType::F32);
        save_model(&single, second.path(), &SaveOptions::default()).unwrap();
        let narrowed = load_model(second.path(), &Device::flex(), &options, &mut |_| {}).unwrap().model;
        let third = tempfile::tempdir().unwrap();
        save_model(&narrowed, third.path(), &SaveOptions::default()).unwrap();
        assert_eq!(contents(first.path()), contents(third.path()));
    }
}

/// Quantised tables take less, and are cut where that is still too much.
#[test]
fn a_quantised_vocabulary_in_pieces_changes_nothing() {
    for case in ["vicuna-tiny", "identity-tiny"] {
        let dir = fixture("models").join(case);
        let quantization =
            Quantization { encoding: Encoding::Ggml(Scheme::Q8_0), activations: Activations::F32 };
        let load = |largest_buffer| {
            let quantization = Some(quantization);
            let options = LoadOptions { largest_buffer, quantization, ..LoadOptions::default() };
            load_model(&dir, &Device::flex(), &options, &mut |_| {}).unwrap()
        };
        let (whole, cut) = (load(None), load(Some(3_000)));
        assert_eq!(whole.report, cut.report, "{case}");
        let (whole, cut) = (whole.model.llm, cut.model.llm);
        assert!(cut.embed_tokens_more.len() >= 2, "{case}");
        assert!(cut.matrices().all(|(_, matrix)| matrix.quantised().is_some()), "{case}");

        let vocab_size = whole.embed_tokens.shape()[0] as i64;
        let ids: Vec<i64> = (0..vocab_size).rev().collect();
        let (a, b) = (whole.embed(&ids), cut.embed(&ids));
        assert_eq!(a.to_data(), b.to_data(), "{case}");
        let hidden = a.narrow(0, 0, 3);
        assert_eq!(whole.logits(hidden.clone()).into_data(), cut.logits(hidden).into_data(), "{case}");
    }
}

/// A device whose buffers hold but a part of embedding and head gives the same numbers, and saves the same files.
#[test]
fn a_vocabulary_in_pieces_changes_nothing() {
    for (case, tied) in [("vicuna-tiny", false), ("qwen2-tiny", false), ("identity-tiny", true)] {
        let dir = fixture("models").join(case);
        let load = |largest_buffer| {
            let options = LoadOptions { largest_buffer, ..LoadOptions::default() };
            load_model(&dir, &Device::flex(), &options, &mut |_| {}).unwrap()
        };
        let (whole, cut) = (load(None), load(Some(10_000)));
        assert_eq!(whole.report, cut.report, "{case}");
        let (whole, cut) = (whole.model, cut.model);
        let pieces = cut.llm.embed_tokens_more.len();
        assert!(pieces >= 2 && cut.llm.lm_head_more.len() == if tied { 0 } else { pieces }, "{case}");
        for table in std::iter::once(&cut.llm.embed_tokens).chain(&cut.llm.embed_tokens_more) {
            assert!(table.shape().iter().product::<usize>() * 4 <= 10_000, "{case}");
        }

        let vocab_size = whole.config().llm.vocab_size as i64;
        let ids: Vec<i64> = (0..vocab_size).rev().chain([3, vocab_size - 1, 3]).collect();
        let (a, b) = (whole.llm.embed(&ids), cut.llm.embed(&ids));
        assert_eq!(a.to_data(), b.to_data(), "{case}");
        assert_eq!(cut.llm.embed(&[]).dims()[0], 0, "{case}");
        for rows in [1, 9] {
            let hidden = a.clone().narrow(0, 0, rows);
            let (a, b) = (whole.llm.logits(hidden.clone()), cut.llm.logits(hidden));
            assert_eq!(a.dims(), b.dims());
            a.into_data().assert_approx_eq::<f32>(&b.into_data(), Tolerance::rel_abs(1e-6, 1e-6));
        }

        let tensors = |model| -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
            let all = reference_tensors(model).into_iter();
            all.map(|(key, t)| (key, (t.shape().to_vec(), t.values().unwrap()))).collect()
        };
        assert_eq!(tensors(&whole), tensors(&cut), "{case}");
        let saved = tempfile::tempdir().unwrap();
        save_model(
            &cut,
            saved.path(),
            &SaveOptions { template: Some(dir.clone()), ..SaveOptions::default() },
        )
        .unwrap();
        let saved = contents(saved.path());
        for (key, value) in contents(&dir) {
            if !tg_llava_core::weights::is_unused_key(&key) {
                assert_eq!(value, saved[&key], "{case}: {key}");
            }
        }
    }
}

/// Names and shapes of the trainable parts at full size are the reference's, every one of them.
#[test]
fn keys_at_full_size_are_the_references() {
    let text = std::fs::read_to_string(fixture("full_size_manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let presets =
        [("vicuna-7b / llama-3-8b", "vicuna-7b"), ("vicuna-13b", "vicuna-13b"), ("qwen2-7b", "qwen2-7b")];
    for (entry, preset) in presets {
        let llm = llm_preset(preset).unwrap();
        let (vision, text) = tower_preset("clip-l-336").unwrap();
        let config = ModelConfig {
            multimodal: Some(multimodal(vision, text, "clip", llm.hidden_size)),
            llm,
            conversation: None,
            max_length: 2048,
            padding_side: PaddingSide::Right,
        };
        // Lazy: no memory is taken for the weights.
        let model = config.init(&Device::flex()).unwrap();
        let ours: BTreeMap<String, Vec<usize>> = reference_tensors(&model)
            .into_iter()
            .filter(|(key, _)| key.starts_with("model.mm_"))
            .map(|(key, tensor)| (key, tensor.shape().to_vec()))
            .collect();
        let golden: BTreeMap<String, Vec<usize>> =
            serde_json::from_value(manifest["models"][entry]["tensors"].clone()).unwrap();
        assert_eq!(ours, golden, "{preset}");
    }
}

/// Without text tower, guide and detail perceiver there is plain LLaVA; each may also be left out alone.
#[test]
fn ablations_save_and_load() {
    for (guide, detail) in [(true, false), (false, true), (false, false)] {
        let mut config = tiny(50);
        let mm = config.multimodal.as_mut().unwrap();
        mm.guide = mm.guide.take().filter(|_| guide);
        mm.detail = mm.detail.take().filter(|_| detail);
        if !guide && !detail {
            mm.text = None;
        }
        let dir = tempfile::tempdir().unwrap();
        save_model(&config.init(&Device::flex()).unwrap(), dir.path(), &SaveOptions::default()).unwrap();
        let loaded = load(dir.path()).unwrap();
        assert_eq!(loaded.feature_guide.is_some(), guide);
        assert_eq!(loaded.detail_perceiver.is_some(), detail);
        assert_eq!(loaded.config().multimodal, config.multimodal);
    }
}
