//! Several adapters over one decoder in memory.

use std::path::Path;

use super::load::SmallFiles;
use super::{Assistant, AssistantOptions};
use crate::config::{LlmConfig, ModelConfig};
use crate::error::{Error, Result};
use crate::weights::{Adapter, Component, Loaded, TensorSource, apply, is_adapter_key, open_sources};

impl Assistant {
    /// The adapter in `dir` over this assistant, which was loaded from `base` with `options`. Both share the decoder's weights, and
    /// towers that are the same; the adapter stays beside the matrices, and its bridges are its own.
    ///
    /// # Errors
    /// Where a file is missing or damaged, the adapter is one over another decoder, or its folder holds weights of the decoder.
    pub fn with_adapter(
        &self,
        dir: &Path,
        (base, options): (&Path, &AssistantOptions),
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let adapter = Adapter::open(dir)?;
        let whole = |keys: &[Component]| -> Vec<&str> {
            let of = |key: &str| Component::of_key(key).is_some_and(|component| keys.contains(&component));
            adapter.whole().iter().map(|(key, _)| key).filter(|key| of(key)).collect()
        };
        let decoder = whole(&[Component::Llm]);
        if !decoder.is_empty() {
            return Err(Error::Config(format!(
                "{}: beside the adapter it holds weights of the decoder itself, which several cannot share: {}",
                dir.display(),
                decoder.join(", ")
            )));
        }
        let small = SmallFiles::read(dir, Some(base), options)?;
        let own = self.model.config();
        let mut config = small.config.clone();
        config.llm.vocab_pieces = own.llm.vocab_pieces;
        if sizes(&config.llm) != sizes(&own.llm) {
            return Err(Error::Config(format!(
                "{}: the adapter lies over a decoder of other sizes than the one in {}",
                dir.display(),
                base.display()
            )));
        }
        let mut model = config.init(&self.model.llm.device())?;
        model.llm = self.model.llm.clone();
        model.llm.add_adapter(&adapter.config)?;
        // A tower that was trained with the adapter lies beside it.
        let own_tower = !whole(&[Component::VisionTower, Component::TextTower]).is_empty();
        let same_towers = !own_tower && same_towers(&config, own);
        if same_towers {
            model.vision_tower = self.model.vision_tower.clone();
            model.text_tower = self.model.text_tower.clone();
        }
        let shared = |key: &str| match Component::of_key(key) {
            Some(Component::Llm) => !is_adapter_key(key),
            Some(Component::VisionTower | Component::TextTower) => same_towers,
            _ => false,
        };
        let mut source = adapter.matrices().clone();
        let rest = open_sources(dir, &config, Some(base))?.without_adapter();
        source.merge(rest, |key| (!shared(key)).then(|| key.to_owned()));
        let source: TensorSource = source;
        let (model, mut report) = apply(model, &source, options.dtype, &shared, &mut |count| {
            progress(count);
            Ok(())
        })?;
        report.initialised.retain(|key| !shared(key));
        small.complete(Loaded { model, report }, options)
    }
}

/// What decides the shapes of a decoder's weights.
fn sizes(llm: &LlmConfig) -> [usize; 7] {
    let LlmConfig { vocab_size, hidden_size, intermediate_size, num_hidden_layers, .. } = *llm;
    let heads = [llm.num_attention_heads, llm.num_key_value_heads, llm.head_dim];
    [vocab_size, hidden_size, intermediate_size, num_hidden_layers, heads[0], heads[1], heads[2]]
}

fn same_towers(one: &ModelConfig, other: &ModelConfig) -> bool {
    let towers = |config: &ModelConfig| {
        config.multimodal.as_ref().map(|mm| (mm.vision.clone(), mm.text.clone(), mm.towers.clone()))
    };
    towers(one).is_some() && towers(one) == towers(other)
}
