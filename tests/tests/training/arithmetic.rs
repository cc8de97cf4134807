//! What steps compute: the same bits for the same seed, whatever the way.

use super::*;

#[test]
fn equal_seeds_give_equal_bits_and_others_do_not() {
    let _turn = turn();
    let runs = [7, 7, 8].map(|seed| {
        let dir = tempfile::tempdir().unwrap();
        run(&TrainConfig { seed, ..everything(config(Stage::Finetune, dir.path(), 4)) });
        saved(dir.path())
    });
    assert!(runs[0] == runs[1] && runs[0] != runs[2]);
}

#[test]
fn what_is_frozen_never_changes() {
    let _turn = turn();
    for component in Component::ALL {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(Stage::Finetune, dir.path(), 3);
        config.train = PerComponent::from_fn(|other| other != component);
        let mut session = open(&config).unwrap();
        let before = weights(session.trainer());
        session.run(&mut Quiet).unwrap();
        let after = weights(session.trainer());
        let prefix = match component {
            Component::VisionTower => "model.vision_tower.",
            Component::TextTower => "model.text_tower.",
            Component::FeatureGuide => "model.mm_cross_attn.",
            Component::DetailPerceiver => "model.mm_patch_encoder.",
            Component::Projector => "model.mm_projector.",
            Component::Llm => "model.layers.",
        };
        let changed = |inside: bool| {
            before
                .iter()
                .filter(|(key, old)| key.starts_with(prefix) == inside && after[*key] != **old)
                .count()
        };
        assert_eq!(changed(true), 0, "{component:?}");
        assert!(changed(false) > 20, "{component:?}: only {} others changed", changed(false));
    }
}

/// Dropout falls alike in both, so they may differ by rounding alone.
#[test]
fn recompute_equals_plain() {
    let _turn = turn();
    let [plain, recomputed] = [false, true].map(|recompute| {
        let dir = tempfile::tempdir().unwrap();
        let mut config = everything(config(Stage::Finetune, dir.path(), 3));
        config.run.gradient_checkpointing = recompute;
        config.run.loss_chunk = if recompute { 2 } else { 1024 };
        let mut session = open(&config).unwrap();
        session.run(&mut Quiet).unwrap();
        (losses(dir.path()), weights(session.trainer()))
    });
    for ((_, a), (_, b)) in plain.0.iter().zip(&recomputed.0) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    for (key, values) in &plain.1 {
        // Adam turns a gradient that is zero but for rounding into a step of the learning rate.
        let far = values.iter().zip(&recomputed.1[key]).filter(|(a, b)| (*a - *b).abs() > 1e-4).count();
        assert!(far * 50 <= values.len(), "{key}: {far} of {} values differ", values.len());
    }
}

/// Losses of three steps over four samples each, as one batch and as four.
fn one_batch_and_four(data: &Path, mean: LossMean) -> [Vec<(usize, f64)>; 2] {
    [(4, 1), (1, 4)].map(|(batch_size, accumulation)| {
        let out = tempfile::tempdir().unwrap();
        let mut config = everything(config(Stage::Finetune, out.path(), 3));
        config.data.path = vec![data.to_path_buf()];
        config.data.order = tg_llava_train::data::SampleOrder::Shuffled;
        config.model.dropout = Some(0.0);
        config.optim.loss_mean = mean;
        (config.run.batch_size, config.run.accumulation) = (batch_size, accumulation);
        run(&config);
        losses(out.path())
    })
}

fn farthest(losses: &[Vec<(usize, f64)>; 2]) -> f64 {
    losses[0].iter().zip(&losses[1]).map(|((_, a), (_, b))| (a - b).abs()).fold(0.0, f64::max)
}

/// With as many supervised tokens in each micro-batch, the mean of means is the mean.
#[test]
fn accumulation_equals_the_large_batch() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let data = data_file(dir.path(), |answer| ["yes", "no"].contains(&answer));
    let losses = one_batch_and_four(&data, LossMean::MicroBatches);
    assert!(farthest(&losses) < 2e-5, "{losses:?}");
}

/// Where answers differ in length, the mean over tokens alone is that of the large batch.
#[test]
fn the_mean_over_tokens_is_that_of_the_large_batch() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lengths.json");
    let text = std::fs::read_to_string(data_file(dir.path(), |_| true)).unwrap();
    let mut samples: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    for (at, sample) in samples.iter_mut().enumerate() {
        let answer = sample["conversations"][1]["value"].as_str().unwrap();
        sample["conversations"][1]["value"] = [answer].repeat(1 + 3 * (at % 3)).join(" ").into();
    }
    std::fs::write(&path, serde_json::to_string(&samples).unwrap()).unwrap();
    let by_tokens = one_batch_and_four(&path, LossMean::Tokens);
    assert!(farthest(&by_tokens) < 2e-5, "{by_tokens:?}");
    let by_batches = one_batch_and_four(&path, LossMean::MicroBatches);
    assert!(farthest(&by_batches) > 1e-3, "{by_batches:?}");
}

/// Half formats keep f32 weights and moments aside, and these are saved too.
#[test]
fn half_formats_follow_f32_and_resume_to_the_same_bits() {
    let _turn = turn();
    let [exact, bf16, f16] = [DType::F32, DType::BF16, DType::F16].map(|dtype| {
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = |dir: &Path| everything(config(Stage::Finetune, dir, 6));
        open_in(&config(whole.path()), dtype).unwrap().run(&mut Quiet).unwrap();
        open_in(&config(parts.path()), dtype).unwrap().run(&mut StopAfter(3)).unwrap();
        open_in(&config(parts.path()), dtype).unwrap().run(&mut Quiet).unwrap();
        assert_eq!(losses(whole.path()), losses(parts.path()), "{dtype:?}");
        assert!(saved(whole.path()) == saved(parts.path()), "{dtype:?}");
        losses(whole.path())
    });
    for (other, tolerance) in [(bf16, 2e-2), (f16, 4e-3)] {
        for ((_, a), (_, b)) in exact.iter().zip(&other) {
            assert!((a - b).abs() < tolerance * a, "{a} {b}");
        }
    }
}
