//! SplitMix64 (Steele et al. 2014): numbers from a fixed seed, the same everywhere, for ever.
//!
//! Part of the durable format: band keys are stored beside a dataset.

/// The generator.
pub(crate) struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// The one that hashes are drawn from.
    pub(crate) fn of_hashes() -> Self {
        Self { state: 0x466F_7265_6261_7921 }
    }

    /// The next number.
    pub(crate) fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }
}

/// Its last step: every bit of the result depends on every bit of `x`.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_reference() {
        // Of the published C program, from seed 1234567.
        let mut generator = SplitMix64 { state: 1_234_567 };
        let drawn = [generator.draw(), generator.draw(), generator.draw()];
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }
}
