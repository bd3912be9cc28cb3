//! Replicas, their caches and their store in one thread, under a clock that is turned by hand and a seeded generator.
//!
//! What runs is the code that runs in production: plan, reader, fetch with its retries and hedges, cache, queue and recipe;
//! only the store, the disk and the clock are simulated ([`store`], [`disk`], [`machine`]). The store is slow, fails, is away for
//! a while, and lies about what it gave; the disk fails, fills, and flips bytes; replicas are killed or frozen at any moment and
//! the world changes its size ([`scenario`]). A seed is a history: a failure names it and can be run again.
//!
//! Invariants, checked in every history:
//!
//! 1. every row is fed exactly once an epoch of its source, counted over the committed steps of all generations;
//! 2. what is fed is what the plan says, whatever the world, the timing, the cache and the failures;
//! 3. a stream that begins at any step is the suffix of the uninterrupted one, also after a kill;
//! 4. rows being read and rows that wait never take more bytes than the bound, or one micro-batch where that is larger;
//! 5. somebody always gets on: no history of failures that end stops a stream, also with a cache that has room for nothing,
//!    and with a claim that a frozen replica never gives up;
//! 6. a byte that was flipped or cut on the disk is found, and a read of another number of rows than asked for is no data;
//! 7. the cache holds no more than its size and a share of it for each replica.

mod disk;
mod machine;
mod scenario;
mod store;
mod tail;

use crate::plan::permutation::{below, derive};

/// A seeded source of choices.
#[derive(Debug)]
struct Chance {
    key: u64,
    drawn: u64,
}

impl Chance {
    fn new(key: u64) -> Self {
        Self { key, drawn: 0 }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.drawn += 1;
        below(derive(self.key, self.drawn), limit)
    }

    fn one_in(&mut self, many: u64) -> bool {
        many > 0 && self.below(many) == 0
    }
}
