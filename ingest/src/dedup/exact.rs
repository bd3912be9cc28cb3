//! Exact copies: of the records of one id the first is judged further, the others are copies of it.
//!
//! First is the one with the smallest ordinal, that is with the smallest object key and then the first in it. A record
//! of an earlier version comes before all of this one.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use forebay_schemas::id::Digest;
use futures::TryStreamExt;

use super::known::KnownRecord;
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
    pub(crate) flags: Arc<Vec<bool>>,
    pub(crate) count: u64,
    /// The records of earlier versions that a first record is a copy of, or shares a key with.
    pub(crate) met: Vec<KnownRecord>,
}

/// Finds the first record of every id, and writes the others to the stage `copies`.
pub(crate) async fn find(search: &Search<'_>) -> Result<Firsts> {
    let dedup = &search.pipeline.dedup;
    let is_removing = dedup.exact || dedup.near;
    let session = search.engine.session(8192);
    session.register_table("verdicts", search.cleaned.verdicts(&[ORDINAL, "id", "verdict"], search.engine.threads())?)?;
    let mut firsts = Firsts { flags: Arc::new(vec![false; search.cleaned.records as usize]), count: 0, met: Vec::new() };
    let copies = (search.stage)("copies", schema());
    let mut writer = copies.writer(0)?;
    let order = if is_removing { "ORDER BY id, ordinal" } else { "" };
    let query = format!("SELECT id, ordinal FROM verdicts WHERE verdict = '{KEPT}' {order}");
    let mut batches = search.engine.stream(session.sql(&query).await?).await?;
    let mut last = None;
    while let Some(batch) = batches.try_next().await? {
        let (ids, ordinals) = (batch.column(0).as_fixed_size_binary(), batch.column(1).as_primitive::<UInt64Type>().values());
        let mut found = Vec::new();
        let flags = Arc::make_mut(&mut firsts.flags);
        for (row, ordinal) in ordinals.iter().enumerate() {
            let id = digest(ids.value(row))?;
            if is_removing && last == Some(id) {
                found.push((*ordinal, id));
            } else {
                last = Some(id);
                flags[*ordinal as usize] = true;
                firsts.count += 1;
            }
        }
        write(&mut writer, &found).await?;
    }
    if let Some(known) = search.known.filter(|_| is_removing) {
        let (ids, keys) = search.ids_and_keys(&firsts).await?;
        firsts.met = known.pull(search.likeness, &ids, &keys).await?;
        let copy = |record: &KnownRecord| Some((*ids.get(&record.id)?, record.id));
        let mut copies: Vec<_> = firsts.met.iter().filter_map(copy).collect();
        copies.sort_unstable_by_key(|(_, id)| *id);
        let flags = Arc::make_mut(&mut firsts.flags);
        copies.iter().for_each(|(ordinal, _)| flags[*ordinal as usize] = false);
        firsts.count -= copies.len() as u64;
        write(&mut writer, &copies).await?;
    }
    writer.finish().await?;
    Ok(firsts)
}

async fn write(writer: &mut TaskWriter, copies: &[(u64, Digest)]) -> Result<()> {
    if copies.is_empty() {
        return Ok(());
    }
    let ordinals: UInt64Array = copies.iter().map(|(ordinal, _)| *ordinal).collect();
    let ids = digests(copies.iter().map(|(_, id)| Some(id)))?;
    writer.append(&RecordBatch::try_new(schema(), vec![Arc::new(ordinals), ids])?).await
}
