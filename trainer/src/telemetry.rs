//! What happened in a run, one JSON object a line: for the progress bar while it happens, and kept for the report.
//!
//! Promises: events are kept beside the checkpoints at every checkpoint and at the end, in order. What happened after the
//! last checkpoint of a coordinator that was killed is not kept; neither are the steps, which are computed again.
//! Deliberately absent: metrics servers and sampling. A step is one event.

use bytes::Bytes;
use forebay_schemas::Digest;
use forebay_schemas::checkpoint::DatasetVersionRef;
use forebay_schemas::wire::Timings;
use forebay_store::Checkpoints;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
pub use crate::membership::group::Cause;

const FOLDER: &str = "telemetry";

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, milliseconds since 1970 UTC.
    pub unix_ms: u64,
    /// The generation at that time; 0 before the first.
    pub generation: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A coordinator took the run up.
    RunStarted {
        /// Name of the run.
        run: String,
        /// The step that comes next.
        step: u64,
        /// Steps of the run.
        steps: u64,
        /// What it reads.
        dataset: DatasetVersionRef,
    },
    /// A replica was let in; it takes part from the next generation.
    ReplicaJoined {
        /// Its name.
        replica: String,
        /// Its host.
        host: String,
        /// Its process id.
        pid: u32,
    },
    /// A replica is out, or had another state than the others and lost that.
    ReplicaLost {
        /// Its name.
        replica: String,
        /// Why.
        cause: Cause,
        /// The same for people.
        detail: String,
        /// Committed steps at that time.
        step: u64,
    },
    /// A collective failed, though nobody is known to be dead.
    GenerationFailed {
        /// What was reported.
        reason: String,
        /// Committed steps at that time.
        step: u64,
    },
    /// A generation was formed. A `step` smaller than the number of committed steps before it means that these were lost.
    GenerationFormed {
        /// Names by rank.
        members: Vec<String>,
        /// Why there is a new one.
        reason: String,
        /// The step that comes next.
        step: u64,
    },
    /// A step was committed. If a step number comes again, the later event counts.
    StepCommitted {
        /// Its number, from 0.
        step: u64,
        /// Mean loss of its samples; none if it is not finite.
        loss: Option<f64>,
        /// Samples in it.
        samples: u64,
        /// Digest over the digests of its micro-batches in index order: the same for the same samples, whoever computed it.
        samples_digest: Digest,
        /// Since the commit before it, or since its generation was formed.
        seconds: f64,
        /// Replicas that computed it.
        world: u32,
        /// Where its time went, mean over the replicas.
        timings: Timings,
    },
    /// A checkpoint was published.
    CheckpointPublished {
        /// Its step.
        step: u64,
        /// Digest of its weights.
        weights_sha256: String,
    },
    /// All steps are committed and the last checkpoint is published.
    RunFinished {
        /// Steps.
        step: u64,
        /// Since this coordinator took the run up.
        seconds: f64,
    },
}

/// Is told every event as it happens; must not block.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _event: &Event) {}
}

/// All kept events of a run, in order.
pub async fn read_events(checkpoints: &Checkpoints) -> Result<Vec<Event>> {
    let location = checkpoints.location();
    let found: Vec<_> = location.list(FOLDER).try_collect().await?;
    let mut names: Vec<String> = found.iter().filter_map(|meta| location.relative(&meta.location)).collect();
    names.sort();
    let mut events = Vec::new();
    for name in names {
        for line in location.get(&name).await?.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let event = serde_json::from_slice(line);
            events.push(
                event.map_err(|error| Error::with_source(Kind::Corrupt, format!("object `{name}`: not a line of telemetry"), error))?,
            );
        }
    }
    Ok(events)
}

/// Events of one coordinator that are not kept yet. Its first generation is in the names, and no other coordinator's.
#[derive(Debug)]
pub(crate) struct Recorder {
    first_generation: u64,
    parts: u64,
    lines: Vec<u8>,
}

impl Recorder {
    pub(crate) fn new(first_generation: u64) -> Self {
        Self { first_generation, parts: 0, lines: Vec::new() }
    }

    pub(crate) fn add(&mut self, event: &Event) {
        // These types hold nothing that JSON cannot.
        if let Ok(line) = serde_json::to_vec(event) {
            self.lines.extend(line);
            self.lines.push(b'\n');
        }
    }

    /// The events since the last call as an object to put, and its name.
    pub(crate) fn take(&mut self) -> Option<(String, Bytes)> {
        if self.lines.is_empty() {
            return None;
        }
        let name = format!("{FOLDER}/{:020}-{:06}.jsonl", self.first_generation, self.parts);
        self.parts += 1;
        Some((name, Bytes::from(std::mem::take(&mut self.lines))))
    }
}
