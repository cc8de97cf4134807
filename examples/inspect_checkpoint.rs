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
use tg_llava_core::weights::{Component, StoredTensor, is_unused_key, open_sources};

fn main() -> Result<()> {
    let dir = env::args().nth(1).context("usage: inspect_checkpoint DIR")?;
    let dir = Path::new(&dir);

    // One view of all files: a full checkpoint, shards, `.bin`, towers inside or beside the folder.
    let config = read_model_config(dir)?;
    let source = open_sources(dir, &config, None)?;

    let mut components: BTreeMap<&str, Vec<(&str, &StoredTensor)>> = BTreeMap::new();
    for (key, tensor) in source.iter() {
        let name = match Component::of_key(key) {
            _ if is_unused_key(key) => "never read by the model",
            Some(component) => component.title(),
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
