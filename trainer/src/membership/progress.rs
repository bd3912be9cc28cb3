//! What a replica has of the run and what it may do with it: the rules of a replica's loop without their effects.
//!
//! Promises: a state changes only by a committed step or by taking over one as a whole; gradients are kept as long as they
//! belong to the state, whatever happens to generations, memberships and coordinators, and each is counted once.

use forebay_schemas::wire::{Assignment, Mark, MicroBatchReport, Restore, Verdict};

use crate::error::{Error, Kind, Result};

/// The state of a replica and the step in work.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    have: Option<Mark>,
    held: Vec<MicroBatchReport>,
    /// To compute in the step in work, and in those after it.
    now: Vec<u32>,
    later: Vec<u32>,
    generation: u64,
}

/// What to do with a reduced step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Apply it.
    Apply {
        /// Then ask for the next assignment.
        regroup: bool,
        /// Then write a checkpoint.
        checkpoint: bool,
    },
    /// Do not; keep the gradients of the own micro-batches and ask for the next assignment.
    Keep,
    /// The state is wrong: it is gone. Ask for the next assignment.
    Drop,
}

impl Progress {
    /// The state; none without one.
    pub fn have(&self) -> Option<Mark> {
        self.have
    }

    /// Reports on the micro-batches of the next step whose gradients are held, ascending.
    pub fn held(&self) -> &[MicroBatchReport] {
        &self.held
    }

    /// The indices of [`Self::held`].
    pub fn indices(&self) -> Vec<u32> {
        self.held.iter().map(|report| report.index).collect()
    }

    /// Micro-batches that are still to be computed before the next reduction, ascending.
    pub fn due(&self) -> &[u32] {
        &self.now
    }

    /// Takes a place in a generation: whether the gradients that are held stay, or are to be dropped.
    ///
    /// `Internal` if the coordinator counts on gradients that are not here.
    pub fn take(&mut self, assignment: &Assignment) -> Result<bool> {
        if assignment.restore != Restore::Current {
            // Until it is whole.
            self.drop_state();
        } else if self.have != Some(assignment.state) {
            let message = format!("generation {}: begins with {:?}, but here is {:?}", assignment.generation, assignment.state, self.have);
            return Err(Error::new(Kind::Internal, message));
        }
        let (keep, now) = match &assignment.salvage {
            Some(salvage) => (&salvage.keep[..], &salvage.compute),
            None => (&[][..], &assignment.micro_batches),
        };
        if !keep.is_empty() && keep != self.indices() {
            let message = format!("generation {}: counts on micro-batches {keep:?}, held are {:?}", assignment.generation, self.indices());
            return Err(Error::new(Kind::Internal, message));
        }
        if keep.is_empty() {
            self.held.clear();
        }
        self.now.clone_from(now);
        self.later.clone_from(&assignment.micro_batches);
        self.generation = assignment.generation;
        Ok(!keep.is_empty())
    }

    /// The state of the assignment is there.
    pub fn restored(&mut self, assignment: &Assignment) {
        self.have = Some(assignment.state);
    }

    /// The first of [`Self::due`] was computed; its gradient is held.
    pub fn computed(&mut self, report: MicroBatchReport) {
        self.now.retain(|&index| index != report.index);
        let at = self.held.partition_point(|held| held.index < report.index);
        self.held.insert(at, report);
    }

    /// What the coordinator's word means for the step.
    pub fn hear(&mut self, verdict: Verdict) -> Outcome {
        match verdict {
            Verdict::Committed { regroup, checkpoint, micro_batches } => {
                if let Some(micro_batches) = micro_batches {
                    self.later = micro_batches;
                }
                // Without a state no step was computed.
                self.have = self.have.map(|state| Mark { step: state.step + 1, generation: self.generation });
                self.held.clear();
                self.now.clone_from(&self.later);
                Outcome::Apply { regroup, checkpoint }
            }
            Verdict::Retry => Outcome::Keep,
            Verdict::Diverged => {
                self.drop_state();
                Outcome::Drop
            }
        }
    }

    /// Gradients that are held are lost: a failure left them half added.
    pub fn drop_held(&mut self) {
        self.held.clear();
    }

    fn drop_state(&mut self) {
        self.have = None;
        self.held.clear();
    }
}
