//! Near duplicates among the first records, and between them and the records of earlier versions.
//!
//! Keys that occur more than once ([`super::shared`]) are sorted, which connects records to components; the contents of
//! these are brought together by another sort and judged one component after the other. Which records of earlier versions
//! take part is found out beside ([`super::beside`]).

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, LargeBinaryArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type, UInt64Type};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::{DataFrame, col, lit};
use forebay_schemas::dataset::{Modality, Quality};
use forebay_schemas::id::Digest;
use futures::{StreamExt, TryStreamExt};

use super::beside::{self, Pulled};
use super::components::{ALONE, Components};
use super::exact::Firsts;
use super::judge::{Features, Judge, Match};
use super::known::KnownRecord;
use super::minhash::Signer;
use super::quality::{Cutoff, Sample};
use super::shared::{Occurrences, Shared};
use super::{Likeness, Search, digest, digests, text_features};
use crate::engine::Engine;
use crate::error::Result;
use crate::stage::{ORDINAL, Stage};

/// What the search found.
pub(crate) struct Found {
    /// The records that are near duplicates: `ordinal_of_record` (null for those of earlier versions), `id`, `survivor`,
    /// `similarity`.
    pub(crate) removed: Stage,
    pub(crate) revisions: Vec<Revision>,
    pub(crate) quality: Option<Quality>,
}

/// A record of an earlier version of which something else holds now: it is kept, or removed, or removed for the sake of another.
#[derive(Clone, Debug)]
pub(crate) struct Revision {
    pub(crate) record: KnownRecord,
    /// Why it is removed now; none if it is kept now.
    pub(crate) now: Option<Match>,
}

impl Revision {
    /// Whether it was removed and is kept now.
    pub(crate) fn returns(&self) -> bool {
        self.now.is_none()
    }

    /// Whether it was kept and is removed now.
    pub(crate) fn leaves(&self) -> bool {
        self.now.is_some() && self.record.survivor.is_none()
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ordinal_of_record", DataType::UInt64, true),
        Field::new("id", DataType::FixedSizeBinary(32), false),
        Field::new("survivor", DataType::FixedSizeBinary(32), false),
        Field::new("similarity", DataType::Float64, false),
    ]))
}

impl Found {
    /// Where near duplicates are not searched.
    pub(super) async fn none(search: &Search<'_>) -> Result<Self> {
        let removed = (search.stage)("near", schema());
        removed.writer(0)?.finish().await?;
        Ok(Self { removed, revisions: Vec::new(), quality: None })
    }
}

/// Searches near duplicates.
pub(super) async fn find(search: &Search<'_>, firsts: &Firsts) -> Result<Found> {
    let (found, sample) = match search.known {
        None => Round { search, firsts, pulled: &[], named: &[] }.judge("near", Sample::default()).await?,
        Some(known) => beside::find(search, firsts, known).await?,
    };
    let quality = sample.map(|sample| sample.measure(search.likeness.similarity(), search.likeness.threshold()));
    Ok(Found { quality, ..found })
}

/// One pass over the new records and those pulled from earlier versions. Records are numbered: the new ones by ordinal,
/// then the pulled ones.
pub(super) struct Round<'a> {
    pub(super) search: &'a Search<'a>,
    pub(super) firsts: &'a Firsts,
    pub(super) pulled: &'a [&'a Pulled],
    /// Records of earlier versions that take no part and are as they were; new ones are copies of them or of their like.
    pub(super) named: &'a [KnownRecord],
}

/// The columns in which contents come to be judged.
fn gathered() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("number", DataType::UInt64, false),
        Field::new("id", DataType::FixedSizeBinary(32), true),
        Field::new("content", DataType::LargeBinary, true),
    ]))
}

impl Round<'_> {
    fn modality(&self) -> Modality {
        self.search.pipeline.source.modality
    }

    /// Judges all; also gives the sample on which the quality of the search can be measured, if there is one. What the sample of
    /// the round `before` had of records that are like no other is not read again.
    pub(super) async fn judge(&self, name: &str, before: Sample) -> Result<(Found, Option<Sample>)> {
        let (shared, cutoff) = self.count_keys().await?;
        let mut components = Components::new(self.firsts.flags.len() + self.pulled.len());
        self.connect(shared, &mut components).await?;
        let sampled = before.numbers();
        let labels = Arc::new(components.labels(|record| cutoff.1.contains(&record) && !sampled.contains(&record)));
        let mut batches = self.gather(&labels).await?;

        let is_text = self.modality() == Modality::Text;
        let likeness = self.search.likeness;
        let (similarity, threshold) = (likeness.similarity(), likeness.threshold());
        let mut judge = Judge::new(similarity, threshold, self.search.engine.pool_bytes() / 4);
        let mut signer = Signer::new(&self.search.pipeline.dedup);
        let mut outcome = Outcome::new((self.search.stage)(name, schema()), self.firsts.flags.len() as u32, self.pulled, self.named)?;
        let mut sample = Sample::default();
        while let Some(batch) = batches.try_next().await? {
            let (numbers, ids) = (batch.column(0).as_primitive::<UInt64Type>().values(), batch.column(1).as_fixed_size_binary());
            let contents = batch.column(2).as_binary::<i64>();
            for (row, number) in numbers.iter().enumerate() {
                let id = digest(ids.value(row))?;
                let features = match is_text {
                    true => text_features(&mut signer, &String::from_utf8_lossy(contents.value(row))),
                    false => image_features(likeness, contents.value(row)),
                };
                let number = *number as u32;
                let found = judge.offer(labels[number as usize], id, &features)?;
                outcome.note(number, id, found);
                if cutoff.1.contains(&number) {
                    sample.add(number, id, features, found);
                }
            }
            outcome.cut_if_full().await?;
        }
        for (number, id, features) in before.into_records().filter(|(number, ..)| labels[*number as usize] == ALONE) {
            sample.add(number, id, features, None);
        }
        Ok((outcome.finish().await?, cutoff.0.rank().map(|_| sample)))
    }

    /// Sees all keys once; also finds the sample on which quality is measured.
    async fn count_keys(&self) -> Result<(Shared, (Cutoff, HashSet<u32>))> {
        let Search { engine, cleaned, likeness, .. } = self.search;
        let is_text = self.modality() == Modality::Text;
        let records = self.firsts.count + self.pulled.len() as u64;
        let mut occurrences = Occurrences::new(records * likeness.keys_a_record(), engine.pool_bytes() as u64 / 2);
        let mut cutoff = Cutoff::default();
        let table = engine.session(8192).read_table(cleaned.verdicts(&[ORDINAL, "rank", "sketch"], engine.threads())?)?;
        let mut batches = engine.stream(table).await?;
        let mut ranks: Vec<(u32, u32)> = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            let ordinals = batch.column(0).as_primitive::<UInt64Type>().values();
            let (rank, sketches) = (batch.column(1).as_primitive::<UInt32Type>(), batch.column(2).as_binary::<i32>());
            for (row, ordinal) in ordinals.iter().enumerate().filter(|(_, ordinal)| self.firsts.flags[**ordinal as usize]) {
                if is_text {
                    cutoff.see(rank.value(row));
                }
                if cutoff.rank().is_some_and(|cutoff| rank.value(row) <= cutoff) {
                    ranks.push((rank.value(row), *ordinal as u32));
                }
                see(&mut occurrences, likeness, sketches.value(row));
            }
        }
        self.pulled.iter().for_each(|pulled| see(&mut occurrences, likeness, &pulled.record.sketch));
        let last = cutoff.rank().unwrap_or(0);
        let sampled = ranks.into_iter().filter(|(rank, _)| *rank <= last).map(|(_, ordinal)| ordinal).collect();
        Ok((occurrences.shared(), (cutoff, sampled)))
    }

    /// Connects the records that share a key.
    async fn connect(&self, shared: Shared, components: &mut Components) -> Result<()> {
        let Search { engine, cleaned, pipeline, .. } = self.search;
        let session = engine.session(8192);
        let sketches = engine.stream(session.read_table(cleaned.verdicts(&[ORDINAL, "sketch"], engine.threads())?)?).await?;
        let first = self.firsts.flags.len() as u32;
        let keys = SharedKeys { shared, likeness: Likeness::new(pipeline), schema: keys_schema() };
        let of_pulled = keys.of(self.pulled.iter().zip(first..).map(|(pulled, number)| (number, pulled.record.sketch.as_slice())));
        let flags = Arc::clone(&self.firsts.flags);
        let of_new = sketches.map(move |batch| {
            let batch = batch?;
            let (ordinals, sketches) = (batch.column(0).as_primitive::<UInt64Type>().values(), batch.column(1).as_binary::<i32>());
            let firsts = ordinals.iter().enumerate().filter(|(_, ordinal)| flags[**ordinal as usize]);
            keys.of(firsts.map(|(row, ordinal)| (*ordinal as u32, sketches.value(row))))
        });
        let all = Engine::table(keys_schema(), [futures::stream::iter([of_pulled]).chain(of_new)])?;
        let mut batches = engine.stream(session.read_table(all)?.sort(vec![col("key").sort(true, false)])?).await?;
        let mut last = None;
        while let Some(batch) = batches.try_next().await? {
            let keys = batch.column(0).as_primitive::<UInt64Type>().values();
            let numbers = batch.column(1).as_primitive::<UInt32Type>().values();
            for (key, number) in keys.iter().zip(numbers) {
                match last {
                    Some((same, first)) if same == *key => components.connect(first, *number),
                    _ => last = Some((*key, *number)),
                }
            }
        }
        Ok(())
    }

    /// What is compared of the records that have a component, by component and id; copies have none.
    async fn gather(&self, labels: &Arc<Vec<u32>>) -> Result<datafusion::execution::SendableRecordBatchStream> {
        let Search { engine, cleaned, .. } = self.search;
        let session = engine.session(crate::shard::CONTENT_ROWS);
        let new = match self.modality() {
            Modality::Text => session.read_table(cleaned.contents(&[ORDINAL, "id", "text"], engine.threads())?)?,
            Modality::Images => session.read_table(cleaned.verdicts(&[ORDINAL, "id", "sketch"], engine.threads())?)?,
        };
        let content = if self.modality() == Modality::Text { "text" } else { "sketch" };
        let label = label_function(Arc::clone(labels));
        let columns =
            vec![col(ORDINAL).alias("number"), col("id"), datafusion::prelude::cast(col(content), DataType::LargeBinary).alias("content")];
        let mut all: DataFrame = new.select(columns)?;
        if !self.pulled.is_empty() {
            let old = MemTable::try_new(gathered(), vec![vec![self.pulled_contents()?]])?;
            all = all.union(session.read_table(Arc::new(old))?)?;
        }
        let label = label.call(vec![col("number")]);
        let labelled = all.select(vec![label.alias("component"), col("number"), col("id"), col("content")])?;
        let labelled = labelled.filter(col("component").not_eq(lit(ALONE)))?;
        let sorted = labelled.sort(vec![col("component").sort(true, false), col("id").sort(true, false)])?;
        engine.stream(sorted.select(vec![col("number"), col("id"), col("content")])?).await
    }

    fn pulled_contents(&self) -> Result<RecordBatch> {
        // Those without content are not judged.
        let judged = || (self.firsts.flags.len() as u64..).zip(self.pulled).filter(|(_, pulled)| pulled.content.is_some());
        let numbers: UInt64Array = judged().map(|(number, _)| number).collect();
        let ids = digests(judged().map(|(_, pulled)| Some(&pulled.record.id)))?;
        let contents: LargeBinaryArray = judged().map(|(_, pulled)| pulled.content.as_deref()).collect();
        Ok(RecordBatch::try_new(gathered(), vec![Arc::new(numbers), ids, Arc::new(contents)])?)
    }
}

fn see(occurrences: &mut Occurrences, likeness: &Likeness, sketch: &[u8]) {
    match likeness {
        // Without the detour of a list, as this is done for every record.
        Likeness::Text(_) => {
            sketch.chunks_exact(8).for_each(|key| occurrences.see(key.iter().rev().fold(0, |key, byte| key << 8 | u64::from(*byte))))
        }
        Likeness::Images(..) => likeness.distinct_keys(sketch).into_iter().for_each(|key| occurrences.see(key)),
    }
}

fn keys_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("key", DataType::UInt64, false), Field::new("number", DataType::UInt32, false)]))
}

/// Finds the keys of records that others may have too.
struct SharedKeys {
    shared: Shared,
    likeness: Likeness,
    schema: SchemaRef,
}

impl SharedKeys {
    /// Keys and numbers of records.
    fn of<'a>(&self, records: impl Iterator<Item = (u32, &'a [u8])>) -> Result<RecordBatch> {
        let (mut keys, mut numbers) = (Vec::new(), Vec::new());
        for (number, sketch) in records {
            for key in self.likeness.distinct_keys(sketch).into_iter().filter(|key| self.shared.is_shared(*key)) {
                keys.push(key);
                numbers.push(number);
            }
        }
        let columns: Vec<ArrayRef> = vec![Arc::new(UInt64Array::from(keys)), Arc::new(UInt32Array::from(numbers))];
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

fn image_features(likeness: &Likeness, sketch: &[u8]) -> Features {
    let (keys, queries) = likeness.keys(sketch);
    Features { keys, queries, data: crate::clean::image::data(sketch) }
}

fn label_function(labels: Arc<Vec<u32>>) -> ScalarUDF {
    let label = move |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let numbers = arrays[0].as_primitive::<UInt64Type>();
        let column: UInt32Array = numbers.values().iter().map(|number| labels.get(*number as usize).copied().unwrap_or(ALONE)).collect();
        Ok(ColumnarValue::Array(Arc::new(column)))
    };
    create_udf("component", vec![DataType::UInt64], DataType::UInt32, Volatility::Immutable, Arc::new(label))
}

/// Collects the verdicts of a round.
struct Outcome<'a> {
    stage: Stage,
    writer: crate::stage::TaskWriter,
    removed: Vec<(Option<u64>, Digest, Match)>,
    /// Number of the first pulled record.
    first: u32,
    pulled: &'a [&'a Pulled],
    revisions: Vec<Revision>,
}

impl<'a> Outcome<'a> {
    fn new(stage: Stage, first: u32, pulled: &'a [&'a Pulled], named: &[KnownRecord]) -> Result<Self> {
        let writer = stage.writer(0)?;
        let untouched = pulled.iter().filter(|pulled| pulled.content.is_none()).map(|pulled| &pulled.record).chain(named);
        // How similar they are was measured when they were removed; here it is only needed for their copies.
        let stays = |record: &KnownRecord| Some((None, record.id, Match { survivor: record.survivor?, similarity: 1.0 }));
        let removed = untouched.filter_map(stays).collect();
        Ok(Self { stage, writer, removed, first, pulled, revisions: Vec::new() })
    }

    fn pulled(&self, number: u32) -> Option<&'a KnownRecord> {
        self.pulled.get(number.checked_sub(self.first)? as usize).map(|pulled| &pulled.record)
    }

    fn note(&mut self, number: u32, id: Digest, found: Option<Match>) {
        let pulled = self.pulled(number);
        if let Some(found) = found {
            self.removed.push((pulled.is_none().then_some(u64::from(number)), id, found));
        }
        if let Some(record) = pulled.filter(|record| record.survivor != found.map(|found| found.survivor)) {
            self.revisions.push(Revision { record: record.clone(), now: found });
        }
    }

    async fn cut_if_full(&mut self) -> Result<()> {
        if self.removed.len() >= 4096 {
            self.write().await?;
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<()> {
        let ordinals: UInt64Array = self.removed.iter().map(|(ordinal, _, _)| *ordinal).collect();
        let ids = digests(self.removed.iter().map(|(_, id, _)| Some(id)))?;
        let survivors = digests(self.removed.iter().map(|(_, _, found)| Some(&found.survivor)))?;
        let similarities: Float64Array = self.removed.iter().map(|(_, _, found)| Some(found.similarity)).collect();
        self.removed.clear();
        self.writer.append(&RecordBatch::try_new(schema(), vec![Arc::new(ordinals), ids, survivors, Arc::new(similarities)])?).await
    }

    async fn finish(mut self) -> Result<Found> {
        self.write().await?;
        self.writer.finish().await?;
        Ok(Found { removed: self.stage, revisions: self.revisions, quality: None })
    }
}
