//! The encodings of Unicode: UTF-16 and UTF-32 with and without a mark, and UTF-8 with a damaged spot.

use super::{CHARS_PER_REPLACED, bad, is_sound};
use crate::clean::Rejection;

pub(super) fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, Rejection> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(bad(format!("UTF-16 of an odd number of bytes, {}", bytes.len())));
    }
    char::decode_utf16(pairs.iter().map(|pair| unit(*pair)))
        .collect::<Result<String, _>>()
        .map_err(|error| bad(format!("unpaired surrogate {:#06x} in UTF-16", error.unpaired_surrogate())))
}

pub(super) fn utf32(bytes: &[u8], unit: fn([u8; 4]) -> u32) -> Result<String, Rejection> {
    let (units, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(bad(format!("UTF-32 of {} bytes, expected a multiple of 4", bytes.len())));
    }
    let scalar = |bytes: &[u8; 4]| char::from_u32(unit(*bytes)).ok_or_else(|| bad(format!("{:#010x} in UTF-32", unit(*bytes))));
    units.iter().map(scalar).collect()
}

/// UTF-16 or UTF-32 without a mark, told by where the NULs are: blanks and line ends have them in every script.
pub(super) fn by_nuls(bytes: &[u8]) -> Option<String> {
    let mut nuls = [0usize; 4];
    for (index, byte) in bytes.iter().enumerate() {
        nuls[index % 4] += usize::from(*byte == 0);
    }
    let quarter = bytes.len() / 4;
    let (even, odd) = (nuls[0] + nuls[2], nuls[1] + nuls[3]);
    // The highest byte of UTF-32 is always NUL, the next one nearly always.
    let text = if nuls[3] == quarter && nuls[2] * 2 > quarter && bytes.len().is_multiple_of(4) {
        utf32(bytes, u32::from_le_bytes)
    } else if nuls[0] == quarter && nuls[1] * 2 > quarter && bytes.len().is_multiple_of(4) {
        utf32(bytes, u32::from_be_bytes)
    } else if odd > 8 * even {
        utf16(bytes, u16::from_le_bytes)
    } else if even > 8 * odd {
        utf16(bytes, u16::from_be_bytes)
    } else {
        return None;
    };
    text.ok().filter(|text| is_sound(text) && !text.contains(|c: char| c < ' ' && !matches!(c, '\t' | '\n' | '\r' | '\u{C}')))
}

/// UTF-8 with so few damaged spots that it is still the text; they become U+FFFD.
pub(super) fn repaired(bytes: &[u8]) -> Option<String> {
    let (mut spots, mut chars, mut multibyte) = (0, 0, 0);
    for chunk in bytes.utf8_chunks() {
        spots += usize::from(!chunk.invalid().is_empty());
        let valid = chunk.valid().chars().count();
        chars += valid;
        multibyte += chunk.valid().len() - valid;
    }
    // A character at least that is no ASCII, or the spot is all there is and means another encoding.
    let few = spots * CHARS_PER_REPLACED <= chars && multibyte > spots;
    few.then(|| String::from_utf8_lossy(bytes).into_owned())
}

/// Whether what is no ASCII is UTF-8 for the greater part, so that the rest is damage and not another encoding.
pub(super) fn is_mostly_utf8(bytes: &[u8]) -> bool {
    let (mut good, mut broken) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        good += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        broken += usize::from(!chunk.invalid().is_empty());
    }
    good > 2 * broken
}
