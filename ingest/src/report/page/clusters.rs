//! Clusters of duplicates: a kept record and those removed in its favour.
//!
//! Promises: exact up to [`MAX_CLUSTERS`] clusters. Beyond that, sizes are counted of an even sample of the clusters, chosen
//! by the id of the survivor and halved whenever it is full (adaptive sampling, Flajolet 1990); what is counted at all is
//! counted exactly, because an id is in the sample from its first member on or never. The largest clusters known at each
//! halving stay; one that began later may be missing, and [`Clusters::one_in`] says so.

use std::collections::{HashMap, HashSet};

use forebay_schemas::id::Digest;

use super::counts::Counts;
use super::markup::clip;
use super::rows::{Record, Verdict};
use super::sample::SHOWN_CHARS;

/// Clusters whose size is remembered, about 11 MB of them.
pub(super) const MAX_CLUSTERS: usize = 200_000;
/// Clusters that the page shows.
pub(super) const LARGEST: usize = 20;
/// Members that the page shows of each, its survivor aside.
pub(super) const MEMBERS: usize = 5;

/// Sizes of clusters.
#[derive(Clone, Debug)]
pub(super) struct Clusters {
    removed: u64,
    members: HashMap<Digest, u64>,
    halvings: u32,
    limit: usize,
}

impl Default for Clusters {
    fn default() -> Self {
        Self::with_limit(MAX_CLUSTERS)
    }
}

impl Clusters {
    fn with_limit(limit: usize) -> Self {
        Self { removed: 0, members: HashMap::new(), halvings: 0, limit }
    }

    /// Counts a record that was removed in favour of `survivor`.
    pub(super) fn add(&mut self, survivor: Digest) {
        self.removed += 1;
        if let Some(members) = self.members.get_mut(&survivor) {
            *members += 1;
        } else if is_sampled(&survivor, self.halvings) {
            self.members.insert(survivor, 1);
            while self.members.len() > self.limit {
                self.halve();
            }
        }
    }

    /// Records removed in favour of another.
    pub(super) fn removed(&self) -> u64 {
        self.removed
    }

    /// One cluster in so many is in the histogram; 1 if all are.
    pub(super) fn one_in(&self) -> u64 {
        1 << self.halvings.min(63)
    }

    /// Number of clusters, estimated if only one in some is counted.
    pub(super) fn count(&self) -> u64 {
        self.sampled().count() as u64 * self.one_in()
    }

    /// The largest clusters with their number of records, the survivor included.
    pub(super) fn largest(&self, number: usize) -> Vec<(Digest, u64)> {
        let mut clusters: Vec<(Digest, u64)> = self.members.iter().map(|(id, members)| (*id, members + 1)).collect();
        let order = |a: &(Digest, u64), b: &(Digest, u64)| b.1.cmp(&a.1).then(a.0.cmp(&b.0));
        if clusters.len() > number {
            clusters.select_nth_unstable_by(number, order);
            clusters.truncate(number);
        }
        clusters.sort_by(order);
        clusters
    }

    /// Clusters by size: of 2, of 3 to 4, of 5 to 8 records and so on; estimated if only one in some is counted.
    pub(super) fn by_size(&self) -> Vec<u64> {
        let mut bins: Vec<u64> = Vec::new();
        for members in self.sampled() {
            // A cluster has one record more than it has members.
            let bin = members.max(1).ilog2() as usize;
            if bins.len() <= bin {
                bins.resize(bin + 1, 0);
            }
            bins[bin] += self.one_in();
        }
        bins
    }

    fn sampled(&self) -> impl Iterator<Item = u64> {
        self.members.iter().filter(|(id, _)| is_sampled(id, self.halvings)).map(|(_, members)| *members)
    }

    fn halve(&mut self) {
        self.halvings += 1;
        // If all ids ended in 64 zeros they would not be digests; then the sample alone cannot make room.
        let room = if self.halvings < 64 { self.limit / 8 } else { 0 };
        let largest: HashSet<Digest> = self.largest(room).into_iter().map(|(id, _)| id).collect();
        let halvings = self.halvings;
        self.members.retain(|id, _| largest.contains(id) || (halvings < 64 && is_sampled(id, halvings)));
    }
}

// Ids are digests, so their bits are as good as a hash.
fn is_sampled(id: &Digest, halvings: u32) -> bool {
    id.as_u64().trailing_zeros() >= halvings
}

/// What the second reading of the ledger finds.
pub(super) struct Names {
    keys: HashMap<Digest, Option<String>>,
    members: HashMap<Digest, Vec<Member>>,
}

/// A record that was removed in favour of another.
pub(super) struct Member {
    pub(super) key: String,
    pub(super) detail: String,
}

impl Names {
    /// Looks for what the page will show.
    pub(super) fn wanted(counts: &Counts) -> Self {
        let largest = counts.clusters.largest(LARGEST);
        let left_out = counts.removed.values().chain(counts.quarantined.values());
        let drawn = left_out.flat_map(|reason| reason.draw.survivors());
        Self {
            keys: largest.iter().map(|(id, _)| *id).chain(drawn).map(|id| (id, None)).collect(),
            members: largest.iter().map(|(id, _)| (*id, Vec::new())).collect(),
        }
    }

    pub(super) fn see(&mut self, record: &Record<'_>) {
        if record.verdict == Verdict::Kept
            && let Some(key) = record.id.and_then(|id| self.keys.get_mut(&id))
        {
            key.get_or_insert_with(|| clip(record.key, SHOWN_CHARS));
        }
        if record.verdict == Verdict::Removed
            && let Some(members) = record.survivor.and_then(|survivor| self.members.get_mut(&survivor))
            && members.len() < MEMBERS
        {
            members.push(Member { key: clip(record.key, SHOWN_CHARS), detail: clip(record.detail, SHOWN_CHARS) });
        }
    }

    /// The key of the kept record with this id.
    pub(super) fn key(&self, id: &Digest) -> Option<&str> {
        self.keys.get(id)?.as_deref()
    }

    /// The first members of a cluster in the order of the ledger.
    pub(super) fn members(&self, survivor: &Digest) -> &[Member] {
        self.members.get(survivor).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u64) -> Digest {
        Digest::of(&number.to_le_bytes())
    }

    proptest! {
        #[test]
        fn without_a_limit_every_member_is_counted(sizes in prop::collection::vec(1u64..40, 0..50)) {
            let mut clusters = Clusters::default();
            for (number, members) in sizes.iter().enumerate() {
                (0..*members).for_each(|_| clusters.add(id(number as u64)));
            }
            prop_assert_eq!(clusters.removed(), sizes.iter().sum::<u64>());
            prop_assert_eq!(clusters.count(), sizes.len() as u64);
            prop_assert_eq!(clusters.by_size().iter().sum::<u64>(), sizes.len() as u64);
            prop_assert_eq!(clusters.largest(1).first().map(|largest| largest.1), sizes.iter().max().map(|members| members + 1));
        }
    }

    #[test]
    fn a_cluster_of_two_three_and_nine_records_has_the_first_second_and_fourth_place() {
        let mut clusters = Clusters::default();
        for (number, members) in [(1, 1), (2, 2), (3, 3), (4, 8)] {
            (0..members).for_each(|_| clusters.add(id(number)));
        }
        assert_eq!(clusters.by_size(), [1, 2, 0, 1]);
    }

    #[test]
    fn beyond_the_limit_memory_stays_bounded_and_the_estimate_is_close() {
        let mut clusters = Clusters::with_limit(1_000);
        (0..20).for_each(|_| clusters.add(id(7)));
        for number in 1_000..51_000 {
            clusters.add(id(number));
            assert!(clusters.members.len() <= 1_000);
        }
        assert_eq!(clusters.removed(), 50_020);
        assert!(clusters.one_in() > 1);
        assert!((40_000..60_000).contains(&clusters.count()), "{} of 50,001", clusters.count());
        assert_eq!(clusters.largest(1), [(id(7), 21)], "the largest is counted exactly though it may not be in the sample");
    }

    #[test]
    fn ids_that_are_no_digests_do_not_break_the_limit() {
        let mut clusters = Clusters::with_limit(16);
        for number in 0..100u8 {
            let mut bytes = [0; 32];
            bytes[31] = number;
            clusters.add(Digest::from_bytes(bytes));
            assert!(clusters.members.len() <= 16);
        }
    }
}
