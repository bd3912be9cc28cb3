//! Picture records: decode in full, judge, strip, scale, measure, and hash for exact and near duplicates.
//!
//! One file a concern, in flow order: `container` finds the picture in its file, `metadata` removes the rest of it,
//! `decode` makes upright pixels, `encode` writes those that must be changed, `moments` and `perceptual` measure, `bands`
//! makes search keys. What is measured is what is stored: pixels are decoded from the stripped bytes, sums are of the
//! scaled pixels. Deliberately absent: two pictures side by side (that is `dedup`), and video.

use std::borrow::Cow;

use fast_image_resize::Resizer;
use forebay_jpeg::{Decoder, Encoder};
use forebay_schemas::id::Digest;
use forebay_schemas::pipeline::picture::{Handling, Picture};

use super::{Rejection, Verdict};

pub(crate) mod bands;
mod container;
mod decode;
mod encode;
mod metadata;
pub(crate) mod moments;
pub(crate) mod perceptual;

use decode::Upright;
use moments::Moments;
use perceptual::{Fingerprint, Hasher};

/// A raw picture, or why there is none.
type Raw<'a> = Result<&'a [u8], Rejection>;

/// What becomes of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cleaned<'a> {
    pub(crate) verdict: Verdict,
    /// Digest of the stored bytes of a kept record, and of the stripped bytes of a removed one.
    pub(crate) id: Option<Digest>,
    /// Of a kept record.
    pub(crate) stored: Option<Stored<'a>>,
}

/// A kept picture and what was measured of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored<'a> {
    pub(crate) bytes: Cow<'a, [u8]>,
    /// Sides as stored, after EXIF orientation.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Of the pixels as stored, before the loss of JPEG where it was written here.
    pub(crate) moments: Moments,
    /// Digest of the size and the upright pixels before scaling: the same for a picture in any container without loss.
    pub(crate) pixels: Digest,
    pub(crate) fingerprint: Fingerprint,
}

/// Judges pictures; reuses its buffers, so keep one a thread.
pub(crate) struct Cleaner<'a> {
    settings: &'a Picture,
    decoder: Decoder,
    hasher: Hasher,
    resizer: Resizer,
    encoder: Encoder,
}

impl<'a> Cleaner<'a> {
    /// Fails where there is no memory for it.
    pub(crate) fn new(settings: &'a Picture) -> forebay_jpeg::Result<Self> {
        let decoder = Decoder::new(Some(settings.max_memory.0))?;
        Ok(Self { settings, decoder, hasher: Hasher::default(), resizer: Resizer::new(), encoder: Encoder::new()? })
    }

    /// Judges one picture.
    pub(crate) fn clean<'b>(&mut self, raw: Raw<'b>, class: Option<&str>) -> Cleaned<'b> {
        let decoded = raw.and_then(|bytes| match class {
            Some(_) => self.decode(bytes),
            None => Err(Rejection::new("no_class", "no folder around the file to name its class")),
        });
        let (stripped, picture) = match decoded {
            Ok(decoded) => decoded,
            Err(rejection) => return Cleaned { verdict: Verdict::Quarantine(rejection), id: None, stored: None },
        };
        if let Some(rejection) = judge(&picture, self.settings) {
            return Cleaned { verdict: Verdict::Remove(rejection), id: Some(Digest::of(&stripped)), stored: None };
        }
        match self.store(stripped, &picture) {
            Ok(stored) => Cleaned { verdict: Verdict::Keep, id: Some(Digest::of(&stored.bytes)), stored: Some(stored) },
            Err(rejection) => Cleaned { verdict: Verdict::Quarantine(rejection), id: None, stored: None },
        }
    }

    /// The bytes to store if nothing else is to change, and their pixels.
    fn decode<'b>(&mut self, bytes: &'b [u8]) -> Result<(Cow<'b, [u8]>, Upright), Rejection> {
        let layout = container::layout(bytes)?;
        let stripped = if self.settings.strip_metadata { metadata::strip(bytes, &layout) } else { Cow::Borrowed(bytes) };
        let picture = decode::decode(&stripped, layout.format, layout.orientation, self.settings, &mut self.decoder)?;
        Ok((stripped, picture))
    }

    fn store<'b>(&mut self, stripped: Cow<'b, [u8]>, picture: &Upright) -> Result<Stored<'b>, Rejection> {
        let size = [picture.width.to_le_bytes(), picture.height.to_le_bytes()];
        let pixels = Digest::of_parts([size.as_flattened(), &picture.rgb]);
        let fingerprint = self.hasher.fingerprint(&picture.rgb, picture.width, picture.height);
        let fingerprint = fingerprint.ok_or_else(|| Rejection::new("corrupt_image", "no pixels to hash"))?;
        let scaled = match encode::scaled_down(picture.width, picture.height, self.settings) {
            Some((width, height)) => Some((encode::resize(picture, width, height, &mut self.resizer)?, width, height)),
            None => None,
        };
        let is_converted = picture.colour.handlings(self.settings).any(|(_, handling)| handling == Handling::Convert);
        let is_encoded = is_converted || scaled.is_some();
        let (rgb, width, height) = match &scaled {
            Some((rgb, width, height)) => (rgb, *width, *height),
            None => (&picture.rgb, picture.width, picture.height),
        };
        let mut moments = Moments::default();
        moments.add_pixels(rgb);
        let bytes = match is_encoded {
            true => Cow::Owned(encode::jpeg(rgb, (width, height), picture, self.settings, &mut self.encoder)?),
            false => stripped,
        };
        Ok(Stored { bytes, width, height, moments, pixels, fingerprint })
    }
}

/// Why a rule leaves out a picture that can be decoded.
fn judge(picture: &Upright, settings: &Picture) -> Option<Rejection> {
    let (short, long) = (picture.width.min(picture.height), picture.width.max(picture.height));
    let sides = || format!("{} × {}", picture.width, picture.height);
    if short < settings.min_side {
        return Some(Rejection::new("too_small", sides()));
    }
    if settings.max_side.is_some_and(|side| long > side) {
        return Some(Rejection::new("too_large_side", sides()));
    }
    if f64::from(long) > settings.max_aspect * f64::from(short) {
        return Some(Rejection::new("odd_aspect", sides()));
    }
    let refused = picture.colour.handlings(settings).find(|(_, handling)| *handling == Handling::Refuse);
    refused.map(|(name, _)| Rejection::new("colour_mode", name))
}

#[cfg(test)]
mod tests;
