//! What must hold at every event; see the list in [`super`].

use std::collections::{BTreeMap, HashMap};

use forebay_schemas::journal::JournalEntry;
use forebay_schemas::wire::Mark;

use super::group::Line;
use super::replica::{Contribution, Weights};

/// What happened in a simulation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) events: u64,
    pub(super) commits: u64,
    pub(super) generations: u64,
    pub(super) kills: u64,
    pub(super) freezes: u64,
    pub(super) coordinators: u64,
    pub(super) cuts: u64,
    pub(super) flips: u64,
    /// Micro-batches of survivors that were not computed again.
    pub(super) salvaged: u64,
    /// States that were found to differ and replaced.
    pub(super) healed: u64,
    /// Coordinators that lost an append to another one.
    pub(super) fenced: u64,
    /// Generations that began before a committed step.
    pub(super) fallbacks: u64,
    /// Doors at which a replica knocked in vain.
    pub(super) unreached: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        let mine = [&mut self.events, &mut self.commits, &mut self.generations, &mut self.kills, &mut self.freezes, &mut self.coordinators];
        let theirs = [other.events, other.commits, other.generations, other.kills, other.freezes, other.coordinators];
        mine.into_iter().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        let mine = [&mut self.cuts, &mut self.flips, &mut self.salvaged, &mut self.healed, &mut self.fenced, &mut self.fallbacks];
        let theirs = [other.cuts, other.flips, other.salvaged, other.healed, other.fenced, other.fallbacks];
        mine.into_iter().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        self.unreached += other.unreached;
    }
}

#[derive(Default)]
pub(super) struct Audit {
    pub(super) tally: Tally,
    pub(super) line: Line,
    /// The next step to commit in each generation.
    next: BTreeMap<u64, u64>,
    last_generation: u64,
    states: HashMap<Mark, u64>,
}

impl Audit {
    /// An entry has become part of the journal.
    pub(super) fn written(&mut self, entry: &JournalEntry) {
        let generation = match entry {
            JournalEntry::Run { .. } => 0,
            JournalEntry::Order { .. } => self.last_generation,
            JournalEntry::Coordinator { generation, .. } | JournalEntry::Checkpoint { generation, .. } => *generation,
            JournalEntry::Generation { generation, .. } => *generation,
        };
        assert!(generation >= self.last_generation, "{entry:?} after generation {}", self.last_generation);
        if let JournalEntry::Generation { generation, step, .. } = entry {
            assert!(*generation > self.last_generation, "generation {generation} was used");
            self.next.insert(*generation, *step);
            self.line.begin(*generation, *step);
            self.tally.generations += 1;
        }
        self.last_generation = generation;
    }

    pub(super) fn committed(&mut self, generation: u64, step: u64) {
        let next = self.next.get_mut(&generation).expect("a generation that is in the journal");
        assert_eq!(*next, step, "steps of generation {generation} commit once and in order");
        *next += 1;
        self.tally.commits += 1;
    }

    /// Steps that were committed in the generations before `generation`, which begins with `step`.
    pub(super) fn fell_back(&self, generation: u64, step: u64) -> bool {
        self.next.range(..generation).next_back().is_some_and(|(_, &next)| step < next)
    }

    /// Somebody has a state.
    pub(super) fn has(&mut self, weights: &Weights) {
        let known = *self.states.entry(weights.mark).or_insert(weights.bits);
        assert_eq!(known, weights.bits, "all that have the state {:?} have the same bits", weights.mark);
    }

    /// A committed step is applied to `weights` by a member of a generation of these replicas.
    pub(super) fn applies(&self, weights: &Weights, sum: &[Contribution], members: &[usize], micro_batches: u32) {
        let mut indices: Vec<u32> = sum.iter().map(|part| part.index).collect();
        indices.sort_unstable();
        assert_eq!(indices, (0..micro_batches).collect::<Vec<_>>(), "each micro-batch is in the sum once");
        for part in sum {
            // A flipped bit in a replica that is alone cannot be known.
            assert!(weights.tainted || part.on == weights.bits, "{part:?} was computed on the state that it is applied to, {weights:?}");
            assert!(members.contains(&part.by), "{part:?} was computed by one of {members:?}");
        }
    }
}
