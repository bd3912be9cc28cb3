//! The account of what a consumer of samples waited for.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Seconds for which the consumer could not compute, by what it waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Waits {
    /// Rows were not yet read, and requests to storage were unanswered.
    pub request: f64,
    /// Rows were not yet read, and answers were arriving.
    pub bandwidth: f64,
    /// All bytes had arrived, or are on a local disk, and were being made rows.
    pub decompress: f64,
    /// Nothing was read, because what waits fills the bound; or rows were there, but every worker had other micro-batches.
    pub queue: f64,
    /// A worker was decoding images, or making tokens of text.
    pub decode: f64,
    /// A worker was cropping, turning, resizing, changing colours and normalising, or hiding tokens.
    pub augment: f64,
    /// A worker was putting samples into the batch: of stored tokens all of its work, else the rest of it.
    pub collate: f64,
    /// The micro-batch was ready, but the consumer's thread was not yet running again.
    pub wake: f64,
    /// The consumer was copying a batch to where it computes.
    pub copy: f64,
}

impl Waits {
    /// Each cause with its name, in the order in which a sample meets them.
    pub fn causes(&self) -> [(&'static str, f64); 9] {
        [
            ("request", self.request),
            ("bandwidth", self.bandwidth),
            ("decompress", self.decompress),
            ("queue", self.queue),
            ("decode", self.decode),
            ("augment", self.augment),
            ("collate", self.collate),
            ("wake", self.wake),
            ("copy", self.copy),
        ]
    }

    /// Seconds of all causes.
    pub fn total(&self) -> f64 {
        self.causes().iter().map(|(_, seconds)| seconds).sum()
    }

    /// What was waited after `before`, an earlier state of the same account.
    pub fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        since.each().into_iter().zip(before.causes()).for_each(|(mine, (_, theirs))| *mine -= theirs);
        since
    }

    /// The mean of several accounts; nothing of none.
    pub fn mean<'a>(of: impl IntoIterator<Item = &'a Self>) -> Self {
        let (mut mean, mut count) = (Self::default(), 0.0);
        for waits in of {
            mean += *waits;
            count += 1.0;
        }
        mean.each().into_iter().for_each(|seconds| *seconds /= f64::max(count, 1.0));
        mean
    }

    /// As in [`Self::causes`].
    fn each(&mut self) -> [&mut f64; 9] {
        let Self { request, bandwidth, decompress, queue, decode, augment, collate, wake, copy } = self;
        [request, bandwidth, decompress, queue, decode, augment, collate, wake, copy]
    }
}

impl AddAssign for Waits {
    fn add_assign(&mut self, other: Self) {
        self.each().into_iter().zip(other.causes()).for_each(|(mine, (_, theirs))| *mine += theirs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_there_since_and_the_mean_is_between() {
        let one = Waits { request: 1.0, queue: 0.5, copy: 2.0, ..Waits::default() };
        let mut sum = one;
        sum += Waits { request: 0.25, wake: 4.0, ..Waits::default() };
        assert_eq!(sum.since(&one), Waits { request: 0.25, wake: 4.0, ..Waits::default() });
        assert_eq!(Waits::mean([&one, &Waits::default()]), Waits { request: 0.5, queue: 0.25, copy: 1.0, ..Waits::default() });
        assert_eq!((sum.total(), Waits::mean([])), (7.75, Waits::default()));
    }
}
