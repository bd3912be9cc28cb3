//! Dataset versions to the sources of a plan: opens their tables, runs their filters, decides how they are shuffled.
//!
//! Promises: sources that cannot be fed together (another modality, tokenizer or list of classes) are `Invalid` before a row
//! is read; a filter is run once a version, over the columns that it names, and becomes a [`Selection`], which is kept beside
//! the version for whoever opens it with that filter later. Where it cannot be kept, it is run again.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use forebay_schemas::dataset::{DatasetManifest, TableRef};
use forebay_schemas::run::{self, Run};
use forebay_schemas::{Digest, ids};
use forebay_store::dataset::SELECTIONS;
use forebay_store::{Dataset, Table, Watch};
use futures::TryStreamExt;

use crate::error::{Error, Result};
use crate::plan::{Plan, Schedule, Selection, SelectionBuilder, Shuffle, Source};
use crate::stall::Meter;

/// Most bytes of a block where the settings leave its size open, and twice the fewest: one request's worth, beside which it counts
/// little that small columns are stored in chunks of some kilobytes.
const BLOCK_BYTES: u64 = 2 << 20;
/// Fewest blocks of a window, below which a window would be hardly shuffled.
const MIN_WINDOW_BLOCKS: u64 = 16;

/// A dataset version that is read.
#[derive(Clone, Debug)]
pub struct Sourced<'a> {
    /// The dataset.
    pub dataset: &'a Dataset,
    /// Its version.
    pub manifest: &'a DatasetManifest,
    /// SQL over the columns of the rows: only rows for which it is true are fed.
    pub filter: Option<&'a str>,
    /// Its weight among all, step by step.
    pub weight: Schedule,
}

/// What decides the order of samples, beside the sources.
#[derive(Clone, Debug, PartialEq)]
pub struct Ordering {
    /// Seed of the order and of every other draw.
    pub seed: u64,
    /// K: micro-batches in a step.
    pub micro_batches: u32,
    /// B: samples in a micro-batch.
    pub micro_batch_size: u32,
    /// How far rows are moved.
    pub shuffle: run::Shuffle,
    /// Names what is made of text beyond what its rows hold ([`Run::text_digest`]); it moves no row.
    pub text: Option<Digest>,
}

impl Ordering {
    /// That of a training run.
    pub fn of(run: &Run) -> Self {
        let run::Batch { micro_batches, micro_batch_size, .. } = run.batch;
        Self { seed: run.seed, micro_batches, micro_batch_size, shuffle: run.shuffle.clone(), text: run.text_digest() }
    }
}

/// Open tables and the order in which their rows are fed.
pub struct Resolved {
    /// The order.
    pub plan: Plan,
    pub(crate) tables: Vec<Arc<dyn Table>>,
    /// About what a row takes, of the source with the largest.
    pub(crate) row_bytes: u64,
}

/// Opens `split` of every source, runs the filters, and makes the plan.
///
/// `Invalid` if there is no such split, a source has no rows that pass, or the sources do not fit each other.
pub async fn resolve(sources: &[Sourced<'_>], split: &str, ordering: &Ordering) -> Result<Resolved> {
    watched(sources, split, ordering, &Arc::default()).await
}

/// The same, where the meter is told of reads.
pub(crate) async fn watched(sources: &[Sourced<'_>], split: &str, ordering: &Ordering, meter: &Arc<Meter>) -> Result<Resolved> {
    let (mut planned, mut tables, mut most) = (Vec::new(), Vec::new(), 1);
    for (number, source) in sources.iter().enumerate() {
        if let Some(first) = sources.first().filter(|_| number > 0) {
            check_alike(first.manifest, source.manifest, number)?;
        }
        let (table, open) = table(source, split, meter).await?;
        let selection = match source.filter {
            None => None,
            Some(filter) => Some(Arc::new(selection(source.dataset, open.as_ref(), filter, split, source.manifest).await?)),
        };
        let row_bytes = row_bytes(source.manifest, &open.schema());
        most = most.max(row_bytes);
        planned.push(Source {
            identity: source.manifest.identity(),
            rows: table.rows,
            selection,
            shuffle: shuffle(&ordering.shuffle, row_bytes),
            weight: source.weight.clone(),
        });
        tables.push(open);
    }
    let plan = Plan::of_text(&planned, ordering.seed, ordering.micro_batches, ordering.micro_batch_size, ordering.text)?;
    Ok(Resolved { plan, tables, row_bytes: most })
}

async fn table<'a>(source: &Sourced<'a>, split: &str, meter: &Arc<Meter>) -> Result<(&'a TableRef, Arc<dyn Table>)> {
    let manifest = source.manifest;
    let table = manifest.tables.get(split).ok_or_else(|| {
        let names = manifest.tables.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        Error::Invalid(format!("dataset version {}: found no table `{split}`, expected one of {names}", manifest.version))
    })?;
    if table.rows == 0 {
        return Err(Error::Invalid(format!("dataset version {}, split `{split}`: found no rows, expected at least 1", manifest.version)));
    }
    let dataset = source.dataset.watched(Arc::clone(meter) as Arc<dyn Watch>);
    let open = dataset.tables(table.format).open(table).await;
    let open = open.map_err(|error| failed(split, manifest, "cannot open its table", error))?;
    Ok((table, open))
}

/// The rows that a filter leaves: kept by whoever opened the version with it before, or found now.
async fn selection(dataset: &Dataset, table: &dyn Table, filter: &str, split: &str, manifest: &DatasetManifest) -> Result<Selection> {
    let rows = table.rows();
    let name = Digest::of_parts([split.as_bytes(), &rows.to_le_bytes()[..], filter.as_bytes()]);
    let path = format!("{SELECTIONS}/{}/{name}.rows", manifest.identity());
    let kept = dataset.location().get(&path).await;
    if let Some(selection) = kept.ok().and_then(|bytes| Selection::from_bytes(&bytes, rows)) {
        return Ok(selection);
    }
    let selection = select(table, filter, split, manifest).await?;
    // Whoever else puts it puts the same bytes. A dataset that may only be read is none the worse.
    if let Err(error) = dataset.location().put(&path, selection.to_bytes().into()).await {
        tracing::debug!(%error, filter, "the rows of a filter cannot be kept");
    }
    Ok(selection)
}

async fn select(table: &dyn Table, filter: &str, split: &str, manifest: &DatasetManifest) -> Result<Selection> {
    let wrong = |error| failed(split, manifest, "cannot filter its rows", error);
    let mut found = table.select(filter).await.map_err(wrong)?;
    let mut builder = SelectionBuilder::default();
    while let Some(ranges) = found.try_next().await.map_err(wrong)? {
        for range in ranges {
            if range.end > table.rows() || !builder.add(range.clone()) {
                return Err(Error::Internal(format!("split `{split}`: filter `{filter}` gave rows {range:?} out of order")));
            }
        }
    }
    let selection = builder.finish();
    if selection.is_empty() {
        return Err(Error::Invalid(format!(
            "dataset version {}, split `{split}`: filter `{filter}` leaves none of its {} rows, expected at least 1",
            manifest.version,
            table.rows()
        )));
    }
    Ok(selection)
}

fn failed(split: &str, manifest: &DatasetManifest, what: &str, source: forebay_store::Error) -> Error {
    Error::Store { split: split.to_owned(), doing: format!("{what} in dataset version {}", manifest.version), source }
}

fn check_alike(first: &DatasetManifest, other: &DatasetManifest, number: usize) -> Result<()> {
    let bad = |what: &str, found: String, expected: String| {
        Err(Error::Invalid(format!("dataset {number} of the mixture: found {what} {found}, expected {expected} as of the first")))
    };
    if first.modality != other.modality {
        return bad("modality", format!("{:?}", other.modality), format!("{:?}", first.modality));
    }
    let tokenizer = |manifest: &DatasetManifest| manifest.tokenizer.as_ref().map(|tokenizer| tokenizer.object.digest);
    if tokenizer(first) != tokenizer(other) {
        let shown = |manifest: &DatasetManifest| tokenizer(manifest).map_or_else(|| "none".to_owned(), |digest| digest.short());
        return bad("tokenizer", shown(other), shown(first));
    }
    if first.statistics.sequence_length != other.statistics.sequence_length {
        let shown = |manifest: &DatasetManifest| format!("{:?}", manifest.statistics.sequence_length);
        return bad("sequence length", shown(other), shown(first));
    }
    if first.statistics.classes != other.statistics.classes {
        let shown =
            |manifest: &DatasetManifest| manifest.statistics.classes.as_ref().map_or_else(|| "none".to_owned(), |names| names.join(", "));
        return bad("classes", shown(other), shown(first));
    }
    Ok(())
}

/// Blocks of a half of [`BLOCK_BYTES`] to all of it where the settings leave it open: a function of the version alone.
fn shuffle(settings: &run::Shuffle, row_bytes: u64) -> Shuffle {
    let block_rows = match settings.block_rows {
        0 => (BLOCK_BYTES / row_bytes).clamp(1, 1024),
        rows => rows,
    };
    // Rounded down to a power of two.
    let block_rows = 1 << block_rows.ilog2();
    Shuffle { block_rows, window_blocks: (settings.window_rows / block_rows).max(MIN_WINDOW_BLOCKS) }
}

/// About the bytes of a stored training row.
fn row_bytes(manifest: &DatasetManifest, schema: &SchemaRef) -> u64 {
    let bytes = match ids::width(schema) {
        Some((ids, bytes)) => (ids * bytes) as u64,
        None => {
            // Place n counts records of 2ⁿ to 2ⁿ⁺¹ - 1 bytes (characters of documents); one and a half times 2ⁿ stands for them.
            let sizes = manifest.statistics.sizes.iter().zip(0u32..63);
            let (sum, count) = sizes
                .fold((0u128, 0u128), |(sum, count), (many, n)| (sum + u128::from(*many) * (3u128 << n) / 2, count + u128::from(*many)));
            u64::try_from(sum.checked_div(count).unwrap_or(16 << 10)).unwrap_or(u64::MAX)
        }
    };
    bytes.max(1)
}
