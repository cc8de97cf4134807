use burn::tensor::{DType, Int, Tensor, TensorData};

use super::{GenerateOptions, Sampler};
use crate::error::{Error, Result};
use crate::llm::TokenBatch;
use crate::model::TgLlava;
use crate::multimodal::SplicePlan;
use crate::nn::{KvCache, cast_to};

/// Tokens of a batch's answers, one a row at each step, over a KV cache.
///
/// Rows end on their own; a row that ended takes no part in the others' results.
#[derive(Debug)]
pub struct Decoding<'m> {
    model: &'m TgLlava,
    options: GenerateOptions,
    cache: KvCache,
    samplers: Vec<Sampler>,
    answers: Vec<Vec<i64>>,
    ended: Vec<bool>,
    /// Position of each row's next token.
    next_positions: Vec<usize>,
    /// Scores that the next tokens are chosen by.
    logits: Tensor<2>,
    budget: usize,
}

impl<'m> Decoding<'m> {
    /// Reads the prompts (`inputs_embeds`, laid out as `plan` says).
    ///
    /// # Shapes
    /// - inputs_embeds: `[batch, len, hidden]`
    ///
    /// # Errors
    /// [`Error::Request`] where an option is out of range or a prompt leaves no room in the context.
    pub fn start(
        model: &'m TgLlava,
        plan: &SplicePlan,
        inputs_embeds: Tensor<3>,
        options: GenerateOptions,
    ) -> Result<Self> {
        options.validate()?;
        let context = model.config().llm.context_length();
        let longest = plan.mask.iter().map(|row| row.iter().filter(|&&real| real).count()).max().unwrap_or(0);
        if let Some(cut) = plan.truncated.iter().find(|&&cut| cut > 0) {
            return Err(Error::Request(format!(
                "the prompt is {cut} token(s) longer than the {} that this checkpoint takes; shorten it or show fewer pictures",
                model.config().max_length
            )));
        }
        if longest >= context {
            return Err(Error::Request(format!(
                "the prompt has {longest} tokens and the model's context {context}; shorten it or show fewer pictures"
            )));
        }
        let budget = options.max_new_tokens.min(context - longest);
        let batch = plan.batch();
        let mut cache = model.llm.new_cache(batch, plan.len() + budget);
        let tokens = TokenBatch { positions: plan.positions.clone(), mask: plan.mask.clone() };
        let hidden = model.llm.forward(inputs_embeds, &tokens, Some(&mut cache));
        let last = plan.last_columns();
        let next_positions = last.iter().enumerate().map(|(row, &c)| plan.positions[row][c] + 1).collect();
        let logits = model.llm.logits(select_columns(hidden, &last));
        Ok(Self {
            model,
            samplers: (0..batch).map(|row| Sampler::new(&options, row)).collect(),
            options,
            cache,
            answers: vec![Vec::new(); batch],
            ended: vec![false; batch],
            next_positions,
            logits,
            budget,
        })
    }

    /// Scores of the next token of each row, `[batch, vocab_size]`.
    pub fn logits(&self) -> Tensor<2> {
        self.logits.clone()
    }

    /// Tokens of each row so far, the ending one included.
    pub fn answers(&self) -> &[Vec<i64>] {
        &self.answers
    }

    /// Whether a row met an end-of-turn token.
    pub fn ended(&self, row: usize) -> bool {
        self.ended[row]
    }

    /// Chooses the next token of each row; `None` for rows that have ended. `Ok(None)` once all have, or
    /// the budget is spent.
    ///
    /// # Errors
    /// [`Error::Request`] where the device could not give the scores.
    pub fn step(&mut self) -> Result<Option<Vec<Option<i64>>>> {
        let steps = self.answers.iter().map(Vec::len).max().unwrap_or(0);
        if steps >= self.budget || self.ended.iter().all(|&ended| ended) {
            return Ok(None);
        }
        if steps > 0 {
            self.feed();
        }
        let [batch, vocab] = self.logits.dims();
        let scores = cast_to(self.logits.clone(), DType::F32).try_into_vec_as::<f32>();
        let mut scores = scores
            .map_err(|e| Error::Request(format!("the device could not compute the next token: {e}")))?;
        let mut chosen = Vec::with_capacity(batch);
        for row in 0..batch {
            if self.ended[row] {
                chosen.push(None);
                continue;
            }
            let row_scores = &mut scores[row * vocab..(row + 1) * vocab];
            let token = self.samplers[row].next(row_scores, &self.answers[row]);
            self.ended[row] = self.options.eos_token_ids.contains(&token);
            self.answers[row].push(token);
            chosen.push(Some(token));
        }
        Ok(Some(chosen))
    }

    /// Reads the tokens that were chosen last.
    fn feed(&mut self) {
        // Rows that have ended repeat their last token; nothing reads what comes of it.
        let tokens: Vec<i64> = self.answers.iter().map(|row| row.last().copied().unwrap_or(0)).collect();
        let batch = tokens.len();
        let embeds = self.model.llm.embed(&tokens);
        let hidden = embeds.dims()[1];
        let new = TokenBatch {
            positions: self.next_positions.iter().map(|&p| vec![p]).collect(),
            mask: vec![vec![true]; batch],
        };
        let states = self.model.llm.forward(embeds.reshape([batch, 1, hidden]), &new, Some(&mut self.cache));
        self.logits = self.model.llm.logits(states.reshape([batch, hidden]));
        self.next_positions.iter_mut().for_each(|p| *p += 1);
    }
}

/// One column of each row: `[batch, len, hidden]` to `[batch, hidden]`.
fn select_columns(hidden: Tensor<3>, columns: &[usize]) -> Tensor<2> {
    let [batch, len, width] = hidden.dims();
    let indices: Vec<i64> = columns.iter().enumerate().map(|(row, c)| (row * len + c) as i64).collect();
    let indices: Tensor<1, Int> = Tensor::from_data(TensorData::new(indices, [batch]), &hidden.device());
    hidden.reshape([batch * len, width]).select(0, indices)
}
