//! Text that stands in several of the records that are left: cut out of all but one.
//!
//! Units ([`passages`]) that records may share are sorted by what they say and then by the ids of their records; the first
//! keeps its words, the others lose theirs. So the result is a function of the set of records, and each word that is cut
//! still stands where the unit first did, as by induction over that order it was not cut there for another. A record of
//! which too little is left is removed as `repeated_text`, and that little with it. Held are a byte a record, and what one
//! record loses.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, FixedSizeBinaryBuilder, Float64Array, LargeStringBuilder, RecordBatch, StringArray, UInt32Array,
    UInt32Builder, UInt64Array, UInt64Builder,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type, UInt64Type};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::col;
use forebay_schemas::id::Digest;
use futures::{StreamExt, TryStreamExt};

use self::passages::Finder;
use super::exact::Firsts;
use super::shared::{Occurrences, Shared};
use super::{ByOrdinal, Cleaned, Search, decision_schema, digest, digests};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::shard::CONTENT_ROWS;
use crate::stage::{ORDINAL, Stage, TaskWriter};

mod passages;

/// Name of the rule.
pub(super) const REPEATED: &str = "repeated_text";
/// Characters of text a key is expected for; a wrong guess costs memory or a little work.
const CHARS_A_KEY: u64 = 40;

/// What cutting leaves.
pub(super) struct Left {
    /// The records that are left, with what is left of their text.
    pub(super) cleaned: Cleaned,
    /// Records that are removed, as decisions.
    pub(super) removed: Stage,
    /// Those that are kept and changed: see [`Change`].
    pub(super) changed: Stage,
}

/// What was cut out of a record that is kept.
pub(super) struct Change {
    /// Of the text that is left.
    pub(super) digest: Digest,
    /// Its characters.
    pub(super) size: u32,
    /// Stretches that were cut.
    pub(super) cuts: u32,
}

impl Change {
    const COLUMNS: [&str; 4] = ["ordinal_of_changed", "digest", "size", "cuts"];

    fn schema() -> SchemaRef {
        let kinds = [DataType::UInt64, DataType::FixedSizeBinary(32), DataType::UInt32, DataType::UInt32];
        Arc::new(Schema::new(Self::COLUMNS.iter().zip(kinds).map(|(name, kind)| Field::new(*name, kind, false)).collect::<Vec<_>>()))
    }

    /// The changes of a stage by the ordinals of their records.
    pub(super) async fn read(engine: &Engine, changed: &Stage) -> Result<ByOrdinal> {
        let table = engine.session(8192).read_table(changed.table(&changed.whole(1).await?, &Self::COLUMNS, 1)?)?;
        Ok(ByOrdinal::new(engine.stream(table).await?))
    }

    /// The change of a row.
    pub(super) fn at(batch: &RecordBatch, row: usize) -> Result<Self> {
        let number = |column: usize| batch.column(column).as_primitive::<UInt32Type>().value(row);
        Ok(Self { digest: digest(batch.column(1).as_fixed_size_binary().value(row))?, size: number(2), cuts: number(3) })
    }
}

/// Cuts what stands elsewhere out of the records that `decisions` leave.
pub(super) async fn cut(search: &Search<'_>, firsts: &Firsts, decisions: &Stage) -> Result<Left> {
    let pass = Pass { search, left: left(search, firsts, decisions).await? };
    let shared = pass.shared().await?;
    let units = pass.units(shared).await?;
    let repeats = pass.repeats(units).await?;
    pass.rewrite(repeats).await
}

/// Whether the record of each ordinal is left.
async fn left(search: &Search<'_>, firsts: &Firsts, decisions: &Stage) -> Result<Arc<Vec<bool>>> {
    let mut left = firsts.flags.to_vec();
    let decided = decisions.table(&decisions.whole(1).await?, &["ordinal_of_record"], 1)?;
    let mut batches = search.engine.stream(search.engine.session(8192).read_table(decided)?).await?;
    while let Some(batch) = batches.try_next().await? {
        batch.column(0).as_primitive::<UInt64Type>().values().iter().for_each(|ordinal| left[*ordinal as usize] = false);
    }
    Ok(Arc::new(left))
}

struct Pass<'a> {
    search: &'a Search<'a>,
    left: Arc<Vec<bool>>,
}

/// A unit that a record may share, its record, and its place in it.
fn unit_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("hash", DataType::UInt64, false),
        Field::new("check", DataType::UInt32, false),
        Field::new("id", DataType::FixedSizeBinary(32), false),
        Field::new(ORDINAL, DataType::UInt64, false),
        Field::new("first", DataType::UInt32, false),
        Field::new("words", DataType::UInt32, false),
    ]))
}

/// Words of a record that stand in another, the `survivor`.
fn repeat_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(ORDINAL, DataType::UInt64, false),
        Field::new("first", DataType::UInt32, false),
        Field::new("words", DataType::UInt32, false),
        Field::new("survivor", DataType::FixedSizeBinary(32), false),
    ]))
}

/// The first word, the number of words and the survivor of a row of [`repeat_schema`].
fn repeat_at(batch: &RecordBatch, row: usize) -> Result<(u32, u32, Digest)> {
    let number = |column: usize| batch.column(column).as_primitive::<UInt32Type>().value(row);
    Ok((number(1), number(2), digest(batch.column(3).as_fixed_size_binary().value(row))?))
}

impl Pass<'_> {
    fn finder(&self) -> Finder {
        Finder::new(&self.search.pipeline.dedup.repeats)
    }

    /// Rows of the contents of all records, those that are not left included.
    async fn contents(&self, columns: &[&str]) -> Result<SendableRecordBatchStream> {
        let Search { engine, cleaned, .. } = self.search;
        engine.stream(engine.session(CONTENT_ROWS).read_table(cleaned.contents(columns, engine.threads())?)?).await
    }

    /// The keys that occur more than once.
    async fn shared(&self) -> Result<Shared> {
        let Search { engine, cleaned, .. } = self.search;
        let sizes = engine.session(8192).read_table(cleaned.verdicts(&["size"], 1)?)?;
        let mut sizes = engine.stream(sizes).await?;
        let mut chars = 0u64;
        while let Some(batch) = sizes.try_next().await? {
            chars += batch.column(0).as_primitive::<UInt32Type>().values().iter().map(|size| u64::from(*size)).sum::<u64>();
        }
        let mut occurrences = Occurrences::new(chars / CHARS_A_KEY, engine.pool_bytes() as u64 / 2);
        let mut finder = self.finder();
        let mut batches = self.contents(&[ORDINAL, "text"]).await?;
        while let Some(batch) = batches.try_next().await? {
            let (ordinals, texts) = (batch.column(0).as_primitive::<UInt64Type>().values(), batch.column(1).as_string::<i64>());
            for (row, _) in ordinals.iter().enumerate().filter(|(_, ordinal)| self.left[**ordinal as usize]) {
                finder.keys(texts.value(row), |key| occurrences.see(key));
            }
        }
        Ok(occurrences.shared())
    }

    /// The units whose key is shared, by what they say and then by record.
    async fn units(&self, shared: Shared) -> Result<SendableRecordBatchStream> {
        let engine = self.search.engine;
        let (left, mut finder) = (Arc::clone(&self.left), self.finder());
        let contents = self.contents(&[ORDINAL, "id", "text"]).await?;
        let units = contents.map(move |batch| {
            let batch = batch?;
            let mut units = Units::new();
            let (ordinals, ids) = (batch.column(0).as_primitive::<UInt64Type>().values(), batch.column(1).as_fixed_size_binary());
            let texts = batch.column(2).as_string::<i64>();
            for (row, ordinal) in ordinals.iter().enumerate().filter(|(_, ordinal)| left[**ordinal as usize]) {
                finder.units(texts.value(row), |key| shared.is_shared(key), |unit| units.push(unit, ids.value(row), *ordinal));
            }
            units.finish()
        });
        let table = engine.session(8192).read_table(Engine::table(unit_schema(), [units])?)?;
        let order = ["hash", "check", "id", ORDINAL, "first"].map(|name| col(name).sort(true, false)).to_vec();
        engine.stream(table.sort(order)?).await
    }

    /// Of units that say the same all but the first, by record and place.
    async fn repeats(&self, units: SendableRecordBatchStream) -> Result<SendableRecordBatchStream> {
        let engine = self.search.engine;
        let mut last: Option<((u64, u32), Digest)> = None;
        let repeats = units.map(move |batch| {
            let batch = batch?;
            let (hashes, checks) = (batch.column(0).as_primitive::<UInt64Type>(), batch.column(1).as_primitive::<UInt32Type>());
            let ids = batch.column(2).as_fixed_size_binary();
            let (mut rows, mut survivors) = (UInt64Builder::new(), FixedSizeBinaryBuilder::new(32));
            for row in 0..batch.num_rows() {
                let said = (hashes.value(row), checks.value(row));
                match &last {
                    Some((same, first)) if *same == said => {
                        rows.append_value(row as u64);
                        survivors.append_value(first.as_bytes())?;
                    }
                    _ => last = Some((said, digest(ids.value(row))?)),
                }
            }
            let rows = rows.finish();
            let taken = [3, 4, 5].map(|column| arrow::compute::take(batch.column(column), &rows, None));
            let mut columns = taken.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
            columns.push(Arc::new(survivors.finish()));
            Ok(RecordBatch::try_new(repeat_schema(), columns)?)
        });
        let table = engine.session(8192).read_table(Engine::table(repeat_schema(), [repeats])?)?;
        engine.stream(table.sort(vec![col(ORDINAL).sort(true, false), col("first").sort(true, false)])?).await
    }

    /// Writes the contents of the records that are left, less what is repeated.
    async fn rewrite(&self, repeats: SendableRecordBatchStream) -> Result<Left> {
        let Search { engine, cleaned, stage, .. } = self.search;
        let contents = stage("distinct", Arc::clone(cleaned.contents.schema()));
        let (removed, changed) = (stage("repeated", decision_schema()), stage("changed", Change::schema()));
        let mut rewriting = Rewriting {
            finder: self.finder(),
            min_chars: self.search.pipeline.clean.min_chars,
            left: Arc::clone(&self.left),
            repeats: ByOrdinal::new(repeats),
            removed: removed.writer(0)?,
            changed: changed.writer(0)?,
        };
        let names: Vec<String> = cleaned.contents.schema().fields().iter().map(|field| field.name().clone()).collect();
        let columns: Vec<&str> = [ORDINAL].into_iter().chain(names.iter().map(String::as_str)).collect();
        for task in cleaned.content_parts.chunk_by(|a, b| a.task == b.task) {
            let mut writer = contents.writer(task[0].task)?;
            for (number, part) in task.iter().enumerate() {
                if number > 0 {
                    writer.cut().await?;
                }
                let table = cleaned.contents.table(std::slice::from_ref(part), &columns, 1)?;
                let mut batches = engine.stream(engine.session(CONTENT_ROWS).read_table(table)?).await?;
                while let Some(batch) = batches.try_next().await? {
                    writer.write(&rewriting.batch(&batch, cleaned.contents.schema()).await?)?;
                }
            }
            writer.finish().await?;
        }
        rewriting.removed.finish().await?;
        rewriting.changed.finish().await?;
        Ok(Left { cleaned: Cleaned::open(&cleaned.verdicts, &contents, cleaned.tasks).await?, removed, changed })
    }
}

/// Builds batches of units.
struct Units {
    hashes: UInt64Builder,
    checks: UInt32Builder,
    ids: FixedSizeBinaryBuilder,
    ordinals: UInt64Builder,
    firsts: UInt32Builder,
    words: UInt32Builder,
}

impl Units {
    fn new() -> Self {
        Self {
            hashes: UInt64Builder::new(),
            checks: UInt32Builder::new(),
            ids: FixedSizeBinaryBuilder::new(32),
            ordinals: UInt64Builder::new(),
            firsts: UInt32Builder::new(),
            words: UInt32Builder::new(),
        }
    }

    fn push(&mut self, unit: passages::Unit, id: &[u8], ordinal: u64) {
        self.hashes.append_value(unit.hash);
        self.checks.append_value(unit.check);
        // The column that ids come from is as wide.
        let _ = self.ids.append_value(id);
        self.ordinals.append_value(ordinal);
        self.firsts.append_value(unit.first);
        self.words.append_value(unit.words);
    }

    fn finish(mut self) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.hashes.finish()),
            Arc::new(self.checks.finish()),
            Arc::new(self.ids.finish()),
            Arc::new(self.ordinals.finish()),
            Arc::new(self.firsts.finish()),
            Arc::new(self.words.finish()),
        ];
        Ok(RecordBatch::try_new(unit_schema(), columns)?)
    }
}

struct Rewriting {
    finder: Finder,
    min_chars: u64,
    left: Arc<Vec<bool>>,
    repeats: ByOrdinal,
    removed: TaskWriter,
    changed: TaskWriter,
}

/// What of a record stands elsewhere.
#[derive(Default)]
struct Repeated {
    /// Words, ascending and apart.
    ranges: Vec<Range<u32>>,
    /// Words by the record in which they stand.
    survivors: BTreeMap<Digest, u32>,
}

impl Rewriting {
    /// Contents of the records that are left, as they are left.
    async fn batch(&mut self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
        let ordinals = batch.column(0).as_primitive::<UInt64Type>().values().clone();
        let id_column = 1 + schema.index_of("id")?;
        let text_column = 1 + schema.index_of("text")?;
        let (ids, texts) = (batch.column(id_column).as_fixed_size_binary(), batch.column(text_column).as_string::<i64>());
        let (mut kept, mut left) = (Vec::with_capacity(batch.num_rows()), LargeStringBuilder::new());
        for (row, ordinal) in ordinals.iter().enumerate() {
            let text = texts.value(row);
            if !self.left[*ordinal as usize] {
                kept.push(false);
                left.append_null();
                continue;
            }
            let repeated = self.repeated(*ordinal).await?;
            if repeated.ranges.is_empty() {
                kept.push(true);
                left.append_value(text);
                continue;
            }
            let (rest, words) = self.finder.without(text, &repeated.ranges);
            let chars = rest.chars().count() as u64;
            let is_kept = chars >= self.min_chars.max(1);
            kept.push(is_kept);
            if is_kept {
                self.note_change(*ordinal, &rest, chars, repeated.ranges.len()).await?;
            } else {
                self.note_removal(*ordinal, &digest(ids.value(row))?, &repeated, words).await?;
            }
            left.append_value(rest);
        }
        let mut columns = batch.columns()[1..].to_vec();
        columns[text_column - 1] = Arc::new(left.finish());
        Ok(filter_record_batch(&RecordBatch::try_new(Arc::clone(schema), columns)?, &BooleanArray::from(kept))?)
    }

    async fn repeated(&mut self, ordinal: u64) -> Result<Repeated> {
        let mut repeated = Repeated::default();
        while let Some((first, words, survivor)) = self.repeats.find(ordinal, repeat_at).await? {
            let end = first.checked_add(words).ok_or_else(|| Error::new(Kind::Internal, "a passage ends nowhere"))?;
            *repeated.survivors.entry(survivor).or_default() += words;
            match repeated.ranges.last_mut() {
                Some(last) if first <= last.end => last.end = last.end.max(end),
                _ => repeated.ranges.push(first..end),
            }
        }
        Ok(repeated)
    }

    async fn note_change(&mut self, ordinal: u64, rest: &str, chars: u64, cuts: usize) -> Result<()> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from(vec![ordinal])),
            digests([Some(&Digest::of(rest.as_bytes()))].into_iter())?,
            Arc::new(UInt32Array::from(vec![chars as u32])),
            Arc::new(UInt32Array::from(vec![cuts as u32])),
        ];
        self.changed.append(&RecordBatch::try_new(Change::schema(), columns)?).await
    }

    /// The survivor is the record that has most of it, of equal ones that with the smallest id.
    async fn note_removal(&mut self, ordinal: u64, id: &Digest, repeated: &Repeated, words: usize) -> Result<()> {
        let others = repeated.survivors.iter().filter(|(survivor, _)| *survivor != id);
        let survivor =
            others.max_by_key(|(survivor, words)| (**words, std::cmp::Reverse(**survivor))).map_or(*id, |(survivor, _)| *survivor);
        let cut: u32 = repeated.ranges.iter().map(|range| range.end - range.start).sum();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from(vec![ordinal])),
            Arc::new(StringArray::from(vec![REPEATED])),
            digests([Some(&survivor)].into_iter())?,
            Arc::new(Float64Array::from(vec![f64::from(cut) / words.max(1) as f64])),
            Arc::new(BooleanArray::from(vec![false])),
        ];
        self.removed.append(&RecordBatch::try_new(decision_schema(), columns)?).await
    }
}
