//! One chart with its axes, curves and legend, drawn with plotters.

use std::error::Error;

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    curve::{Point, thinned},
    scale::Scale,
    stroke::{Line, Stroke},
};

/// Canvas pixels per pixel of the picture: drawn large and scaled down, lines and letters become smooth.
pub(super) const OVERSAMPLING: u32 = 4;

/// Where plotters finds the font; registered by [`super::canvas`].
pub(super) const FONT: &str = "DejaVu Sans";

const TITLE_SIZE: u32 = 24;
const TEXT_SIZE: u32 = 17;
/// How far above the middle of its line plotters puts a text of this size.
const TEXT_LIFT: u32 = 4;
const TEXT_COLOR: RGBColor = RGBColor(51, 51, 51);
const GRID_COLOR: RGBColor = RGBColor(226, 226, 226);
const AXIS_COLOR: RGBColor = RGBColor(120, 120, 120);
const LEFT_WIDTH: u32 = 92;
const LEGEND_ROW: u32 = 26;

/// What plotters says when it fails.
pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// The drawing surface, or a part of it.
pub(super) type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// Which y axis a curve belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// A curve.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    pub(super) points: Vec<Point>,
    pub(super) color: RGBColor,
    pub(super) stroke: Stroke,
    pub(super) side: Side,
}

/// A y axis with its name; in a color where it belongs to one curve only.
pub(super) struct Axis {
    pub(super) name: String,
    pub(super) scale: Scale,
    pub(super) color: Option<RGBColor>,
}

/// The room to the right of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RightMargin {
    /// For half a label of the x axis.
    Slim,
    /// For a y axis: its own, or that of a chart above or below, so that their steps are aligned.
    Axis,
}

impl RightMargin {
    /// In picture pixels.
    fn width(self) -> u32 {
        match self {
            Self::Slim => 28,
            Self::Axis => LEFT_WIDTH,
        }
    }
}

/// A chart.
pub(super) struct Panel<'a> {
    pub(super) steps: Scale,
    pub(super) left: Axis,
    pub(super) right: Option<Axis>,
    pub(super) margin: RightMargin,
    /// Drawn one over the other, the last on top.
    pub(super) series: Vec<Series<'a>>,
}

impl Panel<'_> {
    /// Draws the chart over the whole of `area`.
    pub(super) fn draw(&self, area: &Area<'_>) -> Result<(), Failure> {
        let (width, _) = area.dim_in_pixel();
        let right_width = self.margin.width();
        let rows = self.legend_rows(area, width.saturating_sub(px(LEFT_WIDTH + right_width)))?;
        let (legend, chart_area) = area.split_vertically(px(LEGEND_ROW * rows.len() as u32 + 6));
        self.draw_legend(&legend, &rows)?;

        let right = self.right.as_ref().unwrap_or(&self.left);
        let mut chart = ChartBuilder::on(&chart_area)
            .x_label_area_size(px(56))
            .y_label_area_size(px(LEFT_WIDTH))
            .right_y_label_area_size(px(right_width))
            .build_cartesian_2d(self.steps.clone(), self.left.scale.clone())?
            .set_secondary_coord(self.steps.clone(), right.scale.clone());
        // The x axis and the y axis one after the other, since plotters has one style for both names.
        chart
            .configure_mesh()
            .disable_y_axis()
            .bold_line_style(GRID_COLOR.stroke_width(px(1)))
            .light_line_style(TRANSPARENT)
            .axis_style(AXIS_COLOR.stroke_width(px(1)))
            .label_style(text(TEXT_SIZE, TEXT_COLOR))
            .axis_desc_style(text(TEXT_SIZE, TEXT_COLOR))
            .set_all_tick_mark_size(px(5))
            .x_desc("step")
            .draw()?;
        let color = self.left.color.unwrap_or(TEXT_COLOR);
        chart
            .configure_mesh()
            .disable_mesh()
            .disable_x_axis()
            .axis_style(AXIS_COLOR.stroke_width(px(1)))
            .label_style(text(TEXT_SIZE, color))
            .axis_desc_style(text(TEXT_SIZE, color))
            .set_all_tick_mark_size(px(5))
            .y_label_offset(px(TEXT_LIFT))
            .y_desc(self.left.name.as_str())
            .draw()?;
        if let Some(right) = &self.right {
            let color = right.color.unwrap_or(TEXT_COLOR);
            chart
                .configure_secondary_axes()
                .axis_style(AXIS_COLOR.stroke_width(px(1)))
                .label_style(text(TEXT_SIZE, color))
                .axis_desc_style(text(TEXT_SIZE, color))
                .set_all_tick_mark_size(px(5))
                .y_label_offset(px(TEXT_LIFT))
                .y_desc(right.name.as_str())
                .draw()?;
        }
        for series in &self.series {
            let scale = match series.side {
                Side::Right => &right.scale,
                Side::Left => &self.left.scale,
            };
            let points: Vec<Point> = thinned(&series.points, (width / OVERSAMPLING) as usize)
                .into_iter()
                .filter(|&(_, value)| scale.layout.place(value).is_some())
                .collect();
            let line = [Line::new(points, series.stroke, series.color)];
            match series.side {
                Side::Left => chart.draw_series(line)?,
                Side::Right => chart.draw_secondary_series(line)?,
            };
        }
        Ok(())
    }

    /// The named curves, with their x offset in the legend, as many in a row as `width` allows.
    fn legend_rows(&self, area: &Area<'_>, width: u32) -> Result<Vec<Vec<(u32, &Series<'_>)>>, Failure> {
        let mut rows = vec![vec![]];
        let mut used = 0;
        for series in self.series.iter().filter(|series| !series.name.is_empty()) {
            let (text_width, _) = area.estimate_text_size(series.name, &text(TEXT_SIZE, TEXT_COLOR))?;
            let entry = px(36 + 8 + 28) + text_width;
            if used > 0 && used + entry > width {
                rows.push(vec![]);
                used = 0;
            }
            rows.last_mut().into_iter().for_each(|row| row.push((used, series)));
            used += entry;
        }
        Ok(rows)
    }

    fn draw_legend(&self, area: &Area<'_>, rows: &[Vec<(u32, &Series<'_>)>]) -> Result<(), Failure> {
        let middle_left = Pos::new(HPos::Left, VPos::Center);
        for (row, entries) in rows.iter().enumerate() {
            let y = (px(LEGEND_ROW) * row as u32 + px(LEGEND_ROW) / 2) as i32;
            for (offset, series) in entries {
                let x = (px(LEFT_WIDTH) + offset) as i32;
                let end = x + px(36) as i32;
                let sample = match series.stroke {
                    Stroke::Dots => vec![((x + end) / 2, y)],
                    _ => vec![(x, y), (end, y)],
                };
                area.draw(&Line::new(sample, series.stroke, series.color))?;
                let style = text(TEXT_SIZE, TEXT_COLOR).pos(middle_left);
                area.draw(&Text::new(series.name, (end + px(8) as i32, y + px(TEXT_LIFT) as i32), style))?;
            }
        }
        Ok(())
    }
}

/// Picture pixels as canvas pixels.
pub(super) fn px(size: u32) -> u32 {
    size * OVERSAMPLING
}

/// The style of a text of a size in picture pixels.
pub(super) fn text(size: u32, color: RGBColor) -> TextStyle<'static> {
    (FONT, px(size)).into_font().color(&color)
}

/// The style of a picture's title.
pub(super) fn title_style() -> TextStyle<'static> {
    text(TITLE_SIZE, TEXT_COLOR)
}
