//! Text as it is: lay out the kept documents, one row each.

use std::sync::Arc;

use arrow::array::RecordBatch;
use forebay_schemas::dataset::TableRef;
use forebay_schemas::record;
use futures::TryStreamExt;

use super::amend::Revived;
use super::{Batches, Kept, Target, in_order, session, table_name, with_fate};
use crate::dedup::Fate;
use crate::error::Result;
use crate::stage::ORDINAL;

/// The ordinal and the columns of a document.
const COLUMNS: [&str; 6] = [ORDINAL, "id", "text", "url", "title", "language"];

/// Writes the documents of one split to its table, those of `revived` that belong to it first; returns how many.
pub(crate) async fn lay_out(kept: Kept<'_>, revived: &Revived, fate: Fate, target: &Target<'_>) -> Result<(TableRef, u64)> {
    let Kept { engine, cleaned, ledger, progress, .. } = kept;
    let table = session(engine).read_table(cleaned.contents(&COLUMNS, 1)?)?;
    let plan = in_order(with_fate(table, &ledger.fates, fate)?, kept.shard)?;
    let progress = Arc::clone(progress);
    let first = revived.documents(fate)?;
    let make = |rows: Batches| async move {
        let mut documents = 0;
        if let Some(first) = first {
            documents += first.num_rows() as u64;
            rows.send(first).await?;
        }
        let mut batches = plan.execute_stream().await?;
        while let Some(batch) = batches.try_next().await? {
            documents += batch.num_rows() as u64;
            progress.advance(batch.num_rows() as u64);
            rows.send(RecordBatch::try_new(record::documents(), batch.columns()[1..COLUMNS.len()].to_vec())?).await?;
        }
        Ok(documents)
    };
    target.write(engine, table_name(fate), record::documents(), make).await
}
