//! Raw objects to a committed dataset version: list, clean, dedup, tokenise, shard, commit.
//!
//! Promises: the kept rows are a function of the content of the input and of the configuration alone, not of the number
//! of threads, the order of files or the cut into tasks; `read = kept + removed + quarantined` is checked before the
//! commit; a killed run, started again, goes on from its finished tasks and leaves nothing doubled.
//! Deliberately absent: reading rows back (the loader's), and any judgement about what good text is beyond the
//! configured rules.

mod clean;
mod commit;
mod dedup;
mod engine;
mod error;
mod letters;
mod plan;
mod progress;
pub mod report;
mod shard;
mod source;
mod splitmix;
mod stage;
mod tables;

pub use dedup::Reject;
pub use error::{Error, Kind, Result};
pub use plan::{Ingested, Options, Outcome, ingest};
pub use progress::{Progress, Silent, Unit};

#[cfg(test)]
mod tests;
