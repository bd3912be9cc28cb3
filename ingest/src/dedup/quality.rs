//! The quality of the near-duplicate search, measured on the data themselves.
//!
//! The sample is the records with the least ranks (see [`super::minhash::Signed::rank`]). A pair of similarity s is in a
//! sample of share p with probability about p s rather than p², so near duplicates are in it together; weighing a pair by
//! 1 / s makes the estimate unbiased. All pairs of the sample are compared exactly, by an inverted index of shingles.

use std::collections::{BinaryHeap, HashMap, HashSet};

use forebay_schemas::dataset::Quality;
use forebay_schemas::id::Digest;

use super::judge::{Features, Match, Similarity};

/// Records in the sample, about.
const SAMPLE: usize = 4096;
/// A shingle that this many records of the sample have is left out of the search for pairs: it is boilerplate, and pairs
/// that have only such shingles in common are not similar.
const COMMON: usize = 64;
/// Of the shingles of a record so many or more lead to pairs, chosen by hash; similar records are of about the same size, and
/// what the larger chooses the smaller chooses too. A pair at a threshold of a half shares a dozen of them.
const SHINGLES: usize = 32;
/// At most every 2⁴th leads to one.
const SHINGLES_APART_LOG2: u32 = 4;

/// Finds the rank up to which records belong to the sample.
#[derive(Default)]
pub(crate) struct Cutoff {
    least: BinaryHeap<u32>,
}

impl Cutoff {
    pub(crate) fn see(&mut self, rank: u32) {
        if self.least.len() < SAMPLE {
            self.least.push(rank);
        } else if self.least.peek().is_some_and(|largest| rank < *largest) {
            self.least.pop();
            self.least.push(rank);
        }
    }

    /// The largest rank of the sample; none if there is no record.
    pub(crate) fn rank(&self) -> Option<u32> {
        self.least.peek().copied()
    }
}

/// The sample.
#[derive(Default)]
pub(crate) struct Sample {
    numbers: Vec<u32>,
    ids: Vec<Digest>,
    features: Vec<Features>,
    removals: Vec<(usize, Match)>,
}

impl Sample {
    /// Adds a record by its number, and what was decided of it. Ties of the rank may make the sample larger, up to twice its size.
    pub(crate) fn add(&mut self, number: u32, id: Digest, features: Features, found: Option<Match>) {
        if self.ids.len() >= 2 * SAMPLE {
            return;
        }
        self.removals.extend(found.map(|found| (self.ids.len(), found)));
        self.numbers.push(number);
        self.ids.push(id);
        self.features.push(features);
    }

    /// Numbers of its records.
    pub(crate) fn numbers(&self) -> HashSet<u32> {
        self.numbers.iter().copied().collect()
    }

    /// Its records: number, id and features.
    pub(crate) fn into_records(self) -> impl Iterator<Item = (u32, Digest, Features)> {
        self.numbers.into_iter().zip(self.ids).zip(self.features).map(|((number, id), features)| (number, id, features))
    }

    /// Compares all pairs.
    pub(crate) fn measure(&self, similarity: Similarity, threshold: f64) -> Quality {
        let (mut found, mut all, mut pairs) = (0.0, 0.0, 0u64);
        for (a, b) in self.candidates() {
            let similar = similarity(&self.features[a].data, &self.features[b].data);
            if similar >= threshold {
                pairs += 1;
                all += 1.0 / similar;
                let (left, right) = (&self.features[a], &self.features[b]);
                let queries = left.queries.as_ref().unwrap_or(&left.keys);
                found += if queries.iter().any(|key| right.keys.contains(key)) { 1.0 / similar } else { 0.0 };
            }
        }
        let index: HashMap<&Digest, usize> = self.ids.iter().enumerate().map(|(at, id)| (id, at)).collect();
        // A survivor that is not in the sample cannot be measured again.
        let measured = self.removals.iter().filter_map(|(removed, found)| Some((*removed, *index.get(&found.survivor)?)));
        let (mut true_removals, mut removals) = (0u64, 0u64);
        for (removed, survivor) in measured {
            removals += 1;
            true_removals += u64::from(similarity(&self.features[removed].data, &self.features[survivor].data) >= threshold);
        }
        let recall = if all == 0.0 { 1.0 } else { found / all };
        let precision = if removals == 0 { 1.0 } else { true_removals as f64 / removals as f64 };
        Quality {
            sample: self.ids.len() as u64,
            pairs,
            recall,
            recall_interval: wilson(recall, pairs),
            removals,
            precision,
            precision_interval: wilson(precision, removals),
        }
    }

    /// Pairs that share a shingle of some rarity.
    fn candidates(&self) -> Vec<(usize, usize)> {
        let mut having: Vec<(u64, u32)> = Vec::new();
        for (at, features) in self.features.iter().enumerate() {
            let apart = 1 << (features.data.len() / SHINGLES).max(1).ilog2().min(SHINGLES_APART_LOG2);
            having.extend(features.data.iter().filter(|shingle| **shingle % apart == 0).map(|shingle| (*shingle, at as u32)));
        }
        having.sort_unstable();
        let mut pairs = Vec::new();
        for records in having.chunk_by(|a, b| a.0 == b.0).filter(|records| records.len() > 1 && records.len() <= COMMON) {
            for (at, (_, a)) in records.iter().enumerate() {
                pairs.extend(records[at + 1..].iter().map(|(_, b)| (*a as usize, *b as usize)));
            }
            // The same pairs come with every shingle that they share.
            if pairs.len() > 4 << 20 {
                pairs.sort_unstable();
                pairs.dedup();
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }
}

/// The 95 % confidence interval of a share that was found in `draws` draws (Wilson 1927).
fn wilson(share: f64, draws: u64) -> [f64; 2] {
    const Z: f64 = 1.959_964;
    if draws == 0 {
        return [0.0, 1.0];
    }
    let n = draws as f64;
    let middle = share + Z * Z / (2.0 * n);
    let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::minhash::jaccard;

    fn features(keys: &[u64], data: std::ops::Range<u64>) -> Features {
        Features { keys: keys.to_vec(), queries: None, data: data.collect() }
    }

    #[test]
    fn recall_is_the_weighed_share_of_similar_pairs_that_share_a_key() {
        let mut sample = Sample::default();
        let ids: Vec<Digest> = (0u8..5).map(|n| Digest::of(&[n])).collect();
        sample.add(0, ids[0], features(&[1], 0..100), None);
        sample.add(1, ids[1], features(&[1], 0..90), Some(Match { survivor: ids[0], similarity: 0.9 }));
        sample.add(2, ids[2], features(&[2], 200..300), None);
        sample.add(3, ids[3], features(&[3], 200..290), None);
        sample.add(4, ids[4], features(&[1], 500..600), None);
        let quality = sample.measure(jaccard, 0.75);
        assert_eq!((quality.sample, quality.pairs, quality.recall), (5, 2, 0.5));
        assert_eq!((quality.removals, quality.precision), (1, 1.0));
        assert!(quality.recall_interval[0] < 0.5 && quality.recall_interval[1] > 0.5);
    }

    #[test]
    fn the_cutoff_is_the_largest_of_the_least_ranks() {
        let mut cutoff = Cutoff::default();
        assert_eq!(cutoff.rank(), None);
        (0..10_000u32).rev().for_each(|rank| cutoff.see(rank));
        assert_eq!(cutoff.rank(), Some(SAMPLE as u32 - 1));
    }

    #[test]
    fn the_interval_is_wilsons() {
        let [low, high] = wilson(0.9, 100);
        assert!((low - 0.8256).abs() < 1e-3 && (high - 0.9448).abs() < 1e-3, "{low} {high}");
        assert_eq!(wilson(1.0, 0), [0.0, 1.0]);
    }
}
