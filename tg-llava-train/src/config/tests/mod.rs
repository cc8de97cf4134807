//! Whole configurations: defaults, and there and back again.

mod text;
mod validity;

use std::{collections::BTreeSet, path::PathBuf};

use proptest::prelude::*;
use tg_llava_core::{
    config::{GuidePadding, Patterns, SelectFeature, TargetModules},
    conversation::GuideTurn,
    preprocess::{AspectRatio, DetailSource},
};
use toml::{Table, Value};

use super::*;
use crate::{
    data::{OnBadSample, SampleOrder},
    engine::LossMean,
    optim::DecayRule,
    schedule::ScheduleKind,
};

/// A run with a value for every key, none of them a default; of the two for the warm-up, the steps win.
fn full() -> TrainConfig {
    let lr_of = PerComponent::from_fn(|component| Some(1e-6 * (component as usize + 1) as f64));
    let files = BridgeFiles {
        projector: Some("a.bin".into()),
        feature_guide: Some("b.bin".into()),
        detail_perceiver: Some("c.bin".into()),
    };
    TrainConfig {
        stage: Stage::Finetune,
        seed: 7,
        output_dir: "out".into(),
        model: ModelOptions {
            path: "start".into(),
            vision_tower: Some("v".into()),
            text_tower: Some("t".into()),
            bridges: Some(Bridges::Files(files)),
            init: Init::Random,
            init_std: Some(0.08),
            projector_type: Some("mlp3x_gelu".into()),
            select_layer: Some(-3),
            select_feature: Some(SelectFeature::ClsPatch),
            guide_turn: Some(GuideTurn::Joined),
            guide_padding: Some(GuidePadding::Visible),
            detail_source: Some(DetailSource::Native),
            use_im_start_end: Some(true),
            dropout: Some(0.2),
            max_length: 512,
            template: Some("llama_3".into()),
            ..ModelOptions::default()
        },
        data: DataOptions {
            path: vec!["a.json".into(), "b.jsonl".into()],
            image_folder: Some("pictures".into()),
            allow_outside: true,
            aspect_ratio: AspectRatio::Square,
            order: SampleOrder::Length,
            on_bad_sample: OnBadSample::Skip,
            workers: 3,
            prefetch: 5,
            validation: Some(ValidationOptions {
                path: Some("held-out.json".into()),
                fraction: None,
                every: Steps::Count(50),
                samples: 100,
                generate: true,
                max_new_tokens: 8,
                batch_size: 2,
            }),
        },
        train: PerComponent::from_fn(|_| true),
        lora: Some(LoraOptions {
            rank: 4,
            alpha: Some(2.5),
            dropout: 0.1,
            target_modules: TargetModules::Pattern(".*q_proj".into()),
            rslora: true,
            rank_pattern: Patterns(vec![("v_proj".into(), 3)]),
            alpha_pattern: Patterns(vec![("k_proj".into(), 1.5)]),
            base: BaseFormat::Nf4,
            b_lr_ratio: 16.0,
        }),
        optim: OptimOptions {
            lr: 3e-4,
            weight_decay: 0.1,
            decay_rule: DecayRule::Reference,
            beta1: 0.8,
            beta2: 0.95,
            epsilon: 1e-6,
            max_grad_norm: 0.5,
            schedule: ScheduleKind::Linear,
            warmup_ratio: Some(0.0),
            warmup_steps: Some(10),
            loss_mean: LossMean::Tokens,
            on_nan: OnNan::Skip,
            loss_scale: LossScale::Fixed(1024.0),
            lr_of,
        },
        run: RunOptions {
            batch_size: 4,
            accumulation: 1,
            global_batch_size: Some(32),
            epochs: 2.5,
            max_steps: Some(99),
            gradient_checkpointing: true,
            loss_chunk: 64,
            save_steps: Steps::Count(20),
            save_total_limit: Some(3),
            log_every: 10,
            dtype: Some(RunDType::Bf16),
            max_shard_bytes: 1_000_000,
        },
    }
}

/// The least that a run must say.
fn least(stage: Stage) -> TrainConfig {
    let mut config = TrainConfig::new(stage);
    config.output_dir = "out".into();
    config.model.path = "start".into();
    config.data.path = vec!["data.json".into()];
    config
}

fn leaves(table: &Table, above: &str, found: &mut BTreeSet<String>) {
    for (name, value) in table {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        match value {
            // Those have patterns for keys.
            Value::Table(inner) if !name.ends_with("_pattern") => leaves(inner, &path, found),
            _ => assert!(found.insert(path)),
        }
    }
}

#[test]
fn the_list_of_keys_is_the_struct() {
    let mut config = full();
    config.data.validation.as_mut().unwrap().fraction = Some(0.1);
    let mut found = BTreeSet::new();
    leaves(&config.to_toml().unwrap().parse().unwrap(), "", &mut found);
    // It may be a value or a table.
    found.insert("model.bridges".into());
    assert_eq!(found, known_keys().map(str::to_owned).collect());
}

#[test]
fn defaults_by_stage() {
    let pretrain = TrainConfig::from_toml("stage = 'pretrain'", "run.toml").unwrap();
    assert_eq!(pretrain, TrainConfig::new(Stage::Pretrain));
    assert_eq!((pretrain.seed, pretrain.optim.lr), (42, 1e-3));
    assert_eq!(pretrain.data.order, SampleOrder::Shuffled);
    assert_eq!(pretrain.data.aspect_ratio, AspectRatio::Square);
    assert_eq!(pretrain.model.template.as_deref(), Some("plain"));
    assert_eq!((pretrain.optim.warmup_ratio, pretrain.optim.warmup_steps), (Some(0.03), None));
    let trains = |config: &TrainConfig| Component::ALL.map(|component| *config.train.get(component));
    assert_eq!(trains(&pretrain), [false, false, true, true, true, false]);

    let finetune = TrainConfig::from_toml("stage = 'finetune'", "run.toml").unwrap();
    assert_eq!(finetune, TrainConfig::new(Stage::Finetune));
    assert_eq!(finetune.optim.lr, 2e-5);
    assert_eq!(finetune.data.order, SampleOrder::ModalityLength);
    assert_eq!(finetune.data.aspect_ratio, AspectRatio::Pad);
    assert_eq!(finetune.model.template, None);
    assert_eq!(trains(&finetune), [false, false, true, true, true, true]);
    assert_eq!(finetune.run.save_steps, Steps::Share(0.5));
}

#[test]
fn what_is_given_wins_over_the_stage() {
    let text = "
        stage = 'finetune'
        [model]
        vision_tower = 'clip'
        detail_perceiver = false
        [train]
        llm = false
        [optim]
        lr = 1
        warmup_steps = 5
        lr_of = { projector = 0.5 }
    ";
    let config = TrainConfig::from_toml(text, "run.toml").unwrap();
    assert_eq!(config.model.text_tower.as_deref(), Some("clip"));
    assert!(config.train.feature_guide && !config.train.llm && !config.train.detail_perceiver);
    assert_eq!((config.optim.lr_of.projector, config.optim.lr), (Some(0.5), 1.0));
    assert_eq!((config.optim.warmup_ratio, config.optim.warmup_steps), (None, Some(5)));
    let none = TrainConfig::from_toml("stage = 'finetune'\noptim.warmup_steps = 0", "run.toml").unwrap();
    assert_eq!((none.optim.warmup_ratio, none.optim.warmup_steps), (None, Some(0)));
}

#[test]
fn a_table_for_adapters_turns_them_on() {
    let config = TrainConfig::from_toml("stage = 'finetune'\n[lora]", "run.toml").unwrap();
    assert_eq!((config.lora.clone(), config.optim.lr), (Some(LoraOptions::default()), 2e-4));
    let adapter = config.lora.unwrap().adapter(None);
    assert_eq!((adapter.rank, adapter.alpha), (128, 256.0));
    let text = "stage = 'finetune'\noptim.lr = 1e-3\n[lora]\nrank = 4\nrank_pattern = {v_proj = 2}\ntarget_modules = ['q_proj']";
    let config = TrainConfig::from_toml(text, "run.toml").unwrap();
    let lora = config.lora.unwrap();
    assert_eq!((lora.adapter(None).alpha, config.optim.lr), (8.0, 1e-3));
    assert_eq!(lora.rank_pattern, Patterns(vec![("v_proj".into(), 2)]));
    assert_eq!(TrainConfig::from_toml("stage = 'finetune'", "run.toml").unwrap().lora, None);
}

#[test]
fn a_whole_run_comes_back_from_toml() {
    let mut full = full();
    full.optim.warmup_ratio = None;
    for config in [full, least(Stage::Pretrain), least(Stage::Finetune)] {
        let text = config.to_toml().unwrap();
        assert_eq!(TrainConfig::from_toml(&text, "resolved.toml").unwrap(), config, "{text}");
    }
    let mut folder = least(Stage::Finetune);
    folder.model.bridges = Some(Bridges::Folder("stage1".into()));
    assert_eq!(TrainConfig::from_toml(&folder.to_toml().unwrap(), "").unwrap(), folder);
}

#[test]
fn the_example_runs_are_good() {
    for (name, stage) in [("pretrain", Stage::Pretrain), ("finetune", Stage::Finetune)] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/runs");
        let table = read_table(&PathBuf::from(folder).join(format!("{name}.toml"))).unwrap();
        let config = TrainConfig::from_table(table).unwrap();
        config.validate().unwrap();
        assert_eq!(config.stage, stage);
        // On one device as on eight.
        for ranks in [1, 4, 8] {
            let dealing = config.run.dealing(ranks);
            assert_eq!((dealing.batch_size * dealing.micro_batches, dealing.fill), (128, 128));
        }
        assert_eq!(config.optim.lr, TrainConfig::new(stage).optim.lr);
    }
}

fn option<T: Clone + std::fmt::Debug + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Option<T>> {
    prop::option::of(value)
}

fn steps() -> impl Strategy<Value = Steps> {
    prop_oneof![
        Just(Steps::Never),
        (1usize..1_000_000).prop_map(Steps::Count),
        (1e-9f64..0.999_999).prop_map(Steps::Share)
    ]
}

proptest! {
    #[test]
    fn any_values_come_back_from_toml(
        seed in 0u64..(1 << 63),
        (path, folder) in ("\\PC{0,20}", option("\\PC{0,20}")),
        (lr, ratio, scale) in (any::<f64>(), 0.0f64..1.0, option(1.0f64..1e30)),
        (save, every) in (steps(), steps()),
        (epochs, max_steps, order) in (any::<f64>(), option(0usize..1 << 60), 0..4usize),
    ) {
        prop_assume!(!lr.is_nan() && !epochs.is_nan());
        let mut config = least(Stage::Finetune);
        config.seed = seed;
        config.output_dir = path.into();
        config.data.image_folder = folder.map(PathBuf::from);
        config.optim.lr = lr;
        config.optim.warmup_ratio = Some(ratio);
        config.optim.loss_scale = scale.map_or(LossScale::Dynamic, LossScale::Fixed);
        (config.run.save_steps, config.run.epochs, config.run.max_steps) = (save, epochs, max_steps);
        config.data.order =
            [SampleOrder::Sequential, SampleOrder::Shuffled, SampleOrder::Length, SampleOrder::ModalityLength][order];
        config.data.validation = Some(ValidationOptions { every, ..ValidationOptions::default() });
        let text = config.to_toml().unwrap();
        prop_assert_eq!(TrainConfig::from_toml(&text, "run.toml").unwrap(), config);
    }
}
