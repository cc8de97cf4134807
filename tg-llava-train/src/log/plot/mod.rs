//! Plots of runs, as PNG.

mod canvas;
mod compare;
mod curve;
mod palette;
mod panel;
mod run;
mod scale;
mod stroke;

pub use compare::plot_runs;
pub use run::plot_run;

use self::{
    curve::Point,
    panel::{Series, Side},
    scale::Layout,
    stroke::Stroke,
};

/// About how many ticks the axis of steps has.
const STEP_TICKS: usize = 10;
/// About how many ticks a y axis over most of a picture has.
const Y_TICKS: usize = 7;

fn xs(curves: &[&[Point]]) -> impl Iterator<Item = f64> {
    curves.iter().flat_map(|points| points.iter().map(|point| point.0))
}

fn ys(curves: &[&[Point]]) -> impl Iterator<Item = f64> {
    curves.iter().flat_map(|points| points.iter().map(|point| point.1))
}

/// The layout that suits the curves of one side. Of the noise below a smoothed curve, only the highest peak has a say
/// in it: it would press a linear curve to the ground.
fn layout_of(series: &[Series<'_>], side: Side) -> Layout {
    let values = |series: &Series<'_>| series.points.iter().map(|point| point.1).collect::<Vec<_>>();
    let (noise, curves): (Vec<_>, Vec<_>) =
        series.iter().filter(|series| series.side == side).partition(|series| series.stroke == Stroke::Thin);
    let peak = noise.into_iter().flat_map(values).max_by(f64::total_cmp);
    Layout::fitting(curves.into_iter().flat_map(values).chain(peak))
}

/// The name of an axis, which tells where it is logarithmic.
fn axis_name(name: &str, layout: Layout) -> String {
    match layout {
        Layout::Linear => name.to_string(),
        Layout::Log => format!("{name} (log)"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EvalRecord, LogError, Record, StepRecord};
    use super::*;
    use std::path::Path;

    fn run(steps: usize) -> Vec<Record> {
        (1..=steps)
            .map(|step| {
                let loss = 4.0 / step as f64;
                StepRecord { step, loss, lr: 1e-3, grad_norm: Some(loss), ..Default::default() }.into()
            })
            .collect()
    }

    fn validation(step: usize, loss: f64) -> Record {
        EvalRecord { step, loss, exact_match: Some(0.5), ..Default::default() }.into()
    }

    /// How many pixels of the picture are of `color`.
    fn count(path: &Path, color: plotters::style::RGBColor) -> usize {
        let picture = image::open(path).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), canvas::SIZE);
        picture.pixels().filter(|pixel| pixel.0 == [color.0, color.1, color.2]).count()
    }

    #[test]
    fn a_run_is_drawn_with_all_its_curves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.png");
        plot_run(&path, "A run", &run(50)).unwrap();
        let counts = [palette::BLUE, palette::PURPLE].map(|color| count(&path, color));
        assert!(counts.iter().all(|&count| count > 500), "{counts:?}");
        assert_eq!((count(&path, palette::VERMILION), count(&path, palette::GREEN)), (0, 0));
        plot_run(&path, "A run", &[run(50), vec![validation(25, 1.0), validation(50, 0.5)]].concat())
            .unwrap();
        assert!(count(&path, palette::VERMILION) > 100 && count(&path, palette::GREEN) > 100);
    }

    #[test]
    fn odd_runs_are_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.png");
        let nan: Record = StepRecord { step: 3, loss: f64::NAN, ..Default::default() }.into();
        let zero: Record = StepRecord { step: 4, ..Default::default() }.into();
        for records in [run(1), vec![validation(1, 2.0)], [run(2), vec![nan, zero]].concat(), run(30_000)] {
            plot_run(&path, "", &records).unwrap();
            assert!(count(&path, palette::BLUE) + count(&path, palette::VERMILION) > 20);
        }
    }

    #[test]
    fn runs_are_compared_in_colors_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs.png");
        let curves: Vec<Vec<Point>> =
            (1..=9).map(|run| (0..10).map(|step| (f64::from(step), f64::from(run))).collect()).collect();
        let runs: Vec<(&str, &[Point])> = curves.iter().map(|curve| ("run", curve.as_slice())).collect();
        plot_runs(&path, "Runs", "loss", &runs[..2]).unwrap();
        assert!(count(&path, palette::BLUE) > 1000 && count(&path, palette::VERMILION) > 1000);
        assert_eq!(count(&path, palette::GREEN), 0);
        plot_runs(&path, "Runs", "loss", &runs).unwrap();
        assert!(palette::PALETTE.iter().all(|&color| count(&path, color) > 1000));
    }

    #[test]
    fn without_a_finite_value_there_is_no_plot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.png");
        let nan: Record = StepRecord { step: 1, loss: f64::NAN, ..Default::default() }.into();
        for error in [
            plot_run(&path, "", &[]).unwrap_err(),
            plot_run(&path, "", &[nan]).unwrap_err(),
            plot_runs(&path, "", "loss", &[("a", &[(1.0, f64::NAN)])]).unwrap_err(),
            plot_runs(&path, "", "loss", &[]).unwrap_err(),
        ] {
            assert!(matches!(error, LogError::NothingToPlot { .. }), "{error}");
            assert!(error.to_string().contains("loss.png"), "{error}");
        }
        assert!(!path.exists());
    }

    #[test]
    fn a_picture_that_cannot_be_written_is_an_error_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = plot_run(folder.path().join("absent/loss.png"), "", &run(2)).unwrap_err();
        assert!(matches!(error, LogError::Png { .. }) && error.to_string().contains("absent"), "{error}");
    }

    #[test]
    fn a_peak_asks_for_a_log_axis_and_a_dip_does_not() {
        let with = |outlier: f64| {
            let noise: Vec<Point> =
                (0..100).map(|x| (f64::from(x), if x == 50 { outlier } else { 1.0 })).collect();
            let smooth = curve::smoothed(&noise).unwrap();
            let line =
                |points, stroke| Series { name: "", points, color: palette::BLUE, stroke, side: Side::Left };
            layout_of(&[line(noise, Stroke::Thin), line(smooth, Stroke::Solid)], Side::Left)
        };
        assert_eq!((with(1.0), with(50.0), with(1e-3)), (Layout::Linear, Layout::Log, Layout::Linear));
    }
}
