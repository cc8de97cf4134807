//! Comparisons of one kind, summed up.

/// Exact comparisons of one kind.
#[derive(Default)]
pub(super) struct Tally {
    pub compared: usize,
    pub difference: Option<String>,
}

impl Tally {
    /// Counts one comparison; `what` is kept for the first difference only.
    pub fn check(&mut self, same: bool, what: impl FnOnce() -> String) {
        self.compared += 1;
        if !same && self.difference.is_none() {
            self.difference = Some(what());
        }
    }

    /// A row of ours, not padded, against a padded golden one.
    pub fn check_row(&mut self, place: &str, ours: &[i64], filler: i64, golden: &[i64]) {
        self.check(padded_equal(ours, filler, golden), || {
            let at = (0..ours.len().max(golden.len()))
                .find(|&at| Some(ours.get(at).unwrap_or(&filler)) != golden.get(at))
                .unwrap_or_default();
            format!("{place}: {:?} at {at}, expected {:?}", ours.get(at), golden.get(at))
        });
    }
}

/// Whether `golden` is `ours`, filled up with `filler`.
pub(super) fn padded_equal(ours: &[i64], filler: i64, golden: &[i64]) -> bool {
    golden.len() >= ours.len()
        && golden[..ours.len()] == *ours
        && golden[ours.len()..].iter().all(|&value| value == filler)
}

/// The worst difference of one kind, over the scale of the golden values.
#[derive(Default)]
pub(super) struct Worst {
    pub compared: usize,
    pub difference: f64,
}

impl Worst {
    pub fn compare(&mut self, ours: &[f32], golden: &[f32]) {
        self.compared += golden.len();
        if ours.len() != golden.len() {
            self.difference = f64::INFINITY;
            return;
        }
        let scale = golden.iter().fold(0.0_f32, |scale, value| scale.max(value.abs())).max(1.0);
        for (ours, golden) in ours.iter().zip(golden) {
            let difference = f64::from((ours - golden).abs() / scale);
            self.difference =
                self.difference.max(if difference.is_nan() { f64::INFINITY } else { difference });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_must_be_the_filler() {
        assert!(padded_equal(&[1, 2], 9, &[1, 2, 9]));
        assert!(!padded_equal(&[1, 2], 9, &[1, 2, 0]));
        assert!(!padded_equal(&[1, 2], 9, &[1]));
    }
}
