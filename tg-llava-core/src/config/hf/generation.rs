use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::llm::token_ids;
use super::{in_file, read_json};
use crate::error::{Error, Result};

/// The file of a checkpoint's own wishes for generation.
const GENERATION_CONFIG: &str = "generation_config.json";

/// A checkpoint's own wishes for generation (`generation_config.json`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<i64>,
    /// Whether to sample; greedy otherwise.
    pub do_sample: bool,
    /// Softmax temperature.
    pub temperature: Option<f64>,
    /// Probability mass kept.
    pub top_p: Option<f64>,
    /// Number of candidates kept.
    pub top_k: Option<usize>,
    /// Division of the scores of tokens that occurred.
    pub repetition_penalty: Option<f64>,
}

#[derive(Deserialize)]
struct Raw {
    eos_token_id: Option<Value>,
    #[serde(default)]
    do_sample: bool,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<usize>,
    repetition_penalty: Option<f64>,
}

impl GenerationDefaults {
    /// [`Self::read`] of a folder that builds on the one in `base`, whose wishes hold where the folder has none.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_over(dir: &Path, base: Option<&Path>) -> Result<Self> {
        let own = dir.join(GENERATION_CONFIG).is_file();
        Self::read(base.filter(|_| !own).unwrap_or(dir))
    }

    /// Reads `generation_config.json` of a folder; a folder without one has no wishes.
    ///
    /// # Errors
    /// Where the file is there but cannot be read.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(GENERATION_CONFIG);
        if !path.is_file() {
            return Ok(Self::default());
        }
        let raw: Raw = read_json(&path)?;
        let defaults = Self {
            eos_token_ids: token_ids(raw.eos_token_id.as_ref()),
            do_sample: raw.do_sample,
            temperature: raw.temperature,
            top_p: raw.top_p,
            top_k: raw.top_k,
            repetition_penalty: raw.repetition_penalty,
        };
        defaults.validate().map_err(in_file(&path))?;
        Ok(defaults)
    }

    /// Checks what would be used; sampling's settings count where there is sampling.
    fn validate(&self) -> Result<()> {
        let positive = |key: &str, value: Option<f64>, most: f64| match value {
            Some(value) if !(value > 0.0 && value <= most) => {
                Err(Error::Config(format!("{key} = {value}; it must be above 0, and at most {most}")))
            }
            _ => Ok(()),
        };
        positive("repetition_penalty", self.repetition_penalty, f64::from(f32::MAX))?;
        if self.do_sample {
            positive("temperature", self.temperature, f64::from(f32::MAX))?;
            positive("top_p", self.top_p, 1.0)?;
        }
        Ok(())
    }
}
