//! The plot of a run, as PNG.

mod curve;

use std::{error::Error, ops::Range, path::Path};

use image::{ImageFormat, RgbImage, imageops};
use plotters::{
    coord::Shift,
    prelude::*,
    style::{FontStyle, register_font},
};

use self::curve::{Point, smoothed, thinned};
use super::{LogError, Record};

/// Size of a picture.
const SIZE: (u32, u32) = (1200, 800);
/// Drawn so many times larger and scaled down, lines and letters become smooth.
const OVERSAMPLING: u32 = 4;

/// DejaVu Sans, cut down to Latin-1: no system font is needed, and a plot looks the same everywhere.
static FONT_DATA: &[u8] = include_bytes!("../../../assets/DejaVuSans-Latin1.ttf");
const FONT: &str = "DejaVu Sans";

// Colors that color-blind eyes tell apart (Okabe and Ito, 2008).
const BLUE: RGBColor = RGBColor(0, 114, 178);
const VERMILION: RGBColor = RGBColor(213, 94, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const PURPLE: RGBColor = RGBColor(204, 121, 167);
const TEXT: RGBColor = RGBColor(51, 51, 51);
const GRID: RGBColor = RGBColor(226, 226, 226);

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
type Failure = Box<dyn Error + Send + Sync>;

/// Draws a run to a PNG of 1200x800 at `path`: losses and exact match above, learning rate and gradient norm below.
///
/// A noisy curve is pale, with its mean over it. An axis is logarithmic where its values spread over more than a factor
/// of 10. Values that are not finite are left out.
///
/// # Errors
/// [`LogError::NothingToPlot`] without any finite loss, [`LogError::Draw`] and [`LogError::Png`] where the picture
/// cannot be made.
pub fn plot_run(path: impl AsRef<Path>, title: &str, records: &[Record]) -> Result<(), LogError> {
    let path = path.as_ref();
    let [loss, rate, norm, validation, exact_match] = curves(records);
    if loss.is_empty() && validation.is_empty() {
        return Err(LogError::NothingToPlot { path: path.to_path_buf() });
    }
    let mut losses = trend("training loss", BLUE, loss);
    losses.push(Curve { name: "validation loss", color: VERMILION, mark: Mark::Dots, points: validation });
    let exact_match = Curve { name: "exact match", color: GREEN, mark: Mark::Dots, points: exact_match };
    let rate = Curve { name: "learning rate", color: BLUE, mark: Mark::Line, points: rate };
    let panels = [
        [Axis::around("loss", losses), Axis::percent("exact match (%)", exact_match)],
        [
            Axis::around("learning rate", vec![rate]),
            Axis::around("gradient norm", trend("gradient norm", PURPLE, norm)),
        ],
    ];
    let failed = |failure: Failure| LogError::Draw { path: path.to_path_buf(), message: failure.to_string() };
    let picture = paint(title, &panels).map_err(failed)?;
    picture
        .save_with_format(path, ImageFormat::Png)
        .map_err(|source| LogError::Png { path: path.to_path_buf(), source })
}

/// The finite numbers of a run: training loss, learning rate, gradient norm, validation loss, and exact match in
/// percent.
fn curves(records: &[Record]) -> [Vec<Point>; 5] {
    let mut curves = <[Vec<Point>; 5]>::default();
    for record in records {
        let values = match record {
            Record::Step(step) => [Some(step.loss), Some(step.lr), step.grad_norm, None, None],
            Record::Eval(eval) => {
                [None, None, None, Some(eval.loss), eval.exact_match.map(|share| share * 100.0)]
            }
            Record::Note(_) => [None; 5],
        };
        for (curve, value) in curves.iter_mut().zip(values) {
            curve.extend(value.filter(|value| value.is_finite()).map(|value| (record.step() as f64, value)));
        }
    }
    curves
}

/// A noisy curve: its points pale, and their mean over them.
fn trend(name: &'static str, color: RGBColor, points: Vec<Point>) -> Vec<Curve> {
    let curve = |name, mark, points| Curve { name, color, mark, points };
    match smoothed(&points) {
        Some(smooth) => vec![curve("", Mark::Pale, points), curve(name, Mark::Line, smooth)],
        None => vec![curve(name, Mark::Line, points)],
    }
}

/// How a curve is drawn.
#[derive(Clone, Copy)]
enum Mark {
    /// Thin and pale: what a smoothed curve was made of.
    Pale,
    Line,
    /// A line with a dot at each point.
    Dots,
}

struct Curve {
    /// For the legend; empty where it is not named there.
    name: &'static str,
    color: RGBColor,
    mark: Mark,
    points: Vec<Point>,
}

impl Curve {
    /// Lines one by one, with round joints: a path of plotters is the outline of the whole curve, which leaves spikes
    /// where a noisy curve turns back on itself.
    fn elements(&self, points: &[Point]) -> (Vec<PathElement<Point>>, Vec<Circle<Point, u32>>) {
        let pale = |value: u8| 255 - (255 - value) / 5 * 2;
        let RGBColor(red, green, blue) = self.color;
        let (color, width, radius) = match self.mark {
            // Opaque, so that a curve that crosses itself is of one color.
            Mark::Pale => (RGBColor(pale(red), pale(green), pale(blue)), px(1), px(1) / 2),
            Mark::Line => (self.color, px(5) / 2, px(5) / 4),
            Mark::Dots => (self.color, px(3) / 2, px(5)),
        };
        // One point makes no line.
        let radius = if points.len() == 1 { px(5) } else { radius };
        let lines = points.windows(2).map(|pair| PathElement::new(pair, color.stroke_width(width)));
        let joints = points.iter().map(|&point| Circle::new(point, radius, color.filled()));
        (lines.collect(), joints.collect())
    }
}

/// A y axis and what belongs to it.
struct Axis {
    name: String,
    curves: Vec<Curve>,
    /// Whether the axis counts powers of ten.
    log: bool,
    /// Its ends, as places along it.
    range: Range<f64>,
}

impl Axis {
    /// An axis that shows all points, with a little air.
    fn around(name: &str, curves: Vec<Curve>) -> Self {
        let (low, high) = bounds(curves.iter().flat_map(|curve| &curve.points));
        // Of noise, only the peaks have a say: a dip alone would press the curve to the top.
        let calm = curves.iter().filter(|curve| !matches!(curve.mark, Mark::Pale));
        let log = low > 0.0 && high / bounds(calm.flat_map(|curve| &curve.points)).0 > 10.0;
        let place = |value: f64| if log { value.log10() } else { value };
        // An axis that comes near zero begins there.
        let low = if !log && 0.0 <= low && low <= high / 2.0 { 0.0 } else { place(low) };
        let air = if place(high) > low { (place(high) - low) * 0.05 } else { 0.5 };
        let range = if low == 0.0 && !log { 0.0..high + air } else { low - air..place(high) + air };
        Self { name: if log { format!("{name} (log)") } else { name.into() }, curves, log, range }
    }

    fn percent(name: &str, curve: Curve) -> Self {
        Self { name: name.into(), curves: vec![curve], log: false, range: 0.0..105.0 }
    }

    fn is_empty(&self) -> bool {
        self.curves.iter().all(|curve| curve.points.is_empty())
    }

    /// `points` as places, not more than a picture can show.
    fn places(&self, points: &[Point]) -> Vec<Point> {
        let place = |(step, value): Point| (step, if self.log { value.log10() } else { value });
        thinned(points, SIZE.0 as usize).into_iter().map(place).collect()
    }

    fn label(&self, place: f64) -> String {
        let (value, digits) = if self.log { (10_f64.powf(place), 1) } else { (place, 3) };
        // The rounding keeps 0.30000000000000004 short.
        let value: f64 = format!("{value:.digits$e}").parse().unwrap_or(value);
        match value.abs() {
            tiny if tiny < 1e-12 => "0".into(),
            common if (1e-3..1e5).contains(&common) => value.to_string(),
            _ => format!("{value:e}"),
        }
    }
}

fn bounds<'a>(points: impl Iterator<Item = &'a Point>) -> (f64, f64) {
    let ends = points
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), point| (low.min(point.1), high.max(point.1)));
    if ends.0 > ends.1 { (0.0, 1.0) } else { ends }
}

/// The panels below each other, each with its left and its right axis; without a curve, either is left out.
fn paint(title: &str, panels: &[[Axis; 2]; 2]) -> Result<RgbImage, Failure> {
    register_font(FONT, FontStyle::Normal, FONT_DATA).map_err(|_| "the built-in font cannot be read")?;
    let size = (px(SIZE.0), px(SIZE.1));
    let mut picture = RgbImage::new(size.0, size.1);
    {
        let root = BitMapBackend::with_buffer(&mut picture, size).into_drawing_area();
        root.fill(&WHITE)?;
        let body = root.margin(px(8), 0, 0, 0).titled(title, text(24))?;
        let steps = panels.iter().flatten().flat_map(|axis| &axis.curves).flat_map(|curve| &curve.points);
        let last = steps.map(|point| point.0).fold(1.0, f64::max);
        let drawn: Vec<_> = panels.iter().filter(|panel| !panel.iter().all(Axis::is_empty)).collect();
        for (area, panel) in body.split_evenly((drawn.len(), 1)).iter().zip(drawn) {
            draw_panel(area, 0.0..last, panel)?;
        }
        root.present()?;
    }
    // A box filter: each pixel is the mean of those it is made of.
    Ok(imageops::thumbnail(&picture, SIZE.0, SIZE.1))
}

fn draw_panel(area: &Area<'_>, steps: Range<f64>, [left, right]: &[Axis; 2]) -> Result<(), Failure> {
    let mut chart = ChartBuilder::on(area)
        .margin(px(8))
        .x_label_area_size(px(48))
        .y_label_area_size(px(84))
        .right_y_label_area_size(px(84))
        .build_cartesian_2d(steps.clone(), left.range.clone())?
        .set_secondary_coord(steps, right.range.clone());
    let line = GRID.stroke_width(px(1));
    chart
        .configure_mesh()
        .bold_line_style(line)
        .light_line_style(TRANSPARENT)
        .axis_style(line)
        .label_style(text(16))
        .set_all_tick_mark_size(px(5))
        // Between two steps, there is nothing to mark.
        .x_label_formatter(&|step| if step.fract() == 0.0 { step.to_string() } else { String::new() })
        .y_label_formatter(&|place| left.label(*place))
        .x_desc("step")
        .y_desc(&left.name)
        .draw()?;
    if !right.is_empty() {
        chart
            .configure_secondary_axes()
            .axis_style(line)
            .label_style(text(16))
            .set_all_tick_mark_size(px(5))
            .y_label_formatter(&|place| right.label(*place))
            .y_desc(&right.name)
            .draw()?;
    }
    for (axis, secondary) in [(right, true), (left, false)] {
        for curve in axis.curves.iter().filter(|curve| !curve.points.is_empty()) {
            let (lines, joints) = curve.elements(&axis.places(&curve.points));
            let drawn = if secondary {
                chart.draw_secondary_series(joints)?;
                chart.draw_secondary_series(lines)?
            } else {
                chart.draw_series(joints)?;
                chart.draw_series(lines)?
            };
            if !curve.name.is_empty() {
                let style = curve.color.stroke_width(px(3));
                let sample = move |(x, y)| PathElement::new([(x, y), (x + px(28) as i32, y)], style);
                drawn.label(curve.name).legend(sample);
            }
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .legend_area_size(px(36))
        .margin(px(8))
        .background_style(WHITE.mix(0.8))
        .label_font(text(16))
        .draw()?;
    Ok(())
}

/// Pixels of the picture as pixels of the canvas.
fn px(size: u32) -> u32 {
    size * OVERSAMPLING
}

fn text(size: u32) -> TextStyle<'static> {
    (FONT, px(size)).into_font().color(&TEXT)
}

#[cfg(test)]
mod tests {
    use super::super::{EvalRecord, StepRecord};
    use super::*;

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
    fn count(path: &Path, color: RGBColor) -> usize {
        let picture = image::open(path).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), SIZE);
        picture.pixels().filter(|pixel| pixel.0 == [color.0, color.1, color.2]).count()
    }

    #[test]
    fn a_run_is_drawn_with_all_its_curves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.png");
        plot_run(&path, "A run", &run(50)).unwrap();
        let counts = [BLUE, PURPLE].map(|color| count(&path, color));
        assert!(counts.iter().all(|&count| count > 500), "{counts:?}");
        assert_eq!((count(&path, VERMILION), count(&path, GREEN)), (0, 0));
        plot_run(&path, "A run", &[run(50), vec![validation(25, 1.0), validation(50, 0.5)]].concat())
            .unwrap();
        assert!(count(&path, VERMILION) > 100 && count(&path, GREEN) > 100);
    }

    #[test]
    fn odd_runs_are_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.png");
        let nan: Record = StepRecord { step: 3, loss: f64::NAN, ..Default::default() }.into();
        let zero: Record = StepRecord { step: 4, ..Default::default() }.into();
        for records in [run(1), vec![validation(1, 2.0)], [run(2), vec![nan, zero]].concat(), run(30_000)] {
            plot_run(&path, "", &records).unwrap();
            assert!(count(&path, BLUE) + count(&path, VERMILION) > 20);
        }
    }

    #[test]
    fn without_a_finite_loss_there_is_no_plot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.png");
        let nan: Record = StepRecord { step: 1, loss: f64::NAN, ..Default::default() }.into();
        for records in [vec![], vec![nan]] {
            let error = plot_run(&path, "", &records).unwrap_err();
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
    fn an_axis_is_logarithmic_where_its_values_spread() {
        let axis = |values: &[f64]| {
            let points = values.iter().map(|&value| (1.0, value)).collect();
            Axis::around("loss", vec![Curve { name: "", color: BLUE, mark: Mark::Line, points }])
        };
        assert!(axis(&[5.0, 0.4]).log && !axis(&[5.0, 0.6]).log && !axis(&[5.0, 0.0]).log);
        assert_eq!(axis(&[2.0, 0.1]).label(-1.5), "0.032");
        assert_eq!(axis(&[2e-5]).label(2e-5), "2e-5");
        for values in [&[][..], &[0.0], &[3.0], &[-2.0], &[2.0, 2.1], &[1e-6, 1e6]] {
            let range = axis(values).range;
            assert!(range.end > range.start, "{values:?} {range:?}");
        }
    }
}
