//! Where every wait of the consumer went.
//!
//! Promises: the causes add up to the time that the consumer was blocked. A wait is cut at the moments when the awaited
//! micro-batch was read, taken up by a worker and finished. What reading did in the first part is known moment by moment
//! (`meter`). Decoding and augmenting alternate sample by sample, so the part of a wait in which the worker was busy is
//! shared among its stages by the time that each took of this micro-batch.
//! Deliberately absent: what the consumer does between its calls; that is its own, but for [`Waits::copy`], which it reports.

mod meter;

use std::time::{Duration, Instant};

use forebay_schemas::Waits;

pub use meter::Traffic;
pub(crate) use meter::{Meter, Reading};

/// What a worker spent on one micro-batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Work {
    pub(crate) decode: Duration,
    pub(crate) augment: Duration,
    pub(crate) collate: Duration,
}

impl Work {
    pub(crate) fn total(&self) -> Duration {
        self.decode + self.augment + self.collate
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.decode += other.decode;
        self.augment += other.augment;
        self.collate += other.collate;
    }
}

/// When a micro-batch passed which stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passage {
    /// And what reading had done until then.
    pub(crate) read: (Instant, Reading),
    pub(crate) started: Instant,
    pub(crate) finished: Instant,
    pub(crate) work: Work,
}

impl Passage {
    /// Charges `waits` with one from `from`, until when reading had done so much, to `to`, for the micro-batch of this passage.
    pub(crate) fn charge(&self, waits: &mut Waits, from: (Instant, Reading), to: Instant) {
        let (from, before) = from;
        let clamp = |at: Instant| at.clamp(from, to);
        let (read, started, finished) = (clamp(self.read.0), clamp(self.started), clamp(self.finished));
        let seconds = |a: Instant, b: Instant| b.saturating_duration_since(a).as_secs_f64();
        if self.read.0 > from {
            let reading = self.read.1.since(&before);
            // The rows cannot be there later than the batch, so nothing is cut off here.
            waits.request += reading.request.as_secs_f64();
            waits.bandwidth += reading.bandwidth.as_secs_f64();
            waits.decompress += reading.decompress.as_secs_f64();
            waits.queue += reading.idle.as_secs_f64();
        }
        waits.queue += seconds(read, started);
        waits.wake += seconds(finished, to);
        let busy = seconds(started, finished);
        let total = self.work.total().as_secs_f64();
        let share = |part: Duration| if total > 0.0 { busy * part.as_secs_f64() / total } else { 0.0 };
        let (decode, augment) = (share(self.work.decode), share(self.work.augment));
        waits.decode += decode;
        waits.augment += augment;
        waits.collate += busy - decode - augment;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn causes_add_up_to_the_wait(
            wait in (0u64..1000, 0u64..1000), stages in (0u64..1000, 0u64..1000, 0u64..1000), work in (0u64..500, 0u64..500, 0u64..500),
        ) {
            let start = Instant::now();
            let at = |ms: u64| start + Duration::from_millis(ms);
            let reads = |ms: u64| Reading { request: Duration::from_millis(ms / 3), bandwidth: Duration::from_millis(ms - ms / 3), ..Reading::default() };
            let passage = Passage {
                read: (at(stages.0), reads(stages.0)),
                started: at(stages.0 + stages.1),
                finished: at(stages.0 + stages.1 + stages.2),
                work: Work {
                    decode: Duration::from_millis(work.0),
                    augment: Duration::from_millis(work.1),
                    collate: Duration::from_millis(work.2),
                },
            };
            let mut waits = Waits::default();
            // A batch is taken when it is finished, not before.
            let to = wait.0 + wait.1.max((stages.0 + stages.1 + stages.2).saturating_sub(wait.0));
            passage.charge(&mut waits, (at(wait.0), reads(wait.0)), at(to));
            prop_assert!((waits.total() - (to - wait.0) as f64 / 1000.0).abs() < 1e-9, "{:?}", waits);
            prop_assert!(waits.causes().iter().all(|(_, part)| *part > -1e-9), "{:?}", waits);
        }
    }

    #[test]
    fn each_part_of_a_wait_is_charged_to_what_happened_in_it() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let work = Work { decode: Duration::from_millis(30), augment: Duration::from_millis(10), collate: Duration::ZERO };
        let reading = |request: u64, bandwidth: u64, decompress: u64, idle: u64| {
            let [request, bandwidth, decompress, idle] = [request, bandwidth, decompress, idle].map(Duration::from_millis);
            Reading { request, bandwidth, decompress, idle }
        };
        let passage = Passage { read: (at(100), reading(50, 20, 20, 10)), started: at(150), finished: at(190), work };
        let mut waits = Waits::default();
        passage.charge(&mut waits, (at(40), reading(20, 10, 2, 8)), at(195));
        let expected = [0.030, 0.010, 0.018, 0.052, 0.030, 0.010, 0.0, 0.005, 0.0];
        for ((cause, found), expected) in waits.causes().into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{cause}: {waits:?}");
        }
    }
}
