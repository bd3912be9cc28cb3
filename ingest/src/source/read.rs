//! Raw records as the partitions of a plan: those of one task, in order, batches dealt to the partitions in turn.
//!
//! Small objects are fetched some at a time and ahead, large ones streamed; a thread that may block reads records out of
//! them and waits when the plan is slower, so at most a few batches are held. A file that cannot be read is a record with
//! a fault; a network that fails is an error. Deliberately absent: what formats there are; `open` knows.

use std::io::{self, Cursor, Read};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use arrow::array::{LargeBinaryBuilder, RecordBatch, StringBuilder, UInt8Builder, UInt64Builder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::{GetResultPayload, ObjectStoreExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::raw::{Content, RawRecord};
use super::{Object, Source, lance, open};
use crate::clean::Rejection;
use crate::error::{Error, Kind, Result};

const FETCHES_AT_A_TIME: usize = 16;
/// Larger objects are streamed.
const FETCH_BYTES: u64 = 1 << 20;
const BATCH_BYTES: usize = 2 << 20;
const BATCH_RECORDS: usize = 512;

/// The column `kind`: what `content` holds.
pub(crate) mod kind {
    pub(crate) const PLAIN: u8 = 0;
    pub(crate) const HTML: u8 = 1;
    pub(crate) const TEXT: u8 = 2;
    pub(crate) const IMAGE: u8 = 3;
}

/// Columns of a raw record; either `content` or `reason` and `detail`.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("bytes", DataType::UInt64, false),
        Field::new("kind", DataType::UInt8, false),
        Field::new("content", DataType::LargeBinary, true),
        Field::new("charset", DataType::Utf8, true),
        Field::new("url", DataType::Utf8, true),
        Field::new("class", DataType::Utf8, true),
        Field::new("reason", DataType::Utf8, true),
        Field::new("detail", DataType::Utf8, true),
    ]))
}

/// Starts to read the records of some objects, which come as `partitions` streams: the first batch in the first, the second in
/// the second, and after the last the first again.
pub(crate) fn raw(
    source: &Arc<Source>,
    objects: Range<usize>,
    io: &Handle,
    partitions: usize,
) -> Vec<BoxStream<'static, Result<RecordBatch>>> {
    let (fetched, receiver) = mpsc::channel(1);
    io.spawn(fetch(Arc::clone(source), objects, fetched));
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..partitions.max(1)).map(|_| mpsc::channel(1)).unzip();
    let (source, at) = (Arc::clone(source), io.clone());
    io.spawn_blocking(move || pump(&source, &at, receiver, &mut Dealer { senders, next: 0 }));
    let stream = |receiver| {
        futures::stream::unfold(receiver, |mut receiver: mpsc::Receiver<_>| async { Some((receiver.recv().await?, receiver)) }).boxed()
    };
    receivers.into_iter().map(stream).collect()
}

/// Deals batches to the partitions in turn.
struct Dealer {
    senders: Vec<mpsc::Sender<Result<RecordBatch>>>,
    next: usize,
}

impl Dealer {
    /// Waits while the partition is behind; breaks where nobody reads it any more.
    fn deal(&mut self, batch: Result<RecordBatch>) -> ControlFlow<()> {
        let sent = self.senders[self.next].blocking_send(batch);
        self.next = (self.next + 1) % self.senders.len();
        if sent.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// An object as far as it was fetched ahead.
enum Fetched {
    Whole(Bytes),
    /// To be opened when its turn comes.
    Large,
    /// A Lance table of this version.
    Table(u64),
    Fault(Rejection),
}

/// An opened object.
enum Opened {
    File(std::fs::File),
    Stream(BoxStream<'static, object_store::Result<Bytes>>),
    Fault(Rejection),
}

/// Fetches small objects ahead, in order.
async fn fetch(source: Arc<Source>, objects: Range<usize>, sender: mpsc::Sender<Result<(usize, Fetched)>>) {
    let fetches = objects.map(|index| {
        let source = Arc::clone(&source);
        async move {
            if let Some(version) = source.fresh[index].lance_version {
                return Ok((index, Fetched::Table(version)));
            }
            if source.fresh[index].size > FETCH_BYTES {
                return Ok((index, Fetched::Large));
            }
            let fetched = match open_object(&source, index).await? {
                Opened::Fault(fault) => Fetched::Fault(fault),
                Opened::File(file) => whole_file(&source.fresh[index], file),
                Opened::Stream(stream) => match collect(stream).await {
                    Ok(bytes) => Fetched::Whole(bytes),
                    Err(error) => Fetched::Fault(own_fault(&source, &source.fresh[index], error)?),
                },
            };
            Ok((index, fetched))
        }
    });
    let mut fetches = futures::stream::iter(fetches).buffered(FETCHES_AT_A_TIME);
    while let Some(fetched) = fetches.next().await {
        if sender.send(fetched).await.is_err() {
            return;
        }
    }
}

/// Small files are read at once: the detour of a blocking task for each costs more than the read.
fn whole_file(object: &Object, mut file: std::fs::File) -> Fetched {
    let mut bytes = Vec::with_capacity(object.size as usize);
    match file.by_ref().take(object.size + 1).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() as u64 == object.size => Fetched::Whole(bytes.into()),
        Ok(_) => Fetched::Fault(unreadable("changed since it was listed".to_owned())),
        Err(error) => Fetched::Fault(unreadable(error.to_string())),
    }
}

async fn collect(mut stream: BoxStream<'static, object_store::Result<Bytes>>) -> object_store::Result<Bytes> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes.into())
}

async fn open_object(source: &Source, index: usize) -> Result<Opened> {
    let object = &source.fresh[index];
    let found = match source.location.object_store().get(&object.path).await {
        Ok(found) => found,
        Err(error) => return Ok(Opened::Fault(own_fault(source, object, error)?)),
    };
    // The digest of the inputs names the listed content; other content belongs to the next run.
    if found.meta.size != object.size || found.meta.e_tag != object.etag {
        return Ok(Opened::Fault(unreadable("changed since it was listed".to_owned())));
    }
    Ok(match found.payload {
        GetResultPayload::File(file, _) => Opened::File(file),
        GetResultPayload::Stream(stream) => Opened::Stream(stream),
    })
}

/// The fault of an object that cannot be read, or the error if that is the network's.
fn own_fault(source: &Source, object: &Object, error: object_store::Error) -> Result<Rejection> {
    if source.local || matches!(error, object_store::Error::NotFound { .. } | object_store::Error::PermissionDenied { .. }) {
        return Ok(unreadable(error.to_string()));
    }
    Err(Error::with_source(Kind::Unavailable, format!("object `{}`: reading failed", object.key), error))
}

fn unreadable(detail: String) -> Rejection {
    Rejection::new("unreadable", detail)
}

/// Reads the records out of the objects and sends them in batches.
fn pump(source: &Source, io: &Handle, mut objects: mpsc::Receiver<Result<(usize, Fetched)>>, dealer: &mut Dealer) {
    let mut batch = Batch::default();
    while let Some(fetched) = objects.blocking_recv() {
        let read = fetched.and_then(|(index, fetched)| read_object(source, io, index, fetched, &mut batch, dealer));
        match read {
            Ok(ControlFlow::Continue(())) => {}
            // A receiver that is gone has stopped caring.
            Ok(ControlFlow::Break(())) => return,
            Err(error) => {
                let _ = dealer.deal(Err(error));
                return;
            }
        }
    }
    if batch.records > 0 {
        let _ = dealer.deal(batch.finish());
    }
}

fn read_object(
    source: &Source,
    io: &Handle,
    index: usize,
    fetched: Fetched,
    batch: &mut Batch,
    dealer: &mut Dealer,
) -> Result<ControlFlow<()>> {
    let object = &source.fresh[index];
    let mut refused = |fault| Ok(batch.push(object, RawRecord::fault(String::new(), object.size, fault), dealer));
    let mut input: Box<dyn Read> = match fetched {
        Fetched::Table(version) => return read_table(source, io, object, version, batch, dealer),
        Fetched::Fault(fault) => return refused(fault),
        Fetched::Whole(bytes) => Box::new(Cursor::new(bytes)),
        Fetched::Large => match io.block_on(open_object(source, index))? {
            Opened::Fault(fault) => return refused(fault),
            Opened::File(file) => Box::new(file),
            Opened::Stream(stream) => Box::new(Streamed { io: io.clone(), stream, chunk: Bytes::new() }),
        },
    };
    let mut flow = ControlFlow::Continue(());
    let settings = &source.settings;
    let reading = open::Reading { formats: &settings.formats, modality: settings.modality, max_record_bytes: settings.max_record.0 };
    let read = open::read(&object.key, &mut input, reading, &mut |record| {
        flow = batch.push(object, record, dealer);
        flow
    });
    match read {
        Ok(()) => Ok(flow),
        Err(error) if source.local => {
            let place = "#unreadable".to_owned();
            Ok(batch.push(object, RawRecord::fault(place, 0, unreadable(error.to_string())), dealer))
        }
        Err(error) => Err(Error::with_source(Kind::Unavailable, format!("object `{}`: reading failed", object.key), error)),
    }
}

fn read_table(
    source: &Source,
    io: &Handle,
    object: &Object,
    version: u64,
    batch: &mut Batch,
    dealer: &mut Dealer,
) -> Result<ControlFlow<()>> {
    let mut flow = ControlFlow::Continue(());
    lance::read(source, io, object, version, &mut |record| {
        flow = batch.push(object, record, dealer);
        flow
    })?;
    Ok(flow)
}

/// A stream of the store as a file to read, on a thread that may block.
struct Streamed {
    io: Handle,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    chunk: Bytes,
}

impl Read for Streamed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.io.block_on(self.stream.next()) {
                None => return Ok(0),
                Some(chunk) => self.chunk = chunk.map_err(io::Error::other)?,
            }
        }
        let count = self.chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

#[derive(Default)]
struct Batch {
    records: usize,
    content_bytes: usize,
    keys: StringBuilder,
    bytes: UInt64Builder,
    kinds: UInt8Builder,
    contents: LargeBinaryBuilder,
    charsets: StringBuilder,
    urls: StringBuilder,
    classes: StringBuilder,
    reasons: StringBuilder,
    details: StringBuilder,
}

impl Batch {
    /// Adds a record, and sends the batch if it is full then.
    fn push(&mut self, object: &Object, record: RawRecord, dealer: &mut Dealer) -> ControlFlow<()> {
        self.records += 1;
        let class = record.class.as_deref().or_else(|| class_of(&object.key, &record.place));
        self.classes.append_option(class);
        self.keys.append_value(format!("{}{}", object.key, record.place));
        self.bytes.append_value(record.bytes);
        self.urls.append_option(record.url);
        let (kind, content, charset) = match record.content {
            Ok(Content::Plain { bytes, charset }) => (kind::PLAIN, Ok(bytes), charset),
            Ok(Content::Html { bytes, charset }) => (kind::HTML, Ok(bytes), charset),
            Ok(Content::Text(text)) => (kind::TEXT, Ok(text.into_bytes().into()), None),
            Ok(Content::Image(bytes)) => (kind::IMAGE, Ok(bytes), None),
            Err(fault) => (kind::PLAIN, Err(fault), None),
        };
        self.kinds.append_value(kind);
        self.charsets.append_option(charset);
        self.content_bytes += content.as_ref().map_or(0, Bytes::len);
        self.reasons.append_option(content.as_ref().err().map(|fault| fault.reason.as_ref()));
        self.details.append_option(content.as_ref().err().map(|fault| fault.detail.as_str()));
        self.contents.append_option(content.ok());
        let is_full = self.records >= BATCH_RECORDS || self.content_bytes >= BATCH_BYTES;
        if is_full { dealer.deal(self.finish()) } else { ControlFlow::Continue(()) }
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        (self.records, self.content_bytes) = (0, 0);
        Ok(RecordBatch::try_new(
            schema(),
            vec![
                Arc::new(self.keys.finish()),
                Arc::new(self.bytes.finish()),
                Arc::new(self.kinds.finish()),
                Arc::new(self.contents.finish()),
                Arc::new(self.charsets.finish()),
                Arc::new(self.urls.finish()),
                Arc::new(self.classes.finish()),
                Arc::new(self.reasons.finish()),
                Arc::new(self.details.finish()),
            ],
        )?)
    }
}

/// The class of a picture: the name of the folder that holds the file or the archive's member.
fn class_of<'a>(key: &'a str, place: &'a str) -> Option<&'a str> {
    let path = if place.is_empty() { key } else { place.rsplit('#').next()? };
    let folder = path.rsplit_once('/')?.0;
    Some(folder.rsplit('/').next().unwrap_or(folder)).filter(|class| !class.is_empty() && *class != ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_the_folder_around_the_file() {
        for (key, place, class) in [
            ("cat/1.jpg", "", Some("cat")),
            ("a/b/dog/1.jpg", "", Some("dog")),
            ("x/train.tar", "#train/frog/0001.jpg", Some("frog")),
            ("x/train.tar", "#1.jpg", None),
            ("bird/no#1.jpg", "", Some("bird")),
            ("1.jpg", "", None),
            ("./1.jpg", "", None),
        ] {
            assert_eq!(class_of(key, place), class, "{key}{place}");
        }
    }
}
