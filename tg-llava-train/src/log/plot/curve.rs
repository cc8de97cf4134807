//! Curves: smoothing, and thinning to what a picture can show.

/// A point of a curve: step and value.
pub(super) type Point = (f64, f64);

/// Below this many points a curve is its own best summary.
const SMOOTHED_FROM: usize = 20;

/// The mean around each point, over some twentieth of the curve, near points counting more; `None` for a curve of
/// few points.
pub(super) fn smoothed(points: &[Point]) -> Option<Vec<Point>> {
    let reach = (points.len() / 60).max(1);
    // Twice: a single outlier then makes a hill and not a plateau with steep ends.
    (points.len() >= SMOOTHED_FROM).then(|| means(&means(points, reach), reach))
}

/// The mean over `reach` points to either side of each. The window shrinks towards the start, where a loss falls
/// steeply, and is one-sided at the end, so that the curve ends at a mean and not at the last point.
fn means(points: &[Point], reach: usize) -> Vec<Point> {
    let mut sums = vec![0.0];
    for &(_, value) in points {
        sums.push(sums[sums.len() - 1] + value);
    }
    let mean = |index: usize| {
        let start = index - reach.min(index);
        let end = (index + reach.min(index) + 1).min(points.len());
        (sums[end] - sums[start]) / (end - start) as f64
    };
    points.iter().enumerate().map(|(index, &(step, _))| (step, mean(index))).collect()
}

/// At most about `2 * columns` of the points, such that the curve looks the same on `columns` columns: the lowest and
/// the highest of each column, in their order.
pub(super) fn thinned(points: &[Point], columns: usize) -> Vec<Point> {
    if points.len() <= 2 * columns {
        return points.to_vec();
    }
    let by_value = |a: &&Point, b: &&Point| a.1.total_cmp(&b.1);
    points
        .chunks(points.len().div_ceil(columns))
        .flat_map(|column| {
            let low = column.iter().min_by(by_value).copied();
            let high = column.iter().max_by(by_value).copied();
            let (first, second) =
                if low.map(|point| point.0) <= high.map(|point| point.0) { (low, high) } else { (high, low) };
            [first, second.filter(|_| first != second)].into_iter().flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn curve(values: impl IntoIterator<Item = f64>) -> Vec<Point> {
        (1..).map(f64::from).zip(values).collect()
    }

    #[test]
    fn few_points_are_not_smoothed() {
        assert_eq!(smoothed(&curve([1.0; SMOOTHED_FROM - 1])), None);
        assert_eq!(smoothed(&[]), None);
    }

    #[test]
    fn smoothing_keeps_a_line_and_calms_a_zigzag() {
        let line = curve((0..40).map(f64::from));
        // One-sided at the end: the last points see less of what is to come.
        assert_eq!(means(&line, 2)[..38], line[..38]);
        assert_eq!(means(&line, 2)[38..], [(39.0, 37.5), (40.0, 38.0)]);
        assert_eq!(smoothed(&line).unwrap()[..38], line[..38]);
        let zigzag = curve((0..400).map(|step| f64::from(step % 2)));
        let smooth = smoothed(&zigzag).unwrap();
        assert_eq!(smooth[0], zigzag[0]);
        // An outlier of 1 is a hill: no two neighbours differ by much.
        let outlier = smoothed(&curve((0..600).map(|step| f64::from(u8::from(step == 300))))).unwrap();
        assert!(outlier.windows(2).all(|pair| (pair[0].1 - pair[1].1).abs() < 0.003), "{outlier:?}");
        assert!(smooth[12..].iter().all(|point| (point.1 - 0.5).abs() < 0.05), "{smooth:?}");
    }

    #[test]
    fn thinning_keeps_the_peaks() {
        let mut points = curve((0..10_000).map(|step| f64::from(step % 7)));
        points[4321].1 = 99.0;
        points[4322].1 = -99.0;
        let thin = thinned(&points, 100);
        assert!(thin.len() <= 200 && thin.contains(&points[4321]) && thin.contains(&points[4322]));
        assert!(thin.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(thinned(&points[..200], 100), points[..200]);
        assert_eq!(thinned(&curve([1.0; 1000]), 10).len(), 20);
    }

    proptest! {
        #[test]
        fn a_mean_stays_within_the_values(values in prop::collection::vec(-1e3f64..1e3, 20..300)) {
            let points = curve(values.iter().copied());
            let smooth = smoothed(&points).unwrap();
            prop_assert_eq!(smooth.len(), points.len());
            let low = values.iter().copied().fold(f64::INFINITY, f64::min) - 1e-6;
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max) + 1e-6;
            prop_assert!(smooth.iter().all(|point| (low..=high).contains(&point.1)));
        }
    }
}
