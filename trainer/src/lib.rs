//! Who trains what: the membership of an elastic run, its telemetry and its report.
//!
//! Promises: step N is committed once, whichever replicas come and go; see [`membership`].
//! Deliberately absent: tensors. What a replica computes is `torch/`'s, a crate of its own, so that a coordinator, or a
//! command that trains nothing, does not load libtorch.

mod device;
pub mod error;
pub mod membership;
pub mod report;
pub mod telemetry;

pub use device::Wish;
pub use error::{Error, Kind, Result};
