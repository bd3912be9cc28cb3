//! Settings of pictures: what is refused, what is stored, and when two of them are the same.
//!
//! The defaults store a picture as it came, without what it says of people and places. Deliberately absent: colour
//! management (an ICC profile is kept, never applied), and formats to write other than JPEG.

use serde::{Deserialize, Serialize};

use crate::settings::{Invalid, check};
use crate::units::ByteSize;

/// Rules for pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Picture {
    /// A shorter side below this, in pixels, is `too_small`.
    pub min_side: u32,
    /// A longer side above this, in pixels, is `too_large_side`; none sets no bound.
    pub max_side: Option<u32>,
    /// A longer side more than this many times the shorter is `odd_aspect`.
    pub max_aspect: f64,
    /// A larger picture (width × height) is `too_many_pixels`, before it is decoded.
    pub max_pixels: u64,
    /// A picture that would take more memory to decode is `too_many_pixels`, before it is decoded.
    pub max_memory: ByteSize,
    /// Pictures of one channel.
    pub grey: Handling,
    /// Pictures of at most 256 colours: GIF, and some PNG and BMP.
    pub palette: Handling,
    /// Pictures with a pixel that is not opaque; laid over white where they are converted or scaled.
    pub transparency: Handling,
    /// Pictures of 16 bits a channel; readers cut them to 8.
    pub deep: Handling,
    /// JPEG for print; converted without its profile.
    pub cmyk: Handling,
    /// Remove what cameras and editors write beside the picture: EXIF with its GPS position, XMP, IPTC, comments, previews,
    /// bytes after the end. The picture is not re-encoded; its colour profile and orientation stay.
    pub strip_metadata: bool,
    /// A picture whose shorter side is longer is scaled down to it and stored as JPEG; none keeps every size.
    pub max_short_side: Option<u32>,
    /// JPEG quality of a re-encoded picture, 1 to 100.
    pub quality: u8,
    /// Near duplicates.
    pub near: NearPicture,
}

/// What to do with pictures of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Handling {
    /// Stored as they are, unless scaled.
    #[default]
    Keep,
    /// Stored as JPEG of eight bits a channel.
    Convert,
    /// Removed as `colour_mode`.
    Refuse,
}

/// When two pictures are the same to the eye.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NearPicture {
    /// Remove near duplicates, as `near_duplicate`.
    pub enabled: bool,
    /// Two perceptual hashes of 256 bits that differ in at most this many are of one picture; 31 as PDQ advises. Scaled,
    /// compressed, blurred and recoloured copies stay below it, hashes of other pictures differ in 78 and more.
    pub max_distance: u32,
    /// A picture below this quality, 0 to 100, has too little structure for its hash to mean anything and is not compared;
    /// 50 as PDQ advises.
    pub min_quality: u8,
    /// Also find mirrored copies and copies turned by a quarter.
    pub turned: bool,
    /// Search keys of a hash: more find more of the pairs near the threshold. 104 keys of 26 bits find 95 of 100 pairs that
    /// differ in 31 bits, and all but one in 10,000 of those in 20 or fewer.
    pub bands: u32,
    /// Bits of a search key: more make fewer strangers meet. With 26 a picture meets 8 strangers in five million, each way
    /// to lie.
    pub band_bits: u32,
}

impl Default for Picture {
    fn default() -> Self {
        Self {
            min_side: 8,
            max_side: None,
            max_aspect: 10.0,
            max_pixels: 100_000_000,
            max_memory: ByteSize(1 << 30),
            grey: Handling::Keep,
            palette: Handling::Keep,
            transparency: Handling::Convert,
            deep: Handling::Keep,
            cmyk: Handling::Convert,
            strip_metadata: true,
            max_short_side: None,
            quality: 90,
            near: NearPicture::default(),
        }
    }
}

impl Default for NearPicture {
    fn default() -> Self {
        Self { enabled: true, max_distance: 31, min_quality: 50, turned: true, bands: 104, band_bits: 26 }
    }
}

impl Picture {
    /// Checks every range; `key` is the name of the table.
    pub(crate) fn validate(&self, key: &str) -> Result<(), Invalid> {
        let name = |setting: &str| format!("{key}.{setting}");
        check(&name("min_side"), self.min_side, self.min_side >= 1, "at least 1")?;
        if let Some(side) = self.max_side {
            check(&name("max_side"), side, side >= self.min_side, "at least min_side")?;
        }
        check(&name("max_aspect"), self.max_aspect, self.max_aspect >= 1.0, "at least 1")?;
        check(&name("max_pixels"), self.max_pixels, self.max_pixels >= 1, "at least 1")?;
        check(&name("max_memory"), self.max_memory.0, self.max_memory.0 >= 1 << 20, "at least 1 MiB")?;
        if let Some(side) = self.max_short_side {
            check(&name("max_short_side"), side, side >= self.min_side, "at least min_side")?;
        }
        check(&name("quality"), self.quality, (1..=100).contains(&self.quality), "1 to 100")?;
        self.near.validate(&name("near"))
    }
}

impl NearPicture {
    fn validate(&self, key: &str) -> Result<(), Invalid> {
        let name = |setting: &str| format!("{key}.{setting}");
        check(&name("max_distance"), self.max_distance, self.max_distance <= 90, "0 to 90 of 256 bits")?;
        check(&name("min_quality"), self.min_quality, self.min_quality <= 100, "0 to 100")?;
        check(&name("bands"), self.bands, (1..=1024).contains(&self.bands), "1 to 1024")?;
        check(&name("band_bits"), self.band_bits, (8..=64).contains(&self.band_bits), "8 to 64")
    }
}
