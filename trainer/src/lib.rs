//! Batches to steps to checkpoints: elastic data-parallel training.
//!
//! Promises: the gradient of step N is the mean over its K micro-batches whoever computes them; a step is applied once, after
//! it was committed. tch and libtorch appear in this crate alone, behind the feature `torch`; without it only the membership,
//! the coordinator and the report are built.
//! Deliberately absent: model parallelism, and devices other than the CPU.

pub mod error;
#[cfg(feature = "torch")]
pub mod checkpoint;
#[cfg(feature = "torch")]
pub mod engine;
pub mod membership;
#[cfg(feature = "torch")]
pub mod model;
#[cfg(feature = "torch")]
pub mod optim;
#[cfg(feature = "torch")]
pub mod reduce;
pub mod telemetry;

pub use error::{Error, Kind, Result};
