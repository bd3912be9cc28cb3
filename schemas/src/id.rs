//! Identities: content digests and the digest of a multiset of rows.
//!
//! Promises: a digest prints and parses as 64 lower-case hexadecimal digits; a [`RowsDigest`] does not depend on the
//! order in which rows are added. Deliberately absent: secret keys; these identify, they do not authenticate.

use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The blake3 digest of some bytes (32 bytes).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of several parts; every part is preceded by its length, so that moving a boundary changes it.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// A digest from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 8 bytes as a little-endian number, for seeding and bucketing.
    pub fn as_u64(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(first)
    }

    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

/// A text is not a digest.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("digest `{found}`: expected 64 hexadecimal digits")]
pub struct BadDigest {
    found: String,
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        parse_hex(text).map(Self)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The digest of a multiset of rows: the sum of the rows' digests modulo 2²⁵⁶ (AdHash, Bellare and Micciancio 1997).
///
/// Equal multisets have equal digests whatever the order, the number of threads or the cut into tasks. It guards
/// against accidents, not against somebody who searches for a collision.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct RowsDigest([u64; 4]);

impl RowsDigest {
    /// Adds one row by its digest.
    pub fn add(&mut self, row: &Digest) {
        let mut lanes = [0u64; 4];
        for (lane, bytes) in lanes.iter_mut().zip(row.0.chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            *lane = u64::from_le_bytes(word);
        }
        self.merge(&Self(lanes));
    }

    /// Takes out one row that was added.
    pub fn remove(&mut self, row: &Digest) {
        let mut negated = Self::default();
        negated.add(row);
        // The complement and one more, modulo 2²⁵⁶.
        negated.0 = negated.0.map(|lane| !lane);
        negated.merge(&Self([1, 0, 0, 0]));
        self.merge(&negated);
    }

    /// Adds all rows of another multiset.
    pub fn merge(&mut self, other: &Self) {
        let mut carry = false;
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            let (sum, over) = mine.overflowing_add(theirs);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            *mine = sum;
            carry = over | over_again;
        }
    }

    /// The digest as bytes, for mixing into another digest.
    pub fn to_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, lane) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&lane.to_le_bytes());
        }
        bytes
    }
}

/// A hasher of keys that are hashes already.
#[derive(Default)]
pub struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = twox_hash::XxHash3_64::oneshot_with_seed(self.0, bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl fmt::Display for RowsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.to_bytes(), f)
    }
}

impl fmt::Debug for RowsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.to_bytes(), f)
    }
}

impl FromStr for RowsDigest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let mut lanes = Self::default();
        lanes.add(&Digest(parse_hex(text)?));
        Ok(lanes)
    }
}

impl Serialize for RowsDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RowsDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex(text: &str) -> Result<[u8; 32], BadDigest> {
    let bad = || BadDigest { found: text.to_owned() };
    if text.len() != 64 || !text.is_ascii() {
        return Err(bad());
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn digest_prints_and_parses(bytes: [u8; 32]) {
            let digest = Digest::from_bytes(bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        }

        #[test]
        fn rows_digest_ignores_order_and_cut(rows in prop::collection::vec(any::<[u8; 32]>(), 0..40), cut in 0usize..40) {
            let digest = |rows: &[[u8; 32]]| {
                let mut sum = RowsDigest::default();
                rows.iter().for_each(|row| sum.add(&Digest::from_bytes(*row)));
                sum
            };
            let whole = digest(&rows);
            let (left, right) = rows.split_at(cut.min(rows.len()));
            let mut parts = digest(right);
            parts.merge(&digest(left));
            prop_assert_eq!(parts, whole);
            prop_assert_eq!(whole.to_string().parse::<RowsDigest>(), Ok(whole));
        }
    }

    proptest! {
        #[test]
        fn what_was_added_can_be_taken_out(rows in prop::collection::vec(any::<[u8; 32]>(), 0..10), row: [u8; 32]) {
            let mut sum = RowsDigest::default();
            rows.iter().for_each(|row| sum.add(&Digest::from_bytes(*row)));
            let before = sum;
            sum.add(&Digest::from_bytes(row));
            sum.remove(&Digest::from_bytes(row));
            prop_assert_eq!(sum, before);
        }
    }

    #[test]
    fn a_repeated_row_counts_twice() {
        let row = Digest::of(b"row");
        let (mut once, mut twice) = (RowsDigest::default(), RowsDigest::default());
        once.add(&row);
        twice.add(&row);
        twice.add(&row);
        assert_ne!(once, twice);
    }

    #[test]
    fn moving_a_boundary_changes_the_digest() {
        assert_ne!(Digest::of_parts([&b"ab"[..], b"c"]), Digest::of_parts([&b"a"[..], b"bc"]));
    }
}
