//! A coordinator takes a run up: its journal, and the fence around whoever had it before.
//!
//! Promises: of two coordinators of one run, the one that began later goes on and the other loses its next append, or sees
//! before that that it was overtaken; a run keeps the settings and the dataset version with which it began.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use forebay_schemas::checkpoint::DatasetVersionRef;
use forebay_schemas::journal::{FORMAT, JournalEntry};
use forebay_schemas::run::Run;
use forebay_store::{Checkpoints, Journal, Outcome};

use super::group::History;
use crate::error::{Error, Kind, Result};

/// A journal that this coordinator may append to.
#[derive(Debug)]
pub(crate) struct Ledger {
    journal: Journal,
    run: String,
    // Shared with whoever watches over it.
    next: Arc<AtomicU64>,
}

/// A run as its journal says it stands.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) ledger: Ledger,
    /// What its entries say.
    pub(crate) history: History,
    /// The dataset version with which the run began.
    pub(crate) dataset: DatasetVersionRef,
}

/// Begins the run or takes it over, and fences off whoever had it. `url` is where replicas will find this coordinator.
pub(crate) async fn claim(checkpoints: &Checkpoints, run: &Run, dataset: &DatasetVersionRef, url: &str, unix_ms: u64) -> Result<Claimed> {
    let journal = journal(checkpoints);
    let mut numbers = journal.numbers().await?;
    if numbers.is_empty() {
        let first = JournalEntry::Run { format: FORMAT, run: Box::new(run.clone()), config_digest: run.digest(), dataset: dataset.clone() };
        // Losing is no error here: another coordinator began the same run at the same moment, and its entry is checked.
        journal.append(0, encode(&first)?).await?;
        numbers = journal.numbers().await?;
    }
    let dataset = check_first(&journal, run).await?;
    let mut history = History::default();
    for &number in &numbers {
        history.take(&read(&journal, number).await?);
    }
    // No generation's number: it names this coordinator and what it keeps.
    history.generation += 1;
    let next = Arc::new(AtomicU64::new(numbers.last().map_or(0, |last| last + 1)));
    let mut ledger = Ledger { journal, run: run.name.clone(), next };
    ledger.append(&JournalEntry::Coordinator { generation: history.generation, unix_ms, url: url.to_owned() }).await?;
    Ok(Claimed { ledger, history, dataset })
}

/// The dataset version with which a run began; none if it has not begun.
pub async fn began_with(checkpoints: &Checkpoints) -> Result<Option<DatasetVersionRef>> {
    let journal = journal(checkpoints);
    match journal.numbers().await?.first() {
        Some(0) => match read(&journal, 0).await? {
            JournalEntry::Run { dataset, .. } => Ok(Some(dataset)),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Where the newest coordinator of a run said that it can be reached; none if it did not say.
pub(crate) async fn newest_url(checkpoints: &Checkpoints) -> Result<Option<String>> {
    let journal = journal(checkpoints);
    for number in journal.numbers().await?.into_iter().rev() {
        if let JournalEntry::Coordinator { url, .. } = read(&journal, number).await? {
            return Ok(Some(url).filter(|url| !url.is_empty()));
        }
    }
    Ok(None)
}

fn journal(checkpoints: &Checkpoints) -> Journal {
    Journal::new(checkpoints.location().child("journal"))
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
        let next = self.next.load(Ordering::Acquire);
        match self.journal.append(next, encode(entry)?).await? {
            Outcome::Committed => {
                self.next.store(next + 1, Ordering::Release);
                Ok(())
            }
            Outcome::Lost => Err(overtaken(&self.run, next)),
        }
    }

    /// Waits until another coordinator has taken the run over. One that appends nothing for a long time would not know.
    pub(crate) fn overtaken(&self, every: Duration) -> impl Future<Output = Error> + Send + 'static {
        let (journal, run, next) = (self.journal.clone(), self.run.clone(), Arc::clone(&self.next));
        async move {
            loop {
                tokio::time::sleep(every).await;
                let number = next.load(Ordering::Acquire);
                // This coordinator wrote the only one of its own before it began to watch. An entry that cannot be read now is
                // looked at again.
                if let Ok(Some(bytes)) = journal.get(number).await
                    && let Ok(JournalEntry::Coordinator { .. }) = serde_json::from_slice(&bytes)
                {
                    return overtaken(&run, number);
                }
            }
        }
    }
}

fn overtaken(run: &str, number: u64) -> Error {
    Error::new(Kind::Fenced, format!("run `{run}`: another coordinator has taken it over (journal entry {number})"))
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
