//! From written tables to a committed version: count again, then put the manifest.
//!
//! Promises: a version whose records do not add up is never committed; one that is already there is not committed again.
//! Deliberately absent: the commit rule itself, which is the store's.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use forebay_schemas::dataset::{self, DatasetManifest, Inputs, Statistics, TableRef, TokenizerRef};
use forebay_schemas::record;
use forebay_store as store;

use crate::dedup::Ledger;
use crate::error::{Error, Kind, Result};
use crate::plan::{Job, Outcome, program};

/// Attempts to commit when others keep committing first.
const COMMIT_ATTEMPTS: usize = 16;

/// The tables of a version and what was measured on the way.
pub(crate) struct Made {
    /// Records counted while they were written.
    pub(crate) written: u64,
    /// Training rows, validation rows, ledger.
    pub(crate) tables: [TableRef; 3],
    pub(crate) tokenizer: Option<TokenizerRef>,
    pub(crate) statistics: Statistics,
}

impl Job<'_> {
    /// Commits the version of `ledger` and `made`, or finds that it is there already.
    pub(crate) async fn commit(&self, ledger: Ledger, made: Made) -> Result<Outcome> {
        // Counted again by those who wrote the rows, not by those who decided them.
        if made.written != ledger.tally.kept || made.tables[2].rows != ledger.tally.read {
            let found = format!("{} records and {} ledger rows", made.written, made.tables[2].rows);
            let message = format!("records were lost or doubled: wrote {found}, expected {} and {}", ledger.tally.kept, ledger.tally.read);
            return Err(Error::new(Kind::Internal, message));
        }
        let list = self.dataset.put_object(Bytes::from(self.inputs.clone()), ".jsonl").await?;
        let names = [record::TRAIN, record::VALIDATION, record::RECORDS].map(str::to_owned);
        let config = serde_json::to_value(self.pipeline).map_err(|error| Error::internal("writing the configuration failed", error))?;
        let inputs = Inputs {
            url: self.source.url.clone(),
            objects: self.source.objects.len() as u64,
            bytes: self.source.bytes(),
            digest: self.inputs_digest,
            list,
        };
        let mut manifest = DatasetManifest {
            format: dataset::FORMAT,
            version: 0,
            parent: None,
            created_unix_ms: unix_ms(),
            program: program(),
            modality: self.pipeline.source.modality,
            config_digest: self.pipeline.digest(),
            config,
            inputs,
            tally: ledger.tally,
            rows_digest: ledger.rows_digest,
            tables: names.into_iter().zip(made.tables).collect(),
            tokenizer: made.tokenizer,
            statistics: made.statistics,
        };
        for _ in 0..COMMIT_ATTEMPTS {
            let latest = self.dataset.latest().await?;
            manifest.parent = latest.as_ref().map(|latest| latest.version);
            manifest.version = manifest.parent.unwrap_or(0) + 1;
            // Somebody else may have ingested the same meanwhile.
            if let Some(latest) = latest.filter(|latest| latest.identity() == manifest.identity()) {
                return Ok(Outcome::Unchanged(latest));
            }
            if self.dataset.commit(&manifest).await? == store::Outcome::Committed {
                return Ok(Outcome::Committed(manifest));
            }
        }
        Err(Error::new(Kind::Conflict, format!("dataset `{}`: others committed first {COMMIT_ATTEMPTS} times", self.pipeline.dataset)))
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
