//! LLaVA's own command lines, as its published scripts have them.

mod arguments;
mod flags;
#[cfg(test)]
mod tests;

use tg_llava_core::conversation::Template;
use toml::{Table, Value};

use self::{
    arguments::{Argument, Arguments},
    flags::Meaning,
};
use super::{ConfigError, Steps, table::insert};

pub(super) use flags::flag_keys;

/// The run that LLaVA's flags describe, and what the user should know about how they were taken.
///
/// `args` are the flags of `llava/train/train_mem.py` or of the reference's `train_mem_cross_zeroAdd.py`, as the
/// published scripts pass them; the launcher and the script's name may stand in front. They mean what they mean there:
/// a switch that is not given is off, and a setting of the training that is not given has LLaVA's default (which a
/// note says), not that of the stage.
///
/// # Errors
/// [`ConfigError::Flag`] where a flag is unknown, asks for what this trainer does not do, or has a value of the wrong
/// kind.
pub fn from_llava_args(args: &[String]) -> Result<(Table, Vec<String>), ConfigError> {
    let mut reading = Reading { given: Arguments::parse(args)?, table: Table::new(), notes: Vec::new() };
    reading.single_flags()?;
    reading.stage_and_components()?;
    reading.adapters()?;
    reading.model_and_data()?;
    reading.optimizer()?;
    reading.run()?;
    reading.samples_a_step();
    Ok((reading.table, reading.notes))
}

struct Reading {
    given: Arguments,
    table: Table,
    notes: Vec<String>,
}

impl Reading {
    /// Flags that stand for themselves.
    fn single_flags(&mut self) -> Result<(), ConfigError> {
        for argument in self.given.iter() {
            let (key, value) = match argument.meaning {
                Meaning::Text(key) => (key, Value::from(argument.value())),
                Meaning::Number(key) => (key, number(argument)?),
                Meaning::Switch(key) => (key, Value::from(argument.switch()?)),
                Meaning::Ignored(why) => {
                    if !argument.is_off() {
                        self.notes.push(format!("--{} is ignored: {why}", argument.name));
                    }
                    continue;
                }
                Meaning::Only(allowed, why) => {
                    if !argument.is_one_of(allowed) {
                        return Err(argument.fault(format!("{}: {why}", argument.value())));
                    }
                    continue;
                }
                Meaning::Value | Meaning::Choice | Meaning::Moot => continue,
            };
            put(&mut self.table, argument, key, value)?;
        }
        Ok(())
    }

    fn stage_and_components(&mut self) -> Result<(), ConfigError> {
        let pretrain = self.given.switch("tune_mm_mlp_adapter")?.unwrap_or(false);
        self.set("stage", if pretrain { "pretrain" } else { "finetune" });
        // Adapters learn over a frozen decoder in any case.
        let adapters = self.given.switch("lora_enable")?.unwrap_or(false);
        if self.given.switch("freeze_backbone")?.unwrap_or(false) && !adapters {
            self.set("train.llm", false);
        }
        if self.given.switch("freeze_mm_mlp_adapter")?.unwrap_or(false) {
            self.set("train.projector", false);
        }
        Ok(())
    }

    /// `[lora]`, with LLaVA's defaults; its flags count with `--lora_enable` alone.
    fn adapters(&mut self) -> Result<(), ConfigError> {
        let adapters = self.given.switch("lora_enable")?.unwrap_or(false);
        self.quantised_base(adapters)?;
        if !adapters {
            return Ok(());
        }
        if let Some(bias) = self.given.get("lora_bias").filter(|bias| bias.value() != "none") {
            return Err(bias.fault(format!("{}: adapters have no biases; use none", bias.value())));
        }
        for (name, key, default) in [
            ("lora_r", "lora.rank", Value::from(64)),
            ("lora_alpha", "lora.alpha", Value::from(16)),
            ("lora_dropout", "lora.dropout", Value::from(0.05)),
        ] {
            match self.given.get(name) {
                Some(argument) => put(&mut self.table, argument, key, number(argument)?)?,
                None => self.set(key, default),
            }
        }
        if !self.given.has("mm_projector_lr") {
            return Ok(());
        }
        self.notes.push(
            "--mm_projector_lr is that of the projector alone, as in LLaVA: feature guide and detail perceiver learn at \
             --learning_rate; in a run file optim.lr_of sets theirs"
                .into(),
        );
        Ok(())
    }

    /// `--bits 4` and `--bits 8`: the decoder that adapters lie over in NF4 or in int8.
    fn quantised_base(&mut self, adapters: bool) -> Result<(), ConfigError> {
        let Some(bits) = self.given.get("bits").filter(|bits| bits.value() != "16") else { return Ok(()) };
        let base = match bits.value() {
            "4" => "nf4",
            "8" => "int8",
            other => return Err(bits.fault(format!("{other}: expected 4 (NF4), 8 (int8) or 16"))),
        };
        if !adapters {
            let bits_asked = bits.value();
            return Err(bits.fault(format!(
                "{bits_asked}: quantised weights do not learn; add --lora_enable True, or use 16"
            )));
        }
        self.set("lora.base", base);
        if base == "int8" {
            return Ok(());
        }
        if let Some(kind) = self.given.get("quant_type").filter(|kind| kind.value() != "nf4") {
            return Err(kind.fault(format!("{}: expected nf4", kind.value())));
        }
        if self.given.switch("double_quant")? == Some(false) {
            let double = self
                .given
                .get("double_quant")
                .map(|double| double.fault("False: scales are quantised too; leave it out"));
            return double.map_or(Ok(()), Err);
        }
        Ok(())
    }

    fn model_and_data(&mut self) -> Result<(), ConfigError> {
        if let Some(version) = self.given.text("version").map(str::to_owned) {
            let template = Template::for_version(&version).name;
            if template != version {
                self.notes.push(format!("--version {version}: taken as {template}, as LLaVA does"));
            }
            self.set("model.template", template);
        }
        // LLaVA would take a single linear layer on the last hidden state, which no published model has.
        let shape = ["mm_projector_type", "mm_vision_select_layer"];
        let open: Vec<_> =
            shape.into_iter().filter(|name| !self.given.has(name)).map(|name| format!("--{name}")).collect();
        if !open.is_empty() {
            let open = open.join(", ");
            self.notes.push(format!("{open} not given: as the start's config says, else mlp2x_gelu, -2"));
        }

        let aspect_ratio = self.given.get("image_aspect_ratio");
        let pad = match aspect_ratio.map(|argument| (argument, argument.value())) {
            None | Some((_, "square")) => "square",
            Some((_, "pad")) => "pad",
            Some((argument, other)) => {
                return Err(argument.fault(format!("{other} is not supported; use pad or square")));
            }
        };
        self.set("data.aspect_ratio", pad);
        let by_modality = self.given.switch("group_by_modality_length")?.unwrap_or(false);
        let by_length = self.given.switch("group_by_length")?.unwrap_or(false);
        let order = if by_modality {
            "modality_length"
        } else if by_length {
            "length"
        } else {
            "shuffled"
        };
        self.set("data.order", order);
        if let Some(argument) = self.given.get("dataloader_num_workers") {
            // 0 is the main process alone.
            let workers = argument.count()?.unwrap_or(1);
            self.set("data.workers", workers);
        }
        for name in ["evaluation_strategy", "eval_strategy"] {
            if self.given.text(name).is_some_and(|strategy| strategy != "no") {
                self.notes.push(format!(
                    "--{name} is ignored: LLaVA's flags name no held-out samples; set data.validation.path or \
                     data.validation.fraction"
                ));
            }
        }
        Ok(())
    }

    fn optimizer(&mut self) -> Result<(), ConfigError> {
        let mut defaults = Vec::new();
        if let Some(steps) = self.given.get("warmup_steps").map(Argument::count).transpose()?.flatten() {
            self.set("optim.warmup_steps", steps);
            if self.given.number("warmup_ratio")?.is_some_and(|ratio| ratio > 0.0) {
                self.notes
                    .push("--warmup_ratio is ignored: --warmup_steps wins, as in the HF Trainer".into());
            }
            self.set("optim.warmup_ratio", 0.0);
        } else if !self.given.has("warmup_ratio") {
            self.set("optim.warmup_ratio", 0.0);
            defaults.push("--warmup_ratio 0");
        }
        if !self.given.has("learning_rate") {
            self.set("optim.lr", 5e-5);
            defaults.push("--learning_rate 5e-5");
        }
        if !self.given.has("lr_scheduler_type") {
            self.set("optim.schedule", "linear");
            defaults.push("--lr_scheduler_type linear");
        }
        if let Some(steps) = self.given.get("max_steps").map(Argument::count).transpose()?.flatten() {
            self.set("run.max_steps", steps);
        } else if !self.given.has("num_train_epochs") {
            self.set("run.epochs", 3.0);
            defaults.push("--num_train_epochs 3");
        }
        if !defaults.is_empty() {
            self.notes.push(format!("not given, so LLaVA's defaults hold: {}", defaults.join(", ")));
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), ConfigError> {
        let (bf16, fp16) = (self.given.switch("bf16")?, self.given.switch("fp16")?);
        match (bf16, fp16) {
            (Some(true), Some(true)) => {
                return Err(ConfigError::Flag {
                    flag: "--bf16, --fp16".into(),
                    message: "both are True; keep one of them".into(),
                });
            }
            (Some(true), _) => self.set("run.dtype", "bf16"),
            (_, Some(true)) => self.set("run.dtype", "f16"),
            (Some(false), _) | (_, Some(false)) => self.set("run.dtype", "f32"),
            (None, None) => {}
        }
        self.checkpoints()?;
        if let Some(argument) = self.given.get("logging_steps") {
            match Steps::from_number(argument.number()?) {
                Some(Steps::Count(count)) => self.set("run.log_every", count as i64),
                Some(Steps::Share(_)) => {
                    self.notes
                        .push("--logging_steps is ignored: a share of the run; every step is logged".into());
                }
                Some(Steps::Never) | None => {
                    return Err(
                        argument.fault(format!("expected a number of steps, found {}", argument.value()))
                    );
                }
            }
        }
        Ok(())
    }

    fn checkpoints(&mut self) -> Result<(), ConfigError> {
        let every = match self.given.get("save_steps") {
            None => Steps::Count(500),
            Some(argument) => match Steps::from_number(argument.number()?) {
                None | Some(Steps::Never) => {
                    let message = format!(
                        "expected a number of steps or a share of the run in (0, 1), found {}",
                        argument.value()
                    );
                    return Err(argument.fault(message));
                }
                Some(every) => every,
            },
        };
        let every = match self.given.get("save_strategy") {
            None => every,
            Some(argument) => match argument.value() {
                "steps" => every,
                "no" => Steps::Never,
                "epoch" => self.every_epoch()?,
                other => return Err(argument.fault(format!("{other:?}; expected no, steps or epoch"))),
            },
        };
        let value = match every {
            Steps::Never => Value::from(0),
            Steps::Count(count) => Value::from(count as i64),
            Steps::Share(share) => Value::from(share),
        };
        self.set("run.save_steps", value);
        if let Some(limit) = self.given.get("save_total_limit").map(Argument::count).transpose()?.flatten() {
            self.set("run.save_total_limit", limit);
        }
        Ok(())
    }

    /// Checkpoints at the end of each epoch, as a share of the run.
    fn every_epoch(&mut self) -> Result<Steps, ConfigError> {
        if self.given.get("max_steps").map(Argument::count).transpose()?.flatten().is_some() {
            let note = "--save_strategy epoch: with --max_steps, a checkpoint is saved at the end alone";
            self.notes.push(note.into());
            return Ok(Steps::Never);
        }
        let epochs = self.given.number("num_train_epochs")?.unwrap_or(3.0);
        Ok(if epochs > 1.0 { Steps::Share(1.0 / epochs) } else { Steps::Never })
    }

    /// What a step takes, where the script is one for several devices.
    fn samples_a_step(&mut self) {
        let parallel =
            ["deepspeed", "fsdp"].iter().any(|name| self.given.get(name).is_some_and(|a| !a.is_off()));
        if !parallel {
            return;
        }
        let run = self.table.get("run");
        let size =
            |key, default| run.and_then(|run| run.get(key)).and_then(Value::as_integer).unwrap_or(default);
        let (batch, accumulation) = (size("batch_size", 8), size("accumulation", 1));
        self.notes.push(format!(
            "an optimizer step takes {batch} x {accumulation} = {} samples of each device; the published runs took 128 (256 \
             to pretrain) in all: with fewer devices, raise --gradient_accumulation_steps to keep that",
            batch.saturating_mul(accumulation)
        ));
        if self.given.get("deepspeed").is_some() && self.given.get("max_grad_norm").is_none() {
            let note = "LLaVA's DeepSpeed files leave gradients as long as they are, whatever --max_grad_norm; here they are \
                        clipped at 1, and with --max_grad_norm 0 not at all";
            self.notes.push(note.into());
        }
    }

    /// Sets a key to a value that is known to fit.
    fn set(&mut self, key: &str, value: impl Into<Value>) {
        let fits = insert(&mut self.table, key, vec![value.into()]);
        debug_assert!(fits.is_ok(), "{key}: {fits:?}");
    }
}

fn number(argument: &Argument) -> Result<Value, ConfigError> {
    Ok(match argument.value().parse::<i64>() {
        Ok(whole) => Value::from(whole),
        Err(_) => Value::from(argument.number()?),
    })
}

fn put(table: &mut Table, argument: &Argument, key: &str, value: Value) -> Result<(), ConfigError> {
    insert(table, key, vec![value]).map_err(|message| argument.fault(message))
}
