//! A picture's bytes to upright pixels, within limits.
//!
//! The size is judged from the header, before memory for pixels is asked for; a decoder that panics condemns the picture,
//! not the run. JPEG goes through libjpeg-turbo, as in the loader, all else through `image`. Of moving pictures the first
//! frame counts. Deliberately absent: colour profiles, which the loader does not apply either.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use forebay_jpeg::{Decoder, Error, Space};
use forebay_schemas::pipeline::picture::{Handling, Picture};
use image::codecs::{bmp::BmpDecoder, gif::GifDecoder, png::PngDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, Limits, RgbImage};

use super::container::corrupt;
use super::encode::scaled_down;
use crate::clean::Rejection;

/// Decoded pixels, rows from the top, three bytes a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upright {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) rgb: Vec<u8>,
    pub(super) colour: Colour,
    /// Colour profile of the pixels, if it is one for red, green and blue.
    pub(super) profile: Option<Vec<u8>>,
}

/// What kinds of pixels a file has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Colour {
    pub(super) grey: bool,
    pub(super) palette: bool,
    pub(super) transparent: bool,
    pub(super) deep: bool,
    pub(super) cmyk: bool,
}

impl Colour {
    /// Each kind that the picture is of: its name and what to do with it.
    pub(super) fn handlings(self, settings: &Picture) -> impl Iterator<Item = (&'static str, Handling)> {
        let kinds = [
            (self.grey, "grey", settings.grey),
            (self.palette, "palette", settings.palette),
            (self.transparent, "transparency", settings.transparency),
            (self.deep, "16 bits a channel", settings.deep),
            (self.cmyk, "CMYK", settings.cmyk),
        ];
        kinds.into_iter().filter(|kind| kind.0).map(|(_, name, handling)| (name, handling))
    }
}

/// Decodes a picture in full, if it is a JPEG by `decoder`.
pub(super) fn decode(
    bytes: &[u8],
    format: ImageFormat,
    orientation: Orientation,
    settings: &Picture,
    decoder: &mut Decoder,
) -> Result<Upright, Rejection> {
    // Whatever a decoder left half done when it panicked, none of it is used again.
    let decoded = catch_unwind(AssertUnwindSafe(|| match format {
        ImageFormat::Jpeg => jpeg(bytes, settings, decoder),
        _ => other(bytes, format, settings),
    }));
    let picture = decoded.unwrap_or_else(|_| Err(corrupt("the decoder panicked")))?;
    turn(picture, orientation)
}

/// Refuses a picture whose header asks for too much; `pixel_bytes` are those that all buffers of its decoder take.
fn admit(width: u32, height: u32, pixel_bytes: u64, settings: &Picture) -> Result<(), Rejection> {
    let pixels = u64::from(width) * u64::from(height);
    let bytes = pixels.saturating_mul(pixel_bytes);
    if width == 0 || height == 0 {
        return Err(corrupt(format!("{width} × {height}, expected at least one pixel")));
    }
    if pixels > settings.max_pixels {
        return Err(Rejection::new("too_many_pixels", format!("{width} × {height}, expected at most {} pixels", settings.max_pixels)));
    }
    if bytes > settings.max_memory.0 {
        let detail = format!("{width} × {height} take {bytes} bytes to decode, expected at most {}", settings.max_memory.0);
        return Err(Rejection::new("too_many_pixels", detail));
    }
    Ok(())
}

fn jpeg(bytes: &[u8], settings: &Picture, decoder: &mut Decoder) -> Result<Upright, Rejection> {
    let header = decoder.header(bytes).map_err(jpeg_fault)?;
    // Progressive pictures hold two bytes a coefficient until the last scan.
    let coefficients = if header.progressive { 2 * u64::from(header.space.channels()) } else { 0 };
    admit(header.width, header.height, 3 + coefficients, settings)?;
    let whole = header.whole(8);
    let mut rgb = vec![0; whole.rgb_bytes()];
    decoder.decode(bytes, &header, &whole, &mut rgb).map_err(jpeg_fault)?;
    let cmyk = matches!(header.space, Space::Cmyk | Space::Ycck);
    let colour = Colour { grey: header.space == Space::Grey, cmyk, ..Colour::default() };
    let profile = decoder.profile().filter(|profile| is_rgb(profile));
    Ok(Upright { width: header.width, height: header.height, rgb, colour, profile })
}

fn jpeg_fault(error: Error) -> Rejection {
    match error {
        Error::Unsupported(detail) => Rejection::new("unsupported_image", format!("JPEG: {detail}")),
        Error::Limit(detail) => Rejection::new("too_many_pixels", format!("JPEG: {detail}")),
        Error::Corrupt(detail) | Error::Usage(detail) => corrupt(format!("JPEG: {detail}")),
    }
}

fn other(bytes: &[u8], format: ImageFormat, settings: &Picture) -> Result<Upright, Rejection> {
    let fault = |error: ImageError| match error {
        ImageError::Unsupported(error) => Rejection::new("unsupported_image", error.to_string()),
        // Of these only the limit on memory is set.
        ImageError::Limits(error) => Rejection::new("too_many_pixels", error.to_string()),
        other => corrupt(other.to_string()),
    };
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(settings.max_memory.0);
    let input = Cursor::new(bytes);
    let picture = match format {
        ImageFormat::Png => PngDecoder::with_limits(input, limits.clone()).and_then(|decoder| pixels(decoder, limits, settings)),
        ImageFormat::WebP => WebPDecoder::new(input).and_then(|decoder| pixels(decoder, limits, settings)),
        ImageFormat::Gif => GifDecoder::new(input).and_then(|decoder| pixels(decoder, limits, settings)),
        _ => BmpDecoder::new(input).and_then(|decoder| pixels(decoder, limits, settings)),
    };
    let (picture, profile) = picture.map_err(fault)??;
    let colour = kinds(bytes, format, &picture);
    let (width, height) = (picture.width(), picture.height());
    // JPEG has no transparency; a picture that is stored as it is, is read without it, as the loader does.
    let becomes_jpeg = settings.transparency == Handling::Convert || scaled_down(width, height, settings).is_some();
    let rgb = match colour.transparent && becomes_jpeg {
        true => over_white(picture.into_rgba8().as_raw()),
        false => picture.into_rgb8().into_raw(),
    };
    Ok(Upright { width, height, rgb, colour, profile })
}

type Pixels = (DynamicImage, Option<Vec<u8>>);

fn pixels(mut decoder: impl ImageDecoder, limits: Limits, settings: &Picture) -> Result<Result<Pixels, Rejection>, ImageError> {
    let (width, height) = decoder.dimensions();
    // The pixels as decoded, and as red, green and blue; the first may need a copy with another channel.
    let pixel_bytes = u64::from(decoder.color_type().bytes_per_pixel()) + 4 + 3;
    if let Err(rejection) = admit(width, height, pixel_bytes, settings) {
        return Ok(Err(rejection));
    }
    decoder.set_limits(limits)?;
    let profile = decoder.icc_profile().unwrap_or_default().filter(|profile| is_rgb(profile));
    Ok(Ok((DynamicImage::from_decoder(decoder)?, profile)))
}

fn kinds(bytes: &[u8], format: ImageFormat, picture: &DynamicImage) -> Colour {
    let at = |at: usize| bytes.get(at).copied().unwrap_or_default();
    let color = picture.color();
    let palette = match format {
        ImageFormat::Gif => true,
        // The kind of colour in IHDR.
        ImageFormat::Png => at(25) == 3,
        // The bits a pixel, in a core header or a longer one.
        ImageFormat::Bmp => (if at(14) == 12 { at(24) } else { at(28) }) <= 8,
        _ => false,
    };
    let transparent = match picture {
        DynamicImage::ImageLumaA8(picture) => picture.pixels().any(|pixel| pixel.0[1] < u8::MAX),
        DynamicImage::ImageRgba8(picture) => picture.as_raw().as_chunks::<4>().0.iter().any(|pixel| pixel[3] < u8::MAX),
        DynamicImage::ImageLumaA16(picture) => picture.pixels().any(|pixel| pixel.0[1] < u16::MAX),
        DynamicImage::ImageRgba16(picture) => picture.pixels().any(|pixel| pixel.0[3] < u16::MAX),
        _ => false,
    };
    let deep = color.bytes_per_pixel() / color.channel_count() > 1;
    Colour { grey: !color.has_color(), palette, transparent, deep, cmyk: false }
}

fn over_white(rgba: &[u8]) -> Vec<u8> {
    let (pixels, _) = rgba.as_chunks::<4>();
    let over = |pixel: &[u8; 4]| {
        let alpha = u32::from(pixel[3]);
        [0, 1, 2].map(|channel| ((u32::from(pixel[channel]) * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
    };
    pixels.iter().flat_map(over).collect()
}

/// Whether an ICC profile is for red, green and blue (ICC.1, 7.2.6), as all pixels here are.
fn is_rgb(profile: &[u8]) -> bool {
    profile.get(16..20) == Some(b"RGB ")
}

fn turn(picture: Upright, orientation: Orientation) -> Result<Upright, Rejection> {
    if orientation == Orientation::NoTransforms {
        return Ok(picture);
    }
    let Upright { width, height, rgb, colour, profile } = picture;
    let rgb = RgbImage::from_raw(width, height, rgb).ok_or_else(|| corrupt(format!("fewer pixels than {width} × {height}")))?;
    let mut turned = DynamicImage::ImageRgb8(rgb);
    turned.apply_orientation(orientation);
    let (width, height) = (turned.width(), turned.height());
    Ok(Upright { width, height, rgb: turned.into_rgb8().into_raw(), colour, profile })
}
