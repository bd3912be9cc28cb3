//! JPEG and PNG to upright RGB pixels, eight bits a channel.
//!
//! The EXIF orientation is applied; transparency is dropped, grey is copied to three channels, 16 bits are cut to 8.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{DynamicImage, ImageDecoder, ImageReader};

/// Most bytes that a decoded image may take: a picture of 13,000 × 13,000 pixels, and no bomb of 65,535 × 65,535.
const MAX_DECODED_BYTES: u64 = 512 << 20;

/// Decoded pixels, rows from the top, three bytes a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) pixels: Vec<u8>,
}

/// Decodes an image; the error says why not.
pub(crate) fn decode_image(bytes: &[u8]) -> Result<Picture, String> {
    // A decoder that panics on some input must not take the worker, and with it the stream, down.
    match catch_unwind(AssertUnwindSafe(|| decode(bytes))) {
        Ok(decoded) => decoded,
        Err(_) => Err("image: the decoder gave up, expected a JPEG or PNG".to_owned()),
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
