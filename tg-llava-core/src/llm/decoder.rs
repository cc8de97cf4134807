use burn::module::Module;
use burn::nn::{RmsNorm, RmsNormConfig};
use burn::tensor::{DType, Device, Tensor};

use super::DecoderLayer;
use crate::config::LlmConfig;
use crate::nn::{
    BlockLinear, CachedTexts, KvCache, RotaryConfig, RotaryTables, RowsAlike, TokenTable, causal_bias,
    combine_bias, key_padding_bias, rms_norm,
};

/// A causal language model of the Llama or Qwen2 family.
#[derive(Module, Debug)]
pub struct Llm {
    /// One vector a token; of the first piece of the vocabulary where it is in pieces.
    pub embed_tokens: TokenTable,
    /// The other pieces (see [`LlmConfig::vocab_pieces`]).
    pub embed_tokens_more: Vec<TokenTable>,
    /// Blocks.
    pub layers: Vec<DecoderLayer>,
    /// Norm behind the last block.
    pub norm: RmsNorm,
    /// Output head; absent where it is the embedding matrix.
    pub lm_head: Option<BlockLinear>,
    /// The other pieces of the head.
    pub lm_head_more: Vec<BlockLinear>,
    #[module(skip)]
    rotary: RotaryConfig,
    num_kv_heads: usize,
}

/// Where a batch's tokens stand, and which of them are real; rows of equal length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    /// Position of each token in its sample.
    pub positions: Vec<Vec<usize>>,
    /// False for padding.
    pub mask: Vec<Vec<bool>>,
}

/// What every block of one pass shares.
#[derive(Debug, Clone)]
pub struct DecoderContext {
    /// Cosines and sines of the tokens' positions.
    pub rotary: RotaryTables,
    /// What may be seen, `[batch or 1, 1, len or 1, len]`; `None` where everything may, or the cache says it.
    pub bias: Option<Tensor<4>>,
}

impl LlmConfig {
    /// A randomly initialised decoder.
    pub fn init(&self, device: &Device) -> Llm {
        let std = self.initializer_range;
        let embedding = |size: usize| TokenTable::init(size, self.hidden_size, std, device);
        let head = |size: usize| BlockLinear::init(self.hidden_size, size, false, std, device);
        let sizes = self.piece_sizes();
        let (&first, more) = sizes.split_first().unwrap_or((&0, &[]));
        Llm {
            embed_tokens: embedding(first),
            embed_tokens_more: more.iter().map(|&size| embedding(size)).collect(),
            layers: (0..self.num_hidden_layers).map(|_| DecoderLayer::init(self, device)).collect(),
            norm: RmsNormConfig::new(self.hidden_size).with_epsilon(self.rms_norm_eps).init(device),
            lm_head: (!self.tie_word_embeddings).then(|| head(first)),
            lm_head_more: match self.tie_word_embeddings {
                true => Vec::new(),
                false => more.iter().map(|&size| head(size)).collect(),
            },
            rotary: self.rotary(),
            num_kv_heads: self.num_key_value_heads,
        }
    }
}

impl Llm {
    /// Vectors of token ids, `[ids.len(), hidden]`.
    pub fn embed(&self, ids: &[i64]) -> Tensor<2> {
        self.vocabulary().embed(ids)
    }

    /// A cache without any slot, in the dtype of the weights.
    pub fn new_cache(&self) -> KvCache {
        let token = [self.num_kv_heads, self.rotary.head_dim];
        KvCache::new(self.layers.len(), token, self.dtype(), &self.device())
    }

    /// The texts of [`Llm::forward`] whose states and scores are to the bit those of each text alone.
    pub fn rows_alike(&self) -> RowsAlike {
        let linears = self.layers.iter().flat_map(DecoderLayer::linears);
        linears.fold(self.vocabulary().rows_alike(), |alike, (_, layer)| alike.and(layer.rows_alike()))
    }

    /// Prepares rotary tables and masks for whole texts.
    pub(super) fn context(&self, tokens: &TokenBatch) -> DecoderContext {
        let device = self.device();
        let len = tokens.positions.first().map_or(0, Vec::len);
        let padded = tokens.mask.iter().flatten().any(|&real| !real);
        let causal = (len > 1).then(|| causal_bias(0..len, len, &device));
        DecoderContext {
            rotary: self.rotary.tables(&tokens.positions, &vec![len; tokens.positions.len()], &device),
            bias: combine_bias(causal, padded.then(|| key_padding_bias(&tokens.mask, &device))),
        }
    }

    /// Hidden states of new tokens behind the final norm, one text behind the other, with what `cache` holds of each text
    /// before them. Whole texts without a cache go through [`Llm::walk`].
    ///
    /// # Shapes
    /// - inputs_embeds: `[1, num_new, hidden]`, output the same
    ///
    /// # Panics
    /// Where these are not as many as `cache` expects: a programmer's error.
    pub fn forward(&self, inputs_embeds: Tensor<3>, mut cache: CachedTexts<'_>) -> Tensor<3> {
        assert_eq!(inputs_embeds.dims()[1], cache.num_new(), "one input a new token");
        let [_, num_new, width] = inputs_embeds.dims();
        let mut rotary = self.rotary.tables_in_a_row(&cache.positions(), &self.device());
        let mut hidden = inputs_embeds;
        // Texts of one row are no text of many rows.
        if cache.are_single() {
            hidden = hidden.reshape([num_new, 1, width]);
            rotary = rotary.one_a_sample();
        }
        // The cache knows what each text may see.
        let context = DecoderContext { rotary, bias: None };
        for (index, layer) in self.layers.iter().enumerate() {
            hidden = layer.forward(hidden, &context, Some(cache.layer(index)));
        }
        cache.advance();
        rms_norm(&self.norm, hidden).reshape([1, num_new, width])
    }

    /// Scores of every token of the vocabulary.
    ///
    /// # Shapes
    /// - hidden_states: `[rows, hidden]`, output: `[rows, vocab_size]`
    pub fn logits(&self, hidden_states: Tensor<2>) -> Tensor<2> {
        self.vocabulary().logits(hidden_states)
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.norm.gamma.device()
    }

    /// The dtype of the weights, and of what is computed.
    pub fn dtype(&self) -> DType {
        self.norm.gamma.dtype()
    }
}
