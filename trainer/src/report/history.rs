//! A run's history out of its events: the steps that count, and what happened to the membership.
//!
//! A step that was committed and lost again, because every replica died before the next checkpoint, comes twice; the later one
//! counts. Pure: events in, history out.

use std::collections::BTreeMap;

use forebay_schemas::Digest;
use forebay_schemas::wire::Timings;

use crate::telemetry::{Cause, Event, What};

/// The steps and the membership of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Committed steps by number.
    pub steps: BTreeMap<u64, Step>,
    /// What happened to the membership, in order.
    pub moments: Vec<Moment>,
}

/// One committed step.
#[derive(Clone, Debug)]
pub struct Step {
    /// When it was committed, milliseconds since 1970 UTC.
    pub unix_ms: u64,
    /// Mean training loss, nats; none if it is not finite.
    pub loss: Option<f64>,
    /// Samples in it.
    pub samples: u64,
    /// Digest of these.
    pub samples_digest: Digest,
    /// Since the commit before it, or since its generation was formed.
    pub seconds: f64,
    /// Replicas that computed it.
    pub world: u32,
    /// Where its time went, mean over replicas.
    pub timings: Timings,
}

/// Something that happened to the membership.
#[derive(Clone, Debug)]
pub struct Moment {
    /// When, milliseconds since 1970 UTC.
    pub unix_ms: u64,
    /// Committed steps at that time.
    pub step: u64,
    /// For people.
    pub what: String,
    /// Whether it is a fault, which the charts mark.
    pub fault: bool,
}

impl History {
    /// The history that the events tell.
    pub fn of(events: &[Event]) -> Self {
        let mut history = Self::default();
        events.iter().for_each(|event| history.add(event));
        history
    }

    /// Digest over the digests of all steps in order: the same for the same samples in the same steps. None with a step missing.
    pub fn samples_digest(&self) -> Option<Digest> {
        let complete = self.steps.keys().copied().eq(0..self.steps.len() as u64);
        complete.then(|| Digest::of_parts(self.steps.values().map(|step| &step.samples_digest.as_bytes()[..])))
    }

    fn add(&mut self, event: &Event) {
        let committed = self.steps.keys().next_back().map_or(0, |step| step + 1);
        let (step, what, fault) = match &event.what {
            What::StepCommitted { step, loss, samples, samples_digest, seconds, world, timings } => {
                let committed = Step {
                    unix_ms: event.unix_ms,
                    loss: *loss,
                    samples: *samples,
                    samples_digest: *samples_digest,
                    seconds: *seconds,
                    world: *world,
                    timings: *timings,
                };
                self.steps.insert(*step, committed);
                return;
            }
            What::RunStarted { step, steps, .. } => (*step, format!("coordinator started at step {step} of {steps}"), false),
            What::ReplicaJoined { replica, host, pid } => (committed, format!("replica {replica} joined from {host}, pid {pid}"), false),
            What::ReplicaLost { replica, cause: Cause::Left, step, .. } => (*step, format!("replica {replica} left"), false),
            What::ReplicaLost { replica, cause: Cause::Diverged, detail, step } => {
                (*step, format!("replica {replica} diverged: {detail}"), true)
            }
            What::ReplicaLost { replica, detail, step, .. } => (*step, format!("replica {replica} lost: {detail}"), true),
            What::GenerationFailed { reason, step } => (*step, format!("generation {} failed: {reason}", event.generation), false),
            What::GenerationFormed { members, reason, step } => {
                (*step, format!("generation {} of {}: {reason}", event.generation, members.join(", ")), false)
            }
            What::CheckpointPublished { step, .. } => (*step, format!("checkpoint of step {step} published"), false),
            What::RunFinished { step, .. } => (*step, "run finished".to_owned(), false),
        };
        self.moments.push(Moment { unix_ms: event.unix_ms, step, what, fault });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(step: u64, content: &[u8]) -> Event {
        let what = What::StepCommitted {
            step,
            loss: Some(1.0),
            samples: 8,
            samples_digest: Digest::of(content),
            seconds: 0.1,
            world: 2,
            timings: Timings::default(),
        };
        Event { unix_ms: step, generation: 1, what }
    }

    #[test]
    fn a_step_that_comes_again_counts_once() {
        let once = History::of(&[committed(0, b"a"), committed(1, b"b")]);
        let again = History::of(&[committed(0, b"a"), committed(1, b"lost"), committed(1, b"b")]);
        assert_eq!(again.steps.len(), 2);
        assert_eq!(once.samples_digest(), again.samples_digest());
        assert!(once.samples_digest().is_some());
    }

    #[test]
    fn a_missing_step_has_no_digest() {
        assert_eq!(History::of(&[committed(0, b"a"), committed(2, b"c")]).samples_digest(), None);
    }

    #[test]
    fn a_death_is_a_fault_and_a_farewell_is_not() {
        let lost = |cause| Event {
            unix_ms: 1,
            generation: 1,
            what: What::ReplicaLost { replica: "r1".to_owned(), cause, detail: "its connection ended".to_owned(), step: 5 },
        };
        let history = History::of(&[lost(Cause::Left), lost(Cause::Disconnected)]);
        assert_eq!(history.moments.iter().map(|moment| moment.fault).collect::<Vec<_>>(), [false, true]);
    }
}
