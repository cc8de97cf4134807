//! POPE: whether things are seen that are not there.

/// Reads an answer: no where its first sentence has a word that denies, else yes.
pub fn says_yes(answer: &str) -> bool {
    let sentence = answer.split('.').next().unwrap_or_default().replace(',', "");
    !sentence.split(' ').any(|word| ["No", "not", "no"].contains(&word))
}

/// How well yes is said.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Detection {
    /// Yes, rightly.
    pub true_positive: usize,
    /// Yes, wrongly.
    pub false_positive: usize,
    /// No, rightly.
    pub true_negative: usize,
    /// No, wrongly.
    pub false_negative: usize,
}

impl Detection {
    /// Counts what was said beside what is right.
    pub fn new(pairs: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut found = Self::default();
        for (said, right) in pairs {
            *match (said, right) {
                (true, true) => &mut found.true_positive,
                (true, false) => &mut found.false_positive,
                (false, false) => &mut found.true_negative,
                (false, true) => &mut found.false_negative,
            } += 1;
        }
        found
    }

    /// All answers.
    pub fn samples(&self) -> usize {
        self.true_positive + self.false_positive + self.true_negative + self.false_negative
    }

    /// The share of right answers.
    pub fn accuracy(&self) -> f64 {
        share(self.true_positive + self.true_negative, self.samples())
    }

    /// Of what is called there, the share that is.
    pub fn precision(&self) -> f64 {
        share(self.true_positive, self.true_positive + self.false_positive)
    }

    /// Of what is there, the share that is called so.
    pub fn recall(&self) -> f64 {
        share(self.true_positive, self.true_positive + self.false_negative)
    }

    /// The harmonic mean of precision and recall.
    pub fn f1(&self) -> f64 {
        let (precision, recall) = (self.precision(), self.recall());
        if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 }
    }

    /// The share of yes.
    pub fn yes_ratio(&self) -> f64 {
        share(self.true_positive + self.false_positive, self.samples())
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole > 0 { part as f64 / whole as f64 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sentence_decides() {
        for (answer, yes) in [
            ("Yes", true),
            ("No", false),
            ("There is, no,", false),
            ("It is there. No doubt", true),
            ("NO", true),
            ("no\nway", true),
            ("", true),
        ] {
            assert_eq!(says_yes(answer), yes, "{answer}");
        }
    }
}
