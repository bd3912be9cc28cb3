//! Image records: read the header, judge the size, decode in full, measure.
//!
//! The bytes stay as read; decoding only proves that it can be done and measures. The id is the digest of the bytes.
//! Deliberately absent: re-encoding, and formats other than JPEG and PNG.

use std::io::Cursor;
use std::panic::catch_unwind;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryBuilder, LargeBinaryBuilder, StringBuilder, UInt32Builder};
use arrow::datatypes::{DataType, Field};
use forebay_schemas::id::Digest;
use forebay_schemas::pipeline::Pipeline;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::{Raw, Rejection, Verdict};
use crate::error::Result;
use crate::source::path_in_archive;

/// Columns that only images have.
pub(super) fn payload() -> Vec<Field> {
    vec![
        Field::new("class", DataType::Utf8, true),
        Field::new("width", DataType::UInt32, true),
        Field::new("height", DataType::UInt32, true),
        Field::new("moments", DataType::FixedSizeBinary(MOMENTS_BYTES), true),
        Field::new("content", DataType::LargeBinary, true),
    ]
}

/// Bytes of stored [`Moments`].
pub(crate) const MOMENTS_BYTES: i32 = 56;

/// Sums over pixels, in integers, so that they do not depend on the order in which pictures are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moments {
    pixels: u64,
    sums: [u64; 3],
    squares: [u64; 3],
}

impl Moments {
    /// Adds the pixels of a picture, three bytes each.
    pub(crate) fn add_pixels(&mut self, rgb: &[u8]) {
        for pixel in rgb.chunks_exact(3) {
            for (channel, value) in pixel.iter().enumerate() {
                let value = u64::from(*value);
                self.sums[channel] += value;
                self.squares[channel] += value * value;
            }
        }
        self.pixels += rgb.len() as u64 / 3;
    }

    /// Adds moments as stored.
    pub(crate) fn add_stored(&mut self, bytes: &[u8]) {
        let mut values = bytes.chunks_exact(8).map(|chunk| {
            let mut value = [0; 8];
            value.copy_from_slice(chunk);
            u64::from_le_bytes(value)
        });
        let lanes = std::iter::once(&mut self.pixels).chain(&mut self.sums).chain(&mut self.squares);
        lanes.for_each(|lane| *lane += values.next().unwrap_or(0));
    }

    /// As stored: pixels, sums of red, green and blue, sums of their squares; little-endian.
    pub(crate) fn to_bytes(self) -> [u8; MOMENTS_BYTES as usize] {
        let mut bytes = [0; MOMENTS_BYTES as usize];
        let values = std::iter::once(self.pixels).chain(self.sums).chain(self.squares);
        bytes.chunks_exact_mut(8).zip(values).for_each(|(chunk, value)| chunk.copy_from_slice(&value.to_le_bytes()));
        bytes
    }

    /// Mean and standard deviation of each channel, in 0…1; none without a pixel.
    pub(crate) fn mean_and_std(&self) -> Option<([f64; 3], [f64; 3])> {
        if self.pixels == 0 {
            return None;
        }
        let pixels = self.pixels as f64;
        let mean = self.sums.map(|sum| sum as f64 / pixels);
        let mut deviation = [0.0; 3];
        for channel in 0..3 {
            deviation[channel] = (self.squares[channel] as f64 / pixels - mean[channel] * mean[channel]).max(0.0).sqrt() / 255.0;
        }
        Some((mean.map(|mean| mean / 255.0), deviation))
    }
}

/// What was measured of a decoded picture; sides after EXIF orientation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) moments: Moments,
}

/// Judges one picture.
pub(crate) fn clean(raw: Raw<'_>, key: &str, pipeline: &Pipeline) -> (Verdict, Option<Measured>) {
    let measured = raw.and_then(|bytes| match class_of(key) {
        // A decoder that panics on a picture condemns the picture, not the run.
        Some(_) => catch_unwind(|| measure(bytes, pipeline.source.max_pixels))
            .unwrap_or_else(|_| Err(Rejection::new("corrupt_image", "the decoder panicked"))),
        None => Err(Rejection::new("no_class", "no folder around the file to name its class")),
    });
    match measured {
        Ok(measured) => (judge(&measured, pipeline), Some(measured)),
        Err(rejection) => (Verdict::Quarantine(rejection), None),
    }
}

/// The class of a record: the name of the folder that holds the file or the archive's member.
pub(crate) fn class_of(key: &str) -> Option<&str> {
    let path = path_in_archive(key).unwrap_or(key);
    let folder = path.rsplit_once('/')?.0;
    Some(folder.rsplit('/').next().unwrap_or(folder)).filter(|class| !class.is_empty() && *class != ".")
}

fn judge(measured: &Measured, pipeline: &Pipeline) -> Verdict {
    let (short, long) = (measured.width.min(measured.height), measured.width.max(measured.height));
    let sides = || format!("{} × {}", measured.width, measured.height);
    if short < pipeline.clean.min_side {
        return Verdict::Remove(Rejection::new("too_small", sides()));
    }
    if f64::from(long) > pipeline.clean.max_aspect * f64::from(short) {
        return Verdict::Remove(Rejection::new("odd_aspect", sides()));
    }
    Verdict::Keep
}

fn measure(bytes: &[u8], max_pixels: u64) -> std::result::Result<Measured, Rejection> {
    let corrupt = |detail: String| Rejection::new("corrupt_image", detail);
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| corrupt(error.to_string()))?;
    let format = match reader.format() {
        Some(format @ (ImageFormat::Jpeg | ImageFormat::Png)) => format,
        _ => return Err(corrupt("neither JPEG nor PNG by its first bytes".to_owned())),
    };
    if format == ImageFormat::Jpeg && is_truncated_jpeg(bytes) {
        return Err(corrupt("truncated: no end-of-image marker after the last scan".to_owned()));
    }
    let mut decoder = reader.into_decoder().map_err(|error| corrupt(error.to_string()))?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(Rejection::new("too_many_pixels", format!("{width} × {height}")));
    }
    // A lying header may still ask for more; eight bytes a pixel is the deepest PNG.
    let mut limits = Limits::default();
    limits.max_alloc = Some(max_pixels.saturating_mul(8).saturating_add(64 << 20));
    decoder.set_limits(limits).map_err(|error| corrupt(error.to_string()))?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let picture = DynamicImage::from_decoder(decoder).map_err(|error| corrupt(error.to_string()))?;
    let mut moments = Moments::default();
    moments.add_pixels(picture.to_rgb8().as_raw());
    let turned =
        matches!(orientation, Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH);
    let (width, height) = if turned { (height, width) } else { (width, height) };
    Ok(Measured { width, height, moments })
}

/// Whether the scan is cut off. Inside a scan every 0xFF byte is stuffed, so the marker can only be the true one.
fn is_truncated_jpeg(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xFF, marker]);
    match (last(0xDA), last(0xD9)) {
        (Some(scan), Some(end)) => end < scan,
        _ => true,
    }
}

/// The columns of the verdict and of [`payload`] for raw records.
pub(super) fn columns<'a>(raw: impl Iterator<Item = (&'a str, Raw<'a>)>, pipeline: &Pipeline) -> Result<Vec<ArrayRef>> {
    let (mut ids, mut moments) = (FixedSizeBinaryBuilder::new(32), FixedSizeBinaryBuilder::new(MOMENTS_BYTES));
    let (mut verdicts, mut reasons, mut details) = (StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
    let (mut classes, mut widths, mut heights) = (StringBuilder::new(), UInt32Builder::new(), UInt32Builder::new());
    let mut contents = LargeBinaryBuilder::new();
    for (key, content) in raw {
        let bytes = content.as_ref().ok().copied();
        let (verdict, measured) = clean(content, key, pipeline);
        match bytes.filter(|_| measured.is_some()) {
            Some(bytes) => ids.append_value(Digest::of(bytes).as_bytes())?,
            None => ids.append_null(),
        }
        verdicts.append_value(verdict.name());
        reasons.append_option(verdict.rejection().map(|rejection| rejection.reason));
        details.append_option(verdict.rejection().map(|rejection| rejection.detail.as_str()));
        let kept = measured.filter(|_| verdict == Verdict::Keep);
        classes.append_option(class_of(key));
        widths.append_option(kept.map(|kept| kept.width));
        heights.append_option(kept.map(|kept| kept.height));
        match kept {
            Some(kept) => moments.append_value(kept.moments.to_bytes())?,
            None => moments.append_null(),
        }
        contents.append_option(bytes.filter(|_| kept.is_some()));
    }
    Ok(vec![
        Arc::new(ids.finish()),
        Arc::new(verdicts.finish()),
        Arc::new(reasons.finish()),
        Arc::new(details.finish()),
        Arc::new(classes.finish()),
        Arc::new(widths.finish()),
        Arc::new(heights.finish()),
        Arc::new(moments.finish()),
        Arc::new(contents.finish()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_the_folder_around_the_file() {
        for (key, class) in [
            ("cat/1.jpg", Some("cat")),
            ("a/b/dog/1.jpg", Some("dog")),
            ("x/train.tar#train/frog/0001.jpg", Some("frog")),
            ("x/train.tar#1.jpg", None),
            ("bird/no#1.jpg", Some("bird")),
            ("1.jpg", None),
            ("./1.jpg", None),
        ] {
            assert_eq!(class_of(key), class, "{key}");
        }
    }

    #[test]
    fn moments_add_up_whatever_the_cut() {
        let pixels: Vec<u8> = (0..=254).collect();
        let (mut whole, mut left, mut right) = (Moments::default(), Moments::default(), Moments::default());
        whole.add_pixels(&pixels);
        left.add_pixels(&pixels[..90]);
        right.add_pixels(&pixels[90..]);
        right.add_stored(&left.to_bytes());
        assert_eq!(right, whole);
        let (mean, deviation) = whole.mean_and_std().expect("pixels");
        assert!((mean[0] - 126.0 / 255.0).abs() < 1e-12, "{mean:?}");
        // Of n numbers three apart, three times that of 0…n-1, whose variance is (n² - 1) / 12.
        let expected = 3.0 * ((85.0f64 * 85.0 - 1.0) / 12.0).sqrt() / 255.0;
        assert!((deviation[0] - expected).abs() < 1e-9, "{deviation:?}");
    }
}
