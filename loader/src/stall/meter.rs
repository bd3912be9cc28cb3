//! What reading does at each moment, for how long it did it, and what it took from storage.
//!
//! Many reads are under way at a time, so what is measured is not each of them but the whole: while any answer's bytes
//! arrive it is the link, else while any request is unanswered it is the store, else while any read is not finished it is
//! the format's reader. Promises: the parts add up to the time, exactly, between any two looks.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay_store::Watch;
use serde::Serialize;

/// How long reading did what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Requests were unanswered, or waited to be made again.
    pub(crate) request: Duration,
    /// Answers arrived.
    pub(crate) bandwidth: Duration,
    /// Nothing was on its way, but rows were not there yet: they were unpacked, or read from a local disk.
    pub(crate) decompress: Duration,
    /// Nothing was read.
    pub(crate) idle: Duration,
}

impl Reading {
    /// What was added since an earlier look.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            request: self.request.saturating_sub(earlier.request),
            bandwidth: self.bandwidth.saturating_sub(earlier.bandwidth),
            decompress: self.decompress.saturating_sub(earlier.decompress),
            idle: self.idle.saturating_sub(earlier.idle),
        }
    }
}

/// What was taken from a store that is not a local disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Requests that are over, those that failed or were given up included.
    pub requests: u64,
    /// Bytes that they brought: of rows, and of what tables say of themselves.
    pub bytes: u64,
}

/// Counts what is under way.
pub(crate) struct Meter {
    state: Mutex<State>,
}

struct State {
    reads: u32,
    requests: u32,
    answers: u32,
    since: Instant,
    reading: Reading,
    traffic: Traffic,
}

impl State {
    /// Charges the time until now.
    fn settle(&mut self) -> Instant {
        // Under the lock, so that one look never comes before another that was taken first.
        let now = Instant::now();
        let part = match self {
            Self { answers: 1.., reading, .. } => &mut reading.bandwidth,
            Self { requests: 1.., reading, .. } => &mut reading.request,
            Self { reads: 1.., reading, .. } => &mut reading.decompress,
            Self { reading, .. } => &mut reading.idle,
        };
        *part += now.saturating_duration_since(self.since);
        self.since = now;
        now
    }
}

impl Default for Meter {
    fn default() -> Self {
        let state =
            State { reads: 0, requests: 0, answers: 0, since: Instant::now(), reading: Reading::default(), traffic: Traffic::default() };
        Self { state: Mutex::new(state) }
    }
}

impl Meter {
    /// The time, and what was done until then.
    pub(crate) fn look(&self) -> (Instant, Reading) {
        let mut state = self.lock();
        (state.settle(), state.reading)
    }

    /// What was taken from storage so far.
    pub(crate) fn traffic(&self) -> Traffic {
        self.lock().traffic
    }

    /// A read of rows, until it is dropped.
    pub(crate) fn read(&self) -> UnderWay<'_> {
        self.change(|state| state.reads += 1);
        UnderWay { meter: self, end: |state| state.reads -= 1 }
    }

    /// A wait for the store before a request is made again, until it is dropped.
    pub(crate) fn pause(&self) -> UnderWay<'_> {
        self.change(|state| state.requests += 1);
        UnderWay { meter: self, end: |state| state.requests -= 1 }
    }

    fn change(&self, by: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        state.settle();
        by(&mut state);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch for Meter {
    fn asked(&self) {
        self.change(|state| state.requests += 1);
    }

    fn answered(&self) {
        self.change(|state| {
            state.requests -= 1;
            state.answers += 1;
        });
    }

    fn ended(&self, got: Option<u64>) {
        self.change(|state| {
            match got {
                Some(_) => state.answers -= 1,
                None => state.requests -= 1,
            }
            state.traffic.requests += 1;
            state.traffic.bytes += got.unwrap_or(0);
        });
    }
}

/// Something under way.
pub(crate) struct UnderWay<'a> {
    meter: &'a Meter,
    end: fn(&mut State),
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.meter.change(self.end);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn time_is_charged_to_the_stage_nearest_to_its_end() {
        // The time itself is what is measured here.
        let pause = || std::thread::sleep(Duration::from_millis(3));
        let meter = Meter::default();
        let (began, none) = meter.look();
        pause();
        let one = meter.read();
        pause();
        meter.asked();
        pause();
        meter.asked();
        meter.answered();
        pause();
        meter.ended(Some(300));
        pause();
        meter.ended(None);
        pause();
        drop(one);
        let (ended, all) = meter.look();
        let found = all.since(&none);
        let least = |part: Duration, pauses: u32| assert!(part >= Duration::from_millis(3) * pauses, "{found:?}");
        least(found.idle, 1);
        least(found.decompress, 2);
        least(found.request, 2);
        least(found.bandwidth, 1);
        assert_eq!(found.idle + found.decompress + found.request + found.bandwidth, ended - began);
        assert_eq!(meter.traffic(), Traffic { requests: 2, bytes: 300 });
    }

    proptest! {
        #[test]
        fn the_parts_are_the_time_whatever_happens(events in prop::collection::vec(0u8..5, 0..60)) {
            let meter = Meter::default();
            let (began, none) = meter.look();
            let (mut reads, mut asked, mut answered) = (Vec::new(), 0, 0);
            for event in events {
                match event {
                    0 => reads.push(meter.read()),
                    1 => { meter.asked(); asked += 1; }
                    2 if asked > 0 => { meter.answered(); asked -= 1; answered += 1; }
                    3 if answered > 0 => { meter.ended(Some(1)); answered -= 1; }
                    4 if asked > 0 => { meter.ended(None); asked -= 1; }
                    _ => drop(reads.pop()),
                }
            }
            let (ended, all) = meter.look();
            let found = all.since(&none);
            prop_assert_eq!(found.idle + found.decompress + found.request + found.bandwidth, ended - began);
        }
    }
}
