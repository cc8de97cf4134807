use super::Llm;
use crate::nn::Matrix;
use crate::quant::MatrixSite;

macro_rules! matrices_of {
    ($llm:expr, $iter:ident, $as_ref:ident $(, $mutable:tt)?) => {{
        let whole = $llm.embed_tokens_more.is_empty();
        let embedding = Some((MatrixSite::Embedding, &$($mutable)? $llm.embed_tokens.weight));
        let head = $llm.lm_head.$as_ref().map(|head| (MatrixSite::Head, &$($mutable)? head.weight));
        let blocks = $llm.layers.$iter().enumerate().flat_map(|(layer, block)| {
            let (attention, mlp) = (&$($mutable)? block.self_attn, &$($mutable)? block.mlp);
            [
                ("self_attn.q_proj", &$($mutable)? attention.q_proj),
                ("self_attn.k_proj", &$($mutable)? attention.k_proj),
                ("self_attn.v_proj", &$($mutable)? attention.v_proj),
                ("self_attn.o_proj", &$($mutable)? attention.o_proj),
                ("mlp.gate_proj", &$($mutable)? mlp.gate_proj),
                ("mlp.up_proj", &$($mutable)? mlp.up_proj),
                ("mlp.down_proj", &$($mutable)? mlp.down_proj),
            ]
            .map(|(name, linear)| (MatrixSite::Block { layer, name }, &$($mutable)? linear.weight))
        });
        embedding.into_iter().chain(head).filter(move |_| whole).chain(blocks)
    }};
}

impl Llm {
    /// The matrices that may be quantised; the vocabulary's tables are among them where they are whole.
    pub fn matrices(&self) -> impl Iterator<Item = (MatrixSite, &Matrix)> {
        matrices_of!(self, iter, as_ref)
    }

    /// [`Llm::matrices`], to be replaced.
    pub fn matrices_mut(&mut self) -> impl Iterator<Item = (MatrixSite, &mut Matrix)> {
        matrices_of!(self, iter_mut, as_mut, mut)
    }
}
