//! Batches to steps to checkpoints: elastic data-parallel training.
//!
//! Promises: the gradient of step N is the mean over its K micro-batches whoever computes them; a step is applied once, after
//! it was committed. tch and libtorch appear in this crate alone, behind the feature `torch`; without it only the membership,
//! its telemetry and the report are built.
//! Deliberately absent: model parallelism, and devices other than the CPU.

pub mod error;

#[cfg(feature = "torch")]
pub mod checkpoint;
#[cfg(feature = "torch")]
pub mod engine;
#[cfg(feature = "torch")]
pub mod evaluate;
#[cfg(feature = "torch")]
pub mod generate;
pub mod membership;
#[cfg(feature = "torch")]
pub mod model;
#[cfg(feature = "torch")]
pub mod optim;
#[cfg(feature = "torch")]
pub mod reduce;
pub mod report;
#[cfg(feature = "torch")]
pub mod run;
#[cfg(feature = "torch")]
mod source;
pub mod telemetry;

pub use error::{Error, Kind, Result};

/// Whether the libtorch that was loaded can do what training needs: two ranks in this process reduce, and an abort wakes one
/// that waits in vain. Returns a line for people.
#[cfg(feature = "torch")]
pub fn self_test() -> Result<String> {
    forebay_c10d::self_test().map_err(|error| Error::with_source(Kind::Internal, "libtorch", error))?;
    Ok(format!("collectives reduce and can be aborted, {} threads", tch::get_num_threads()))
}
