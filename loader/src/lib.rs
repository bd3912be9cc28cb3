//! Dataset version to a stream of batches.
//!
//! The order is a function: the rows of micro-batch m of step N follow from (dataset version, seed, N, m) alone, see
//! [`plan`]. So a position is one number, any replica can take any micro-batch, and starting at any step costs the same.
//! Modules in the order of the flow: a plan says which rows, they are fetched, decoded, augmented and put into a batch,
//! all ahead of the consumer, and every wait that remains is accounted for.
//! Deliberately absent: progress (the trainer commits it), ranks and world sizes, devices, and a cache.

pub mod batch;
pub mod bench;
pub mod error;
pub mod loader;
pub mod plan;
pub mod prefetch;
pub mod stall;

mod augment;
mod decode;
mod fetch;

pub use batch::{Batch, MicroBatch, Transform};
pub use bench::{BenchReport, bench};
pub use error::{Error, Kind, Result};
pub use loader::Loader;
pub use plan::{Draw, MicroBatchPlan, Plan};
pub use prefetch::{Sequential, Stopper, Stream, StreamOptions, Work};
pub use stall::Waits;
