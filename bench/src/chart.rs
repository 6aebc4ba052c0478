//! A chart, drawn as SVG.

use std::{error::Error, ops::Range, path::Path};

use plotters::{coord::Shift, prelude::*};
use serde::{Deserialize, Serialize};

use crate::{json, summary::format_number};

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Chart {
    /// The file's name without its extension.
    pub name: String,
    pub title: String,
    /// Descriptions of the axes; bars have only y.
    pub x: String,
    pub y: String,
    pub plot: Plot,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Plot {
    /// Lines over two logarithmic axes.
    Lines(#[serde(serialize_with = "json::one_per_line")] Vec<Line>),
    /// A bar for each name and number, on a logarithmic scale.
    Bars(#[serde(serialize_with = "json::one_per_line")] Vec<(String, f64)>),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

impl Plot {
    /// Lines from names and, in the same order, points.
    pub fn lines(names: &[&str], points: Vec<Vec<(f64, f64)>>) -> Plot {
        let line = |(name, points): (&&str, _)| Line {
            name: (*name).to_owned(),
            points,
        };
        Plot::Lines(names.iter().zip(points).map(line).collect())
    }
}

const COLOURS: [RGBColor; 7] = [
    RGBColor(0x1f, 0x6f, 0xb4),
    RGBColor(0xd6, 0x5f, 0x0e),
    RGBColor(0x2e, 0x8b, 0x57),
    RGBColor(0x8e, 0x44, 0xad),
    RGBColor(0x7f, 0x7f, 0x7f),
    RGBColor(0xc0, 0x39, 0x2b),
    RGBColor(0x16, 0xa0, 0x85),
];

const FONT: &str = "sans-serif";
const WIDTH: u32 = 760;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Chart {
    /// Draws the chart into a file in a directory.
    pub fn draw(&self, directory: &Path) -> Result<(), Box<dyn Error>> {
        let path = directory.join(format!("{}.svg", self.name));
        let height = match &self.plot {
            Plot::Lines(_) => 420,
            Plot::Bars(bars) => 70 + 26 * bars.len() as u32,
        };
        let area = SVGBackend::new(&path, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        let area = area.titled(&self.title, (FONT, 18))?;
        match &self.plot {
            Plot::Lines(lines) => draw_lines(self, lines, &area)?,
            Plot::Bars(bars) => draw_bars(self, bars, &area)?,
        }
        area.present()?;
        Ok(())
    }
}

fn draw_lines(chart: &Chart, lines: &[Line], area: &Area) -> Result<(), Box<dyn Error>> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let across = around(points().map(|point| point.0), 1.0);
    let up = around(points().map(|point| point.1), 4.0);
    let mut plot = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(84)
        .build_cartesian_2d(across.log_scale(), up.log_scale())?;
    plot.configure_mesh()
        .x_labels(6)
        .x_desc(&chart.x)
        .y_desc(&chart.y)
        .x_label_formatter(&|number| tick(*number))
        .y_label_formatter(&|number| tick(*number))
        .light_line_style(TRANSPARENT)
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .draw()?;
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        plot.draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        plot.draw_series(line.points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
    }
    plot.configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .label_font((FONT, 13))
        .draw()?;
    Ok(())
}

fn draw_bars(chart: &Chart, bars: &[(String, f64)], area: &Area) -> Result<(), Box<dyn Error>> {
    const LEFT: i32 = 290;
    const RIGHT: i32 = 110;
    let numbers = around(bars.iter().map(|bar| bar.1), 1.0);
    // The scale is logarithmic, as the note below the bars states.
    let (low, high) = (numbers.start / 3.0, numbers.end);
    let length = |number: f64| {
        let share = (number / low).ln() / (high / low).ln();
        (share * f64::from(WIDTH as i32 - LEFT - RIGHT)) as i32
    };
    let style = (FONT, 14).into_font().color(&BLACK);
    for (number, (name, value)) in bars.iter().enumerate() {
        let top = 8 + 26 * number as i32;
        let colour = COLOURS[usize::from(!name.starts_with("heartbeat")) * 4];
        area.draw(&Text::new(name.clone(), (10, top + 4), style.clone()))?;
        area.draw(&Rectangle::new(
            [(LEFT, top), (LEFT + length(*value), top + 20)],
            colour.filled(),
        ))?;
        let end = (LEFT + length(*value) + 6, top + 4);
        area.draw(&Text::new(format_number(*value), end, style.clone()))?;
    }
    let note = format!("{} (logarithmic)", chart.y);
    let below = (LEFT, 12 + 26 * bars.len() as i32);
    area.draw(&Text::new(note, below, (FONT, 13).into_font().color(&BLACK)))?;
    Ok(())
}

/// Returns the range of the positive numbers, extended by a factor on both ends; the room at the top is for the legend.
fn around(numbers: impl Iterator<Item = f64>, room: f64) -> Range<f64> {
    let (low, high) = numbers
        .filter(|number| *number > 0.0)
        .fold((f64::MAX, f64::MIN), |(low, high), number| {
            (low.min(number), high.max(number))
        });
    low / room.min(1.6)..(high * room).max(low * 1.01)
}

fn tick(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{} million", n / 1e6),
        n if n >= 100.0 => format_number(n),
        n if n >= 1.0 => format!("{n}"),
        n => format!("{n:.3}"),
    }
}
