//! Between reader, workers and consumer: jobs in order, batches in order, a bound in bytes.
//!
//! Workers take jobs in the order of the stream and only while the batches that wait or are with the consumer, with the one to
//! be made, fit into the bound, or none is waiting. So the batch that is due next is always among those being made, and the
//! bound cannot stop the stream.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arrow::array::RecordBatch;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::Work as Totals;
use super::order::Due;
use super::reader::Read;
use crate::batch::{Arena, Ingredients, Made, Memory, MicroBatch, Out, Pool, Recipe, Replaced, Scratch, slab};
use crate::error::{Error, Result};
use crate::stall::{Passage, Reading, Work};

/// Most micro-batches that wait for the consumer, however small they are: each takes more than its bytes.
const MOST_READY: usize = 256;

/// Micro-batches that are read ahead from the start.
const LEAD: u64 = 256;

/// To wake a thread takes longer than to make a small batch, and may take the consumer's processor. So where the bound holds at
/// least so many, workers that have made all they may wait until there is room for a quarter of them,
const SMALL: u64 = 32;
/// and the reader waits until it may read so many micro-batches.
const STRIDE: u64 = LEAD / 4;

/// Rows that were read together; their bytes are given back when the last job that needs them is done.
pub(crate) struct Group {
    pub(crate) rows: Vec<RecordBatch>,
    /// Source and row of those that are not what was written.
    pub(crate) unfit: BTreeSet<(u32, u64)>,
    /// When, and what reading had done until then.
    pub(crate) read: (Instant, Reading),
    /// Rows that came from storage.
    pub(crate) read_rows: u64,
    /// Of these, those that were read straight into their batches.
    pub(crate) straight_rows: u64,
    /// Rows that the jobs need.
    pub(crate) used_rows: u64,
    pub(crate) bytes: u64,
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// A micro-batch whose rows are there.
pub(crate) struct Job {
    pub(crate) due: Due,
    /// For each draw, which of the group's batches holds its row, and where.
    pub(crate) places: Vec<(u32, u32)>,
    pub(crate) group: Arc<Group>,
    /// Its ids, if they were read into their places.
    pub(crate) ids: Option<Arena<u32>>,
}

pub(crate) type Ready = Result<(MicroBatch, Passage)>;

/// What the threads of a stream share.
pub(crate) struct Queue {
    pub(crate) recipe: Recipe,
    total: u64,
    bound: u64,
    stopped: AtomicBool,
    pub(crate) pool: Pool,
    state: Mutex<State>,
    /// Its condition wakes workers.
    out: Arc<Out>,
    for_consumer: Condvar,
    /// Micro-batches that the consumer has taken, and the reader that may wait for it to come on.
    passed: AtomicU64,
    for_reader: Notify,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    taken: u64,
    ready: BTreeMap<u64, (Ready, u64)>,
    bytes: u64,
    work: Work,
    read_bytes: u64,
    read_rows: u64,
    straight_rows: u64,
    used_rows: u64,
    request: f64,
    /// Workers wait for room, and the consumer for a batch.
    resting: bool,
    hungry: bool,
}

impl Queue {
    pub(crate) fn new(recipe: Recipe, total: u64, bound: u64, memory: Option<Memory>) -> Self {
        Self {
            recipe,
            total,
            bound,
            stopped: AtomicBool::new(false),
            pool: Pool::of(Some(memory.unwrap_or_else(slab::memory))),
            state: Mutex::default(),
            out: Arc::default(),
            for_consumer: Condvar::new(),
            passed: AtomicU64::new(0),
            for_reader: Notify::new(),
        }
    }

    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        self.stopped.store(true, Ordering::Relaxed);
        // Jobs hold the rows of their group.
        state.jobs.clear();
        drop(state);
        self.out.back().notify_all();
        self.for_consumer.notify_all();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Hands the jobs of a group to the workers.
    pub(crate) fn push(&self, read: Read) {
        let mut state = self.lock();
        state.read_rows += read.group.read_rows;
        state.straight_rows += read.group.straight_rows;
        state.used_rows += read.group.used_rows;
        state.read_bytes += read.group.bytes;
        state.request += read.seconds;
        if !self.is_stopped() {
            state.jobs.extend(read.jobs);
        }
        drop(state);
        self.out.back().notify_all();
    }

    /// Puts an error in the place of a micro-batch.
    pub(crate) fn fail(&self, sequence: u64, error: Error) {
        self.lock().ready.insert(sequence, (Err(error), 0));
        self.for_consumer.notify_all();
    }

    /// Whether [`Self::take`] would not block.
    pub(crate) fn is_ready(&self, sequence: u64) -> bool {
        self.lock().ready.contains_key(&sequence)
    }

    /// Waits for micro-batch `sequence`; none once stopped.
    pub(crate) fn take(&self, sequence: u64) -> Option<Ready> {
        let mut state = self.lock();
        loop {
            if self.is_stopped() {
                return None;
            }
            let found = state.ready.remove(&sequence);
            state.hungry = found.is_none();
            let ready = found.map(|(mut ready, bytes)| {
                self.hand_out(&mut state, &mut ready, bytes);
                ready
            });
            if state.resting && self.has_room(&state) {
                self.out.back().notify_all();
            }
            if ready.is_some() {
                return ready;
            }
            state = self.for_consumer.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn hand_out(&self, state: &mut State, ready: &mut Ready, bytes: u64) {
        state.bytes -= bytes;
        if let Ok((micro_batch, _)) = ready {
            micro_batch.batch.hand_out(&self.out);
        }
        let passed = self.passed.fetch_add(1, Ordering::Relaxed) + 1;
        if passed.is_multiple_of(STRIDE / 2) {
            self.for_reader.notify_one();
        }
    }

    /// Waits until micro-batch `next` may be read, and `enough` from there on if there are as many: how many may be.
    ///
    /// No further ahead than the consumer has come, so that a stream which ends early, as at each change of a generation, has
    /// not read much more than twice what was used of it, or one window.
    pub(crate) async fn lead(&self, next: u64, enough: u64) -> u64 {
        loop {
            let moved = self.for_reader.notified();
            let passed = self.passed.load(Ordering::Relaxed);
            match (2 * passed + LEAD).saturating_sub(next) {
                lead if lead < STRIDE.max(enough).min(self.total - next) => moved.await,
                lead => return lead,
            }
        }
    }

    pub(crate) fn work(&self) -> Totals {
        let state = self.lock();
        Totals {
            read_bytes: state.read_bytes,
            read_rows: state.read_rows,
            straight_rows: state.straight_rows,
            used_rows: state.used_rows,
            request: state.request,
            decode: state.work.decode.as_secs_f64(),
            augment: state.work.augment.as_secs_f64(),
            collate: state.work.collate.as_secs_f64(),
        }
    }

    /// Waits for a job that may be started, with the bytes of its batch; none when there will be no more.
    fn job(&self) -> Option<(Job, u64)> {
        let mut state = self.lock();
        loop {
            if self.is_stopped() || state.taken == self.total {
                return None;
            }
            if let Some(job) = self.next_job(&mut state) {
                return Some(job);
            }
            state = self.out.back().wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next job, if it may be started.
    fn next_job(&self, state: &mut State) -> Option<(Job, u64)> {
        state.resting = !self.has_room(state);
        if state.resting {
            return None;
        }
        let job = state.jobs.pop_front()?;
        let bytes = self.bytes_of(&job);
        state.bytes += bytes;
        state.taken += 1;
        if state.taken == self.total {
            self.out.back().notify_all();
        }
        Some((job, bytes))
    }

    /// Whether the next job may be started, if there is one. If not, says to [`Out`] what has to come back for it to be.
    fn has_room(&self, state: &State) -> bool {
        let bytes = state.jobs.front().map_or(0, |job| self.bytes_of(job));
        let (mut most, mut bound) = (MOST_READY, self.bound);
        if state.resting && SMALL * bytes <= bound {
            (most, bound) = (most - most / 4, bound - bound / 4);
        }
        let enough = bound.checked_sub(state.bytes + bytes).filter(|_| state.ready.len() < most);
        let room = state.bytes == 0 || enough.is_some_and(|enough| self.out.bytes() <= enough);
        self.out.wait_for(enough.filter(|_| !room).unwrap_or(Out::NEVER));
        room
    }

    /// The bytes of the batch that it makes.
    fn bytes_of(&self, job: &Job) -> u64 {
        self.recipe.batch_bytes(job.due.draws.len())
    }

    fn finish(&self, sequence: u64, ready: Ready, bytes: u64) {
        let mut state = self.lock();
        if let Ok((_, passage)) = &ready {
            state.work.add(&passage.work);
        }
        state.ready.insert(sequence, (ready, bytes));
        if state.hungry {
            self.for_consumer.notify_all();
        }
    }

    /// No code that may panic runs under the lock, and a poisoned one must not hang the consumer.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker: makes batches until there are no more to make. Words that it made tokens of may take so many bytes.
pub(crate) fn work(queue: &Queue, words: usize) {
    let mut scratch = Scratch::new(queue.pool.clone(), words);
    while let Some((job, bytes)) = queue.job() {
        if !do_job(queue, job, bytes, &mut scratch) {
            return;
        }
    }
}

/// Makes a batch; false if it was stopped.
fn do_job(queue: &Queue, job: Job, bytes: u64, scratch: &mut Scratch) -> bool {
    let started = Instant::now();
    let (sequence, step, index) = (job.due.sequence, job.due.step, job.due.index);
    let ready = match catch_unwind(AssertUnwindSafe(|| make(queue, job, scratch, started))) {
        Ok(Ok(None)) => return false,
        Ok(Ok(Some(ready))) => Ok(ready),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::Internal(format!("step {step}, micro-batch {index}: its worker panicked"))),
    };
    queue.finish(sequence, ready, bytes);
    true
}

/// What workers and consumer do, without waiting: for a simulation, which has no threads.
#[cfg(test)]
impl Queue {
    /// How many micro-batches are ready.
    pub(crate) fn ready(&self) -> usize {
        self.lock().ready.len()
    }

    /// Does all jobs that may be started.
    pub(crate) fn work_now(&self) {
        loop {
            let job = self.next_job(&mut self.lock());
            let Some((job, bytes)) = job else { return };
            do_job(self, job, bytes, &mut Scratch::new(self.pool.clone(), 1 << 20));
        }
    }

    /// Micro-batch `sequence`, if it is ready.
    pub(crate) fn take_now(&self, sequence: u64) -> Option<Ready> {
        let mut state = self.lock();
        let (mut ready, bytes) = state.ready.remove(&sequence)?;
        self.hand_out(&mut state, &mut ready, bytes);
        Some(ready)
    }
}

fn make(queue: &Queue, job: Job, scratch: &mut Scratch, started: Instant) -> Result<Option<(MicroBatch, Passage)>> {
    let Job { due, places, group, ids } = job;
    let ingredients = Ingredients { draws: &due.draws, places: &places, rows: &group.rows, unfit: &group.unfit };
    let made = match ids {
        Some(ids) => Some(queue.recipe.filled(ids, &ingredients, &queue.pool)?),
        None => queue.recipe.make(&ingredients, scratch, &|| queue.is_stopped())?,
    };
    let Some(Made { batch, replaced, work }) = made else { return Ok(None) };
    let passage = Passage { read: group.read, started, finished: Instant::now(), work };
    let digest = Replaced::digest(due.digest, &replaced);
    Ok(Some((MicroBatch { step: due.step, index: due.index, digest, batch, replaced }, passage)))
}
