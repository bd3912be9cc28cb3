//! Search keys of perceptual hashes: near hashes share one, so that a join on equal keys finds the pairs to compare.
//!
//! Locality-sensitive hashing by sampling bits (Indyk and Motwani 1998). Each of `bands` keys covers `band_bits` of the
//! 256 positions, cut from random permutations of them. Two hashes that differ in d places chosen at random share a key
//! with a probability of at least `1 − (1 − p)^bands`, where `p = C(256 − d, band_bits) / C(256, band_bits)`; bands of
//! one permutation do not overlap, which raises it a little. Strangers, whose bits differ by coin toss, meet in
//! `records × bands / 2^band_bits` keys each. Deliberately absent: the comparison itself, which is `distance`.

use forebay_schemas::pipeline::picture::NearPicture;
use twox_hash::XxHash3_64;

use super::perceptual::{HASH_BYTES, Hash};
use crate::splitmix::SplitMix64;

/// Makes keys.
pub(crate) struct Bands {
    masks: Vec<Hash>,
}

impl Bands {
    /// Bands of these settings; the same everywhere, for ever.
    pub(crate) fn new(settings: &NearPicture) -> Self {
        const POSITIONS: usize = HASH_BYTES * 8;
        let mut generator = SplitMix64::of_hashes();
        let mut below = |bound: usize| ((u128::from(generator.draw()) * bound as u128) >> 64) as usize;
        let (bands, band_bits) = (settings.bands as usize, settings.band_bits as usize);
        let mut masks = Vec::with_capacity(bands);
        while masks.len() < bands {
            let mut positions: Vec<usize> = (0..POSITIONS).collect();
            for last in (1..POSITIONS).rev() {
                positions.swap(last, below(last + 1));
            }
            masks.extend(positions.chunks_exact(band_bits).map(mask).take(bands - masks.len()));
        }
        Self { masks }
    }

    /// The keys of a hash, one a band.
    pub(crate) fn keys(&self, hash: &Hash) -> impl Iterator<Item = u64> {
        self.masks.iter().enumerate().map(|(band, mask)| {
            let mut bits = *hash;
            bits.iter_mut().zip(mask).for_each(|(bits, mask)| *bits &= mask);
            XxHash3_64::oneshot_with_seed(band as u64, &bits)
        })
    }
}

fn mask(positions: &[usize]) -> Hash {
    let mut mask = [0; HASH_BYTES];
    positions.iter().for_each(|position| mask[position / 8] |= 1 << (position % 8));
    mask
}
