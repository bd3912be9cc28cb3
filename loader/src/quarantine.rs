//! Samples that did not decode, written where a person finds them: one JSON object a row.
//!
//! Promises: the same object whoever comes upon the row and however often, so replicas need not agree on who writes it; a
//! quarantine that cannot be written costs a warning, not the run.

use std::sync::Arc;

use forebay_schemas::Digest;
use forebay_store::Location;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::batch::Replaced;

/// Where bad samples are written.
pub(crate) struct Quarantine {
    location: Location,
    split: String,
    /// Identity of each source.
    sources: Vec<Digest>,
}

#[derive(Serialize)]
struct Entry<'a> {
    identity: Digest,
    split: &'a str,
    row: u64,
    reason: &'a str,
}

impl Quarantine {
    pub(crate) fn new(location: Location, split: &str, sources: Vec<Digest>) -> Arc<Self> {
        Arc::new(Self { location, split: split.to_owned(), sources })
    }

    /// Writes in the background.
    pub(crate) fn add(self: &Arc<Self>, runtime: &Handle, replaced: &[Replaced]) {
        for one in replaced {
            let Some(identity) = self.sources.get(one.source as usize).copied() else { continue };
            let (this, row) = (Arc::clone(self), one.row);
            let Ok(entry) = serde_json::to_vec_pretty(&Entry { identity, split: &self.split, row, reason: &one.reason }) else { continue };
            runtime.spawn(async move {
                let path = format!("{}/{}-{row:012}.json", identity.short(), this.split);
                if let Err(error) = this.location.put(&path, entry.into()).await {
                    tracing::warn!(%error, row, "a bad sample cannot be written to the quarantine");
                }
            });
        }
    }
}
