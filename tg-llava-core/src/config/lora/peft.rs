//! `adapter_config.json` as PEFT writes it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{ADAPTER_CONFIG, LoraConfig, LoraScaling, Patterns, TargetModules};
use crate::config::read_json;
use crate::error::{Error, Result};

impl LoraConfig {
    /// Reads the description in a folder.
    ///
    /// # Errors
    /// Where the file is missing or malformed, or asks for anything that this library does not do; the key is named.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(ADAPTER_CONFIG);
        let in_file = |error| match error {
            Error::Config(reason) => Error::Config(format!("{}: {reason}", path.display())),
            other => other,
        };
        // What is of another kind need not have the keys of this one.
        refuse_demands(&read_json(&path)?).map_err(in_file)?;
        let config = Self::from_raw(read_json(&path)?);
        config.and_then(|config| config.validate().map(|()| config)).map_err(in_file)
    }

    fn from_raw(raw: Raw) -> Result<Self> {
        let target_modules = raw.target_modules.ok_or_else(|| {
            Error::Config("target_modules: names no layers; name those that have matrices in the file".into())
        })?;
        Ok(Self {
            rank: raw.r,
            alpha: raw.lora_alpha,
            dropout: raw.lora_dropout,
            target_modules,
            scaling: if raw.use_rslora { LoraScaling::RootOfRank } else { LoraScaling::Rank },
            rank_pattern: raw.rank_pattern.unwrap_or_default(),
            alpha_pattern: raw.alpha_pattern.unwrap_or_default(),
            base: raw.base_model_name_or_path.filter(|name| !name.is_empty()),
        })
    }

    /// What PEFT reads.
    pub fn to_json(&self) -> Value {
        let alphas = self.alpha_pattern.0.iter().map(|(pattern, alpha)| (pattern.clone(), number(*alpha)));
        json!({
            "alpha_pattern": Value::Object(alphas.collect()),
            "base_model_name_or_path": self.base,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": number(self.alpha),
            "lora_dropout": self.dropout,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": self.rank,
            "rank_pattern": self.rank_pattern,
            "target_modules": self.target_modules,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": self.scaling == LoraScaling::RootOfRank,
        })
    }
}

/// A whole number without a fraction, as PEFT writes it.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

/// The keys that are read.
#[derive(serde::Deserialize)]
struct Raw {
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    lora_dropout: f64,
    target_modules: Option<TargetModules>,
    #[serde(default)]
    use_rslora: bool,
    rank_pattern: Option<Patterns<usize>>,
    alpha_pattern: Option<Patterns<f64>>,
    base_model_name_or_path: Option<String>,
}

/// Keys that are read, or say nothing of how the matrices are used.
const HARMLESS: [&str; 23] = [
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "base_model_name_or_path",
    "auto_mapping",
    "inference_mode",
    "revision",
    "task_type",
    "peft_version",
    "peft_type",
    "bias",
    "init_lora_weights",
    "loftq_config",
    "eva_config",
    "corda_config",
    "megatron_core",
    "qalora_group_size",
    "runtime_config",
    "lora_bias",
];

/// Refuses whatever a file asks for beyond plain low-rank branches; unknown keys too, unless they are set to nothing.
fn refuse_demands(keys: &Map<String, Value>) -> Result<()> {
    let refuse = |key: &str, value: &Value, right: &str| {
        Err(Error::Config(format!("{key} = {value}: not supported; {right}")))
    };
    for (key, value) in keys {
        let nothing = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(all) => all.is_empty(),
            Value::Object(all) => all.is_empty(),
            Value::String(text) => text.is_empty() || text == "none",
            Value::Bool(true) | Value::Number(_) => false,
        };
        match key.as_str() {
            "peft_type" if value != "LORA" => return refuse(key, value, "adapters are of the type LORA"),
            "bias" if !nothing => return refuse(key, value, "adapters have no biases: \"none\""),
            "lora_bias" if !nothing => return refuse(key, value, "branches have no biases: false"),
            // Others change the base as well, or start from a base that was changed.
            "init_lora_weights"
                if !(value.is_boolean()
                    || nothing
                    || ["gaussian", "orthogonal", "eva"].iter().any(|known| value == known)) =>
            {
                return refuse(key, value, "convert the adapter to one over the unchanged base first");
            }
            known if HARMLESS.contains(&known) || nothing => {}
            _ => return refuse(key, value, "leave it out, or merge the adapter with PEFT"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(change: impl FnOnce(&mut Value)) -> Result<LoraConfig> {
        let mut value = json!({
            "peft_type": "LORA", "r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "bias": "none",
            "target_modules": ["q_proj", "self_attn.v_proj"], "use_dora": false, "layers_to_transform": null,
            "loftq_config": {}, "megatron_core": "megatron.core", "rank_pattern": {}, "new_key": [],
        });
        change(&mut value);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(ADAPTER_CONFIG), value.to_string()).unwrap();
        LoraConfig::read(dir.path())
    }

    fn size(config: &LoraConfig, module: &str) -> Option<(usize, f64)> {
        config.branch(module).unwrap().map(|size| (size.rank, size.scale))
    }

    #[test]
    fn names_and_patterns_say_which_layers_have_which_branch() {
        let config = parse(|_| {}).unwrap();
        assert_eq!(size(&config, "model.layers.0.self_attn.q_proj"), Some((8, 2.0)));
        assert_eq!(size(&config, "model.layers.0.self_attn.v_proj"), Some((8, 2.0)));
        assert_eq!(size(&config, "model.layers.0.self_attn.k_proj"), None);
        assert_eq!(size(&config, "model.layers.0.self_attn.xq_proj"), None);
        let config = parse(|value| {
            value["target_modules"] = json!(r"model\.layers\.[01]\..*_proj");
            // The first that fits counts, in the order of the file.
            let patterns = r#"{"layers.0.mlp.up_proj": 2, ".*mlp.*": 3}"#;
            value["rank_pattern"] = serde_json::from_str(patterns).unwrap();
            value["alpha_pattern"] = json!({"q_proj": 4.5});
            value["use_rslora"] = json!(true);
        });
        let config = config.unwrap();
        assert_eq!(size(&config, "model.layers.1.mlp.up_proj").unwrap().0, 3);
        assert_eq!(size(&config, "model.layers.1.self_attn.q_proj"), Some((8, 4.5 / 8f64.sqrt())));
        assert_eq!(size(&config, "model.layers.2.self_attn.q_proj"), None);
        let all = parse(|value| value["target_modules"] = json!("all-linear")).unwrap();
        assert!(size(&all, "model.layers.7.mlp.down_proj").is_some());
    }

    /// As PEFT has it, whoever reads an adapter passes over names that fit nothing; whoever writes one is told.
    #[test]
    fn names_and_patterns_that_decide_nothing_are_told_with_those_that_would() {
        let modules = ["self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"]
            .map(|name| format!("model.layers.0.{name}"));
        let wrong = |change: &dyn Fn(&mut Value)| {
            let config = parse(change).unwrap();
            config.check_all_fit(&modules).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(wrong(&|_| {}), "");
        assert_eq!(wrong(&|value| value["target_modules"] = json!("all-linear")), "");
        assert_eq!(
            wrong(
                &|value| value["rank_pattern"] = json!({"layers.0.self_attn.q_proj": 2, "q_proj|v_proj": 3})
            ),
            ""
        );
        let names = wrong(&|value| value["target_modules"] = json!(["q_proj", "qproj", "lm_head"]));
        assert!(
            names.contains(r#"target_modules: no linear layer of a decoder block fits ["qproj", "lm_head"]"#),
            "{names}"
        );
        assert!(names.contains("q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"), "{names}");
        let pattern = wrong(&|value| value["target_modules"] = json!("q_proj"));
        assert!(pattern.contains(r#"fits ["q_proj"]"#), "a pattern is for the whole name: {pattern}");
        // No such block; no adapter over it; another pattern counts before it.
        for key in ["rank_pattern", "alpha_pattern"] {
            for idle in ["layers.1.self_attn.q_proj", "up_proj", "self_attn.v_proj"] {
                let text = wrong(&|value| {
                    value[key] = serde_json::from_str(&format!(r#"{{".*v_proj": 2, "{idle}": 3}}"#)).unwrap();
                });
                assert!(
                    text.contains(&format!("{key}: no layer with an adapter has its value by [{idle:?}]")),
                    "{text}"
                );
                assert!(text.contains("adapters lie over q_proj, v_proj"), "{text}");
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let config = parse(|value| {
            value["rank_pattern"] = json!({"v_proj": 3});
            value["lora_alpha"] = json!(2.5);
            value["base_model_name_or_path"] = json!("some/base");
        });
        let config = config.unwrap();
        let again = parse(|value| *value = config.to_json()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn other_demands_are_refused_by_name() {
        for (key, value) in [
            ("use_dora", json!(true)),
            ("modules_to_save", json!(["lm_head"])),
            ("bias", json!("lora_only")),
            ("lora_bias", json!(true)),
            ("layers_to_transform", json!([0, 1])),
            ("fan_in_fan_out", json!(true)),
            ("init_lora_weights", json!("pissa_niter_16")),
            ("peft_type", json!("IA3")),
            ("new_key", json!(1)),
            ("r", json!(0)),
            ("lora_alpha", json!(0)),
            ("lora_dropout", json!(1.0)),
            ("target_modules", json!("q_proj(")),
            ("target_modules", Value::Null),
        ] {
            let error = parse(|changed| changed[key] = value.clone()).unwrap_err().to_string();
            assert!(error.contains("adapter_config.json") && error.contains(key), "{key}: {error}");
        }
    }
}
