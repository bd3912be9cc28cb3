//! What a stream delivers, in order, and how much of it is worth reading together.
//!
//! Pure: the micro-batch with a sequence number is computed when it is due, so a stream has no list of its future.

use forebay_schemas::Digest;

use crate::error::{Error, Result};
use crate::plan::{Draw, Plan};

/// The order of a stream.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// The micro-batches of a plan with these indices, ascending, of a run of steps.
    Planned { plan: Plan, micro_batches: Vec<u32>, first_step: u64, steps: u64 },
    /// Rows as stored, in batches.
    Stored { rows: u64, batch_size: u64 },
}

/// One micro-batch of the order.
#[derive(Clone, Debug)]
pub(crate) struct Due {
    pub(crate) sequence: u64,
    pub(crate) step: u64,
    pub(crate) index: u32,
    pub(crate) digest: Digest,
    pub(crate) draws: Vec<Draw>,
}

impl Order {
    /// The micro-batches of `plan` with these indices, of the steps from `first_step` to before `end_step`.
    pub(crate) fn planned(plan: Plan, mut micro_batches: Vec<u32>, first_step: u64, end_step: u64) -> Result<Self> {
        micro_batches.sort_unstable();
        if let Some(pair) = micro_batches.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::Invalid(format!("assignment: found micro-batch {} twice, expected each once", pair[0])));
        }
        if let Some(last) = micro_batches.last().filter(|last| **last >= plan.micro_batches()) {
            return Err(Error::Invalid(format!("assignment: found micro-batch {last}, expected less than {}", plan.micro_batches())));
        }
        let steps = end_step.saturating_sub(first_step);
        Ok(Self::Planned { plan, micro_batches, first_step, steps })
    }

    /// How many micro-batches there are.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Planned { micro_batches, steps, .. } => steps.saturating_mul(micro_batches.len() as u64),
            Self::Stored { rows, batch_size } => rows.div_ceil((*batch_size).max(1)),
        }
    }

    /// Most samples of a micro-batch.
    pub(crate) fn samples(&self) -> u64 {
        match self {
            Self::Planned { plan, .. } => u64::from(plan.micro_batch_size()),
            Self::Stored { rows, batch_size } => *batch_size.min(rows),
        }
    }

    /// The micro-batch number `sequence`, which is below [`Self::len`].
    pub(crate) fn due(&self, sequence: u64) -> Due {
        match self {
            Self::Planned { plan, .. } => {
                let (step, index) = self.coordinates(sequence);
                let micro_batch = plan.micro_batch(step, index);
                Due { sequence, step, index, digest: micro_batch.digest(), draws: micro_batch.draws }
            }
            Self::Stored { rows, batch_size } => {
                let first = sequence * batch_size;
                let draws = (first..(first + batch_size).min(*rows)).map(|row| Draw { source: 0, epoch: 0, row, place: row }).collect();
                Due { sequence, step: sequence, index: 0, digest: Digest::of(&[]), draws }
            }
        }
    }

    /// How many micro-batches from `sequence` on to read together, at most `limit`: those of one window, so that a
    /// whole window is read in whole blocks.
    pub(crate) fn together(&self, sequence: u64, limit: u64) -> u64 {
        let left = self.len() - sequence;
        let Self::Planned { plan, micro_batches, .. } = self else { return limit.clamp(1, left) };
        let (step, index) = self.coordinates(sequence);
        let samples_a_step = u64::from(plan.micro_batches()) * u64::from(plan.micro_batch_size());
        let ours = |samples: u64| (samples as u128 * micro_batches.len() as u128).div_ceil(u128::from(samples_a_step)) as u64;
        limit.min(ours(plan.left_in_window(step, index))).clamp(1, left)
    }

    fn coordinates(&self, sequence: u64) -> (u64, u32) {
        match self {
            Self::Planned { micro_batches, first_step, .. } => {
                let count = micro_batches.len() as u64;
                (first_step + sequence / count, micro_batches[(sequence % count) as usize])
            }
            Self::Stored { .. } => (sequence, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Shuffle, Source};
    use proptest::prelude::*;

    fn plan(rows: u64, micro_batches: u32, size: u32) -> Plan {
        let shuffle = Shuffle { block_rows: 128, window_blocks: 128 };
        Plan::new(&[Source::whole(Digest::of(b"x"), rows, shuffle)], 1, micro_batches, size).expect("plan")
    }

    proptest! {
        #[test]
        fn replicas_together_cover_every_step_once(world in 1usize..17, k in 1u32..40, steps in 0u64..5, rows in 1u64..500) {
            let plan = plan(rows, k, 3);
            let mut seen = Vec::new();
            for rank in 0..world {
                let mine: Vec<u32> = (0..k).filter(|m| *m as usize % world == rank).collect();
                let order = Order::planned(plan.clone(), mine, 7, 7 + steps).expect("order");
                let due: Vec<Due> = (0..order.len()).map(|sequence| order.due(sequence)).collect();
                prop_assert!(due.windows(2).all(|pair| (pair[0].step, pair[0].index) < (pair[1].step, pair[1].index)));
                for due in due {
                    prop_assert_eq!(&due.draws, &plan.micro_batch(due.step, due.index).draws);
                    prop_assert_eq!(due.digest, plan.samples_digest(due.step, due.index));
                    seen.push((due.step, due.index));
                }
            }
            seen.sort_unstable();
            let expected: Vec<_> = (7..7 + steps).flat_map(|step| (0..k).map(move |m| (step, m))).collect();
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn a_group_is_never_empty_and_never_beyond_the_end(k in 1u32..9, b in 1u32..60, rows in 1u64..40_000, sequence in 0u64..50, limit in 0u64..5000) {
            let plan = plan(rows, k, b);
            let order = Order::planned(plan, (0..k).step_by(2).collect(), 3, 60).expect("order");
            let together = order.together(sequence, limit);
            prop_assert!(together >= 1 && sequence + together <= order.len());
            prop_assert!(together <= limit.max(1));
        }
    }

    #[test]
    fn stored_order_ends_with_a_smaller_batch() {
        let order = Order::Stored { rows: 10, batch_size: 4 };
        let rows: Vec<Vec<u64>> = (0..order.len()).map(|i| order.due(i).draws.iter().map(|draw| draw.row).collect()).collect();
        assert_eq!(rows, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
    }

    #[test]
    fn an_assignment_that_cannot_be_is_refused() {
        let plan = plan(10, 4, 3);
        for (assignment, expected) in [(vec![1, 0, 1], "micro-batch 1 twice"), (vec![4], "expected less than 4")] {
            let error = Order::planned(plan.clone(), assignment, 0, 1).expect_err("assignment");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
