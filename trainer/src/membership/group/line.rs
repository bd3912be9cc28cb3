//! Which states are of the run's history: the steps from which its generations began say so.
//!
//! A generation normally begins with the newest state. Where all that had it are gone, it begins with an older one, and
//! what was committed after that in earlier generations is abandoned: whoever comes back with such a state must not mix it
//! with the new history. Promises: of two admitted states with the same step there is only one.

use forebay_schemas::wire::Mark;

/// The history of a run's generations.
#[derive(Clone, Debug, Default)]
pub struct Line {
    // Generation and the step that it began from, both ascending: an entry is dropped once a later one began no further on.
    begun: Vec<(u64, u64)>,
}

impl Line {
    /// A generation begins with a state of `step` steps. Generations come in ascending order.
    pub fn begin(&mut self, generation: u64, step: u64) {
        while self.begun.last().is_some_and(|&(_, earlier)| earlier >= step) {
            self.begun.pop();
        }
        self.begun.push((generation, step));
    }

    /// Whether no later generation began before this state.
    pub fn admits(&self, state: Mark) -> bool {
        let later = self.begun.partition_point(|&(generation, _)| generation <= state.generation);
        self.begun.get(later).is_none_or(|&(_, step)| state.step <= step)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_state_is_admitted_if_no_later_generation_began_before_it(steps in prop::collection::vec(0u64..12, 0..12), generation in 0u64..13, step in 0u64..12) {
            let mut line = Line::default();
            (1..).zip(&steps).for_each(|(generation, &step)| line.begin(generation, step));
            let expected = steps.iter().skip(generation as usize).all(|&began| step <= began);
            prop_assert_eq!(line.admits(Mark { step, generation }), expected);
        }
    }
}
