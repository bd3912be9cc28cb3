//! Whether a version can add to its parent: all rows of the parent must be as an ingest of everything would make them.
//!
//! The row of a record is decided by its content but for two things, which the key of the record decides: the class of an
//! image, and the split where `split.validation_keys` are given. Of equal records the first by key is kept, so a new copy
//! that says otherwise than the record that is there might take its place. And a label is a place in the list of classes, so
//! that list must stay. Where one of these fails, everything is read again: no wrong row, at the price of a rebuild.

use arrow::array::AsArray;
use forebay_schemas::dataset::Modality;
use futures::TryStreamExt;

use super::known::{ById, Known};
use super::near::Revision;
use super::{Fate, Ledger, Search, Splitter, digest, text_at};
use crate::clean::KEPT;
use crate::error::Result;

/// Before anything is decided: whether no new record contradicts what is known.
pub(super) async fn agrees(search: &Search<'_>, known: &Known) -> Result<bool> {
    let is_images = search.pipeline.source.modality == Modality::Images;
    if !is_images && search.pipeline.split.validation_keys.is_empty() {
        return Ok(true);
    }
    let splitter = Splitter::new(&search.pipeline.split)?;
    let classes = known.manifest.statistics.classes.as_deref().unwrap_or_default();
    let session = search.engine.session(8192);
    let table = session.read_table(search.cleaned.verdicts(&["key", "id", "verdict", "class"], 1)?)?;
    let mut batches = search.engine.stream(table).await?;
    let mut records: ById<(String, Fate)> = ById::default();
    while let Some(batch) = batches.try_next().await? {
        let (keys, ids) = (batch.column(0).as_string::<i32>(), batch.column(1).as_fixed_size_binary());
        let (verdicts, column) = (batch.column(2).as_string::<i32>(), batch.column(3).as_string::<i32>());
        for row in (0..batch.num_rows()).filter(|row| verdicts.value(*row) == KEPT) {
            let class = text_at(column, row).unwrap_or_default();
            if is_images && classes.binary_search_by(|known| known.as_str().cmp(class)).is_err() {
                return Ok(false);
            }
            let id = digest(ids.value(row))?;
            // Of new copies the first counts.
            records.entry(id).or_insert_with(|| (class.to_owned(), splitter.fate(&id, keys.value(row))));
        }
    }
    Ok(!known.contradicts(&records).await?)
}

/// After all is decided: whether the classes are those that they were, and no picture is kept again, whose pixels only its
/// object has.
pub(super) fn holds(search: &Search<'_>, ledger: &Ledger) -> bool {
    let stays = |revision: &Revision| {
        let class = revision.record.class.as_deref().unwrap_or_default();
        !revision.returns() && (!revision.leaves() || ledger.classes.get(class).is_some_and(|count| *count > 0))
    };
    search.pipeline.source.modality == Modality::Text || ledger.revisions.iter().all(stays)
}
