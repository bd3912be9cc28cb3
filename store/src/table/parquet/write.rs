//! Rows into Parquet files, streamed to the store as row groups are done.
//!
//! Memory is bounded by a row group and the parts under way. Encoding runs on the blocking pool. A file that is not
//! finished is not there: the upload is given up.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use bytes::Bytes;
use forebay_schemas::Digest;
use forebay_schemas::dataset::{FileRef, ObjectRef};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::{ObjectStoreExt, WriteMultipart};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::cause::from_parquet;
use crate::commit::unique;
use crate::error::{Error, Kind, Result};
use crate::location::Location;

const FILE_BYTES: u64 = 128 << 20;
const GROUP_BYTES: usize = 16 << 20;
const PAGE_BYTES: usize = 256 << 10;
/// Rows are given to the encoder in slices of about this size, so that a row group can be closed in time.
const SLICE_BYTES: usize = 4 << 20;
const PART_BYTES: usize = 8 << 20;
const PARTS_IN_FLIGHT: usize = 4;

/// Writes `rows` below the folder `path`; without rows an empty file if `at_least_one`, which carries the schema.
pub(super) async fn files(
    location: &Location,
    path: &str,
    schema: SchemaRef,
    mut rows: BoxStream<'static, Result<RecordBatch>>,
    at_least_one: bool,
) -> Result<Vec<FileRef>> {
    let prefix = format!("{}/{}", path.trim_end_matches('/'), unique());
    let mut files = Vec::new();
    let mut open: Option<File> = None;
    loop {
        let batch = match rows.try_next().await {
            Ok(batch) => batch,
            Err(error) => {
                give_up(open).await;
                return Err(error);
            }
        };
        let last = batch.is_none();
        for slice in batch.iter().flat_map(slices) {
            let file = match open.take() {
                Some(file) => file,
                None => File::create(location, format!("{prefix}-{:05}.parquet", files.len()), &schema).await?,
            };
            let file = file.write(slice).await?;
            match file.bytes >= FILE_BYTES {
                true => files.push(file.finish().await?),
                false => open = Some(file),
            }
        }
        if last {
            break;
        }
    }
    if open.is_none() && files.is_empty() && at_least_one {
        open = Some(File::create(location, format!("{prefix}-00000.parquet"), &schema).await?);
    }
    if let Some(file) = open {
        files.push(file.finish().await?);
    }
    Ok(files)
}

async fn give_up(open: Option<File>) {
    if let Some(file) = open {
        let _ = file.upload.abort().await;
    }
}

fn slices(batch: &RecordBatch) -> Vec<RecordBatch> {
    let row_bytes = batch.get_array_memory_size() / batch.num_rows().max(1) + 1;
    let rows = (SLICE_BYTES / row_bytes).clamp(1, batch.num_rows().max(1));
    (0..batch.num_rows()).step_by(rows).map(|at| batch.slice(at, rows.min(batch.num_rows() - at))).collect()
}

/// A file being written.
struct File {
    location: Location,
    path: String,
    encoder: Encoder,
    upload: WriteMultipart,
    bytes: u64,
    rows: u64,
}

/// The part of it that computes.
struct Encoder {
    writer: ArrowWriter<Vec<u8>>,
    hasher: blake3::Hasher,
}

impl File {
    async fn create(location: &Location, path: String, schema: &SchemaRef) -> Result<Self> {
        let failed = |error| from_parquet(&location.named(&path), error);
        let properties = properties(schema).map_err(failed)?;
        let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).map_err(failed)?;
        let upload = location.object_store().put_multipart(&location.path(&path)).await.map_err(|error| location.failed(&path, error))?;
        let upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let encoder = Encoder { writer, hasher: blake3::Hasher::new() };
        Ok(Self { location: location.clone(), path, encoder, upload, bytes: 0, rows: 0 })
    }

    async fn write(self, batch: RecordBatch) -> Result<Self> {
        let Self { location, path, mut encoder, mut upload, bytes, rows } = self;
        let more = batch.num_rows() as u64;
        let encoded = blocking(move || {
            let written = encoder.write(&batch);
            (encoder, written)
        });
        let (encoder, encoded) = match encoded.await {
            Ok((encoder, Ok(encoded))) => (encoder, encoded),
            Ok((_, Err(error))) => {
                let _ = upload.abort().await;
                return Err(from_parquet(&location.named(&path), error));
            }
            Err(error) => {
                let _ = upload.abort().await;
                return Err(error);
            }
        };
        let bytes = bytes + encoded.len() as u64;
        if let Err(error) = upload.wait_for_capacity(PARTS_IN_FLIGHT).await {
            let _ = upload.abort().await;
            return Err(location.failed(&path, error));
        }
        upload.put(encoded);
        Ok(Self { location, path, encoder, upload, bytes, rows: rows + more })
    }

    async fn finish(self) -> Result<FileRef> {
        let Self { location, path, encoder, mut upload, bytes, rows } = self;
        let finished = blocking(move || encoder.finish()).await?;
        let (footer, digest) = match finished {
            Ok(finished) => finished,
            Err(error) => {
                let _ = upload.abort().await;
                return Err(from_parquet(&location.named(&path), error));
            }
        };
        let bytes = bytes + footer.len() as u64;
        upload.put(footer);
        // This aborts by itself where it fails.
        upload.finish().await.map_err(|error| location.failed(&path, error))?;
        Ok(FileRef { object: ObjectRef { path, bytes, digest }, rows })
    }
}

impl Encoder {
    /// Encodes rows; gives the bytes that are ready to be stored.
    fn write(&mut self, batch: &RecordBatch) -> parquet::errors::Result<Bytes> {
        self.writer.write(batch)?;
        if self.writer.in_progress_size() >= GROUP_BYTES {
            self.writer.flush()?;
        }
        Ok(self.drain())
    }

    fn finish(mut self) -> parquet::errors::Result<(Bytes, Digest)> {
        self.writer.finish()?;
        let footer = self.drain();
        Ok((footer, Digest::from_bytes(*self.hasher.finalize().as_bytes())))
    }

    fn drain(&mut self) -> Bytes {
        let bytes = std::mem::take(self.writer.inner_mut());
        self.hasher.update(&bytes);
        bytes.into()
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| Error::new(Kind::Internal, format!("encoding Parquet ended early: {error}")))
}

/// How many rows a row group and a page have at most.
struct Rows {
    group: usize,
    page: usize,
}

impl Rows {
    /// Samples are read a few at a time from anywhere, so little must be fetched and decoded for one; rows without contents,
    /// as those of a ledger, are read one after the other.
    fn of(schema: &Schema) -> Self {
        let is_content = |kind: &DataType| {
            use DataType::{FixedSizeList, LargeBinary, LargeList, LargeUtf8, List};
            matches!(kind, LargeBinary | LargeUtf8 | FixedSizeList(..) | List(_) | LargeList(_))
        };
        match schema.fields().iter().any(|field| is_content(field.data_type())) {
            true => Self { group: 1024, page: 64 },
            false => Self { group: 128 << 10, page: 20_000 },
        }
    }
}

fn properties(schema: &Schema) -> parquet::errors::Result<WriterProperties> {
    use DataType::{Binary, FixedSizeBinary, FixedSizeList, LargeBinary, LargeList, List};
    // Page limits are looked at once a batch of values, which for large values has to be small.
    let values = if schema.fields().iter().any(|field| *field.data_type() == LargeBinary) { 16 } else { 1024 };
    let rows = Rows::of(schema);
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("forebay ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_max_row_group_row_count(Some(rows.group))
        .set_data_page_row_count_limit(rows.page)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_write_batch_size(values)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None);
    let descriptor = ArrowSchemaConverter::new().convert(schema)?;
    for (leaf, column) in descriptor.columns().iter().enumerate() {
        let kind = schema.field(descriptor.get_column_root_idx(leaf)).data_type();
        let compression = match kind {
            // Compressed already, or random.
            LargeBinary | Binary | FixedSizeBinary(_) => Compression::UNCOMPRESSED,
            // Tokens: decoded for every sample, so the fastest.
            FixedSizeList(..) | List(_) | LargeList(_) => Compression::LZ4_RAW,
            _ => Compression::ZSTD(ZstdLevel::try_new(1)?),
        };
        properties = properties.set_column_compression(column.path().clone(), compression);
    }
    Ok(properties.build())
}
