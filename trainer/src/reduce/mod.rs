//! How the gradients of a step are summed over the replicas.
//!
//! The engine scales every micro-batch's loss by 1/K, so a sum over all of them is the mean, whatever the number of replicas.
//! One file a way: [`Fast`] lets c10d reduce in buckets while backward still runs; [`Alone`] is for one replica.
//! Deliberately absent: membership. A reduction belongs to one generation and is used up by its first failure.

mod fast;

use std::time::Duration;

use tch::Tensor;

use crate::error::Result;
pub use fast::Fast;

/// Sums gradients and small values over the replicas of a generation; all of them must call the same methods in the same order.
pub trait Reduction {
    /// Begins a step, before its first forward pass, while no gradient is set.
    fn begin(&mut self) -> Result<()>;

    /// Says that the next backward pass is the last of the step: the sum of all gradients is wanted after it.
    fn before_last_backward(&mut self) -> Result<()>;

    /// Waits until the gradients are summed; returns the part of the time that backward did not hide.
    fn finish(&mut self) -> Result<Duration>;

    /// Replaces a small tensor by its sum over the replicas.
    fn sum(&mut self, values: &Tensor) -> Result<()>;
}

/// The reduction of a single replica: nothing to do.
#[derive(Debug, Default)]
pub struct Alone;

impl Reduction for Alone {
    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    fn before_last_backward(&mut self) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> Result<Duration> {
        Ok(Duration::ZERO)
    }

    fn sum(&mut self, _values: &Tensor) -> Result<()> {
        Ok(())
    }
}
