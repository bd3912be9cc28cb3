//! MinHash signatures (Broder 1997) of word shingles.
//!
//! The share of equal positions of two signatures estimates the Jaccard similarity of the texts' shingle sets. The
//! permutations are `x -> a x + b` modulo 2³² with odd `a`, bijections that a compiler can vectorise; `x` is a well-mixed
//! hash, so that their weak low bits do not matter. Part of the durable format: a change here changes which records are
//! kept, and needs a new program version.

use forebay_schemas::pipeline::Dedup;
use multiversion::multiversion;
use twox_hash::XxHash3_64;

use super::words::word_hashes;
use crate::splitmix::{SplitMix64, mix};

/// Signs texts; reuses its buffers, so keep one a thread.
pub(crate) struct Signer {
    multipliers: Vec<u32>,
    offsets: Vec<u32>,
    shingle_words: usize,
    rows_per_band: usize,
    words: Vec<u64>,
    shingles: Vec<u64>,
    halves: Vec<u32>,
    signature: Vec<u32>,
}

/// What a text is compared by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    /// Keys of the bands, 8 bytes each, little-endian: texts that share one are candidates.
    pub(crate) sketch: Vec<u8>,
    /// Least value under one more permutation, which no band uses: similar texts tend to have the same, so a sample of
    /// the least ranks holds similar pairs in proportion to their similarity.
    pub(crate) rank: u32,
}

impl Signer {
    /// Signatures of `bands` × `rows_per_band` values.
    pub(crate) fn new(settings: &Dedup) -> Self {
        let values = (settings.bands * settings.rows_per_band) as usize + 1;
        let mut generator = SplitMix64::of_hashes();
        let multipliers = (0..values).map(|_| (generator.draw() >> 32) as u32 | 1).collect();
        let offsets = (0..values).map(|_| (generator.draw() >> 32) as u32).collect();
        Self {
            multipliers,
            offsets,
            shingle_words: settings.shingle_words as usize,
            rows_per_band: settings.rows_per_band as usize,
            words: Vec::new(),
            shingles: Vec::new(),
            halves: Vec::new(),
            signature: Vec::new(),
        }
    }

    /// Signs a text.
    pub(crate) fn sign(&mut self, text: &str) -> Signed {
        self.cut(text);
        self.sign_cut()
    }

    /// Signature of a text, and its set of shingles as sorted 64-bit hashes, each once; never empty.
    pub(crate) fn sign_with_shingles(&mut self, text: &str) -> (Signed, Vec<u64>) {
        self.cut(text);
        let signed = self.sign_cut();
        self.shingles.sort_unstable();
        self.shingles.dedup();
        (signed, self.shingles.clone())
    }

    fn sign_cut(&mut self) -> Signed {
        self.halves.clear();
        self.halves.extend(self.shingles.iter().map(|shingle| (shingle >> 32) as u32));
        self.signature.clear();
        self.signature.resize(self.multipliers.len(), u32::MAX);
        fold(&mut self.signature, &self.multipliers, &self.offsets, &self.halves);
        let (rank, rows) = self.signature.split_last().map_or((0, &[][..]), |(rank, rows)| (*rank, rows));
        let keys = rows.chunks_exact(self.rows_per_band).enumerate().map(|(band, rows)| band_key(band, rows));
        Signed { sketch: keys.flat_map(u64::to_le_bytes).collect(), rank }
    }

    fn cut(&mut self, text: &str) {
        self.words.clear();
        self.words.extend(word_hashes(text));
        self.shingles.clear();
        // A text of fewer words than a shingle is one shingle.
        let width = self.shingle_words.min(self.words.len()).max(1);
        self.shingles.extend(self.words.windows(width).map(shingle));
        if self.shingles.is_empty() {
            self.shingles.push(XxHash3_64::oneshot(text.as_bytes()));
        }
    }
}

/// Key of a band: what two signatures must share to be candidates.
fn band_key(band: usize, rows: &[u32]) -> u64 {
    rows.iter().fold(mix(band as u64), |key, row| mix(key ^ u64::from(*row)))
}

/// Jaccard similarity of two sets as [`Signer::shingles`] gives them.
pub(crate) fn jaccard(left: &[u64], right: &[u64]) -> f64 {
    let (mut l, mut r, mut common) = (0, 0, 0usize);
    while l < left.len() && r < right.len() {
        // Without branches that depend on the data: which side is smaller cannot be predicted.
        let (a, b) = (left[l], right[r]);
        common += usize::from(a == b);
        l += usize::from(a <= b);
        r += usize::from(b <= a);
    }
    let all = left.len() + right.len() - common;
    if all == 0 { 1.0 } else { common as f64 / all as f64 }
}

fn shingle(words: &[u64]) -> u64 {
    mix(words.iter().fold(0u64, |hash, word| (hash.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

/// Permutations at a time; as many as fit the registers of every target.
const LANES: usize = 16;

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2", "x86_64+sse4.1", "aarch64+neon"))]
fn fold(signature: &mut [u32], multipliers: &[u32], offsets: &[u32], shingles: &[u32]) {
    let mut start = 0;
    while start + LANES <= signature.len() {
        let lanes = start..start + LANES;
        let (mut a, mut b, mut least) = ([0u32; LANES], [0u32; LANES], [0u32; LANES]);
        a.copy_from_slice(&multipliers[lanes.clone()]);
        b.copy_from_slice(&offsets[lanes.clone()]);
        least.copy_from_slice(&signature[lanes.clone()]);
        for x in shingles {
            for lane in 0..LANES {
                least[lane] = least[lane].min(a[lane].wrapping_mul(*x).wrapping_add(b[lane]));
            }
        }
        signature[lanes].copy_from_slice(&least);
        start += LANES;
    }
    for at in start..signature.len() {
        for x in shingles {
            signature[at] = signature[at].min(multipliers[at].wrapping_mul(*x).wrapping_add(offsets[at]));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// A text of 4,000 words and one in which every so manieth is another.
    fn pair(every: usize) -> (String, String) {
        let words: Vec<String> = (0..4_000).map(|i: u32| format!("w{}", i.wrapping_mul(2_654_435_761) >> 20)).collect();
        let edited = words.iter().enumerate().map(|(i, word)| if i % every == 0 { format!("{word}x") } else { word.clone() });
        (words.join(" "), edited.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn shared_bands_follow_the_curve_of_theory() {
        // With one row a band the share of equal bands estimates the similarity.
        let settings = Dedup { bands: 256, rows_per_band: 1, ..Dedup::default() };
        let mut signer = Signer::new(&settings);
        for every in [200, 40, 13] {
            let (a, b) = pair(every);
            let truth = jaccard(&signer.sign_with_shingles(&a).1, &signer.sign_with_shingles(&b).1);
            let (left, right) = (signer.sign(&a).sketch, signer.sign(&b).sketch);
            let equal = left.chunks_exact(8).zip(right.chunks_exact(8)).filter(|(a, b)| a == b).count();
            // Four standard deviations of 256 draws are at most 0.125.
            assert!((truth - equal as f64 / 256.0).abs() < 0.125, "every {every}: true {truth}, estimate {}", equal as f64 / 256.0);
        }
    }

    #[test]
    fn texts_without_words_differ_by_their_bytes() {
        let mut signer = Signer::new(&Dedup::default());
        assert_eq!(signer.sign("{}"), signer.sign("{}"));
        assert_eq!(jaccard(&signer.sign_with_shingles("{}").1, &signer.sign_with_shingles("[]").1), 0.0);
    }

    proptest! {
        #[test]
        fn jaccard_is_that_of_the_sets(left in prop::collection::hash_set(0u64..40, 0..30), right in prop::collection::hash_set(0u64..40, 0..30)) {
            let sorted = |set: &HashSet<u64>| { let mut all: Vec<u64> = set.iter().copied().collect(); all.sort_unstable(); all };
            let (both, either) = (left.intersection(&right).count(), left.union(&right).count());
            let expected = if either == 0 { 1.0 } else { both as f64 / either as f64 };
            prop_assert_eq!(jaccard(&sorted(&left), &sorted(&right)), expected);
        }
    }
}
