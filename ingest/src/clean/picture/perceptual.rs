//! Perceptual hash: 256 bits that stay nearly the same when a picture is scaled, compressed, blurred or brightened.
//!
//! After PDQ (Facebook, "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm", 2019): luma, a tent
//! filter down to 64 × 64, the 16 × 16 lowest frequencies of the cosine transform without the constant, a bit each for
//! above the median. The filter spans two of the 64 cells, as PDQ's two box passes do; bits are not exchangeable with
//! PDQ's own. Everything before the transform is in integers and the transform in one fixed order of additions, so a
//! picture has the same hash on every machine. Part of the durable format: a change here changes which records are kept.
//! Deliberately absent: crops, frames and overlays, which move all frequencies.

use std::sync::LazyLock;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U16;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use multiversion::multiversion;

/// Side of the picture that is transformed.
const SIDE: usize = 64;
/// Frequencies along an axis.
const FREQUENCIES: usize = 16;

/// Bytes of a hash.
pub(crate) const HASH_BYTES: usize = 32;

/// 256 bits, row by row of the frequencies, the lowest first.
pub(crate) type Hash = [u8; HASH_BYTES];

/// What two pictures are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// Hashes of the picture as it is, then mirrored left to right, upside down, both; then the four of the transpose.
    pub(crate) hashes: [Hash; 8],
    /// How much structure there is to hash, 0 to 100.
    pub(crate) quality: u8,
}

/// Bits in which two hashes differ.
#[cfg(test)]
pub(crate) fn distance(left: &Hash, right: &Hash) -> u32 {
    left.iter().zip(right).map(|(a, b)| (a ^ b).count_ones()).sum()
}

/// Takes fingerprints; reuses its buffers, so keep one a thread.
#[derive(Default)]
pub(crate) struct Hasher {
    resizer: Resizer,
    luma: Vec<U16>,
}

impl Hasher {
    /// The fingerprint of a picture, three bytes a pixel; none if it has no pixel.
    pub(crate) fn fingerprint(&mut self, rgb: &[u8], width: u32, height: u32) -> Option<Fingerprint> {
        self.luma.resize(rgb.len() / 3, U16::new(0));
        luma(rgb, &mut self.luma);
        let picture = TypedImageRef::new(width, height, &self.luma).ok()?;
        let mut small = TypedImage::<U16>::new(SIDE as u32, SIDE as u32);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        self.resizer.resize_typed(&picture, &mut small, &options).ok()?;
        let mut cells = [[0.0; SIDE]; SIDE];
        cells.as_flattened_mut().iter_mut().zip(small.pixels()).for_each(|(cell, luma)| *cell = f32::from(luma.0) / 256.0);
        Some(Fingerprint { hashes: dihedral(&transform(&cells, &COSINES)), quality: quality(&cells) })
    }
}

/// Luma of Rec. 601, times 256.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2", "x86_64+sse4.1", "aarch64+neon"))]
fn luma(rgb: &[u8], out: &mut [U16]) {
    let (pixels, _) = rgb.as_chunks::<3>();
    for (pixel, out) in pixels.iter().zip(out) {
        let [red, green, blue] = pixel.map(u16::from);
        out.0 = 77 * red + 150 * green + 29 * blue;
    }
}

/// `COSINES[k][i]` is row i of PDQ's transform at cell k: √(2/64) cos(π/128 (i + 1)(2k + 1)).
static COSINES: LazyLock<[[f32; FREQUENCIES]; SIDE]> = LazyLock::new(|| {
    let mut table = [[0.0; FREQUENCIES]; SIDE];
    for (cell, row) in table.iter_mut().enumerate() {
        for (frequency, value) in row.iter_mut().enumerate() {
            let angle = std::f64::consts::PI / 128.0 * ((frequency + 1) * (2 * cell + 1)) as f64;
            // Cut to 20 bits, so that the last bits of a platform's cosine do not matter.
            *value = ((angle.cos() * (2.0f64 / 64.0).sqrt() * 1_048_576.0).round() / 1_048_576.0) as f32;
        }
    }
    table
});

type Frequencies = [[f32; FREQUENCIES]; FREQUENCIES];

/// The cosine transform: down the columns, then along the rows.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2", "x86_64+sse4.1", "aarch64+neon"))]
fn transform(cells: &[[f32; SIDE]; SIDE], cosines: &[[f32; FREQUENCIES]; SIDE]) -> Frequencies {
    let mut frequencies = [[0.0; FREQUENCIES]; FREQUENCIES];
    for (vertical, row) in frequencies.iter_mut().enumerate() {
        let mut column = [0.0f32; SIDE];
        for (cells, cosines) in cells.iter().zip(cosines) {
            for at in 0..SIDE {
                column[at] += cosines[vertical] * cells[at];
            }
        }
        for (value, cosines) in column.iter().zip(cosines) {
            for at in 0..FREQUENCIES {
                row[at] += value * cosines[at];
            }
        }
    }
    frequencies
}

/// Hashes of the eight ways to lay a picture down. A mirror negates every other frequency (PDQ, "dihedral hashes").
fn dihedral(frequencies: &Frequencies) -> [Hash; 8] {
    let mut hashes = [[0; HASH_BYTES]; 8];
    for (turn, hash) in hashes.iter_mut().enumerate() {
        let (mirrored, flipped, transposed) = (turn & 1 != 0, turn & 2 != 0, turn & 4 != 0);
        let mut turned = [[0.0; FREQUENCIES]; FREQUENCIES];
        for (row, values) in turned.iter_mut().enumerate() {
            for (column, value) in values.iter_mut().enumerate() {
                let source = if transposed { frequencies[column][row] } else { frequencies[row][column] };
                // Frequencies count from one: the first is odd.
                let negated = (mirrored && column % 2 == 0) != (flipped && row % 2 == 0);
                *value = if negated { -source } else { source };
            }
        }
        *hash = above_median(turned.as_flattened());
    }
    hashes
}

fn above_median(values: &[f32]) -> Hash {
    let mut sorted = [0.0; FREQUENCIES * FREQUENCIES];
    sorted.copy_from_slice(values);
    let (_, median, _) = sorted.select_nth_unstable_by(FREQUENCIES * FREQUENCIES / 2 - 1, f32::total_cmp);
    let mut hash = [0; HASH_BYTES];
    for (at, value) in values.iter().enumerate() {
        hash[at / 8] |= u8::from(value > median) << (at % 8);
    }
    hash
}

/// PDQ's quality: the sum of steps between neighbouring cells, in whole percents of full range, over 90, at most 100.
fn quality(cells: &[[f32; SIDE]; SIDE]) -> u8 {
    let step = |a: f32, b: f32| ((a - b) * 100.0 / 255.0).abs() as u32;
    let down: u32 = cells.windows(2).map(|rows| rows[0].iter().zip(&rows[1]).map(|(a, b)| step(*a, *b)).sum::<u32>()).sum();
    let along: u32 = cells.iter().map(|row| row.windows(2).map(|pair| step(pair[0], pair[1])).sum::<u32>()).sum();
    ((down + along) / 90).min(100) as u8
}
