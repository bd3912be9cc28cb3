//! The task that reads ahead: groups of micro-batches whose rows lie together, within a bound of bytes.
//!
//! The first group is one micro-batch, so that a stream starts soon; each is twice the one before, up to a window or half
//! of the bound, so that one is used up while the next is read.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::order::{Due, Order};
use super::queue::{Group, Job, Queue};
use crate::error::{Error, Result};
use crate::fetch::{Fetch, Ranges};

/// The bound is kept in units of so many bytes.
const UNIT: u64 = 1 << 10;

/// Most rows that are read at once.
const MAX_GROUP_ROWS: u64 = 1 << 18;

/// Reads the whole order into the queue.
pub(crate) async fn read(queue: Arc<Queue>, fetch: Fetch, order: Order, bound: u64) {
    let mut guard = Guard { queue, next: 0, total: order.len() };
    let units = (bound / UNIT).clamp(1, u64::from(u32::MAX)) as u32;
    let budget = Arc::new(Semaphore::new(units as usize));
    let mut row_bytes = guard.queue.recipe.row_bytes();
    let mut ramp = 1;
    while guard.next < guard.total && !guard.queue.is_stopped() {
        let due = group(&order, guard.next, ramp, row_bytes, bound / 2);
        let count = due.len() as u64;
        match read_group(&guard.queue, &fetch, due, row_bytes, units, &budget).await {
            Ok(found) => row_bytes = found,
            Err(error) => {
                guard.queue.fail(guard.next, error);
                guard.total = guard.next;
            }
        }
        guard.next += count;
        ramp = (ramp * 2).min(MAX_GROUP_ROWS);
    }
    guard.total = guard.next;
}

/// The micro-batches to read next.
fn group(order: &Order, first: u64, ramp: u64, row_bytes: u64, bound: u64) -> Vec<Due> {
    let head = order.due(first);
    let samples = (head.draws.len() as u64).max(1);
    let limit = (bound / (row_bytes * samples).max(1)).min(MAX_GROUP_ROWS / samples).min(ramp);
    let count = order.together(first, limit);
    std::iter::once(head).chain((first + 1..first + count).map(|sequence| order.due(sequence))).collect()
}

/// Reads a group and hands out its jobs; returns what a row takes, as far as is known now.
async fn read_group(queue: &Queue, fetch: &Fetch, due: Vec<Due>, row_bytes: u64, units: u32, budget: &Arc<Semaphore>) -> Result<u64> {
    let rows: Vec<u64> = due.iter().flat_map(|due| due.draws.iter().map(|draw| draw.row)).collect();
    let ranges = Ranges::covering(rows, row_bytes);
    let permit = acquire(budget, ranges.rows() * row_bytes, units).await?;
    let began = Instant::now();
    let fetched = fetch.read(ranges).await?;
    let read = Instant::now();
    let count = fetched.rows.num_rows() as u64;
    let bytes = fetched.rows.get_array_memory_size() as u64;
    let group = Arc::new(Group { fetched, read, _bytes: correct(permit, budget, bytes, units) });
    let mut jobs = Vec::with_capacity(due.len());
    for due in due {
        let places: Option<Vec<usize>> = due.draws.iter().map(|draw| group.fetched.place(draw.row)).collect();
        let places = places.ok_or_else(|| Error::Internal(format!("step {}: a row that was read is missing", due.step)))?;
        jobs.push(Job { due, places, group: Arc::clone(&group) });
    }
    queue.push(jobs, count, bytes, read - began);
    Ok((bytes / count.max(1)).max(1))
}

/// Waits until so many bytes are free, or all of the bound where they are more than that.
async fn acquire(budget: &Arc<Semaphore>, bytes: u64, units: u32) -> Result<OwnedSemaphorePermit> {
    let wanted = bytes.div_ceil(UNIT).clamp(1, u64::from(units)) as u32;
    let closed = |_| Error::Internal("the bound of a stream was closed".to_owned());
    Arc::clone(budget).acquire_many_owned(wanted).await.map_err(closed)
}

/// Charges what was read in place of what was expected, as far as there is room: a reader that waited here would hold
/// rows that nobody can use.
fn correct(mut permit: OwnedSemaphorePermit, budget: &Arc<Semaphore>, bytes: u64, units: u32) -> OwnedSemaphorePermit {
    let wanted = bytes.div_ceil(UNIT).clamp(1, u64::from(units)) as usize;
    let held = permit.num_permits();
    if held > wanted {
        drop(permit.split(held - wanted));
    } else {
        let more = (wanted - held).min(budget.available_permits()) as u32;
        if let Ok(more) = Arc::clone(budget).try_acquire_many_owned(more) {
            permit.merge(more);
        }
    }
    permit
}

/// Tells the consumer if the task ends early, because the runtime does or because of a panic.
struct Guard {
    queue: Arc<Queue>,
    next: u64,
    total: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.next < self.total && !self.queue.is_stopped() {
            let reason = "the task that reads rows ended early: its runtime is shutting down, or it panicked";
            self.queue.fail(self.next, Error::Internal(reason.to_owned()));
        }
    }
}
