//! A coordinator takes a run up: its journal, and the fence around whoever had it before.
//!
//! Promises: of two coordinators of one run, the one that began later goes on and the other loses its next append; a run
//! keeps the settings and the dataset version with which it began.

use bytes::Bytes;
use forebay_schemas::checkpoint::DatasetVersionRef;
use forebay_schemas::run::Run;
use forebay_schemas::wire::JournalEntry;
use forebay_store::{Checkpoints, Journal, Outcome};

use crate::error::{Error, Kind, Result};

const FORMAT: u32 = 1;

/// A journal that this coordinator may append to.
#[derive(Debug)]
pub(crate) struct Ledger {
    journal: Journal,
    run: String,
    next: u64,
}

/// A run as its journal says it stands.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) ledger: Ledger,
    /// The first generation that was never used.
    pub(crate) first_generation: u64,
    /// The dataset version with which the run began.
    pub(crate) dataset: DatasetVersionRef,
}

/// Begins the run or takes it over, and fences off whoever had it.
pub(crate) async fn claim(checkpoints: &Checkpoints, run: &Run, dataset: &DatasetVersionRef, unix_ms: u64) -> Result<Claimed> {
    let journal = Journal::new(checkpoints.location().child("journal"));
    let mut numbers = journal.numbers().await?;
    if numbers.is_empty() {
        let first = JournalEntry::Run { format: FORMAT, run: Box::new(run.clone()), config_digest: run.digest(), dataset: dataset.clone() };
        // Losing is no error here: another coordinator began the same run at the same moment, and its entry is checked.
        journal.append(0, encode(&first)?).await?;
        numbers = journal.numbers().await?;
    }
    let dataset = check_first(&journal, run).await?;
    let mut last_generation = 0;
    for &number in &numbers {
        let generation = match read(&journal, number).await? {
            JournalEntry::Run { .. } => 0,
            JournalEntry::Coordinator { generation, .. }
            | JournalEntry::Generation { generation, .. }
            | JournalEntry::Checkpoint { generation, .. } => generation,
        };
        last_generation = last_generation.max(generation);
    }
    let first_generation = last_generation + 1;
    let mut ledger = Ledger { journal, run: run.name.clone(), next: numbers.last().map_or(0, |last| last + 1) };
    ledger.append(&JournalEntry::Coordinator { generation: first_generation, unix_ms }).await?;
    Ok(Claimed { ledger, first_generation, dataset })
}

async fn check_first(journal: &Journal, run: &Run) -> Result<DatasetVersionRef> {
    match read(journal, 0).await? {
        JournalEntry::Run { format, .. } if format > FORMAT => {
            let message = format!("run `{}`: its journal has format {format}, expected at most {FORMAT}", run.name);
            Err(Error::new(Kind::Invalid, message))
        }
        JournalEntry::Run { config_digest, dataset, .. } if config_digest == run.digest() => Ok(dataset),
        JournalEntry::Run { config_digest, .. } => {
            let (found, expected) = (run.digest().short(), config_digest.short());
            let message = format!(
                "run `{}` exists with other settings: digest {found}, expected {expected}; choose another name, or the settings with which it began",
                run.name
            );
            Err(Error::new(Kind::Invalid, message))
        }
        other => Err(Error::new(Kind::Corrupt, format!("run `{}`: journal entry 0 is {other:?}, expected the run", run.name))),
    }
}

impl Ledger {
    /// Appends; `Fenced` if another coordinator has taken the run over.
    pub(crate) async fn append(&mut self, entry: &JournalEntry) -> Result<()> {
        match self.journal.append(self.next, encode(entry)?).await? {
            Outcome::Committed => {
                self.next += 1;
                Ok(())
            }
            Outcome::Lost => {
                let message = format!("run `{}`: another coordinator has taken it over (journal entry {})", self.run, self.next);
                Err(Error::new(Kind::Fenced, message))
            }
        }
    }
}

async fn read(journal: &Journal, number: u64) -> Result<JournalEntry> {
    let bytes = journal.get(number).await?;
    let bytes = bytes.ok_or_else(|| Error::new(Kind::Corrupt, format!("journal entry {number} is missing")))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::with_source(Kind::Corrupt, format!("journal entry {number}: cannot be read"), error))
}

fn encode(entry: &JournalEntry) -> Result<Bytes> {
    serde_json::to_vec(entry).map(Bytes::from).map_err(|error| Error::with_source(Kind::Internal, "journal entry", error))
}
