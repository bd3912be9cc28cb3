//! N-grams of words as rolling hashes, and the index that they are looked up in.
//!
//! A word is a run of letters and digits in lower case; a character of a script without spaces is a word. The hash of an
//! n-gram is a polynomial over the hashes of its words modulo 2⁶⁴ (Karp and Rabin 1987), mixed.

use super::super::scripts::is_unspaced;
use crate::letters::is_alphanumeric;

/// Odd, so that multiplying loses nothing.
const WORD_FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
const NGRAM_FACTOR: u64 = 0xD6E8_FEB8_6659_FD93;
const SEED: u64 = 0x2545_F491_4F6C_DD1D;

/// Lower-case letters and digits; 0 for every other ASCII byte.
const FOLDED: [u8; 128] = {
    let mut folded = [0; 128];
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            folded[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    folded
};

/// Visits the hash of every word.
pub(super) fn hashes(text: &str, mut visit: impl FnMut(u64)) {
    let bytes = text.as_bytes();
    let (mut hash, mut is_open, mut at) = (SEED, false, 0);
    while let Some(byte) = bytes.get(at) {
        let folded = FOLDED.get(usize::from(*byte));
        if let Some(folded) = folded.filter(|folded| **folded != 0) {
            hash = step(hash, u64::from(*folded));
            is_open = true;
            at += 1;
            continue;
        }
        let wide = if folded.is_some() { None } else { text[at..].chars().next() };
        at += wide.map_or(1, char::len_utf8);
        let letter = wide.filter(|c| is_alphanumeric(*c));
        if let Some(c) = letter.filter(|c| !is_unspaced(*c)) {
            hash = c.to_lowercase().fold(hash, |hash, c| step(hash, u64::from(u32::from(c))));
            is_open = true;
            continue;
        }
        if is_open {
            visit(mixed(hash));
            (hash, is_open) = (SEED, false);
        }
        if let Some(c) = letter {
            visit(mixed(step(SEED, u64::from(u32::from(c)))));
        }
    }
    if is_open {
        visit(mixed(hash));
    }
}

fn step(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(WORD_FACTOR)
}

fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 32)).wrapping_mul(NGRAM_FACTOR);
    hash ^ (hash >> 29)
}

/// Words of the longest n-gram.
const MAX_WORDS: usize = 64;

/// The hash of the last few words.
#[derive(Clone, Debug)]
pub(super) struct Roll {
    length: usize,
    /// What the factor of a word has grown to when it leaves.
    leaving: u64,
    words: [u64; MAX_WORDS],
    pushed: usize,
    hash: u64,
}

impl Roll {
    /// For n-grams of `length` words, at most 64.
    pub(super) fn new(length: usize) -> Self {
        let length = length.clamp(1, MAX_WORDS);
        let leaving = (0..length).fold(1u64, |factor, _| factor.wrapping_mul(NGRAM_FACTOR));
        Self { length, leaving, words: [0; MAX_WORDS], pushed: 0, hash: 0 }
    }

    /// The n-gram that ends with this word, once there are enough.
    pub(super) fn push(&mut self, word: u64) -> Option<u64> {
        let slot = self.pushed % MAX_WORDS;
        let old = self.words[self.pushed.wrapping_sub(self.length) % MAX_WORDS];
        self.hash = self.hash.wrapping_mul(NGRAM_FACTOR).wrapping_add(word).wrapping_sub(old.wrapping_mul(self.leaving));
        self.words[slot] = word;
        self.pushed += 1;
        // The length is part of it: five words are not the first of six.
        (self.pushed >= self.length).then(|| mixed(self.hash ^ self.length as u64))
    }
}

/// Bits of the filter for an n-gram; one bit in so many is set.
const FILTER_BITS: usize = 16;

/// N-grams with their items: a filter that most lookups end at, then sorted hashes.
#[derive(Debug)]
pub(super) struct Index {
    filter: Box<[u64]>,
    /// Hashes are shifted right by so much to be a place in the filter.
    shift: u32,
    ngrams: Box<[u64]>,
    items: Box<[u32]>,
}

impl Index {
    /// Of n-grams in rising order, each once.
    pub(super) fn new(sorted: &[(u64, u32)]) -> Self {
        let bits = (sorted.len() * FILTER_BITS).next_power_of_two().max(64);
        let shift = 64 - bits.trailing_zeros();
        let mut filter = vec![0u64; bits / 64];
        for (ngram, _) in sorted {
            let bit = (ngram >> shift) as usize;
            filter[bit / 64] |= 1 << (bit % 64);
        }
        let (ngrams, items): (Vec<u64>, Vec<u32>) = sorted.iter().copied().unzip();
        Self { filter: filter.into(), shift, ngrams: ngrams.into(), items: items.into() }
    }

    /// No for most n-grams that are not there.
    pub(super) fn may_have(&self, ngram: u64) -> bool {
        let bit = (ngram >> self.shift) as usize;
        self.filter[bit / 64] & (1 << (bit % 64)) != 0
    }

    /// The first item with this n-gram.
    pub(super) fn item(&self, ngram: u64) -> Option<u32> {
        self.ngrams.binary_search(&ngram).ok().map(|at| self.items[at])
    }
}
