//! Removes what is written beside a picture, without decoding it: the pixels stay the same, bit by bit.
//!
//! An orientation that is not upright stays, alone in an EXIF block of 26 bytes, because without it the picture would
//! lie on its side. Cleaning a clean file gives the same bytes. Deliberately absent: GIF and BMP have no orientation.

use std::borrow::Cow;

use image::ImageFormat;
use image::metadata::Orientation;

use super::container::Layout;

/// The picture's bytes; borrowed if there is nothing to remove.
pub(super) fn strip<'a>(bytes: &'a [u8], layout: &Layout) -> Cow<'a, [u8]> {
    let is_turned = layout.orientation != Orientation::NoTransforms;
    let note = if is_turned { note(layout.format, &exif(layout.orientation)) } else { Vec::new() };
    if note.is_empty() && matches!(layout.kept.as_slice(), [whole] if *whole == (0..bytes.len())) {
        return Cow::Borrowed(bytes);
    }
    let mut stripped = Vec::with_capacity(bytes.len() + note.len());
    let mut note = Some(note);
    for range in &layout.kept {
        // The place of the note may be inside a range, between two segments that both stay.
        let cut = if layout.note_at <= range.start { range.start } else { layout.note_at.min(range.end) };
        stripped.extend_from_slice(&bytes[range.start..cut]);
        if layout.note_at <= range.end {
            if layout.format == ImageFormat::WebP && stripped.len() % 2 == 1 {
                stripped.push(0);
            }
            stripped.extend(note.take().unwrap_or_default());
        }
        stripped.extend_from_slice(&bytes[cut..range.end]);
    }
    if layout.format == ImageFormat::WebP {
        mend_webp(&mut stripped, is_turned);
    }
    Cow::Owned(stripped)
}

/// An EXIF block that says nothing but the orientation: big-endian TIFF, one directory of one entry.
fn exif(orientation: Orientation) -> [u8; 26] {
    let mut exif = *b"MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0";
    exif[19] = orientation.to_exif();
    exif
}

/// The block as the format wraps it.
fn note(format: ImageFormat, exif: &[u8; 26]) -> Vec<u8> {
    match format {
        ImageFormat::Jpeg => [&b"\xFF\xE1\x00\x22Exif\0\0"[..], exif].concat(),
        ImageFormat::Png => {
            let mut sum = flate2::Crc::new();
            sum.update(b"eXIf");
            sum.update(exif);
            [&26u32.to_be_bytes()[..], b"eXIf", exif, &sum.sum().to_be_bytes()].concat()
        }
        ImageFormat::WebP => [&b"EXIF"[..], &26u32.to_le_bytes(), exif].concat(),
        _ => Vec::new(),
    }
}

/// The sizes and flags that no longer hold: of the list, and of what the extended header says is there.
fn mend_webp(bytes: &mut Vec<u8>, has_exif: bool) {
    const EXIF: u8 = 0x08;
    const XMP: u8 = 0x04;
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    let size = (bytes.len() as u32).saturating_sub(8);
    if let Some(field) = bytes.get_mut(4..8) {
        field.copy_from_slice(&size.to_le_bytes());
    }
    if bytes.get(12..16) == Some(b"VP8X")
        && let Some(flags) = bytes.get_mut(20)
    {
        *flags = *flags & !(EXIF | XMP) | if has_exif { EXIF } else { 0 };
    }
}
