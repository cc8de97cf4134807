use std::borrow::Cow;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{GenerateOptions, Sampling};

/// Chooses tokens from scores, as Hugging Face's logits processors and warpers do, in their order:
/// repetition penalty, temperature, top-k, top-p.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    repetition_penalty: f64,
    rng: StdRng,
}

impl Sampler {
    /// A sampler for one answer to a request; `answer` counts them from 0. Each has random numbers of its own.
    pub fn new(options: &GenerateOptions, answer: usize) -> Self {
        let seed = match options.sampling {
            Sampling::Random { seed, .. } => seed,
            Sampling::Greedy => 0,
        };
        let rng = match answer {
            0 => StdRng::seed_from_u64(seed),
            _ => {
                let mut whole = [0; 32];
                whole[..8].copy_from_slice(&seed.to_le_bytes());
                whole[8..16].copy_from_slice(&(answer as u64).to_le_bytes());
                StdRng::from_seed(whole)
            }
        };
        Self { sampling: options.sampling, repetition_penalty: options.repetition_penalty, rng }
    }

    /// The next token by `scores` (one a token of the vocabulary), with `answer` the tokens so far.
    pub fn next(&mut self, scores: &[f32], answer: &[i64]) -> i64 {
        let scores = &*penalised(scores, answer, self.repetition_penalty);
        match self.sampling {
            Sampling::Greedy => argmax(scores),
            Sampling::Random { temperature, top_k, top_p, .. } => {
                let candidates = candidates(scores, temperature, top_k, top_p);
                let mut rest = self.rng.random::<f64>() * candidates.iter().map(|(_, p)| p).sum::<f64>();
                for &(token, probability) in &candidates {
                    rest -= probability;
                    if rest < 0.0 {
                        return token as i64;
                    }
                }
                candidates.last().map_or(0, |&(token, _)| token as i64)
            }
        }
    }
}

/// First of the highest scores, as `torch.argmax` gives it; NaN never wins.
fn argmax(scores: &[f32]) -> i64 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &score) in scores.iter().enumerate() {
        if score > best.1 {
            best = (token, score);
        }
    }
    best.0 as i64
}

/// The scores, those of the answer's tokens moved towards less likely.
pub(super) fn penalised<'a>(scores: &'a [f32], answer: &[i64], penalty: f64) -> Cow<'a, [f32]> {
    if penalty == 1.0 {
        return Cow::Borrowed(scores);
    }
    let mut scores = scores.to_vec();
    let mut tokens: Vec<usize> = answer.iter().filter_map(|&t| usize::try_from(t).ok()).collect();
    tokens.sort_unstable();
    tokens.dedup();
    for token in tokens {
        if let Some(score) = scores.get_mut(token) {
            *score = if *score < 0.0 { *score * penalty as f32 } else { *score / penalty as f32 };
        }
    }
    Cow::Owned(scores)
}

/// Tokens that may be drawn with their probabilities, most probable first.
fn candidates(scores: &[f32], temperature: f64, top_k: usize, top_p: f64) -> Vec<(usize, f64)> {
    let mut order: Vec<(usize, f64)> = scores
        .iter()
        .enumerate()
        .filter(|(_, score)| !score.is_nan())
        .map(|(token, &score)| (token, f64::from(score) / temperature))
        .collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    if top_k > 0 && top_k < order.len() {
        // Ties with the last candidate stay, as in transformers.
        let threshold = order[top_k - 1].1;
        order.retain(|&(_, score)| score >= threshold);
    }
    let highest = order.first().map_or(0.0, |&(_, score)| score);
    let total: f64 = order.iter().map(|&(_, score)| (score - highest).exp()).sum();
    let mut mass = 0.0;
    let mut kept = Vec::new();
    for (token, score) in order {
        let probability = (score - highest).exp() / total;
        // A token stays while the more probable ones do not yet hold the mass; so one always does.
        if mass >= top_p {
            break;
        }
        mass += probability;
        kept.push((token, probability));
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn random(seed: u64, temperature: f64, top_k: usize, top_p: f64) -> GenerateOptions {
        let sampling = Sampling::Random { temperature, top_k, top_p, seed };
        GenerateOptions { sampling, ..GenerateOptions::default() }
    }

    #[test]
    fn greedy_takes_the_first_of_equals_and_never_nan() {
        let mut sampler = Sampler::new(&GenerateOptions::default(), 0);
        assert_eq!(sampler.next(&[0.0, 2.0, 2.0, f32::NAN], &[]), 1);
    }

    #[test]
    fn the_penalty_moves_scores_towards_less_likely() {
        let options = GenerateOptions { repetition_penalty: 2.0, ..GenerateOptions::default() };
        let scores = [4.0, 3.0, -1.0];
        assert_eq!(Sampler::new(&options, 0).next(&scores, &[0, 2, 0]), 1);
        assert_eq!(*penalised(&scores, &[0, 2, 0], 2.0), [2.0, 3.0, -2.0]);
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let scores = [0.1f32.ln(), 0.2f32.ln(), 0.3f32.ln(), 0.4f32.ln()];
        let tokens = |k, p| candidates(&scores, 1.0, k, p).iter().map(|c| c.0).collect::<Vec<_>>();
        assert_eq!(tokens(2, 1.0), [3, 2]);
        assert_eq!(tokens(0, 0.65), [3, 2]);
        assert_eq!(tokens(0, 0.05), [3]);
        assert_eq!(tokens(0, 1.0), [3, 2, 1, 0]);
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let mut sampler = Sampler::new(&random(7, 1.0, 0, 1.0), 0);
        let draws = 20_000;
        let scores = [0.25f32.ln(), 0.75f32.ln()];
        let ones: i64 = (0..draws).map(|_| sampler.next(&scores, &[])).sum();
        let share = ones as f64 / f64::from(draws);
        assert!((share - 0.75).abs() < 0.015, "{share}");
    }

    #[test]
    fn answers_to_one_request_differ() {
        let draws = |answer| {
            let mut sampler = Sampler::new(&random(3, 1.0, 0, 1.0), answer);
            (0..20).map(|_| sampler.next(&[0.0; 9], &[])).collect::<Vec<_>>()
        };
        assert!(draws(0) != draws(1) && draws(1) != draws(2));
    }

    proptest! {
        #[test]
        fn equal_seeds_draw_equal_tokens(
            scores in prop::collection::vec(-5f32..5.0, 1..30),
            seed: u64,
            top_k in 0usize..6,
            top_p in 0.05f64..1.0,
        ) {
            let options = random(seed, 0.8, top_k, top_p);
            let draw = || {
                let mut sampler = Sampler::new(&options, 0);
                (0..8).map(|_| sampler.next(&scores, &[])).collect::<Vec<_>>()
            };
            let first = draw();
            prop_assert_eq!(&first, &draw());
            prop_assert!(first.iter().all(|&t| (t as usize) < scores.len()));
        }
    }
}
