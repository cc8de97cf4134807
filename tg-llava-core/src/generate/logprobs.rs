use std::cmp::Ordering;

/// Log-probabilities of a token and of others in its place: the model's own, before a penalty or a temperature.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// That of the token.
    pub chosen: f64,
    /// The most likely tokens with theirs, most likely first; the token itself may be among them.
    pub top: Vec<(i64, f64)>,
}

impl Logprobs {
    /// Those of `token` and of the `count` most likely tokens, by the model's scores.
    pub(super) fn new(scores: &[f32], token: i64, count: usize) -> Self {
        let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = scores.iter().map(|&score| f64::from(score - highest).exp()).sum();
        let logprob = |score: f32| f64::from(score - highest) - sum.ln();
        let mut order: Vec<(i64, f32)> = (0..).zip(scores.iter().copied()).collect();
        let likelier =
            |a: &(i64, f32), b: &(i64, f32)| -> Ordering { b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)) };
        let count = count.min(order.len());
        if count < order.len() {
            order.select_nth_unstable_by(count, likelier);
            order.truncate(count);
        }
        order.sort_unstable_by(likelier);
        let chosen = usize::try_from(token).ok().and_then(|token| scores.get(token));
        Self {
            chosen: chosen.map_or(f64::NEG_INFINITY, |&score| logprob(score)),
            top: order.into_iter().map(|(token, score)| (token, logprob(score))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first_and_all_add_up_to_one() {
        let scores = [1.0, 3.0, -2.0, 3.0, 0.5];
        let logprobs = Logprobs::new(&scores, 4, 3);
        assert_eq!(logprobs.top.iter().map(|&(token, _)| token).collect::<Vec<_>>(), [1, 3, 0]);
        let all = Logprobs::new(&scores, 4, 9);
        let sum: f64 = all.top.iter().map(|(_, logprob)| logprob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        assert_eq!(all.top[3], (4, logprobs.chosen));
        assert!((all.top[0].1 - all.top[4].1 - 5.0).abs() < 1e-12);
        assert!(Logprobs::new(&scores, 1, 0).top.is_empty());
    }
}
