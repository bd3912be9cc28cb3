//! Object storage, the commit rule, dataset versions and checkpoints.
//!
//! The rule: write immutable objects, then put the next manifest *if absent*. Nothing is visible before its manifest; a
//! crash leaves only garbage that [`Dataset::gc`] finds.
//! Deliberately absent: what the rows mean, and caching (the loader's).

mod cause;
pub mod checkpoint;
pub mod commit;
pub mod dataset;
pub mod error;
pub mod location;
mod manifest;
pub mod table;

pub use checkpoint::Checkpoints;
pub use commit::{Journal, Outcome};
pub use dataset::{CLEANED, Dataset, VersionSpec, WORK};
pub use error::{Error, Kind, Result};
pub use location::{Location, Watch};
pub use table::{Direct, GAP_BYTES, RowRanges, Table, Tables};
