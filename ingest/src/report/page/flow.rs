//! The flow of records as a Sankey diagram: read, then kept, removed or quarantined, then the split or the reason.
//!
//! The bands stretch with the page and the heights do not, so that the words beside them keep their size at every width:
//! each leaf has a line of text, and a band is as thick as its share but never thinner than can be seen. The words name every
//! band; colour only helps.

use std::fmt::Write;

use super::markup::{clip, escape, percent};
use crate::report::grouped;

/// Pixels that all records together are high.
const HEIGHT: f64 = 300.0;
/// Pixels of the thinnest band.
const THINNEST: f64 = 2.0;
/// Pixels of a line of text.
const LINE: f64 = 22.0;
/// Pixels above the first leaf, room for a label.
const TOP: f64 = 26.0;
/// Pixels between two branches.
const GAP: f64 = 26.0;
/// Of 1,000: where the branches are, and where the leaves.
const MIDDLE: f64 = 520.0;
const END: f64 = 1000.0;

/// What became of a part of the records.
pub(super) struct Branch {
    pub(super) name: &'static str,
    /// A class of the style sheet, which gives the colour.
    pub(super) class: &'static str,
    /// A sign before each leaf, so that colour is not all that tells branches apart.
    pub(super) sign: &'static str,
    pub(super) leaves: Vec<Leaf>,
}

/// An end of the flow.
pub(super) struct Leaf {
    pub(super) name: String,
    pub(super) count: u64,
    /// Where the page says more.
    pub(super) link: Option<String>,
}

/// The diagram; nothing if there is no record.
pub(super) fn flow(read: u64, branches: &[Branch]) -> String {
    let branches: Vec<Placed<'_>> = place(read, branches);
    let Some(end) = branches.last().map(|branch| branch.bottom) else { return String::new() };
    let height = end + 8.0;
    let total: f64 = branches.iter().map(|branch| branch.thickness).sum();
    let start = TOP + (end - TOP - total) / 2.0;

    let title = format!("{} records read flow to {} ends", grouped(read), branches.iter().map(|branch| branch.leaves.len()).sum::<usize>());
    let mut svg = format!(
        "<svg viewBox=\"0 0 1000 {height:.1}\" height=\"{height:.1}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>"
    );
    let mut labels = label(0.0, start, "start", "read", &grouped(read));
    let mut items = String::new();
    let mut left = start;
    for (number, branch) in branches.iter().enumerate() {
        let what = branch.what;
        let count: u64 = what.leaves.iter().map(|leaf| leaf.count).sum();
        let share = percent(count, read);
        band(
            &mut svg,
            what.class,
            (0.0, left),
            (MIDDLE, branch.top),
            branch.thickness,
            &format!("{}: {}, {share}", what.name, grouped(count)),
        );
        left += branch.thickness;
        let mut from = branch.top;
        for (at, (leaf, placed)) in branch.leaves.iter().enumerate() {
            let (name, share) = (escape(&clip(&leaf.name, 80)), percent(leaf.count, read));
            let title = format!("{}: {name}: {}, {share}", what.name, grouped(leaf.count));
            band(&mut svg, what.class, (MIDDLE, from), (END, placed.band_top), placed.thickness, &title);
            node(&mut svg, what.class, END, placed.band_top, placed.thickness);
            from += placed.thickness;
            let space = if at == 0 && number > 0 { GAP } else { 0.0 };
            item(&mut items, what, leaf, placed.height, space, &title);
        }
        node(&mut svg, what.class, MIDDLE, branch.top, branch.thickness);
        labels += &label(MIDDLE / 10.0, branch.top, "middle", what.name, &share);
    }
    node(&mut svg, "all", 0.0, start, total);
    svg.push_str("</svg>");
    format!("<figure class=\"flow\"><div class=\"bands\">{svg}{labels}</div><ul style=\"padding-top:{TOP}px\">{items}</ul></figure>")
}

/// A branch with its place.
struct Placed<'a> {
    what: &'a Branch,
    /// Of its node in the middle.
    top: f64,
    thickness: f64,
    /// Of its last leaf.
    bottom: f64,
    leaves: Vec<(&'a Leaf, PlacedLeaf)>,
}

struct PlacedLeaf {
    band_top: f64,
    thickness: f64,
    /// Of the line of text beside the band.
    height: f64,
}

fn place(read: u64, branches: &[Branch]) -> Vec<Placed<'_>> {
    let mut y = TOP;
    let mut placed: Vec<Placed<'_>> = Vec::new();
    for what in branches {
        let top = if placed.is_empty() { y } else { y + GAP };
        let mut bottom = top;
        let mut leaves = Vec::new();
        for leaf in what.leaves.iter().filter(|leaf| leaf.count > 0) {
            let thickness = (HEIGHT * leaf.count as f64 / read.max(1) as f64).clamp(THINNEST, HEIGHT);
            let height = thickness.max(LINE);
            leaves.push((leaf, PlacedLeaf { band_top: bottom + (height - thickness) / 2.0, thickness, height }));
            bottom += height;
        }
        if leaves.is_empty() {
            continue;
        }
        let thickness = leaves.iter().map(|(_, leaf)| leaf.thickness).sum::<f64>();
        placed.push(Placed { what, top: (top + bottom - thickness) / 2.0, thickness, bottom, leaves });
        y = bottom;
    }
    placed
}

fn band(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64), thickness: f64, title: &str) {
    let ((x0, y0), (x1, y1)) = (from, to);
    let bend = (x0 + x1) / 2.0;
    let _ = write!(
        svg,
        "<path class=\"band {class}\" d=\"M{x0} {y0:.1}C{bend} {y0:.1} {bend} {y1:.1} {x1} {y1:.1}V{:.1}C{bend} {:.1} {bend} {:.1} {x0} {:.1}Z\"><title>{title}</title></path>",
        y1 + thickness,
        y1 + thickness,
        y0 + thickness,
        y0 + thickness
    );
}

fn node(svg: &mut String, class: &str, x: f64, y: f64, thickness: f64) {
    let _ = write!(svg, "<path class=\"node {class}\" d=\"M{x} {y:.1}v{thickness:.1}\"/>");
}

fn label(left: f64, y: f64, anchor: &str, name: &str, value: &str) -> String {
    format!(
        "<span class=\"label {anchor}\" style=\"left:{left:.1}%;top:{:.1}px\" aria-hidden=\"true\"><b>{name}</b> {value}</span>",
        y - 22.0
    )
}

fn item(items: &mut String, branch: &Branch, leaf: &Leaf, height: f64, space: f64, title: &str) {
    let name = escape(&clip(&leaf.name, 80));
    let name = match &leaf.link {
        Some(link) => format!("<a href=\"#{link}\">{name}</a>"),
        None => name,
    };
    let space = if space > 0.0 { format!(";margin-top:{space}px") } else { String::new() };
    // The share is in the title, whose words come with the name of the branch.
    let share = title.rsplit(", ").next().unwrap_or_default();
    let _ = write!(
        items,
        "<li style=\"height:{height:.1}px{space}\" title=\"{title}\"><i class=\"{}\" aria-hidden=\"true\">{}</i><span class=\"name\">{name}</span>\
         <span class=\"n\">{}</span><span class=\"n soft\">{share}</span></li>",
        branch.class,
        branch.sign,
        grouped(leaf.count)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn branch(counts: &[u64]) -> Branch {
        let leaves = counts.iter().map(|count| Leaf { name: format!("<{count}>"), count: *count, link: None });
        Branch { name: "removed", class: "b", sign: "−", leaves: leaves.collect() }
    }

    proptest! {
        #[test]
        fn bands_never_overlap_and_every_share_can_be_seen(counts in prop::collection::vec(prop::collection::vec(1u64..1_000_000, 0..30), 1..4)) {
            let branches: Vec<Branch> = counts.iter().map(|counts| branch(counts)).collect();
            let placed = place(counts.iter().flatten().sum(), &branches);
            let mut below = 0.0;
            for (_, leaf) in placed.iter().flat_map(|branch| &branch.leaves) {
                prop_assert!(leaf.band_top >= below && leaf.thickness >= THINNEST && leaf.height >= LINE);
                below = leaf.band_top + leaf.thickness - 1e-6;
            }
            let mut below = 0.0;
            for branch in &placed {
                prop_assert!(branch.top >= below);
                below = branch.top + branch.thickness - 1e-6;
            }
        }
    }

    #[test]
    fn nothing_read_is_no_picture() {
        assert_eq!(flow(0, &[branch(&[]), branch(&[0, 0])]), "");
    }

    #[test]
    fn every_leaf_has_a_band_a_line_and_a_title() {
        let html = flow(10, &[branch(&[7]), branch(&[2, 1])]);
        assert_eq!(html.matches("<li ").count(), 3);
        assert_eq!(html.matches("class=\"band ").count(), 5, "two into the branches, three out of them");
        assert!(html.contains("<title>removed: &lt;7&gt;: 7, 70.0 %</title>") && !html.contains("<7>") && !html.contains("NaN"));
    }
}
