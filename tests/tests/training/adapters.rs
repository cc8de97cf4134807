//! Trainings of adapters over a decoder that stays as it is.

use tg_llava_core::assistant::{Assistant, AssistantOptions};
use tg_llava_core::config::{Patterns, TargetModules};
use tg_llava_core::llm::DecoderLayer;
use tg_llava_core::quant::QuantMatrix;
use tg_llava_core::weights::{
    Adapter, Component as Part, Encoding, ExistingModel, LoadOptions, MergeOptions, NewTensor, SaveOptions,
    TensorSource, convert_checkpoint, load_model, merge_adapter, reference_tensors, save_adapter,
};
use tg_llava_train::config::{BaseFormat, LoraOptions};
use tg_llava_train::start::StartError;

use super::*;

/// A run of `steps` steps over two samples each.
fn adapter(base: &Path, output_dir: &Path, steps: usize) -> TrainConfig {
    let mut config = tg_llava_tests::adapter_config(base, output_dir);
    config.run.batch_size = 2;
    config.run.max_steps = Some(steps);
    config
}

fn base() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    tg_llava_tests::save_base(dir.path());
    dir
}

fn loaded(dir: &Path, base: Option<&Path>) -> BTreeMap<String, Vec<f32>> {
    let options = LoadOptions { base: base.map(Path::to_path_buf), ..LoadOptions::default() };
    tg_llava_tests::weights(&load_model(dir, &Device::flex(), &options, &mut |_| {}).unwrap().model)
}

#[test]
fn an_adapter_stopped_after_any_step_resumes_to_the_same_bits() {
    let _turn = turn();
    let base = base();
    for (dtype, recompute) in [(DType::F32, false), (DType::F32, true), (DType::BF16, false)] {
        let whole = tempfile::tempdir().unwrap();
        let config = |dir: &Path| {
            let mut config = adapter(base.path(), dir, 4);
            config.run.gradient_checkpointing = recompute;
            config
        };
        open_in(&config(whole.path()), dtype).unwrap().run(&mut Quiet).unwrap();
        assert!(saved(whole.path()).contains_key("non_lora_trainables.bin"));
        for stop in [1, 3] {
            let parts = tempfile::tempdir().unwrap();
            let config = config(parts.path());
            open_in(&config, dtype).unwrap().run(&mut StopAfter(stop)).unwrap();
            let checkpoint = parts.path().join(format!("checkpoint-{stop}"));
            for file in
                ["adapter_config.json", "adapter_model.safetensors", "non_lora_trainables.bin", "config.json"]
            {
                assert!(checkpoint.join(file).is_file(), "{file}");
            }
            open_in(&config, dtype).unwrap().run(&mut Quiet).unwrap();
            assert_eq!(losses(parts.path()), losses(whole.path()), "{dtype:?}, stopped after {stop}");
            assert!(saved(parts.path()) == saved(whole.path()), "{dtype:?}, stopped after {stop}");
        }
    }
}

#[test]
fn the_adapter_and_the_bridges_learn_and_nothing_else() {
    let _turn = turn();
    let (base, dir) = (base(), tempfile::tempdir().unwrap());
    let mut session = open(&adapter(base.path(), dir.path(), 3)).unwrap();
    let before = weights(session.trainer());
    session.run(&mut Quiet).unwrap();
    let after = weights(session.trainer());
    for (key, old) in &before {
        let learns = key.contains("lora_") || key.contains(".mm_");
        let unused = tg_llava_core::weights::is_unused_key(key);
        assert!(learns || after[key] == *old, "{key} changed");
        // The second matrices begin at zero, so that the first step leaves the first ones alone.
        if key.contains("lora_B") || (key.contains("mm_projector") && !unused) {
            assert!(after[key] != *old, "{key} did not learn");
        }
    }
    let table = session.trainer().table();
    let (all, learn) = table.counts(Component::Llm);
    assert!(0 < learn && learn < all);
}

/// Dropout falls alike in both, so they may differ by rounding alone.
#[test]
fn an_adapter_learns_alike_with_recompute() {
    let _turn = turn();
    let base = base();
    let [plain, recomputed] = [false, true].map(|recompute| {
        let dir = tempfile::tempdir().unwrap();
        let mut config = adapter(base.path(), dir.path(), 3);
        config.run.gradient_checkpointing = recompute;
        run(&config);
        losses(dir.path())
    });
    for ((_, a), (_, b)) in plain.iter().zip(&recomputed) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn what_is_left_loads_over_its_base_and_merges_to_the_same() {
    let _turn = turn();
    let (base, dir, out) = (base(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(&adapter(base.path(), dir.path(), 3));
    // The base is named in the folder.
    let merged = loaded(dir.path(), None);
    assert!(merged == loaded(dir.path(), Some(base.path())));
    let moved = merged.iter().filter(|(key, _)| key.starts_with("model.layers."));
    let from = loaded(base.path(), None);
    assert!(moved.clone().any(|(key, values)| *values != from[key]));
    let device = Device::flex();
    let options = MergeOptions { max_shard_bytes: 100_000, ..merge_options(&device, Encoding::Floats) };
    let target = out.path().join("merged");
    let converted = merge_adapter(dir.path(), &target, &options).unwrap();
    assert_eq!((converted.merged, converted.not_finite.len()), (7 * 2, 0));
    assert!(!Adapter::is_in(&target) && target.join("tokenizer.json").is_file());
    assert!(loaded(&target, None) == merged);
    // Nothing reads the base any more.
    drop(base);
    assert!(loaded(&target, None) == merged);
    let error = merge_adapter(&target, out.path(), &options).unwrap_err().to_string();
    assert!(error.contains("holds no adapter"), "{error}");
}

#[test]
fn a_folder_without_its_bridges_or_its_base_is_told() {
    let _turn = turn();
    let (base, dir) = (base(), tempfile::tempdir().unwrap());
    run(&adapter(base.path(), dir.path(), 2));
    let load = |base: &Path| {
        let options = LoadOptions { base: Some(base.to_path_buf()), ..LoadOptions::default() };
        load_model(dir.path(), &Device::flex(), &options, &mut |_| {})
            .map(|loaded| reference_tensors(&loaded.model).len())
    };
    std::fs::remove_file(dir.path().join("non_lora_trainables.bin")).unwrap();
    // The base has bridges of its own.
    assert!(load(base.path()).is_ok());
    let bare = tempfile::tempdir().unwrap();
    copy_folder(base.path(), bare.path());
    let file = bare.path().join("model.safetensors");
    let source = TensorSource::from_file(&file).unwrap();
    let kept = source.iter().filter(|(key, _)| !key.contains(".mm_")).map(|(key, stored)| {
        let bytes = stored.bytes().unwrap();
        let read = move || Ok::<_, std::convert::Infallible>(bytes);
        NewTensor::new(key, tg_llava_train::checkpoint::Dtype::F32, stored.shape.clone(), read)
    });
    let small = dir.path().join("small.safetensors");
    tg_llava_core::weights::write_safetensors(&small, None, kept.collect::<Vec<_>>()).unwrap();
    std::fs::rename(&small, &file).unwrap();
    let error = load(bare.path()).unwrap_err().to_string();
    for part in ["projector", "feature guide", "detail perceiver", "non_lora_trainables.bin"] {
        assert!(error.contains(part), "{error}");
    }
    drop(base);
    let options = LoadOptions::default();
    let error = load_model(dir.path(), &Device::flex(), &options, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("holds an adapter only") && error.contains("--base"), "{error}");
}

#[test]
fn an_adapter_of_other_sizes_or_over_another_one_is_refused() {
    let _turn = turn();
    let (base, dir) = (base(), tempfile::tempdir().unwrap());
    let config = adapter(base.path(), dir.path(), 1);
    run(&config);
    let change = |from: &str, to: &str| {
        let file = dir.path().join("adapter_config.json");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
        let error = load_model(dir.path(), &Device::flex(), &LoadOptions::default(), &mut |_| {});
        std::fs::write(&file, text).unwrap();
        error.unwrap_err().to_string()
    };
    let error = change("\"r\": 4", "\"r\": 3");
    assert!(error.contains("lora_A") && error.contains("rank 3"), "{error}");
    let error = change("\"q_proj\"", "\"no_proj\"");
    assert!(error.contains("q_proj.lora_A.weight") && error.contains("unknown"), "{error}");
    let error = change("\"use_dora\": false", "\"use_dora\": true");
    assert!(error.contains("use_dora"), "{error}");
    let again = tempfile::tempdir().unwrap();
    let over = adapter(dir.path(), again.path(), 1);
    assert!(matches!(ModelSetup::new(&over), Err(StartError::AdapterOverAdapter { .. })));
    // Without an adapter of its own, a run goes on over the merged weights.
    run(&TrainConfig { lora: None, ..over });
}

#[test]
fn a_checkpoint_of_another_adapter_is_not_resumed() {
    let _turn = turn();
    let (base, dir) = (base(), tempfile::tempdir().unwrap());
    let config = adapter(base.path(), dir.path(), 3);
    open(&config).unwrap().run(&mut StopAfter(1)).unwrap();
    let mut other = config.clone();
    other.lora.as_mut().unwrap().rank = 8;
    let error = open(&other).err().unwrap().to_string();
    assert!(error.contains("adapter") && error.contains("rank = 8"), "{error}");
    let error = open(&TrainConfig { lora: None, ..config }).err().unwrap().to_string();
    assert!(error.contains("adapter"), "{error}");
}

/// PEFT passes over such names; here they were typed.
#[test]
fn a_name_or_a_pattern_that_fits_no_layer_is_an_error() {
    let (base, dir) = (base(), tempfile::tempdir().unwrap());
    let wrong = |change: &dyn Fn(&mut LoraOptions)| {
        let mut config = adapter(base.path(), dir.path(), 1);
        change(config.lora.as_mut().unwrap());
        config.validate().unwrap();
        ModelSetup::new(&config).unwrap_err().to_string()
    };
    let names = |names: &[&str]| TargetModules::Names(names.iter().map(|name| (*name).to_owned()).collect());
    let error = wrong(&|lora| lora.target_modules = names(&["q_proj", "v_porj"]));
    for part in ["`lora`", "target_modules", "[\"v_porj\"]", "v_proj, o_proj"] {
        assert!(error.contains(part), "{error}");
    }
    // The decoder has blocks 0 and 1.
    let error = wrong(&|lora| lora.rank_pattern = Patterns(vec![("layers.2.mlp.up_proj".into(), 2)]));
    assert!(error.contains("rank_pattern") && error.contains("layers.2.mlp.up_proj"), "{error}");
    let error = wrong(&|lora| {
        lora.target_modules = names(&["q_proj"]);
        lora.alpha_pattern = Patterns(vec![("k_proj".into(), 2.0)]);
    });
    assert!(error.contains("alpha_pattern") && error.contains("adapters lie over q_proj"), "{error}");
}

fn over_fewer_bits(base: &Path, format: BaseFormat, dir: &Path) -> TrainConfig {
    let mut config = adapter(base, dir, 4);
    config.lora.as_mut().unwrap().base = format;
    config.run.gradient_checkpointing = true;
    config
}

const FEWER_BITS: [BaseFormat; 2] = [BaseFormat::Nf4, BaseFormat::Int8];

fn merge_options(device: &Device, base_through: Encoding) -> MergeOptions<'_> {
    MergeOptions {
        base: None,
        dtype: None,
        base_through,
        device,
        max_shard_bytes: 1 << 30,
        existing: ExistingModel::Refuse,
    }
}

/// Matrices that do not learn take no place among the parameters.
#[test]
fn an_adapter_over_fewer_bits_resumes_to_the_same_bits_and_learns() {
    let _turn = turn();
    let base = base();
    for format in FEWER_BITS {
        let config = |dir: &Path| over_fewer_bits(base.path(), format, dir);
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut session = open(&config(whole.path())).unwrap();
        let layers = session.trainer().model().llm.layers.iter();
        let quantised =
            layers.flat_map(DecoderLayer::linears).filter_map(|(_, linear)| linear.weight.quantised());
        let formats: Vec<&str> = quantised.map(QuantMatrix::format_name).collect();
        assert_eq!(formats, [format.encoding().name(); 7 * 2]);
        assert!(session.trainer().table().get("llm.layers.0.mlp.up_proj.weight").is_none());
        session.run(&mut Quiet).unwrap();
        open(&config(parts.path())).unwrap().run(&mut StopAfter(2)).unwrap();
        run(&config(parts.path()));
        assert_eq!(losses(parts.path()), losses(whole.path()));
        assert!(saved(parts.path()) == saved(whole.path()));
        // Over floats it would have learned other values.
        let floats = tempfile::tempdir().unwrap();
        run(&over_fewer_bits(base.path(), BaseFormat::Float, floats.path()));
        assert_ne!(losses(floats.path()), losses(whole.path()));
        // Merged into floats, as they are and as fewer bits give them back.
        let device = Device::flex();
        let merged = [Encoding::Floats, format.encoding()].map(|base_through| {
            let out = tempfile::tempdir().unwrap();
            merge_adapter(whole.path(), out.path(), &merge_options(&device, base_through)).unwrap();
            loaded(out.path(), None)
        });
        assert!(merged[0] == loaded(whole.path(), None));
        let key = "model.layers.0.mlp.up_proj.weight";
        assert_ne!(merged[0][key], merged[1][key]);
        assert_eq!(merged[0]["model.embed_tokens.weight"], merged[1]["model.embed_tokens.weight"]);
    }
}

/// A product with floats of a piece of a matrix adds in another order than one with the matrix as training lays it out.
#[test]
fn a_run_over_fewer_bits_is_the_run_over_what_they_give_back() {
    let _turn = turn();
    let (base, device) = (base(), Device::flex());
    for format in FEWER_BITS {
        let [bits, floats] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let options = merge_options(&device, Encoding::Floats);
        convert_checkpoint(base.path(), bits.path(), &options, format.encoding()).unwrap();
        convert_checkpoint(bits.path(), floats.path(), &options, Encoding::Floats).unwrap();
        let runs = [(base.path(), format), (bits.path(), format), (floats.path(), BaseFormat::Float)];
        let [quantised, as_stored, over_floats] = runs.map(|(start, held)| {
            let dir = tempfile::tempdir().unwrap();
            run(&over_fewer_bits(start, held, dir.path()));
            (losses(dir.path()), saved(dir.path()))
        });
        assert!(quantised == as_stored, "{format:?}");
        for ((_, a), (_, b)) in quantised.0.iter().zip(&over_floats.0) {
            assert!((a - b).abs() < 1e-5, "{format:?}: {a} {b}");
        }
    }
}

/// Towers may lie in the folder of what the start lies over, as well.
#[test]
fn a_changed_tokenizer_of_a_tower_in_the_bases_folder_is_noticed() {
    let _turn = turn();
    let (base, start, dir) = (base(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(&adapter(base.path(), start.path(), 1));
    std::fs::remove_dir_all(start.path().join("clip-tower")).unwrap();
    let config = TrainConfig { lora: None, ..adapter(start.path(), dir.path(), 3) };
    open(&config).unwrap().run(&mut StopAfter(1)).unwrap();
    let file = base.path().join("clip-tower/tokenizer_config.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n")).unwrap();
    let error = open(&config).err().unwrap().to_string();
    assert!(error.contains("tokenizer_config.json of the text tower"), "{error}");
    std::fs::write(&file, text).unwrap();
    run(&config);
}

/// A run may train a tower beside the adapter.
#[test]
fn an_adapter_over_a_shared_decoder_has_the_tower_of_its_own_folder() {
    let _turn = turn();
    let (base, dir, out) = (base(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut session = open(&adapter(base.path(), dir.path(), 1)).unwrap();
    session.run(&mut Quiet).unwrap();
    let lora = Adapter::open(dir.path()).unwrap().config;
    let mut model = session.trainer().model().clone();
    let gamma = &mut model.llm.norm.gamma;
    *gamma = gamma.clone().map(|gamma| gamma * 2.0);
    model.vision_tower = {
        let mut other = tg_llava_tests::config(Stage::Finetune, dir.path());
        other.seed = 8;
        let setup = ModelSetup::new(&other).unwrap();
        let load = tg_llava_train::start::load_weights;
        load(&other, &setup, None, &Device::flex(), DType::F32, &mut |_| {}).unwrap().model.vision_tower
    };
    let options = AssistantOptions::default();
    let assistant = Assistant::load(base.path(), &Device::flex(), &options, &mut |_| {}).unwrap();
    let served = |whole: &[Part]| {
        let save = SaveOptions { template: Some(base.path().to_path_buf()), ..SaveOptions::default() };
        save_adapter(&model, (&lora, base.path()), whole, out.path(), &save).unwrap();
        assistant.with_adapter(out.path(), (base.path(), &options), &mut |_| {})
    };
    let bridges = Part::BRIDGES.to_vec();
    let tower = |weights: BTreeMap<String, Vec<f32>>| -> BTreeMap<String, Vec<f32>> {
        weights.into_iter().filter(|(key, _)| Part::of_key(key) == Some(Part::VisionTower)).collect()
    };
    let shared = served(&bridges).unwrap();
    assert!(shared.report.initialised.is_empty(), "{:?}", shared.report.initialised);
    assert!(tower(tg_llava_tests::weights(&shared.model)) == tower(loaded(base.path(), None)));
    let own = served(&[&bridges[..], &[Part::VisionTower]].concat()).unwrap();
    let alone = tower(loaded(out.path(), Some(base.path())));
    assert!(alone != tower(loaded(base.path(), None)));
    assert!(tower(tg_llava_tests::weights(&own.model)) == alone);
    let error = served(&[&bridges[..], &[Part::Llm]].concat()).unwrap_err().to_string();
    assert!(error.contains("decoder itself") && error.contains("model.norm.weight"), "{error}");
}

#[test]
fn an_adapter_over_a_base_whose_towers_lie_apart_loads() {
    let _turn = turn();
    let (base, dir) = (base(), tempfile::tempdir().unwrap());
    let file = base.path().join("model.safetensors");
    let source = TensorSource::from_file(&file).unwrap();
    let write = |to: &Path, towers: bool| {
        // Positions are integers, which nothing reads.
        let kept = source.iter().filter(|(key, _)| !key.ends_with("position_ids"));
        let kept = kept.filter(|(key, _)| key.contains("_tower.") == towers);
        let kept = kept.map(|(key, stored)| {
            let bytes = stored.bytes().unwrap();
            let read = move || Ok::<_, std::convert::Infallible>(bytes);
            NewTensor::new(key, tg_llava_train::checkpoint::Dtype::F32, stored.shape.clone(), read)
        });
        tg_llava_core::weights::write_safetensors(to, None, kept.collect::<Vec<_>>()).unwrap();
    };
    write(&base.path().join("clip-tower/model.safetensors"), true);
    let small = dir.path().join("small.safetensors");
    write(&small, false);
    std::fs::rename(&small, &file).unwrap();
    run(&adapter(base.path(), dir.path(), 1));
    assert!(dir.path().join("clip-tower/config.json").is_file());
    let (over, from) = (loaded(dir.path(), None), loaded(base.path(), None));
    for (key, values) in over.iter().filter(|(key, _)| key.contains("_tower.")) {
        assert!(from[key] == *values, "{key}");
    }
}
