//! An axis: what part of the numbers it shows, where its ticks are, and how they read.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// How values are laid out along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Equal differences are equally long.
    Linear,
    /// Equal ratios are equally long; for positive values.
    Log,
}

impl Layout {
    /// Logarithmic for positive values that differ by more than a factor of 10, so that the small ones show too.
    pub(super) fn fitting(values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = bounds(values.into_iter());
        if low > 0.0 && high / low > 10.0 { Self::Log } else { Self::Linear }
    }

    /// Where `value` lies on the axis; `None` for a value that has no place on it.
    pub(super) fn place(self, value: f64) -> Option<f64> {
        let place = match self {
            Self::Linear => value,
            Self::Log => value.log10(),
        };
        place.is_finite().then_some(place)
    }
}

/// One axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    pub(super) layout: Layout,
    /// The ends, as places (see [`Layout::place`]).
    low: f64,
    high: f64,
    /// Values of the ticks, rising.
    ticks: Vec<f64>,
    unit: &'static str,
}

impl Scale {
    /// An axis that shows all `values` that have a place on it, with a little air and at most about `count` ticks.
    pub(super) fn around(layout: Layout, values: impl IntoIterator<Item = f64>, count: usize) -> Self {
        let (low, high) = bounds(values.into_iter().filter_map(|value| layout.place(value)));
        let (mut low, mut high) = if low > high { (0.0, 1.0) } else { (low, high) };
        if layout == Layout::Linear && (high == low || 0.0 <= low && low <= high / 2.0) {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        let air = if high > low { (high - low) * 0.05 } else { 0.5 };
        // An axis from 0 begins there.
        let from_zero = layout == Layout::Linear && low == 0.0;
        let to_zero = layout == Layout::Linear && high == 0.0 && low < 0.0;
        low -= if from_zero { 0.0 } else { air };
        high += if to_zero { 0.0 } else { air };
        let ticks = match layout {
            Layout::Linear => linear_ticks(low, high, count),
            Layout::Log => log_ticks(low, high, count),
        };
        Self { layout, low, high, ticks, unit: "" }
    }

    /// The axis of steps: no air at its ends, and no tick between two steps.
    pub(super) fn steps(values: impl IntoIterator<Item = f64>, count: usize) -> Self {
        let (low, high) = bounds(values.into_iter());
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        let low = if low == high || low <= high / 2.0 { low.min(0.0) } else { low };
        let high = if high > low { high } else { low + 1.0 };
        let mut ticks = linear_ticks(low, high, count);
        ticks.retain(|&tick| is_whole(tick));
        Self { layout: Layout::Linear, low, high, ticks, unit: "" }
    }

    /// 0 to 100 %, for values in percent.
    pub(super) fn percent() -> Self {
        let ticks = (0..=5).map(|tick| f64::from(tick) * 20.0).collect();
        Self { layout: Layout::Linear, low: 0.0, high: 105.0, ticks, unit: " %" }
    }

    fn label(&self, value: f64) -> String {
        let largest = self.ticks.iter().fold(0.0, |largest: f64, tick| largest.max(tick.abs()));
        // On a linear axis all labels have the same decimals, those of the distance between two ticks.
        let finest = match self.layout {
            Layout::Linear => self.ticks.windows(2).map(|pair| pair[1] - pair[0]).fold(largest, f64::min),
            Layout::Log => value,
        };
        format!("{}{}", number(value, finest, largest), self.unit)
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let place = self.layout.place(*value).unwrap_or(self.low);
        let share = (place - self.low) / (self.high - self.low);
        limit.0 + (f64::from(limit.1 - limit.0) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { vec![] } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        match self.layout {
            Layout::Linear => self.low..self.high,
            Layout::Log => 10f64.powf(self.low)..10f64.powf(self.high),
        }
    }
}

impl ValueFormatter<f64> for Scale {
    fn format(value: &f64) -> String {
        value.to_string()
    }

    fn format_ext(&self, value: &f64) -> String {
        self.label(*value)
    }
}

/// `value` in short, exact to `finest`, among numbers of up to `largest`.
fn number(value: f64, finest: f64, largest: f64) -> String {
    let (finest, largest) = (finest.abs().max(f64::MIN_POSITIVE), largest.abs());
    if value.abs() < finest * 1e-6 {
        return "0".into();
    }
    if largest >= 10_000.0 && finest >= 99.0 {
        let (factor, suffix) = if largest >= 1e7 { (1e-6, "M") } else { (1e-3, "k") };
        return format!("{}{suffix}", number(value * factor, finest * factor, 0.0));
    }
    // The rounding keeps 0.30000000000000004 from asking for 17 decimals.
    let decimals = (-(finest.log10() + 1e-9).floor()).max(0.0) as usize;
    // A quarter (0.25) needs one decimal more than its power of ten tells.
    let decimals = decimals + usize::from(!is_whole(finest * 10f64.powi(decimals as i32)));
    if decimals <= 3 {
        return format!("{value:.decimals$}");
    }
    let digits = (value.abs().log10() + 1e-9).floor() + decimals as f64;
    let digits = digits.clamp(0.0, 3.0) as usize;
    let text = format!("{value:.digits$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) if mantissa.contains('.') => {
            format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

fn is_whole(value: f64) -> bool {
    (value - value.round()).abs() < 1e-6
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// Multiples of 1, 2 or 5 times a power of ten, at most `count + 1` of them.
fn linear_ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let rough = (high - low) / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].map(|factor| factor * power).into_iter().find(|&step| step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let first = (low / step - 1e-9).ceil();
    let last = (high / step + 1e-9).floor();
    (0..=(last - first).max(0.0) as usize).map(|tick| (first + tick as f64) * step).collect()
}

/// Powers of ten, with 2 and 5 times them where there is room; `low` and `high` are exponents.
fn log_ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let within = |factors: &[f64], stride: usize| -> Vec<f64> {
        (low.floor() as i32..=high.ceil() as i32)
            .filter(|power| power.rem_euclid(stride as i32) == 0)
            .flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)))
            .filter(|tick| (low..=high).contains(&tick.log10()))
            .collect()
    };
    let fine = [&[1.0, 2.0, 5.0][..], &[1.0, 3.0]].map(|factors| within(factors, 1));
    let coarse = (1..).map(|stride| within(&[1.0], stride));
    fine.into_iter().chain(coarse).find(|ticks| ticks.len() <= count + 1).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(scale: &Scale) -> Vec<String> {
        scale.ticks.iter().map(|&tick| scale.format_ext(&tick)).collect()
    }

    #[test]
    fn ticks_are_few_and_round() {
        let linear = |values: [f64; 2]| labels(&Scale::around(Layout::Linear, values, 6));
        assert_eq!(linear([0.3, 2.8]), ["0", "0.5", "1.0", "1.5", "2.0", "2.5"]);
        assert_eq!(linear([0.0, 1e-3]), ["0", "2e-4", "4e-4", "6e-4", "8e-4", "1e-3"]);
        assert_eq!(linear([2.0, 2.2]), ["2.00", "2.05", "2.10", "2.15", "2.20"]);
        assert_eq!(linear([-1.0, 1.0]), ["-1.0", "-0.5", "0", "0.5", "1.0"]);
        let steps = |last: f64| labels(&Scale::steps([1.0, last], 8));
        assert_eq!(steps(600.0), ["0", "100", "200", "300", "400", "500", "600"]);
        assert_eq!(steps(5198.0), ["0", "1000", "2000", "3000", "4000", "5000"]);
        assert_eq!(steps(40_000.0), ["0", "5k", "10k", "15k", "20k", "25k", "30k", "35k", "40k"]);
        assert_eq!(steps(1.0), ["0", "1"]);
        assert_eq!(steps(3.0), ["0", "1", "2", "3"]);
        assert_eq!(labels(&Scale::percent()), ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]);
    }

    #[test]
    fn a_log_axis_has_ticks_at_every_range() {
        let log = |low, high| labels(&Scale::around(Layout::Log, [low, high], 6));
        assert_eq!(log(0.3, 4.0), ["0.5", "1", "2"]);
        assert_eq!(log(0.011, 4.0), ["0.01", "0.03", "0.1", "0.3", "1", "3"]);
        assert_eq!(log(1e-6, 5.0), ["1e-6", "1e-4", "0.01", "1"]);
        assert_eq!(log(1e-9, 5e9).len(), 7);
    }

    #[test]
    fn the_layout_follows_the_spread() {
        assert_eq!(Layout::fitting([5.0, 0.4]), Layout::Log);
        assert_eq!(Layout::fitting([5.0, 0.6]), Layout::Linear);
        assert_eq!(Layout::fitting([5.0, 0.0]), Layout::Linear);
        assert_eq!(Layout::fitting([5.0, f64::NAN, 0.1]), Layout::Log);
        assert_eq!(Layout::fitting([]), Layout::Linear);
        assert_eq!((Layout::Log.place(0.0), Layout::Log.place(-1.0)), (None, None));
        assert_eq!((Layout::Log.place(0.01), Layout::Linear.place(f64::INFINITY)), (Some(-2.0), None));
    }

    #[test]
    fn no_value_and_one_value_have_an_axis() {
        for values in [&[][..], &[0.0], &[3.0], &[-2.0], &[f64::NAN]] {
            for layout in [Layout::Linear, Layout::Log] {
                let scale = Scale::around(layout, values.iter().copied(), 6);
                assert!(scale.high > scale.low, "{values:?} {scale:?}");
            }
            let steps = Scale::steps(values.iter().map(|value: &f64| value.abs()), 6);
            assert!(steps.high > steps.low && (steps.high - steps.low).is_finite(), "{values:?} {steps:?}");
        }
        assert_eq!(labels(&Scale::around(Layout::Linear, [0.0], 4)), ["0", "0.2", "0.4"]);
        assert_eq!(labels(&Scale::around(Layout::Linear, [2e-5; 2], 4)), ["0", "1e-5", "2e-5"]);
    }

    proptest! {
        #[test]
        fn an_axis_shows_its_values_with_two_to_count_ticks_that_read_differently(
            low in -6.0f64..6.0, span in -3.0f64..6.0, count in 5usize..10, sign in prop::bool::ANY,
        ) {
            let low = 10f64.powf(low) * if sign { 1.0 } else { -1.0 };
            let values = [low, low + 10f64.powf(span)];
            let mut scales = vec![Scale::around(Layout::Linear, values, count)];
            if Layout::fitting(values) == Layout::Log {
                scales.push(Scale::around(Layout::Log, values, count));
            }
            for scale in scales {
                let inside = |place: f64| (scale.low..=scale.high).contains(&place);
                prop_assert!(values.iter().all(|&value| scale.layout.place(value).is_some_and(inside)));
                let mut places: Vec<f64> = scale.ticks.iter().filter_map(|&tick| scale.layout.place(tick)).collect();
                prop_assert!((2..=count + 1).contains(&places.len()), "{scale:?}");
                prop_assert!(places.iter().all(|&place| (scale.low - 1e-6..=scale.high + 1e-6).contains(&place)));
                // Far from 0 and close together, numbers of this few digits cannot differ.
                if scale.layout == Layout::Log || values[0].abs() < (values[1] - values[0]) * 100.0 {
                    let mut labels = labels(&scale);
                    labels.dedup();
                    prop_assert_eq!(labels.len(), places.len(), "{:?}", labels);
                }
                places.dedup();
                prop_assert_eq!(places.len(), scale.ticks.len());
            }
        }
    }
}
