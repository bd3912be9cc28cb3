//! Near duplicates, decided one component at a time, its records in the order of their ids.
//!
//! A record is removed if a record that was kept before it is similar enough, and names the most similar one as its
//! survivor; else it is kept. Candidates are kept records that share a band key (locality-sensitive hashing, Indyk and
//! Motwani 1998); each is verified by the exact Jaccard similarity of the sets of shingles. So the result is a function of
//! the set of records alone, every removal has a witness that survived, and a chain A~B~C never removes C for the sake
//! of A: it is the lexicographically first maximal independent set of the graph of similar records. Only what was kept
//! of one component is held, beyond a limit in a temporary file.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use forebay_schemas::id::{Already, Digest};

use crate::error::{Error, Kind, Result};

/// What a record is compared by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    /// Keys under which it is found.
    pub(crate) keys: Vec<u64>,
    /// Keys by which it looks for others, if these are not the same.
    pub(crate) queries: Option<Vec<u64>>,
    /// What similarity is computed from.
    pub(crate) data: Vec<u64>,
}

/// How similar two records are, from their [`Features::data`].
pub(crate) type Similarity = fn(&[u64], &[u64]) -> f64;

/// Why a record is removed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Match {
    /// The record kept instead.
    pub(crate) survivor: Digest,
    /// Similarity to it.
    pub(crate) similarity: f64,
}

/// Judges records; those of a component must come together and in the order of their ids.
pub(crate) struct Judge {
    similarity: Similarity,
    threshold: f64,
    component: Option<u32>,
    /// Of every record kept so far in the component, in order.
    ids: Vec<Digest>,
    held: Held,
    /// Band key -> kept records that have it.
    by_key: HashMap<u64, Vec<u32>, BuildHasherDefault<Already>>,
}

impl Judge {
    /// Holds at most about `memory_bytes` of what is compared in memory.
    pub(crate) fn new(similarity: Similarity, threshold: f64, memory_bytes: usize) -> Self {
        Self { similarity, threshold, component: None, ids: Vec::new(), held: Held::new(memory_bytes), by_key: HashMap::default() }
    }

    /// Decides one record: the match for whose sake it is removed, or none if it is kept.
    pub(crate) fn offer(&mut self, component: u32, id: Digest, features: &Features) -> Result<Option<Match>> {
        if self.component != Some(component) {
            self.component = Some(component);
            self.ids.clear();
            self.held.clear();
            self.by_key.clear();
        }
        let found = self.most_similar(features)?;
        if found.is_none() {
            self.keep(id, features)?;
        }
        Ok(found)
    }

    fn most_similar(&mut self, features: &Features) -> Result<Option<Match>> {
        let queries = features.queries.as_ref().unwrap_or(&features.keys);
        let mut candidates: Vec<u32> = queries.iter().filter_map(|key| self.by_key.get(key)).flatten().copied().collect();
        candidates.sort_unstable();
        candidates.dedup();
        let mut best: Option<Match> = None;
        for record in candidates {
            let similarity = (self.similarity)(&features.data, self.held.get(record as usize)?);
            // Candidates ascend by id, so of equally similar ones the smallest id stays.
            if similarity >= self.threshold && best.is_none_or(|best| similarity > best.similarity) {
                best = Some(Match { survivor: self.ids[record as usize], similarity });
            }
        }
        Ok(best)
    }

    fn keep(&mut self, id: Digest, features: &Features) -> Result<()> {
        let record = self.ids.len() as u32;
        self.ids.push(id);
        self.held.push(&features.data)?;
        for key in &features.keys {
            let records = self.by_key.entry(*key).or_default();
            if records.last() != Some(&record) {
                records.push(record);
            }
        }
        Ok(())
    }
}

/// Lists of numbers, in memory up to a limit and then in a temporary file.
struct Held {
    ranges: Vec<(usize, usize)>,
    memory: Vec<u64>,
    memory_numbers: usize,
    file: Option<std::fs::File>,
    file_numbers: usize,
    read: Vec<u64>,
}

impl Held {
    fn new(memory_bytes: usize) -> Self {
        let (ranges, memory, read) = (Vec::new(), Vec::new(), Vec::new());
        Self { ranges, memory, memory_numbers: memory_bytes / 8, file: None, file_numbers: 0, read }
    }

    fn clear(&mut self) {
        self.ranges.clear();
        self.memory.clear();
        self.file = None;
        self.file_numbers = 0;
    }

    fn push(&mut self, numbers: &[u64]) -> Result<()> {
        if self.file.is_none() && self.memory.len() + numbers.len() <= self.memory_numbers {
            self.ranges.push((self.memory.len(), numbers.len()));
            self.memory.extend_from_slice(numbers);
            return Ok(());
        }
        if self.file.is_none() {
            self.file = Some(tempfile::tempfile().map_err(spilling)?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        file.write_all(&bytes).map_err(spilling)?;
        self.ranges.push((self.memory_numbers + self.file_numbers, numbers.len()));
        self.file_numbers += numbers.len();
        Ok(())
    }

    fn get(&mut self, index: usize) -> Result<&[u64]> {
        let (start, length) = self.ranges[index];
        let Some(file) = self.file.as_ref().filter(|_| start >= self.memory_numbers) else {
            return Ok(&self.memory[start..start + length]);
        };
        let mut bytes = vec![0; length * 8];
        file.read_exact_at(&mut bytes, ((start - self.memory_numbers) * 8) as u64).map_err(spilling)?;
        self.read.clear();
        self.read.extend(bytes.chunks_exact(8).map(|number| number.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))));
        Ok(&self.read)
    }
}

fn spilling(error: io::Error) -> Error {
    Error::with_source(Kind::Unavailable, "temporary files of the near-duplicate search failed", error)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use forebay_schemas::pipeline::Dedup;
    use proptest::prelude::*;

    use super::*;
    use crate::dedup::minhash::{Signer, jaccard};
    use crate::dedup::text_features;

    /// Verdicts by id, whatever the order in which texts came.
    fn decide(texts: &[String], settings: &Dedup, memory_bytes: usize) -> BTreeMap<Digest, Option<Match>> {
        let mut signer = Signer::new(settings);
        let records: BTreeMap<Digest, Features> =
            texts.iter().map(|text| (Digest::of(text.as_bytes()), text_features(&mut signer, text))).collect();
        let mut judge = Judge::new(jaccard, settings.threshold, memory_bytes);
        records.into_iter().map(|(id, features)| (id, judge.offer(1, id, &features).expect("judged"))).collect()
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
        fn survivors_do_not_depend_on_order_or_memory_and_are_true_witnesses(
            specs in prop::collection::vec((0u32..4, prop::collection::vec((0usize..60, any::<u8>()), 0..4)), 1..40),
            rotation in 0usize..40,
        ) {
            let settings = Dedup::default();
            let texts: Vec<String> = specs.iter().map(|(base, edits)| text(*base, edits)).collect();
            let mut turned = texts.clone();
            turned.rotate_left(rotation % texts.len());
            let verdicts = decide(&texts, &settings, 1 << 20);
            prop_assert_eq!(&verdicts, &decide(&turned, &settings, 1_000));
            let mut signer = Signer::new(&settings);
            let shingles: BTreeMap<Digest, Vec<u64>> = texts.iter().map(|t| (Digest::of(t.as_bytes()), signer.sign_with_shingles(t).1)).collect();
            for (id, found) in &verdicts {
                if let Some(found) = found {
                    prop_assert!(verdicts[&found.survivor].is_none(), "the survivor was removed itself");
                    let exact = jaccard(&shingles[id], &shingles[&found.survivor]);
                    prop_assert!(exact >= settings.threshold && exact == found.similarity);
                }
            }
        }
    }

    #[test]
    fn copies_with_an_edit_are_found_and_strangers_are_not() {
        let settings = Dedup::default();
        let verdicts = decide(&[text(1, &[]), text(1, &[(59, 1)]), text(2, &[])], &settings, 1 << 20);
        assert_eq!(verdicts.values().filter(|found| found.is_some()).count(), 1);
    }

    #[test]
    fn components_do_not_see_each_other() {
        let settings = Dedup::default();
        let mut signer = Signer::new(&settings);
        let features = text_features(&mut signer, &text(1, &[]));
        let mut judge = Judge::new(jaccard, settings.threshold, 1 << 20);
        let ids = [Digest::of(b"a"), Digest::of(b"b")];
        assert!(judge.offer(1, ids[0], &features).expect("judged").is_none());
        assert!(judge.offer(2, ids[1], &features).expect("judged").is_none());
    }
}
