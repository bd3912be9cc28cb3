//! MinHash signatures (Broder 1997) of word shingles.
//!
//! The share of equal positions of two signatures estimates the Jaccard similarity of the texts' shingle sets. The
//! permutations are `x -> a x + b` modulo 2³² with odd `a`, bijections that a compiler can vectorise; `x` is a well-mixed
//! hash, so that their weak low bits do not matter. Part of the durable format: a change here changes which records are
//! kept, and needs a new program version.

use forebay_schemas::pipeline::Dedup;
use multiversion::multiversion;
use xxhash_rust::xxh3::xxh3_64;

/// Signs texts; reuses its buffers, so keep one a thread.
pub(crate) struct Signer {
    multipliers: Vec<u32>,
    offsets: Vec<u32>,
    shingle_words: usize,
    words: Vec<u64>,
    shingles: Vec<u32>,
}

impl Signer {
    /// Signatures of `bands` × `rows_per_band` values.
    pub(crate) fn new(settings: &Dedup) -> Self {
        let values = (settings.bands * settings.rows_per_band) as usize;
        // SplitMix64 (Steele et al. 2014) from a fixed seed: the same permutations everywhere, for ever.
        let mut state = 0x466F_7265_6261_7921;
        let mut next = || {
            state = u64::wrapping_add(state, 0x9E37_79B9_7F4A_7C15);
            mix(state)
        };
        let multipliers = (0..values).map(|_| (next() >> 32) as u32 | 1).collect();
        let offsets = (0..values).map(|_| (next() >> 32) as u32).collect();
        Self { multipliers, offsets, shingle_words: settings.shingle_words as usize, words: Vec::new(), shingles: Vec::new() }
    }

    /// The signature, little-endian values one after the other.
    pub(crate) fn sign(&mut self, text: &str) -> Vec<u8> {
        self.words.clear();
        self.words.extend(words(text).map(|word| xxh3_64(word.as_bytes())));
        self.shingles.clear();
        // A text of fewer words than a shingle is one shingle.
        let width = self.shingle_words.min(self.words.len()).max(1);
        self.shingles.extend(self.words.windows(width).map(shingle));
        if self.shingles.is_empty() {
            self.shingles.push((xxh3_64(text.as_bytes()) >> 32) as u32);
        }
        let mut signature = vec![u32::MAX; self.multipliers.len()];
        fold(&mut signature, &self.multipliers, &self.offsets, &self.shingles);
        signature.iter().flat_map(|value| value.to_le_bytes()).collect()
    }
}

/// Runs of letters, digits and underscores; in scripts without spaces every character is a word.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = rest.find(is_word)?;
        let tail = &rest[start..];
        let end = match tail.chars().next() {
            Some(first) if is_spaceless(first) => first.len_utf8(),
            _ => tail.find(|c| !is_word(c) || is_spaceless(c)).unwrap_or(tail.len()),
        };
        rest = &tail[end..];
        Some(&tail[..end])
    })
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || (!c.is_ascii() && c.is_alphanumeric())
}

/// Han, kana, and the other scripts of East Asia from the radicals on, without Hangul, which has spaces.
fn is_spaceless(c: char) -> bool {
    matches!(c, '\u{2E80}'..='\u{A4CF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}' | '\u{0E00}'..='\u{0EFF}')
}

fn shingle(words: &[u64]) -> u32 {
    let hash = words.iter().fold(0u64, |hash, word| (hash.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    (mix(hash) >> 32) as u32
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
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

    use super::*;
    use crate::dedup::near::similarity;

    fn sets(text: &str, width: usize) -> HashSet<Vec<&str>> {
        words(text).collect::<Vec<_>>().windows(width).map(<[&str]>::to_vec).collect()
    }

    #[test]
    fn words_are_cut_at_everything_but_letters_digits_and_underscores() {
        let cut = |text| words(text).collect::<Vec<_>>();
        assert_eq!(cut("let x_1 = foo(\"äb\");"), ["let", "x_1", "foo", "äb"]);
        assert_eq!(cut("床前明月 光a"), ["床", "前", "明", "月", "光", "a"]);
        assert_eq!(cut(" ;"), Vec::<&str>::new());
    }

    #[test]
    fn the_estimate_is_near_the_true_jaccard_similarity() {
        let settings = Dedup { bands: 64, rows_per_band: 8, ..Dedup::default() };
        let mut signer = Signer::new(&settings);
        let text: Vec<String> = (0..4_000).map(|i: u32| format!("w{}", i.wrapping_mul(2_654_435_761) >> 20)).collect();
        for changed in [0, 20, 100, 300] {
            let mut other = text.clone();
            for (i, word) in other.iter_mut().enumerate() {
                if changed > 0 && i % (4_000 / changed) == 0 {
                    word.push('x');
                }
            }
            let (a, b) = (text.join(" "), other.join(" "));
            let (left, right) = (sets(&a, 5), sets(&b, 5));
            let truth = left.intersection(&right).count() as f64 / left.union(&right).count() as f64;
            let estimate = similarity(&signer.sign(&a), &signer.sign(&b));
            // Three standard deviations of 512 draws are at most 0.066.
            assert!((truth - estimate).abs() < 0.07, "changed {changed}: true {truth}, estimate {estimate}");
        }
    }

    #[test]
    fn texts_without_words_differ_by_their_bytes() {
        let mut signer = Signer::new(&Dedup::default());
        assert_eq!(similarity(&signer.sign("{}"), &signer.sign("{}")), 1.0);
        assert!(similarity(&signer.sign("{}"), &signer.sign("[]")) < 0.2);
    }
}
