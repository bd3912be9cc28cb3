//! Images: lay out the kept records.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use forebay_schemas::dataset::TableRef;
use forebay_schemas::record;
use futures::TryStreamExt;

use super::{Batches, Kept, Target, in_order, session, table_name, with_fate};
use crate::dedup::Fate;
use crate::error::{Error, Kind, Result};
use crate::stage::ORDINAL;

/// Writes the pictures of one split, in the order of ids, to its table; returns how many.
pub(crate) async fn lay_out(kept: Kept<'_>, fate: Fate, target: &Target<'_>) -> Result<(TableRef, u64)> {
    let Kept { engine, cleaned, ledger, progress, .. } = kept;
    let columns = [ORDINAL, "id", "content", "class", "width", "height"];
    // One partition: whoever takes the sorted rows is slower than the sort, and two sorts would share the memory.
    let table = session(engine).read_table(cleaned.contents(&columns, 1)?)?;
    let plan = in_order(with_fate(table, &ledger.fates, fate)?, kept.shard)?;
    let (classes, progress) = (ledger.classes.keys().cloned().collect::<Vec<_>>(), Arc::clone(progress));
    let make = |rows: Batches| async move {
        let mut records = 0;
        let mut batches = plan.execute_stream().await?;
        while let Some(batch) = batches.try_next().await? {
            records += batch.num_rows() as u64;
            progress.advance(batch.num_rows() as u64);
            rows.send(to_rows(&batch, &classes)?).await?;
        }
        Ok(records)
    };
    target.write(engine, table_name(fate), record::images(), make).await
}

fn to_rows(batch: &RecordBatch, classes: &[String]) -> Result<RecordBatch> {
    let label = |class: Option<&str>| {
        let class = class.unwrap_or_default();
        let label = classes.binary_search_by(|known| known.as_str().cmp(class));
        label.map(|label| label as u32).map_err(|_| Error::new(Kind::Internal, format!("class `{class}`: not among those counted")))
    };
    let labels: Vec<u32> = batch.column(3).as_string::<i32>().iter().map(label).collect::<Result<_>>()?;
    let columns = vec![
        Arc::clone(batch.column(1)),
        Arc::clone(batch.column(2)),
        Arc::new(UInt32Array::from(labels)) as _,
        Arc::clone(batch.column(4)),
        Arc::clone(batch.column(5)),
    ];
    Ok(RecordBatch::try_new(record::images(), columns)?)
}
