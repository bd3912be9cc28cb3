//! Exact copies: of the records of one id the first is judged further, the others are copies of it.
//!
//! First is the one with the smallest ordinal, that is with the smallest object key and then the first in it. A record
//! of an earlier version comes before all of this one.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use forebay_schemas::id::Digest;
use futures::TryStreamExt;

use super::known::Ids;
use super::{Search, digest, digests};
use crate::clean::KEPT;
use crate::error::Result;
use crate::stage::{ORDINAL, TaskWriter};

/// Columns of the stage `copies`.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ordinal_of_copy", DataType::UInt64, false),
        Field::new("id", DataType::FixedSizeBinary(32), false),
    ]))
}

/// The records that are no copies.
pub(crate) struct Firsts {
    /// Whether the record of that ordinal is one.
    pub(crate) flags: Vec<bool>,
    pub(crate) count: u64,
}

/// Finds the first record of every id, and writes the others to the stage `copies`.
pub(crate) async fn find(search: &Search<'_>) -> Result<Firsts> {
    let dedup = &search.pipeline.dedup;
    let is_removing = dedup.exact || dedup.near;
    let session = search.engine.session(8192);
    session.register_table("verdicts", search.cleaned.verdicts(&[ORDINAL, "id", "verdict"], search.engine.threads())?)?;
    let mut firsts = Firsts { flags: vec![false; search.cleaned.records as usize], count: 0 };
    let copies = (search.stage)("copies", schema());
    let mut writer = copies.writer(0)?;
    let order = if is_removing { "ORDER BY id, ordinal" } else { "" };
    let query = format!("SELECT id, ordinal FROM verdicts WHERE verdict = '{KEPT}' {order}");
    let mut batches = search.engine.stream(session.sql(&query).await?).await?;
    let mut last = None;
    while let Some(batch) = batches.try_next().await? {
        let (ids, ordinals) = (batch.column(0).as_fixed_size_binary(), batch.column(1).as_primitive::<UInt64Type>().values());
        let mut found = Vec::new();
        for (row, ordinal) in ordinals.iter().enumerate() {
            let id = digest(ids.value(row))?;
            if is_removing && last == Some(id) {
                found.push((*ordinal, id));
            } else {
                last = Some(id);
                firsts.flags[*ordinal as usize] = true;
                firsts.count += 1;
            }
        }
        write(&mut writer, &found).await?;
    }
    if let Some(known) = search.known.filter(|_| is_removing) {
        let ids = search.first_ids(&firsts).await?;
        let copies = known.already(&ids).await?;
        for (ordinal, _) in &copies {
            firsts.flags[*ordinal as usize] = false;
            firsts.count -= 1;
        }
        write(&mut writer, &copies).await?;
    }
    writer.finish().await?;
    Ok(firsts)
}

impl Search<'_> {
    /// The ids of first records; only for a version that adds to another, whose size this is.
    async fn first_ids(&self, firsts: &Firsts) -> Result<Ids> {
        let session = self.engine.session(8192);
        let table = session.read_table(self.cleaned.verdicts(&[ORDINAL, "id"], 1)?)?;
        let mut batches = self.engine.stream(table).await?;
        let mut ids = Ids::with_capacity_and_hasher(firsts.count as usize, Default::default());
        while let Some(batch) = batches.try_next().await? {
            let (ordinals, column) = (batch.column(0).as_primitive::<UInt64Type>().values(), batch.column(1).as_fixed_size_binary());
            for (row, ordinal) in ordinals.iter().enumerate().filter(|(_, ordinal)| firsts.flags[**ordinal as usize]) {
                ids.insert(digest(column.value(row))?, *ordinal);
            }
        }
        Ok(ids)
    }
}

async fn write(writer: &mut TaskWriter, copies: &[(u64, Digest)]) -> Result<()> {
    if copies.is_empty() {
        return Ok(());
    }
    let ordinals: UInt64Array = copies.iter().map(|(ordinal, _)| *ordinal).collect();
    let ids = digests(copies.iter().map(|(_, id)| Some(id)))?;
    writer.append(&RecordBatch::try_new(schema(), vec![Arc::new(ordinals), ids])?).await
}
