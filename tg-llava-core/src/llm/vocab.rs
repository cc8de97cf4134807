//! The vocabulary's tables, whole or in pieces.

use burn::module::Param;
use burn::tensor::{Int, Tensor, TensorData};

use super::Llm;
use crate::nn::{BlockLinear, RowsAlike, TokenTable};

/// Embedding and head of a decoder. Each is whole, or in pieces that follow each other along the vocabulary (see
/// [`LlmConfig::vocab_pieces`](crate::config::LlmConfig::vocab_pieces)); nobody else needs to know which.
pub(super) struct VocabTable<'a> {
    /// All of one size but the last.
    embedding: Vec<&'a TokenTable>,
    /// As many, or none where the head is the embedding.
    head: Vec<&'a BlockLinear>,
    /// Another parameter of the decoder, for what does not know its device and dtype.
    like: &'a Param<Tensor<1>>,
}

impl Llm {
    /// The tables, which the module holds under the names that optimizer states and checkpoints know.
    pub(super) fn vocabulary(&self) -> VocabTable<'_> {
        VocabTable {
            embedding: std::iter::once(&self.embed_tokens).chain(&self.embed_tokens_more).collect(),
            head: self.lm_head.iter().chain(&self.lm_head_more).collect(),
            like: &self.norm.gamma,
        }
    }
}

impl VocabTable<'_> {
    /// Vectors of token ids, `[ids.len(), hidden]`.
    pub fn embed(&self, ids: &[i64]) -> Tensor<2> {
        let [table] = self.embedding[..] else { return self.embed_in_pieces(ids) };
        table.pick(ids.to_vec(), self.like)
    }

    /// Every piece gives the vectors of its own tokens, which are then put in order.
    fn embed_in_pieces(&self, ids: &[i64]) -> Tensor<2> {
        let first = self.embedding[0];
        let size = first.shape()[0] as i64;
        let mut order = vec![0; ids.len()];
        let (mut found, mut count) = (Vec::new(), 0);
        for (piece, table) in (0..).zip(&self.embedding) {
            let mut rows = Vec::new();
            for (place, id) in order.iter_mut().zip(ids).filter(|(_, id)| **id / size == piece) {
                *place = count + rows.len() as i64;
                rows.push(id - piece * size);
            }
            count += rows.len() as i64;
            if !rows.is_empty() {
                found.push(table.pick(rows, self.like));
            }
        }
        match found.is_empty() {
            true => first.pick(Vec::new(), self.like),
            false => {
                let order =
                    Tensor::<1, Int>::from_data(TensorData::new(order, [ids.len()]), &self.like.device());
                Tensor::cat(found, 0).select(0, order)
            }
        }
    }

    /// The rows that may go through [`VocabTable::logits`] together.
    pub fn rows_alike(&self) -> RowsAlike {
        let head = self.head.iter().map(|head| head.rows_alike());
        let tied = self.embedding.iter().filter(|_| self.head.is_empty()).map(|table| table.rows_alike());
        head.chain(tied).fold(RowsAlike::ANY, RowsAlike::and)
    }

    /// Scores of every token of the vocabulary.
    ///
    /// # Shapes
    /// - hidden_states: `[rows, hidden]`, output: `[rows, vocab_size]`
    pub fn logits(&self, hidden_states: Tensor<2>) -> Tensor<2> {
        let mut pieces: Vec<Tensor<2>> = match self.head.is_empty() {
            false => self.head.iter().map(|head| head.forward(hidden_states.clone())).collect(),
            true => self.embedding.iter().map(|table| table.scores(hidden_states.clone())).collect(),
        };
        match pieces.len() {
            1 => pieces.remove(0),
            _ => Tensor::cat(pieces, 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use crate::config::tiny;
    use crate::nn::{BlockLinear, Matrix, RowsAlike};
    use crate::quant::GgmlMatrix;
    use crate::quant::ggml::{GgmlType, quantise};

    #[test]
    fn rows_are_alike_as_every_layer_and_the_head_have_them() {
        let device = Device::flex();
        let config = tiny(64).llm;
        let plain = config.init(&device).rows_alike();
        // Narrow matrices over wide inputs, in blocks, ask for more rows than others.
        let narrow = || {
            let blocks = quantise(GgmlType::Q8_0, &[0.5; 8 * 1024], 1024);
            let weight = GgmlMatrix::new(GgmlType::Q8_0, [8, 1024], blocks).unwrap();
            BlockLinear { weight: Matrix::Quantised(weight.into()), bias: None, lora: None }
        };
        let wanted = narrow().rows_alike();
        assert!(wanted.many > plain.many, "{wanted:?} {plain:?}");
        let with = |change: &dyn Fn(&mut super::Llm)| -> RowsAlike {
            let mut llm = config.init(&device);
            change(&mut llm);
            llm.rows_alike()
        };
        assert_eq!(with(&|llm| llm.layers.last_mut().unwrap().mlp.up_proj = narrow()), plain.and(wanted));
        assert_eq!(with(&|llm| llm.lm_head = Some(narrow())), plain.and(wanted));
    }
}
