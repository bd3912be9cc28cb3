//! Near duplicates, decided one record at a time in the order of ids.
//!
//! A record is removed if a record that was kept before it is similar enough, and then names the most similar one as
//! its survivor; else it is kept. Candidates are kept records that agree in all rows of a band (locality-sensitive
//! hashing, Indyk and Motwani 1998); each is verified on the full signatures. So the result is a function of the set of
//! records alone (the records come sorted by id), every removal has a witness that survived, and a chain A~B~C never
//! removes C for the sake of A. Only kept records are held: under 1 KB each with the default 14 × 8 values.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use forebay_schemas::id::Digest;
use forebay_schemas::pipeline::Dedup;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Why a record is removed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Match {
    /// The record kept instead.
    pub(crate) survivor: Digest,
    /// Estimated Jaccard similarity to it.
    pub(crate) similarity: f64,
}

/// The records kept so far.
pub(crate) struct Near {
    bands: usize,
    threshold: f64,
    /// Of every kept record, in order.
    ids: Vec<Digest>,
    signatures: Vec<u8>,
    signature_bytes: usize,
    /// Hash of a band (its number included) -> the kept record that came last.
    heads: HashMap<u64, u32, BuildHasherDefault<Already>>,
    /// `previous[record * bands + band]`: the kept record before it with the same hash.
    previous: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl Near {
    pub(crate) fn new(settings: &Dedup) -> Self {
        Self {
            bands: settings.bands as usize,
            threshold: settings.threshold,
            ids: Vec::new(),
            signatures: Vec::new(),
            signature_bytes: (settings.bands * settings.rows_per_band) as usize * 4,
            heads: HashMap::default(),
            previous: Vec::new(),
        }
    }

    /// Decides one record; records must come in the order of their ids.
    pub(crate) fn offer(&mut self, id: Digest, signature: &[u8]) -> Option<Match> {
        let hashes = self.band_hashes(signature);
        let found = self.most_similar(&hashes, signature);
        if found.is_none() {
            self.keep(id, signature, &hashes);
        }
        found
    }

    fn band_hashes(&self, signature: &[u8]) -> Vec<u64> {
        let band_bytes = self.signature_bytes / self.bands;
        signature.chunks_exact(band_bytes).enumerate().map(|(band, rows)| xxh3_64_with_seed(rows, band as u64)).collect()
    }

    fn most_similar(&self, hashes: &[u64], signature: &[u8]) -> Option<Match> {
        let mut candidates = Vec::new();
        for (band, hash) in hashes.iter().enumerate() {
            let mut record = self.heads.get(hash).copied().unwrap_or(NONE);
            while record != NONE {
                candidates.push(record);
                record = self.previous[record as usize * self.bands + band];
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        let mut best: Option<Match> = None;
        for record in candidates {
            let start = record as usize * self.signature_bytes;
            let similarity = similarity(signature, &self.signatures[start..start + self.signature_bytes]);
            // Candidates ascend by id, so of equally similar ones the smallest id stays.
            if similarity >= self.threshold && best.is_none_or(|best| similarity > best.similarity) {
                best = Some(Match { survivor: self.ids[record as usize], similarity });
            }
        }
        best
    }

    fn keep(&mut self, id: Digest, signature: &[u8], hashes: &[u64]) {
        let record = self.ids.len() as u32;
        self.ids.push(id);
        self.signatures.extend_from_slice(signature);
        for hash in hashes {
            // Should two bands of one record ever have the same hash, the chain must not lead back to the record.
            self.previous.push(self.heads.insert(*hash, record).filter(|last| *last != record).unwrap_or(NONE));
        }
    }
}

/// Share of equal values of two signatures: the estimate of the Jaccard similarity.
pub(crate) fn similarity(left: &[u8], right: &[u8]) -> f64 {
    let values = left.len().max(right.len()) / 4;
    let equal = left.chunks_exact(4).zip(right.chunks_exact(4)).filter(|(a, b)| a == b).count();
    if values == 0 { 1.0 } else { equal as f64 / values as f64 }
}

/// Keys that are hashes already.
#[derive(Default)]
pub(crate) struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::dedup::minhash::Signer;

    /// Verdicts by id, whatever the order in which texts came.
    fn decide(texts: &[String], settings: &Dedup) -> BTreeMap<Digest, Option<Match>> {
        let mut signer = Signer::new(settings);
        let records: BTreeMap<Digest, Vec<u8>> = texts.iter().map(|text| (Digest::of(text.as_bytes()), signer.sign(text))).collect();
        let mut near = Near::new(settings);
        records.into_iter().map(|(id, signature)| (id, near.offer(id, &signature))).collect()
    }

    fn text(base: u32, edits: &[(usize, u8)]) -> String {
        let mut words: Vec<String> = (0..60).map(|i| format!("{}", (base + 1) * 1000 + i)).collect();
        for (at, value) in edits {
            words[*at] = format!("edit{value}");
        }
        words.join(" ")
    }

    proptest! {
        #[test]
        fn survivors_do_not_depend_on_order_and_are_true_witnesses(
            specs in prop::collection::vec((0u32..4, prop::collection::vec((0usize..60, any::<u8>()), 0..4)), 1..40),
            rotation in 0usize..40,
        ) {
            let settings = Dedup::default();
            let texts: Vec<String> = specs.iter().map(|(base, edits)| text(*base, edits)).collect();
            let mut turned = texts.clone();
            turned.rotate_left(rotation % texts.len());
            let verdicts = decide(&texts, &settings);
            prop_assert_eq!(&verdicts, &decide(&turned, &settings));
            let mut signer = Signer::new(&settings);
            let signatures: BTreeMap<Digest, Vec<u8>> = texts.iter().map(|t| (Digest::of(t.as_bytes()), signer.sign(t))).collect();
            for (id, found) in &verdicts {
                if let Some(found) = found {
                    prop_assert!(verdicts[&found.survivor].is_none(), "the survivor was removed itself");
                    let estimate = similarity(&signatures[id], &signatures[&found.survivor]);
                    prop_assert!(estimate >= settings.threshold && estimate == found.similarity);
                }
            }
        }
    }

    #[test]
    fn copies_with_an_edit_are_found_and_strangers_are_not() {
        let settings = Dedup::default();
        let verdicts = decide(&[text(1, &[]), text(1, &[(59, 1)]), text(2, &[])], &settings);
        assert_eq!(verdicts.values().filter(|found| found.is_some()).count(), 1);
    }
}
