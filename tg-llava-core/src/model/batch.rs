use burn::tensor::Tensor;

use super::{GuideTexts, ImageBatch};
use crate::multimodal::{SplicePlan, SpliceRow};

/// Samples that go through the model together.
#[derive(Debug, Clone)]
pub struct ModelBatch {
    /// Text, labels and picture marks of each sample.
    pub rows: Vec<SpliceRow>,
    /// The pictures of all samples; `None` where no sample has one.
    pub images: Option<ImageBatch>,
    /// The questions that guide them.
    pub guides: GuideTexts,
}

/// A pass through the model.
#[derive(Debug, Clone)]
pub struct ForwardOutput {
    /// What stands where.
    pub plan: SplicePlan,
    /// `[batch, len, llm_hidden]`, behind the final norm.
    pub hidden_states: Tensor<3>,
}
