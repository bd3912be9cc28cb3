//! Where every wait of the consumer went.
//!
//! Promises: the causes add up to the time that the consumer was blocked. A wait is cut at the moments when the awaited
//! micro-batch was read, taken up by a worker and finished. Decoding and augmenting alternate sample by sample, so the
//! part of a wait in which the worker was busy is shared among its stages by the time that each took of this micro-batch.
//! Deliberately absent: what the consumer does between its calls; that is its own.

use std::time::{Duration, Instant};

use serde::Serialize;

/// Seconds for which the consumer was blocked, by what it waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Waits {
    /// Rows were not yet read from storage.
    pub request: f64,
    /// Rows were there, but every worker was busy with other micro-batches.
    pub queue: f64,
    /// A worker was decoding images.
    pub decode: f64,
    /// A worker was cropping, turning, resizing and normalising.
    pub augment: f64,
    /// A worker was putting samples into the batch: for tokens all of its work, for images the rest of it.
    pub collate: f64,
    /// The micro-batch was ready, but the consumer's thread was not yet running again.
    pub wake: f64,
}

impl Waits {
    /// Seconds for which the consumer was blocked.
    pub fn total(&self) -> f64 {
        self.request + self.queue + self.decode + self.augment + self.collate + self.wake
    }
}

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
    pub(crate) read: Instant,
    pub(crate) started: Instant,
    pub(crate) finished: Instant,
    pub(crate) work: Work,
}

impl Waits {
    /// Charges a wait from `from` to `to` for a micro-batch with this passage.
    pub(crate) fn charge(&mut self, from: Instant, to: Instant, passage: &Passage) {
        let clamp = |at: Instant| at.clamp(from, to);
        let (read, started, finished) = (clamp(passage.read), clamp(passage.started), clamp(passage.finished));
        let seconds = |a: Instant, b: Instant| b.saturating_duration_since(a).as_secs_f64();
        self.request += seconds(from, read);
        self.queue += seconds(read, started);
        self.wake += seconds(finished, to);
        let busy = seconds(started, finished);
        let total = passage.work.total().as_secs_f64();
        let share = |part: Duration| if total > 0.0 { busy * part.as_secs_f64() / total } else { 0.0 };
        let (decode, augment) = (share(passage.work.decode), share(passage.work.augment));
        self.decode += decode;
        self.augment += augment;
        self.collate += busy - decode - augment;
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
            let passage = Passage {
                read: at(stages.0),
                started: at(stages.0 + stages.1),
                finished: at(stages.0 + stages.1 + stages.2),
                work: Work {
                    decode: Duration::from_millis(work.0),
                    augment: Duration::from_millis(work.1),
                    collate: Duration::from_millis(work.2),
                },
            };
            let mut waits = Waits::default();
            waits.charge(at(wait.0), at(wait.0 + wait.1), &passage);
            prop_assert!((waits.total() - wait.1 as f64 / 1000.0).abs() < 1e-9, "{:?}", waits);
            prop_assert!([waits.request, waits.queue, waits.decode, waits.augment, waits.wake].iter().all(|part| *part >= 0.0));
            prop_assert!(waits.collate > -1e-9);
        }
    }

    #[test]
    fn each_part_of_a_wait_is_charged_to_what_happened_in_it() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let work = Work { decode: Duration::from_millis(30), augment: Duration::from_millis(10), collate: Duration::ZERO };
        let passage = Passage { read: at(100), started: at(150), finished: at(190), work };
        let mut waits = Waits::default();
        waits.charge(at(40), at(195), &passage);
        let expected = Waits { request: 0.060, queue: 0.050, decode: 0.030, augment: 0.010, collate: 0.0, wake: 0.005 };
        for (found, expected) in [
            (waits.request, expected.request),
            (waits.queue, expected.queue),
            (waits.decode, expected.decode),
            (waits.augment, expected.augment),
            (waits.collate, expected.collate),
            (waits.wake, expected.wake),
        ] {
            assert!((found - expected).abs() < 1e-9, "{waits:?}");
        }
    }
}
