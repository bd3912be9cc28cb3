//! The report of a dataset version: one self-contained HTML page.
//!
//! Pure: manifest and ledger in, text out. Shows what a person wants to know of data before training on them: what came in,
//! what each rule took out and what that looks like, what is alike, and where it all comes from. Promises: memory that does
//! not grow with the number of records ([`Summary`] says how), the same page for the same version, and nothing in a key or
//! a setting that a browser would take for markup. Deliberately absent: scripts, fonts and anything else fetched.

mod bars;
mod clusters;
mod content;
mod counts;
mod duplicates;
mod flow;
mod listing;
mod markup;
mod origin;
mod rejected;
mod rows;
mod sample;
mod tally;

use std::fmt::Write;

use arrow::array::RecordBatch;
use forebay_schemas::dataset::{DatasetManifest, Modality};

use crate::error::Result;
use clusters::Names;
use counts::Counts;
use markup::{code, date, escape, percent, size};
use rows::Rows;

use super::grouped;

const STYLE: &str = include_str!("page/style.css");

/// What a page is made of.
///
/// Bounded whatever the number of records: counts by reason ([`counts::MAX_REASONS`] of them), [`sample::DRAWN`] records of
/// each reason (those with the least hashes of their keys, so the choice does not depend on the order of the ledger), sizes
/// of at most [`clusters::MAX_CLUSTERS`] clusters of duplicates, and histograms by powers of two. About 40 MB at the worst.
pub(crate) struct Summary {
    manifest: DatasetManifest,
    counts: Counts,
    names: Option<Names>,
}

impl Summary {
    /// A page that knows the manifest alone.
    pub(crate) fn new(manifest: &DatasetManifest) -> Self {
        Self { manifest: manifest.clone(), counts: Counts::default(), names: None }
    }

    /// Adds rows of the table `records`, in any order; every row of the version once.
    ///
    /// Rows that do not have the columns of [`forebay_schemas::record::records`] are `Corrupt`.
    pub(crate) fn add(&mut self, ledger: &RecordBatch) -> Result<()> {
        self.names = None;
        Rows::of(ledger)?.each(|record| self.counts.add(record))
    }

    /// Whether a second reading of the ledger ([`Summary::name`]) would show more.
    pub(crate) fn has_survivors(&self) -> bool {
        self.counts.clusters.removed() > 0
    }

    /// The second reading of the ledger, after all of it was added: finds the keys of the survivors that the page shows, and
    /// the first members of the largest clusters. Without it the page shows ids.
    pub(crate) fn name(&mut self, ledger: &RecordBatch) -> Result<()> {
        let names = self.names.get_or_insert_with(|| Names::wanted(&self.counts));
        Rows::of(ledger)?.each(|record| {
            names.see(&record);
            Ok(())
        })
    }

    /// The page. `dataset` is its URL; `ancestors` are the manifests of earlier versions, the newest first, as many as the
    /// caller cares to read.
    pub(crate) fn page(&self, dataset: &str, ancestors: &[DatasetManifest]) -> String {
        let sections = [
            ("records", "Records", tally::section(&self.manifest, &self.counts)),
            ("content", self.content_title(), content::section(&self.manifest, &self.counts)),
            ("rejected", "What was left out", rejected::section(&self.counts, self.names.as_ref())),
            ("duplicates", "Duplicates", duplicates::section(&self.manifest, &self.counts, self.names.as_ref())),
            ("inputs", "Inputs", origin::inputs(&self.manifest)),
            ("configuration", "Configuration", origin::configuration(&self.manifest)),
            ("lineage", "Lineage", origin::lineage(&self.manifest, ancestors)),
        ];
        let name = escape(last_segment(dataset));
        let version = self.manifest.version;
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>{name} version {version} · Forebay dataset</title><style>{STYLE}</style></head><body>\n"
        );
        self.head(&mut page, dataset, &name);
        let shown = || sections.iter().filter(|(_, _, body)| !body.is_empty());
        page.push_str("<nav aria-label=\"Sections\">");
        for (id, title, _) in shown() {
            let _ = write!(page, "<a href=\"#{id}\">{title}</a> ");
        }
        page.push_str("</nav></header>\n<main>\n");
        for (id, title, body) in shown() {
            let _ = writeln!(page, "<section id=\"{id}\" aria-labelledby=\"h-{id}\"><h2 id=\"h-{id}\">{title}</h2>{body}</section>");
        }
        page.push_str("</main></body></html>\n");
        page
    }

    fn content_title(&self) -> &'static str {
        match self.manifest.modality {
            Modality::Text => "Text that was kept",
            Modality::Images => "Images that were kept",
        }
    }

    fn head(&self, page: &mut String, dataset: &str, name: &str) {
        let m = &self.manifest;
        let _ = write!(page, "<header><h1>{name} <span class=\"soft\">version {}</span></h1>", m.version);
        let parent = m.parent.map_or("the first version".to_owned(), |parent| format!("made after version {parent}"));
        let _ = write!(
            page,
            "<p class=\"soft\">{} · committed {} by {} · {parent}</p><p class=\"soft\">identity {}</p>",
            code(dataset),
            date(m.created_unix_ms),
            escape(&m.program),
            code(&m.identity().to_string())
        );
        page.push_str("<dl class=\"figures\">");
        for (name, value) in self.figures() {
            let _ = write!(page, "<div><dt>{name}</dt><dd>{value}</dd></div>");
        }
        page.push_str("</dl>");
    }

    fn figures(&self) -> Vec<(&'static str, String)> {
        let (tally, statistics) = (&self.manifest.tally, &self.manifest.statistics);
        let share = |count: u64| format!("{} <small>{}</small>", grouped(count), percent(count, tally.read));
        let mut figures = vec![
            ("records read", grouped(tally.read)),
            ("kept", share(tally.kept)),
            ("removed", share(tally.removed_total())),
            ("quarantined", share(tally.quarantined_total())),
            ("raw bytes", size(self.manifest.inputs.bytes)),
        ];
        figures.extend(statistics.tokens.map(|tokens| ("training tokens", grouped(tokens))));
        figures.extend(statistics.classes.as_ref().map(|classes| ("classes", grouped(classes.len() as u64))));
        figures
    }
}

/// What people call a dataset: the end of its URL.
fn last_segment(url: &str) -> &str {
    url.trim_end_matches('/').rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("dataset")
}

#[cfg(test)]
pub(crate) mod tests;
