//! What a group is told, and what it answers.

use std::collections::BTreeMap;

use forebay_schemas::wire::{Finish, Identity, Mark, Next, Ready, Timings, Verdict};
use forebay_schemas::{Digest, Waits};

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A sign of life.
    Renewed {
        /// Whose.
        member: u64,
    },
    /// A member asks for its next assignment.
    Ready(Ready),
    /// A member has the gradient of a step.
    Finished(Finish),
    /// A collective failed.
    Failed {
        /// Who says so.
        member: u64,
        /// In which generation.
        generation: u64,
        /// What failed.
        reason: String,
    },
    /// A member says goodbye.
    Left {
        /// Who.
        member: u64,
    },
    /// A member's presence ended.
    Disconnected {
        /// Whose.
        member: u64,
    },
    /// A checkpoint was published.
    Published {
        /// Its state.
        state: Mark,
    },
    /// Time went by.
    Tick,
}

/// Why a member is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Its connection ended: the process died.
    Disconnected,
    /// It was silent for a lease, or did not come to the next generation.
    Lease,
    /// It said goodbye.
    Left,
    /// It had another state than the others. It stays, and gets theirs.
    Diverged,
}

/// What to do about it.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Tell a member what is next.
    Next {
        /// Whom.
        member: u64,
        /// What.
        next: Next,
    },
    /// Answer a member's report.
    Answer {
        /// Whom.
        member: u64,
        /// How.
        verdict: Verdict,
    },
    /// A step is committed, and answered before this.
    Committed(Commit),
    /// A generation is over: its members shall abort.
    Over {
        /// Which.
        generation: u64,
        /// Members that are still in.
        members: Vec<u64>,
        /// Why.
        reason: String,
    },
    /// A member is out.
    Lost {
        /// Who.
        member: u64,
        /// Who that was.
        identity: Identity,
        /// Why.
        cause: Cause,
        /// The same for people.
        detail: String,
    },
    /// A member has another state than the others: it stays, and takes theirs.
    Diverged {
        /// Who.
        member: u64,
        /// Who that is.
        identity: Identity,
        /// What was found.
        detail: String,
    },
    /// A generation is formed; record it before the assignments that follow are handed out.
    Formed {
        /// Which.
        generation: u64,
        /// Names by rank.
        members: Vec<String>,
        /// The step that comes next.
        step: u64,
        /// Why there is a new one.
        reason: String,
    },
    /// All steps are committed and the last checkpoint is published.
    Done,
    /// The run cannot go on.
    Stuck {
        /// Why.
        reason: String,
    },
}

/// A committed step.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// The generation that computed it.
    pub generation: u64,
    /// Its number, from 0.
    pub step: u64,
    /// Mean over the micro-batches in index order; none if one of them was not finite.
    pub loss: Option<f64>,
    /// Digest over the digests of the micro-batches in index order.
    pub samples: Digest,
    /// Members of the generation.
    pub world: u32,
    /// Mean over the members.
    pub timings: Timings,
}

impl Commit {
    /// What the reports of all members say of a step.
    pub(super) fn of(generation: u64, step: u64, reports: &BTreeMap<u64, Finish>) -> Self {
        let mut micro_batches: Vec<_> = reports.values().flat_map(|report| &report.micro_batches).collect();
        micro_batches.sort_by_key(|report| report.index);
        let total = micro_batches.iter().try_fold(0.0, |sum, report| Some(sum + report.loss?));
        let count = reports.len() as f64;
        let mean = |phase: fn(&Timings) -> f64| reports.values().map(|report| phase(&report.timings)).sum::<f64>() / count;
        Self {
            generation,
            step,
            loss: total.map(|total: f64| total / micro_batches.len() as f64).filter(|loss| loss.is_finite()),
            samples: Digest::of_parts(micro_batches.iter().map(|report| &report.samples.as_bytes()[..])),
            world: reports.len() as u32,
            timings: Timings {
                data: mean(|timings| timings.data),
                waits: Waits::mean(reports.values().map(|report| &report.timings.waits)),
                compute: mean(|timings| timings.compute),
                reduce: mean(|timings| timings.reduce),
                commit: mean(|timings| timings.commit),
                apply: mean(|timings| timings.apply),
            },
        }
    }
}
