//! The same weights in every form that the folder holds them.

use std::collections::BTreeSet;
use std::path::Path;

use tg_llava_core::config::{GuidePadding, read_model_config};
use tg_llava_core::model::TgLlava;
use tg_llava_core::weights::{TensorSource, apply, open_sources, reference_tensors};

use super::{Case, inputs::Inputs, set_padding, to_host};
use crate::parity::golden::Group;
use crate::parity::report::Row;

/// Forms of a checkpoint that may lie inside a case.
const FORMS: [(&str, &str); 3] = [
    ("sharded", "weights: shards with an index"),
    ("torch", "weights: pytorch_model.bin"),
    ("stage1", "weights: base decoder, towers and stage-1 files"),
];

/// Loads each form and compares a pass with the main checkpoint's, which must be equal.
pub(super) fn run(case: &Case<'_>) -> anyhow::Result<Vec<Row>> {
    let main = case.load(case.device)?;
    let mut loaded = Group::new("weights: every key has its place", 0.0);
    loaded.equal("keys", &stored_keys(case.dir)?, &reference_tensors(&main).keys().cloned().collect());
    let mut rows: Vec<Row> = loaded.row().into_iter().collect();
    for (folder, name) in FORMS {
        let dir = case.dir.join(folder);
        if !dir.is_dir() {
            continue;
        }
        // These forms are as the reference writes them, so the sizes stand in the case's config alone.
        let config = read_model_config(case.dir)?;
        let source = open_sources(&dir, &config, None)?;
        let (other, _) =
            apply(config.init(case.device)?, &source, case.options.dtype, &|_| false, &mut |_| Ok(()))?;
        let mut group = Group::new(name, 0.0);
        let inputs = Inputs::read(case, "pair")?;
        group.equal("logits of pair", &pass(case, &other, &inputs)?, &pass(case, &main, &inputs)?);
        rows.extend(group.row());
    }
    Ok(rows)
}

/// Keys of the case's checkpoint file, aliases left out.
fn stored_keys(dir: &Path) -> anyhow::Result<BTreeSet<String>> {
    let source = TensorSource::from_folder(dir)?;
    Ok(source.iter().map(|(key, _)| key.to_owned()).collect())
}

fn pass(case: &Case<'_>, model: &TgLlava, inputs: &Inputs) -> anyhow::Result<Vec<f32>> {
    let mut model = model.clone();
    model.configure(|config| set_padding(config, GuidePadding::Masked))?;
    let keep: Vec<usize> = (0..inputs.rows.len()).collect();
    let output = model.forward(&inputs.batch(&keep, case.meta.clip.eos, case.device))?;
    Ok(to_host(output.hidden_states)?.values)
}
