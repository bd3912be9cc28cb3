//! The records of earlier versions, by the index beside the dataset.
//!
//! The index is read as a stream, once a question; what is held is what matches. So an increment costs a look at the
//! index and the work on what it adds. Contents of known records are read from the stage objects that the earlier
//! versions left, page by page. Deliberately absent: any change; the next version writes its own index.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{SchemaRef, UInt32Type};
use forebay_schemas::dataset::{CleanedTask, DatasetManifest};
use forebay_schemas::id::{Already, Digest};
use forebay_schemas::record::INDEX;
use forebay_store::{Dataset, Table};
use futures::TryStreamExt;
use tokio::runtime::Handle;

use super::{Fate, Likeness, digest, text_at};
use crate::error::{Error, Kind, Result};
use crate::stage::{Part, Stage};

/// Keys of bands, or the beginnings of ids: numbers that are well mixed.
#[derive(Clone, Default)]
pub(crate) struct Keys {
    keys: HashSet<u64, BuildHasherDefault<Already>>,
    /// A bit for every value that the first bits of a key may have, small enough for the cache: most keys that are asked for
    /// are not there.
    first_bits: Vec<u64>,
}

impl Keys {
    const FIRST_BITS: u32 = 21;

    /// Enters a key; whether it was not there.
    pub(crate) fn insert(&mut self, key: u64) -> bool {
        self.first_bits.resize(1 << (Self::FIRST_BITS - 6), 0);
        let (word, bit) = Self::place(key);
        self.first_bits[word] |= bit;
        self.keys.insert(key)
    }

    fn contains(&self, key: u64) -> bool {
        let (word, bit) = Self::place(key);
        self.first_bits.get(word).is_some_and(|bits| bits & bit != 0) && self.keys.contains(&key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn place(key: u64) -> (usize, u64) {
        let first = key >> (64 - Self::FIRST_BITS);
        ((first >> 6) as usize, 1 << (first & 63))
    }
}

impl Extend<u64> for Keys {
    fn extend<T: IntoIterator<Item = u64>>(&mut self, keys: T) {
        for key in keys {
            self.insert(key);
        }
    }
}

/// What is known of records by their ids, which are well mixed.
pub(crate) type ById<T> = HashMap<Digest, T, BuildHasherDefault<Already>>;

/// Ordinals of records by id.
pub(crate) type Ids = ById<u64>;

/// A record of an earlier version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownRecord {
    /// Its row in the index.
    pub(crate) index_row: u64,
    pub(crate) id: Digest,
    pub(crate) sketch: Vec<u8>,
    /// The record kept instead of it.
    pub(crate) survivor: Option<Digest>,
    pub(crate) place: Place,
    pub(crate) size: u32,
    /// Of an image; of text its language.
    pub(crate) class: Option<String>,
    /// While it is kept.
    pub(crate) fate: Fate,
    /// Of an image, as stored.
    pub(crate) moments: Option<Vec<u8>>,
}

/// Columns of the index that say what a record is.
const RECORD: [&str; 10] = ["id", "sketch", "survivor", "task", "part", "row", "size", "class", "validation", "moments"];

/// Where a record's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// Counted over the tasks that the manifest lists.
    pub(crate) task: u32,
    pub(crate) part: u32,
    pub(crate) row: u32,
}

/// The records of the version that a job adds to.
pub(crate) struct Known {
    pub(crate) manifest: DatasetManifest,
    /// Tasks of cleaning of all earlier versions.
    pub(crate) tasks: Vec<CleanedTask>,
    dataset: Dataset,
    index: Arc<dyn Table>,
    contents: SchemaRef,
    io: Handle,
}

impl Known {
    /// The records of a version; none if it has no index, or not all of what is asked for here, as those of older programs.
    pub(crate) async fn open(dataset: &Dataset, manifest: DatasetManifest, contents: SchemaRef, io: &Handle) -> Result<Option<Self>> {
        let Some(index) = manifest.tables.get(INDEX) else { return Ok(None) };
        let index = dataset.tables(index.format).open(index).await?;
        let tasks = match &manifest.cleaned {
            Some(list) => parse_tasks(&dataset.get_object(list).await?)?,
            None => Vec::new(),
        };
        if RECORD.iter().any(|column| index.schema().index_of(column).is_err()) {
            return Ok(None);
        }
        Ok(Some(Self { tasks, dataset: dataset.clone(), index, contents, io: io.clone(), manifest }))
    }

    /// Whether one of `records`, given by class and fate, has the content of a known one of another class or fate.
    pub(crate) async fn contradicts(&self, records: &ById<(String, Fate)>) -> Result<bool> {
        let mut rows = self.index.scan(&["id", "class", "validation"]).await?;
        while let Some(batch) = rows.try_next().await? {
            for (row, id) in batch.column(0).as_fixed_size_binary().iter().enumerate() {
                let found = records.get(&digest(id.unwrap_or_default())?);
                let class = text_at(batch.column(1).as_string::<i32>(), row).unwrap_or_default();
                if found.is_some_and(|(expected, of)| expected != class || *of != fate(batch.column(2), row)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The records that have one of `ids`, or that are found under one of `keys` or look by one.
    pub(crate) async fn pull(&self, likeness: &Likeness, ids: &Ids, keys: &Keys) -> Result<Vec<KnownRecord>> {
        let mut beginnings = Keys::default();
        beginnings.extend(ids.keys().map(Digest::as_u64));
        let is_one = |id: Digest| beginnings.contains(id.as_u64()) && ids.contains_key(&id);
        let mut found = Vec::new();
        let mut first = 0;
        let mut rows = self.index.scan(&RECORD).await?;
        while let Some(batch) = rows.try_next().await? {
            let (known, sketches) = (batch.column(0).as_fixed_size_binary(), batch.column(1).as_binary::<i32>());
            for row in 0..batch.num_rows() {
                if shares(likeness, sketches.value(row), keys) || is_one(digest(known.value(row))?) {
                    found.push(record(&batch, row, first + row as u64)?);
                }
            }
            first += batch.num_rows() as u64;
        }
        Ok(found)
    }

    /// Columns of the contents of records, as (place, batch and row in it); in any order.
    pub(crate) async fn contents(&self, places: &[Place], columns: &[&str]) -> Result<Vec<(Place, RecordBatch, usize)>> {
        let mut by_task: BTreeMap<u32, BTreeMap<u32, Vec<u32>>> = BTreeMap::new();
        for place in places {
            by_task.entry(place.task).or_default().entry(place.part).or_default().push(place.row);
        }
        let mut stages: HashMap<&str, (Stage, Vec<Part>)> = HashMap::new();
        let mut found = Vec::with_capacity(places.len());
        for (task, parts) in by_task {
            let listed =
                self.tasks.get(task as usize).ok_or_else(|| Error::new(Kind::Corrupt, format!("index: no task {task} is listed")))?;
            if !stages.contains_key(listed.folder.as_str()) {
                let stage = Stage::new(self.dataset.location(), &listed.folder, "contents", Arc::clone(&self.contents), &self.io);
                let done = stage.done().await?;
                stages.insert(&listed.folder, (stage, done));
            }
            let (stage, done) = &stages[listed.folder.as_str()];
            for (part, mut rows) in parts {
                rows.sort_unstable();
                rows.dedup();
                let place = |row| Place { task, part, row };
                let is_it = |found: &&Part| found.task == listed.task as usize && found.part == part as usize;
                let object = done.iter().find(is_it).ok_or_else(|| {
                    Error::new(Kind::Corrupt, format!("stage object {part} of task {} in `{}` is missing", listed.task, listed.folder))
                })?;
                let mut rest = rows.iter();
                for batch in stage.rows(object, &rows, columns).await? {
                    for row in 0..batch.num_rows() {
                        found.extend(rest.next().map(|at| (place(*at), batch.clone(), row)));
                    }
                }
            }
        }
        Ok(found)
    }
}

/// The list of tasks of a manifest.
pub(crate) fn parse_tasks(list: &[u8]) -> Result<Vec<CleanedTask>> {
    let lines = list.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let tasks: std::result::Result<_, _> = lines.map(serde_json::from_slice).collect();
    tasks.map_err(|error| Error::with_source(Kind::Corrupt, "the list of cleaned tasks is malformed", error))
}

/// Whether a record is found under one of `keys` or looks by one.
pub(crate) fn shares(likeness: &Likeness, sketch: &[u8], keys: &Keys) -> bool {
    if keys.is_empty() {
        return false;
    }
    match likeness {
        // Without the detour of a list: this is asked of every record that was ever ingested.
        Likeness::Text(_) => sketch.chunks_exact(8).any(|key| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(key);
            keys.contains(u64::from_le_bytes(bytes))
        }),
        Likeness::Images(..) => likeness.distinct_keys(sketch).into_iter().any(|key| keys.contains(key)),
    }
}

fn record(batch: &RecordBatch, row: usize, index_row: u64) -> Result<KnownRecord> {
    let survivors = batch.column(2).as_fixed_size_binary();
    let number = |column: usize| batch.column(column).as_primitive::<UInt32Type>().value(row);
    Ok(KnownRecord {
        index_row,
        id: digest(batch.column(0).as_fixed_size_binary().value(row))?,
        sketch: batch.column(1).as_binary::<i32>().value(row).to_vec(),
        survivor: survivors.is_valid(row).then(|| digest(survivors.value(row))).transpose()?,
        place: Place { task: number(3), part: number(4), row: number(5) },
        size: number(6),
        class: text_at(batch.column(7).as_string::<i32>(), row).map(str::to_owned),
        fate: fate(batch.column(8), row),
        moments: batch.column(9).is_valid(row).then(|| batch.column(9).as_binary::<i32>().value(row).to_vec()),
    })
}

fn fate(validation: &ArrayRef, row: usize) -> Fate {
    if validation.as_boolean().value(row) { Fate::Validation } else { Fate::Train }
}
