//! Histograms and intervals.
//!
//! A histogram is a table whose rows have a bar: it reads at every width, to the eye and to a screen reader, and the numbers
//! are in it. Bars are SVG so that they are printed too.

use std::fmt::Write;

use super::markup::{clip, escape, percent};
use crate::report::grouped;

/// One bar.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) count: u64,
}

/// A table of bars; the longest is as wide as the column. Shares are of `whole`.
pub(super) fn bars(caption: &str, names: &str, counts: &str, class: &str, whole: u64, bars: &[Bar]) -> String {
    let largest = bars.iter().map(|bar| bar.count).max().unwrap_or(0).max(1);
    let mut html = format!(
        "<table class=\"bars\"><caption>{caption}</caption><thead><tr><th scope=\"col\">{names}</th><td></td>\
         <th scope=\"col\" class=\"n\">{counts}</th><th scope=\"col\" class=\"n\">share</th></tr></thead><tbody>"
    );
    for bar in bars {
        let width = 1000.0 * bar.count as f64 / largest as f64;
        // A bar of one among millions would be thinner than a pixel.
        let width = if bar.count > 0 { width.max(4.0) } else { 0.0 };
        let (share, count) = (percent(bar.count, whole), grouped(bar.count));
        let name = escape(&clip(&bar.name, 60));
        let _ = write!(
            html,
            "<tr><th scope=\"row\">{name}</th><td class=\"bar\"><svg viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
             <title>{name}: {count}, {share}</title><rect class=\"{class}\" width=\"{width:.1}\" height=\"10\"/></svg></td>\
             <td class=\"n\">{count}</td><td class=\"n\">{share}</td></tr>"
        );
    }
    html.push_str("</tbody></table>");
    html
}

/// Bars of counts by powers of two without the empty ones at both ends; `name` says what is at a place.
pub(super) fn powers(counts: &[u64], name: impl Fn(usize) -> String) -> Vec<Bar> {
    let first = counts.iter().position(|count| *count > 0).unwrap_or(counts.len());
    let last = counts.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
    (first..last).map(|place| Bar { name: name(place), count: counts[place] }).collect()
}

/// A share with its confidence interval on an axis that ends at 100 %.
pub(super) fn interval(name: &str, share: f64, interval: [f64; 2], class: &str) -> String {
    let [one, other] = interval.map(within);
    let (low, high) = (one.min(other), one.max(other));
    let share = within(share);
    // The axis begins at a round number below the interval.
    let start = (10.0 * low.min(share) - 0.5).floor().clamp(0.0, 9.0) / 10.0;
    let x = |value: f64| 1000.0 * (value - start) / (1.0 - start);
    let title = format!("{name} {:.1} %, 95 % interval {:.1} to {:.1} %", 100.0 * share, 100.0 * low, 100.0 * high);
    format!(
        "<figure class=\"interval\"><figcaption>{title}</figcaption>\
         <svg viewBox=\"0 0 1000 24\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>\
         <path class=\"axis\" d=\"M0 4V20M500 8V16M1000 4V20M0 12H1000\"/><path class=\"range {class}\" d=\"M{low:.1} 12H{high:.1}M{low:.1} 5V19M{high:.1} 5V19\"/>\
         <path class=\"dot {class}\" d=\"M{at:.1} 12h0.01\"/></svg><p class=\"ends soft\"><span>{first:.0} %</span><span>{middle:.0} %</span><span>100 %</span></p></figure>",
        low = x(low),
        high = x(high),
        at = x(share),
        first = 100.0 * start,
        middle = 50.0 * (1.0 + start),
    )
}

fn within(share: f64) -> f64 {
    // The sum makes a zero of a negative zero.
    if share.is_finite() { share.clamp(0.0, 1.0) + 0.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_interval_stays_on_its_axis(share: f64, low: f64, high: f64) {
            let html = interval("recall", share, [low, high], "a");
            prop_assert!(!html.contains("NaN") && !html.contains("inf") && !html.contains("M-") && !html.contains("H-"), "{}", html);
        }
    }

    #[test]
    fn empty_ends_are_left_out_and_a_gap_is_not() {
        let bars = powers(&[0, 0, 3, 0, 1, 0], |place| place.to_string());
        assert_eq!(bars.iter().map(|bar| (bar.name.as_str(), bar.count)).collect::<Vec<_>>(), [("2", 3), ("3", 0), ("4", 1)]);
        assert!(powers(&[0, 0], |place| place.to_string()).is_empty() && powers(&[], |place| place.to_string()).is_empty());
    }

    #[test]
    fn one_among_millions_is_still_a_bar() {
        let two = [Bar { name: "<many>".to_owned(), count: 5_000_000 }, Bar { name: "one".to_owned(), count: 1 }];
        let html = bars("c", "n", "records", "a", 5_000_001, &two);
        assert!(html.contains("&lt;many&gt;") && html.contains("5,000,000") && html.contains("width=\"4.0\""));
    }
}
