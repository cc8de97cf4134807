//! Low-rank adapters: which layers have a branch, and of which size.

mod peft;

use std::collections::BTreeSet;

use regex::Regex;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::error::{Error, Result};

/// The file of a folder that describes its adapter.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// The linear layers of a decoder block, as keys name them in the block: what an adapter can lie over.
pub const BLOCK_LINEARS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// The last parts of these names, by which adapters know them.
pub fn block_linear_names() -> [&'static str; 7] {
    BLOCK_LINEARS.map(last_part)
}

fn last_part(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

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
            TargetModules::Names(names) => names.iter().any(|name| is_named(module, name)),
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

    /// Checks that every name and every pattern decides something over the layers `modules`. PEFT passes over what does not, and so
    /// does whoever reads an adapter; who writes one has misspelt it.
    ///
    /// # Errors
    /// [`Error::Config`] with all that decide nothing, by their keys, and what would be right.
    pub fn check_all_fit(&self, modules: &[String]) -> Result<()> {
        let (mut branched, mut wrong) = (Vec::new(), Vec::new());
        for module in modules {
            if self.branch(module)?.is_some() {
                branched.push(module.as_str());
            }
        }
        let unfit: Vec<&String> = match &self.target_modules {
            TargetModules::Names(names) => {
                let fits = |name: &str| branched.iter().any(|module| is_named(module, name));
                names.iter().filter(|name| !fits(name)).collect()
            }
            TargetModules::Pattern(pattern) => branched.is_empty().then_some(pattern).into_iter().collect(),
        };
        if !unfit.is_empty() {
            let all = block_linear_names().join(", ");
            wrong.push(format!(
                "target_modules: no linear layer of a decoder block fits {unfit:?}; these are {all}"
            ));
        }
        let ranks = self.rank_pattern.idle("rank_pattern", &branched)?;
        for (key, idle) in
            [("rank_pattern", ranks), ("alpha_pattern", self.alpha_pattern.idle("alpha_pattern", &branched)?)]
        {
            if !idle.is_empty() {
                wrong.push(format!(
                    "{key}: no layer with an adapter has its value by {idle:?}; {}",
                    with_adapter(&branched)
                ));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::Config(wrong.join("; "))) }
    }
}

/// Whether `name` is the whole of a layer's name, or its end behind a dot.
fn is_named(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Which layers these are, in words.
fn with_adapter(modules: &[&str]) -> String {
    let all = modules.iter().map(|module| last_part(module)).collect::<BTreeSet<_>>();
    let all = block_linear_names().into_iter().filter(|name| all.contains(name)).collect::<Vec<_>>();
    match modules {
        [] => "there is none".into(),
        [first, ..] => format!("adapters lie over {}, the first over {first}", all.join(", ")),
    }
}

/// Beyond the width of any decoder.
const LARGEST_RANK: usize = 1 << 16;

/// PEFT's word for all linear layers but the head.
const ALL_LINEAR: &str = "all-linear";

impl<T: Copy> Patterns<T> {
    fn of(&self, key: &str, module: &str) -> Result<Option<T>> {
        Ok(self.index_of(key, module)?.map(|index| self.0[index].1))
    }

    /// Number of the pattern that counts for a layer.
    fn index_of(&self, key: &str, module: &str) -> Result<Option<usize>> {
        for (index, (pattern, _)) in self.0.iter().enumerate() {
            if matches(key, &format!(r"^(?:.*\.)?(?:{pattern})$"), module)? {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// The patterns that count for none of these layers.
    fn idle(&self, key: &str, modules: &[&str]) -> Result<Vec<&str>> {
        let mut counts = BTreeSet::new();
        for module in modules {
            counts.extend(self.index_of(key, module)?);
        }
        let all = self.0.iter().enumerate();
        Ok(all
            .filter(|(index, _)| !counts.contains(index))
            .map(|(_, (pattern, _))| pattern.as_str())
            .collect())
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
