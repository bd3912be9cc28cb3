//! Rows from storage or the cache: planned into reads, read many at a time, tried again, and found again.
//!
//! Without a cache the rows of a group are read as they are wanted, in reads of about a MiB ([`ranges`]). With one the
//! unit is the block: whole blocks are read, kept, and shared. Token rows of a local file go straight into their batches
//! ([`straight`]). All others go through one function, which asks a second time where the first answer is slow, and again where it
//! failed ([`policy`]), and compares the rows with their checks ([`read`]).
//! Promises: a read with another number of rows than asked for is an error; each row of a group is in memory once.
//! Deliberately absent: which rows belong together in a group (`prefetch`), and any copy in memory that outlives its group.

mod policy;
mod ranges;
mod read;
mod straight;
mod streaming;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use forebay_schemas::run::Loading;
use forebay_store::Table;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, TryStreamExt};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::plan::{Block, Draw, Plan};
use crate::stall::Meter;
use policy::Latencies;
pub(crate) use ranges::Ranges;
use read::Rows;
pub(crate) use straight::Straight;

/// About what one read takes.
const READ_BYTES: u64 = 1 << 20;

/// Where reading is done, and what is told of it.
pub(crate) struct Host {
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) meter: Arc<Meter>,
}

/// Where rows come from, and what is read of them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fetch {
    inner: Arc<Inner>,
    /// One permit a read under way.
    reads: Arc<Semaphore>,
}

struct Inner {
    tables: Vec<Arc<dyn Table>>,
    plan: Plan,
    split: String,
    columns: &'static [&'static str],
    cache: Option<Cache>,
    machine: Arc<dyn Machine>,
    meter: Arc<Meter>,
    settings: Loading,
    latencies: Mutex<Latencies>,
    /// By source: whether its rows were found not to be read straight into batches.
    is_indirect: Vec<AtomicBool>,
}

/// Rows that are wanted together.
pub(crate) struct Demand<'a> {
    pub(crate) draws: &'a [Draw],
    /// About what a row takes.
    pub(crate) row_bytes: u64,
    /// The steps whose rows these are.
    pub(crate) steps: Range<u64>,
}

/// Rows of a group in memory.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// By source and row.
    pieces: Vec<Piece>,
    /// Source and row of those that are not what was written, however often they were read.
    pub(crate) unfit: BTreeSet<(u32, u64)>,
    /// Rows that came from storage.
    pub(crate) read_rows: u64,
}

/// Rows of one source.
#[derive(Debug)]
struct Piece {
    source: u32,
    ranges: Ranges,
    rows: RecordBatch,
    /// Rows of the table that are not what was written.
    unfit: Vec<u64>,
    stored: bool,
}

impl Fetch {
    pub(crate) fn new(
        tables: Vec<Arc<dyn Table>>,
        plan: Plan,
        split: &str,
        columns: &'static [&'static str],
        cache: Option<Cache>,
        host: Host,
        settings: &Loading,
    ) -> Self {
        let is_indirect = tables.iter().map(|_| AtomicBool::default()).collect();
        let inner = Inner {
            tables,
            plan,
            split: split.to_owned(),
            columns,
            cache,
            machine: host.machine,
            meter: host.meter,
            settings: settings.clone(),
            latencies: Mutex::default(),
            is_indirect,
        };
        Self { inner: Arc::new(inner), reads: Arc::new(Semaphore::new(settings.reads.max(1) as usize)) }
    }

    /// What is left of a bound for rows, and this with no more reads at a time than the rest is for: what a read gets is there as it
    /// came, unpacked, and put together, until it is done.
    pub(crate) fn within(self, bound: u64) -> (Self, u64) {
        const BESIDE_BYTES: u64 = 2 * READ_BYTES;
        let reads = (bound / 4 / BESIDE_BYTES).clamp(1, self.inner.settings.reads.max(1).into());
        let reads_bytes = (reads * BESIDE_BYTES).min(bound / 4);
        (Self { reads: Arc::new(Semaphore::new(reads as usize)), ..self }, bound - reads_bytes)
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>> {
        self.reads.acquire().await.map_err(|_| Error::Internal("the reads of a loader were closed".to_owned()))
    }

    pub(crate) fn split(&self) -> &str {
        &self.inner.split
    }

    /// The same without a cache.
    pub(crate) fn uncached(&self) -> Self {
        let Inner { tables, plan, split, columns, machine, settings, meter, .. } = self.inner.as_ref();
        Self::new(
            tables.clone(),
            plan.clone(),
            split,
            columns,
            None,
            Host { machine: Arc::clone(machine), meter: Arc::clone(meter) },
            settings,
        )
    }

    /// Rows of the first table.
    pub(crate) fn stored_rows(&self) -> u64 {
        self.inner.tables.first().map_or(0, |table| table.rows())
    }

    /// About what the rows of these draws take in memory while they are fetched.
    pub(crate) fn bytes(&self, draws: &[Draw], row_bytes: u64) -> u64 {
        let rows = match &self.inner.cache {
            None => draws.len() as u64,
            Some(_) => self.blocks(draws).keys().map(|block| self.inner.rows_of(*block)).sum(),
        };
        rows * row_bytes
    }

    /// Fetches the rows that are wanted.
    pub(crate) async fn group(&self, demand: &Demand<'_>) -> Result<Fetched> {
        let (inner, Demand { draws, row_bytes, steps }) = (&self.inner, demand);
        let _read = inner.meter.read();
        let reads: Vec<BoxFuture<'_, Result<Piece>>> = match &inner.cache {
            None => self
                .reads(draws, *row_bytes)
                .into_iter()
                .map(|(source, ranges)| self.permitted(inner.piece(source, ranges)).boxed())
                .collect(),
            Some(cache) => self
                .blocks(draws)
                .into_iter()
                .map(|(block, wanted)| self.permitted(inner.block(cache, block, wanted, steps)).boxed())
                .collect(),
        };
        let mut pieces: Vec<Piece> = reads.into_iter().collect::<FuturesUnordered<_>>().try_collect().await?;
        pieces.sort_unstable_by_key(|piece| (piece.source, piece.ranges.end()));
        let read_rows = pieces.iter().filter(|piece| piece.stored).map(|piece| piece.rows.num_rows() as u64).sum();
        let unfit = pieces.iter().flat_map(|piece| piece.unfit.iter().map(|row| (piece.source, *row))).collect();
        Ok(Fetched { pieces, unfit, read_rows })
    }

    async fn permitted<T>(&self, read: impl Future<Output = Result<T>>) -> Result<T> {
        let _permit = self.permit().await?;
        read.await
    }

    /// The reads for these draws.
    fn reads(&self, draws: &[Draw], row_bytes: u64) -> Vec<(u32, Ranges)> {
        let mut rows: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for draw in draws {
            rows.entry(draw.source).or_default().push(draw.row);
        }
        let most = READ_BYTES / row_bytes.max(1);
        rows.into_iter()
            .flat_map(|(source, rows)| Ranges::covering(rows, row_bytes).parts(most).into_iter().map(move |part| (source, part)))
            .collect()
    }

    /// The blocks of these draws, and the places in each that are wanted.
    fn blocks(&self, draws: &[Draw]) -> BTreeMap<Block, BTreeSet<u64>> {
        let mut blocks: BTreeMap<Block, BTreeSet<u64>> = BTreeMap::new();
        for draw in draws {
            blocks.entry(self.inner.plan.block_of(draw)).or_default().insert(draw.place);
        }
        blocks
    }

    /// What reading does.
    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.inner.meter
    }

    /// Reads that were asked for twice.
    pub(crate) fn hedges(&self) -> u64 {
        self.inner.latencies().hedges()
    }
}

impl Inner {
    /// A block's wanted rows, from the cache or from storage.
    async fn block(&self, cache: &Cache, block: Block, wanted: BTreeSet<u64>, steps: &Range<u64>) -> Result<Piece> {
        let places = self.plan.places(block);
        let all = || Ranges::exactly(places.clone().map(|place| self.plan.row(block.source, place)).collect());
        let (rows, unfit, stored) = match cache.get(block, places.end - places.start, steps).await {
            Some(rows) => (rows, Vec::new(), false),
            None => {
                // Another replica of the host may be reading it just now.
                let _claim = cache.claim(block).await;
                match cache.get(block, places.end - places.start, steps).await {
                    Some(rows) => (rows, Vec::new(), false),
                    None => {
                        let ranges = all();
                        let rows = self.persistent(block.source, &ranges).await?;
                        // What is in a cache counts as sound.
                        if rows.unfit.is_empty() {
                            cache.put(block, &rows.batch, steps).await;
                        }
                        let unfit = rows.unfit.iter().filter_map(|place| ranges.row(*place as u64)).collect();
                        (rows.batch, unfit, true)
                    }
                }
            }
        };
        let ranges = Ranges::exactly(wanted.iter().map(|place| self.plan.row(block.source, *place)).collect());
        // A copy of few rows is cheaper than to hold a block for them.
        let few: UInt32Array = wanted.iter().map(|place| (place - places.start) as u32).collect();
        let rows = if few.len() == rows.num_rows() { Ok(rows) } else { take_record_batch(&rows, &few) };
        let rows = rows.map_err(|error| Error::Internal(format!("split `{}`: rows of a block cannot be taken: {error}", self.split)))?;
        Ok(Piece { source: block.source, ranges, rows, unfit, stored })
    }

    fn rows_of(&self, block: Block) -> u64 {
        let places = self.plan.places(block);
        places.end - places.start
    }

    /// Rows as they are stored.
    async fn piece(&self, source: u32, ranges: Ranges) -> Result<Piece> {
        let Rows { batch: rows, unfit } = self.persistent(source, &ranges).await?;
        let unfit = unfit.iter().filter_map(|place| ranges.row(*place as u64)).collect();
        Ok(Piece { source, ranges, rows, unfit, stored: true })
    }
}

/// How many rows these draws are of.
pub(crate) fn distinct(draws: &[Draw]) -> u64 {
    let mut rows: Vec<(u32, u64)> = draws.iter().map(|draw| (draw.source, draw.row)).collect();
    rows.sort_unstable();
    rows.dedup();
    rows.len() as u64
}

impl Fetched {
    /// Where the rows of these draws are: which piece, and where in it.
    pub(crate) fn places(&self, draws: &[Draw]) -> Result<Vec<(u32, u32)>> {
        let missing =
            |draw: &Draw| Error::Internal(format!("source {}, row {}: found nothing of it in what was read", draw.source, draw.row));
        draws.iter().map(|draw| self.place(draw).ok_or_else(|| missing(draw))).collect()
    }

    /// Where the row of a draw is: which piece, and where in it; none if it was not asked for.
    fn place(&self, draw: &Draw) -> Option<(u32, u32)> {
        let piece = self.pieces.partition_point(|piece| (piece.source, piece.ranges.end()) <= (draw.source, draw.row));
        let found = self.pieces.get(piece).filter(|piece| piece.source == draw.source)?;
        Some((piece as u32, found.ranges.place(draw.row)? as u32))
    }

    /// The rows of each piece.
    pub(crate) fn batches(&self) -> Vec<RecordBatch> {
        self.pieces.iter().map(|piece| piece.rows.clone()).collect()
    }

    /// Rows in memory.
    pub(crate) fn rows(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.rows.num_rows() as u64).sum()
    }

    /// Size in memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.rows.get_array_memory_size() as u64).sum()
    }
}
