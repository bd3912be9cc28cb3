//! The conservation of records: the flow, the table, and whether the ledger agrees when it is counted again.

use std::collections::BTreeMap;
use std::fmt::Write;

use forebay_schemas::dataset::{DatasetManifest, Tally};

use super::counts::{Counts, LeftOut};
use super::flow::{Branch, Leaf, flow};
use super::markup::{Align, clip, code, escape, percent, size, table};
use super::rejected;
use crate::report::grouped;

/// Reasons that the flow shows of each verdict; the smallest beyond are one band, and the table has them all.
const FLOW_REASONS: usize = 30;

pub(super) fn section(manifest: &DatasetManifest, counts: &Counts) -> String {
    let tally = &manifest.tally;
    let flow = flow(tally.read, &branches(tally, counts));
    let flow = if flow.is_empty() { "<p>No record was read.</p>".to_owned() } else { flow };
    format!(
        "<p>Every record read is kept, removed by a rule, or quarantined with a reason. {}</p><div class=\"beside\">{flow}{}</div>",
        check(tally, counts),
        conservation(tally, counts)
    )
}

fn branches(tally: &Tally, counts: &Counts) -> [Branch; 3] {
    let leaf = |name: &str, count| Leaf { name: name.to_owned(), count, link: None };
    let kept = match splits(tally, counts) {
        Some([train, validation]) => vec![leaf("train", train), leaf("validation", validation)],
        None => vec![leaf("kept", tally.kept)],
    };
    let reasons = |verdict: &str, told: &BTreeMap<String, u64>, counted: &BTreeMap<String, LeftOut>| {
        let link = |name: &String| counted.contains_key(name).then(|| rejected::anchor(verdict, name));
        let mut leaves: Vec<Leaf> =
            by_count(told).into_iter().map(|(name, count)| Leaf { name: name.clone(), count, link: link(name) }).collect();
        if leaves.len() > FLOW_REASONS {
            let rest = leaves.split_off(FLOW_REASONS - 1);
            leaves.push(leaf(&format!("{} more reasons", rest.len()), rest.iter().map(|leaf| leaf.count).sum()));
        }
        leaves
    };
    [
        Branch { name: "kept", class: "kept", sign: "✓", leaves: kept },
        Branch { name: "removed", class: "removed", sign: "−", leaves: reasons("removed", &tally.removed, &counts.removed) },
        Branch {
            name: "quarantined",
            class: "quarantined",
            sign: "!",
            leaves: reasons("quarantined", &tally.quarantined, &counts.quarantined),
        },
    ]
}

/// Records in train and validation; none if the ledger does not have all that are kept.
fn splits(tally: &Tally, counts: &Counts) -> Option<[u64; 2]> {
    let splits = [counts.train.records, counts.validation.records];
    (splits.iter().sum::<u64>() == tally.kept).then_some(splits)
}

/// Reasons, the most frequent first.
pub(super) fn by_count(reasons: &BTreeMap<String, u64>) -> Vec<(&String, u64)> {
    let mut sorted: Vec<(&String, u64)> = reasons.iter().map(|(name, count)| (name, *count)).collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    sorted
}

fn check(tally: &Tally, counts: &Counts) -> String {
    if counts.read.records == 0 && tally.read > 0 {
        return "The ledger was not read, so splits, samples and duplicates are not shown.".to_owned();
    }
    let mut different = counts.disagreements(tally);
    if !tally.is_conserved() {
        different.insert(0, "the manifest's own numbers do not add up".to_owned());
    }
    if different.is_empty() {
        return format!("<b>✓ Counted again:</b> the {} rows of the ledger agree with the manifest.", grouped(counts.read.records));
    }
    let mut html = "</p><div class=\"fault\" role=\"alert\"><b>! The ledger does not agree with the manifest:</b><ul>".to_owned();
    for line in different.iter().take(20) {
        let _ = write!(html, "<li>{}</li>", escape(&clip(line, 200)));
    }
    if different.len() > 20 {
        let _ = write!(html, "<li>and {} more</li>", different.len() - 20);
    }
    html + "</ul></div><p>"
}

fn conservation(tally: &Tally, counts: &Counts) -> String {
    let mut rows = Vec::new();
    let mut row = |name: String, count: u64, bytes: Option<u64>, strong: bool| {
        let b = |cell: String| if strong { format!("<b>{cell}</b>") } else { cell };
        let bytes = bytes.map_or_else(|| "–".to_owned(), size);
        rows.push(vec![b(name), b(grouped(count)), b(percent(count, tally.read)), b(bytes)]);
    };
    let known = counts.read.records > 0;
    row("read".to_owned(), tally.read, known.then_some(counts.read.bytes), true);
    row("= kept".to_owned(), tally.kept, known.then_some(counts.kept.bytes), true);
    if let Some([train, validation]) = splits(tally, counts) {
        row(indented("train"), train, Some(counts.train.bytes), false);
        row(indented("validation"), validation, Some(counts.validation.bytes), false);
    }
    for (verdict, told, counted) in [("removed", &tally.removed, &counts.removed), ("quarantined", &tally.quarantined, &counts.quarantined)]
    {
        let bytes = counted.values().map(|reason| reason.amount.bytes).sum();
        row(format!("+ {verdict}"), told.values().sum(), known.then_some(bytes), true);
        for (name, count) in by_count(told) {
            row(indented(&code(&clip(name, 80))), count, counted.get(name).map(|reason| reason.amount.bytes), false);
        }
    }
    let columns = [("verdict and reason", Align::Left), ("records", Align::Right), ("share", Align::Right), ("raw bytes", Align::Right)];
    table("Conservation: read = kept + removed + quarantined", &columns, &rows)
}

fn indented(markup: &str) -> String {
    format!("<span class=\"in\">{markup}</span>")
}
