//! The plot that compares runs.

use std::path::Path;

use super::{
    super::LogError,
    STEP_TICKS, Y_TICKS, axis_name, canvas,
    curve::{Point, smoothed},
    layout_of,
    palette::PALETTE,
    panel::{Axis, Panel, RightMargin, Series, Side},
    scale::Scale,
    stroke::Stroke,
    xs, ys,
};

/// Draws several runs over each other to a PNG of 1200x800 at `path`, for comparing them: `runs` holds a name for the
/// legend and the points (step, value) of each; `y_name` says what the values are.
///
/// A noisy run (20 points or more) is drawn smoothed, over its pale points. The y axis is logarithmic where the
/// values spread over more than a factor of 10.
pub fn plot_runs(
    path: impl AsRef<Path>,
    title: &str,
    y_name: &str,
    runs: &[(&str, &[(f64, f64)])],
) -> Result<(), LogError> {
    let path = path.as_ref();
    let mut raw = vec![];
    let mut lines = vec![];
    for (index, (name, points)) in runs.iter().enumerate() {
        let points: Vec<Point> =
            points.iter().copied().filter(|(step, value)| step.is_finite() && value.is_finite()).collect();
        let color = PALETTE[index % PALETTE.len()];
        let stroke = match points.len() {
            1 => Stroke::Dots,
            _ if index < PALETTE.len() => Stroke::Solid,
            _ => Stroke::Dashed,
        };
        let line = if let Some(smooth) = smoothed(&points) {
            raw.push(Series { name: "", points, color, stroke: Stroke::Thin, side: Side::Left });
            smooth
        } else {
            points
        };
        lines.push(Series { name, points: line, color, stroke, side: Side::Left });
    }
    let series: Vec<Series<'_>> = raw.into_iter().chain(lines).collect();
    let all: Vec<&[Point]> = series.iter().map(|series| series.points.as_slice()).collect();
    if all.iter().all(|points| points.is_empty()) {
        return Err(LogError::NothingToPlot { path: path.to_path_buf() });
    }
    let layout = layout_of(&series, Side::Left);
    let panel = Panel {
        steps: Scale::steps(xs(&all), STEP_TICKS),
        left: Axis {
            name: axis_name(y_name, layout),
            scale: Scale::around(layout, ys(&all), Y_TICKS),
            color: None,
        },
        right: None,
        margin: RightMargin::Slim,
        series,
    };
    canvas::picture(path, title, |area| panel.draw(area))
}
