//! Low-rank adapters as PEFT's `adapter_config.json` describes them.

use std::path::Path;

use regex::Regex;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::read_json;
use crate::error::{Error, Result};

/// The file of a folder that describes its adapter.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// The linear layers of a decoder block by their names in keys: what an adapter can lie over.
pub const BLOCK_LINEARS: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// Which layers have a branch, and how large each is.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Rank of the branches (`r`).
    pub rank: usize,
    /// Numerator of the branches' scale (`lora_alpha`).
    pub alpha: f64,
    /// Dropout of what enters a branch in training, a share in `[0, 1)` (`lora_dropout`).
    pub dropout: f64,
    /// Which layers have a branch.
    pub target_modules: TargetModules,
    /// What alpha is divided by.
    pub scaling: LoraScaling,
    /// Ranks of layers whose names these patterns end.
    pub rank_pattern: Patterns<usize>,
    /// Alphas of such layers.
    pub alpha_pattern: Patterns<f64>,
    /// The decoder that the adapter was trained over (`base_model_name_or_path`): a folder, or a hub's name.
    pub base: Option<String>,
}

/// What alpha is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoraScaling {
    /// The rank.
    #[default]
    Rank,
    /// Its root, so that a larger rank learns no slower (rsLoRA, arXiv:2312.03732; `use_rslora`).
    RootOfRank,
}

/// Which layers have a branch (`target_modules`).
#[derive(Debug, Clone, PartialEq)]
pub enum TargetModules {
    /// Those with one of these names, or a name that ends with a dot and one of these.
    Names(Vec<String>),
    /// Those whose whole name the regular expression describes; `all-linear` for all.
    Pattern(String),
}

/// Values by patterns of names, in their order; the first that ends a layer's name counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Patterns<T>(pub Vec<(String, T)>);

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// One branch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraSize {
    /// Width between the two matrices.
    pub rank: usize,
    /// Factor on what the branch gives.
    pub scale: f64,
    /// Dropout of what enters it in training.
    pub dropout: f64,
}

impl LoraConfig {
    /// Reads the description in a folder.
    ///
    /// # Errors
    /// Where the file is missing or malformed, or asks for anything that this library does not do; the key is named.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(ADAPTER_CONFIG);
        let raw: Raw = read_json(&path)?;
        let keys: Map<String, Value> = read_json(&path)?;
        let config = Self::from_raw(raw, &keys).and_then(|config| config.validate().map(|()| config));
        config.map_err(|error| match error {
            Error::Config(reason) => Error::Config(format!("{}: {reason}", path.display())),
            other => other,
        })
    }

    fn from_raw(raw: Raw, keys: &Map<String, Value>) -> Result<Self> {
        refuse_demands(keys)?;
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

    /// Checks numbers and patterns.
    ///
    /// # Errors
    /// [`Error::Config`] with the key that is wrong.
    pub fn validate(&self) -> Result<()> {
        let ranks = self.rank_pattern.0.iter().map(|(_, rank)| ("rank_pattern", *rank));
        for (key, rank) in ranks.chain([("r", self.rank)]) {
            if !(1..=LARGEST_RANK).contains(&rank) {
                return Err(Error::Config(format!(
                    "{key} = {rank}; expected a rank from 1 to {LARGEST_RANK}"
                )));
            }
        }
        let alphas = self.alpha_pattern.0.iter().map(|(_, alpha)| ("alpha_pattern", *alpha));
        for (key, alpha) in alphas.chain([("lora_alpha", self.alpha)]) {
            if !(alpha > 0.0 && alpha.is_finite()) {
                return Err(Error::Config(format!("{key} = {alpha}; expected a number above 0")));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            let dropout = self.dropout;
            return Err(Error::Config(format!("lora_dropout = {dropout}; expected a share in [0, 1)")));
        }
        self.branch("").map(|_| ())
    }

    /// The branch over the layer that the reference calls `module`, such as `model.layers.0.self_attn.q_proj`; none where it has
    /// none.
    ///
    /// # Errors
    /// [`Error::Config`] for a pattern that is no regular expression.
    pub fn branch(&self, module: &str) -> Result<Option<LoraSize>> {
        let meant = match &self.target_modules {
            TargetModules::Names(names) => names.iter().any(|name| {
                module.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
            TargetModules::Pattern(all) if all == ALL_LINEAR => true,
            TargetModules::Pattern(pattern) => {
                matches("target_modules", &format!("^(?:{pattern})$"), module)?
            }
        };
        let rank = self.rank_pattern.of("rank_pattern", module)?.unwrap_or(self.rank);
        let alpha = self.alpha_pattern.of("alpha_pattern", module)?.unwrap_or(self.alpha);
        let divisor = match self.scaling {
            LoraScaling::Rank => rank as f64,
            LoraScaling::RootOfRank => (rank as f64).sqrt(),
        };
        Ok(meant.then_some(LoraSize { rank, scale: alpha / divisor, dropout: self.dropout }))
    }
}

/// Beyond the width of any decoder.
const LARGEST_RANK: usize = 1 << 16;

/// PEFT's word for all linear layers but the head.
const ALL_LINEAR: &str = "all-linear";

impl<T: Copy> Patterns<T> {
    fn of(&self, key: &str, module: &str) -> Result<Option<T>> {
        for (pattern, value) in &self.0 {
            if matches(key, &format!(r"^(?:.*\.)?(?:{pattern})$"), module)? {
                return Ok(Some(*value));
            }
        }
        Ok(None)
    }
}

fn matches(key: &str, pattern: &str, module: &str) -> Result<bool> {
    let pattern = Regex::new(pattern);
    let pattern = pattern.map_err(|e| Error::Config(format!("{key}: no regular expression: {e}")))?;
    Ok(pattern.is_match(module))
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

impl<'de> Deserialize<'de> for TargetModules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged, expecting = "a list of names or a regular expression")]
        enum Either {
            Names(Vec<String>),
            Pattern(String),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::Names(names) => Self::Names(names),
            Either::Pattern(pattern) => Self::Pattern(pattern),
        })
    }
}

impl Serialize for TargetModules {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Names(names) => names.serialize(serializer),
            Self::Pattern(pattern) => pattern.serialize(serializer),
        }
    }
}

impl<T: Serialize> Serialize for Patterns<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(pattern, value)| (pattern, value)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patterns<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct InOrder<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Patterns<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("values by patterns of names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Patterns<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(Patterns(all))
            }
        }
        deserializer.deserialize_map(InOrder(std::marker::PhantomData))
    }
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
