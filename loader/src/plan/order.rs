//! The order of one source: sample number n → window → row, and block → the sample that needs it next.
//!
//! Two levels, so that a reader reads blocks of neighbours and never holds more than a window. The rows are cut into
//! *blocks* of neighbours, the same in every epoch. Each epoch shuffles the blocks, cuts the shuffled row of blocks into
//! *windows*, and shuffles all rows of a window among each other. What is left over after the full blocks goes into a
//! window drawn anew each epoch. So a block lies in exactly one window an epoch, and its next use can be computed.
//!
//! **How good the shuffle is.** Take any kind of rows, stored in any way, and any n consecutive samples of one window.
//! The variance of that kind's share among them is at most `1 + (n - 1) / W` times that of a uniform shuffle, where W is
//! [`Shuffle::window_blocks`]: two samples of a window come from the same block with a chance below 1/W, and samples of
//! different blocks are no more alike than under a uniform shuffle (sampling of clusters, Cochran 1977, §9A.1). Every window
//! has W blocks or more; a table of less than 2 W blocks is one window, and its shuffle is uniform.

use serde::Serialize;

use super::permutation::{Domain, below, derive};
use crate::error::{Error, Result};

/// How far rows are moved by the shuffle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shuffle {
    /// Neighbours that are read together; a power of two.
    pub block_rows: u64,
    /// Blocks of a window, within which rows meet freely.
    pub window_blocks: u64,
}

/// The order of one source under one key. Takes a few hundred bytes, whatever the number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    key: u64,
    rows: u64,
    /// Rows of a block as a power of two.
    block_bits: u32,
    /// Full blocks.
    blocks: Domain,
    /// Rows after the last full block.
    tail: u64,
    windows: u64,
    /// Blocks of a window; the first `longer` windows have one more.
    window_blocks: u64,
    longer: u64,
    /// Rows of a window: by whether it is one of the longer, and whether it holds the tail.
    domains: [[Domain; 2]; 2],
}

/// The keys of one epoch of an order.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    blocks: u64,
    windows: u64,
    /// The window that holds the tail.
    tail_window: u64,
}

/// A window of one epoch: all that is the same for its samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    epoch: u64,
    /// Its first sample.
    start: u64,
    domain: Domain,
    rows_key: u64,
    blocks_key: u64,
    first_slot: u64,
    blocks: u64,
}

impl Order {
    /// `rows` and both numbers of `shuffle` must be at least 1.
    pub(crate) fn new(key: u64, rows: u64, shuffle: Shuffle) -> Result<Self> {
        let Shuffle { block_rows, window_blocks } = shuffle;
        for (name, found) in [("rows", rows), ("rows in a block", block_rows), ("blocks in a window", window_blocks)] {
            if found == 0 {
                return Err(Error::Invalid(format!("order of samples: found 0 {name}, expected at least 1")));
            }
        }
        if !block_rows.is_power_of_two() {
            return Err(Error::Invalid(format!("order of samples: found {block_rows} rows in a block, expected a power of two")));
        }
        let (blocks, tail) = (rows / block_rows, rows % block_rows);
        let windows = (blocks / window_blocks).max(1);
        let (window_blocks, longer) = (blocks / windows, blocks % windows);
        let domain = |more: u64, tail: u64| Domain::new((window_blocks + more) * block_rows + tail);
        let domains = [[domain(0, 0), domain(0, tail)], if longer > 0 { [domain(1, 0), domain(1, tail)] } else { [Domain::new(0); 2] }];
        Ok(Self {
            key,
            rows,
            block_bits: block_rows.trailing_zeros(),
            blocks: Domain::new(blocks),
            tail,
            windows,
            window_blocks,
            longer,
            domains,
        })
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The blocks and windows that it came to: a window of a small table has fewer blocks than were asked for, or more.
    pub(crate) fn shuffle(&self) -> Shuffle {
        Shuffle { block_rows: 1 << self.block_bits, window_blocks: self.window_blocks }
    }

    /// The block that holds a row.
    pub(crate) fn block_of(&self, row: u64) -> u64 {
        row >> self.block_bits
    }

    /// Blocks, the last of which may be shorter.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks.size() + u64::from(self.tail > 0)
    }

    /// Rows of a block.
    pub(crate) fn block(&self, block: u64) -> std::ops::Range<u64> {
        block << self.block_bits..(block << self.block_bits).saturating_add(1 << self.block_bits).min(self.rows)
    }

    fn epoch(&self, number: u64) -> Epoch {
        let key = derive(self.key, number);
        Epoch { blocks: derive(key, 0), windows: derive(key, 1), tail_window: below(derive(key, 2), self.windows) }
    }

    /// The window that sample number `number` is in.
    pub(crate) fn window(&self, number: u64) -> Window {
        let (epoch, index) = (number / self.rows, number % self.rows);
        let keys = self.epoch(epoch);
        let window = self.window_of(&keys, index);
        let (first, long, last) = (self.start_of(&keys, window), window < self.longer, window == keys.tail_window);
        Window {
            epoch,
            start: number - index + first,
            domain: self.domains[usize::from(long)][usize::from(last)],
            rows_key: derive(keys.windows, window),
            blocks_key: keys.blocks,
            first_slot: self.first_slot(window),
            blocks: self.window_blocks + u64::from(long),
        }
    }

    /// The row of sample number `number`, which must be in the window.
    pub(crate) fn row(&self, window: &Window, number: u64) -> u64 {
        let place = window.domain.permute(window.rows_key, number - window.start);
        let (slot, offset) = (place >> self.block_bits, place & ((1 << self.block_bits) - 1));
        // The tail comes after the full blocks of its window.
        if slot < window.blocks {
            self.blocks.permute(window.blocks_key, window.first_slot + slot) << self.block_bits | offset
        } else {
            self.rows - self.tail + offset
        }
    }

    /// The first sample from number `from` on that is of `block`. Takes time in proportion to the rows of a block.
    pub(crate) fn next_use(&self, block: u64, from: u64) -> u64 {
        let epoch = from / self.rows;
        let uses = |epoch: u64| {
            let keys = self.epoch(epoch);
            let (window, slot) = self.window_with(&keys, block);
            let start = epoch.saturating_mul(self.rows).saturating_add(self.start_of(&keys, window));
            let domain = self.domain(&keys, window);
            let (key, first) = (derive(keys.windows, window), (slot - self.first_slot(window)) << self.block_bits);
            let rows = self.block(block);
            (0..rows.end - rows.start).map(move |offset| start.saturating_add(domain.invert(key, first + offset)))
        };
        let this = uses(epoch).filter(|number| *number >= from).min();
        this.or_else(|| uses(epoch + 1).min()).unwrap_or(u64::MAX)
    }

    /// The window of a block, and its place in the shuffled row of blocks.
    fn window_with(&self, epoch: &Epoch, block: u64) -> (u64, u64) {
        if block >= self.blocks.size() {
            return (epoch.tail_window, self.first_slot(epoch.tail_window + 1));
        }
        let slot = self.blocks.invert(epoch.blocks, block);
        (self.window_at(slot), slot)
    }

    /// The window of the block at place `slot` of the shuffled row.
    fn window_at(&self, slot: u64) -> u64 {
        let long = (self.window_blocks + 1) * self.longer;
        if slot < long {
            slot / (self.window_blocks + 1)
        } else {
            // A table without a full block has one window and no slots.
            self.longer + (slot - long) / self.window_blocks.max(1)
        }
    }

    fn window_of(&self, epoch: &Epoch, index: u64) -> u64 {
        if self.windows == 1 {
            return 0;
        }
        let tail_start = self.first_slot(epoch.tail_window + 1) << self.block_bits;
        if index < tail_start {
            self.window_at(index >> self.block_bits)
        } else if index < tail_start + self.tail {
            epoch.tail_window
        } else {
            self.window_at((index - self.tail) >> self.block_bits)
        }
    }

    fn start_of(&self, epoch: &Epoch, window: u64) -> u64 {
        (self.first_slot(window) << self.block_bits) + if window > epoch.tail_window { self.tail } else { 0 }
    }

    fn first_slot(&self, window: u64) -> u64 {
        window * self.window_blocks + window.min(self.longer)
    }

    fn domain(&self, epoch: &Epoch, window: u64) -> &Domain {
        &self.domains[usize::from(window < self.longer)][usize::from(window == epoch.tail_window)]
    }
}

impl Window {
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        number.wrapping_sub(self.start) < self.domain.size()
    }

    /// Samples from number `number` to the end of the window.
    pub(crate) fn left(&self, number: u64) -> u64 {
        self.domain.size() - (number - self.start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(key: u64, rows: u64, block_rows: u64, window_blocks: u64) -> Order {
        Order::new(key, rows, Shuffle { block_rows, window_blocks }).expect("order")
    }

    fn epoch_of(order: &Order, number: u64) -> Vec<u64> {
        (number * order.rows()..(number + 1) * order.rows()).map(|n| order.row(&order.window(n), n)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn every_row_once_an_epoch(key: u64, rows in 1u64..6_000, block_bits in 0u32..6, window_blocks in 1u64..40, number in 0u64..1 << 50) {
            let order = order(key, rows, 1 << block_bits, window_blocks);
            let mut fed = epoch_of(&order, number);
            fed.sort_unstable();
            prop_assert_eq!(fed, (0..rows).collect::<Vec<_>>());
        }

        #[test]
        fn a_window_holds_whole_blocks_and_at_least_so_many(key: u64, rows in 1u64..6_000, block_bits in 0u32..6, window_blocks in 1u64..40) {
            let block_rows = 1 << block_bits;
            let (order, first) = (order(key, rows, block_rows, window_blocks), 3 * rows);
            let fed = epoch_of(&order, 3);
            let mut index = 0;
            while index < rows {
                let window = order.window(first + index);
                let size = window.left(first + index);
                prop_assert!(window.contains(first + index) && !window.contains(first + index + size));
                let mut window = fed[index as usize..(index + size) as usize].to_vec();
                window.sort_unstable();
                let mut blocks: Vec<u64> = window.iter().map(|row| row / block_rows).collect();
                blocks.dedup();
                let whole: Vec<u64> = blocks.iter().flat_map(|block| order.block(*block)).collect();
                prop_assert_eq!(window, whole);
                prop_assert!(blocks.len() as u64 >= window_blocks.min(rows / block_rows));
                index += size;
            }
            prop_assert_eq!(index, rows);
        }

        #[test]
        fn the_next_use_of_a_block_is_where_it_comes(key: u64, rows in 1u64..1_000, block_bits in 0u32..5, window_blocks in 1u64..10, from in 0u64..2_000, pick: u64) {
            let order = order(key, rows, 1 << block_bits, window_blocks);
            let block = pick % order.blocks();
            let found = order.next_use(block, from);
            prop_assert!(found >= from);
            let walked = (from..).find(|n| order.block(block).contains(&order.row(&order.window(*n), *n)));
            prop_assert_eq!(Some(found), walked);
        }
    }

    #[test]
    fn few_blocks_are_one_window() {
        let order = order(1, 159, 8, 10);
        assert_eq!((order.windows, order.blocks()), (1, 20));
        assert_eq!(order.window(0).left(0), 159);
    }

    /// The stated bound, at its worst: a table of blocks that hold one kind of rows each.
    #[test]
    fn the_spread_of_a_kind_is_at_most_what_is_promised() {
        for (window_blocks, n) in [(16u64, 64u64), (64, 64), (64, 512), (256, 256)] {
            let block_rows = 32;
            // Every fourth block is of the kind.
            let rows = 8 * window_blocks * block_rows;
            let share = 0.25;
            let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
            for key in 0..60 {
                let order = order(key * 77, rows, block_rows, window_blocks);
                for (at, samples) in epoch_of(&order, 0).chunks_exact(n as usize).enumerate() {
                    // Samples of one window only, one draw a window: the bound is about independent looks.
                    if (at as u64 * n).is_multiple_of(window_blocks * block_rows) {
                        let of_kind = samples.iter().filter(|row| *row / block_rows % 4 == 0).count() as f64;
                        let found = of_kind / n as f64;
                        sum += found;
                        squares += (found - share) * (found - share);
                        count += 1.0;
                    }
                }
            }
            let uniform = share * (1.0 - share) / n as f64;
            let ratio = squares / count / uniform;
            let bound = 1.0 + (n as f64 - 1.0) / window_blocks as f64;
            // 480 looks: the estimate of a variance is off by 6.5 % (one standard error), so four of them.
            assert!(ratio <= bound * 1.26, "W {window_blocks}, n {n}: {ratio:.2} times uniform, promised {bound:.2}");
            assert!((sum / count - share).abs() < 0.02, "{}", sum / count);
            // The bound is no idle one where it says anything.
            assert!(ratio >= bound * 0.6, "W {window_blocks}, n {n}: {ratio:.2} times uniform, promised {bound:.2}");
        }
    }
}
