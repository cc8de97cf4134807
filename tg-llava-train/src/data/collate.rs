//! Several samples as one batch.

use tg_llava_core::multimodal::SpliceRow;

use super::example::Example;

/// The samples of a micro-batch, each with its own length: the model pads after the pictures' features are spliced
/// in, and masks what it pads.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// The samples, in the sampler's order.
    pub examples: Vec<Example>,
    /// Id that fills short guide texts.
    pub guide_pad: i64,
}

impl Batch {
    /// Text, labels and picture marks of each sample; pictures are counted over the whole batch.
    pub fn rows(&self) -> Vec<SpliceRow> {
        let mut first = 0;
        let row = |example: &Example| {
            let row = example.row(first);
            first += example.pictures.len();
            row
        };
        self.examples.iter().map(row).collect()
    }
}
