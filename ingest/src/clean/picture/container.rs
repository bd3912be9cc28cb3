//! What a picture's file is made of: its format by the first bytes, and which of its bytes are the picture.
//!
//! Walks segments, chunks or blocks without decoding, and reads the orientation on the way; a file that ends within one is `corrupt_image`. What is kept is a
//! white list, so that a new kind of note is removed too. Pixels, colour profile, gamma, resolution and animation are
//! kept; EXIF, XMP, IPTC, comments, previews, and whatever follows the end are not (a phone's second picture behind the
//! first carries its own GPS position). Deliberately absent: the JFIF thumbnail, the few bytes of colour inside `APP0`.

use std::ops::Range;

use image::ImageFormat;
use image::metadata::Orientation;
use memchr::memchr;

use crate::clean::Rejection;

/// Where the picture is in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) format: ImageFormat,
    /// Bytes that are the picture, ascending and apart from each other.
    pub(super) kept: Vec<Range<usize>>,
    /// Where a note on the orientation belongs, on the edge of a kept range.
    pub(super) note_at: usize,
    /// As its EXIF block says.
    pub(super) orientation: Orientation,
}

impl Layout {
    fn new(format: ImageFormat) -> Self {
        Self { format, kept: Vec::new(), note_at: 0, orientation: Orientation::NoTransforms }
    }

    fn read_exif(&mut self, exif: &[u8]) {
        self.orientation = Orientation::from_exif_chunk(exif).unwrap_or(Orientation::NoTransforms);
    }

    fn keep(&mut self, range: Range<usize>) {
        match self.kept.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.kept.push(range),
        }
    }
}

/// The format that the first bytes say, whatever the name says.
pub(super) fn format(bytes: &[u8]) -> Result<ImageFormat, Rejection> {
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP | ImageFormat::Gif | ImageFormat::Bmp)) => Ok(format),
        Ok(other) => Err(Rejection::new("unsupported_image", format!("{other:?}, expected JPEG, PNG, WebP, GIF or BMP"))),
        Err(_) => Err(corrupt("no picture by its first bytes, expected JPEG, PNG, WebP, GIF or BMP")),
    }
}

/// Walks a file.
pub(super) fn layout(bytes: &[u8]) -> Result<Layout, Rejection> {
    let mut layout = Layout::new(format(bytes)?);
    let end = match layout.format {
        ImageFormat::Jpeg => jpeg(bytes, &mut layout)?.ok_or("no end-of-image marker after the last scan"),
        ImageFormat::Png => png(bytes, &mut layout).ok_or("no IEND chunk"),
        ImageFormat::WebP => webp(bytes, &mut layout).ok_or("a RIFF chunk is longer than the file"),
        ImageFormat::Gif => gif(bytes, &mut layout).ok_or("the file ends within a block"),
        _ => {
            layout.keep(0..bytes.len());
            Ok(())
        }
    };
    end.map_err(|reason| corrupt(format!("truncated: {reason}")))?;
    Ok(layout)
}

pub(super) fn corrupt(detail: impl Into<String>) -> Rejection {
    Rejection::new("corrupt_image", detail)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Segments up to the end of the image (ITU T.81, annex B). None if the end is missing.
fn jpeg(bytes: &[u8], layout: &mut Layout) -> Result<Option<()>, Rejection> {
    layout.keep(0..2);
    layout.note_at = 2;
    // Between the headers stray bytes are dropped; from the first scan on all that is no segment is picture.
    let (mut at, mut is_in_scan) = (2, false);
    while let Some((marker, start, end)) = segment(bytes, at) {
        let content = bytes.get(start + 4..end).unwrap_or_default();
        if let Some(feature) = unsupported_frame(marker, content) {
            return Err(Rejection::new("unsupported_image", format!("JPEG: {feature}, expected 8 bits, Huffman coding, lossy")));
        }
        if let (0xE1, Some(exif)) = (marker, content.strip_prefix(b"Exif\0\0")) {
            layout.read_exif(exif);
        }
        if is_in_scan {
            layout.keep(at..start);
        }
        if is_jpeg_picture(marker, content) {
            layout.keep(start..end);
        }
        is_in_scan |= marker == 0xDA;
        if marker == 0xE0 && at == 2 {
            layout.note_at = end;
        }
        if marker == 0xD9 {
            return Ok(Some(()));
        }
        at = end;
    }
    Ok(None)
}

/// The next marker from `at` on, where its segment starts and where it ends. Stray bytes before it are skipped, as decoders
/// do, and so are the data of a scan: stuffed bytes and restarts are no segments.
fn segment(bytes: &[u8], at: usize) -> Option<(u8, usize, usize)> {
    let mut start = at;
    loop {
        start += memchr(0xFF, bytes.get(start..)?)?;
        match *bytes.get(start + 1)? {
            // The first of two may be fill, so only this byte is passed.
            0xFF => start += 1,
            0x00 | 0x01 | 0xD0..=0xD8 => start += 2,
            0xD9 => return Some((0xD9, start, start + 2)),
            marker => {
                let length = usize::from(u16::from_be_bytes(array(bytes, start + 2)?)).max(2);
                let end = start + 2 + length;
                return (end <= bytes.len()).then_some((marker, start, end));
            }
        }
    }
}

/// What in a frame header no common decoder reads.
fn unsupported_frame(marker: u8, content: &[u8]) -> Option<String> {
    match (marker, content.first()) {
        (0xC0..=0xC2, Some(bits)) if *bits > 8 => Some(format!("{bits} bits a channel")),
        (0xC3, _) => Some("lossless".to_owned()),
        (0xC5..=0xC7, _) => Some("hierarchical".to_owned()),
        (0xC9..=0xCB | 0xCD..=0xCF, _) => Some("arithmetic coding".to_owned()),
        _ => None,
    }
}

/// Whether a segment is needed to show the picture: all but notes, of which the colour profile and Adobe's transform are.
fn is_jpeg_picture(marker: u8, content: &[u8]) -> bool {
    match marker {
        0xE0 => !content.starts_with(b"JFXX"),
        0xE2 => content.starts_with(b"ICC_PROFILE\0"),
        0xEE => content.starts_with(b"Adobe"),
        0xE1..=0xEF | 0xFE => false,
        _ => true,
    }
}

/// Chunks up to IEND (PNG, third edition, chapter 5).
fn png(bytes: &[u8], layout: &mut Layout) -> Option<()> {
    const KEPT: [&[u8; 4]; 14] =
        [b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT"];
    layout.keep(0..8);
    let mut at = 8;
    loop {
        let length = u32::from_be_bytes(array(bytes, at)?) as usize;
        let kind: [u8; 4] = array(bytes, at + 4)?;
        let end = at.checked_add(length)?.checked_add(12).filter(|end| *end <= bytes.len())?;
        if kind == *b"IDAT" && layout.note_at == 0 {
            layout.note_at = at;
        }
        if kind == *b"eXIf" {
            layout.read_exif(&bytes[at + 8..end - 4]);
        }
        // An upper-case first letter: no picture without it.
        if kind[0].is_ascii_uppercase() || KEPT.contains(&&kind) {
            layout.keep(at..end);
        }
        if kind == *b"IEND" {
            return Some(());
        }
        at = end;
    }
}

/// Chunks of the RIFF list (RFC 9649). The size in the header and the flags of VP8X are left to who writes.
fn webp(bytes: &[u8], layout: &mut Layout) -> Option<()> {
    let end = (u32::from_le_bytes(array(bytes, 4)?) as usize).checked_add(8).filter(|end| *end <= bytes.len())?;
    layout.keep(0..12);
    let mut at = 12;
    while at < end {
        let kind: [u8; 4] = array(bytes, at)?;
        let length = u32::from_le_bytes(array(bytes, at + 4)?) as usize;
        // Chunks are padded to an even length; some writers forget the last pad.
        let next = at.checked_add(8)?.checked_add(length)?.checked_add(length % 2)?;
        if next > end + 1 {
            return None;
        }
        let next = next.min(end);
        if kind == *b"EXIF" {
            layout.read_exif(bytes.get(at + 8..at + 8 + length)?);
        }
        if matches!(&kind, b"VP8X" | b"VP8 " | b"VP8L" | b"ALPH" | b"ICCP" | b"ANIM" | b"ANMF") {
            layout.keep(at..next);
        }
        at = next;
    }
    layout.note_at = layout.kept.last()?.end;
    Some(())
}

/// Blocks up to the trailer (GIF89a). A missing trailer between blocks is common and forgiven.
fn gif(bytes: &[u8], layout: &mut Layout) -> Option<()> {
    let table = |packed: u8| if packed & 0x80 != 0 { 3usize << ((packed & 7) + 1) } else { 0 };
    let mut at = 13 + table(*bytes.get(10)?);
    bytes.get(..at)?;
    layout.keep(0..at);
    while let Some(introducer) = bytes.get(at) {
        let start = at;
        let mut is_kept = true;
        match introducer {
            0x3B => {
                layout.keep(at..at + 1);
                return Some(());
            }
            0x2C => at += 11 + table(*bytes.get(at + 9)?),
            0x21 => {
                let application = bytes.get(at + 3..at + 14).unwrap_or_default();
                is_kept = match bytes.get(at + 1)? {
                    0xF9 => true,
                    0xFF => [&b"NETSCAPE2.0"[..], b"ANIMEXTS1.0", b"ICCRGBG1012"].contains(&application),
                    _ => false,
                };
                at += 2;
            }
            // Padding, as decoders skip it.
            _ => {
                at += 1;
                layout.keep(start..at);
                continue;
            }
        }
        loop {
            let length = usize::from(*bytes.get(at)?);
            at += 1 + length;
            if length == 0 {
                break;
            }
        }
        bytes.get(..at)?;
        if is_kept {
            layout.keep(start..at);
        }
    }
    Some(())
}
