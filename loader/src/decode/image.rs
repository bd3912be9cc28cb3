//! Encoded images to RGB pixels, eight bits a channel: of a JPEG the part that a view shows, of others all.
//!
//! The EXIF orientation is applied; transparency is dropped, grey is copied to three channels, 16 bits are cut to 8.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use forebay_jpeg::Decoder;
use image::{DynamicImage, ImageDecoder, ImageReader};

use super::jpeg::Jpeg;
use crate::augment::View;

/// Most bytes that a decoded image may take: a picture of 13,000 × 13,000 pixels, and no bomb of 65,535 × 65,535.
pub(super) const MAX_DECODED_BYTES: u64 = 512 << 20;

/// Decoded pixels, rows from the top, three bytes a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) pixels: Vec<u8>,
}

/// Decodes images; keeps its working memory, so have one a thread.
#[derive(Default)]
pub(crate) struct Images {
    decoder: Option<Decoder>,
    pixels: Vec<u8>,
}

/// An image of which it is known how large it is.
pub(crate) enum Opened<'a> {
    Jpeg(Jpeg<'a>),
    Decoded(Picture),
}

impl Images {
    /// Reads as much of an image as says how large it is; the error says why that is not possible.
    pub(crate) fn open<'a>(&mut self, bytes: &'a [u8]) -> Result<Opened<'a>, String> {
        if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            return Ok(Opened::Jpeg(Jpeg::open(self.decoder()?, bytes)?));
        }
        // A decoder that panics on some input must not take the worker, and with it the stream, down.
        match catch_unwind(AssertUnwindSafe(|| decode(bytes))) {
            Ok(decoded) => Ok(Opened::Decoded(decoded?)),
            Err(_) => Err("image: the decoder gave up, expected a JPEG or PNG".to_owned()),
        }
    }

    /// Decodes what `view` shows of an image; also gives the view of what was decoded.
    pub(crate) fn part(&mut self, opened: Opened<'_>, view: &View, size: u32) -> Result<(Picture, View), String> {
        match opened {
            Opened::Jpeg(jpeg) => {
                let pixels = std::mem::take(&mut self.pixels);
                jpeg.part(self.decoder()?, view, size, pixels)
            }
            Opened::Decoded(picture) => Ok((picture, *view)),
        }
    }

    /// Takes back the memory of a picture.
    pub(crate) fn recycle(&mut self, picture: Picture) {
        self.pixels = picture.pixels;
    }

    fn decoder(&mut self) -> Result<&mut Decoder, String> {
        let decoder = match self.decoder.take() {
            Some(decoder) => decoder,
            None => Decoder::new(Some(MAX_DECODED_BYTES)).map_err(|error| format!("image: {error}"))?,
        };
        Ok(self.decoder.insert(decoder))
    }
}

impl Opened<'_> {
    /// Sides of the upright picture.
    pub(crate) fn sides(&self) -> (u32, u32) {
        match self {
            Self::Jpeg(jpeg) => jpeg.sides(),
            Self::Decoded(picture) => (picture.width, picture.height),
        }
    }
}

fn decode(bytes: &[u8]) -> Result<Picture, String> {
    let refused = |error: image::ImageError| format!("image of {} bytes: {error}, expected a JPEG or PNG", bytes.len());
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| refused(error.into()))?;
    let mut decoder = reader.into_decoder().map_err(refused)?;
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > MAX_DECODED_BYTES || width == 0 || height == 0 {
        return Err(format!("image: found {width} × {height} pixels, expected at least one and at most {MAX_DECODED_BYTES} bytes decoded"));
    }
    let orientation = decoder.orientation().map_err(refused)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(refused)?;
    image.apply_orientation(orientation);
    let rgb = image.into_rgb8();
    Ok(Picture { width: rgb.width(), height: rgb.height(), pixels: rgb.into_raw() })
}

#[cfg(test)]
mod tests;
