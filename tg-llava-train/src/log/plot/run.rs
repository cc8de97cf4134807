//! The plot of one run.

use std::path::Path;

use plotters::style::RGBColor;

use super::{
    super::{LogError, Record},
    STEP_TICKS, Y_TICKS, axis_name, canvas,
    curve::{Point, smoothed},
    layout_of,
    palette::{BLUE, GREEN, PURPLE, VERMILION},
    panel::{Axis, Panel, RightMargin, Series, Side, px},
    scale::{Layout, Scale},
    stroke::Stroke,
    xs, ys,
};

/// Draws a run to a PNG of 1200x800 at `path`: losses and exact match above, learning rate and gradient norm below.
///
/// The axis of the losses, and that of the gradient norm, is logarithmic where its values spread over more than a
/// factor of 10. Values that are not finite are left out; without any finite loss there is nothing to plot.
pub fn plot_run(path: impl AsRef<Path>, title: &str, records: &[Record]) -> Result<(), LogError> {
    let path = path.as_ref();
    let curves = Curves::of(records);
    if curves.loss.is_empty() && curves.eval_loss.is_empty() {
        return Err(LogError::NothingToPlot { path: path.to_path_buf() });
    }
    let steps = || Scale::steps(xs(&[&curves.lr, &curves.eval_loss, &curves.exact_match]), STEP_TICKS);
    let margin = if curves.grad_norm.is_empty() && curves.exact_match.is_empty() {
        RightMargin::Slim
    } else {
        RightMargin::Axis
    };
    let losses = curves.loss_panel(steps(), margin);
    if curves.lr.is_empty() {
        return canvas::picture(path, title, |area| losses.draw(area));
    }
    let rates = curves.rate_panel(steps(), margin);
    canvas::picture(path, title, |area| {
        let (upper, lower) = area.split_vertically(px(canvas::SIZE.1 * 11 / 20));
        losses.draw(&upper)?;
        rates.draw(&lower)
    })
}

/// The finite numbers of a run.
#[derive(Default)]
struct Curves {
    loss: Vec<Point>,
    eval_loss: Vec<Point>,
    /// In percent.
    exact_match: Vec<Point>,
    lr: Vec<Point>,
    grad_norm: Vec<Point>,
}

impl Curves {
    fn of(records: &[Record]) -> Self {
        let mut curves = Self::default();
        for record in records {
            let mut add = |curve: fn(&mut Self) -> &mut Vec<Point>, value: Option<f64>| {
                let value = value.filter(|value| value.is_finite());
                curve(&mut curves).extend(value.map(|value| (record.step() as f64, value)));
            };
            match record {
                Record::Step(step) => {
                    add(|curves| &mut curves.loss, Some(step.loss));
                    add(|curves| &mut curves.lr, Some(step.lr));
                    add(|curves| &mut curves.grad_norm, step.grad_norm);
                }
                Record::Eval(eval) => {
                    add(|curves| &mut curves.eval_loss, Some(eval.loss));
                    add(|curves| &mut curves.exact_match, eval.exact_match.map(|share| share * 100.0));
                }
                Record::Note(_) => {}
            }
        }
        curves
    }

    fn loss_panel(&self, steps: Scale, margin: RightMargin) -> Panel<'_> {
        let mut series = trend("training loss", &self.loss, BLUE, Side::Left);
        let dots = |name, points: &[Point], color, side| Series {
            name,
            points: points.to_vec(),
            color,
            stroke: Stroke::Dots,
            side,
        };
        if !self.eval_loss.is_empty() {
            series.push(dots("validation loss", &self.eval_loss, VERMILION, Side::Left));
        }
        let right = (!self.exact_match.is_empty()).then(|| {
            series.push(dots("exact match", &self.exact_match, GREEN, Side::Right));
            Axis { name: "exact match".into(), scale: Scale::percent(), color: Some(GREEN) }
        });
        let layout = layout_of(&series, Side::Left);
        let name = axis_name("loss", layout);
        let scale = Scale::around(layout, ys(&[&self.loss, &self.eval_loss]), Y_TICKS);
        Panel { steps, left: Axis { name, scale, color: None }, right, margin, series }
    }

    fn rate_panel(&self, steps: Scale, margin: RightMargin) -> Panel<'_> {
        let mut series = vec![];
        let right = (!self.grad_norm.is_empty()).then(|| {
            series = trend("gradient norm", &self.grad_norm, PURPLE, Side::Right);
            let layout = layout_of(&series, Side::Right);
            let name = axis_name("gradient norm", layout);
            let scale = Scale::around(layout, ys(&[&self.grad_norm]), Y_TICKS - 1);
            Axis { name, scale, color: Some(PURPLE) }
        });
        let scale = Scale::around(Layout::Linear, ys(&[&self.lr]), Y_TICKS - 1);
        series.push(Series {
            name: "learning rate",
            points: self.lr.clone(),
            color: BLUE,
            // One point makes no line.
            stroke: if self.lr.len() == 1 { Stroke::Dots } else { Stroke::Solid },
            side: Side::Left,
        });
        Panel {
            steps,
            left: Axis { name: "learning rate".into(), scale, color: Some(BLUE) },
            right,
            margin,
            series,
        }
    }
}

/// A noisy curve: the points pale, and their mean over them.
fn trend<'a>(name: &'a str, points: &[Point], color: RGBColor, side: Side) -> Vec<Series<'a>> {
    let line = |name, points, stroke| Series { name, points, color, stroke, side };
    match smoothed(points) {
        _ if points.is_empty() => vec![],
        _ if points.len() == 1 => vec![line(name, points.to_vec(), Stroke::Dots)],
        Some(smooth) => vec![line("", points.to_vec(), Stroke::Thin), line(name, smooth, Stroke::Solid)],
        None => vec![line(name, points.to_vec(), Stroke::Solid)],
    }
}
