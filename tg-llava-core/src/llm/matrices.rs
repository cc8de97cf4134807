use super::Llm;
use crate::nn::Matrix;
use crate::quant::MatrixSite;

impl Llm {
    /// The matrices that may be quantised; the pieces of a table of the vocabulary follow each other under one name.
    pub fn matrices(&self) -> impl Iterator<Item = (MatrixSite, &Matrix)> {
        let embedding = std::iter::once(&self.embed_tokens).chain(&self.embed_tokens_more);
        let embedding = embedding.map(|table| (MatrixSite::Embedding, &table.weight));
        let head = self.lm_head.iter().chain(&self.lm_head_more);
        let head = head.map(|head| (MatrixSite::Head, &head.weight));
        let blocks = self.layers.iter().enumerate().flat_map(|(layer, block)| {
            block.linears().map(move |(name, linear)| (MatrixSite::Block { layer, name }, &linear.weight))
        });
        embedding.chain(head).chain(blocks)
    }

    /// The same, to change them.
    pub fn matrices_mut(&mut self) -> impl Iterator<Item = (MatrixSite, &mut Matrix)> {
        let embedding = std::iter::once(&mut self.embed_tokens).chain(&mut self.embed_tokens_more);
        let embedding = embedding.map(|table| (MatrixSite::Embedding, &mut table.weight));
        let head = self.lm_head.iter_mut().chain(&mut self.lm_head_more);
        let head = head.map(|head| (MatrixSite::Head, &mut head.weight));
        let blocks = self.layers.iter_mut().enumerate().flat_map(|(layer, block)| {
            block
                .linears_mut()
                .map(move |(name, linear)| (MatrixSite::Block { layer, name }, &mut linear.weight))
        });
        embedding.chain(head).chain(blocks)
    }
}
