//! The contract: every type of Forebay that is durable or crosses a process.
//!
//! Pure data: no I/O, no clock, no async. Whatever is written to storage or sent between processes is declared here,
//! carries a format version where it is durable, and has its past bytes kept under `golden/`.
//! Deliberately absent: behaviour. How a version is committed is `store`'s, how rows are made is `ingest`'s.

pub mod check;
pub mod checkpoint;
pub mod dataset;
pub mod id;
pub mod ids;
pub mod journal;
pub mod pipeline;
pub mod position;
pub mod record;
pub mod run;
pub mod settings;
pub mod units;
pub mod waits;
pub mod wire;

pub use id::{Digest, RowsDigest};
pub use ids::TokenIds;
pub use position::Position;
pub use waits::Waits;
