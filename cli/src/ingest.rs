//! `forebay ingest`: raw objects to a committed dataset version.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use forebay_ingest::{Ingested, Options, Outcome, Reject, report};
use forebay_schemas::RowsDigest;
use forebay_schemas::dataset::DatasetManifest;
use serde::Serialize;

use forebay::config::{Settings, runtime};
use forebay::output;
use forebay::progress::Bars;

/// Reads raw text or images, cleans, deduplicates, and commits a dataset version
///
/// Every record read is kept, removed by a rule or quarantined with a reason; the table printed at the end adds up.
/// The same input again commits nothing. Killed and started again, it goes on from its finished tasks.
#[derive(Args)]
#[command(
    after_help = "Example:\n  forebay ingest examples/rust-code.toml --set dedup.threshold=0.8\n  forebay ingest examples/photos.toml --set source.url=/data/photos --json"
)]
pub(crate) struct Ingest {
    #[command(flatten)]
    settings: Settings,
    /// Reads and decides, prints the first rejects of each rule and the table, commits nothing
    #[arg(long)]
    dry_run: bool,
    /// Prints one JSON object: version, committed, read, kept, removed, quarantined, rows_digest, seconds, stages;
    /// rejects in a dry run
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json<'a> {
    version: Option<u64>,
    committed: bool,
    read: u64,
    kept: u64,
    removed: &'a BTreeMap<String, u64>,
    quarantined: &'a BTreeMap<String, u64>,
    rows_digest: RowsDigest,
    seconds: f64,
    stages: BTreeMap<&'a str, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejects: Option<&'a BTreeMap<String, Vec<Reject>>>,
}

impl Ingest {
    pub(crate) fn run(self) -> Result<()> {
        let Some(pipeline) = self.settings.pipeline()? else { return Ok(()) };
        let bars = Arc::new(Bars::default());
        let result = runtime()?.block_on(forebay_ingest::ingest(&pipeline, Options { dry_run: self.dry_run }, bars.clone()));
        bars.finish();
        let ingested = result?;
        if self.json { print_json(&ingested) } else { print_text(&ingested, &pipeline.dataset) }
    }
}

fn print_json(ingested: &Ingested) -> Result<()> {
    let (version, rows_digest) = match &ingested.outcome {
        Outcome::Committed(manifest) | Outcome::Unchanged { manifest, .. } => (Some(manifest.version), manifest.rows_digest),
        Outcome::Planned { rows_digest, .. } => (None, *rows_digest),
    };
    let tally = ingested.tally();
    output::json(&Json {
        version,
        committed: matches!(ingested.outcome, Outcome::Committed(_)),
        read: tally.read,
        kept: tally.kept,
        removed: &tally.removed,
        quarantined: &tally.quarantined,
        rows_digest,
        seconds: ingested.seconds,
        stages: ingested.stages.iter().map(|(name, seconds)| (name.as_str(), *seconds)).collect(),
        rejects: match &ingested.outcome {
            Outcome::Planned { rejects, .. } => Some(rejects),
            _ => None,
        },
    })
}

fn print_text(ingested: &Ingested, dataset: &str) -> Result<()> {
    if let Outcome::Planned { rejects, .. } = &ingested.outcome {
        print_rejects(rejects)?;
    }
    output::line(report::conservation(ingested.tally()).trim_end())?;
    output::line("")?;
    let seconds = ingested.seconds;
    match &ingested.outcome {
        Outcome::Planned { .. } => output::line(format!("dry run of {seconds:.1} s: nothing was committed to {dataset}")),
        Outcome::Unchanged { manifest, tally } => {
            let what = match tally.read.saturating_sub(manifest.tally.read) {
                0 => format!("the input is that of version {}", manifest.version),
                new => format!("of {} new records none is kept beside version {}", output::grouped(new), manifest.version),
            };
            output::line(format!("nothing new: {what} of {dataset}; nothing was committed"))
        }
        Outcome::Committed(manifest) => {
            output::line(format!("committed version {} of {dataset} in {seconds:.1} s", manifest.version))?;
            print_rows(manifest)?;
            output::line(format!("  a page to look at: forebay dataset report {dataset} {}", manifest.version))
        }
    }
}

fn print_rejects(rejects: &BTreeMap<String, Vec<Reject>>) -> Result<()> {
    for (reason, rejects) in rejects {
        output::line(format!("{reason}, the first of them:"))?;
        for Reject { key, detail } in rejects {
            output::line(format!("  {key}: {detail}"))?;
        }
    }
    output::line("")
}

fn print_rows(manifest: &DatasetManifest) -> Result<()> {
    for (name, table) in &manifest.tables {
        output::line(format!("  {name:<11} {:>12} rows", output::grouped(table.rows)))?;
    }
    if let Some(entropy) = manifest.statistics.unigram_entropy_nats {
        let tokens = manifest.statistics.tokens.unwrap_or_default();
        output::line(format!("  {} training tokens, unigram entropy {entropy:.3} nats a token", output::grouped(tokens)))?;
    }
    if let Some(classes) = &manifest.statistics.classes {
        output::line(format!("  {} classes: {}", classes.len(), classes.iter().take(12).cloned().collect::<Vec<_>>().join(", ")))?;
    }
    Ok(())
}
