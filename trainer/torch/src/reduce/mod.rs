//! What a replica holds of the step in work, and how the replicas sum it.
//!
//! The engine scales every micro-batch's loss by 1/K, so a sum over all of them is the mean, whatever the number of replicas.
//! One file a way: [`Fast`] lets c10d reduce in buckets while backward still runs; [`Strict`] adds in a fixed [`tree`].
//! Promises: what a replica has computed of a step survives the failure of a sum and the end of a generation: it is given to
//! the next group, until the step is applied or [`Reduction::clear`] forgets it.
//! Deliberately absent: membership. Who computes what, and whether a sum counts, is decided elsewhere.

mod fast;
mod flat;
mod strict;
pub mod tree;

use std::time::Duration;

use forebay_c10d::ProcessGroup;
use forebay_schemas::run::Reduce;
use tch::{Device, Tensor};

use crate::error::{Error, Kind, Result};
pub use fast::Fast;
pub use strict::Strict;

/// Keeps the gradients of a step in work and sums them over the replicas of a generation, all of which call the same methods
/// in the same order.
///
/// *Shares* are what a forward pass gives beside gradients, weighted as the loss is: the loss, and statistics of the batch.
pub trait Reduction {
    /// A generation begins, over `group`, or none for a replica that is alone. What is held stays.
    fn attach(&mut self, group: Option<ProcessGroup>) -> Result<()>;

    /// The generation is over; gives its group back.
    fn detach(&mut self) -> Option<ProcessGroup>;

    /// Begins a step, or goes on with one. `overlap` says that nobody holds anything of it yet; all replicas give the same.
    /// Returns whether a replica must make a backward pass even if it has no micro-batch.
    fn begin(&mut self, overlap: bool) -> Result<bool>;

    /// Before a backward pass; `last` if it is this replica's last of the step.
    fn before_backward(&mut self, last: bool) -> Result<()>;

    /// A micro-batch is computed: `.grad` of the parameters has its gradient, or that of all so far; `shares` are its own.
    fn add(&mut self, index: u32, shares: &Tensor) -> Result<()>;

    /// Waits until `.grad` of every parameter is the sum over all replicas; returns the sum of the shares. On failure, what is
    /// held is held still.
    fn sum(&mut self) -> Result<Tensor>;

    /// The sum does not count: back to what this replica had computed.
    fn take_back(&mut self) -> Result<()>;

    /// Nothing is held any more.
    fn clear(&mut self) -> Result<()>;

    /// The part of the last sum that backward did not hide.
    fn exposed(&self) -> Duration;
}

/// The reduction that the settings ask for, for a model with these parameters and `shares` values beside each gradient.
pub fn reduction(settings: Reduce, parameters: &[Tensor], shares: i64, micro_batches: u32) -> Box<dyn Reduction> {
    let parameters = parameters.iter().map(Tensor::shallow_clone).collect();
    match settings {
        Reduce::Fast => Box::new(Fast::new(parameters, shares)),
        Reduce::Strict => Box::new(Strict::new(parameters, shares, micro_batches)),
    }
}

/// Where the parameters of a model are.
fn device_of(parameters: &[Tensor]) -> Device {
    parameters.first().map_or(Device::Cpu, Tensor::device)
}

/// A collective fails because a peer died, froze or was told to stop: the step is tried again in another generation.
fn unavailable(error: forebay_c10d::Error) -> Error {
    Error::with_source(Kind::Unavailable, "the replicas of this generation are no longer connected", error)
}

fn broken(error: forebay_c10d::Error) -> Error {
    Error::with_source(Kind::Internal, "gradients", error)
}
