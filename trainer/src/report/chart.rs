//! Small charts as SVG text, drawn on the server side so that a report needs no script.
//!
//! Promises: valid for any finite input, also for none and for one point. Deliberately absent: interaction.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 14.0;
const RIGHT: f64 = 14.0;

/// One line of a chart.
pub(super) struct Line<'a> {
    /// For the legend.
    pub(super) name: &'a str,
    /// A CSS class of the report's style sheet, which gives the colour.
    pub(super) class: &'a str,
    /// Points by ascending x.
    pub(super) points: Vec<(f64, f64)>,
    /// Whether a value holds until the next point.
    pub(super) stepped: bool,
}

/// Where the vertical axis begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    /// At zero, for amounts.
    Zero,
    /// A little below the smallest value.
    Fit,
}

/// A line chart with axes, a legend, and marks at certain x.
pub(super) fn lines(x_name: &str, y_name: &str, base: Base, lines: &[Line<'_>], marks: &[(f64, String)]) -> String {
    let finite = || lines.iter().flat_map(|line| &line.points).copied().filter(drawable);
    let (x_low, x_high) = span(finite().map(|point| point.0), 0.0);
    let zero = (base == Base::Zero).then_some(0.0);
    let (y_low, y_high) = span(finite().map(|point| point.1).chain(zero), 0.06);
    let y_low = zero.unwrap_or(y_low);
    let x_at = |x: f64| LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
    let y_at = |y: f64| HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - BOTTOM - TOP);

    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{y_name} over {x_name}\">");
    for tick in ticks(y_low, y_high) {
        let y = y_at(tick);
        let _ = write!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>", WIDTH - RIGHT);
        let _ = write!(svg, "<text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>", LEFT - 6.0, y + 4.0, short(tick));
    }
    for tick in ticks(x_low, x_high) {
        let _ = write!(
            svg,
            "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x_at(tick),
            HEIGHT - BOTTOM + 16.0,
            short(tick)
        );
    }
    let _ = write!(
        svg,
        "<text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        WIDTH - RIGHT,
        HEIGHT - 4.0,
        escape(x_name)
    );
    for (x, title) in marks {
        let x = x_at(x.clamp(x_low, x_high));
        let _ = write!(
            svg,
            "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"><title>{}</title></line>",
            HEIGHT - BOTTOM,
            escape(title)
        );
    }
    for (index, line) in lines.iter().enumerate() {
        let _ = write!(
            svg,
            "<path class=\"line {}\" d=\"{}\"><title>{}</title></path>",
            line.class,
            path(line, &x_at, &y_at),
            escape(line.name)
        );
        let y = TOP + 12.0 + 16.0 * index as f64;
        let _ = write!(
            svg,
            "<text class=\"legend {}\" text-anchor=\"end\" x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            line.class,
            WIDTH - RIGHT - 6.0,
            escape(line.name)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// One horizontal bar, divided in proportion to its parts (name, CSS class, amount).
pub(super) fn shares(parts: &[(&str, &str, f64)], unit: &str) -> String {
    let total: f64 = parts.iter().map(|part| part.2.max(0.0)).sum();
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} 46\" role=\"img\" aria-label=\"shares\">");
    let mut legend = String::from("<p class=\"shares\">");
    let mut x = 0.0;
    for (name, class, amount) in parts {
        let share = if total > 0.0 { amount.max(0.0) / total } else { 0.0 };
        let width = share * WIDTH;
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"4\" width=\"{width:.1}\" height=\"36\"><title>{name} {:.1} %</title></rect>",
            100.0 * share
        );
        let _ = write!(legend, "<span><i class=\"{class}\"></i>{name} {:.1} {unit} ({:.1} %)</span> ", amount, 100.0 * share);
        x += width;
    }
    svg.push_str("</svg>");
    legend.push_str("</p>");
    svg + &legend
}

/// Text made safe for HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn path(line: &Line<'_>, x_at: &impl Fn(f64) -> f64, y_at: &impl Fn(f64) -> f64) -> String {
    let mut d = String::new();
    let mut last = None;
    for &(x, y) in line.points.iter().filter(|point| drawable(point)) {
        if let (true, Some(last_y)) = (line.stepped, last) {
            let _ = write!(d, "L{:.1} {:.1}", x_at(x), y_at(last_y));
        }
        let _ = write!(d, "{}{:.1} {:.1}", if last.is_none() { 'M' } else { 'L' }, x_at(x), y_at(y));
        last = Some(y);
    }
    d
}

// Beyond this the width of an axis would no longer be finite.
fn drawable(point: &(f64, f64)) -> bool {
    point.0.abs() < 1e300 && point.1.abs() < 1e300
}

// Never empty: a chart of one point still has a width.
fn span(values: impl Iterator<Item = f64>, margin: f64) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return (0.0, 1.0);
    }
    let width = if high > low { high - low } else { low.abs().max(1.0) };
    (low - margin * width, if high > low { high + margin * width } else { low + width })
}

fn ticks(low: f64, high: f64) -> Vec<f64> {
    let raw = (high - low) / 5.0;
    let magnitude = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * magnitude).into_iter().find(|step| *step >= raw).unwrap_or(raw);
    let first = (low / step).ceil() as i64;
    (first..first + 12).map(|index| index as f64 * step).take_while(|tick| *tick <= high).collect()
}

fn short(value: f64) -> String {
    if value.abs() >= 1e6 {
        format!("{:.1}M", value / 1e6)
    } else if value.abs() >= 1e4 {
        format!("{:.0}k", value / 1e3)
    } else {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_points_give_finite_coordinates(points in prop::collection::vec((0.0..1e9f64, prop::num::f64::ANY), 0..30)) {
            let svg = lines("step", "loss", Base::Fit, &[Line { name: "loss", class: "a", points, stepped: true }], &[(3.0, "x".to_owned())]);
            prop_assert!(!svg.contains("NaN") && !svg.contains("inf"), "{}", svg);
        }
    }

    #[test]
    fn the_largest_numbers_do_not_break_a_chart() {
        let points = vec![(0.0, f64::MAX), (1.0, f64::MIN), (2.0, 1.0), (f64::INFINITY, 0.0)];
        let svg = lines("step", "loss", Base::Fit, &[Line { name: "loss", class: "a", points, stepped: false }], &[]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn names_cannot_break_the_page() {
        assert_eq!(escape("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
        assert!(lines("x", "y", Base::Zero, &[], &[(0.0, "<script>".to_owned())]).contains("&lt;script&gt;"));
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert!(ticks(3.1, 7.9).iter().all(|tick| (3.1..=7.9).contains(tick)));
    }
}
