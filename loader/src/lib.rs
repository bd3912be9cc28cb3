//! Dataset version to a stream of batches.
//!
//! The order is a function: the rows of micro-batch m of step N follow from (dataset version, seed, N, m) alone, see
//! [`plan`]. So a position is one number, any replica can take any micro-batch, and starting at any step costs the same.
//! Modules in the order of the flow: sources become a plan that says which rows, they are fetched, through a cache if there
//! is one, decoded, augmented and put into a batch, all ahead of the consumer, and every wait that remains is accounted for.
//! Deliberately absent: progress (the trainer commits it), ranks and world sizes, and devices.

pub mod batch;
pub mod bench;
pub mod error;
pub mod loader;
pub mod plan;
pub mod prefetch;
pub mod sources;

mod augment;
mod cache;
mod decode;
mod fetch;
mod machine;
mod quarantine;
#[cfg(test)]
mod simulation;
mod stall;

pub use batch::{Arena, Batch, Block, Documents, Masked, Masking, Memory, MicroBatch, Numbers, Replaced, Transform, pin};
pub use bench::{Bare, BenchOptions, BenchReport, bench};
pub use cache::Counts;
pub use error::{Error, Kind, Result};
pub use loader::Loader;
pub use plan::{Draw, MicroBatchPlan, Plan};
pub use prefetch::{Sequential, Stopper, Stream, StreamOptions, Work};
pub use sources::{Ordering, Resolved, Sourced, resolve};
pub use stall::Traffic;
