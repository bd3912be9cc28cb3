//! Which blocks a full cache keeps: those that are needed soonest. Pure.
//!
//! Belady's rule (1966), with the freedom not to keep what is needed later than all that is there. It needs the future,
//! which the plan has: the next use of every block is computed, not guessed.

use std::collections::{BTreeSet, HashMap};

/// What is in a cache, by name.
#[derive(Clone, Debug)]
pub(crate) struct Contents {
    capacity: u64,
    used: u64,
    /// Size, and when it is needed next; [`NEVER`] if never.
    files: HashMap<String, (u64, u64)>,
    /// (needed next, name).
    order: BTreeSet<(u64, String)>,
}

/// After every other moment.
const NEVER: u64 = u64::MAX;

/// What to do with a block that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Keep it, and remove these.
    Keep {
        /// Names.
        evict: Vec<String>,
    },
    /// What is there is needed sooner.
    Bypass,
}

impl Contents {
    pub(crate) fn new(capacity: u64) -> Self {
        Self { capacity, used: 0, files: HashMap::new(), order: BTreeSet::new() }
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Decides about a block of `bytes` that was used and is needed at `next` again. All that was needed before `now` was used;
    /// when that is needed again says `next_use`.
    pub(crate) fn place(&mut self, name: &str, bytes: u64, next: Option<u64>, now: u64, next_use: impl Fn(&str) -> Option<u64>) -> Verdict {
        self.remove(name);
        while let Some((_, passed)) = self.order.first().filter(|(next, _)| *next < now).cloned() {
            if let Some((bytes, _)) = self.files.get(&passed).copied() {
                self.remove(&passed);
                self.add(passed.clone(), bytes, next_use(&passed).map_or(NEVER, |next| next.max(now)));
            }
        }
        let next = next.unwrap_or(NEVER);
        let (mut evict, mut freed) = (Vec::new(), 0);
        for (later, victim) in self.order.iter().rev() {
            if self.used - freed + bytes <= self.capacity {
                break;
            }
            if *later <= next {
                return Verdict::Bypass;
            }
            freed += self.files.get(victim).map_or(0, |(bytes, _)| *bytes);
            evict.push(victim.clone());
        }
        if next == NEVER || self.used - freed + bytes > self.capacity {
            return Verdict::Bypass;
        }
        evict.iter().for_each(|victim| self.remove(victim));
        self.add(name.to_owned(), bytes, next);
        Verdict::Keep { evict }
    }

    /// A file was used, and is needed at `next` again.
    pub(crate) fn used(&mut self, name: &str, next: Option<u64>) {
        if let Some((bytes, _)) = self.files.get(name).copied() {
            self.remove(name);
            self.add(name.to_owned(), bytes, next.unwrap_or(NEVER));
        }
    }

    /// A file that is not there any more.
    pub(crate) fn remove(&mut self, name: &str) {
        if let Some((bytes, next)) = self.files.remove(name) {
            self.used -= bytes;
            self.order.remove(&(next, name.to_owned()));
        }
    }

    /// What was found to be there: name and size. When those that were not known are needed says `next_use`.
    pub(crate) fn replace(&mut self, files: Vec<(String, u64)>, next_use: impl Fn(&str) -> Option<u64>) {
        let known = std::mem::replace(self, Self::new(self.capacity)).files;
        for (name, bytes) in files {
            let next = known.get(&name).map_or_else(|| next_use(&name).unwrap_or(NEVER), |(_, next)| *next);
            self.add(name, bytes, next);
        }
    }

    fn add(&mut self, name: String, bytes: u64, next: u64) {
        self.used += bytes;
        self.order.insert((next, name.clone()));
        self.files.insert(name, (bytes, next));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::ops::Range;

    use forebay_schemas::Digest;
    use proptest::prelude::*;

    use super::*;
    use crate::plan::{Block, Plan, Shuffle, Source};

    /// The blocks that a host reads, in order: each group's once, by the first sample that needs it, and the group's steps.
    fn trace(plan: &Plan, steps: u64) -> Vec<(Block, Range<u64>)> {
        let mut trace = Vec::new();
        let mut group: Vec<Block> = Vec::new();
        let (mut left, mut first) = (plan.left_in_window(0, 0), 0);
        for step in 0..steps {
            for draw in plan.micro_batch(step, 0).draws {
                let block = plan.block_of(&draw);
                if !group.contains(&block) {
                    group.push(block);
                }
            }
            left = left.saturating_sub(u64::from(plan.micro_batch_size()));
            if left == 0 {
                trace.extend(group.drain(..).map(|block| (block, first..step + 1)));
                first = step + 1;
                left = plan.left_in_window(step + 1, 0);
            }
        }
        trace
    }

    /// Fewest misses that any cache of so many blocks can have, with all of the future known: after every access the blocks
    /// that are needed soonest stay, the one just used among those to choose from.
    fn optimum(trace: &[(Block, Range<u64>)], capacity: usize) -> u64 {
        let mut uses: HashMap<Block, Vec<usize>> = HashMap::new();
        trace.iter().enumerate().for_each(|(at, (block, _))| uses.entry(*block).or_default().push(at));
        let next = |block: &Block, after: usize| {
            let uses = &uses[block];
            uses.get(uses.partition_point(|at| *at <= after)).copied().unwrap_or(usize::MAX)
        };
        let (mut kept, mut misses): (BTreeSet<(usize, Block)>, u64) = (BTreeSet::new(), 0);
        for (at, (block, _)) in trace.iter().enumerate() {
            if !kept.remove(&(at, *block)) {
                misses += 1;
            }
            kept.insert((next(block, at), *block));
            if kept.len() > capacity {
                kept.pop_last();
            }
        }
        misses
    }

    fn misses(plan: &Plan, trace: &[(Block, Range<u64>)], capacity: u64) -> u64 {
        let name = |block: &Block| format!("{}-{}", block.source, block.number);
        let parse = |name: &str| {
            let (source, number) = name.split_once('-').expect("a name");
            Block { source: source.parse().expect("number"), number: number.parse().expect("number") }
        };
        let mut contents = Contents::new(capacity);
        let mut misses = 0;
        for (block, steps) in trace {
            let next = plan.next_use(*block, steps.end);
            if contents.files.contains_key(&name(block)) {
                contents.used(&name(block), next);
            } else {
                misses += 1;
                contents.place(&name(block), 1, next, plan.ordinal_of(steps.start), |name| plan.next_use(parse(name), steps.start));
            }
            assert!(contents.used <= capacity && contents.used == contents.files.len() as u64);
        }
        misses
    }

    #[test]
    fn misses_are_those_of_the_offline_optimum() {
        let shuffle = Shuffle { block_rows: 4, window_blocks: 16 };
        let source = |name: &str, rows: u64| Source::whole(Digest::of(name.as_bytes()), rows, shuffle);
        let mut light = source("b", 1_000);
        light.weight = vec![(0, 0.3)];
        for (sources, steps) in [(vec![source("a", 6_400)], 6_400), (vec![source("a", 4_003), light], 8_000)] {
            let blocks: u64 = sources.iter().map(|source| source.rows.div_ceil(4)).sum();
            let plan = Plan::new(&sources, 7, 1, 8).expect("plan");
            let trace = trace(&plan, steps);
            for share in [10, 50, 90] {
                let capacity = blocks * share / 100;
                let (found, least) = (misses(&plan, &trace, capacity), optimum(&trace, capacity as usize));
                let ratio = found as f64 / least as f64;
                println!("{} sources, {share} %: {found} misses of {}, {least} at least: {ratio:.4}", sources.len(), trace.len());
                assert!(ratio <= 1.01, "{share} %: {found} misses, {least} at least");
            }
        }
    }

    proptest! {
        #[test]
        fn the_capacity_is_kept_and_only_what_is_needed_later_goes(
            files in prop::collection::vec((0u8..40, 1u64..30, prop::option::of(0u64..1000)), 1..200), capacity in 0u64..100,
        ) {
            let mut contents = Contents::new(capacity);
            for (now, (name, bytes, next)) in (0..).zip(files) {
                let before = contents.clone();
                let verdict = contents.place(&name.to_string(), bytes, next.map(|next| next + now), now, |_| Some(now + 500));
                prop_assert!(contents.used <= capacity);
                prop_assert_eq!(contents.used, contents.files.values().map(|(bytes, _)| bytes).sum::<u64>());
                prop_assert_eq!(contents.order.len(), contents.files.len());
                match verdict {
                    Verdict::Bypass => prop_assert!(!contents.files.contains_key(&name.to_string())),
                    Verdict::Keep { evict } => {
                        prop_assert!(contents.files.contains_key(&name.to_string()));
                        prop_assert!(evict.iter().all(|victim| before.files.contains_key(victim) && !contents.files.contains_key(victim)));
                    }
                }
            }
        }
    }

    #[test]
    fn what_never_comes_again_is_not_kept() {
        let mut contents = Contents::new(10);
        assert_eq!(contents.place("a", 1, None, 0, |_| None), Verdict::Bypass);
        assert_eq!(contents.place("b", 11, Some(1), 0, |_| None), Verdict::Bypass);
        assert_eq!(contents.place("c", 10, Some(9), 0, |_| None), Verdict::Keep { evict: vec![] });
        assert_eq!(contents.place("d", 1, Some(9), 0, |_| None), Verdict::Bypass);
        assert_eq!(contents.place("e", 1, Some(8), 0, |_| None), Verdict::Keep { evict: vec!["c".to_owned()] });
    }
}
