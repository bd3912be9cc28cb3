//! Ahead of the consumer: rows are read, batches are made, and both wait in order within a bound of bytes.
//!
//! One task on the runtime reads groups of rows (`reader`); worker threads make batches of them (`queue`); the consumer
//! takes them in order and blocks only on what is due next, and `stall` says why it did.
//! Promises: the order of the plan; at most `prefetch_bytes` of rows, of batches, those with the consumer included, and of words
//! that were made tokens, except that the micro-batch that is due next is always made, however large it is, so no bound can stop
//! the stream; an error comes in the place of its micro-batch and ends the stream; dropping the stream stops reading at once and
//! workers after the sample at hand.
//! Deliberately absent: retries, and any effect of threads or timing on what is delivered.

mod order;
pub(crate) mod queue;
pub(crate) mod reader;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forebay_schemas::Waits;
use serde::Serialize;
use tokio::runtime::Handle;

pub(crate) use order::Order;

use crate::batch::{Batch, Memory, MicroBatch, Recipe};
use crate::error::{Error, Result};
use crate::fetch::Fetch;
use crate::quarantine::Quarantine;
use crate::stall::Meter;
use queue::{Queue, work};

/// How much a stream may do ahead of its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Threads that decode; 0 is one a core. Default: 1.
    pub threads: usize,
    /// Bytes of rows read and batches made that wait for the consumer, and of words that were made tokens on the way. Default: 64 MiB.
    pub prefetch_bytes: u64,
    /// Samples that do not decode and are replaced; one more ends the stream. Default: 0.
    pub corrupt_samples: u64,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { threads: 1, prefetch_bytes: 64 << 20, corrupt_samples: 0 }
    }
}

/// Most bytes of words that a worker remembers where documents become tokens on the way: most texts have fewer.
pub(crate) const WORDS_BYTES: usize = 24 << 20;

/// How the bytes of a stream are shared.
#[derive(Debug, PartialEq, Eq)]
struct Shares {
    rows: u64,
    batches: u64,
    /// Words that each worker remembers.
    words: usize,
    /// So many would have been enough for two batches, and rows of the next.
    enough: u64,
}

impl Shares {
    /// One half for rows, one for batches of so many bytes: whichever stage is the slower one, its input and output are both
    /// there. Where a half does not hold the batch that is with the consumer and the next, batches take up to three quarters.
    /// Rows that go straight into batches are these already: they have five of eight parts, batches that are ready one more, and
    /// the rest is for what is read beside them. Before that, a quarter at most is for the words of so many workers.
    fn of(bytes: u64, batch: u64, (encoders, is_straight): (u64, bool)) -> Self {
        let words = (bytes / 4).checked_div(encoders).map_or(0, |words| words.min(WORDS_BYTES as u64));
        let bytes = bytes - encoders * words;
        let (rows, batches) = if is_straight { (bytes / 8 * 5, bytes / 8) } else { (bytes, bytes / 2) };
        let batches = batches.max(2 * batch).min(bytes - bytes / 4);
        Self { rows: rows.min(bytes - batches), batches, words: words as usize, enough: (8 * batch).div_ceil(3) + encoders * words }
    }
}

/// What a stream did so far, whether or not anybody waited for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Work {
    /// Bytes of rows read, as they lie in memory.
    pub read_bytes: u64,
    /// Rows read from storage, those of gaps that were read along included.
    pub read_rows: u64,
    /// Of these, rows that were read from a local file straight into their batches.
    pub straight_rows: u64,
    /// Rows that were wanted, each counted once a group.
    pub used_rows: u64,
    /// Seconds in which rows were being read.
    pub request: f64,
    /// Thread-seconds of decoding.
    pub decode: f64,
    /// Thread-seconds of cropping, turning, resizing and normalising.
    pub augment: f64,
    /// Thread-seconds of putting samples into batches.
    pub collate: f64,
}

/// Micro-batches in order. [`Stream::next`] blocks, so it is called on a thread that may: not inside of async code.
pub struct Stream {
    queue: Arc<Queue>,
    next: u64,
    total: u64,
    waits: Waits,
    failure: Option<Error>,
    /// Samples that may yet be replaced.
    corrupt_left: u64,
    runtime: Option<Handle>,
    meter: Arc<Meter>,
    quarantine: Option<Arc<Quarantine>>,
    reader: Option<tokio::task::JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
}

/// Ends a stream from another thread.
#[derive(Clone)]
pub struct Stopper {
    queue: Arc<Queue>,
}

impl Stopper {
    /// Makes [`Stream::next`] return none, also where it is blocked just now.
    pub fn stop(&self) {
        self.queue.stop();
    }
}

impl Stream {
    pub(crate) fn start(
        runtime: &Handle,
        fetch: Fetch,
        recipe: Recipe,
        order: Order,
        memory: Option<Memory>,
        options: StreamOptions,
    ) -> Self {
        let total = order.len();
        let batch = recipe.batch_bytes(order.samples() as usize);
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let encoders = if recipe.encodes() { threads as u64 } else { 0 };
        let is_straight = recipe.width().is_some();
        let Shares { rows, batches, words, enough } = Shares::of(options.prefetch_bytes, batch, (encoders, is_straight));
        // Of rows that go straight into batches nothing is there twice.
        let (fetch, rows) = if is_straight { (fetch, rows) } else { fetch.within(rows) };
        if options.prefetch_bytes < enough && total > 1 {
            let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
            tracing::warn!(
                "setting `loader.prefetch`: found {} MiB, expected at least {} MiB: a batch has {} MiB, and while one is with the consumer \
                 the next is made, so more memory is used than the setting says",
                mebibytes(options.prefetch_bytes),
                mebibytes(enough),
                mebibytes(batch),
            );
        }
        let queue = Arc::new(Queue::new(recipe, total, batches, memory));
        let mut stream = Self::idle(queue);
        (stream.total, stream.corrupt_left, stream.runtime) = (total, options.corrupt_samples, Some(runtime.clone()));
        stream.meter = Arc::clone(fetch.meter());
        for i in 0..threads {
            let queue = Arc::clone(&stream.queue);
            match std::thread::Builder::new().name(format!("loader-{i}")).spawn(move || work(&queue, words)) {
                Ok(worker) => stream.workers.push(worker),
                // A stream with some of its workers works; without any it would wait for ever.
                Err(error) if stream.workers.is_empty() => {
                    return stream.failed(Error::Internal(format!("cannot start a decoding thread: {error}")));
                }
                Err(error) => {
                    tracing::warn!("started {i} of {threads} decoding threads: {error}");
                    break;
                }
            }
        }
        stream.reader = Some(runtime.spawn(reader::read(Arc::clone(&stream.queue), fetch, order, rows)));
        stream
    }

    /// A stream that ends with this error.
    pub(crate) fn refused(recipe: Recipe, error: Error) -> Self {
        let queue = Arc::new(Queue::new(recipe, 0, 0, None));
        Self::idle(queue).failed(error)
    }

    fn idle(queue: Arc<Queue>) -> Self {
        let (waits, meter, workers) = (Waits::default(), Arc::default(), Vec::new());
        let (runtime, quarantine, reader) = (None, None, None);
        Self { queue, next: 0, total: 0, waits, failure: None, corrupt_left: 0, runtime, meter, quarantine, reader, workers }
    }

    /// Writes samples that do not decode there.
    pub(crate) fn with(mut self, quarantine: Option<Arc<Quarantine>>) -> Self {
        self.quarantine = quarantine;
        self
    }

    fn failed(mut self, error: Error) -> Self {
        self.failure = Some(error);
        self.total = 0;
        self
    }

    /// Whether [`Self::next`] has a micro-batch or an error to give without blocking.
    pub fn is_ready(&self) -> bool {
        self.failure.is_some() || (self.next < self.total && self.queue.is_ready(self.next))
    }

    /// The next micro-batch; none after the last one, after an error, and after a stop. Blocks until it is there.
    #[expect(clippy::should_implement_trait, reason = "an iterator of blocking calls would invite adapters that buffer or drop them")]
    pub fn next(&mut self) -> Option<Result<MicroBatch>> {
        if let Some(error) = self.failure.take() {
            return Some(Err(error));
        }
        if self.next == self.total {
            return None;
        }
        let from = self.meter.look();
        let ready = self.queue.take(self.next)?;
        let to = Instant::now();
        match ready {
            Ok((micro_batch, passage)) => {
                let replaced = micro_batch.replaced.len() as u64;
                if let (Some(quarantine), Some(runtime)) = (&self.quarantine, &self.runtime) {
                    quarantine.add(runtime, &micro_batch.replaced);
                }
                if let Some(one) = micro_batch.replaced.get(self.corrupt_left as usize) {
                    return Some(Err(self.end(one.clone().into_error(self.queue.recipe.split()))));
                }
                self.corrupt_left -= replaced;
                passage.charge(&mut self.waits, from, to);
                self.next += 1;
                Some(Ok(micro_batch))
            }
            Err(error) => Some(Err(self.end(error))),
        }
    }

    fn end(&mut self, error: Error) -> Error {
        self.total = self.next;
        self.queue.stop();
        error
    }

    /// Charges time in which the consumer copied a batch to where it computes.
    pub fn copied(&mut self, time: Duration) {
        self.waits.copy += time.as_secs_f64();
    }

    /// Where the time went in which [`Self::next`] was blocked, and that of copies.
    pub fn waits(&self) -> Waits {
        self.waits
    }

    /// What was done so far.
    pub fn work(&self) -> Work {
        self.queue.work()
    }

    /// A handle that ends the stream from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper { queue: Arc::clone(&self.queue) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.queue.stop();
        if let Some(reader) = &self.reader {
            reader.abort();
        }
        for worker in self.workers.drain(..) {
            // A worker looks for the stop after every sample. Its panics were turned into errors already.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("next", &self.next).field("total", &self.total).finish_non_exhaustive()
    }
}

/// Rows as stored, in batches without augmentation: an iterator over validation samples that blocks like [`Stream::next`].
#[derive(Debug)]
pub struct Sequential {
    stream: Stream,
    rows: u64,
}

impl Sequential {
    pub(crate) fn new(stream: Stream, rows: u64) -> Self {
        Self { stream, rows }
    }

    /// How many samples there are in all.
    pub fn samples(&self) -> u64 {
        self.rows
    }

    /// Where the time went in which the iterator was blocked.
    pub fn waits(&self) -> Waits {
        self.stream.waits()
    }
}

impl Iterator for Sequential {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.stream.next()?.map(|micro_batch| micro_batch.batch))
    }
}

#[cfg(test)]
mod tests;
