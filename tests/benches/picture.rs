//! The growth of a scrape's cost as a picture.

use std::fmt::Write;

use crate::Point;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 50.0;
const TOP: f64 = 40.0;
const RIGHT: f64 = 120.0;

/// An SVG with one line for each program, in colours that are readable on light and dark pages.
pub fn draw(points: &[Point]) -> String {
    let most_series = points.iter().map(|point| point.series).max().unwrap_or(1) as f64;
    let most_time = points.iter().filter_map(|point| point.theirs).fold(1.0, f64::max);
    let (step_series, step_time) = (step(most_series), step(most_time));
    let x = |series: f64| LEFT + series / most_series * (WIDTH - LEFT - RIGHT);
    let y = |time: f64| HEIGHT - BOTTOM - time / most_time * (HEIGHT - BOTTOM - TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\" fill=\"#808080\">\n\
         <title>CPU time of a scrape by number of series</title>\n\
         <text x=\"{LEFT}\" y=\"20\">CPU milliseconds per scrape, by series on the page</text>\n"
    );
    let mut time = 0.0;
    while time <= most_time {
        let at = y(time);
        _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#80808040\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{time}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0
        );
        time += step_time;
    }
    let mut series = 0.0;
    while series <= most_series {
        let (at, bottom) = (x(series), HEIGHT - BOTTOM + 20.0);
        _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{bottom:.1}\" text-anchor=\"middle\">{series}</text>");
        series += step_series;
    }
    let theirs: Vec<(f64, f64)> =
        points.iter().filter_map(|point| Some((point.series as f64, point.theirs?))).collect();
    let ours: Vec<(f64, f64)> = points.iter().map(|point| (point.series as f64, point.ours)).collect();
    for (name, colour, line) in [("node_exporter", "#e6522c", theirs), ("nodewarden", "#2a9d8f", ours)] {
        let Some(&(last_series, last_time)) = line.last() else { continue };
        let place = |(series, time): &(f64, f64)| format!("{:.1},{:.1}", x(*series), y(*time));
        let path: Vec<String> = line.iter().map(place).collect();
        _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.5\"/>",
            path.join(" ")
        );
        for (series, time) in &line {
            _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>",
                x(*series),
                y(*time)
            );
        }
        _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
            x(last_series) + 10.0,
            y(last_time) + 4.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// A round distance between marks, such that there are four to ten of them.
fn step(most: f64) -> f64 {
    let power = 10_f64.powf((most / 4.0).log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|times| times * power).find(|step| most / step >= 4.0).unwrap_or(power)
}
