//! Raw records as a partition of a plan: the bytes of one task, read ahead and in order.
//!
//! Reads run on the I/O runtime, some at a time, and wait when the plan is slower: at most a few batches are held. A
//! file that cannot be read is a record with a fault; a network that fails is an error.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{LargeBinaryBuilder, RecordBatch, StringBuilder, UInt64Builder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::StreamExt;
use object_store::ObjectStoreExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{Record, Source};
use crate::clean::Rejection;
use crate::error::{Error, Kind, Result};

const READS_AT_A_TIME: usize = 16;
const BATCH_BYTES: usize = 4 << 20;
const BATCH_RECORDS: usize = 512;
/// Neighbouring members of an archive are read together up to this size.
const SPAN_BYTES: u64 = 4 << 20;

/// Columns of a raw record; either `content` or `reason` and `detail`.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ordinal", DataType::UInt64, false),
        Field::new("key", DataType::Utf8, false),
        Field::new("bytes", DataType::UInt64, false),
        Field::new("content", DataType::LargeBinary, true),
        Field::new("reason", DataType::Utf8, true),
        Field::new("detail", DataType::Utf8, true),
    ]))
}

/// The records of one task.
#[derive(Debug)]
pub(crate) struct RawTask {
    source: Arc<Source>,
    records: Range<usize>,
    io: Handle,
    schema: SchemaRef,
}

impl RawTask {
    pub(crate) fn new(source: Arc<Source>, records: Range<usize>, io: Handle) -> Self {
        Self { source, records, io, schema: schema() }
    }
}

impl PartitionStream for RawTask {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (sender, receiver) = mpsc::channel(1);
        self.io.spawn(read(Arc::clone(&self.source), self.records.clone(), sender));
        let batches = futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        let batches = batches.map(|batch: Result<RecordBatch>| batch.map_err(DataFusionError::from));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// What was read of one record.
type Content = std::result::Result<Bytes, Rejection>;

async fn read(source: Arc<Source>, records: Range<usize>, sender: mpsc::Sender<Result<RecordBatch>>) {
    let spans = spans(&source.records, records);
    let reads = spans.into_iter().map(|span| {
        let source = Arc::clone(&source);
        async move { read_span(&source, span).await }
    });
    let mut reads = futures::stream::iter(reads).buffered(READS_AT_A_TIME);
    let mut batch = Batch::default();
    while let Some(contents) = reads.next().await {
        let contents = match contents {
            Ok(contents) => contents,
            Err(error) => return drop(sender.send(Err(error)).await),
        };
        for (ordinal, content) in contents {
            batch.push(ordinal, &source.records[ordinal], content);
            // A receiver that is gone has stopped caring.
            if batch.is_full() && sender.send(batch.finish()).await.is_err() {
                return;
            }
        }
    }
    if batch.records > 0 {
        drop(sender.send(batch.finish()).await);
    }
}

/// Groups of consecutive records that one request reads.
fn spans(all: &[Record], records: Range<usize>) -> Vec<Range<usize>> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    for index in records {
        let record = &all[index];
        if let Some(span) = spans.last_mut() {
            let (first, last) = (&all[span.start], &all[span.end - 1]);
            let joins = first.object == record.object && first.fault.is_none() && record.fault.is_none();
            if joins && last.range.end <= record.range.start && record.range.end - first.range.start <= SPAN_BYTES {
                span.end = index + 1;
                continue;
            }
        }
        spans.push(index..index + 1);
    }
    spans
}

async fn read_span(source: &Source, span: Range<usize>) -> Result<Vec<(usize, Content)>> {
    let (first, last) = (&source.records[span.start], &source.records[span.end - 1]);
    if let Some(fault) = &first.fault {
        return Ok(vec![(span.start, Err(fault.clone()))]);
    }
    let object = &source.objects[first.object];
    let range = first.range.start..last.range.end;
    let read = if range == (0..object.size) {
        whole(source, first.object).await
    } else {
        source.store.get_range(&object.path, range.clone()).await.map(Ok)
    };
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(error) if is_own_fault(source, &error) => Err(unreadable(error.to_string())),
        Err(error) => return Err(Error::with_source(Kind::Unavailable, format!("object `{}`: reading failed", object.key), error)),
    };
    let content = |ordinal: usize| {
        let record = &source.records[ordinal].range;
        let bytes = bytes.clone()?;
        let (start, end) = ((record.start - range.start) as usize, (record.end - range.start) as usize);
        if end > bytes.len() { Err(unreadable("shorter than listed".to_owned())) } else { Ok(bytes.slice(start..end)) }
    };
    Ok(span.map(|ordinal| (ordinal, content(ordinal))).collect())
}

async fn whole(source: &Source, object: usize) -> object_store::Result<Content> {
    let object = &source.objects[object];
    let found = source.store.get(&object.path).await?;
    // The digest of the inputs names the listed content; other content belongs to the next run.
    if found.meta.size != object.size || found.meta.e_tag != object.etag {
        return Ok(Err(unreadable("changed since it was listed".to_owned())));
    }
    found.bytes().await.map(Ok)
}

fn is_own_fault(source: &Source, error: &object_store::Error) -> bool {
    source.local || matches!(error, object_store::Error::NotFound { .. } | object_store::Error::PermissionDenied { .. })
}

fn unreadable(detail: String) -> Rejection {
    Rejection::new("unreadable", detail)
}

#[derive(Default)]
struct Batch {
    records: usize,
    content_bytes: usize,
    ordinals: UInt64Builder,
    keys: StringBuilder,
    bytes: UInt64Builder,
    contents: LargeBinaryBuilder,
    reasons: StringBuilder,
    details: StringBuilder,
}

impl Batch {
    fn push(&mut self, ordinal: usize, record: &Record, content: Content) {
        self.records += 1;
        self.content_bytes += content.as_ref().map_or(0, Bytes::len);
        self.ordinals.append_value(ordinal as u64);
        self.keys.append_value(&record.key);
        self.bytes.append_value(record.range.end - record.range.start);
        self.reasons.append_option(content.as_ref().err().map(|fault| fault.reason));
        self.details.append_option(content.as_ref().err().map(|fault| fault.detail.as_str()));
        self.contents.append_option(content.ok());
    }

    fn is_full(&self) -> bool {
        self.records >= BATCH_RECORDS || self.content_bytes >= BATCH_BYTES
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        (self.records, self.content_bytes) = (0, 0);
        Ok(RecordBatch::try_new(
            schema(),
            vec![
                Arc::new(self.ordinals.finish()),
                Arc::new(self.keys.finish()),
                Arc::new(self.bytes.finish()),
                Arc::new(self.contents.finish()),
                Arc::new(self.reasons.finish()),
                Arc::new(self.details.finish()),
            ],
        )?)
    }
}
