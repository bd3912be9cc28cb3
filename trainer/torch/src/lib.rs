//! Batches to steps to checkpoints: what a replica of a run computes, on libtorch.
//!
//! [`run`] is the loop: it takes assignments of the trainer's membership and samples of the loader, the [`engine`] turns a
//! [`model`], an optimizer and a reduction into steps, and a checkpoint is what they leave. `evaluate` and `generate` read one.
//! Promises: the gradient of step N is the mean over its K micro-batches whoever computes them; a step is applied once, after
//! it was committed. tch and libtorch appear in this crate and `c10d` alone.
//! Deliberately absent: model parallelism, and collectives between GPUs without the host (NCCL).

pub mod checkpoint;
pub mod device;
pub mod engine;
mod error;
pub mod evaluate;
pub mod generate;
pub mod model;
pub mod optim;
pub mod reduce;
mod rendezvous;
pub mod run;
mod source;

use error::{Error, Kind, Result};

/// Whether the libtorch that was loaded can do what training needs: two ranks in this process reduce, and an abort wakes one
/// that waits in vain. Returns a line for people.
pub fn self_test() -> Result<String> {
    // Before anything else of libtorch, as a replica does.
    let device = device::name(device::choose(forebay_trainer::Wish::Auto, 0)?);
    forebay_c10d::self_test().map_err(|error| Error::with_source(Kind::Internal, "libtorch", error))?;
    Ok(format!("collectives reduce and can be aborted, {} threads, trains on {device}", tch::get_num_threads()))
}
