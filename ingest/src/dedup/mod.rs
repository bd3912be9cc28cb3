//! Deduplication: which of the cleaned records are kept, and the ledger of all of them.
//!
//! Exact copies are grouped by id in the query engine, the survivor being the one with the smallest key; near duplicates
//! are decided in the order of ids (see [`near`]). The ledger has one row a record read, in the order of keys. Promises:
//! verdicts depend on the set of records alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{AsArray, FixedSizeBinaryBuilder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use forebay_schemas::dataset::{Modality, Tally};
use forebay_schemas::id::{Digest, RowsDigest};
use forebay_schemas::pipeline::{Dedup, Pipeline, Split};
use futures::TryStreamExt;
use globset::GlobSet;

use crate::clean::{self, image::class_of};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::source::{globs, path_in_archive};
use crate::stage::Stage;

pub(crate) mod minhash;
pub(crate) mod near;

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Fate {
    LeftOut = 0,
    Train = 1,
    Validation = 2,
}

/// The verdicts on all records read, by ordinal.
pub(crate) struct Ledger {
    /// `ordinal`, `key`, `id`, `verdict`, `reason`, `detail`, `survivor`, `bytes`, in the order of ordinals.
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) fates: Arc<Vec<Fate>>,
    pub(crate) tally: Tally,
    pub(crate) rows_digest: RowsDigest,
    /// Class names of the kept records, sorted; empty for text.
    pub(crate) classes: Vec<String>,
    /// Training records of each class.
    pub(crate) class_counts: Vec<u64>,
}

/// Decides all records of `tasks` cleaned tasks; `read` is their number as listed.
pub(crate) async fn decide(engine: &Engine, cleaned: &Stage, tasks: usize, read: usize, pipeline: &Pipeline) -> Result<Ledger> {
    let session = engine.session(4096);
    let columns = ["ordinal", "key", "id", "verdict", "reason", "detail", "bytes"];
    session.register_table("clean", cleaned.table(0..tasks, &columns, engine.threads())?)?;
    session.sql("CREATE VIEW firsts AS SELECT id, min(ordinal) AS ordinal FROM clean WHERE verdict = 'kept' GROUP BY id").await?;
    let is_near = pipeline.dedup.near && pipeline.source.modality == Modality::Text;
    if is_near {
        session.register_table("signatures", cleaned.table(0..tasks, &["ordinal", "signature"], engine.threads())?)?;
    }
    let (dedup, splitter) = (pipeline.dedup.clone(), Splitter::new(&pipeline.split, pipeline.source.modality)?);
    let decided = async move {
        let near = if is_near { near_duplicates(&session, &dedup).await? } else { near_table(Vec::new())? };
        session.register_table("near", Arc::new(near))?;
        let batches = session.sql(&ledger_query(&dedup, is_near)).await?.collect().await?;
        summarise(batches, read, &splitter)
    };
    engine.run(decided).await
}

async fn near_duplicates(session: &SessionContext, settings: &Dedup) -> Result<MemTable> {
    let query = "SELECT f.id, s.signature FROM firsts f JOIN signatures s ON f.ordinal = s.ordinal ORDER BY f.id";
    let mut batches = session.sql(query).await?.execute_stream().await?;
    let mut near = near::Near::new(settings);
    let mut found = Vec::new();
    while let Some(batch) = batches.try_next().await? {
        let (ids, signatures) = (batch.column(0).as_fixed_size_binary(), batch.column(1).as_binary::<i32>());
        for row in 0..batch.num_rows() {
            let id = digest(ids.value(row))?;
            found.extend(near.offer(id, signatures.value(row)).map(|found| (id, found)));
        }
    }
    near_table(found)
}

fn near_table(found: Vec<(Digest, near::Match)>) -> Result<MemTable> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::FixedSizeBinary(32), false),
        Field::new("survivor", DataType::FixedSizeBinary(32), false),
        Field::new("detail", DataType::Utf8, false),
    ]));
    let (mut ids, mut survivors, mut details) = (FixedSizeBinaryBuilder::new(32), FixedSizeBinaryBuilder::new(32), StringBuilder::new());
    for (id, found) in found {
        ids.append_value(id.as_bytes())?;
        survivors.append_value(found.survivor.as_bytes())?;
        details.append_value(format!("similarity {:.3}", found.similarity));
    }
    let columns = vec![Arc::new(ids.finish()) as _, Arc::new(survivors.finish()) as _, Arc::new(details.finish()) as _];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    Ok(MemTable::try_new(schema, vec![vec![batch]])?)
}

/// One row a record. A copy of a record that is itself a near duplicate names the record that is kept in the end.
fn ledger_query(settings: &Dedup, is_near: bool) -> String {
    // To a near-duplicate pass an exact copy is a duplicate of similarity 1, also where exact removal is off.
    let copy = match (settings.exact, is_near) {
        (true, _) => "'exact_duplicate'",
        (false, true) => "'near_duplicate'",
        (false, false) => "NULL",
    };
    format!(
        "SELECT c.ordinal, c.key, c.id,
            CASE WHEN c.verdict <> 'kept' THEN c.verdict
                 WHEN c.ordinal <> f.ordinal AND {copy} IS NOT NULL THEN 'removed'
                 WHEN n.id IS NOT NULL THEN 'removed' ELSE 'kept' END AS verdict,
            CASE WHEN c.verdict <> 'kept' THEN c.reason
                 WHEN c.ordinal <> f.ordinal THEN {copy}
                 WHEN n.id IS NOT NULL THEN 'near_duplicate' END AS reason,
            CASE WHEN c.verdict <> 'kept' THEN c.detail
                 WHEN c.ordinal <> f.ordinal AND {copy} IS NOT NULL THEN 'same content'
                 WHEN n.id IS NOT NULL THEN n.detail END AS detail,
            CASE WHEN c.verdict <> 'kept' THEN NULL
                 WHEN n.id IS NOT NULL THEN n.survivor
                 WHEN c.ordinal <> f.ordinal AND {copy} IS NOT NULL THEN c.id END AS survivor,
            c.bytes
         FROM clean c LEFT JOIN firsts f ON c.id = f.id LEFT JOIN near n ON c.id = n.id
         ORDER BY c.ordinal"
    )
}

/// Which records are validation.
struct Splitter {
    share: f64,
    keys: Option<GlobSet>,
    modality: Modality,
}

impl Splitter {
    fn new(settings: &Split, modality: Modality) -> Result<Self> {
        let keys = match settings.validation_keys.is_empty() {
            true => None,
            false => Some(globs("split.validation_keys", &settings.validation_keys)?),
        };
        Ok(Self { share: settings.validation, keys, modality })
    }

    fn fate(&self, id: &Digest, key: &str) -> Fate {
        let is_validation = match &self.keys {
            Some(keys) => keys.is_match(key) || path_in_archive(key).is_some_and(|member| keys.is_match(member)),
            None => {
                // Not the first 8 bytes: rows are ordered by these.
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&id.as_bytes()[8..16]);
                (u64::from_le_bytes(bytes) as f64) < self.share * 2f64.powi(64)
            }
        };
        if is_validation { Fate::Validation } else { Fate::Train }
    }

    /// Digest of a kept record with what else decides its row.
    fn row(&self, id: &Digest, key: &str, fate: Fate) -> Digest {
        let class = if self.modality == Modality::Images { class_of(key).unwrap_or_default() } else { "" };
        Digest::of_parts([id.as_bytes().as_slice(), &[fate as u8], class.as_bytes()])
    }
}

/// Counts the ledger and gives every record its fate.
fn summarise(batches: Vec<RecordBatch>, read: usize, splitter: &Splitter) -> Result<Ledger> {
    let mut ledger = Ledger {
        fates: Arc::default(),
        tally: Tally { read: read as u64, ..Tally::default() },
        rows_digest: RowsDigest::default(),
        classes: Vec::new(),
        class_counts: Vec::new(),
        batches: Vec::new(),
    };
    let mut fates = Vec::with_capacity(read);
    let mut classes = BTreeSet::new();
    let mut training_classes = Vec::new();
    for batch in &batches {
        let (ordinals, keys, ids) =
            (batch.column(0).as_primitive::<UInt64Type>(), batch.column(1).as_string::<i32>(), batch.column(2).as_fixed_size_binary());
        let (verdicts, reasons) = (batch.column(3).as_string::<i32>(), batch.column(4).as_string::<i32>());
        for row in 0..batch.num_rows() {
            if ordinals.value(row) != fates.len() as u64 {
                let message =
                    format!("ledger: found record {}, expected {}: a record was lost or doubled", ordinals.value(row), fates.len());
                return Err(Error::new(Kind::Internal, message));
            }
            let mut fate = Fate::LeftOut;
            match verdicts.value(row) {
                clean::KEPT => {
                    let (id, key) = (digest(ids.value(row))?, keys.value(row));
                    fate = splitter.fate(&id, key);
                    ledger.tally.kept += 1;
                    ledger.rows_digest.add(&splitter.row(&id, key, fate));
                    if splitter.modality == Modality::Images {
                        let class = class_of(key).unwrap_or_default();
                        classes.insert(class.to_owned());
                        training_classes.extend((fate == Fate::Train).then(|| class.to_owned()));
                    }
                }
                clean::REMOVED => *ledger.tally.removed.entry(reasons.value(row).to_owned()).or_default() += 1,
                _ => *ledger.tally.quarantined.entry(reasons.value(row).to_owned()).or_default() += 1,
            }
            fates.push(fate);
        }
    }
    ledger.classes = classes.into_iter().collect();
    ledger.class_counts = vec![0; ledger.classes.len()];
    for class in training_classes {
        if let Ok(label) = ledger.classes.binary_search(&class) {
            ledger.class_counts[label] += 1;
        }
    }
    ledger.fates = Arc::new(fates);
    ledger.batches = batches;
    Ok(ledger)
}

/// A digest from a column of 32 bytes.
pub(crate) fn digest(bytes: &[u8]) -> Result<Digest> {
    let bytes: [u8; 32] =
        bytes.try_into().map_err(|_| Error::new(Kind::Internal, format!("id: found {} bytes, expected 32", bytes.len())))?;
    Ok(Digest::from_bytes(bytes))
}
