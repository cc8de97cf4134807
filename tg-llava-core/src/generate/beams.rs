use super::GenerateOptions;
use super::sampler::penalised;
use super::text_stream::TextStream;
use crate::error::Result;

/// How a beam search goes on while better answers may come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// As long as the best running beam would beat the worst complete answer if it ended now (`false` of Hugging Face).
    #[default]
    Heuristic,
    /// Until there are as many complete answers as beams (`true`).
    AtOnce,
    /// As long as any running beam can still beat the worst complete answer (`"never"`).
    Never,
}

/// A beam search: the most probable answers as wholes, rather than token by token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamOptions {
    /// Answers that are followed at once.
    pub num_beams: usize,
    /// An answer's log-probability is divided by its length to this power: above 0 favours long answers, below 0 short ones.
    pub length_penalty: f64,
    /// When to stop.
    pub early_stopping: EarlyStopping,
}

impl BeamOptions {
    /// Hugging Face's defaults for a number of beams.
    pub fn new(num_beams: usize) -> Self {
        Self { num_beams, length_penalty: 1.0, early_stopping: EarlyStopping::default() }
    }
}

/// An answer, or the beginning of one.
#[derive(Debug, Clone)]
pub(super) struct Beam<'t> {
    /// Tokens, the ending one included.
    pub tokens: Vec<i64>,
    /// Sum of their log-probabilities; of a complete answer, with the length penalty.
    pub score: f64,
    /// The text so far, where stop strings are looked for.
    text: Option<TextStream<'t>>,
}

/// A beam search under way, as `GenerationMixin._beam_search` of transformers has it for one prompt. There a stop string ends an
/// answer just as a token does that ends it: its score is that of the tokens up to the one that completes the string.
#[derive(Debug)]
pub(super) struct BeamSearch<'t> {
    options: BeamOptions,
    /// Tokens that end an answer.
    eos_token_ids: Vec<i64>,
    repetition_penalty: f64,
    /// Longest answer, in tokens.
    budget: usize,
    /// Best first; at the start the prompt's end alone.
    running: Vec<Beam<'t>>,
    /// Complete answers, best first, at most one a beam.
    complete: Vec<Beam<'t>>,
    /// Whether running beams may still beat complete answers.
    can_improve: bool,
}

impl<'t> BeamSearch<'t> {
    /// A search as `options` have it, for answers of at most `budget` tokens; `text` looks for stop strings.
    pub fn new(options: &GenerateOptions, budget: usize, text: Option<TextStream<'t>>) -> Self {
        Self {
            options: options.beams.unwrap_or(BeamOptions::new(1)),
            eos_token_ids: options.eos_token_ids.clone(),
            repetition_penalty: options.repetition_penalty,
            budget,
            running: vec![Beam { tokens: Vec::new(), score: 0.0, text }],
            complete: Vec::new(),
            can_improve: true,
        }
    }

    /// Tokens of each running beam.
    pub fn len(&self) -> usize {
        self.running.first().map_or(0, |beam| beam.tokens.len())
    }

    /// Last tokens of the running beams.
    pub fn last_tokens(&self) -> impl Iterator<Item = i64> {
        self.running.iter().filter_map(|beam| beam.tokens.last().copied())
    }

    /// Takes the complete answers, best first.
    pub fn take_complete(&mut self) -> Vec<Beam<'t>> {
        std::mem::take(&mut self.complete)
    }

    /// Goes a token on, by the scores of the whole vocabulary behind each running beam: for each beam that runs then, which one it
    /// continues. `None` at the end.
    ///
    /// # Errors
    /// Where tokens are no text.
    pub fn advance(&mut self, scores: &[Vec<f32>]) -> Result<Option<Vec<usize>>> {
        let BeamOptions { num_beams, early_stopping, .. } = self.options;
        let candidates = self.candidates(scores)?;
        let ends = |beam: &Beam<'_>| {
            beam.tokens.len() >= self.budget
                || beam.tokens.last().is_some_and(|t| self.eos_token_ids.contains(t))
                || beam.text.as_ref().is_some_and(TextStream::stopped)
        };
        let at_once = early_stopping == EarlyStopping::AtOnce;
        let (mut parents, mut running, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for (place, (parent, beam)) in candidates.into_iter().enumerate() {
            if !ends(&beam) {
                if running.len() < num_beams {
                    parents.push(parent);
                    running.push(beam);
                }
            } else if place < num_beams && self.can_improve && !(at_once && self.complete.len() == num_beams)
            {
                // Less likely ones were candidates only so that there are enough to go on with.
                new.push(Beam { score: self.penalised_by_length(beam.score, beam.tokens.len()), ..beam });
            }
        }
        self.complete.extend(new);
        // Stable: among equals, the one that was there first.
        self.complete.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.complete.truncate(num_beams);
        self.running = running;
        let Some(best) = self.running.first() else { return Ok(None) };
        let full = self.complete.len() == num_beams;
        let worst = self.complete.last().filter(|_| full).map_or(f64::NEG_INFINITY, |beam| beam.score);
        let len = match early_stopping {
            EarlyStopping::Never if self.options.length_penalty > 0.0 => self.budget,
            _ => best.tokens.len(),
        };
        self.can_improve &= self.penalised_by_length(best.score, len) > worst;
        Ok((self.can_improve && !(full && at_once)).then_some(parents))
    }

    /// The most probable continuations, best first, with the beams that they continue: so many that enough of them do not end.
    fn candidates(&self, scores: &[Vec<f32>]) -> Result<Vec<(usize, Beam<'t>)>> {
        let mut all: Vec<(f64, usize, i64)> = Vec::new();
        for (parent, (beam, scores)) in self.running.iter().zip(scores).enumerate() {
            let logprobs = log_softmax(scores);
            let logprobs = penalised(&logprobs, &beam.tokens, self.repetition_penalty);
            all.extend(
                logprobs
                    .iter()
                    .zip(0..)
                    .map(|(&logprob, token)| (beam.score + f64::from(logprob), parent, token)),
            );
        }
        let count = self.options.num_beams * (1 + self.eos_token_ids.len()).max(2);
        let likelier = |a: &(f64, usize, i64), b: &(f64, usize, i64)| {
            b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2)))
        };
        if count < all.len() {
            all.select_nth_unstable_by(count, likelier);
            all.truncate(count);
        }
        all.sort_unstable_by(likelier);
        let beam = |(score, parent, token): (f64, usize, i64)| {
            let Beam { tokens, text, .. } = &self.running[parent];
            let mut text = text.clone();
            if let Some(text) = text.as_mut().filter(|_| !self.eos_token_ids.contains(&token)) {
                text.push(token)?;
            }
            Ok((parent, Beam { tokens: tokens.iter().copied().chain([token]).collect(), score, text }))
        };
        all.into_iter().map(beam).collect()
    }

    fn penalised_by_length(&self, score: f64, len: usize) -> f64 {
        score / (len as f64).powf(self.options.length_penalty)
    }
}

/// Log-probabilities, in f32 as the penalty takes them.
fn log_softmax(scores: &[f32]) -> Vec<f32> {
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores.iter().map(|&score| f64::from(score - highest).exp()).sum();
    scores.iter().map(|&score| (f64::from(score - highest) - sum.ln()) as f32).collect()
}
