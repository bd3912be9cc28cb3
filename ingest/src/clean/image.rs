//! Image records: the columns that their cleaning fills, and by what they are compared.
//!
//! The id is the digest of the bytes as stored. Two pictures are similar in the share of bits in which their perceptual
//! hashes agree, whichever way round, and the same if their pixels are. Deliberately absent: the rules, in `picture`.

use std::sync::Arc;

use arrow::array::{ArrayRef, LargeBinaryBuilder, StringBuilder, UInt32Builder};
use arrow::datatypes::{DataType, Field};
use forebay_schemas::pipeline::Pipeline;
use forebay_schemas::pipeline::picture::NearPicture;

use super::picture::bands::Bands;
use super::picture::perceptual::{Fingerprint, HASH_BYTES, Hash};
use super::picture::{Cleaned, Cleaner};
use super::{Judged, Raw, Verdicts};
use crate::error::{Error, Result};

/// Columns that only images have; the content first.
pub(super) fn payload() -> Vec<Field> {
    vec![
        Field::new("content", DataType::LargeBinary, true),
        Field::new("class", DataType::Utf8, true),
        Field::new("width", DataType::UInt32, true),
        Field::new("height", DataType::UInt32, true),
    ]
}

/// The columns of the verdict and of [`payload`] for raw records.
pub(super) fn columns<'a>(raw: impl Iterator<Item = Raw<'a>>, pipeline: &Pipeline) -> Result<Vec<ArrayRef>> {
    let mut cleaner = Cleaner::new(&pipeline.picture).map_err(|error| Error::internal("decoding pictures", error))?;
    let mut verdicts = Verdicts::default();
    let (mut contents, mut classes) = (LargeBinaryBuilder::new(), StringBuilder::new());
    let (mut widths, mut heights) = (UInt32Builder::new(), UInt32Builder::new());
    for raw in raw {
        let class = raw.class;
        let Cleaned { verdict, id, stored } = cleaner.clean(raw.content, class);
        let sketch = stored.as_ref().map(|stored| sketch(stored.pixels.as_bytes(), &stored.fingerprint, &pipeline.picture.near));
        let judged = Judged {
            id,
            size: stored.as_ref().map_or(0, |stored| stored.bytes.len() as u32),
            // Of pictures no sample of similar pairs can be drawn by rank, so their search is not measured.
            rank: 0,
            sketch: sketch.as_deref().unwrap_or_default(),
            class,
            edits: None,
            moments: stored.as_ref().map(|stored| stored.moments.to_bytes()),
        };
        verdicts.push(&verdict, judged)?;
        contents.append_option(stored.as_ref().map(|stored| &stored.bytes));
        classes.append_option(class.filter(|_| stored.is_some()));
        widths.append_option(stored.as_ref().map(|stored| stored.width));
        heights.append_option(stored.as_ref().map(|stored| stored.height));
    }
    let mut columns = verdicts.finish();
    columns.extend([
        Arc::new(contents.finish()) as ArrayRef,
        Arc::new(classes.finish()),
        Arc::new(widths.finish()),
        Arc::new(heights.finish()),
    ]);
    Ok(columns)
}

/// Bytes of the digest of the pixels in a sketch.
const PIXELS_BYTES: usize = 16;

/// What a picture is compared by: a digest of its pixels, then, if it has structure enough, its eight hashes.
fn sketch(pixels: &[u8], fingerprint: &Fingerprint, near: &NearPicture) -> Vec<u8> {
    let mut sketch = pixels[..PIXELS_BYTES].to_vec();
    if near.enabled && fingerprint.quality >= near.min_quality {
        let hashes = if near.turned { fingerprint.hashes.len() } else { 1 };
        fingerprint.hashes[..hashes].iter().for_each(|hash| sketch.extend_from_slice(hash));
    }
    sketch
}

/// The hashes of a sketch: of the picture as it is, then turned and mirrored; none if it has too little structure.
fn hashes(sketch: &[u8]) -> impl Iterator<Item = Hash> {
    sketch.get(PIXELS_BYTES..).unwrap_or_default().chunks_exact(HASH_BYTES).map(|bytes| {
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(bytes);
        hash
    })
}

/// Keys under which a picture is found, and those by which it looks for others.
pub(crate) fn keys(sketch: &[u8], bands: &Bands) -> (Vec<u64>, Option<Vec<u64>>) {
    let pixels = words(sketch.get(..PIXELS_BYTES).unwrap_or_default());
    let mut own: Vec<u64> = pixels.into_iter().take(1).collect();
    let mut queries = own.clone();
    for (turned, hash) in hashes(sketch).enumerate() {
        queries.extend(bands.keys(&hash));
        if turned == 0 {
            own.extend(bands.keys(&hash));
        }
    }
    (own, Some(queries))
}

/// What [`similarity`] is computed from: the digest of the pixels, then the hashes.
pub(crate) fn data(sketch: &[u8]) -> Vec<u64> {
    words(sketch)
}

/// 1 for equal pixels, else the share of bits in which the hashes agree, the picture turned and mirrored at will.
pub(crate) fn similarity(left: &[u64], right: &[u64]) -> f64 {
    const PIXELS: usize = PIXELS_BYTES / 8;
    const WORDS: usize = HASH_BYTES / 8;
    if left.get(..PIXELS) == right.get(..PIXELS) {
        return 1.0;
    }
    let Some(hash) = left.get(PIXELS..PIXELS + WORDS) else { return 0.0 };
    let turned = right.get(PIXELS..).unwrap_or_default().chunks_exact(WORDS);
    let differing = |other: &[u64]| hash.iter().zip(other).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
    turned.map(differing).min().map_or(0.0, |bits| 1.0 - f64::from(bits) / (HASH_BYTES * 8) as f64)
}

/// The similarity from which two pictures are the same.
pub(crate) fn threshold(near: &NearPicture) -> f64 {
    1.0 - f64::from(near.max_distance) / (HASH_BYTES * 8) as f64
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|word| word.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clean::picture::perceptual::distance;

    #[test]
    fn pictures_are_similar_by_the_bits_of_their_hashes_or_by_equal_pixels() {
        let near = NearPicture::default();
        let fingerprint = |byte: u8| Fingerprint { hashes: [[byte; HASH_BYTES]; 8], quality: 100 };
        let sketch = |pixels: u8, hash: u8| data(&super::sketch(&[pixels; 32], &fingerprint(hash), &near));
        assert_eq!(similarity(&sketch(1, 0), &sketch(1, 0xFF)), 1.0);
        assert_eq!(similarity(&sketch(1, 0), &sketch(2, 0)), 1.0);
        assert_eq!(similarity(&sketch(1, 0), &sketch(2, 1)), 1.0 - 1.0 / 8.0);
        assert_eq!(distance(&[0; HASH_BYTES], &[1; HASH_BYTES]), 32);
        let flat = Fingerprint { hashes: [[0; HASH_BYTES]; 8], quality: 0 };
        assert_eq!(similarity(&data(&super::sketch(&[1; 32], &flat, &near)), &sketch(2, 0)), 0.0);
    }
}
