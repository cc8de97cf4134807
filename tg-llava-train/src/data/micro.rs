//! What goes through the model at once: samples, where each of their tokens stands, and what is learned of them.

use tg_llava_core::{
    config::ModelConfig,
    multimodal::{MultimodalError, SplicePlan, SpliceRow, SpliceSettings},
    nn::LossTargets,
};

use super::{collate::Batch, example::Example};

/// A micro-batch, planned to the last token before any device hears of it.
///
/// Data workers make it, and leave out whatever could not be learned from, so that nothing of it can fail on the way
/// through the model. Its numbers are known before the first pass. It is empty where all of its samples were left
/// out; its place in the step stays.
#[derive(Debug, Clone, PartialEq)]
pub struct Micro<B = Batch> {
    /// The samples: plain buffers, or on a device as a [`ModelBatch`](tg_llava_core::model::ModelBatch).
    pub batch: B,
    /// Where each decoder input comes from.
    pub plan: SplicePlan,
    /// What is learned.
    pub targets: LossTargets,
    /// Ids of the samples, in their order.
    pub samples: Vec<String>,
}

impl Micro {
    /// The micro-batch of `examples` for `model`; `guide_pad` fills short guide texts.
    ///
    /// # Errors
    /// Where an example does not fit the model. [`Loader::micro`](super::Loader::micro) passes none that does not.
    pub fn new(examples: Vec<Example>, guide_pad: i64, model: &ModelConfig) -> Result<Self, MultimodalError> {
        let samples = examples.iter().map(|example| example.id.clone()).collect();
        let batch = Batch { examples, guide_pad };
        let (plan, targets) = plan(&batch.rows(), model)?;
        Ok(Self { batch, plan, targets, samples })
    }
}

impl<B> Micro<B> {
    /// Decoder tokens without padding.
    pub fn tokens(&self) -> usize {
        self.plan.mask.iter().flatten().filter(|&&real| real).count()
    }

    /// Tokens that are learned.
    pub fn supervised(&self) -> usize {
        self.targets.tokens.len()
    }

    /// Whether nothing is learned: all samples were left out.
    pub fn is_empty(&self) -> bool {
        self.targets.tokens.is_empty()
    }
}

/// Where the tokens of `rows` stand, and what is learned of them; nothing where there is nothing to learn.
pub(crate) fn plan(
    rows: &[SpliceRow],
    model: &ModelConfig,
) -> Result<(SplicePlan, LossTargets), MultimodalError> {
    let plan = SplicePlan::new(rows, SpliceSettings::of(model))?;
    let targets = match LossTargets::new(&plan.labels, model.llm.vocab_size) {
        Err(MultimodalError::NoLabels { .. }) => LossTargets { positions: Vec::new(), tokens: Vec::new() },
        targets => targets?,
    };
    Ok((plan, targets))
}
