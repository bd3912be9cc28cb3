//! A few records out of many, drawn evenly.
//!
//! The records with the least hashes of their keys (bottom-k sampling, Cohen and Kaplan 2007): every record has the same
//! chance, and the choice is the same whatever the order and the cut into batches.

use std::collections::BinaryHeap;

use forebay_schemas::id::Digest;
use twox_hash::XxHash3_64;

use super::markup::clip;
use super::rows::Record;

/// Records drawn of each reason.
pub(super) const DRAWN: usize = 20;
/// Characters that are remembered of a key and of a detail.
pub(super) const SHOWN_CHARS: usize = 240;

/// A record that was drawn.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Drawn {
    hash: u64,
    pub(super) key: String,
    pub(super) detail: String,
    pub(super) survivor: Option<Digest>,
    pub(super) bytes: u64,
}

/// The records drawn so far; the one with the largest hash on top.
#[derive(Clone, Debug, Default)]
pub(super) struct Draw {
    least: BinaryHeap<Drawn>,
}

impl Draw {
    pub(super) fn add(&mut self, record: &Record<'_>) {
        let hash = XxHash3_64::oneshot(record.key.as_bytes());
        if self.least.len() >= DRAWN && self.least.peek().is_some_and(|largest| hash > largest.hash) {
            return;
        }
        self.least.push(Drawn {
            hash,
            key: clip(record.key, SHOWN_CHARS),
            detail: clip(record.detail, SHOWN_CHARS),
            survivor: record.survivor,
            bytes: record.bytes,
        });
        if self.least.len() > DRAWN {
            self.least.pop();
        }
    }

    /// What was drawn, by key.
    pub(super) fn by_key(&self) -> Vec<&Drawn> {
        let mut drawn: Vec<&Drawn> = self.least.iter().collect();
        drawn.sort_by(|a, b| (&a.key, a.hash).cmp(&(&b.key, b.hash)));
        drawn
    }

    pub(super) fn survivors(&self) -> impl Iterator<Item = Digest> {
        self.least.iter().filter_map(|drawn| drawn.survivor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::page::rows::Verdict;
    use proptest::prelude::*;

    fn draw(keys: impl IntoIterator<Item = u32>) -> Vec<String> {
        let mut draw = Draw::default();
        for key in keys {
            let key = format!("k{key}");
            let (id, survivor, split, tokens) = (None, None, None, None);
            draw.add(&Record { key: &key, id, verdict: Verdict::Removed, reason: "r", detail: "", survivor, split, bytes: 1, tokens });
        }
        draw.by_key().into_iter().map(|drawn| drawn.key.clone()).collect()
    }

    proptest! {
        #[test]
        fn the_draw_does_not_depend_on_order(count in 0u32..200, turn in 0u32..200) {
            let drawn = draw(0..count);
            prop_assert_eq!(drawn.len(), DRAWN.min(count as usize));
            prop_assert_eq!(&drawn, &draw((0..count).map(|key| (key + turn) % count.max(1))));
            prop_assert_eq!(&drawn, &draw((0..count).rev()));
        }
    }

    #[test]
    fn every_record_has_about_the_same_chance() {
        let low = draw(0..100_000).into_iter().filter(|key| key[1..].parse::<u32>().is_ok_and(|key| key < 50_000)).count();
        assert!((4..=16).contains(&low), "{low} of {DRAWN} from the first half");
    }
}
