//! Sums over pixels, of which the mean and the deviation of each channel are made.
//!
//! In integers, so that they do not depend on the order in which pictures are added, nor on the machine. A picture of
//! 2³² pixels still fits. Deliberately absent: anything in floating point before the end.

use multiversion::multiversion;

/// Bytes of stored [`Moments`].
pub(crate) const MOMENTS_BYTES: usize = 56;

/// Pixels, and the sums of their channels and of the squares of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moments {
    pixels: u64,
    sums: [u64; 3],
    squares: [u64; 3],
}

impl Moments {
    /// Adds the pixels of a picture, three bytes each.
    pub(crate) fn add_pixels(&mut self, rgb: &[u8]) {
        // So many that a lane's sum of squares, 255² × 21,845, fits 32 bits.
        for block in rgb.chunks(LANES * 21_845) {
            let (sums, squares) = lane_sums(block);
            // The number of lanes is a multiple of three, so a lane only ever sees one channel.
            for lane in 0..LANES {
                self.sums[lane % 3] += u64::from(sums[lane]);
                self.squares[lane % 3] += u64::from(squares[lane]);
            }
        }
        self.pixels += rgb.len() as u64 / 3;
    }

    /// Adds moments as stored.
    pub(crate) fn add_stored(&mut self, bytes: &[u8]) {
        self.change(bytes, u64::wrapping_add);
    }

    /// Takes away moments as stored, which were added before.
    pub(crate) fn remove_stored(&mut self, bytes: &[u8]) {
        self.change(bytes, u64::wrapping_sub);
    }

    fn change(&mut self, bytes: &[u8], change: fn(u64, u64) -> u64) {
        let (values, _) = bytes.as_chunks::<8>();
        let mut sums = self.sums();
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum = change(*sum, u64::from_le_bytes(*value)));
        *self = Self::of(sums);
    }

    /// Pixels, sums of red, green and blue, sums of their squares.
    pub(crate) fn sums(&self) -> [u64; 7] {
        let ([red, green, blue], [red2, green2, blue2]) = (self.sums, self.squares);
        [self.pixels, red, green, blue, red2, green2, blue2]
    }

    /// The reverse of [`Self::sums`].
    pub(crate) fn of([pixels, red, green, blue, red2, green2, blue2]: [u64; 7]) -> Self {
        Self { pixels, sums: [red, green, blue], squares: [red2, green2, blue2] }
    }

    /// As stored: [`Self::sums`], little-endian.
    pub(crate) fn to_bytes(self) -> [u8; MOMENTS_BYTES] {
        let mut bytes = [0; MOMENTS_BYTES];
        let (chunks, _) = bytes.as_chunks_mut::<8>();
        chunks.iter_mut().zip(self.sums()).for_each(|(chunk, value)| *chunk = value.to_le_bytes());
        bytes
    }

    /// Mean and standard deviation of each channel, in 0…1; none without a pixel.
    pub(crate) fn mean_and_std(&self) -> Option<([f64; 3], [f64; 3])> {
        if self.pixels == 0 {
            return None;
        }
        let pixels = self.pixels as f64;
        let mean = self.sums.map(|sum| sum as f64 / pixels);
        let mut deviation = [0.0; 3];
        for channel in 0..3 {
            deviation[channel] = (self.squares[channel] as f64 / pixels - mean[channel] * mean[channel]).max(0.0).sqrt() / 255.0;
        }
        Some((mean.map(|mean| mean / 255.0), deviation))
    }
}

/// Bytes summed side by side: whole pixels, and whole registers of every target.
const LANES: usize = 48;

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2", "x86_64+sse4.1", "aarch64+neon"))]
fn lane_sums(bytes: &[u8]) -> ([u32; LANES], [u32; LANES]) {
    let (mut sums, mut squares) = ([0u32; LANES], [0u32; LANES]);
    let (chunks, rest) = bytes.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let value = u32::from(chunk[lane]);
            sums[lane] += value;
            squares[lane] += value * value;
        }
    }
    for (lane, value) in rest.iter().enumerate() {
        let value = u32::from(*value);
        sums[lane] += value;
        squares[lane] += value * value;
    }
    (sums, squares)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(rgb: &[u8]) -> Moments {
        let mut moments = Moments { pixels: rgb.len() as u64 / 3, ..Moments::default() };
        for (at, value) in rgb.iter().enumerate() {
            moments.sums[at % 3] += u64::from(*value);
            moments.squares[at % 3] += u64::from(*value).pow(2);
        }
        moments
    }

    proptest! {
        #[test]
        fn moments_add_up_whatever_the_cut(pixels in prop::collection::vec(any::<[u8; 3]>(), 0..400), cut in 0usize..400) {
            let cut = cut.min(pixels.len());
            let (mut whole, mut left, mut right) = (Moments::default(), Moments::default(), Moments::default());
            whole.add_pixels(pixels.as_flattened());
            left.add_pixels(pixels[..cut].as_flattened());
            right.add_pixels(pixels[cut..].as_flattened());
            let alone = right;
            right.add_stored(&left.to_bytes());
            prop_assert_eq!(right, whole);
            right.remove_stored(&left.to_bytes());
            prop_assert_eq!(right, alone);
            prop_assert_eq!(whole, plain(pixels.as_flattened()));
        }
    }

    #[test]
    fn a_large_white_picture_does_not_overflow() {
        let white = vec![255; 3 * 1_200_001];
        let mut moments = Moments::default();
        moments.add_pixels(&white);
        assert_eq!(moments, plain(&white));
    }

    #[test]
    fn the_deviation_is_that_of_the_numbers() {
        let pixels: Vec<u8> = (0..=254).collect();
        let mut moments = Moments::default();
        moments.add_pixels(&pixels);
        let (mean, deviation) = moments.mean_and_std().expect("pixels");
        assert!((mean[0] - 126.0 / 255.0).abs() < 1e-12, "{mean:?}");
        // Of n numbers three apart, three times that of 0…n-1, whose variance is (n² - 1) / 12.
        let expected = 3.0 * ((85.0f64 * 85.0 - 1.0) / 12.0).sqrt() / 255.0;
        assert!((deviation[0] - expected).abs() < 1e-9, "{deviation:?}");
    }
}
