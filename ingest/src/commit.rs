//! From written tables to a committed version: count again, then put the manifest.
//!
//! Promises: a version whose records do not add up is never committed; one that is already there is not committed again.
//! Deliberately absent: the commit rule itself, which is the store's.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use forebay_schemas::dataset::{self, CleanedTask, DatasetManifest, Inputs, Modality, ObjectRef};
use forebay_schemas::id::Digest;
use forebay_schemas::record;
use forebay_store as store;

use crate::dedup::{Cleaned, Ledger};
use crate::error::{Error, Kind, Result};
use crate::plan::{Job, Outcome, program};
use crate::tables::Made;

/// Attempts to commit when others keep committing first.
const COMMIT_ATTEMPTS: usize = 16;

impl Job<'_> {
    /// Commits the version of `ledger` and `made`, or finds that it is there already.
    pub(crate) async fn commit(&self, cleaned: &Cleaned, ledger: Ledger, made: Made) -> Result<Outcome> {
        // Counted again by those who wrote the rows, not by those who decided them.
        let read = made.tables.get(record::RECORDS).map_or(0, |table| table.rows);
        if made.written != made.expected || read != ledger.tally.read {
            let found = format!("{} records and {read} ledger rows", made.written);
            let message = format!("records were lost or doubled: wrote {found}, expected {} and {}", made.expected, ledger.tally.read);
            return Err(Error::new(Kind::Internal, message));
        }
        let list = self.dataset.put_object(Bytes::from(self.inputs.clone()), ".jsonl").await?;
        let config = serde_json::to_value(self.pipeline).map_err(|error| Error::internal("writing the configuration failed", error))?;
        let inputs = Inputs {
            url: self.source.settings.url.clone(),
            objects: self.source.objects.len() as u64,
            bytes: self.source.bytes(),
            digest: self.inputs_digest,
            list,
        };
        let before = self.known.as_ref().map(|known| &known.manifest);
        let layout = before.map(|before| {
            let rows = ledger.rows_digest.to_bytes();
            Digest::of_parts([before.identity().as_bytes().as_slice(), &rows])
        });
        // Of pictures a later version needs what the index says, not the pixels.
        let cleaned = match self.pipeline.source.modality {
            Modality::Text => Some(self.put_cleaned(cleaned).await?),
            Modality::Images => None,
        };
        let mut manifest = DatasetManifest {
            format: dataset::FORMAT,
            version: 0,
            parent: None,
            created_unix_ms: unix_ms(),
            program: program(),
            modality: self.pipeline.source.modality,
            config_digest: self.setup,
            config,
            inputs,
            tally: ledger.tally,
            rows_digest: ledger.rows_digest,
            tables: made.tables,
            tokenizer: made.tokenizer,
            statistics: made.statistics,
            layout,
            cleaned,
            quality: ledger.quality,
        };
        for _ in 0..COMMIT_ATTEMPTS {
            let latest = self.dataset.latest().await?;
            // Somebody else may have ingested the same meanwhile.
            if let Some(latest) = latest.as_ref().filter(|latest| latest.identity() == manifest.identity()) {
                return Ok(Outcome::unchanged(latest.clone()));
            }
            // What adds to a version says nothing of what was committed since; it must be made again.
            if before.is_some_and(|before| latest.as_ref().is_none_or(|latest| latest.version != before.version)) {
                break;
            }
            manifest.parent = latest.as_ref().map(|latest| latest.version);
            manifest.version = manifest.parent.unwrap_or(0) + 1;
            if self.dataset.commit(&manifest).await? == store::Outcome::Committed {
                return Ok(Outcome::Committed(manifest));
            }
        }
        Err(Error::new(Kind::Conflict, format!("dataset `{}`: others committed first, run it again", self.pipeline.dataset)))
    }

    /// Stores the list of all cleaned tasks, those of the parent first.
    async fn put_cleaned(&self, cleaned: &Cleaned) -> Result<ObjectRef> {
        let mut tasks = self.known.as_ref().map(|known| known.tasks.clone()).unwrap_or_default();
        for parts in cleaned.parts.chunk_by(|a, b| a.task == b.task) {
            let records = parts.iter().map(|part| part.rows).sum();
            tasks.push(CleanedTask { folder: self.cleaned_folder(), task: parts[0].task as u32, records });
        }
        let mut lines = Vec::new();
        for task in &tasks {
            serde_json::to_writer(&mut lines, task).map_err(|error| Error::internal("writing the list of tasks failed", error))?;
            lines.push(b'\n');
        }
        Ok(self.dataset.put_object(Bytes::from(lines), ".jsonl").await?)
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
