//! A model case: a checkpoint with recorded passes, gradients, generations and training runs.

mod adapters;
mod forward;
mod generation;
mod gradients;
mod inputs;
pub(super) mod quantised;
mod rows;
mod trace;
mod training;
mod weights;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use burn::tensor::Device;
use serde::Deserialize;
use tg_llava_core::config::{GuidePadding, ModelConfig};
use tg_llava_core::model::TgLlava;
use tg_llava_core::weights::{LoadOptions, load_model};

use super::ParityOptions;
use super::golden::{Golden, to_host};
use super::report::Row;

pub(super) use adapters::{holds as holds_adapters, run as run_adapters};
pub(super) use generation::generate;

/// What `meta.json` says of a case.
#[derive(Debug, Deserialize)]
pub(super) struct Meta {
    scenarios: BTreeMap<String, Scenario>,
    clip: ClipIds,
    #[serde(default)]
    grads: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct ClipIds {
    eos: i64,
    pad: i64,
}

#[derive(Debug, Deserialize)]
struct Scenario {
    llm: bool,
    images: ImageRef,
}

/// Where a scenario's pictures are: a tensor, or some rows of one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ImageRef {
    Whole(String),
    Rows { tensor: String, rows: Vec<usize> },
}

#[derive(Debug, Deserialize)]
struct GradMeta {
    scenario: String,
    #[serde(default)]
    zero_or_noise_grads: Vec<String>,
    global_norm: Option<f64>,
}

/// A case with what every comparison needs.
pub(super) struct Case<'a> {
    dir: &'a Path,
    device: &'a Device,
    options: &'a ParityOptions,
    meta: Meta,
    golden: Golden,
}

/// Compares all that a model folder holds.
pub(super) fn run(dir: &Path, device: &Device, options: &ParityOptions) -> anyhow::Result<Vec<Row>> {
    let case = Case::open(dir, device, options)?;
    let mut rows = Vec::new();
    if options.wants("weights") {
        rows.extend(weights::run(&case)?);
    }
    if options.wants("forward") {
        let model = case.load(device)?;
        rows.extend(forward::run(&case, &model)?);
    }
    if options.wants("batch") {
        let mut model = case.load(device)?;
        model.configure(|config| set_padding(config, GuidePadding::Masked))?;
        rows.extend(rows::run(&case, &model)?);
    }
    if options.wants("generation") {
        rows.extend(generation::run(&case)?);
    }
    if options.wants("gradients") {
        rows.extend(gradients::run(&case)?);
    }
    if options.wants("training") {
        rows.extend(training::run(&case)?);
    }
    Ok(rows)
}

impl<'a> Case<'a> {
    /// Reads what every comparison needs.
    fn open(dir: &'a Path, device: &'a Device, options: &'a ParityOptions) -> anyhow::Result<Self> {
        let meta_path = dir.join("meta.json");
        let text = std::fs::read_to_string(&meta_path).with_context(|| format!("{}", meta_path.display()))?;
        let meta = serde_json::from_str(&text).with_context(|| format!("{}", meta_path.display()))?;
        let golden = Golden::read(&dir.join("golden.safetensors"))?;
        Ok(Self { dir, device, options, meta, golden })
    }

    /// The checkpoint as the reference runs it: padding visible.
    fn load(&self, device: &Device) -> anyhow::Result<TgLlava> {
        let options = LoadOptions { dtype: self.options.dtype, ..LoadOptions::default() };
        self.load_as(device, &options)
    }

    fn load_as(&self, device: &Device, options: &LoadOptions) -> anyhow::Result<TgLlava> {
        let mut model = load_model(self.dir, device, options, &mut |_| {})?.model;
        model.configure(|config| set_padding(config, GuidePadding::Visible))?;
        Ok(model)
    }

    /// The tolerance for values that were measured at `f32` in f32.
    fn tolerance(&self, f32: f64) -> f64 {
        self.options.tolerance(f32)
    }
}

/// Sets what guide texts see of their padding.
fn set_padding(config: &mut ModelConfig, padding: GuidePadding) {
    if let Some(mm) = &mut config.multimodal {
        mm.guide_padding = padding;
    }
}
