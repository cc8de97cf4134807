//! Comparison of this build with golden folders.

mod benchmark;
mod codecs;
mod conversations;
mod dataset;
mod decoder;
mod golden;
mod model;
mod preprocess;
pub mod report;
mod towers;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::tensor::{DType, Device};

use self::report::{FolderReport, Report, Row};

/// Groups of comparisons inside a model case.
pub const MODEL_GROUPS: [&str; 6] = ["weights", "forward", "batch", "generation", "gradients", "training"];

/// What is compared, and how.
#[derive(Debug, Clone)]
pub struct ParityOptions {
    /// Dtype of the weights.
    pub dtype: DType,
    /// Groups of a model case that run; empty means all.
    pub only: Vec<String>,
    /// Ranks that recorded training runs are repeated on.
    pub ranks: usize,
    /// Factor on f32 tolerances, for devices whose f32 products are rounded (TF32).
    pub tolerance_scale: f64,
    /// The device's largest buffer in bytes, where it has a narrow limit; for real decoders.
    pub largest_buffer: Option<u64>,
}

impl Default for ParityOptions {
    /// Everything, in f32, to the stated tolerances.
    fn default() -> Self {
        Self { dtype: DType::F32, only: Vec::new(), ranks: 1, tolerance_scale: 1.0, largest_buffer: None }
    }
}

impl ParityOptions {
    /// The tolerance for values that were measured in f32; half precision gets its rounding.
    fn tolerance(&self, f32: f64) -> f64 {
        match self.dtype {
            DType::F16 => f32.max(2e-2),
            DType::BF16 => f32.max(1e-1),
            _ => f32 * self.tolerance_scale,
        }
    }

    /// Whether `group` of a model case runs.
    fn wants(&self, group: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == group)
    }
}

/// What a folder holds, by its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Adapters,
    Decoder,
    Towers,
    Conversations,
    Preprocess,
    Dataset,
    Benchmark,
    Quantised,
    Codecs,
}

fn kind_of(dir: &Path) -> Option<Kind> {
    let has = |name: &str| dir.join(name).exists();
    if has("config.json") && (has("golden.safetensors") || has("greedy.json")) {
        if decoder::is_decoder(dir) {
            Some(Kind::Decoder)
        } else if towers::is_towers(dir) {
            Some(Kind::Towers)
        } else {
            Some(Kind::Model)
        }
    } else if model::holds_adapters(dir) {
        Some(Kind::Adapters)
    } else if has("prompts.json") || has("preprocess.json") {
        Some(Kind::Conversations)
    } else if has("images") && has("golden.safetensors") {
        Some(Kind::Preprocess)
    } else if has("data.json") && has("golden.safetensors") {
        Some(Kind::Dataset)
    } else if model::quantised::is_quantised(dir) {
        Some(Kind::Quantised)
    } else if codecs::is_codecs(dir) {
        Some(Kind::Codecs)
    } else if benchmark::is_benchmark(dir) {
        Some(Kind::Benchmark)
    } else {
        None
    }
}

/// Compares every golden folder among `dirs` and below them.
///
/// # Errors
/// Where a folder holds nothing golden, or a file in it cannot be read.
pub fn run(dirs: &[PathBuf], device: &Device, options: &ParityOptions) -> anyhow::Result<Report> {
    let mut report = Report::default();
    for dir in dirs {
        let mut found = Vec::new();
        find(dir, &mut found).with_context(|| format!("{}", dir.display()))?;
        if found.is_empty() {
            bail!(
                "{}: holds nothing golden; expected golden.safetensors beside model.safetensors, images/ or data.json, or prompts.json, or meta.json beside predictions.jsonl or beside folders with train.json",
                dir.display()
            );
        }
        for (folder, kind) in found {
            let rows = compare(&folder, kind, device, options)
                .with_context(|| format!("while comparing {}", folder.display()))?;
            report.folders.push(FolderReport { folder, rows });
        }
    }
    Ok(report)
}

fn compare(dir: &Path, kind: Kind, device: &Device, options: &ParityOptions) -> anyhow::Result<Vec<Row>> {
    match kind {
        Kind::Model => model::run(dir, device, options),
        Kind::Adapters => model::run_adapters(dir, device, options),
        Kind::Decoder if options.wants("forward") => decoder::run(dir, device, options),
        Kind::Towers if options.wants("forward") => towers::run(dir, device, options),
        Kind::Quantised if options.wants("forward") => model::quantised::run(dir, device, options),
        Kind::Codecs if options.wants("forward") => codecs::run(dir, device),
        // These hold no tensors of the model and do not depend on the device.
        Kind::Conversations if options.only.is_empty() => conversations::run(dir),
        Kind::Preprocess if options.only.is_empty() => preprocess::run(dir),
        Kind::Dataset if options.only.is_empty() => dataset::run(dir),
        Kind::Benchmark if options.only.is_empty() => benchmark::run(dir),
        _ => Ok(Vec::new()),
    }
}

/// Golden folders at `dir` or below it, in order.
fn find(dir: &Path, found: &mut Vec<(PathBuf, Kind)>) -> std::io::Result<()> {
    if let Some(kind) = kind_of(dir) {
        found.push((dir.to_path_buf(), kind));
        // Models in these formats lie below them.
        if kind != Kind::Codecs {
            return Ok(());
        }
    }
    let mut below: Vec<PathBuf> =
        std::fs::read_dir(dir)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    below.sort();
    for path in below.into_iter().filter(|path| path.is_dir()) {
        find(&path, found)?;
    }
    Ok(())
}
