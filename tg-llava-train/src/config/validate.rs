//! What single values cannot show: ranges, and values at odds with each other.

use std::path::Path;

use tg_llava_core::{config::ProjectorConfig, conversation::Template};

use super::{
    BaseFormat, Bridges, Component, ConfigError, DataOptions, Init, LossScale, ModelOptions, OptimOptions,
    RunOptions, Steps, TrainConfig,
};

type Checked = Result<(), ConfigError>;

// What is beyond these cannot be meant, and would overflow or ask the system for more than there is.
const MOST_THREADS: usize = 1024;
const MOST_BATCHES: usize = 1 << 16;
const MOST_SAMPLES: usize = 1 << 20;
const MOST_TOKENS: usize = 1 << 24;
const MOST_NEW_TOKENS: usize = 1 << 16;
const MOST_STEPS: usize = 1_000_000_000;
const MOST_EPOCHS: f64 = 1e6;

impl TrainConfig {
    /// Checks the run; opens no file.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] or [`ConfigError::Invalid`] with the first thing that is wrong.
    pub fn validate(&self) -> Checked {
        given(&self.output_dir, "output_dir", "the folder for checkpoints, logs and the trained model")?;
        ensure(i64::try_from(self.seed).is_ok(), "seed", || format!("{}; at most 2^63 - 1", self.seed))?;
        self.model.validate()?;
        self.data.validate()?;
        self.optim.validate()?;
        self.run.validate()?;
        self.validate_lora()?;
        self.validate_components()
    }

    fn validate_lora(&self) -> Checked {
        let Some(lora) = &self.lora else { return Ok(()) };
        lora.validate()?;
        positive(lora.b_lr_ratio, "lora.b_lr_ratio")?;
        ensure(self.train.llm, "lora", || {
            "set, but the decoder that adapters lie over does not train; set train.llm = true".into()
        })?;
        let kept = lora.base != BaseFormat::Float && !self.run.gradient_checkpointing;
        ensure(!kept, "lora.base", || {
            let name = lora.base.encoding().name();
            format!(
                "{name}, but the backward pass would keep the floats of all matrices; set run.gradient_checkpointing = true"
            )
        })?;
        ensure(self.model.init == Init::Checkpoint, "lora", || {
            "set, but adapters over random weights are of no use; set model.init = \"checkpoint\"".into()
        })
    }

    fn validate_components(&self) -> Checked {
        let (guide, detail) = (self.model.feature_guide, self.model.detail_perceiver);
        for component in Component::ALL {
            let name = component.name();
            let (exists, why) = match component {
                Component::FeatureGuide => (guide, "model.feature_guide = false leaves it out"),
                Component::DetailPerceiver => (detail, "model.detail_perceiver = false leaves it out"),
                Component::TextTower => {
                    (guide || detail, "without feature guide and detail perceiver nothing reads it")
                }
                Component::VisionTower | Component::Projector | Component::Llm => (true, ""),
            };
            let trains = *self.train.get(component);
            ensure(exists || !trains, &format!("train.{name}"), || format!("true, but {why}"))?;
            if let Some(lr) = self.optim.lr_of.get(component) {
                let key = format!("optim.lr_of.{name}");
                positive(*lr, &key)?;
                ensure(trains, &key, || {
                    format!("set, but this component does not train; remove it or set train.{name} = true")
                })?;
            }
        }
        ensure(Component::ALL.iter().any(|&component| *self.train.get(component)), "train", || {
            "no component trains; set at least one of them to true".into()
        })
    }
}

impl ModelOptions {
    fn validate(&self) -> Checked {
        given(&self.path, "model.path", "the folder of the decoder or the checkpoint to start from")?;
        for (name, tower) in [("vision_tower", &self.vision_tower), ("text_tower", &self.text_tower)] {
            not_empty(tower.as_deref(), &format!("model.{name}"))?;
        }
        if let Some(name) = &self.template {
            Template::by_name(name).map_err(|error| ConfigError::Invalid {
                key: "model.template".into(),
                message: error.to_string(),
            })?;
        }
        if let Some(kind) = &self.projector_type {
            let parsed = ProjectorConfig::from_hf(kind);
            ensure(parsed.is_ok(), "model.projector_type", || {
                format!("{kind:?} is not known; write linear, mlpNx_gelu (N >= 1) or identity")
            })?;
        }
        if let Some(std) = self.init_std {
            positive(std, "model.init_std")?;
        }
        if let Some(dropout) = self.dropout {
            within(dropout, "model.dropout", (0.0..1.0).contains(&dropout), "[0, 1)")?;
        }
        if let Some(Bridges::Files(files)) = &self.bridges {
            let any = files.projector.is_some()
                || files.feature_guide.is_some()
                || files.detail_perceiver.is_some();
            ensure(any, "model.bridges", || {
                "an empty table; name files as projector, feature_guide, detail_perceiver".into()
            })?;
            for (name, file, exists) in [
                ("feature_guide", &files.feature_guide, self.feature_guide),
                ("detail_perceiver", &files.detail_perceiver, self.detail_perceiver),
            ] {
                ensure(exists || file.is_none(), &format!("model.bridges.{name}"), || {
                    format!("set, but model.{name} = false leaves it out")
                })?;
            }
        }
        count(self.max_length, "model.max_length", MOST_TOKENS)
    }
}

impl DataOptions {
    fn validate(&self) -> Checked {
        let what = "the LLaVA file (JSON or JSONL) of the samples";
        let Some(first) = self.path.first() else {
            return Err(ConfigError::Missing { key: "data.path", what });
        };
        given(first, "data.path", what)?;
        count(self.workers, "data.workers", MOST_THREADS)?;
        count(self.prefetch, "data.prefetch", MOST_BATCHES)?;
        let Some(validation) = &self.validation else { return Ok(()) };
        let key = "data.validation";
        match (&validation.path, validation.fraction) {
            (Some(_), None) => {}
            (None, Some(share)) => {
                within(share, "data.validation.fraction", share > 0.0 && share < 1.0, "(0, 1)")?;
            }
            (Some(_), Some(_)) => {
                return invalid(key, "has `path` and `fraction`; keep one of them".into());
            }
            (None, None) => {
                let message = "needs `path` (a file of its own) or `fraction` (a share of the samples)";
                return invalid(key, message.into());
            }
        }
        steps(validation.every, "data.validation.every")?;
        count(validation.max_new_tokens, "data.validation.max_new_tokens", MOST_NEW_TOKENS)?;
        count(validation.batch_size, "data.validation.batch_size", MOST_SAMPLES)
    }
}

impl OptimOptions {
    fn validate(&self) -> Checked {
        positive(self.lr, "optim.lr")?;
        for (key, value) in
            [("optim.weight_decay", self.weight_decay), ("optim.max_grad_norm", self.max_grad_norm)]
        {
            within(value, key, value >= 0.0 && value.is_finite(), "[0, inf)")?;
        }
        for (key, value) in [("optim.beta1", self.beta1), ("optim.beta2", self.beta2)] {
            within(value, key, (0.0..1.0).contains(&value), "[0, 1)")?;
        }
        positive(self.epsilon, "optim.epsilon")?;
        if let Some(ratio) = self.warmup_ratio {
            within(ratio, "optim.warmup_ratio", (0.0..=1.0).contains(&ratio), "[0, 1]")?;
            let steps = self.warmup_steps.unwrap_or(0);
            ensure(steps == 0 || ratio == 0.0, "optim.warmup_steps", || {
                format!("{steps}, but warmup_ratio is {ratio} too; remove one of them or set it to 0")
            })?;
        }
        match self.loss_scale {
            LossScale::Dynamic => Ok(()),
            LossScale::Fixed(scale) => positive(scale, "optim.loss_scale"),
        }
    }
}

impl RunOptions {
    fn validate(&self) -> Checked {
        count(self.batch_size, "run.batch_size", MOST_SAMPLES)?;
        count(self.accumulation, "run.accumulation", MOST_BATCHES)?;
        if let Some(samples) = self.global_batch_size {
            let key = "run.global_batch_size";
            count(samples, key, MOST_SAMPLES.saturating_mul(MOST_BATCHES))?;
            ensure(samples.is_multiple_of(self.batch_size), key, || {
                format!("{samples}; expected a multiple of run.batch_size = {}", self.batch_size)
            })?;
            ensure(self.accumulation == 1, key, || {
                format!("{samples}, but run.accumulation is {} too; remove one of them", self.accumulation)
            })?;
        }
        let epochs = self.epochs;
        within(epochs, "run.epochs", epochs > 0.0 && epochs <= MOST_EPOCHS, "(0, 1000000]")?;
        count(self.max_steps.unwrap_or(1), "run.max_steps", MOST_STEPS)?;
        count(self.loss_chunk, "run.loss_chunk", MOST_TOKENS)?;
        steps(self.save_steps, "run.save_steps")?;
        count(self.save_total_limit.unwrap_or(1), "run.save_total_limit", MOST_STEPS)?;
        count(self.log_every, "run.log_every", MOST_STEPS)?;
        ensure(self.max_shard_bytes > 0, "run.max_shard_bytes", || "0; expected at least 1".into())
    }
}

fn invalid(key: &str, message: String) -> Checked {
    Err(ConfigError::Invalid { key: key.into(), message })
}

fn ensure(holds: bool, key: &str, message: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { invalid(key, message()) }
}

fn within(value: f64, key: &str, holds: bool, range: &str) -> Checked {
    ensure(holds, key, || format!("{value}; expected a number in {range}"))
}

fn positive(value: f64, key: &str) -> Checked {
    within(value, key, value > 0.0 && value.is_finite(), "(0, inf)")
}

fn count(value: usize, key: &str, most: usize) -> Checked {
    ensure((1..=most).contains(&value), key, || format!("{value}; expected a number from 1 to {most}"))
}

fn given(path: &Path, key: &'static str, what: &'static str) -> Checked {
    if path.as_os_str().is_empty() { Err(ConfigError::Missing { key, what }) } else { Ok(()) }
}

fn not_empty(text: Option<&str>, key: &str) -> Checked {
    ensure(text != Some(""), key, || "empty; leave the key out for its default".into())
}

/// Values that a program made; those from TOML are checked as they are read.
fn steps(value: Steps, key: &str) -> Checked {
    match value {
        Steps::Never => Ok(()),
        Steps::Count(steps) => count(steps, key, MOST_STEPS),
        Steps::Share(share) => within(share, key, share > 0.0 && share < 1.0, "(0, 1)"),
    }
}
