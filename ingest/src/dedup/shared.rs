//! Which band keys occur more than once: a filter over all keys, in bounded memory.
//!
//! Two Bloom filters (Bloom 1970; blocked as by Putze et al. 2007, so that a key costs one cache miss each): the first
//! has seen a key, the second has seen it again. A key that the second does not know occurs once and leads to no
//! candidate; of those it knows some occur once too, which costs a little work and changes nothing.

/// Bits a key in the first filter; the second is an eighth of it, as few keys come again.
const BITS_A_KEY: u64 = 8;
const BLOCK_WORDS: usize = 8;

/// Keys as they are counted.
pub(crate) struct Occurrences {
    once: Filter,
    again: Filter,
}

/// Keys that occurred more than once, and a few others.
pub(crate) struct Shared {
    again: Filter,
}

impl Occurrences {
    /// For about `keys` keys in at most `memory_bytes`; more keys make it less selective, never wrong.
    pub(crate) fn new(keys: u64, memory_bytes: u64) -> Self {
        let once = (keys.saturating_mul(BITS_A_KEY) / 8).clamp(4 << 10, (memory_bytes / 9 * 8).max(4 << 10));
        Self { once: Filter::new(once), again: Filter::new((once / 4).max(4 << 10)) }
    }

    /// Notes an occurrence.
    pub(crate) fn see(&mut self, key: u64) {
        if self.once.insert(key) {
            self.again.insert(key);
        }
    }

    /// What occurred more than once; the larger filter goes, before its room is wanted for sorting.
    pub(crate) fn shared(self) -> Shared {
        Shared { again: self.again }
    }
}

impl Shared {
    /// False only if the key occurred at most once.
    pub(crate) fn is_shared(&self, key: u64) -> bool {
        self.again.contains(key)
    }
}

struct Filter {
    blocks: Vec<[u64; BLOCK_WORDS]>,
}

impl Filter {
    fn new(bytes: u64) -> Self {
        Self { blocks: vec![[0; BLOCK_WORDS]; (bytes / 64).max(1) as usize] }
    }

    /// Whether the key may have been there before.
    fn insert(&mut self, key: u64) -> bool {
        let (block, bits) = self.place(key);
        let block = &mut self.blocks[block];
        bits.into_iter().fold(true, |seen, (word, bit)| {
            let was = block[word] & bit != 0;
            block[word] |= bit;
            seen & was
        })
    }

    fn contains(&self, key: u64) -> bool {
        let (block, bits) = self.place(key);
        bits.into_iter().all(|(word, bit)| self.blocks[block][word] & bit != 0)
    }

    /// The block by the high bits, three bits in it by the low ones; keys are mixed already.
    fn place(&self, key: u64) -> (usize, [(usize, u64); 3]) {
        let block = ((u128::from(key) * self.blocks.len() as u128) >> 64) as usize;
        let bit = |shift: u32| {
            let at = (key >> shift) & 511;
            ((at >> 6) as usize, 1 << (at & 63))
        };
        (block, [bit(0), bit(9), bit(18)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> u64 {
        twox_hash::XxHash3_64::oneshot(&number.to_le_bytes())
    }

    #[test]
    fn every_key_that_came_twice_is_known_and_few_others_are() {
        let mut occurrences = Occurrences::new(100_000, 1 << 20);
        (0..90_000).chain(0..10_000).for_each(|number| occurrences.see(key(number)));
        let shared = occurrences.shared();
        assert!((0..10_000).all(|number| shared.is_shared(key(number))));
        let others = (10_000..90_000).filter(|number| shared.is_shared(key(*number))).count();
        assert!(others < 4_000, "{others} of 80,000 keys that came once are taken for shared");
    }

    #[test]
    fn too_little_memory_makes_it_less_selective_and_never_wrong() {
        let mut occurrences = Occurrences::new(1 << 40, 8 << 10);
        (0..100_000).chain(0..100).for_each(|number| occurrences.see(key(number)));
        let shared = occurrences.shared();
        assert!((0..100).all(|number| shared.is_shared(key(number))));
    }
}
