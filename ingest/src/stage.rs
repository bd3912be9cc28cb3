//! Stage boundaries: what a stage made, as immutable Parquet objects that the next stage reads.
//!
//! They lie below `_work/{job}/{stage}/` of the dataset, one object a task, put when complete. So a task whose object is
//! there is done, whoever did it, and a killed job goes on where it stopped. Deliberately absent: a record of progress
//! beside the objects themselves.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use forebay_store::Location;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::error::{Error, Result};

/// The objects of one stage of one job.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    location: Location,
    folder: String,
    schema: SchemaRef,
    io: Handle,
}

impl Stage {
    pub(crate) fn new(location: &Location, work: &str, name: &str, schema: SchemaRef, io: &Handle) -> Self {
        Self { location: location.clone(), folder: format!("{work}/{name}"), schema, io: io.clone() }
    }

    /// Columns of every object.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The tasks that are done.
    pub(crate) async fn done(&self) -> Result<HashSet<usize>> {
        let listed: Vec<_> = self.location.list(&self.folder).try_collect().await?;
        let number = |path: &object_store::path::Path| path.filename()?.strip_suffix(".parquet")?.parse().ok();
        Ok(listed.iter().filter_map(|meta| number(&meta.location)).collect())
    }

    /// Stores what task `task` made.
    pub(crate) async fn put(&self, task: usize, bytes: Vec<u8>) -> Result<()> {
        Ok(self.location.put(&self.object(task), Bytes::from(bytes)).await?)
    }

    /// Columns of the objects of `tasks` as a table of at most `partitions` partitions, each read one object at a time.
    pub(crate) fn table(&self, tasks: Range<usize>, columns: &[&str], partitions: usize) -> Result<Arc<dyn TableProvider>> {
        let indices: Vec<usize> =
            (0..self.schema.fields().len()).filter(|at| columns.contains(&self.schema.field(*at).name().as_str())).collect();
        let schema = Arc::new(self.schema.project(&indices)?);
        let per_partition = tasks.len().div_ceil(partitions.max(1)).max(1);
        let objects: Vec<String> = tasks.map(|task| self.object(task)).collect();
        let partitions = objects.chunks(per_partition).map(|objects| {
            let partition =
                Objects { stage: self.clone(), objects: objects.to_vec(), indices: indices.clone(), schema: Arc::clone(&schema) };
            Arc::new(partition) as Arc<dyn PartitionStream>
        });
        let partitions = partitions.collect();
        Ok(Arc::new(StreamingTable::try_new(schema, partitions)?))
    }

    fn object(&self, task: usize) -> String {
        format!("{}/{task:05}.parquet", self.folder)
    }
}

/// Collects the batches of one object.
pub(crate) struct ObjectWriter {
    writer: ArrowWriter<Vec<u8>>,
}

impl ObjectWriter {
    pub(crate) fn new(schema: &SchemaRef) -> Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::LZ4_RAW)
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            // Values are whole documents, so pages must be cut more often than the default of every 1024 values.
            .set_write_batch_size(32)
            .build();
        Ok(Self { writer: ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties))? })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        Ok(self.writer.write(batch)?)
    }

    pub(crate) fn finish(self) -> Result<Vec<u8>> {
        Ok(self.writer.into_inner()?)
    }
}

/// Some objects as a partition.
#[derive(Debug)]
struct Objects {
    stage: Stage,
    objects: Vec<String>,
    indices: Vec<usize>,
    schema: SchemaRef,
}

impl PartitionStream for Objects {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        // One object is read ahead while the plan works on the one before.
        let (sender, receiver) = mpsc::channel::<Result<Bytes>>(1);
        let (location, objects) = (self.stage.location.clone(), self.objects.clone());
        self.stage.io.spawn(async move {
            for object in objects {
                let bytes = location.get(&object).await.map_err(Error::from);
                if sender.send(bytes).await.is_err() {
                    return;
                }
            }
        });
        let rows = context.session_config().batch_size();
        let state = Reading { receiver, current: None, indices: self.indices.clone(), rows };
        let batches = futures::stream::unfold(state, |mut state| async move { state.next().await.map(|batch| (batch, state)) });
        let batches = batches.map(|batch| batch.map_err(DataFusionError::from));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

struct Reading {
    receiver: mpsc::Receiver<Result<Bytes>>,
    current: Option<ParquetRecordBatchReader>,
    indices: Vec<usize>,
    rows: usize,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            if let Some(batch) = self.current.as_mut().and_then(Iterator::next) {
                return Some(batch.map_err(Error::from));
            }
            self.current = match self.receiver.recv().await?.and_then(|bytes| self.open(bytes)) {
                Ok(reader) => Some(reader),
                Err(error) => return Some(Err(error)),
            };
        }
    }

    fn open(&self, bytes: Bytes) -> Result<ParquetRecordBatchReader> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), self.indices.iter().copied());
        Ok(builder.with_projection(mask).with_batch_size(self.rows).build()?)
    }
}
