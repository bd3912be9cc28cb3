//! Keyed bijections of `0..size` that are computed, not stored.
//!
//! A generalised Feistel network over the mixed radix `left × right ≥ size` with cycle walking (Black and Rogaway,
//! "Ciphers with arbitrary finite domains", 2002). The radices are chosen so that less than `√size` values lie outside,
//! so a walk is rare. The round function is the finaliser of SplitMix64 (Steele, Lea and Flood 2014, constants of
//! Stafford's variant 13). This shuffles; it is no cipher, and nobody is kept from inverting it.

/// Four make a Feistel network of good round functions look random from both sides (Luby and Rackoff 1988).
const ROUNDS: u64 = 4;

/// 2⁶⁴ divided by the golden ratio: spreads consecutive numbers over all bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A well mixed bijection of 64 bits.
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A key for one purpose, derived from another key and a number.
pub(crate) const fn derive(key: u64, number: u64) -> u64 {
    mix(key ^ mix(number.wrapping_add(1).wrapping_mul(GOLDEN)))
}

/// `0..limit` from all bits of `random`, for any limit.
pub(crate) fn below(random: u64, limit: u64) -> u64 {
    ((u128::from(random) * u128::from(limit)) >> 64) as u64
}

/// The numbers `0..size`, ready to be permuted under any key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Domain {
    size: u64,
    left: u64,
    right: u64,
    /// 2⁶⁴ / right, rounded down.
    reciprocal: u64,
}

impl Domain {
    /// `0..size`; of an empty domain nothing can be asked.
    pub(crate) fn new(size: u64) -> Self {
        let root = size.isqrt();
        let left = (root + u64::from(root * root < size)).max(1);
        let right = size.div_ceil(left).max(1);
        Self { size, left, right, reciprocal: u64::try_from((1u128 << 64) / u128::from(right)).unwrap_or(u64::MAX) }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Where `index`, which must be below the size, goes under `key`.
    pub(crate) fn permute(&self, key: u64, index: u64) -> u64 {
        debug_assert!(index < self.size, "index {index} of {}", self.size);
        let mut value = index;
        loop {
            value = self.encipher(key, value);
            // The network is a bijection of a set that holds `0..size`, so the walk comes back there.
            if value < self.size {
                return value;
            }
        }
    }

    /// Which index goes to `value`, which must be below the size, under `key`.
    pub(crate) fn invert(&self, key: u64, value: u64) -> u64 {
        debug_assert!(value < self.size, "value {value} of {}", self.size);
        let mut index = value;
        loop {
            index = self.decipher(key, index);
            if index < self.size {
                return index;
            }
        }
    }

    fn encipher(&self, key: u64, value: u64) -> u64 {
        let (mut left, mut right) = self.halves(value);
        for round in (0..ROUNDS).step_by(2) {
            left = add(left, round_function(key, round, right, self.left), self.left);
            right = add(right, round_function(key, round + 1, left, self.right), self.right);
        }
        left * self.right + right
    }

    /// Quotient and remainder by `right`, without a division: the product is at most one too small.
    fn halves(&self, value: u64) -> (u64, u64) {
        let quotient = ((u128::from(value) * u128::from(self.reciprocal)) >> 64) as u64;
        let remainder = value - quotient * self.right;
        if remainder >= self.right { (quotient + 1, remainder - self.right) } else { (quotient, remainder) }
    }

    fn decipher(&self, key: u64, value: u64) -> u64 {
        let (mut left, mut right) = self.halves(value);
        for round in [2, 0] {
            right = subtract(right, round_function(key, round + 1, left, self.right), self.right);
            left = subtract(left, round_function(key, round, right, self.left), self.left);
        }
        left * self.right + right
    }
}

/// Both radices are at most 2³², so 32 bits of the hash choose evenly enough and the product fits.
fn round_function(key: u64, round: u64, half: u64, radix: u64) -> u64 {
    let hash = mix(half ^ key.wrapping_add(round.wrapping_mul(GOLDEN)));
    ((hash >> 32) * radix) >> 32
}

fn add(a: u64, b: u64, radix: u64) -> u64 {
    let sum = a + b;
    if sum >= radix { sum - radix } else { sum }
}

fn subtract(a: u64, b: u64, radix: u64) -> u64 {
    if a >= b { a - b } else { a + radix - b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_is_hit_once(size in 1u64..5_000, key: u64) {
            let domain = Domain::new(size);
            let mut seen = vec![false; size as usize];
            for index in 0..size {
                let value = domain.permute(key, index);
                prop_assert!(value < size);
                prop_assert!(!std::mem::replace(&mut seen[value as usize], true), "{} twice", value);
                prop_assert_eq!(domain.invert(key, value), index);
            }
        }

        #[test]
        fn huge_domains_stay_in_range_and_apart(size in 1u64 << 40..=u64::MAX, key: u64, a: u64, b: u64) {
            let domain = Domain::new(size);
            let (a, b) = (a % size, b % size);
            prop_assert!(domain.permute(key, a) < size);
            prop_assert_eq!(domain.permute(key, a) == domain.permute(key, b), a == b);
            prop_assert_eq!(domain.invert(key, domain.permute(key, a)), a);
            prop_assert_eq!(domain.halves(a), (a / domain.right, a % domain.right));
        }
    }

    #[test]
    fn little_more_than_the_size_is_enciphered() {
        for size in [1, 2, 3, 5, 127, 128, 16_384, 16_385, 999_983, u64::MAX] {
            let domain = Domain::new(size);
            let outside = u128::from(domain.left) * u128::from(domain.right) - u128::from(size);
            assert!(outside < u128::from(domain.left), "{size}: {domain:?}");
        }
    }

    /// χ² over the 16 × 16 table of (sixteenth of origin, sixteenth of destination): 225 degrees of freedom, so a fair
    /// shuffle lies within 225 ± 5 · √450 nearly always, and a pattern lies far above.
    #[test]
    fn destinations_do_not_depend_on_origins() {
        for (size, key) in [(4096u64, 1u64), (16_384, 2), (65_536, 3), (100_000, 4)] {
            let domain = Domain::new(size);
            let mut cells = vec![0f64; 256];
            for index in 0..size {
                let cell = (index * 16 / size) * 16 + domain.permute(key, index) * 16 / size;
                cells[cell as usize] += 1.0;
            }
            let expected = size as f64 / 256.0;
            let chi: f64 = cells.iter().map(|count| (count - expected).powi(2) / expected).sum();
            assert!(chi < 225.0 + 5.0 * 450f64.sqrt(), "size {size}: {chi}");
        }
    }

    /// Over many keys every index goes to every place equally often, also where there are few places.
    #[test]
    fn every_place_is_equally_likely() {
        for size in [2u64, 3, 5, 10, 37, 130] {
            let domain = Domain::new(size);
            let mut counts = vec![0f64; (size * size) as usize];
            let keys = 40 * size;
            for key in 0..keys {
                (0..size).for_each(|index| counts[(index * size + domain.permute(mix(key), index)) as usize] += 1.0);
            }
            let chi: f64 = counts.iter().map(|count| (count - 40.0).powi(2) / 40.0).sum();
            let freedom = ((size - 1) * (size - 1)) as f64;
            assert!(chi < freedom + 5.0 * (2.0 * freedom).sqrt(), "size {size}: {chi} of {freedom}");
        }
    }

    /// In a random order the mean distance of neighbours is a third of the size.
    #[test]
    fn neighbours_are_torn_apart() {
        let domain = Domain::new(10_000);
        let order: Vec<f64> = (0..10_000).map(|index| domain.permute(7, index) as f64).collect();
        let mean = order.windows(2).map(|pair| (pair[0] - pair[1]).abs()).sum::<f64>() / 9_999.0;
        assert!((mean / 10_000.0 - 1.0 / 3.0).abs() < 0.01, "{mean}");
    }
}
