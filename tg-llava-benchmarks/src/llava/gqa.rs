//! GQA: answers that are equal.

use std::collections::BTreeMap;

/// An answer as it is submitted.
pub fn submitted(answer: &str) -> String {
    answer.trim_end_matches('.').to_lowercase()
}

/// A balanced question whose answers are compared as a distribution.
#[derive(Debug, Clone, Copy)]
pub struct Grouped<'a> {
    /// Its global group.
    pub group: &'a str,
    /// The right answer.
    pub right: &'a str,
    /// The answer as submitted.
    pub answer: &'a str,
}

/// How far answers are spread otherwise than the right ones are ("Distribution", lower is better): of each group the chi-square
/// statistic over its right answers, weighted by the group's questions, over 100.
pub fn distribution<'a>(questions: impl IntoIterator<Item = Grouped<'a>>) -> f64 {
    let mut groups: BTreeMap<&str, [BTreeMap<&str, f64>; 2]> = BTreeMap::new();
    for Grouped { group, right, answer } in questions {
        let [expected, observed] = groups.entry(group).or_default();
        *expected.entry(right).or_default() += 1.0;
        *observed.entry(answer).or_default() += 1.0;
    }
    let (mut sum, mut all) = (0.0, 0.0);
    for [expected, observed] in groups.values() {
        let of = |(answer, count): (&&str, &f64)| {
            (observed.get(answer).copied().unwrap_or(0.0) - count).powi(2) / count
        };
        let questions: f64 = expected.values().sum();
        sum += expected.iter().map(of).sum::<f64>() * questions;
        all += questions;
    }
    sum / all / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_spread_as_the_right_ones_have_no_distance() {
        let pair = |right, answer| Grouped { group: "colour", right, answer };
        assert_eq!(distribution([pair("red", "blue"), pair("blue", "red")]), 0.0);
        assert_eq!(distribution([pair("red", "red"), pair("blue", "red")]), 0.02);
    }
}
