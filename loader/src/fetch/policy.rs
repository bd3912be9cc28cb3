//! When a read is tried again, and when it is asked for a second time before it has answered. Pure.
//!
//! Retries back off exponentially with jitter, for as long as the run has patience. A hedge (Dean and Barroso, "The tail at
//! scale", 2013) is a second request for a read that takes much longer than most; a store that is slow as a whole is
//! not asked twice as much, because the share of hedges is bounded.

use std::time::Duration;

use forebay_store::Kind;

use crate::plan::permutation::mix;

/// First wait before a retry; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait before a retry.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Reads of bytes that are not what they should be; the bytes may have been damaged on the way.
const CORRUPT_READS: u32 = 5;
/// Reads of rows that do not fit their checks.
pub(crate) const UNFIT_READS: u32 = 2;

/// Durations that are remembered.
const MEMORY: usize = 64;
/// Reads that must have been seen before one is called slow.
const ENOUGH: usize = 8;
/// No read is slow before it took so long.
const SHORTEST_HEDGE: Duration = Duration::from_millis(5);
/// One of so many reads may be hedged.
const READS_A_HEDGE: u64 = 10;

/// The wait before a read is tried again; none if it is not.
///
/// `attempts` were made, the first began `since` ago; `chance` is any number that differs between readers.
pub(crate) fn retry(kind: Kind, attempts: u32, since: Duration, patience: Duration, chance: u64) -> Option<Duration> {
    let again = match kind {
        Kind::Unavailable => true,
        Kind::Corrupt => attempts < CORRUPT_READS,
        Kind::Invalid | Kind::NotFound | Kind::Conflict | Kind::Internal => false,
    };
    let pause = FIRST_PAUSE.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    // Half of it for certain, the other half by chance.
    let jitter = (mix(chance ^ u64::from(attempts)) >> 40) as f64 / (1u64 << 24) as f64;
    let pause = pause.mul_f64(0.5 + 0.5 * jitter);
    (again && since + pause <= patience).then_some(pause)
}

/// Remembers how long reads took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies {
    recent: Vec<Duration>,
    next: usize,
    reads: u64,
    hedges: u64,
}

impl Latencies {
    /// A read took so long.
    pub(crate) fn took(&mut self, time: Duration) {
        self.reads += 1;
        if self.recent.len() < MEMORY {
            self.recent.push(time);
        } else {
            self.recent[self.next % MEMORY] = time;
        }
        self.next += 1;
    }

    /// After how long a read is asked for again: `factor` times the median; none if it is not, because `factor` is 0 or
    /// nothing is known yet.
    pub(crate) fn hedge_after(&self, factor: f64) -> Option<Duration> {
        if factor <= 0.0 || self.recent.len() < ENOUGH {
            return None;
        }
        let mut sorted = self.recent.clone();
        let middle = sorted.len() / 2;
        let (_, median, _) = sorted.select_nth_unstable(middle);
        Some(median.mul_f64(factor).max(SHORTEST_HEDGE))
    }

    /// Whether one more read may be hedged; counts it.
    pub(crate) fn hedge(&mut self) -> bool {
        let may = self.hedges < 2 + self.reads / READS_A_HEDGE;
        self.hedges += u64::from(may);
        may
    }

    /// Reads that were asked for twice.
    pub(crate) fn hedges(&self) -> u64 {
        self.hedges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn retries_end_and_never_outlast_the_patience(chance: u64, patience in 0u64..200_000, took in 0u64..3_000) {
            let (patience, took) = (Duration::from_millis(patience), Duration::from_millis(took));
            let (mut since, mut attempts, mut last) = (took, 1, Duration::ZERO);
            while let Some(pause) = retry(Kind::Unavailable, attempts, since, patience, chance) {
                prop_assert!(pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE);
                prop_assert!(pause >= last / 2, "{:?} after {:?}", pause, last);
                since += pause;
                prop_assert!(since <= patience);
                (attempts, last, since) = (attempts + 1, pause, since + took);
            }
        }
    }

    #[test]
    fn what_cannot_get_better_is_not_tried_again() {
        let patience = Duration::from_secs(60);
        for kind in [Kind::Invalid, Kind::NotFound, Kind::Internal, Kind::Conflict] {
            assert_eq!(retry(kind, 1, Duration::ZERO, patience, 0), None);
        }
        let corrupt = |attempts| retry(Kind::Corrupt, attempts, Duration::ZERO, patience, 0).is_some();
        assert_eq!([corrupt(1), corrupt(4), corrupt(5)], [true, true, false]);
    }

    #[test]
    fn only_what_is_slower_than_most_is_hedged_and_only_so_often() {
        let mut latencies = Latencies::default();
        for _ in 0..7 {
            latencies.took(Duration::from_millis(10));
            assert_eq!(latencies.hedge_after(4.0), None);
        }
        (0..100).for_each(|i| latencies.took(Duration::from_millis(if i % 10 == 0 { 1000 } else { 10 })));
        assert_eq!(latencies.hedge_after(4.0), Some(Duration::from_millis(40)));
        assert_eq!(latencies.hedge_after(0.0), None);
        assert_eq!((0..50).filter(|_| latencies.hedge()).count(), 12);
        assert_eq!(latencies.hedges(), 12);
    }
}
