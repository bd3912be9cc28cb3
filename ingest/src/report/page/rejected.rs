//! What each rule left out, by example.

use std::collections::BTreeMap;
use std::fmt::Write;

use forebay_schemas::id::Digest;

use super::clusters::Names;
use super::counts::{Counts, LeftOut};
use super::markup::{Align, clip, code, escape, percent, size, table};
use super::sample::{DRAWN, Drawn};
use crate::report::grouped;

pub(super) fn section(counts: &Counts, names: Option<&Names>) -> String {
    let mut html = String::new();
    for (verdict, title, reasons) in
        [("removed", "Removed by a rule", &counts.removed), ("quarantined", "Quarantined", &counts.quarantined)]
    {
        if reasons.is_empty() {
            continue;
        }
        let _ = write!(html, "<h3>{title}</h3>");
        for (name, reason) in by_count(reasons) {
            html.push_str(&examples(verdict, name, reason, counts.read.records, names));
        }
    }
    if html.is_empty() {
        return html;
    }
    format!(
        "<p>Up to {DRAWN} records of each reason, drawn by a hash of their keys: every record had the same chance, and the same version shows the same ones.</p>{html}"
    )
}

/// The place in the page where examples of a reason are.
pub(super) fn anchor(verdict: &str, reason: &str) -> String {
    format!("{verdict}-{}", Digest::of(reason.as_bytes()).short())
}

/// The survivor of a duplicate: its key if the ledger was read a second time, and its id.
pub(super) fn survivor(id: &Digest, names: Option<&Names>) -> String {
    let short = format!("<small class=\"soft\" title=\"{id}\">id {}…</small>", id.short());
    names.and_then(|names| names.key(id)).map_or(short.clone(), |key| format!("{} {short}", code(key)))
}

fn examples(verdict: &str, name: &str, reason: &LeftOut, read: u64, names: Option<&Names>) -> String {
    let drawn = reason.draw.by_key();
    let (records, shown) = (reason.amount.records, drawn.len());
    let which = if shown as u64 == records { "all shown".to_owned() } else { format!("{shown} shown") };
    let (id, name) = (anchor(verdict, name), escape(&clip(name, 80)));
    let summary = format!(
        "<summary><i class=\"{verdict}\" aria-hidden=\"true\">{}</i><b>{name}</b> <span>{} records</span> <span class=\"soft\">{} of those read · {} raw · {which}</span></summary>",
        if verdict == "removed" { "−" } else { "!" },
        grouped(records),
        percent(records, read),
        size(reason.amount.bytes)
    );
    let has_survivors = drawn.iter().any(|drawn| drawn.survivor.is_some());
    let mut columns = vec![("key", Align::Left), ("raw size", Align::Right), ("what the rule found", Align::Left)];
    columns.extend(has_survivors.then_some(("kept instead", Align::Left)));
    let row = |drawn: &&Drawn| {
        let survivor = drawn.survivor.as_ref().map_or_else(String::new, |id| survivor(id, names));
        vec![code(&drawn.key), size(drawn.bytes), escape(&drawn.detail), survivor]
    };
    let rows: Vec<Vec<String>> = drawn.iter().map(row).collect();
    let caption = format!("Records with the reason {name}");
    // A link to what is inside opens the section.
    format!("<details>{summary}<div id=\"{id}\">{}</div></details>", table(&caption, &columns, &rows))
}

fn by_count(reasons: &BTreeMap<String, LeftOut>) -> Vec<(&String, &LeftOut)> {
    let mut sorted: Vec<(&String, &LeftOut)> = reasons.iter().collect();
    sorted.sort_by(|a, b| b.1.amount.records.cmp(&a.1.amount.records).then(a.0.cmp(b.0)));
    sorted
}
