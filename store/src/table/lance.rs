//! Lance tables: a version of a dataset is pinned to a version of the table.
//!
//! Lance appends never conflict with each other and are not idempotent, so two precautions are taken. What a crashed
//! writer appended after the parent is taken out first, by restoring the parent's version. And after the commit the rows
//! are counted: whoever got another writer's rows into the table has lost. Every commit goes through put-if-absent,
//! because Lance picks an unsafe way for schemes that it does not know.

mod plain;

use std::collections::HashMap;
use std::fs::File;
use std::hash::Hash;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, MutableArrayData, RecordBatch, RecordBatchOptions, make_array};
use arrow::datatypes::{DataType, Schema, SchemaRef, UInt64Type};
use arrow::error::ArrowError;
use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use forebay_schemas::dataset::{TableFormat, TableRef};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use lance::dataset::builder::DatasetBuilder;
use lance::dataset::fragment::{FileFragment, FragReadConfig, FragmentReader};
use lance::dataset::{Dataset, InsertBuilder, WriteMode, WriteParams};
use lance::io::{ObjectStore, ObjectStoreParams, ObjectStoreRegistry};
use lance::session::Session;
use lance_encoding::decoder::PageInfo;
use lance_io::object_store::ObjectStoreProvider;
use lance_io::object_store::providers::local::FileStoreProvider;
use lance_io::scheduler::{ScanScheduler, SchedulerConfig};
use lance_table::io::commit::ConditionalPutCommitHandler;
use url::Url;

use self::plain::Plain;
use super::select::{Predicate, push};
use super::{Direct, GAP_BYTES, RowRanges, Table, Tables, conform, items, named, project, ranges};
use crate::cause::from_lance;
use crate::error::{Error, Kind, Result};
use crate::location::Location;

const MAX_FILE_ROWS: usize = 1 << 20;
const MAX_FILE_BYTES: usize = 1 << 30;
const METADATA_CACHE_BYTES: usize = 256 << 20;
const INDEX_CACHE_BYTES: usize = 1 << 20;
const SCAN_BATCH_ROWS: usize = 512;
const SCAN_BATCHES_AHEAD: usize = 2;
const SCAN_BUFFER_BYTES: u64 = 64 << 20;
/// Fragments that one call reads or checks at a time.
const FRAGMENTS_IN_FLIGHT: usize = 8;
/// Open readers of fragments that are kept, and open columns that need none; each holds its file's metadata.
const READERS_KEPT: usize = 64;

/// Lance's name for the column of addresses: the fragment's id in the upper half, the row within it in the lower.
const ROW_ADDR: &str = "_rowaddr";

/// Lance tables below a location.
pub(super) struct LanceTables {
    location: Location,
    session: Arc<Session>,
}

impl LanceTables {
    pub(super) fn new(location: Location) -> Self {
        let registry = ObjectStoreRegistry::empty();
        match location.url().scheme() {
            // Lance reads local files without the detour through an object store.
            "file" => registry.insert("file", Arc::new(FileStoreProvider)),
            scheme => registry.insert(scheme, Arc::new(Provider { store: location.object_store().clone() })),
        }
        let session = Arc::new(Session::new(INDEX_CACHE_BYTES, METADATA_CACHE_BYTES, Arc::new(registry)));
        Self { location, session }
    }

    async fn load(&self, path: &str, version: Option<u64>) -> lance::Result<Dataset> {
        let mut builder = DatasetBuilder::from_uri(self.uri(path))
            .with_session(self.session.clone())
            .with_commit_handler(Arc::new(ConditionalPutCommitHandler));
        if let Some(version) = version {
            builder = builder.with_version(version);
        }
        builder.load().await
    }

    /// The table's latest version, if there is one.
    async fn latest(&self, path: &str) -> Result<Option<Dataset>> {
        match self.load(path, None).await.map_err(|error| from_lance(&named(&self.location, path), error)) {
            Ok(dataset) => Ok(Some(dataset)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The table at the version of `parent`, as its latest version.
    async fn at_parent(&self, parent: &TableRef) -> Result<Dataset> {
        let name = named(&self.location, &parent.path);
        let version = pinned(&name, parent)?;
        let gone = || Error::new(Kind::Corrupt, format!("{name}: version {version} is missing"));
        let latest = self.latest(&parent.path).await?.ok_or_else(gone)?;
        if latest.version_id() == version {
            return Ok(latest);
        }
        let mut dataset = match latest.checkout_version(version).await.map_err(|error| from_lance(&name, error)) {
            Ok(dataset) => dataset,
            Err(error) if error.kind() == Kind::NotFound => return Err(gone()),
            Err(error) => return Err(error),
        };
        tracing::info!(table = name, version, latest = latest.version_id(), "restoring the version that the parent names");
        dataset.restore().await.map_err(|error| from_lance(&name, error))?;
        Ok(dataset)
    }

    /// Refuses a table of which a data file is missing or not of the size that it was written with.
    async fn check_sizes(&self, table: &LanceTable) -> Result<()> {
        let files = table.fragments.iter().flat_map(|fragment| &fragment.metadata().files);
        let checks: Vec<_> = files
            .map(|file| async move {
                let path = format!("{}/data/{}", table.path, file.path);
                let expected = file.file_size_bytes.get().map(u64::from);
                match (self.location.head(&path).await?, expected) {
                    (Some(meta), Some(expected)) if meta.size != expected => {
                        Err(self.location.corrupt(&path, format!("has {} bytes, expected {expected}", meta.size)))
                    }
                    (Some(_), _) => Ok(()),
                    (None, _) => Err(self.location.corrupt(&path, "is missing, expected a data file of a table")),
                }
            })
            .collect();
        futures::stream::iter(checks).buffer_unordered(FRAGMENTS_IN_FLIGHT).try_collect().await
    }

    fn params(&self, mode: WriteMode) -> WriteParams {
        WriteParams {
            mode,
            max_rows_per_file: MAX_FILE_ROWS,
            max_bytes_per_file: MAX_FILE_BYTES,
            session: Some(self.session.clone()),
            commit_handler: Some(Arc::new(ConditionalPutCommitHandler)),
            skip_auto_cleanup: true,
            ..WriteParams::default()
        }
    }

    /// The table's URI for Lance: the path is that in the store, which for some schemes is not the path of our URL.
    fn uri(&self, path: &str) -> String {
        let mut url = self.location.url_of(path);
        if url.scheme() != "file"
            && let Ok(mut segments) = url.path_segments_mut()
        {
            segments.clear().extend(self.location.path(path).as_ref().split('/'));
        }
        url.into()
    }
}

/// Opens a version of a Lance table that another program wrote.
pub(super) async fn open(location: &Location, version: u64) -> Result<Arc<dyn Table>> {
    let tables = LanceTables::new(location.clone());
    let name = named(location, "");
    let failed = |error| from_lance(&name, error);
    let dataset = tables.load("", Some(version)).await.map_err(failed)?;
    let rows = dataset.count_rows(None).await.map_err(failed)? as u64;
    Ok(Arc::new(LanceTable::new((location, ""), name, dataset, rows)?))
}

#[async_trait]
impl Tables for LanceTables {
    async fn write(
        &self,
        path: &str,
        parent: Option<&TableRef>,
        schema: SchemaRef,
        rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> Result<TableRef> {
        let path = parent.map_or(path, |parent| parent.path.as_str());
        let name = named(&self.location, path);
        let (base, mode) = match parent {
            Some(parent) => (Some(self.at_parent(parent).await?), WriteMode::Append),
            // A table that no manifest names may lie there; its place is taken by a new version.
            None => match self.latest(path).await? {
                Some(latest) => (Some(latest), WriteMode::Overwrite),
                None => (None, WriteMode::Create),
            },
        };
        let schema = items::marked(&schema);
        let source = Source::default();
        let (params, uri) = (self.params(mode), self.uri(path));
        let builder = match base {
            Some(dataset) => InsertBuilder::new(Arc::new(dataset)),
            None => InsertBuilder::new(uri.as_str()),
        };
        let written = builder.with_params(&params).execute_stream(source.stream(schema, rows)).await;
        if let Some(error) = source.failure() {
            return Err(error);
        }
        let dataset = written.map_err(|error| from_lance(&name, error))?;
        let expected = parent.map_or(0, |parent| parent.rows) + source.rows();
        let found = dataset.count_rows(None).await.map_err(|error| from_lance(&name, error))? as u64;
        if found != expected {
            return Err(Error::new(
                Kind::Conflict,
                format!("{name}: has {found} rows, expected {expected}: another writer wrote to it at the same time"),
            ));
        }
        let lance_version = Some(dataset.version_id());
        let (files, parts) = (Vec::new(), Vec::new());
        Ok(TableRef { format: TableFormat::Lance, path: path.to_owned(), lance_version, files, rows: found, parts, deleted: None })
    }

    async fn open(&self, table: &TableRef) -> Result<Arc<dyn Table>> {
        let name = named(&self.location, &table.path);
        let version = pinned(&name, table)?;
        let dataset = self.load(&table.path, Some(version)).await.map_err(|error| match from_lance(&name, error) {
            error if error.kind() == Kind::NotFound => {
                Error::new(Kind::Corrupt, format!("{name}: version {version} is missing, expected {} rows in it", table.rows))
            }
            error => error,
        })?;
        let table = LanceTable::new((&self.location, &table.path), name, dataset, table.rows)?;
        self.check_sizes(&table).await?;
        Ok(Arc::new(table))
    }
}

/// The rows at the addresses of a batch; `starts` has the first row of each fragment.
fn addressed(name: &str, starts: &HashMap<u64, u64>, batch: &RecordBatch) -> Result<RowRanges> {
    let bad = || Error::new(Kind::Internal, format!("{name}: a filter gave no addresses of rows"));
    let addresses = batch.column_by_name(ROW_ADDR).and_then(|column| column.as_primitive_opt::<UInt64Type>()).ok_or_else(bad)?;
    let mut ranges = RowRanges::new();
    for address in addresses.values() {
        let start = starts.get(&(address >> 32)).ok_or_else(bad)?;
        push(&mut ranges, start + (address & u64::from(u32::MAX)));
    }
    Ok(ranges)
}

fn pinned(name: &str, table: &TableRef) -> Result<u64> {
    if table.format != TableFormat::Lance {
        return Err(Error::new(Kind::Invalid, format!("{name}: is {:?}, expected a Lance table", table.format)));
    }
    table.lance_version.ok_or_else(|| Error::new(Kind::Corrupt, format!("{name}: its manifest names no Lance version")))
}

/// Counts the rows that Lance takes, and keeps the error that ended them, of which Lance would keep only the text.
#[derive(Default)]
struct Source {
    rows: Arc<AtomicU64>,
    failure: Arc<Mutex<Option<Error>>>,
}

impl Source {
    fn stream(&self, schema: SchemaRef, rows: BoxStream<'static, Result<RecordBatch>>) -> SendableRecordBatchStream {
        let (count, failure, marked) = (self.rows.clone(), self.failure.clone(), schema.clone());
        let stream = rows.map(move |batch| match batch {
            Ok(batch) => {
                count.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                Ok(batch.with_schema(marked.clone())?)
            }
            Err(error) => {
                let text = error.to_string();
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(DataFusionError::Execution(text))
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, stream))
    }

    fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    fn failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Gives Lance the store that we opened, whatever the URL.
#[derive(Debug)]
struct Provider {
    store: Arc<dyn object_store::ObjectStore>,
}

#[async_trait]
impl ObjectStoreProvider for Provider {
    async fn new_store(&self, url: Url, params: &ObjectStoreParams) -> lance::Result<ObjectStore> {
        const IN_FLIGHT: usize = 32;
        const DOWNLOAD_RETRIES: usize = 3;
        let ordered = matches!(url.scheme(), "s3" | "memory");
        // So much is read of the end of a file that is opened, too.
        let gap = params.block_size.unwrap_or(GAP_BYTES as usize);
        Ok(ObjectStore::new(self.store.clone(), url, Some(gap), None, false, ordered, IN_FLIGHT, DOWNLOAD_RETRIES, None))
    }
}

/// A fragment and the columns read of it.
type ReaderKey = (usize, Vec<String>);

/// A fragment and one of its columns.
type ColumnKey = (usize, String);

/// An open Lance table.
struct LanceTable {
    path: String,
    name: String,
    dataset: Dataset,
    schema: SchemaRef,
    fragments: Vec<FileFragment>,
    /// First row of every fragment, then the number of rows.
    starts: Vec<u64>,
    readers: Mutex<HashMap<ReaderKey, Arc<FragmentReader>>>,
    /// Columns of fragments whose rows need no decoding; none for those that do.
    plain: Mutex<HashMap<ColumnKey, Option<Arc<Plain>>>>,
    /// Its folder of data, if it is on a local disk.
    folder: Option<PathBuf>,
}

impl LanceTable {
    fn new((location, path): (&Location, &str), name: String, dataset: Dataset, rows: u64) -> Result<Self> {
        let fragments = dataset.get_fragments();
        let mut starts = vec![0];
        for fragment in &fragments {
            let rows = fragment.fast_logical_rows().map_err(|error| from_lance(&name, error))? as u64;
            starts.push(starts[starts.len() - 1] + rows);
        }
        let found = starts[starts.len() - 1];
        if found != rows {
            return Err(Error::new(Kind::Corrupt, format!("{name}: version {} has {found} rows, expected {rows}", dataset.version_id())));
        }
        let schema = items::unmarked(&Schema::from(dataset.schema()));
        let folder = location.url_of(&format!("{path}/data")).to_file_path().ok();
        let (readers, plain) = (Mutex::default(), Mutex::default());
        Ok(Self { path: path.to_owned(), name, dataset, schema, fragments, starts, readers, plain, folder })
    }

    async fn read_part(&self, part: &ranges::Part, columns: &[&str]) -> Result<Vec<RecordBatch>> {
        let read = async {
            let reader = self.reader(part.index, columns).await?;
            // One batch, if Lance can: the ranges of a read are few.
            let batches = reader.read_ranges(part.ranges.as_slice().into(), u32::MAX).await?;
            batches.buffered(2).try_collect().await
        };
        read.await.map_err(|error| from_lance(&self.name, error))
    }

    async fn reader(&self, fragment: usize, columns: &[&str]) -> lance::Result<Arc<FragmentReader>> {
        let key = (fragment, columns.iter().map(|column| (*column).to_owned()).collect());
        if let Some(reader) = kept(&self.readers, &key) {
            return Ok(reader);
        }
        let projection = self.dataset.schema().project(columns)?;
        let reader = Arc::new(self.fragments[fragment].open(&projection, FragReadConfig::default()).await?);
        keep(&self.readers, key, reader.clone());
        Ok(reader)
    }

    /// A column of a fragment, if its rows need no decoding.
    async fn plain(&self, fragment: usize, column: &str) -> Result<Option<Arc<Plain>>> {
        let key = (fragment, column.to_owned());
        if let Some(plain) = kept(&self.plain, &key) {
            return Ok(plain);
        }
        let plain = self.plain_column(&self.fragments[fragment], column).await.map_err(|error| from_lance(&self.name, error))?;
        let plain = plain.map(Arc::new);
        keep(&self.plain, key, plain.clone());
        Ok(plain)
    }

    /// A column of a fragment, if it is in a local file and needs no decoding.
    async fn plain_column(&self, fragment: &FileFragment, column: &str) -> lance::Result<Option<Plain>> {
        // Where Lance deleted rows, it alone knows which are left.
        let Some(folder) = self.folder.as_ref().filter(|_| fragment.metadata().deletion_file.is_none()) else { return Ok(None) };
        let kind = self.schema.field_with_name(column).ok().map(|field| field.data_type());
        let Some(kind @ DataType::FixedSizeList(_, _)) = kind else { return Ok(None) };
        let Some(id) = self.dataset.schema().field(column).map(|field| field.id) else { return Ok(None) };
        let Some(data) = fragment.data_file_for_field(id as u32).filter(|data| data.base_id.is_none()) else { return Ok(None) };
        let index = data.fields.iter().position(|field| *field == id).and_then(|place| data.column_indices.get(place));
        let Some(index) = index.and_then(|index| usize::try_from(*index).ok()) else { return Ok(None) };
        let Ok(file) = File::open(folder.join(&data.path)) else { return Ok(None) };

        let store = self.dataset.object_store(None).await?;
        let scheduler = ScanScheduler::new(store.clone(), SchedulerConfig::max_bandwidth(&store));
        let file_of = scheduler.open_file(&self.dataset.data_dir().join(data.path.as_str()), &data.file_size_bytes).await?;
        let metadata = fragment.get_file_metadata(&file_of).await?;
        let pages: Option<&[PageInfo]> = metadata.column_infos.get(index).map(|column| column.page_infos.as_ref());
        let rows = |pages: &&[PageInfo]| pages.iter().map(|page| page.num_rows).sum::<u64>() == metadata.num_rows;
        Ok(pages.filter(rows).and_then(|pages| Plain::new(file, kind, pages)))
    }
}

/// The same rows without room for others, which whoever keeps them would keep: Lance lets buffers grow by doubling. It decodes a
/// list in chunks, and where many ranges are read it gives lists of a few kilobytes with room for megabytes, in parts of one
/// buffer, which must be copied.
fn trimmed(rows: RecordBatch) -> std::result::Result<RecordBatch, ArrowError> {
    const ROOM: usize = 64 << 10;
    let trim = |mut column: ArrayRef| {
        column.shrink_to_fit();
        let data = column.to_data();
        let used = data.get_slice_memory_size().unwrap_or(usize::MAX / 2);
        if column.get_array_memory_size() <= 2 * used + ROOM {
            return column;
        }
        let mut copy = MutableArrayData::new(vec![&data], false, data.len());
        copy.extend(0, 0, data.len());
        make_array(copy.freeze())
    };
    let (schema, columns, count) = rows.into_parts();
    let columns: Vec<ArrayRef> = columns.into_iter().map(trim).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(schema, columns, &options)
}

/// What is kept under a key.
fn kept<K: Eq + Hash, V: Clone>(of: &Mutex<HashMap<K, V>>, key: &K) -> Option<V> {
    of.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
}

/// Keeps it, and no more than [`READERS_KEPT`].
fn keep<K: Eq + Hash, V>(of: &Mutex<HashMap<K, V>>, key: K, value: V) {
    let mut all = of.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() >= READERS_KEPT {
        all.clear();
    }
    all.insert(key, value);
}

#[async_trait]
impl Table for LanceTable {
    fn rows(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    async fn read(&self, ranges: &[Range<u64>], columns: &[&str]) -> Result<RecordBatch> {
        let schema = project(&self.name, &self.schema, columns)?;
        let plan = ranges::plan(&self.name, &self.starts, ranges)?;
        let reads: Vec<_> = plan.parts.iter().map(|part| self.read_part(part, columns)).collect();
        let read: Vec<_> = futures::stream::iter(reads).buffered(FRAGMENTS_IN_FLIGHT).try_collect().await?;
        let rows = plan.assemble(&self.name, &schema, &read)?;
        // What is shared cannot give room back.
        drop(read);
        trimmed(rows).map_err(|error| Error::new(Kind::Internal, format!("{}: rows that were read: {error}", self.name)))
    }

    async fn direct(&self, rows: &[u64], column: &str) -> Result<Option<Direct>> {
        let (mut left, mut direct) = (rows, None);
        while let Some(first) = left.first() {
            let fragment = self.starts.partition_point(|start| start <= first) - 1;
            let Some(start) = self.starts.get(fragment).filter(|_| fragment < self.fragments.len()) else { return Ok(None) };
            let Some(plain) = self.plain(fragment, column).await? else { return Ok(None) };
            let (within, rest) = left.split_at(left.partition_point(|row| *row < self.starts[fragment + 1]));
            let direct = direct.get_or_insert_with(|| Direct::new(&self.name, plain.width()));
            if !plain.locate(within.iter().map(|row| row - start), direct) {
                return Ok(None);
            }
            left = rest;
        }
        Ok(direct)
    }

    async fn select(&self, predicate: &str) -> Result<BoxStream<'static, Result<RowRanges>>> {
        let predicate = Predicate::parse(&self.name, &self.schema, predicate)?;
        // Addresses count the rows that Lance deleted, of which a table of ours has none.
        if self.fragments.iter().any(|fragment| fragment.metadata().deletion_file.is_some()) {
            return predicate.scan(self).await;
        }
        let failed = |error| from_lance(&self.name, error);
        let mut scanner = self.dataset.scan();
        scanner.empty_project().map_err(failed)?;
        scanner.filter_expr(predicate.expression).with_row_address().scan_in_order(true).io_buffer_size(SCAN_BUFFER_BYTES);
        let found = scanner.try_into_stream().await.map_err(failed)?;
        let starts: HashMap<u64, u64> =
            self.fragments.iter().map(|fragment| fragment.id() as u64).zip(self.starts.iter().copied()).collect();
        let name = self.name.clone();
        Ok(found.map(move |batch| addressed(&name, &starts, &batch.map_err(|error| from_lance(&name, error))?)).boxed())
    }

    async fn scan(&self, columns: &[&str]) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let schema = project(&self.name, &self.schema, columns)?;
        let failed = |error| from_lance(&self.name, error);
        let mut scanner = self.dataset.scan();
        scanner.project(columns).map_err(failed)?;
        scanner.scan_in_order(true).batch_size(SCAN_BATCH_ROWS).batch_readahead(SCAN_BATCHES_AHEAD).io_buffer_size(SCAN_BUFFER_BYTES);
        let rows = scanner.try_into_stream().await.map_err(failed)?;
        let name = self.name.clone();
        Ok(rows.map(move |batch| conform(&name, &schema, &batch.map_err(|error| from_lance(&name, error))?)).boxed())
    }
}
