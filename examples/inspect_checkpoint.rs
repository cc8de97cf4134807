//! Lists what a checkpoint holds, by component: keys, shapes, number formats. No weight is read.
//!
//! ```sh
//! cargo run -p tg-llava-examples --example inspect_checkpoint -- DIR
//! ```

use std::collections::BTreeMap;
use std::env;
use std::path::Path;

use anyhow::{Context, Result};
use tg_llava_core::config::read_model_config;
use tg_llava_core::weights::{StoredTensor, is_unused_key, open_sources};

/// Components by the start of their keys. The decoder's keys start with `model.` as well, so it stands last.
const COMPONENTS: [(&str, &str); 7] = [
    ("model.vision_tower.", "vision tower"),
    ("model.text_tower.", "text tower"),
    ("model.mm_cross_attn.", "feature guide"),
    ("model.mm_patch_encoder.", "detail perceiver"),
    ("model.mm_projector.", "projector"),
    ("model.", "decoder"),
    ("lm_head.", "decoder"),
];

fn main() -> Result<()> {
    let dir = env::args().nth(1).context("usage: inspect_checkpoint DIR")?;
    let dir = Path::new(&dir);

    // One view of all files: a full checkpoint, shards, `.bin`, towers inside or beside the folder.
    let config = read_model_config(dir)?;
    let source = open_sources(dir, &config, None)?;

    let mut components: BTreeMap<&str, Vec<(&str, &StoredTensor)>> = BTreeMap::new();
    for (key, tensor) in source.iter() {
        let known = COMPONENTS.iter().find(|(prefix, _)| key.starts_with(prefix));
        let name = match known {
            _ if is_unused_key(key) => "never read by the model",
            Some((_, name)) => name,
            None => "unknown",
        };
        components.entry(name).or_default().push((key, tensor));
    }

    for (name, tensors) in components {
        let values: usize = tensors.iter().map(|(_, tensor)| tensor.num_elements()).sum();
        println!("{name}: {} tensors, {values} values", tensors.len());
        for (key, tensor) in tensors {
            println!("  {:<5} {:<16} {key}", tensor.dtype_name, format!("{:?}", tensor.shape));
        }
    }
    Ok(())
}
