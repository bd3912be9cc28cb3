//! A guess at the encoding of bytes that are not UTF-8 and say nothing credible.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};

use super::{decoded, nuls, unicode};

/// Bytes that the detector is shown; its view does not change after so many.
const SHOWN_BYTES: usize = 1 << 20;
/// Of fewer bytes any guess is a coin flip.
const MIN_BYTES: usize = 16;

/// The text in the encoding that its letters suggest; none if nothing fits.
pub(super) fn guess(bytes: &[u8]) -> Option<String> {
    if bytes.len() < MIN_BYTES {
        return None;
    }
    if nuls(bytes) > 0 {
        return unicode::by_nuls(bytes);
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    // From the first byte that tells anything, with the letter before it.
    let start = bytes.iter().position(|byte| !byte.is_ascii()).unwrap_or(0).saturating_sub(16);
    detector.feed(&bytes[start..bytes.len().min(start + SHOWN_BYTES)], true);
    decoded(bytes, detector.guess(None, Utf8Detection::Deny))
}
