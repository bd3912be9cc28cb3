//! The tables `records`, the ledger of verdicts with split and token counts, and `index`, what later versions
//! deduplicate against; both in the order of the records read.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::UInt64Type;
use forebay_schemas::dataset::TableRef;
use forebay_schemas::record;

use super::index::Entries;
use super::{Batches, Kept, Target};
use crate::dedup::ledger::Judged;
use crate::dedup::{Fate, digests};
use crate::error::Result;

/// Writes the ledger; `tokens` of each record by ordinal, empty where there are none. Rows of `amended` come after.
pub(crate) async fn records(kept: Kept<'_>, tokens: Vec<u32>, amended: Option<RecordBatch>, target: &Target<'_>) -> Result<TableRef> {
    let mut reader = kept.ledger.read(kept.engine, kept.cleaned, &[]).await?;
    let fates = Arc::clone(&kept.ledger.fates);
    let make = |rows: Batches| async move {
        while let Some(judged) = reader.next().await? {
            rows.send(to_rows(&judged, &fates, &tokens)?).await?;
        }
        match amended {
            Some(amended) => rows.send(amended).await,
            None => Ok(()),
        }
    };
    let (table, ()) = target.write(kept.engine, record::RECORDS, record::records(), make).await?;
    Ok(table)
}

/// Writes the index. Rows of `amended` come after.
pub(crate) async fn index(kept: Kept<'_>, mut entries: Entries, amended: Option<RecordBatch>, target: &Target<'_>) -> Result<TableRef> {
    let mut reader = kept.ledger.read(kept.engine, kept.cleaned, &["sketch"]).await?;
    let make = |rows: Batches| async move {
        while let Some(judged) = reader.next().await? {
            rows.send(entries.of(&judged)?).await?;
        }
        match amended {
            Some(amended) => rows.send(amended).await,
            None => Ok(()),
        }
    };
    let (table, ()) = target.write(kept.engine, record::INDEX, record::index(), make).await?;
    Ok(table)
}

fn to_rows(judged: &Judged, fates: &[Fate], tokens: &[u32]) -> Result<RecordBatch> {
    let batch = &judged.batch;
    let ordinals = batch.column(0).as_primitive::<UInt64Type>().values();
    let fate = |ordinal: &u64| fates.get(*ordinal as usize).copied().unwrap_or(Fate::LeftOut);
    let split = |ordinal: &u64| match fate(ordinal) {
        Fate::Train => Some(record::TRAIN),
        Fate::Validation => Some(record::VALIDATION),
        Fate::LeftOut => None,
    };
    let verdicts: StringArray = (0..batch.num_rows()).map(|row| Some(judged.verdict(row).0)).collect();
    let reasons: StringArray = (0..batch.num_rows()).map(|row| judged.verdict(row).1).collect();
    let details: StringArray = (0..batch.num_rows()).map(|row| judged.detail(row)).collect();
    let survivors = digests(judged.decisions.iter().map(|decision| decision.as_ref().map(|decision| &decision.survivor)))?;
    let splits: StringArray = ordinals.iter().map(split).collect();
    let token = |ordinal: &u64| tokens.get(*ordinal as usize).filter(|_| fate(ordinal) != Fate::LeftOut).map(|count| u64::from(*count));
    let tokens: UInt64Array = ordinals.iter().map(token).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::clone(batch.column(1)),
        Arc::clone(batch.column(3)),
        Arc::new(verdicts),
        Arc::new(reasons),
        Arc::new(details),
        survivors,
        Arc::new(splits),
        Arc::clone(batch.column(2)),
        Arc::new(tokens),
    ];
    Ok(RecordBatch::try_new(record::records(), columns)?)
}
