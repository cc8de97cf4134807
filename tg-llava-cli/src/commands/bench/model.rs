//! Random models of the published sizes, in memory as loaded ones are.

use burn::module::Param;
use burn::tensor::{DType, Device, Distribution, Tensor};
use tg_llava_core::config::{ModelConfig, PaddingSide, llm_preset, multimodal, tower_preset};
use tg_llava_core::model::TgLlava;
use tg_llava_core::weights::{ParameterMapper, ParameterPath, map_parameters, quantise_decoder};

use super::{Bench, BenchArgs};
use crate::failure::Failure;
use crate::quantised;

/// Which part of the model a phase computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The vision tower, as loading leaves it.
    Vision,
    /// The decoder, as loading leaves it.
    Decoder,
    /// The decoder, as training lays it out.
    TrainedDecoder,
}

/// The whole model of the presets.
///
/// # Errors
/// [`Failure::Input`] where the sizes do not fit together.
pub(super) fn config(args: &BenchArgs) -> Result<ModelConfig, Failure> {
    let unknown = |name: &str| Failure::input(format_args!("{name}: no such preset"));
    let mut llm = llm_preset(&args.preset).ok_or_else(|| unknown(&args.preset))?;
    let (vision, text) = tower_preset(&args.towers).ok_or_else(|| unknown(&args.towers))?;
    let longest = (args.prompt + args.new).max(args.seq);
    llm.max_position_embeddings = llm.max_position_embeddings.max(longest);
    Ok(ModelConfig {
        multimodal: Some(multimodal(vision, text, &args.towers, llm.hidden_size)),
        llm,
        conversation: None,
        max_length: longest,
        padding_side: PaddingSide::Right,
    })
}

impl Bench<'_> {
    /// A model of which `part` is in memory.
    ///
    /// # Errors
    /// [`Failure::Input`] where the sizes do not fit together.
    pub(super) fn model(&self, part: Part) -> Result<TgLlava, Failure> {
        let mut config = config(self.args)?;
        if part != Part::Vision {
            config.multimodal = None;
        }
        if let (Part::Decoder, Some(largest)) = (part, self.opened.largest_buffer()) {
            config.llm.fit_vocabulary(largest, self.opened.dtype.size());
        }
        let model = config.init(&self.opened.device).map_err(|error| Failure::Input(error.into()))?;
        let mut draw = Draw { part, device: &self.opened.device, dtype: self.opened.dtype };
        let mut model = map_parameters(model, &mut draw);
        if let (Part::Decoder, Some(quantization)) = (part, self.quantization) {
            quantised::tell(&quantise_decoder(&mut model.llm, quantization)?, self.console);
        }
        Ok(model)
    }
}

/// Draws the parameters of one part; the others stay as promises.
struct Draw<'a> {
    part: Part,
    device: &'a Device,
    dtype: DType,
}

impl ParameterMapper for Draw<'_> {
    fn map<const D: usize>(&mut self, path: &ParameterPath, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let of_vision = path.dotted().starts_with("vision_tower.");
        if of_vision != (self.part == Part::Vision) {
            return param;
        }
        let mut shape: Vec<usize> = param.lazy_shape().to_vec();
        // Files hold matrices transposed, and loading keeps them so.
        let transposed = path.is_linear_weight() && self.part != Part::TrainedDecoder;
        if transposed {
            shape.reverse();
        }
        let mean = if D == 1 { 1.0 } else { 0.0 };
        let tensor = Tensor::<D>::random(shape, Distribution::Normal(mean, 0.02), (self.device, self.dtype));
        let tensor = if transposed { tensor.transpose() } else { tensor };
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}
