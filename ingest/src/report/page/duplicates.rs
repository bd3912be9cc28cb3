//! Duplicates: how many, the largest clusters, and how well the near-duplicate search did.

use std::fmt::Write;

use forebay_schemas::dataset::{DatasetManifest, Quality};

use super::bars::{bars, interval, powers};
use super::clusters::{Clusters, LARGEST, MEMBERS, Names};
use super::counts::Counts;
use super::markup::{code, escape, percent};
use super::rejected::survivor;
use crate::report::grouped;

/// Clusters whose members are shown without a click.
const OPEN: usize = 3;

pub(super) fn section(manifest: &DatasetManifest, counts: &Counts, names: Option<&Names>) -> String {
    let clusters = &counts.clusters;
    let measured = manifest.quality.as_ref().map(|quality| measured(manifest, quality)).unwrap_or_default();
    if clusters.removed() == 0 {
        return measured;
    }
    let about = if clusters.one_in() > 1 { "about " } else { "" };
    let lead = format!(
        "<p>{} records ({} of those read) were removed because another one was kept instead, in {about}{} {}.{}</p>",
        grouped(clusters.removed()),
        percent(clusters.removed(), counts.read.records),
        grouped(clusters.count()),
        if clusters.count() == 1 { "cluster" } else { "clusters" },
        estimated(clusters)
    );
    format!("{lead}<div class=\"tiles\"><div>{}</div><div>{measured}</div></div>{}", sizes(clusters), largest(clusters, names))
}

fn estimated(clusters: &Clusters) -> String {
    if clusters.one_in() == 1 {
        return String::new();
    }
    format!(
        " There are too many clusters to remember each: their number and the histogram are estimated from one cluster in {}, \
         chosen by its id. The sizes of the largest clusters are exact, but one that began late in the ledger may be missing.",
        grouped(clusters.one_in())
    )
}

fn sizes(clusters: &Clusters) -> String {
    let counts = clusters.by_size();
    let whole = counts.iter().sum();
    let name = |place: usize| match (place, 1u64 << place.min(62)) {
        (0, _) => "2".to_owned(),
        (_, half) => format!("{} – {}", grouped(half + 1), grouped(2 * half)),
    };
    bars("Clusters by number of records, the kept one included", "records", "clusters", "removed", whole, &powers(&counts, name))
}

fn largest(clusters: &Clusters, names: Option<&Names>) -> String {
    let shown = clusters.largest(LARGEST);
    let mut html = format!("<h3>{} clusters</h3><ol class=\"clusters\">", if shown.len() < LARGEST { "All" } else { "The largest" });
    for (rank, (id, records)) in shown.iter().enumerate() {
        let members = names.map_or(&[][..], |names| names.members(id));
        let head = format!("<b class=\"n\">{} records</b> kept: {}", grouped(*records), survivor(id, names));
        if members.is_empty() {
            let _ = write!(html, "<li>{head}</li>");
            continue;
        }
        let removed = records - 1;
        let which = if removed > MEMBERS as u64 {
            format!("the first {} of {} removed", members.len(), grouped(removed))
        } else {
            "removed".to_owned()
        };
        let open = if rank < OPEN { " open" } else { "" };
        let _ = write!(html, "<li><details{open}><summary>{head}</summary><p class=\"soft\">{which}:</p><ul>");
        for member in members {
            let _ = write!(html, "<li>{} <span class=\"soft\">{}</span></li>", code(&member.key), escape(&member.detail));
        }
        html.push_str("</ul></details></li>");
    }
    html + "</ol>"
}

fn measured(manifest: &DatasetManifest, quality: &Quality) -> String {
    let threshold = manifest.config.pointer("/dedup/threshold").and_then(serde_json::Value::as_f64);
    let similar = threshold.map_or("as similar as the threshold asks".to_owned(), |threshold| format!("of similarity {threshold} or more"));
    let share = |share: f64| if share.is_finite() { format!("{:.1} %", 100.0 * share) } else { "an unknown share".to_owned() };
    let mut html = format!(
        "<h3>Near-duplicate search, measured</h3><p>All pairs in a sample of {} records were compared exactly.</p>",
        grouped(quality.sample)
    );
    if quality.pairs == 0 {
        html.push_str("<p>Recall: there is no similar pair in the sample, so nothing can be said of it.</p>");
    } else {
        html += &interval("Recall", quality.recall, quality.recall_interval, "kept");
        let _ = write!(
            html,
            "<p>Of {} pairs {similar}, the search finds {}; the others stay in the data as near duplicates.</p>",
            grouped(quality.pairs),
            share(quality.recall)
        );
    }
    if quality.removals == 0 {
        html.push_str("<p>Precision: no record of the sample was removed, so nothing can be said of it.</p>");
    } else {
        html += &interval("Precision", quality.precision, quality.precision_interval, "removed");
        let _ = write!(
            html,
            "<p>Of {} near duplicates removed, {} are {similar} to the record kept instead; the others were lost by mistake.</p>",
            grouped(quality.removals),
            share(quality.precision)
        );
    }
    html + "<p class=\"soft\">The lines are 95 % confidence intervals (Wilson): of many samples, 95 in 100 would have the share of the whole data within theirs.</p>"
}
