//! How a caller watches an ingest.
//!
//! Calls come from several threads and are cheap; a sink must not block. Deliberately absent: how it is drawn.

/// What a stage counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of raw input or of text.
    Bytes,
    /// Records.
    Records,
    /// Rows of a table.
    Rows,
}

/// Receives the progress of an ingest.
pub trait Progress: Send + Sync {
    /// A stage starts; the previous one has ended. `total` is how much it will count, where that is known.
    fn stage(&self, name: &str, total: Option<u64>, unit: Unit);
    /// The stage has counted `amount` more.
    fn advance(&self, amount: u64);
    /// Something that people want to know, one line.
    fn note(&self, line: &str);
}

/// Progress that nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn stage(&self, _name: &str, _total: Option<u64>, _unit: Unit) {}
    fn advance(&self, _amount: u64) {}
    fn note(&self, _line: &str) {}
}
