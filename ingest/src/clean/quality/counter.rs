//! Counts keys: a table that is emptied in no time, and dense numbers for keys in the order of their first coming.
//!
//! Keys are 64-bit hashes or exact pairs of numbers; two hashes that collide count as one, once in 2³² documents of 2¹⁶ keys.

/// Keys above this are not kept allocated from one text to the next.
const KEPT_SLOTS: usize = 1 << 20;

#[derive(Clone, Copy, Default)]
struct Slot {
    key: u64,
    /// Of the table; any other is empty.
    era: u32,
    id: u32,
}

/// An open hash table with linear probing, at most half full.
#[derive(Default)]
pub(crate) struct Counter {
    slots: Vec<Slot>,
    era: u32,
    /// How often each id was met.
    pub(super) counts: Vec<u32>,
    /// Buffers of the n-grams: where those are that came more than once, and which.
    pub(super) repeated: Vec<(u32, u32)>,
    /// Characters before each word.
    pub(super) chars: Vec<u64>,
}

impl Counter {
    /// Empties it for at most `keys` keys.
    pub(super) fn reset(&mut self, keys: usize) {
        self.counts.clear();
        let slots = (2 * keys).next_power_of_two().max(64);
        let kept = self.slots.len() <= KEPT_SLOTS.max(slots);
        self.era = self.era.wrapping_add(1);
        if self.slots.len() < slots || !kept || self.era == 0 {
            self.slots = vec![Slot::default(); slots];
            self.era = 1;
        }
        if self.counts.capacity() > KEPT_SLOTS.max(keys) {
            (self.counts, self.repeated, self.chars) = Default::default();
        }
    }

    /// The number of a key, which is counted.
    pub(super) fn count(&mut self, key: u64) -> u32 {
        let mask = self.slots.len() - 1;
        let mut at = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & mask;
        loop {
            let slot = &mut self.slots[at];
            if slot.era != self.era {
                let id = self.counts.len() as u32;
                *slot = Slot { key, era: self.era, id };
                self.counts.push(1);
                return id;
            }
            if slot.key == key {
                let id = slot.id;
                self.counts[id as usize] += 1;
                return id;
            }
            at = (at + 1) & mask;
        }
    }

    /// Counts a key and says whether it was there before.
    pub(super) fn repeats(&mut self, key: u64) -> bool {
        let known = self.counts.len();
        (self.count(key) as usize) < known
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_are_those_of_a_map(rounds in proptest::collection::vec(proptest::collection::vec(0u64..50, 0..200), 1..5)) {
            let mut counter = Counter::default();
            for keys in rounds {
                counter.reset(keys.len());
                let ids: Vec<u32> = keys.iter().map(|key| counter.count(key << 40)).collect();
                let mut expected: HashMap<u64, u32> = HashMap::new();
                keys.iter().for_each(|key| *expected.entry(*key).or_default() += 1);
                prop_assert_eq!(counter.counts.len(), expected.len());
                prop_assert!(keys.iter().zip(&ids).all(|(key, id)| counter.counts[*id as usize] == expected[key]));
            }
        }
    }

    #[test]
    fn an_era_that_comes_round_again_finds_no_old_keys() {
        let mut counter = Counter::default();
        counter.reset(10);
        counter.count(7);
        counter.era = u32::MAX;
        counter.reset(10);
        assert!(!counter.repeats(7));
        assert!(counter.repeats(7));
    }
}
