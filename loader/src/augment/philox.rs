//! Philox4x32-10: random numbers that are a function of where they are used (Salmon, Moraes, Dror and Shaw, "Parallel
//! random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! Promises: the draws of a sample depend on (seed, source, epoch, row) alone, so whoever computes it, on whichever
//! thread and in whichever batch, draws the same. Checked against the published test vectors.
//! Deliberately absent: any state that outlives a sample.

use crate::plan::permutation::derive;

const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// The random numbers of one sample, in the order in which they are asked for.
#[derive(Clone, Debug)]
pub(crate) struct Draws {
    seed: u64,
    counter: [u32; 4],
    block: u64,
    words: [u32; 4],
    used: usize,
}

impl Draws {
    pub(crate) fn new(seed: u64, source: u32, epoch: u64, row: u64) -> Self {
        // The counter has room for half of the epoch; the rest is in the key.
        let seed = derive(seed, epoch >> 32);
        Self { seed, counter: [row as u32, (row >> 32) as u32, epoch as u32, source], block: 0, words: [0; 4], used: 4 }
    }

    /// Uniform in 0…1, 1 excluded, in steps of 2⁻³².
    pub(crate) fn unit(&mut self) -> f64 {
        if self.used == 4 {
            // The counter is full of coordinates, so further blocks of a sample take another key.
            let key = derive(self.seed, self.block);
            self.words = philox4x32_10(self.counter, [key as u32, (key >> 32) as u32]);
            self.block += 1;
            self.used = 0;
        }
        let word = self.words[self.used];
        self.used += 1;
        f64::from(word) / 4_294_967_296.0
    }

    /// True `k` times of `n`.
    pub(crate) fn chance(&mut self, k: usize, n: usize) -> bool {
        self.unit() * (n as f64) < k as f64
    }

    /// Uniform in `low`…`high`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }
}

/// Four random words for a counter and a key.
fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let products = [u64::from(MULTIPLIERS[0]) * u64::from(counter[0]), u64::from(MULTIPLIERS[1]) * u64::from(counter[2])];
        let (high, low) = (products.map(|product| (product >> 32) as u32), products.map(|product| product as u32));
        counter = [high[1] ^ counter[1] ^ key[0], low[1], high[0] ^ counter[3] ^ key[1], low[0]];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the known-answer file of the authors' Random123 library.
    #[test]
    fn the_published_vectors_come_out() {
        let zero = philox4x32_10([0; 4], [0; 2]);
        assert_eq!(zero, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox4x32_10([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn every_coordinate_changes_the_draws() {
        let first = |mut draws: Draws| (0..9).map(|_| draws.unit()).collect::<Vec<_>>();
        let base = first(Draws::new(1, 2, 3, 4));
        assert_eq!(base, first(Draws::new(1, 2, 3, 4)));
        for other in [
            Draws::new(0, 2, 3, 4),
            Draws::new(1, 3, 3, 4),
            Draws::new(1, 2, 3 << 40, 4),
            Draws::new(1, 2, 4, 4),
            Draws::new(1, 2, 3, 4 << 40),
        ] {
            let other = first(other);
            assert!(base.iter().zip(&other).all(|(a, b)| a != b), "{base:?} {other:?}");
        }
        let mean = first(Draws::new(1, 2, 3, 4)).iter().sum::<f64>() / 9.0;
        assert!((0.1..0.9).contains(&mean) && base.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
