//! Stage boundaries: what a stage made, as immutable Parquet objects that the next stage reads.
//!
//! They lie below `{job}/{stage}/` of the dataset and are called `{task}.{part}-{rows}.parquet`, the last part of a task
//! `….last.parquet`, put when complete. So a task whose last part is there is done, whoever did it, and a killed job goes
//! on where it stopped. A task is cut into parts of some MiB, so that memory is bounded whatever the size of a raw object.
//! Deliberately absent: a record of progress beside the objects themselves.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use forebay_store::Location;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::error::{Error, Kind, Result};

/// The column that a read adds: the number of a record among all records of the job.
pub(crate) const ORDINAL: &str = "ordinal";
/// Rows and bytes of a part.
const PART_ROWS: usize = 16_384;
const PART_BYTES: usize = 16 << 20;
const PAGE_BYTES: usize = 64 << 10;

/// The objects of one stage of one job.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    location: Location,
    folder: String,
    schema: SchemaRef,
    io: Handle,
}

/// One object of a stage that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) task: usize,
    pub(crate) part: usize,
    pub(crate) rows: u64,
    /// Ordinal of its first record.
    pub(crate) first: u64,
    is_last: bool,
}

impl Stage {
    pub(crate) fn new(location: &Location, job: &str, name: &str, schema: SchemaRef, io: &Handle) -> Self {
        Self { location: location.clone(), folder: format!("{job}/{name}"), schema, io: io.clone() }
    }

    /// Columns of every object.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The parts of all tasks that are done, in order, with the ordinals that their records have if these are all.
    pub(crate) async fn done(&self) -> Result<Vec<Part>> {
        let listed: Vec<_> = self.location.list(&self.folder).try_collect().await?;
        let mut tasks: BTreeMap<usize, Vec<Part>> = BTreeMap::new();
        for part in listed.iter().filter_map(|meta| Part::parse(meta.location.filename()?)) {
            tasks.entry(part.task).or_default().push(part);
        }
        let mut parts = Vec::new();
        let mut first = 0;
        for mut task in tasks.into_values() {
            task.sort_unstable_by_key(|part| part.part);
            let is_done = task.last().is_some_and(|last| last.is_last && last.part + 1 == task.len());
            for mut part in task.into_iter().filter(|_| is_done) {
                part.first = first;
                first += part.rows;
                parts.push(part);
            }
        }
        Ok(parts)
    }

    /// The parts of all tasks; a stage of which some are missing must not look like one of fewer records.
    pub(crate) async fn whole(&self, tasks: usize) -> Result<Vec<Part>> {
        let parts = self.done().await?;
        let found = parts.chunk_by(|a, b| a.task == b.task).count();
        if found != tasks {
            let message = format!("stage objects of {found} of {tasks} tasks are in `{}`: another process deleted some", self.folder);
            return Err(Error::new(Kind::Unavailable, message));
        }
        Ok(parts)
    }

    /// Writes the output of task `task`, part by part.
    pub(crate) fn writer(&self, task: usize) -> Result<TaskWriter> {
        let writer = part_writer(&self.schema)?;
        Ok(TaskWriter { stage: self.clone(), task, part: 0, rows: 0, bytes: 0, writer })
    }

    /// Columns of `parts` as a table of at most `partitions` partitions, each read one object at a time. The column
    /// [`ORDINAL`] may be asked for first: the first record of a part is number `first`, and a column `row`, if the stage
    /// has one, counts from there.
    pub(crate) fn table(&self, parts: &[Part], columns: &[&str], partitions: usize) -> Result<Arc<dyn TableProvider>> {
        let is_numbered = columns.first() == Some(&ORDINAL);
        let wanted = |name: &str| columns.contains(&name);
        let indices: Vec<usize> = (0..self.schema.fields().len()).filter(|at| wanted(self.schema.field(*at).name())).collect();
        let mut fields: Vec<_> = self.schema.project(&indices)?.fields().iter().map(|field| field.as_ref().clone()).collect();
        if is_numbered {
            fields.insert(0, Field::new(ORDINAL, DataType::UInt64, false));
        }
        let row = self.schema.index_of("row").ok().filter(|_| is_numbered);
        let schema = Arc::new(Schema::new(fields));
        let per_partition = parts.len().div_ceil(partitions.max(1)).max(1);
        let mut streams: Vec<Arc<dyn PartitionStream>> = Vec::new();
        for parts in parts.chunks(per_partition) {
            let columns = Columns { indices: indices.clone(), row, is_numbered, schema: Arc::clone(&schema) };
            streams.push(Arc::new(Parts { stage: self.clone(), parts: parts.to_vec(), columns }));
        }
        if streams.is_empty() {
            let columns = Columns { indices, row, is_numbered, schema: Arc::clone(&schema) };
            streams.push(Arc::new(Parts { stage: self.clone(), parts: Vec::new(), columns }));
        }
        Ok(Arc::new(StreamingTable::try_new(schema, streams)?))
    }

    /// Columns of some rows of a part, ascending; of the object little more than these is fetched.
    pub(crate) async fn rows(&self, part: &Part, rows: &[u32], columns: &[&str]) -> Result<Vec<RecordBatch>> {
        let object = self.object(part);
        let size = self.location.head(&object).await?.map(|meta| meta.size);
        let missing = || Error::new(Kind::Corrupt, format!("stage object `{object}` is missing"));
        let reader = Ranged { location: self.location.clone(), object: object.clone(), bytes: size.ok_or_else(missing)? };
        let options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Optional);
        let builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, options).await?;
        let indices = columns.iter().filter_map(|column| self.schema.index_of(column).ok());
        let mask = ProjectionMask::roots(builder.parquet_schema(), indices);
        let ranges = rows.iter().map(|row| *row as usize..*row as usize + 1);
        let selection = RowSelection::from_consecutive_ranges(ranges, part.rows as usize);
        Ok(builder.with_projection(mask).with_row_selection(selection).build()?.try_collect().await?)
    }

    /// The bytes of a part.
    pub(crate) async fn get(&self, part: &Part) -> Result<Bytes> {
        Ok(self.location.get(&self.object(part)).await?)
    }

    fn object(&self, part: &Part) -> String {
        format!("{}/{}", self.folder, part.name())
    }
}

impl Part {
    /// A part of which only the place is known.
    fn name(&self) -> String {
        format!("{:05}.{:04}-{}{}.parquet", self.task, self.part, self.rows, if self.is_last { ".last" } else { "" })
    }

    fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".parquet")?;
        let (stem, is_last) = stem.strip_suffix(".last").map_or((stem, false), |stem| (stem, true));
        let (place, rows) = stem.split_once('-')?;
        let (task, part) = place.split_once('.')?;
        Some(Self { task: task.parse().ok()?, part: part.parse().ok()?, rows: rows.parse().ok()?, first: 0, is_last })
    }
}

fn part_writer(schema: &SchemaRef) -> Result<ArrowWriter<Vec<u8>>> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::LZ4_RAW)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_data_page_size_limit(PAGE_BYTES)
        // Values are whole documents, so pages must be cut more often than the default of every 1024 values.
        .set_write_batch_size(32);
    // Pictures are compressed already, tokens hardly can be.
    for field in schema.fields().iter().filter(|field| *field.data_type() == DataType::LargeBinary) {
        properties = properties.set_column_compression(ColumnPath::from(field.name().as_str()), Compression::UNCOMPRESSED);
    }
    Ok(ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties.build()))?)
}

/// Writes the output of one task. Nothing of it counts before [`Self::finish`].
pub(crate) struct TaskWriter {
    stage: Stage,
    task: usize,
    part: usize,
    rows: usize,
    bytes: usize,
    writer: ArrowWriter<Vec<u8>>,
}

impl TaskWriter {
    /// Rows of the part that is being written.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds rows to the part.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        Ok(self.writer.write(batch)?)
    }

    /// Adds rows to the part, and puts it if it has its size.
    pub(crate) async fn append(&mut self, batch: &RecordBatch) -> Result<()> {
        self.write(batch)?;
        if self.is_full() {
            self.cut().await?;
        }
        Ok(())
    }

    /// Whether the part has its size.
    pub(crate) fn is_full(&self) -> bool {
        self.rows >= PART_ROWS || self.bytes >= PART_BYTES
    }

    /// Puts the part and begins the next.
    pub(crate) async fn cut(&mut self) -> Result<()> {
        self.put(false).await
    }

    /// Puts the last part; the task is done.
    pub(crate) async fn finish(mut self) -> Result<()> {
        self.put(true).await
    }

    async fn put(&mut self, is_last: bool) -> Result<()> {
        let writer = std::mem::replace(&mut self.writer, part_writer(&self.stage.schema)?);
        let part = Part { task: self.task, part: self.part, rows: self.rows as u64, first: 0, is_last };
        let (location, object, bytes) = (self.stage.location.clone(), self.stage.object(&part), Bytes::from(writer.into_inner()?));
        let put = self.stage.io.spawn(async move { location.put(&object, bytes).await });
        put.await.map_err(|error| Error::internal("a write stopped", error))??;
        (self.part, self.rows, self.bytes) = (self.part + 1, 0, 0);
        Ok(())
    }
}

/// An object that is read in ranges.
struct Ranged {
    location: Location,
    object: String,
    bytes: u64,
}

impl AsyncFileReader for Ranged {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        let external = |error| ParquetError::External(Box::new(error));
        async move { self.location.get_range(&self.object, range).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        let policy = options.map_or(PageIndexPolicy::Skip, ArrowReaderOptions::offset_index_policy);
        async move {
            let bytes = self.bytes;
            let reader = ParquetMetaDataReader::new().with_offset_index_policy(policy);
            Ok(Arc::new(reader.load_and_finish(self, bytes).await?))
        }
        .boxed()
    }
}

/// What is read of a part.
#[derive(Clone, Debug)]
struct Columns {
    indices: Vec<usize>,
    /// The column that counts records from the first of the part.
    row: Option<usize>,
    is_numbered: bool,
    schema: SchemaRef,
}

/// Some parts as a partition.
#[derive(Debug)]
struct Parts {
    stage: Stage,
    parts: Vec<Part>,
    columns: Columns,
}

impl PartitionStream for Parts {
    fn schema(&self) -> &SchemaRef {
        &self.columns.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        // One object is read ahead while the plan works on the one before.
        let (sender, receiver) = mpsc::channel::<Result<(u64, Bytes)>>(1);
        let (stage, parts) = (self.stage.clone(), self.parts.clone());
        self.stage.io.spawn(async move {
            for part in parts {
                let bytes = stage.get(&part).await.map(|bytes| (part.first, bytes));
                if sender.send(bytes).await.is_err() {
                    return;
                }
            }
        });
        let rows = context.session_config().batch_size();
        let state = Reading { receiver, current: None, columns: self.columns.clone(), rows };
        let batches = futures::stream::unfold(state, |mut state| async move { state.next().await.map(|batch| (batch, state)) });
        let batches = batches.map(|batch| batch.map_err(DataFusionError::from));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.columns.schema), batches))
    }
}

struct Reading {
    receiver: mpsc::Receiver<Result<(u64, Bytes)>>,
    /// The reader of a part, its first ordinal, and the rows read of it.
    current: Option<(ParquetRecordBatchReader, u64, u64)>,
    columns: Columns,
    rows: usize,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            if let Some((reader, first, at)) = &mut self.current
                && let Some(batch) = reader.next()
            {
                return Some(batch.map_err(Error::from).and_then(|batch| {
                    let numbered = self.columns.number(&batch, *first, *at)?;
                    *at += batch.num_rows() as u64;
                    Ok(numbered)
                }));
            }
            self.current = match self.receiver.recv().await?.and_then(|(first, bytes)| Ok((self.open(bytes)?, first, 0))) {
                Ok(current) => Some(current),
                Err(error) => return Some(Err(error)),
            };
        }
    }

    fn open(&self, bytes: Bytes) -> Result<ParquetRecordBatchReader> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
        let indices = self.columns.indices.iter().chain(&self.columns.row).copied();
        let mask = ProjectionMask::roots(builder.parquet_schema(), indices);
        Ok(builder.with_projection(mask).with_batch_size(self.rows).build()?)
    }
}

impl Columns {
    /// The columns asked for, with ordinals in front if these were.
    fn number(&self, batch: &RecordBatch, first: u64, at: u64) -> Result<RecordBatch> {
        use arrow::array::AsArray;
        use arrow::datatypes::UInt32Type;
        let mut columns: Vec<ArrayRef> = self
            .schema
            .fields()
            .iter()
            .skip(usize::from(self.is_numbered))
            .map(|field| {
                batch
                    .column_by_name(field.name())
                    .cloned()
                    .ok_or_else(|| Error::new(Kind::Corrupt, format!("a stage object has no column `{}`", field.name())))
            })
            .collect::<Result<_>>()?;
        if self.is_numbered {
            let ordinals: UInt64Array = match self.row.and_then(|_| batch.column_by_name("row")) {
                Some(rows) => rows.as_primitive::<UInt32Type>().values().iter().map(|row| first + u64::from(*row)).collect(),
                None => (first + at..first + at + batch.num_rows() as u64).collect(),
            };
            columns.insert(0, Arc::new(ordinals));
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_are_read_back() {
        for part in [
            Part { task: 3, part: 0, rows: 17, first: 0, is_last: false },
            Part { task: 123_456, part: 10_001, rows: 0, first: 0, is_last: true },
        ] {
            assert_eq!(Part::parse(&part.name()), Some(part));
        }
        for other in ["00001.parquet", "a.b-c.parquet", "00000.0000-1.last", ""] {
            assert_eq!(Part::parse(other), None, "{other}");
        }
    }
}
