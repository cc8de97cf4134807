use super::Llm;
use crate::nn::Matrix;
use crate::quant::MatrixSite;

impl Llm {
    /// The matrices that may be quantised; the vocabulary's tables are among them where they are whole.
    pub fn matrices(&self) -> impl Iterator<Item = (MatrixSite, &Matrix)> {
        let whole = self.embed_tokens_more.is_empty();
        let embedding = Some((MatrixSite::Embedding, &self.embed_tokens.weight));
        let head = self.lm_head.as_ref().map(|head| (MatrixSite::Head, &head.weight));
        let blocks = self.layers.iter().enumerate().flat_map(|(layer, block)| {
            block.linears().map(move |(name, linear)| (MatrixSite::Block { layer, name }, &linear.weight))
        });
        embedding.into_iter().chain(head).filter(move |_| whole).chain(blocks)
    }

    /// The same, to change them.
    pub fn matrices_mut(&mut self) -> impl Iterator<Item = (MatrixSite, &mut Matrix)> {
        let whole = self.embed_tokens_more.is_empty();
        let embedding = Some((MatrixSite::Embedding, &mut self.embed_tokens.weight));
        let head = self.lm_head.as_mut().map(|head| (MatrixSite::Head, &mut head.weight));
        let blocks = self.layers.iter_mut().enumerate().flat_map(|(layer, block)| {
            block
                .linears_mut()
                .map(move |(name, linear)| (MatrixSite::Block { layer, name }, &mut linear.weight))
        });
        embedding.into_iter().chain(head).filter(move |_| whole).chain(blocks)
    }
}
