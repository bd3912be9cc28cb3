//! A version that adds to another: what changes in the tables that are there, and what goes into the new parts.
//!
//! A new record may take the place of one that was kept, whose near duplicate it is, and a record that was removed for
//! that one's sake may come back. Rows of the first kind are deleted from the parent's tables, records of the second kind
//! go into the new part as if they had just come; so do the other documents of a deleted row of tokens. All of this is
//! in proportion to the number of such records, but for one look at the columns that name documents.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryBuilder, RecordBatch, StringArray, StringBuilder, UInt32Array,
    UInt64Builder,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{UInt32Type, UInt64Type};
use forebay_schemas::TokenIds;
use forebay_schemas::dataset::TableRef;
use forebay_schemas::id::Digest;
use forebay_schemas::record::{self, RECORDS};
use futures::TryStreamExt;

use super::{Kept, Target, table_name};
use crate::clean::{KEPT, REMOVED};
use crate::dedup::judge::Match;
use crate::dedup::known::ById;
use crate::dedup::near::Revision;
use crate::dedup::{Fate, digest, digests};
use crate::error::{Error, Kind, Result};

/// Records of earlier versions that are kept again.
#[derive(Default)]
pub(crate) struct Revived {
    documents: Vec<Document>,
}

/// A document that is kept again: one row of [`TEXT`].
struct Document {
    id: Digest,
    fate: Fate,
    row: RecordBatch,
}

/// Columns of a document but its id; the text first.
const TEXT: [&str; 4] = ["text", "url", "title", "language"];

impl Revived {
    /// Reads their texts.
    pub(crate) async fn read(kept: Kept<'_>) -> Result<Self> {
        let Some(known) = kept.known else { return Ok(Self::default()) };
        let revived: Vec<&Revision> = kept.ledger.revisions.iter().filter(|revision| revision.returns()).collect();
        let places: Vec<_> = revived.iter().map(|revision| revision.record.place).collect();
        let texts = known.contents(&places, &TEXT).await?;
        let texts: HashMap<_, _> = texts.into_iter().map(|(place, batch, row)| (place, (batch, row))).collect();
        let mut documents = Vec::with_capacity(revived.len());
        for revision in revived {
            let id = revision.record.id;
            let (batch, row) = texts
                .get(&revision.record.place)
                .ok_or_else(|| Error::new(Kind::Corrupt, format!("record {}: its content is not where the index says", id.short())))?;
            documents.push(Document { id, fate: revision.record.fate, row: batch.slice(*row, 1) });
        }
        documents.sort_unstable_by_key(|document| document.id);
        Ok(Self { documents })
    }

    /// Id and text of those of a split.
    pub(crate) fn of(&self, fate: Fate) -> impl Iterator<Item = (&Digest, &str)> {
        self.documents
            .iter()
            .filter(move |found| found.fate == fate)
            .map(|found| (&found.id, found.row.column(0).as_string::<i64>().value(0)))
    }

    /// Those of a split as rows of documents; none if there are none.
    pub(crate) fn documents(&self, fate: Fate) -> Result<Option<RecordBatch>> {
        let found: Vec<&Document> = self.documents.iter().filter(|document| document.fate == fate).collect();
        let Some(first) = found.first() else { return Ok(None) };
        let rows = concat_batches(first.row.schema_ref(), found.iter().map(|document| &document.row))?;
        let mut columns = vec![digests(found.iter().map(|document| Some(&document.id)))?];
        columns.extend(rows.columns().iter().cloned());
        Ok(Some(RecordBatch::try_new(record::documents(), columns)?))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.documents.len()
    }
}

/// Rows that go from a table of the parent, and rows that come instead.
#[derive(Default)]
pub(crate) struct Amended {
    pub(crate) deleted: Vec<u64>,
    pub(crate) rows: Option<RecordBatch>,
}

/// The rows of the ledger of the records that changed, and of their copies, which name the survivor too. `tokens` of
/// records that are kept again.
pub(crate) async fn records(kept: Kept<'_>, target: &Target<'_>, tokens: &HashMap<Digest, u64>) -> Result<Amended> {
    let Some((known, revisions)) = changes(kept) else { return Ok(Amended::default()) };
    let table = parent(&known.manifest.tables, RECORDS)?;
    let table = target.dataset.tables(table.format).open(table).await?;
    let schema = record::records();
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let (mut amended, mut found, mut first) = (Amended::default(), Vec::new(), 0);
    let mut rows = table.scan(&["id"]).await?;
    while let Some(batch) = rows.try_next().await? {
        for (row, id) in batch.column(0).as_fixed_size_binary().iter().enumerate() {
            if let Some(id) = id.filter(|id| digest(id).is_ok_and(|id| revisions.contains_key(&id))) {
                amended.deleted.push(first + row as u64);
                found.push(digest(id)?);
            }
        }
        first += batch.num_rows() as u64;
    }
    if !found.is_empty() {
        let ranges: Vec<_> = amended.deleted.iter().map(|row| *row..*row + 1).collect();
        let old = table.read(&ranges, &columns).await?;
        amended.rows = Some(rewritten(&old, &found, &revisions, tokens)?);
    }
    Ok(amended)
}

fn rewritten(old: &RecordBatch, ids: &[Digest], revisions: &ById<&Revision>, tokens: &HashMap<Digest, u64>) -> Result<RecordBatch> {
    let (mut verdicts, mut reasons, mut details) = (StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
    let (mut splits, mut counts, mut survivors) = (StringBuilder::new(), UInt64Builder::new(), FixedSizeBinaryBuilder::new(32));
    let (old_reasons, old_details) = (old.column(3).as_string::<i32>(), old.column(4).as_string::<i32>());
    for (row, id) in ids.iter().enumerate() {
        let now = revisions[id].now;
        // A copy stays one; only the record that its content survives in may be another.
        let is_copy = old_details.is_valid(row) && old_details.value(row) == "same content";
        let survivor = now.map(|found| found.survivor).or_else(|| is_copy.then_some(*id));
        match (is_copy, now) {
            (true, _) => {
                verdicts.append_value(REMOVED);
                reasons.append_value(old_reasons.value(row));
                details.append_value(old_details.value(row));
            }
            (false, Some(Match { similarity, .. })) => {
                verdicts.append_value(REMOVED);
                reasons.append_value("near_duplicate");
                details.append_value(format!("similarity {similarity:.3}"));
            }
            (false, None) => {
                verdicts.append_value(KEPT);
                reasons.append_null();
                details.append_null();
            }
        }
        match survivor {
            Some(survivor) => survivors.append_value(survivor.as_bytes())?,
            None => survivors.append_null(),
        }
        let is_kept = survivor.is_none();
        splits.append_option(is_kept.then(|| table_name(revisions[id].record.fate)));
        counts.append_option(tokens.get(id).filter(|_| is_kept).copied());
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::clone(old.column(0)),
        Arc::clone(old.column(1)),
        Arc::new(verdicts.finish()),
        Arc::new(reasons.finish()),
        Arc::new(details.finish()),
        Arc::new(survivors.finish()),
        Arc::new(splits.finish()),
        Arc::clone(old.column(7)),
        Arc::new(counts.finish()),
    ];
    Ok(RecordBatch::try_new(record::records(), columns)?)
}

/// The rows of the index of the records that changed.
pub(crate) fn index(kept: Kept<'_>) -> Result<Amended> {
    let mut revisions: Vec<&Revision> = kept.ledger.revisions.iter().collect();
    if revisions.is_empty() {
        return Ok(Amended::default());
    }
    revisions.sort_unstable_by_key(|revision| revision.record.index_row);
    let number = |number: fn(&Revision) -> u32| -> ArrayRef {
        Arc::new(revisions.iter().map(|revision| Some(number(revision))).collect::<UInt32Array>())
    };
    let sketches: BinaryArray = revisions.iter().map(|revision| Some(revision.record.sketch.as_slice())).collect();
    let moments: BinaryArray = revisions.iter().map(|revision| revision.record.moments.as_deref()).collect();
    let columns = vec![
        digests(revisions.iter().map(|revision| Some(&revision.record.id)))?,
        Arc::new(sketches) as ArrayRef,
        digests(revisions.iter().map(|revision| revision.now.as_ref().map(|found| &found.survivor)))?,
        number(|revision| revision.record.place.task),
        number(|revision| revision.record.place.part),
        number(|revision| revision.record.place.row),
        number(|revision| revision.record.size),
        Arc::new(revisions.iter().map(|revision| revision.record.class.as_deref()).collect::<StringArray>()),
        Arc::new(revisions.iter().map(|revision| Some(revision.record.fate == Fate::Validation)).collect::<BooleanArray>()),
        Arc::new(moments),
    ];
    let deleted = revisions.iter().map(|revision| revision.record.index_row).collect();
    Ok(Amended { deleted, rows: Some(RecordBatch::try_new(record::index(), columns)?) })
}

/// The rows of a table of documents or images that go.
pub(crate) async fn samples(kept: Kept<'_>, fate: Fate, target: &Target<'_>) -> Result<Vec<u64>> {
    let Some((known, revisions)) = changes(kept) else { return Ok(Vec::new()) };
    if !revisions.values().any(|revision| revision.leaves()) {
        return Ok(Vec::new());
    }
    let table = parent(&known.manifest.tables, table_name(fate))?;
    let mut rows = target.dataset.tables(table.format).open(table).await?.scan(&["id"]).await?;
    let (mut deleted, mut first) = (Vec::new(), 0);
    while let Some(batch) = rows.try_next().await? {
        for (row, id) in batch.column(0).as_fixed_size_binary().iter().enumerate() {
            let is_removed = id.and_then(|id| revisions.get(&digest(id).ok()?)).is_some_and(|revision| revision.leaves());
            deleted.extend(is_removed.then_some(first + row as u64));
        }
        first += batch.num_rows() as u64;
    }
    Ok(deleted)
}

/// A piece of a document that stood in a row that goes: the document, its tokens, whether it starts there.
pub(crate) type Piece = (u64, Vec<u32>, bool);

/// What goes from a table of token sequences.
#[derive(Default)]
pub(crate) struct Cutout {
    /// Rows of the parent's table.
    pub(crate) deleted: Vec<u64>,
    /// Pieces in them of documents that stay.
    pub(crate) left: Vec<Piece>,
    /// Pieces of the documents that go.
    pub(crate) gone: Vec<Piece>,
}

/// The rows of a table of token sequences that go.
pub(crate) async fn sequences(kept: Kept<'_>, fate: Fate, end: u32, target: &Target<'_>) -> Result<Cutout> {
    let Some((known, revisions)) = changes(kept) else { return Ok(Cutout::default()) };
    let gone: HashSet<u64> = revisions.values().filter(|revision| revision.leaves()).map(|revision| revision.record.id.as_u64()).collect();
    if gone.is_empty() {
        return Ok(Cutout::default());
    }
    let table = parent(&known.manifest.tables, table_name(fate))?;
    let table = target.dataset.tables(table.format).open(table).await?;
    let (mut cutout, mut first) = (Cutout::default(), 0);
    let mut rows = table.scan(&["documents"]).await?;
    while let Some(batch) = rows.try_next().await? {
        let lists = batch.column(0).as_list::<i32>();
        let (offsets, documents) = (lists.offsets(), lists.values().as_primitive::<UInt64Type>().values());
        for row in 0..batch.num_rows() {
            let held = &documents[offsets[row] as usize..offsets[row + 1] as usize];
            cutout.deleted.extend(held.iter().any(|document| gone.contains(document)).then_some(first + row as u64));
        }
        first += batch.num_rows() as u64;
    }
    for rows in cutout.deleted.chunks(1024) {
        let ranges: Vec<_> = rows.iter().map(|row| *row..*row + 1).collect();
        let batch = table.read(&ranges, &["tokens", "documents", "starts"]).await?;
        let lists = batch.column(0).as_fixed_size_list();
        let ids = TokenIds::of(lists.values()).ok_or_else(|| Error::new(Kind::Corrupt, "a row has no token ids"))?;
        let mut tokens = vec![0; lists.value_length() as usize];
        for row in 0..batch.num_rows() {
            let first = lists.value_offset(row) as usize;
            ids.slice(first..first + tokens.len()).copy_to(&mut tokens);
            let (documents, starts) = (batch.column(1).as_list::<i32>().value(row), batch.column(2).as_list::<i32>().value(row));
            let documents = documents.as_primitive::<UInt64Type>().values();
            for piece in pieces(&tokens, documents, starts.as_primitive::<UInt32Type>().values(), end) {
                if gone.contains(&piece.0) { cutout.gone.push(piece) } else { cutout.left.push(piece) }
            }
        }
    }
    Ok(cutout)
}

/// A row cut at the starts of its documents; filling at its end is left out.
fn pieces(tokens: &[u32], documents: &[u64], starts: &[u32], end: u32) -> Vec<Piece> {
    // Of the ends that fill up a row the first is the last document's own.
    let filling = tokens.iter().rev().take_while(|token| **token == end).count();
    let used = tokens.len() - filling.saturating_sub(1);
    let mut cuts: Vec<usize> = starts.iter().map(|start| *start as usize).collect();
    let continues = cuts.first() != Some(&0);
    if continues {
        cuts.insert(0, 0);
    }
    let ends = cuts.iter().skip(1).copied().chain([used]);
    let pieces = cuts.iter().zip(ends).zip(documents).enumerate();
    let pieces = pieces.map(|(at, ((from, to), document))| (*document, tokens[*from..to.max(*from)].to_vec(), at > 0 || !continues));
    pieces.filter(|(_, tokens, _)| !tokens.is_empty()).collect()
}

/// The version that this one adds to, and what changed in it by id; none where nothing did.
fn changes<'a>(kept: Kept<'a>) -> Option<(&'a crate::dedup::known::Known, ById<&'a Revision>)> {
    let revisions: ById<&Revision> = kept.ledger.revisions.iter().map(|revision| (revision.record.id, revision)).collect();
    Some((kept.known?, revisions)).filter(|(_, revisions)| !revisions.is_empty())
}

/// A table of the parent.
pub(crate) fn parent<'a>(tables: &'a std::collections::BTreeMap<String, TableRef>, name: &str) -> Result<&'a TableRef> {
    tables.get(name).ok_or_else(|| Error::new(Kind::Corrupt, format!("the version before has no table `{name}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_at_the_starts_of_documents() {
        assert_eq!(pieces(&[7, 8, 0, 4, 5], &[1, 2], &[3], 0), [(1, vec![7, 8, 0], false), (2, vec![4, 5], true)]);
        assert_eq!(pieces(&[4, 5, 0, 0, 0], &[2], &[0], 0), [(2, vec![4, 5, 0], true)]);
        assert_eq!(pieces(&[4, 5, 6, 7, 8], &[2], &[], 0), [(2, vec![4, 5, 6, 7, 8], false)]);
    }
}
