use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use burn::tensor::{DType, Device};

use super::Codecs;
use crate::config::{GenerationDefaults, GuidePadding, ModelConfig, folder_name, read_model_config_over};
use crate::conversation::{GuideTurn, Template};
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Sampling};
use crate::model::TgLlava;
use crate::preprocess::{DetailSource, ImageProcessor};
use crate::tokenizer::{GuideTokenizer, TextTokenizer};
use crate::weights::{
    Adapter, LoadOptions, LoadReport, Loaded, MapFile, Quantization, base_of, load_model_while,
};

/// How an [`Assistant`] is put together; `None` keeps what the checkpoint says.
#[derive(Debug, Clone)]
pub struct AssistantOptions {
    /// Dtype of the weights in memory.
    pub dtype: DType,
    /// The plain decoder (see [`LoadOptions::base`]).
    pub base: Option<PathBuf>,
    /// Name of the conversation template.
    pub template: Option<String>,
    /// Which human turn guides the pictures.
    pub guide_turn: Option<GuideTurn>,
    /// Whether guide texts see their padding.
    pub guide_padding: Option<GuidePadding>,
    /// What the detail crops show.
    pub detail_source: Option<DetailSource>,
    /// The device's largest buffer in bytes, where it has a narrow limit (see [`LoadOptions::largest_buffer`]).
    pub largest_buffer: Option<u64>,
    /// Formats of the decoder's matrices (see [`LoadOptions::quantization`]).
    pub quantization: Option<Quantization>,
    /// How files are shown without being read into memory (see [`LoadOptions::map_file`]).
    pub map_file: Option<MapFile>,
}

impl Default for AssistantOptions {
    /// f32, everything else as the checkpoint says.
    fn default() -> Self {
        Self {
            dtype: DType::F32,
            base: None,
            template: None,
            guide_turn: None,
            guide_padding: None,
            detail_source: None,
            largest_buffer: None,
            quantization: None,
            map_file: None,
        }
    }
}

/// What a conversation needs besides the model.
pub(super) struct SmallFiles {
    pub config: ModelConfig,
    codecs: Codecs,
    template: Template,
    defaults: GenerationDefaults,
}

impl SmallFiles {
    /// Those of a folder, which may lie over the decoder in `base`.
    pub fn read(dir: &Path, base: Option<&Path>, options: &AssistantOptions) -> Result<Self> {
        let config = read_model_config_over(dir, base)?;
        let codecs = Codecs::load(dir, base, &config)?;
        let declared = options.template.as_deref().or(config.conversation.as_deref());
        // An adapter may be called anything.
        let named = base.filter(|_| Adapter::is_in(dir)).unwrap_or(dir);
        let template = Template::for_model(declared, &folder_name(named), &codecs.tokenizer)?.clone();
        let defaults = GenerationDefaults::read_over(dir, base)?;
        Ok(Self { config, codecs, template, defaults })
    }

    /// With the model.
    pub fn complete(self, loaded: Loaded, options: &AssistantOptions) -> Result<Assistant> {
        let Self { codecs: Codecs { tokenizer, guide_tokenizer, processor }, template, defaults, .. } = self;
        let Loaded { mut model, report } = loaded;
        model.configure(|config| {
            if let Some(mm) = &mut config.multimodal {
                mm.guide_turn = options.guide_turn.unwrap_or(mm.guide_turn);
                mm.guide_padding = options.guide_padding.unwrap_or(mm.guide_padding);
                mm.detail_source = options.detail_source.unwrap_or(mm.detail_source);
            }
        })?;
        Ok(Assistant { model, tokenizer, guide_tokenizer, processor, template, defaults, report })
    }
}

/// A loaded checkpoint with all that a conversation needs.
#[derive(Debug)]
pub struct Assistant {
    /// The model.
    pub model: TgLlava,
    /// The decoder's tokenizer.
    pub tokenizer: TextTokenizer,
    /// The text tower's tokenizer, where there is a text tower.
    pub guide_tokenizer: Option<GuideTokenizer>,
    /// Pictures to pixels, where there is a vision tower.
    pub processor: Option<ImageProcessor>,
    /// How conversations are written.
    pub template: Template,
    /// The checkpoint's own wishes for generation.
    pub defaults: GenerationDefaults,
    /// What loading found.
    pub report: LoadReport,
}

impl Assistant {
    /// Loads a checkpoint folder. `progress` is called with the number of values that each tensor brought.
    ///
    /// # Errors
    /// Where a file is missing or damaged, or weights and configuration do not fit together.
    pub fn load(
        dir: &Path,
        device: &Device,
        options: &AssistantOptions,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let base = base_of(dir, options.base.as_deref())?;
        let load = LoadOptions {
            base: base.clone(),
            dtype: options.dtype,
            largest_buffer: options.largest_buffer,
            quantization: options.quantization,
            map_file: options.map_file,
        };
        // A tokenizer takes as long as the weights of a small model; what is wrong with it shows before those of a large one are read.
        let failed = AtomicBool::new(false);
        thread::scope(|scope| {
            let small = scope.spawn(|| {
                let small = SmallFiles::read(dir, base.as_deref(), options);
                failed.store(small.is_err(), Ordering::Relaxed);
                small
            });
            let loaded = load_model_while(dir, device, &load, &mut |count| {
                progress(count);
                match failed.load(Ordering::Relaxed) {
                    true => Err(Error::Request("a model without a tokenizer".into())),
                    false => Ok(()),
                }
            });
            let small = small.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            small.complete(loaded?, options)
        })
    }

    /// The checkpoint's own generation settings: greedy unless it asks for sampling, and everything that
    /// ends a turn in its template.
    pub fn generate_options(&self) -> GenerateOptions {
        let defaults = &self.defaults;
        let sampling = match defaults.do_sample {
            true => Sampling::Random {
                temperature: defaults.temperature.unwrap_or(1.0),
                top_k: defaults.top_k.unwrap_or(50),
                top_p: defaults.top_p.unwrap_or(1.0),
                seed: 0,
            },
            false => Sampling::Greedy,
        };
        GenerateOptions {
            sampling,
            repetition_penalty: defaults.repetition_penalty.unwrap_or(1.0),
            ..GenerateOptions::for_turns(&self.template, &self.tokenizer, &self.model.config().llm)
        }
    }
}
