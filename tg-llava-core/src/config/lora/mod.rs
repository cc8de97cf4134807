//! Low-rank adapters: which layers have a branch, and of which size.

mod peft;

use regex::Regex;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

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
