//! Deduplication: which of the cleaned records are kept.
//!
//! 1. [`exact`]: records of one id are copies of the first of them.
//! 2. [`near`]: first records that share a band key are compared ([`judge`]), those of earlier versions too ([`beside`], [`known`]).
//! 3. [`repeats`]: text that several of those left have is cut out of all but one.
//! 4. [`ledger`]: every record gets its fate, and the tally is counted.
//!
//! Between the steps lie stage objects, sorted by the query engine, which spills; in memory are a few bytes a record.
//! Promises: verdicts depend on the set of records alone, whatever the number of runs in which they came.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use datafusion::catalog::TableProvider;
use datafusion::prelude::{DataFrame, col};
use forebay_schemas::dataset::Modality;
use forebay_schemas::id::Digest;
use forebay_schemas::pipeline::picture::NearPicture;
use forebay_schemas::pipeline::{Dedup, Pipeline};
use futures::TryStreamExt;

use crate::clean::image;
use crate::clean::picture::bands::Bands;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::stage::{Part, Stage};

mod adding;
mod beside;
mod components;
mod exact;
pub(crate) mod judge;
pub(crate) mod known;
pub(crate) mod ledger;
pub(crate) mod minhash;
pub(crate) mod near;
mod quality;
mod repeats;
mod shared;
mod words;

pub use ledger::Reject;
pub(crate) use ledger::{Fate, Ledger, Splitter};

/// The cleaned records of a job: the verdicts on all, the contents of those that the rules kept.
#[derive(Clone)]
pub(crate) struct Cleaned {
    pub(crate) verdicts: Stage,
    pub(crate) contents: Stage,
    /// Parts of both stages, with the ordinals of the verdicts.
    pub(crate) parts: Vec<Part>,
    pub(crate) content_parts: Vec<Part>,
    pub(crate) tasks: usize,
    pub(crate) records: u64,
}

impl Cleaned {
    /// The records of two stages of which all `tasks` are done.
    pub(crate) async fn open(verdicts: &Stage, contents: &Stage, tasks: usize) -> Result<Self> {
        let (parts, mut content_parts) = (verdicts.whole(tasks).await?, contents.whole(tasks).await?);
        let places = |parts: &[Part]| parts.iter().map(|part| (part.task, part.part)).collect::<Vec<_>>();
        if places(&parts) != places(&content_parts) {
            return Err(Error::new(Kind::Corrupt, "the stage objects of cleaning do not belong together: another program deleted some"));
        }
        content_parts.iter_mut().zip(&parts).for_each(|(content, verdict)| content.first = verdict.first);
        let records = parts.last().map_or(0, |last| last.first + last.rows);
        Ok(Self { verdicts: verdicts.clone(), contents: contents.clone(), parts, content_parts, tasks, records })
    }

    /// Columns of the verdicts.
    pub(crate) fn verdicts(&self, columns: &[&str], partitions: usize) -> Result<Arc<dyn TableProvider>> {
        self.verdicts.table(&self.parts, columns, partitions)
    }

    /// Columns of the contents.
    pub(crate) fn contents(&self, columns: &[&str], partitions: usize) -> Result<Arc<dyn TableProvider>> {
        self.contents.table(&self.content_parts, columns, partitions)
    }
}

/// Where and how duplicates are searched.
pub(crate) struct Search<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) cleaned: &'a Cleaned,
    pub(crate) likeness: &'a Likeness,
    /// The records of earlier versions; none for a first version.
    pub(crate) known: Option<&'a known::Known>,
    /// Makes a stage of this job by name.
    pub(crate) stage: &'a (dyn Fn(&str, SchemaRef) -> Stage + Sync),
}

impl Search<'_> {
    /// Decides all records; also gives the contents of those that are left, as they are left. None where the version turns out
    /// not to add to its parent ([`adding`]), so that everything must be read again.
    pub(crate) async fn decide(&self) -> Result<Option<(Ledger, Cleaned)>> {
        if let Some(known) = self.known
            && !adding::agrees(self, known).await?
        {
            return Ok(None);
        }
        let (ledger, left) = self.verdicts().await?;
        Ok((self.known.is_none() || adding::holds(self, &ledger)).then_some((ledger, left)))
    }

    async fn verdicts(&self) -> Result<(Ledger, Cleaned)> {
        let firsts = exact::find(self).await?;
        let near = if self.likeness.is_wanted() { near::find(self, &firsts).await? } else { near::Found::none(self).await? };
        let decisions = self.decisions(&near).await?;
        if !self.is_cutting() {
            return Ok((ledger::settle(self, decisions, None, near).await?, self.cleaned.clone()));
        }
        let left = repeats::cut(self, &firsts, &decisions).await?;
        let decisions = self.joined(&decisions, &left.removed).await?;
        Ok((ledger::settle(self, decisions, Some(left.changed), near).await?, left.cleaned))
    }

    /// Whether repeated text is cut.
    fn is_cutting(&self) -> bool {
        self.pipeline.source.modality == Modality::Text && self.pipeline.dedup.repeats.is_on()
    }

    /// The records that are left out as duplicates: `ordinal`, `reason`, `survivor`, `similarity`, in the order of ordinals.
    async fn decisions(&self, near: &near::Found) -> Result<Stage> {
        let decisions = (self.stage)("decisions", decision_schema());
        let copies = (self.stage)("copies", exact::schema());
        let session = self.engine.session(4096);
        session.register_table("copies", copies.table(&copies.whole(1).await?, &["ordinal_of_copy", "id"], 1)?)?;
        session.register_table(
            "near",
            near.removed.table(&near.removed.whole(1).await?, &["ordinal_of_record", "id", "survivor", "similarity"], 1)?,
        )?;
        // To a near-duplicate pass an exact copy is a duplicate of similarity 1, also where exact removal is off.
        let copy = if self.pipeline.dedup.exact { "exact_duplicate" } else { "near_duplicate" };
        let query = format!(
            "SELECT ordinal_of_record AS ordinal_of_record, 'near_duplicate' AS reason, survivor, similarity, false AS is_copy
               FROM near WHERE ordinal_of_record IS NOT NULL
             UNION ALL
             SELECT c.ordinal_of_copy, '{copy}', coalesce(n.survivor, c.id), 1.0e0, true
               FROM copies c LEFT JOIN near n ON c.id = n.id
             ORDER BY ordinal_of_record"
        );
        self.write(&decisions, session.sql(&query).await?).await?;
        Ok(decisions)
    }

    /// Decisions on different records, as one stage.
    async fn joined(&self, decisions: &Stage, others: &Stage) -> Result<Stage> {
        let joined = (self.stage)("all-decisions", decision_schema());
        let session = self.engine.session(4096);
        let table =
            async |stage: &Stage| Ok::<_, Error>(session.read_table(stage.table(&stage.whole(1).await?, &DECISION_COLUMNS, 1)?)?);
        let all = table(decisions).await?.union(table(others).await?)?;
        self.write(&joined, all.sort(vec![col(DECISION_COLUMNS[0]).sort(true, false)])?).await?;
        Ok(joined)
    }

    async fn write(&self, decisions: &Stage, plan: DataFrame) -> Result<()> {
        let mut batches = self.engine.stream(plan).await?;
        let mut writer = decisions.writer(0)?;
        while let Some(batch) = batches.try_next().await? {
            writer.append(&RecordBatch::try_new(decision_schema(), cast(&batch, &decision_schema())?)?).await?;
        }
        writer.finish().await
    }
}

const DECISION_COLUMNS: [&str; 5] = ["ordinal_of_record", "reason", "survivor", "similarity", "is_copy"];

/// The columns of a batch in the types of a schema.
fn cast(batch: &RecordBatch, schema: &SchemaRef) -> Result<Vec<ArrayRef>> {
    let columns = batch.columns().iter().zip(schema.fields());
    Ok(columns.map(|(column, field)| arrow::compute::cast(column, field.data_type())).collect::<std::result::Result<_, _>>()?)
}

fn decision_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ordinal_of_record", DataType::UInt64, true),
        Field::new("reason", DataType::Utf8, true),
        Field::new("survivor", DataType::FixedSizeBinary(32), true),
        Field::new("similarity", DataType::Float64, true),
        Field::new("is_copy", DataType::Boolean, true),
    ]))
}

/// What texts are compared by.
pub(crate) fn text_features(signer: &mut minhash::Signer, text: &str) -> judge::Features {
    let (signed, data) = signer.sign_with_shingles(text);
    judge::Features { keys: keys_of(&signed.sketch), queries: None, data }
}

/// The numbers of a sketch of text.
pub(crate) fn keys_of(sketch: &[u8]) -> Vec<u64> {
    sketch.chunks_exact(8).map(|key| key.iter().rev().fold(0, |key, byte| key << 8 | u64::from(*byte))).collect()
}

/// How the records of a modality are compared.
pub(crate) enum Likeness {
    /// By shingles, found by the keys of MinHash bands.
    Text(Dedup),
    /// By perceptual hashes, found by samples of their bits.
    Images(NearPicture, Bands),
}

impl Likeness {
    pub(crate) fn new(pipeline: &Pipeline) -> Self {
        match pipeline.source.modality {
            Modality::Text => Self::Text(pipeline.dedup.clone()),
            Modality::Images => Self::Images(pipeline.picture.near.clone(), Bands::new(&pipeline.picture.near)),
        }
    }

    /// Whether near duplicates are searched.
    fn is_wanted(&self) -> bool {
        match self {
            Self::Text(dedup) => dedup.near,
            Self::Images(near, _) => near.enabled,
        }
    }

    /// Keys under which a record is found and by which it looks, if these are not the same, from its sketch.
    pub(crate) fn keys(&self, sketch: &[u8]) -> (Vec<u64>, Option<Vec<u64>>) {
        match self {
            Self::Text(_) => (keys_of(sketch), None),
            Self::Images(_, bands) => image::keys(sketch, bands),
        }
    }

    /// All keys of a record, each once: a key must not be taken for shared because one record has it twice.
    pub(crate) fn distinct_keys(&self, sketch: &[u8]) -> Vec<u64> {
        let (mut keys, queries) = self.keys(sketch);
        if let Some(queries) = queries {
            keys.extend(queries);
            keys.sort_unstable();
            keys.dedup();
        }
        keys
    }

    /// Keys of a record, about.
    fn keys_a_record(&self) -> u64 {
        match self {
            Self::Text(dedup) => u64::from(dedup.bands),
            Self::Images(near, _) => u64::from(near.bands) * if near.turned { 8 } else { 1 },
        }
    }

    fn similarity(&self) -> judge::Similarity {
        match self {
            Self::Text(_) => minhash::jaccard,
            Self::Images(..) => image::similarity,
        }
    }

    /// The similarity from which two records are the same.
    fn threshold(&self) -> f64 {
        match self {
            Self::Text(dedup) => dedup.threshold,
            Self::Images(near, _) => image::threshold(near),
        }
    }
}

/// A digest from a column of 32 bytes.
pub(crate) fn digest(bytes: &[u8]) -> Result<Digest> {
    let bytes: [u8; 32] =
        bytes.try_into().map_err(|_| Error::new(Kind::Internal, format!("id: found {} bytes, expected 32", bytes.len())))?;
    Ok(Digest::from_bytes(bytes))
}

/// A column of digests, some null.
pub(crate) fn digests<'a>(digests: impl Iterator<Item = Option<&'a Digest>>) -> Result<ArrayRef> {
    let mut column = FixedSizeBinaryBuilder::new(32);
    for digest in digests {
        match digest {
            Some(digest) => column.append_value(digest.as_bytes())?,
            None => column.append_null(),
        }
    }
    Ok(Arc::new(column.finish()))
}

/// Rows in the order of their first column, an ordinal, that are asked for one ordinal after the other.
pub(crate) struct ByOrdinal {
    batches: datafusion::execution::SendableRecordBatchStream,
    current: Option<(RecordBatch, usize)>,
}

impl ByOrdinal {
    pub(crate) fn new(batches: datafusion::execution::SendableRecordBatchStream) -> Self {
        Self { batches, current: None }
    }

    /// The next row of a record, by `read` of the batch that has it and its place there; every row must be asked for before
    /// those of a later record.
    pub(crate) async fn find<T>(&mut self, ordinal: u64, read: impl FnOnce(&RecordBatch, usize) -> Result<T>) -> Result<Option<T>> {
        loop {
            if let Some((batch, row)) = &mut self.current
                && *row < batch.num_rows()
            {
                let (found, at) = (batch.column(0).as_primitive::<UInt64Type>().value(*row), *row);
                match found.cmp(&ordinal) {
                    std::cmp::Ordering::Greater => return Ok(None),
                    std::cmp::Ordering::Less => {
                        return Err(Error::new(Kind::Internal, format!("found another row of record {found}, expected one of {ordinal}")));
                    }
                    std::cmp::Ordering::Equal => {
                        *row += 1;
                        return read(batch, at).map(Some);
                    }
                }
            }
            match self.batches.try_next().await? {
                Some(batch) => self.current = Some((batch, 0)),
                None => return Ok(None),
            }
        }
    }
}

/// Why a record is left out as a duplicate.
pub(crate) struct Decision {
    pub(crate) reason: String,
    pub(crate) survivor: Digest,
    /// Jaccard similarity to the survivor, or the share of its words that stand elsewhere.
    pub(crate) similarity: f64,
    /// Whether its content was read before.
    pub(crate) is_copy: bool,
}

impl Decision {
    /// The decision of a row of the stage `decisions`.
    fn at(batch: &RecordBatch, row: usize) -> Result<Self> {
        Ok(Self {
            reason: batch.column(1).as_string::<i32>().value(row).to_owned(),
            survivor: digest(batch.column(2).as_fixed_size_binary().value(row))?,
            similarity: batch.column(3).as_primitive::<arrow::datatypes::Float64Type>().value(row),
            is_copy: batch.column(4).as_boolean().value(row),
        })
    }

    /// The value that was judged, for people.
    pub(crate) fn detail(&self) -> String {
        match (self.is_copy, self.reason.as_str()) {
            (true, _) => "same content".to_owned(),
            (false, repeats::REPEATED) => format!("{:.3} of its words repeated", self.similarity),
            (false, _) => format!("similarity {:.3}", self.similarity),
        }
    }
}

/// The value of a nullable column of text.
pub(crate) fn text_at(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}
