//! What is checked once a run is put together.

use std::path::PathBuf;

use tg_llava_core::config::TargetModules;

use super::{full, least};
use crate::config::*;

#[test]
fn a_least_run_and_a_full_run_are_valid() {
    let mut full = full();
    // Adapters lie over weights that are there.
    full.model.init = Init::Checkpoint;
    for config in [least(Stage::Pretrain), least(Stage::Finetune), full] {
        config.validate().unwrap();
    }
}

#[test]
fn every_fault_is_named() {
    let check = |key: &str, message: &str, spoil: &dyn Fn(&mut TrainConfig)| {
        let mut config = least(Stage::Pretrain);
        config.data.validation =
            Some(ValidationOptions { fraction: Some(0.1), ..ValidationOptions::default() });
        config.validate().unwrap();
        spoil(&mut config);
        let found = config.validate().unwrap_err().to_string();
        assert!(found.starts_with(&format!("`{key}`")) && found.contains(message), "{key}: {found}");
    };
    let empty = PathBuf::new;
    check("output_dir", "is not set: the folder for checkpoints", &|c| c.output_dir = empty());
    check("seed", "at most 2^63 - 1", &|c| c.seed = u64::MAX);
    check("model.path", "is not set: the folder of the decoder", &|c| c.model.path = empty());
    check("model.vision_tower", "empty", &|c| c.model.vision_tower = Some(String::new()));
    check("model.text_tower", "empty", &|c| c.model.text_tower = Some(String::new()));
    check("model.template", "no", &|c| c.model.template = Some("plian".into()));
    check("model.projector_type", "mlpNx_gelu", &|c| c.model.projector_type = Some("mlp0x_gelu".into()));
    check("model.dropout", "1; expected a number in [0, 1)", &|c| c.model.dropout = Some(1.0));
    check("model.max_length", "0; expected a number from 1 to", &|c| c.model.max_length = 0);
    check("model.bridges", "empty table", &|c| {
        c.model.bridges = Some(Bridges::Files(BridgeFiles::default()));
    });
    check("model.bridges.feature_guide", "leaves it out", &|c| {
        let file = BridgeFiles { feature_guide: Some("a".into()), ..BridgeFiles::default() };
        c.model.bridges = Some(Bridges::Files(file));
        c.model.feature_guide = false;
    });
    check("lora", "set train.llm = true", &|c| c.lora = Some(LoraOptions::default()));
    let lora = |c: &mut TrainConfig, spoil: fn(&mut LoraOptions)| {
        c.train.llm = true;
        spoil(c.lora.insert(LoraOptions::default()));
    };
    check("lora", "r = 0", &|c| lora(c, |lora| lora.rank = 0));
    check("lora", "target_modules: no regular expression", &|c| {
        lora(c, |lora| lora.target_modules = TargetModules::Pattern("(".into()));
    });
    check("lora.b_lr_ratio", "0; expected", &|c| lora(c, |lora| lora.b_lr_ratio = 0.0));
    check("lora.base", "nf4, but the backward pass", &|c| lora(c, |lora| lora.base = BaseFormat::Nf4));
    check("lora.base", "set run.gradient_checkpointing = true", &|c| {
        lora(c, |lora| lora.base = BaseFormat::Int8);
    });
    check("lora", "random weights", &|c| {
        lora(c, |_| {});
        c.model.init = Init::Random;
    });
    check("data.path", "is not set: the LLaVA file", &|c| c.data.path.clear());
    check("data.path", "is not set: the LLaVA file", &|c| c.data.path = vec![empty()]);
    check("data.workers", "from 1 to", &|c| c.data.workers = 0);
    check("data.prefetch", "from 1 to", &|c| c.data.prefetch = 0);
    // More than any machine has, or than can be counted with.
    check("data.workers", "from 1 to 1024", &|c| c.data.workers = 1_000_000);
    check("run.accumulation", "from 1 to 65536", &|c| c.run.accumulation = usize::MAX);
    check("run.epochs", "(0, 1000000]", &|c| c.run.epochs = 1e300);
    let validation = |c: &mut TrainConfig, spoil: fn(&mut ValidationOptions)| {
        spoil(c.data.validation.as_mut().unwrap());
    };
    check("data.validation", "keep one of them", &|c| validation(c, |v| v.path = Some("a".into())));
    check("data.validation", "needs `path`", &|c| validation(c, |v| v.fraction = None));
    for share in [0.0, 1.0, -0.5, f64::NAN] {
        check("data.validation.fraction", "expected a number in (0, 1)", &|c| {
            c.data.validation.as_mut().unwrap().fraction = Some(share);
        });
    }
    check("data.validation.every", "(0, 1)", &|c| validation(c, |v| v.every = Steps::Share(1.0)));
    check("data.validation.max_new_tokens", "from 1 to", &|c| validation(c, |v| v.max_new_tokens = 0));
    check("data.validation.batch_size", "from 1 to", &|c| validation(c, |v| v.batch_size = 0));
    check("train.feature_guide", "true, but model.feature_guide = false", &|c| {
        (c.model.feature_guide, c.train.feature_guide) = (false, true);
    });
    check("train.detail_perceiver", "true, but model.detail_perceiver = false", &|c| {
        (c.model.detail_perceiver, c.train.detail_perceiver) = (false, true);
    });
    check("train.text_tower", "nothing reads it", &|c| {
        (c.model.detail_perceiver, c.model.feature_guide) = (false, false);
        c.train.text_tower = true;
    });
    check("train", "no component trains", &|c| c.train = PerComponent::from_fn(|_| false));
    check("optim.lr_of.llm", "does not train", &|c| c.optim.lr_of.llm = Some(1e-5));
    check("optim.lr_of.projector", "(0, inf)", &|c| c.optim.lr_of.projector = Some(0.0));
    for lr in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        check("optim.lr", "expected a number in (0, inf)", &|c| c.optim.lr = lr);
    }
    check("optim.weight_decay", "-1; expected a number in [0, inf)", &|c| c.optim.weight_decay = -1.0);
    check("optim.max_grad_norm", "[0, inf)", &|c| c.optim.max_grad_norm = f64::NAN);
    check("optim.beta1", "[0, 1)", &|c| c.optim.beta1 = 1.0);
    check("optim.beta2", "[0, 1)", &|c| c.optim.beta2 = -0.1);
    check("optim.epsilon", "(0, inf)", &|c| c.optim.epsilon = 0.0);
    check("optim.warmup_ratio", "[0, 1]", &|c| c.optim.warmup_ratio = Some(1.5));
    check("optim.warmup_steps", "10, but warmup_ratio is 0.1 too", &|c| {
        (c.optim.warmup_ratio, c.optim.warmup_steps) = (Some(0.1), Some(10));
    });
    check("optim.loss_scale", "(0, inf)", &|c| c.optim.loss_scale = LossScale::Fixed(0.0));
    check("run.batch_size", "from 1 to", &|c| c.run.batch_size = 0);
    check("run.accumulation", "from 1 to", &|c| c.run.accumulation = 0);
    check("run.global_batch_size", "a multiple of run.batch_size = 8", &|c| {
        c.run.global_batch_size = Some(12)
    });
    check("run.global_batch_size", "remove one of them", &|c| {
        (c.run.global_batch_size, c.run.accumulation) = (Some(16), 2);
    });
    check("run.epochs", "(0, 1000000]", &|c| c.run.epochs = 0.0);
    check("run.max_steps", "from 1 to", &|c| c.run.max_steps = Some(0));
    check("run.loss_chunk", "from 1 to", &|c| c.run.loss_chunk = 0);
    check("run.save_steps", "(0, 1)", &|c| c.run.save_steps = Steps::Share(f64::NAN));
    check("run.save_steps", "from 1 to", &|c| c.run.save_steps = Steps::Count(0));
    check("run.save_total_limit", "from 1 to", &|c| c.run.save_total_limit = Some(0));
    check("run.log_every", "from 1 to", &|c| c.run.log_every = 0);
    check("run.max_shard_bytes", "at least 1", &|c| c.run.max_shard_bytes = 0);
}
