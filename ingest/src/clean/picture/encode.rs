//! Scales a picture down and writes it as JPEG.
//!
//! Scaling is Lanczos's filter of three lobes, widened to the scale, on the values as stored (not linear light), as the
//! resizers that training sets are made with do. Only ever down: what a picture lacks is not invented. Chroma is halved
//! both ways, the usual choice at these qualities. Deliberately absent: progressive files, slower to decode.

use std::borrow::Cow;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use forebay_jpeg::{Chroma, Encoder, Pixels};
use forebay_schemas::pipeline::picture::{Handling, Picture};

use super::decode::Upright;
use crate::clean::Rejection;

/// The size that the settings ask for, where it is smaller.
pub(super) fn scaled_down(width: u32, height: u32, settings: &Picture) -> Option<(u32, u32)> {
    let short = width.min(height);
    let wanted = settings.max_short_side.filter(|wanted| *wanted < short)?;
    let scaled = |side: u32| ((u64::from(side) * u64::from(wanted) + u64::from(short) / 2) / u64::from(short)) as u32;
    Some((scaled(width), scaled(height)))
}

/// Pixels of another size.
pub(super) fn resize(picture: &Upright, width: u32, height: u32, resizer: &mut Resizer) -> Result<Vec<u8>, Rejection> {
    let fault = |error: String| Rejection::new("corrupt_image", format!("cannot be scaled to {width} × {height}: {error}"));
    let source = ImageRef::new(picture.width, picture.height, &picture.rgb, PixelType::U8x3).map_err(|error| fault(error.to_string()))?;
    let mut scaled = Image::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    resizer.resize(&source, &mut scaled, &options).map_err(|error| fault(error.to_string()))?;
    Ok(scaled.into_vec())
}

/// A JPEG of pixels that come from `picture`.
pub(super) fn jpeg(
    rgb: &[u8],
    (width, height): (u32, u32),
    picture: &Upright,
    settings: &Picture,
    encoder: &mut Encoder,
) -> Result<Vec<u8>, Rejection> {
    let is_grey = picture.colour.grey && settings.grey == Handling::Keep;
    let (samples, pixels) = match is_grey {
        true => (Cow::Owned(rgb.iter().step_by(3).copied().collect()), Pixels::Grey),
        false => (Cow::Borrowed(rgb), Pixels::Rgb),
    };
    let profile = picture.profile.as_deref().filter(|_| !is_grey);
    let encoded = encoder.encode(&samples, pixels, (width, height), settings.quality, Chroma::Half, profile);
    encoded.map_err(|error| Rejection::new("unsupported_image", format!("{width} × {height} cannot be stored as JPEG: {error}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_scaled_picture_has_the_wanted_shorter_side_and_nearly_its_shape(width in 1u32..9000, height in 1u32..9000, wanted in 1u32..9000) {
            let settings = Picture { max_short_side: Some(wanted), ..Picture::default() };
            match scaled_down(width, height, &settings) {
                None => prop_assert!(width.min(height) <= wanted),
                Some((w, h)) => {
                    prop_assert_eq!(w.min(h), wanted);
                    let exact = f64::from(width.max(height)) * f64::from(wanted) / f64::from(width.min(height));
                    prop_assert!((f64::from(w.max(h)) - exact).abs() <= 0.5);
                    prop_assert!(w == h || (w > h) == (width > height), "{width} × {height} became {w} × {h}");
                }
            }
        }
    }

    #[test]
    fn a_picture_wider_than_jpeg_allows_is_refused_by_name() {
        let picture = Upright { width: 70_000, height: 1, rgb: vec![0; 210_000], colour: Default::default(), profile: None };
        let mut encoder = Encoder::new().expect("encoder");
        let rejection = jpeg(&picture.rgb, (70_000, 1), &picture, &Picture::default(), &mut encoder).expect_err("too wide");
        assert_eq!(rejection.detail, "70000 × 1 cannot be stored as JPEG: Maximum supported image dimension is 65500 pixels");
    }
}
