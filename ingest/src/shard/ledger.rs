//! The `records` table: the ledger of verdicts with split and token counts.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::UInt64Type;
use forebay_schemas::dataset::TableRef;
use forebay_schemas::record;

use super::{Batches, Kept, Target};
use crate::dedup::Fate;
use crate::error::Result;

/// Writes the ledger; `tokens` of each record by ordinal, empty for images.
pub(crate) async fn write(kept: Kept<'_>, tokens: Vec<Option<u64>>, target: &Target<'_>) -> Result<TableRef> {
    let Kept { engine, ledger, .. } = kept;
    let (batches, fates) = (ledger.batches.clone(), Arc::clone(&ledger.fates));
    let make = |rows: Batches| async move {
        for batch in &batches {
            rows.send(to_rows(batch, &fates, &tokens)?).await?;
        }
        Ok(())
    };
    let (table, ()) = target.write(engine, record::RECORDS, record::records(), make).await?;
    Ok(table)
}

fn to_rows(batch: &RecordBatch, fates: &[Fate], tokens: &[Option<u64>]) -> Result<RecordBatch> {
    let ordinals = batch.column(0).as_primitive::<UInt64Type>().values();
    let split = |ordinal: &u64| match fates.get(*ordinal as usize) {
        Some(Fate::Train) => Some(record::TRAIN),
        Some(Fate::Validation) => Some(record::VALIDATION),
        _ => None,
    };
    let splits: StringArray = ordinals.iter().map(split).collect();
    let tokens: UInt64Array = ordinals.iter().map(|ordinal| tokens.get(*ordinal as usize).copied().flatten()).collect();
    let mut columns = batch.columns()[1..7].to_vec();
    columns.extend([Arc::new(splits) as _, Arc::clone(batch.column(7)), Arc::new(tokens) as _]);
    Ok(RecordBatch::try_new(record::records(), columns)?)
}
