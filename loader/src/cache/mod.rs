//! Blocks of rows on a local disk, shared by all replicas of a host: fetched once, used every epoch.
//!
//! A block's file is named by what is in it: a digest of (version, table, columns, filter, block size) and the block's
//! number, so a cache can outlive its run and serve several. What to keep follows from the plan ([`evict`]): the block that
//! is needed furthest in the future goes first, which no cache can beat (Belady 1966).
//! Promises: a file appears whole (write, rename) and is checked when it is read, so whatever a kill or the disk does to one, it
//! counts as not there; a failing disk costs speed, never a sample; nothing waits for room, so even a cache with room for
//! nothing stops nobody; no lock, file or segment outlives its process in a way that hinders the next.
//! Several processes decide each for themselves, and look at the folder again after each has written a share of it, so
//! together they may exceed its size by that share each.

pub(crate) mod disk;
pub(crate) mod entry;
pub(crate) mod evict;

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use forebay_schemas::Digest;

use crate::machine::{Machine, blocking};
use crate::plan::{Block, Plan};
use disk::{Claim, Disk};
use evict::{Contents, Verdict};

/// Between two looks whether another process has read a block.
const CLAIM_PAUSE: Duration = Duration::from_millis(3);
/// So long a block that another process reads is waited for; it may be frozen.
const CLAIM_PATIENCE: Duration = Duration::from_secs(10);
/// The folder is listed again after so large a share of it was written.
const LISTED_ANEW: u64 = 32;

/// A cache for the blocks of one plan. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    plan: Plan,
    /// What names the files of each source.
    sources: Vec<String>,
    disk: Arc<dyn Disk>,
    machine: Arc<dyn Machine>,
    state: Mutex<State>,
}

struct State {
    contents: Contents,
    /// Bytes written since the folder was listed.
    written: u64,
    counts: Counts,
}

/// What a cache did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Blocks that were there.
    pub hits: u64,
    /// Blocks that were not.
    pub misses: u64,
    /// Files that were not what they should be.
    pub damaged: u64,
    /// Blocks that were not kept, because what is there is needed sooner.
    pub bypassed: u64,
    /// Blocks that went for others.
    pub evicted: u64,
}

impl Cache {
    /// A cache of at most `capacity` bytes; `names` says for each source of the plan what its rows are.
    pub(crate) async fn open(plan: Plan, names: &[Digest], disk: Arc<dyn Disk>, machine: Arc<dyn Machine>, capacity: u64) -> Self {
        let sources = names.iter().map(|name| name.to_string()[..16].to_owned()).collect();
        let state = Mutex::new(State { contents: Contents::new(capacity), written: 0, counts: Counts::default() });
        let cache = Self { inner: Arc::new(Inner { plan, sources, disk, machine, state }) };
        cache.list(0).await;
        cache
    }

    /// The rows of a block, if it is there and whole; whoever asks needs it for `steps`.
    pub(crate) async fn get(&self, block: Block, rows: u64, steps: &Range<u64>) -> Option<RecordBatch> {
        let name = self.name(block);
        let disk = Arc::clone(&self.inner.disk);
        let file = name.clone();
        let read = blocking(self.inner.machine.as_ref(), move || match disk.read(&file) {
            Ok(Some(bytes)) => Some(entry::decode(bytes).filter(|batch| batch.num_rows() as u64 == rows)),
            Ok(None) => None,
            Err(error) => {
                tracing::debug!(%error, file, "a cached block cannot be read");
                None
            }
        })
        .await
        .flatten();
        {
            let next = self.inner.plan.next_use(block, steps.end);
            let mut state = self.state();
            match &read {
                Some(Some(_)) => {
                    state.counts.hits += 1;
                    state.contents.used(&name, next);
                }
                Some(None) => state.counts.damaged += 1,
                None => state.contents.remove(&name),
            }
        }
        if let Some(None) = read {
            self.remove(vec![name]).await;
        }
        read.flatten()
    }

    /// Keeps a block that was read from storage, if it is worth its room; it was read for `steps`.
    pub(crate) async fn put(&self, block: Block, rows: &RecordBatch, steps: &Range<u64>) {
        let Some(bytes) = entry::encode(rows) else { return };
        let (name, size) = (self.name(block), bytes.len() as u64);
        let next = self.inner.plan.next_use(block, steps.end);
        let verdict = {
            let mut state = self.state();
            state.counts.misses += 1;
            let now = self.inner.plan.ordinal_of(steps.start);
            let verdict = state.contents.place(&name, size, next, now, |name| self.next_use(name, steps.start));
            match &verdict {
                Verdict::Bypass => state.counts.bypassed += 1,
                Verdict::Keep { evict } => {
                    state.counts.evicted += evict.len() as u64;
                    state.written += size;
                }
            }
            verdict
        };
        let Verdict::Keep { evict } = verdict else { return };
        self.remove(evict).await;
        let (disk, file) = (Arc::clone(&self.inner.disk), name.clone());
        let written = blocking(self.inner.machine.as_ref(), move || disk.write(&file, &bytes)).await;
        if let Some(Err(error)) = written {
            tracing::debug!(%error, file = name, "a block cannot be cached");
            self.state().contents.remove(&name);
        }
        let due = {
            let state = self.state();
            state.written > state.contents.capacity() / LISTED_ANEW
        };
        if due {
            self.list(steps.start).await;
        }
    }

    /// Waits until no other process reads this block, or for so long that it must be frozen.
    pub(crate) async fn claim(&self, block: Block) -> Option<Box<dyn Claim>> {
        let stripe = Digest::of(self.name(block).as_bytes()).as_u64();
        let until = self.inner.machine.now() + CLAIM_PATIENCE;
        loop {
            if let Some(claim) = self.inner.disk.claim(stripe) {
                return Some(claim);
            }
            if self.inner.machine.now() >= until {
                return None;
            }
            self.inner.machine.sleep(CLAIM_PAUSE).await;
        }
    }

    /// What was done so far.
    pub(crate) fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Learns what is in the folder.
    async fn list(&self, step: u64) {
        let disk = Arc::clone(&self.inner.disk);
        let listed = blocking(self.inner.machine.as_ref(), move || disk.list()).await;
        match listed {
            Some(Ok(files)) => {
                let mut state = self.state();
                state.contents.replace(files, |name| self.next_use(name, step));
                state.written = 0;
            }
            Some(Err(error)) => tracing::warn!(%error, "the cache's folder cannot be listed"),
            None => {}
        }
    }

    async fn remove(&self, names: Vec<String>) {
        if names.is_empty() {
            return;
        }
        let disk = Arc::clone(&self.inner.disk);
        let removed = blocking(self.inner.machine.as_ref(), move || names.iter().try_for_each(|name| disk.remove(name))).await;
        if let Some(Err(error)) = removed {
            tracing::debug!(%error, "a cached block cannot be removed");
        }
    }

    fn name(&self, block: Block) -> String {
        format!("{}-{:x}", self.inner.sources[block.source as usize], block.number)
    }

    /// When a file's block is needed from `step` on; never, if it is of another plan.
    fn next_use(&self, name: &str, step: u64) -> Option<u64> {
        let (source, number) = name.split_once('-')?;
        let source = self.inner.sources.iter().position(|known| known == source)? as u32;
        let number = u64::from_str_radix(number, 16).ok().filter(|number| *number < self.inner.plan.blocks(source))?;
        self.inner.plan.next_use(Block { source, number }, step)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
