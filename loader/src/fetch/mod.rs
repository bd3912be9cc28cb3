//! Rows from storage or the cache: planned into reads, read many at a time, tried again, and found again.
//!
//! Without a cache the rows of a group are read as they are wanted, in reads of about a MiB ([`ranges`]). With one the
//! unit is the block: whole blocks are read, kept, and shared. Token rows of a local file go straight into their batches
//! ([`straight`]). Every read of storage goes through one function, which asks a
//! second time where the first answer is slow, and again where it failed ([`policy`]), and compares the rows with their checks.
//! Promises: a read with another number of rows than asked for is an error; each row of a group is in memory once.
//! Deliberately absent: which rows belong together in a group (`prefetch`), and any copy in memory that outlives its group.

mod policy;
mod ranges;
mod straight;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use forebay_schemas::check::{self, CHECK};
use forebay_schemas::run::Loading;
use forebay_store::{Kind, Table};
use futures::future::{BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, TryStreamExt};
use tokio::sync::Semaphore;

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::plan::{Block, Draw, Plan};
use crate::stall::Meter;
use policy::Latencies;
pub(crate) use ranges::Ranges;
pub(crate) use straight::Straight;

/// About what one read takes.
const READ_BYTES: u64 = 1 << 20;

/// A read may take so long, however little patience a run has.
const SHORTEST_LIMIT: Duration = Duration::from_secs(10);

/// Where reading is done, and what is told of it.
pub(crate) struct Host {
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) meter: Arc<Meter>,
}

/// Where rows come from, and what is read of them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fetch {
    inner: Arc<Inner>,
}

struct Inner {
    tables: Vec<Arc<dyn Table>>,
    plan: Plan,
    split: String,
    columns: &'static [&'static str],
    cache: Option<Cache>,
    machine: Arc<dyn Machine>,
    meter: Arc<Meter>,
    /// One permit a read under way.
    reads: Semaphore,
    settings: Loading,
    latencies: Mutex<Latencies>,
    /// A table was found whose rows cannot be read straight into batches.
    indirect: AtomicBool,
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

/// What a read gave.
struct Rows {
    batch: RecordBatch,
    /// Places in it of rows that do not fit their checks.
    unfit: Vec<usize>,
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
        let inner = Inner {
            tables,
            plan,
            split: split.to_owned(),
            columns,
            cache,
            machine: host.machine,
            meter: host.meter,
            reads: Semaphore::new(settings.reads.max(1) as usize),
            settings: settings.clone(),
            latencies: Mutex::default(),
            indirect: AtomicBool::default(),
        };
        Self { inner: Arc::new(inner) }
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

    /// Fetches the rows of `draws`, of which a row takes about `row_bytes`, and which are those of `steps`.
    pub(crate) async fn group(&self, draws: &[Draw], row_bytes: u64, steps: &Range<u64>) -> Result<Fetched> {
        let inner = &self.inner;
        let _read = inner.meter.read();
        let reads: Vec<BoxFuture<'_, Result<Piece>>> = match &inner.cache {
            None => self.reads(draws, row_bytes).into_iter().map(|(source, ranges)| inner.piece(source, ranges).boxed()).collect(),
            Some(cache) => self.blocks(draws).into_iter().map(|(block, wanted)| inner.block(cache, block, wanted, steps).boxed()).collect(),
        };
        let mut pieces: Vec<Piece> = reads.into_iter().collect::<FuturesUnordered<_>>().try_collect().await?;
        pieces.sort_unstable_by_key(|piece| (piece.source, piece.ranges.end()));
        let read_rows = pieces.iter().filter(|piece| piece.stored).map(|piece| piece.rows.num_rows() as u64).sum();
        let unfit = pieces.iter().flat_map(|piece| piece.unfit.iter().map(|row| (piece.source, *row))).collect();
        Ok(Fetched { pieces, unfit, read_rows })
    }

    /// The reads for these draws.
    fn reads(&self, draws: &[Draw], row_bytes: u64) -> Vec<(u32, Ranges)> {
        let mut rows: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for draw in draws {
            rows.entry(draw.source).or_default().push(draw.row);
        }
        let most = READ_BYTES / row_bytes.max(1);
        rows.into_iter()
            .flat_map(|(source, rows)| Ranges::covering(rows, row_bytes).cut(most).into_iter().map(move |part| (source, part)))
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
        let _permit = self.permit().await?;
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
        let _permit = self.permit().await?;
        let Rows { batch: rows, unfit } = self.persistent(source, &ranges).await?;
        let unfit = unfit.iter().filter_map(|place| ranges.row(*place as u64)).collect();
        Ok(Piece { source, ranges, rows, unfit, stored: true })
    }

    async fn permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>> {
        self.reads.acquire().await.map_err(|_| Error::Internal("the reads of a loader were closed".to_owned()))
    }

    /// Reads rows, again and again where that may help. Rows that do not fit their checks may have been damaged on the way; what
    /// is read alike again is damaged where it lies.
    async fn persistent(&self, source: u32, ranges: &Ranges) -> Result<Rows> {
        let began = self.machine.now();
        let mut attempts = 1;
        loop {
            let read = self.in_time(self.hedged(source, ranges)).await;
            let (failure, unfit) = match read {
                Ok(rows) if rows.unfit.is_empty() || attempts >= policy::UNFIT_READS => return Ok(rows),
                Ok(rows) => {
                    (forebay_store::Error::new(Kind::Corrupt, format!("{} rows do not fit their checks", rows.unfit.len())), Some(rows))
                }
                Err(failure) => (failure, None),
            };
            let chance = u64::from(source) ^ ranges.end() ^ u64::from(std::process::id()) << 32;
            let since = self.machine.now().saturating_sub(began);
            let Some(pause) = policy::retry(failure.kind(), attempts, since, self.settings.patience.duration(), chance) else {
                if let Some(rows) = unfit {
                    return Ok(rows);
                }
                let doing = format!("cannot read {} rows in {} ranges, after {attempts} attempts", ranges.rows(), ranges.as_slice().len());
                return Err(Error::Store { split: self.split.clone(), doing, source: failure });
            };
            tracing::debug!(%failure, attempts, ?pause, "a read is tried again");
            let _pause = self.meter.pause();
            self.machine.sleep(pause).await;
            attempts += 1;
        }
    }

    /// What a read gives, unless no answer comes at all: a reader that waits for ever would hide what a store, or a library's task
    /// that has died, does not say.
    async fn in_time<T>(&self, read: impl Future<Output = forebay_store::Result<T>> + Send) -> forebay_store::Result<T> {
        let limit = self.settings.patience.duration().max(SHORTEST_LIMIT);
        match select(Box::pin(read), self.machine.sleep(limit)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(forebay_store::Error::new(Kind::Unavailable, format!("no answer within {} s", limit.as_secs()))),
        }
    }

    /// Reads rows, asking a second time if the first answer takes much longer than most.
    async fn hedged(&self, source: u32, ranges: &Ranges) -> forebay_store::Result<Rows> {
        let first = Box::pin(self.once(source, ranges));
        let Some(after) = self.latencies().hedge_after(self.settings.hedge) else { return first.await };
        let first = match select(first, self.machine.sleep(after)).await {
            Either::Left((answer, _)) => return answer,
            Either::Right(((), first)) => first,
        };
        if !self.latencies().hedge() {
            return first.await;
        }
        match select(first, Box::pin(self.once(source, ranges))).await {
            Either::Left((Ok(rows), _)) | Either::Right((Ok(rows), _)) => Ok(rows),
            // One of the two failed; the other may still succeed.
            Either::Left((Err(_), second)) => second.await,
            Either::Right((Err(_), first)) => first.await,
        }
    }

    /// Columns of rows, and their checks if these are compared.
    async fn columns_of(&self, source: u32, ranges: &Ranges, columns: &[&str]) -> forebay_store::Result<RecordBatch> {
        let corrupt = |message: String| forebay_store::Error::new(Kind::Corrupt, message);
        let columns: Vec<&str> = columns.iter().copied().chain(self.verifies(source).then_some(CHECK)).collect();
        // A damaged file can make a library panic.
        let read = AssertUnwindSafe(self.tables[source as usize].read(ranges.as_slice(), &columns)).catch_unwind().await;
        let batch = read.map_err(|_| corrupt("the reader of the table panicked".to_owned()))??;
        match batch.num_rows() as u64 {
            found if found == ranges.rows() => Ok(batch),
            found => Err(corrupt(format!("a read gave {found} rows, expected {}", ranges.rows()))),
        }
    }

    /// Whether rows of this source are compared with their checks.
    fn verifies(&self, source: u32) -> bool {
        self.settings.verify && self.tables[source as usize].schema().field_with_name(CHECK).is_ok()
    }

    async fn once(&self, source: u32, ranges: &Ranges) -> forebay_store::Result<Rows> {
        let began = self.machine.now();
        let verify = self.verifies(source);
        let mut batch = self.columns_of(source, ranges, self.columns).await?;
        self.latencies().took(self.machine.now().saturating_sub(began));
        let mut unfit = Vec::new();
        if verify {
            let missing = || forebay_store::Error::new(Kind::Corrupt, "a read gave rows without their checks");
            unfit = check::unfit(&batch).ok_or_else(missing)?;
            batch.remove_column(self.columns.len());
        }
        Ok(Rows { batch, unfit })
    }

    fn latencies(&self) -> std::sync::MutexGuard<'_, Latencies> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetched {
    /// Where the row of a draw is: which piece, and where in it; none if it was not asked for.
    pub(crate) fn place(&self, draw: &Draw) -> Option<(u32, u32)> {
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
