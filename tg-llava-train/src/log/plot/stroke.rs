//! How a curve is drawn: thin, solid, dashed or with dots.

use plotters::{
    element::{Drawable, PointCollection},
    prelude::*,
};
use plotters_backend::{BackendCoord, DrawingErrorKind};

use super::panel::px;

/// How a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stroke {
    /// Thin and pale: what a smoothed curve was made of.
    Thin,
    /// A full line.
    Solid,
    /// A broken line.
    Dashed,
    /// A dot at each point, joined by a line.
    Dots,
}

/// A curve through points of whatever coordinates.
///
/// plotters' own paths fill one polygon around the whole curve, which leaves spikes and holes where a noisy curve
/// turns back on itself; here each piece is a line of its own, with round joints.
pub(super) struct Line<C> {
    points: Vec<C>,
    stroke: Stroke,
    color: RGBColor,
}

impl<C> Line<C> {
    pub(super) fn new(points: Vec<C>, stroke: Stroke, color: RGBColor) -> Self {
        Self { points, stroke, color }
    }
}

impl<'a, C> PointCollection<'a, C> for &'a Line<C> {
    type Point = &'a C;
    type IntoIter = &'a [C];

    fn point_iter(self) -> &'a [C] {
        &self.points
    }
}

impl<C, DB: DrawingBackend> Drawable<DB> for Line<C> {
    fn draw<I: Iterator<Item = BackendCoord>>(
        &self,
        points: I,
        backend: &mut DB,
        _: (u32, u32),
    ) -> Result<(), DrawingErrorKind<DB::ErrorType>> {
        let points: Vec<BackendCoord> = points.collect();
        let (width, color) = match self.stroke {
            Stroke::Thin => (px(1), pale(self.color)),
            Stroke::Solid | Stroke::Dashed => (px(5) / 2, self.color),
            Stroke::Dots => (px(3) / 2, self.color),
        };
        let line = color.stroke_width(width);
        if self.stroke == Stroke::Dashed {
            return dashes(&points).into_iter().try_for_each(|(from, to)| backend.draw_line(from, to, &line));
        }
        for pair in points.windows(2) {
            backend.draw_line(pair[0], pair[1], &line)?;
        }
        let radius = if self.stroke == Stroke::Dots { px(5) } else { width / 2 };
        points.iter().try_for_each(|&point| backend.draw_circle(point, radius, &color, true))
    }
}

/// The color as if it were seen through fog; opaque, so that a curve that crosses itself is of one color.
fn pale(color: RGBColor) -> RGBColor {
    let channel = |value: u8| 255 - ((255 - u16::from(value)) * 2 / 5) as u8;
    RGBColor(channel(color.0), channel(color.1), channel(color.2))
}

/// The dashes along a curve.
fn dashes(points: &[BackendCoord]) -> Vec<(BackendCoord, BackendCoord)> {
    let period = f64::from(px(14));
    let dash = f64::from(px(9));
    let mut dashes = vec![];
    // How far into its period the pattern is.
    let mut phase = 0.0;
    for pair in points.windows(2) {
        let [(x, y), (to_x, to_y)] = [pair[0], pair[1]].map(|(x, y)| (f64::from(x), f64::from(y)));
        let length = (to_x - x).hypot(to_y - y);
        let at = |way: f64| {
            let share = way / length;
            ((x + (to_x - x) * share).round() as i32, (y + (to_y - y) * share).round() as i32)
        };
        let mut way = 0.0;
        while way < length {
            let rest = if phase < dash { dash - phase } else { period - phase };
            let end = (way + rest).min(length);
            if phase < dash {
                dashes.push((at(way), at(end)));
            }
            phase = if end - way < rest {
                phase + end - way
            } else if phase < dash {
                dash
            } else {
                0.0
            };
            way = end;
        }
    }
    dashes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_run_on_around_corners_and_over_short_pieces() {
        let unit = px(1) as i32;
        let corner = [(0, 0), (20 * unit, 0), (20 * unit, 20 * unit)];
        let expected = [
            ((0, 0), (9 * unit, 0)),
            ((14 * unit, 0), (20 * unit, 0)),
            ((20 * unit, 0), (20 * unit, 3 * unit)),
            ((20 * unit, 8 * unit), (20 * unit, 17 * unit)),
        ];
        assert_eq!(dashes(&corner), expected);
        let short: Vec<_> = (0..=40).map(|x| (x * unit, 0)).collect();
        let drawn: i32 = dashes(&short).iter().map(|(from, to)| to.0 - from.0).sum();
        assert_eq!(drawn, (9 + 9 + 9) * unit);
        assert!(dashes(&[(1, 1), (1, 1)]).is_empty() && dashes(&[]).is_empty());
    }

    #[test]
    fn pale_is_between_the_color_and_white() {
        assert_eq!(pale(RGBColor(0, 114, 255)), RGBColor(153, 199, 255));
    }
}
