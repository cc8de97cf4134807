//! The weights that a run starts with.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::tensor::{DType, Device, Distribution, Tensor};
use tg_llava_core::config::ModelConfig;
use tg_llava_core::model::TgLlava;
use tg_llava_core::nn::cast_to;
use tg_llava_core::weights::{
    Adapter, LoadReport, ParameterMapper, ParameterPath, Quantization, TensorSource, apply, fill_quantised,
    is_adapter_key, map_parameters, open_bridges, open_sources,
};

use super::{ModelSetup, StartError};
use crate::config::{BaseFormat, Bridges, Component, Init, TrainConfig};

/// A model ready to learn.
#[derive(Debug)]
pub struct Started {
    /// The model, every weight on the device.
    pub model: TgLlava,
    /// What loading found; `initialised` lists the keys that are fresh.
    pub report: LoadReport,
}

/// Loads or draws the weights of `setup` on `device`; `checkpoint` is the folder of a save to go on from.
///
/// # Errors
/// Where a file is missing or damaged, or does not fit the model.
pub fn load_weights(
    config: &TrainConfig,
    setup: &ModelSetup,
    checkpoint: Option<&Path>,
    device: &Device,
    dtype: DType,
    progress: &mut dyn FnMut(usize),
) -> Result<Started, StartError> {
    // Fresh weights follow the seed; a CPU backend has one generator a process.
    device.seed(config.seed);
    let mut model = setup.model.init(device)?;
    if let Some(lora) = setup.adapter(config) {
        model.llm.add_adapter(&lora)?;
    }
    let whole = |dir: &Path| TensorSource::folder_has_weights(dir);
    let source = match (checkpoint, config.model.init) {
        (Some(dir), _) if whole(dir) => open_sources(dir, &setup.model, None)?,
        (Some(dir), _) => {
            let mut source = match config.lora {
                Some(_) => adapter_sources(dir)?,
                None => open_bridges(&[dir.to_path_buf()])?,
            };
            source.merge(start_sources(config, setup)?, |key| Some(key.to_owned()));
            source
        }
        (None, Init::Random) => TensorSource::default(),
        (None, Init::Checkpoint) => start_sources(config, setup)?,
    };
    if source.is_empty() {
        let model = map_parameters(model, &mut TrainableWeights { dtype, std: config.model.init_std });
        return Ok(Started { model, report: LoadReport::default() });
    }
    // A bridge is fresh as a whole or not at all.
    let present: BTreeSet<Component> = source.iter().filter_map(|(key, _)| bridge_of(key)).collect();
    let fresh =
        |key: &str| bridge_of(key).is_some_and(|bridge| !present.contains(&bridge)) || is_adapter_key(key);
    let may_be_missing = |key: &str| checkpoint.is_none() && fresh(key);
    let without = |key: &str| left_out(key, &setup.model);
    let mut kept = TensorSource::default();
    kept.merge(source.clone(), |key| (!without(key)).then(|| key.to_owned()));
    let mut heard = |count| {
        progress(count);
        Ok(())
    };
    let quantised = match config.lora.as_ref().map(|lora| lora.base) {
        None | Some(BaseFormat::Float) => LoadReport::default(),
        Some(base) => {
            let quantization = Quantization { encoding: base.encoding(), ..Quantization::default() };
            fill_quantised(&mut model.llm, &mut kept, quantization, &mut heard)?
        }
    };
    let (model, report) = apply(model, &kept, dtype, &may_be_missing, &mut heard)?;
    let model = map_parameters(model, &mut TrainableWeights { dtype, std: None });
    Ok(Started { model, report: quantised.and(report) })
}

/// What a checkpoint of a run with an adapter holds.
fn adapter_sources(dir: &Path) -> Result<TensorSource, StartError> {
    let adapter = Adapter::open(dir)?;
    let mut source = adapter.matrices().clone();
    source.merge(adapter.whole().clone(), |key| Some(key.to_owned()));
    Ok(source)
}

/// Everything that the start holds, with bridges that were named apart before all others.
fn start_sources(config: &TrainConfig, setup: &ModelSetup) -> Result<TensorSource, StartError> {
    let files: Vec<PathBuf> = match &config.model.bridges {
        None => Vec::new(),
        Some(Bridges::Folder(folder)) => vec![folder.clone()],
        Some(Bridges::Files(files)) => [&files.projector, &files.feature_guide, &files.detail_perceiver]
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
    };
    let mut source = open_bridges(&files)?;
    let start = open_sources(&setup.start, &setup.model, setup.base.as_deref())?;
    source.merge(start, |key| Some(key.to_owned()));
    Ok(source)
}

/// The bridge that a key belongs to.
fn bridge_of(key: &str) -> Option<Component> {
    Component::of_key(key).filter(|component| Component::BRIDGES.contains(component))
}

/// Whether a key belongs to a part that the run leaves out.
fn left_out(key: &str, model: &ModelConfig) -> bool {
    let mm = model.multimodal.as_ref();
    match Component::of_key(key) {
        Some(Component::FeatureGuide) => mm.is_none_or(|mm| mm.guide.is_none()),
        Some(Component::DetailPerceiver) => mm.is_none_or(|mm| mm.detail.is_none()),
        Some(Component::TextTower) => mm.is_none_or(|mm| mm.text.is_none()),
        _ => false,
    }
}

/// Draws what is not drawn yet, in the order of the module tree, and brings all to one dtype and layout.
struct TrainableWeights {
    dtype: DType,
    /// Standard deviation of matrices and convolutions, where it is not the usual one.
    std: Option<f64>,
}

impl TrainableWeights {
    /// The standard deviation that the parameter at `path` is drawn with, where it is not the usual one. The
    /// guide's last layer stays zero.
    fn std<const D: usize>(&self, path: &ParameterPath) -> Option<f64> {
        let drawn = path.is_linear_weight() || D == 4;
        self.std.filter(|_| drawn && !path.dotted().contains("zero_layer"))
    }
}

impl ParameterMapper for TrainableWeights {
    fn map<const D: usize>(&mut self, path: &ParameterPath, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let std = self.std::<D>(path);
        let (id, tensor, mapper) = param.consume();
        let tensor = tensor.inner();
        let tensor = match std {
            Some(std) => tensor.random_like(Distribution::Normal(0.0, std)),
            None => tensor,
        };
        // Loaded matrices are transposed views, and a product rounds differently over another layout: as the
        // optimizer leaves them, so that a resumed run computes the same bits.
        let (shape, count) = (tensor.dims(), tensor.shape().num_elements());
        let tensor = cast_to(tensor, self.dtype).reshape([count]).reshape(shape);
        Param::from_mapped_value(id, Tensor::from_inner(tensor).require_grad(), mapper)
    }
}
