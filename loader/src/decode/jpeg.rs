//! The part of a JPEG that a view shows, at the coarsest scale that is still as fine as the sample.
//!
//! The view is chosen before anything is decoded: blocks left and right of it are skipped, rows below it are never read, and a
//! view that is at least twice as fine as the sample is decoded at a half, a quarter or an eighth, which costs a part of
//! the inverse transform. The orientation that the file asks for turns the view, not the pixels.
//! Promises: the same bits on every machine, since the decoder has them (see `forebay_jpeg`).

use forebay_jpeg::{Decoder, Header, Rectangle};
use image::metadata::Orientation;

use super::image::{MAX_DECODED_BYTES, Picture};
use crate::augment::View;

/// Pixels around the view that resampling may look at.
const MARGIN: f64 = 3.0;

/// A JPEG whose header was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Jpeg<'a> {
    bytes: &'a [u8],
    header: Header,
    orientation: Orientation,
}

impl<'a> Jpeg<'a> {
    pub(super) fn open(decoder: &mut Decoder, bytes: &'a [u8]) -> Result<Self, String> {
        let header =
            decoder.header(bytes).map_err(|error| format!("image of {} bytes: {error}, expected a sound JPEG or PNG", bytes.len()))?;
        let (width, height) = (header.width, header.height);
        let all = u64::from(width) * u64::from(height) * 3;
        if all > MAX_DECODED_BYTES || all == 0 {
            return Err(format!(
                "image: found {width} × {height} pixels, expected at least one and at most {MAX_DECODED_BYTES} bytes decoded"
            ));
        }
        let orientation = exif(bytes).and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms);
        Ok(Self { bytes, header, orientation })
    }

    /// Sides of the upright picture.
    pub(super) fn sides(&self) -> (u32, u32) {
        let (width, height) = (self.header.width, self.header.height);
        if swaps(self.orientation) { (height, width) } else { (width, height) }
    }

    /// Decodes what `view` of the upright picture shows, into `pixels`; also gives the view of that.
    pub(super) fn part(&self, decoder: &mut Decoder, view: &View, size: u32, mut pixels: Vec<u8>) -> Result<(Picture, View), String> {
        let view = stored(view, self.orientation, f64::from(self.header.width), f64::from(self.header.height));
        let step = |direction: [f64; 2]| direction[0].hypot(direction[1]);
        let eighths = match step(view.right).min(step(view.down)) {
            _ if self.header.lossless => 8,
            finer if finer >= 8.0 => 1,
            finer if finer >= 4.0 => 2,
            finer if finer >= 2.0 => 4,
            _ => 8,
        };
        let view = view.scaled(f64::from(eighths) / 8.0);
        let (width, height) = self.header.scaled(eighths);
        let (left, columns) = span(width, &view, 0, size);
        let (top, rows) = span(height, &view, 1, size);
        let failed = |error: forebay_jpeg::Error| format!("image of {} bytes: {error}, expected a sound JPEG or PNG", self.bytes.len());
        let part = self.header.part(eighths, Rectangle { left, top, width: columns, height: rows }).map_err(failed)?;
        // Every byte is written by the decoder, or it fails.
        pixels.resize(part.rgb_bytes(), 0);
        decoder.decode(self.bytes, &self.header, &part, &mut pixels).map_err(failed)?;
        let origin = [f64::from(part.decoded.left), f64::from(part.decoded.top)];
        let view = View { centre: [view.centre[0] - origin[0], view.centre[1] - origin[1]], ..view };
        Ok((Picture { width: part.decoded.width, height: part.decoded.height, pixels }, view))
    }
}

/// First pixel and number of pixels along an axis that a view needs: what it shows, and as much beyond an edge as the mirror
/// there shows of it.
fn span(length: u32, view: &View, axis: usize, size: u32) -> (u32, u32) {
    let reach = (view.right[axis].abs() + view.down[axis].abs()) * f64::from(size) / 2.0 + MARGIN;
    let (first, last) = (view.centre[axis] - reach, view.centre[axis] + reach);
    let side = f64::from(length);
    let (first, last) = (first.min(side - (last - side).max(0.0)), last.max(-first));
    let first = (first.floor().max(0.0) as u32).min(length.saturating_sub(1));
    let last = (last.ceil().max(0.0) as u32).clamp(first + 1, length.max(first + 1));
    (first, last - first)
}

fn swaps(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

/// A view of the upright picture as one of the stored one, whose sides are `width` and `height`.
fn stored(view: &View, orientation: Orientation, width: f64, height: f64) -> View {
    use Orientation::{FlipHorizontal, FlipVertical, NoTransforms, Rotate90, Rotate90FlipH, Rotate180, Rotate270, Rotate270FlipH};
    // Where the point x, y of the upright picture is in the stored one: axes, and offsets.
    let (matrix, offset) = match orientation {
        NoTransforms => ([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]),
        FlipHorizontal => ([[-1.0, 0.0], [0.0, 1.0]], [width, 0.0]),
        FlipVertical => ([[1.0, 0.0], [0.0, -1.0]], [0.0, height]),
        Rotate180 => ([[-1.0, 0.0], [0.0, -1.0]], [width, height]),
        // Turning a stored picture clockwise puts its pixel (a, b) at (height - b, a).
        Rotate90 => ([[0.0, 1.0], [-1.0, 0.0]], [0.0, height]),
        Rotate270 => ([[0.0, -1.0], [1.0, 0.0]], [width, 0.0]),
        // Turned, then mirrored left to right.
        Rotate90FlipH => ([[0.0, 1.0], [1.0, 0.0]], [0.0, 0.0]),
        Rotate270FlipH => ([[0.0, -1.0], [-1.0, 0.0]], [width, height]),
    };
    let along = |[x, y]: [f64; 2]| [matrix[0][0] * x + matrix[0][1] * y, matrix[1][0] * x + matrix[1][1] * y];
    let centre = along(view.centre);
    View { centre: [centre[0] + offset[0], centre[1] + offset[1]], right: along(view.right), down: along(view.down) }
}

/// The Exif data of a JPEG, if it has them before its picture.
fn exif(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(2..)?;
    loop {
        let [0xff, marker, high, low, ..] = *rest else { return None };
        // A filling byte, or the beginning of the picture.
        match marker {
            0xff => rest = &rest[1..],
            0xda | 0xd9 => return None,
            _ => {
                let length = usize::from(high) << 8 | usize::from(low);
                let segment = rest.get(4..2 + length)?;
                if marker == 0xe1
                    && let Some(exif) = segment.strip_prefix(b"Exif\0\0")
                {
                    return Some(exif);
                }
                rest = rest.get(2 + length..)?;
            }
        }
    }
}
