//! The task that reads ahead: groups of micro-batches whose rows lie together, several at a time, within a bound of bytes.
//!
//! The first group is one micro-batch, so that a stream starts soon; each is twice the one before, up to a window or half
//! of the bound, so that one is used up while the next is read, and no further ahead than the consumer has come. But once a group
//! would have a sixteenth of what is left of its window, it has all of that: of what was left over most blocks would be read again.
//! Groups end in any order and are handed on in theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::order::{Due, Order};
use super::queue::{Group, Job, Queue};
use crate::error::{Error, Result};
use crate::fetch::{Demand, Fetch, Straight, distinct};
use crate::plan::Draw;

/// The bound is kept in units of so many bytes.
const UNIT: u64 = 1 << 10;

/// Most rows that are read at once.
const MAX_GROUP_ROWS: u64 = 1 << 18;

/// What is left of a window is read with a group that would have one in so many of its micro-batches.
const REST: u64 = 16;

/// Groups that are being read at a time.
const GROUPS_IN_FLIGHT: usize = 4;

/// Reads the whole order into the queue.
pub(crate) async fn read(queue: Arc<Queue>, fetch: Fetch, order: Order, bound: u64) {
    let mut guard = Guard { queue: Arc::clone(&queue), next: 0, total: order.len() };
    let row_bytes = Arc::new(AtomicU64::new(queue.recipe.row_bytes()));
    let ahead = Ahead { queue: Arc::clone(&queue), fetch, order, row_bytes, budget: Budget::new(bound), most: bound / 2, next: 0, ramp: 1 };
    let mut groups = ahead.groups();
    while let Some((first, count, group)) = groups.next().await {
        if queue.is_stopped() {
            break;
        }
        match group {
            Ok(read) => queue.push(read),
            Err(error) => {
                queue.fail(first, error);
                guard.total = first;
                break;
            }
        }
        guard.next = first + count;
    }
    guard.total = guard.next;
}

/// What is to be read, from the next micro-batch on.
struct Ahead {
    queue: Arc<Queue>,
    fetch: Fetch,
    order: Order,
    row_bytes: Arc<AtomicU64>,
    budget: Budget,
    /// Most bytes of a group.
    most: u64,
    next: u64,
    ramp: u64,
}

/// The number of a group's first micro-batch, how many there are, and what came of reading them.
type Outcome = (u64, u64, Result<Read>);

impl Ahead {
    /// All groups in order.
    fn groups(self) -> BoxStream<'static, Outcome> {
        futures::stream::unfold(self, Self::group).buffered(GROUPS_IN_FLIGHT).boxed()
    }

    /// The read of the next group, once its bytes are free; none after the last.
    async fn group(mut self) -> Option<(BoxFuture<'static, Outcome>, Self)> {
        if self.next >= self.order.len() {
            return None;
        }
        let row_bytes = self.row_bytes.load(Ordering::Relaxed);
        let window = Window::at(&self.order, self.next, row_bytes, self.most);
        // Half of what was read is the most that can be waited for: the consumer has no more than that.
        let enough = if window.left <= window.rest(self.ramp) { window.left.div_ceil(REST).min(self.next / 2) } else { 0 };
        let lead = self.queue.lead(self.next, enough).await;
        let due = window.group(&self.order, self.next, self.ramp.min(lead));
        let (first, count) = (self.next, due.len() as u64);
        let draws: Vec<Draw> = due.iter().flat_map(|due| due.draws.iter().copied()).collect();
        // Here, and not in the group's own future: groups take their bytes in their order.
        let permit = self.budget.take(self.fetch.bytes(&draws, row_bytes)).await;
        let (queue, fetch) = (Arc::clone(&self.queue), self.fetch.clone());
        let (row_bytes, budget) = (Arc::clone(&self.row_bytes), self.budget.clone());
        let read = async move { (first, count, read_group(&queue, &fetch, due, draws, &row_bytes, &budget, permit).await) };
        self.next += count;
        self.ramp = (self.ramp * 2).min(MAX_GROUP_ROWS);
        Some((read.boxed(), self))
    }
}

/// A group that was read.
pub(crate) struct Read {
    pub(crate) jobs: Vec<Job>,
    pub(crate) group: Arc<Group>,
    pub(crate) seconds: f64,
}

/// What may be read together from some micro-batch on.
struct Window {
    /// Micro-batches that are left of its window.
    left: u64,
    /// Micro-batches that fit.
    most: u64,
}

impl Window {
    fn at(order: &Order, first: u64, row_bytes: u64, bound: u64) -> Self {
        let samples = order.samples().max(1);
        let most = (bound / (row_bytes * samples).max(1)).min(MAX_GROUP_ROWS / samples);
        Self { left: order.together(first, u64::MAX), most }
    }

    /// How many may be left of the window so that a group of `limit` goes to its end.
    fn rest(&self, limit: u64) -> u64 {
        limit.saturating_mul(REST).min(self.most)
    }

    /// The micro-batches to read next, `limit` of them where more is left than can be read along.
    fn group(&self, order: &Order, first: u64, limit: u64) -> Vec<Due> {
        let count = if self.left <= self.rest(limit) { self.left } else { limit.min(self.most).clamp(1, self.left) };
        (first..first + count).map(|sequence| order.due(sequence)).collect()
    }
}

/// Reads a group; also learns what a row takes.
async fn read_group(
    queue: &Queue,
    fetch: &Fetch,
    due: Vec<Due>,
    draws: Vec<Draw>,
    row_bytes: &AtomicU64,
    budget: &Budget,
    permit: Result<OwnedSemaphorePermit>,
) -> Result<Read> {
    let permit = permit?;
    let began = Instant::now();
    let steps = due.first().map_or(0, |due| due.step)..due.last().map_or(0, |due| due.step + 1);
    let demand = Demand { draws: &draws, row_bytes: row_bytes.load(Ordering::Relaxed), steps };
    let straight = match queue.recipe.width() {
        Some(width) => {
            let samples: Vec<usize> = due.iter().map(|due| due.draws.len()).collect();
            fetch.straight(&demand, &samples, width, &queue.pool).await?
        }
        None => None,
    };
    let Straight { ids, fetched, places, rows: straight_rows, distinct: used_rows } = match straight {
        Some(straight) => straight,
        None => {
            let fetched = fetch.group(&demand).await?;
            let places = fetched.places(&draws)?;
            Straight { ids: Vec::new(), fetched, places, rows: 0, distinct: distinct(&draws) }
        }
    };
    let read = fetch.meter().look();
    let bytes = fetched.bytes() + ids.iter().map(|ids| ids.as_bytes().len() as u64).sum::<u64>();
    let rows = if ids.is_empty() { fetched.rows() } else { draws.len() as u64 };
    row_bytes.store((bytes / rows.max(1)).max(1), Ordering::Relaxed);
    let (rows, unfit) = (fetched.batches(), fetched.unfit.clone());
    let mut jobs = Vec::with_capacity(due.len());
    let (read_rows, permit) = (fetched.read_rows, budget.correct(permit, bytes));
    let group = Arc::new(Group { rows, unfit, read, read_rows, straight_rows, used_rows, bytes, _permit: permit });
    let (mut ids, mut left) = (ids.into_iter(), places.as_slice());
    for due in due {
        let (own, rest) = left.split_at(due.draws.len());
        left = rest;
        jobs.push(Job { due, places: own.to_vec(), group: Arc::clone(&group), ids: ids.next() });
    }
    Ok(Read { jobs, group, seconds: (read.0 - began).as_secs_f64() })
}

/// Bytes that rows may take.
#[derive(Clone)]
struct Budget {
    units: u32,
    left: Arc<Semaphore>,
}

impl Budget {
    fn new(bytes: u64) -> Self {
        let units = (bytes / UNIT).clamp(1, u64::from(u32::MAX)) as u32;
        Self { units, left: Arc::new(Semaphore::new(units as usize)) }
    }

    /// Waits until so many bytes are free, or all of the bound where they are more than that.
    async fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit> {
        let closed = |_| Error::Internal("the bound of a stream was closed".to_owned());
        Arc::clone(&self.left).acquire_many_owned(self.units_of(bytes)).await.map_err(closed)
    }

    /// Charges what was read in place of what was expected, as far as there is room: a reader that waited here would hold
    /// rows that nobody can use.
    fn correct(&self, mut permit: OwnedSemaphorePermit, bytes: u64) -> OwnedSemaphorePermit {
        let (held, wanted) = (permit.num_permits(), self.units_of(bytes) as usize);
        if held > wanted {
            drop(permit.split(held - wanted));
        } else {
            let more = (wanted - held).min(self.left.available_permits()) as u32;
            if let Ok(more) = Arc::clone(&self.left).try_acquire_many_owned(more) {
                permit.merge(more);
            }
        }
        permit
    }

    fn units_of(&self, bytes: u64) -> u32 {
        bytes.div_ceil(UNIT).clamp(1, u64::from(self.units)) as u32
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Plan, Shuffle, Source};
    use forebay_schemas::Digest;

    #[test]
    fn what_is_left_of_a_window_is_read_with_a_group_if_it_is_little_and_fits() {
        // 32 micro-batches of 4 rows a window.
        let shuffle = Shuffle { block_rows: 8, window_blocks: 16 };
        let plan = Plan::new(&[Source::whole(Digest::of(b"x"), 1_024, shuffle)], 1, 1, 4).expect("plan");
        let order = Order::planned(plan, vec![0], 0, 10_000).expect("order");
        let count = |first, limit, bound| Window::at(&order, first, 10, bound).group(&order, first, limit).len();
        assert_eq!([count(0, 1, 10_000), count(1, 1, 10_000)], [1, 1]);
        assert_eq!(count(1, 2, 10_000), 31, "to the end of the window");
        assert_eq!([count(1, 2, 30 * 40), count(1, 4, 3 * 40)], [2, 3], "no more than fits");
        assert_eq!(count(32, 1_000, 100_000), 32, "no further than a window");
    }
}
