//! The vocabulary's tables, whole or in pieces.

use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::Llm;
use crate::nn::{apply_linear, apply_tied};

/// Embedding and head of a decoder. Each is whole, or in pieces that follow each other along the vocabulary (see
/// [`LlmConfig::vocab_pieces`](crate::config::LlmConfig::vocab_pieces)); nobody else needs to know which.
pub(super) struct VocabTable<'a> {
    /// All of one size but the last.
    embedding: Vec<&'a Embedding>,
    /// As many, or none where the head is the embedding.
    head: Vec<&'a Linear>,
}

impl Llm {
    /// The tables, which the module holds under the names that optimizer states and checkpoints know.
    pub(super) fn vocabulary(&self) -> VocabTable<'_> {
        VocabTable {
            embedding: std::iter::once(&self.embed_tokens).chain(&self.embed_tokens_more).collect(),
            head: self.lm_head.iter().chain(&self.lm_head_more).collect(),
        }
    }
}

impl VocabTable<'_> {
    /// Vectors of token ids, `[ids.len(), hidden]`.
    pub fn embed(&self, ids: &[i64]) -> Tensor<2> {
        let [table] = self.embedding[..] else { return self.embed_in_pieces(ids) };
        pick(table, ids.to_vec())
    }

    /// Every piece gives the vectors of its own tokens, which are then put in order.
    fn embed_in_pieces(&self, ids: &[i64]) -> Tensor<2> {
        let first = self.embedding[0];
        let size = first.weight.dims()[0] as i64;
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
                found.push(pick(table, rows));
            }
        }
        match found.is_empty() {
            true => pick(first, Vec::new()),
            false => Tensor::cat(found, 0).select(0, indices(order, &first.weight.device())),
        }
    }

    /// Scores of every token of the vocabulary.
    ///
    /// # Shapes
    /// - hidden_states: `[rows, hidden]`, output: `[rows, vocab_size]`
    pub fn logits(&self, hidden_states: Tensor<2>) -> Tensor<2> {
        let mut pieces: Vec<Tensor<2>> = match self.head.is_empty() {
            false => self.head.iter().map(|head| apply_linear(head, hidden_states.clone())).collect(),
            true => {
                let tables = self.embedding.iter().map(|table| table.weight.val());
                tables.map(|table| apply_tied(table, hidden_states.clone())).collect()
            }
        };
        match pieces.len() {
            1 => pieces.remove(0),
            _ => Tensor::cat(pieces, 1),
        }
    }
}

fn pick(table: &Embedding, rows: Vec<i64>) -> Tensor<2> {
    let rows = indices(rows, &table.weight.device());
    table.weight.val().select(0, rows)
}

fn indices(rows: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let count = rows.len();
    Tensor::from_data(TensorData::new(rows, [count]), device)
}
