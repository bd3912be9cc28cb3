//! What a picture is, and which part of it to decode at which scale: arithmetic, no library.

use crate::error::{Error, Result};

/// Colours of the samples in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// One channel.
    Grey,
    /// Red, green and blue, stored as they are.
    Rgb,
    /// Luma and chroma, as nearly all files are.
    YCbCr,
    /// Four inks.
    Cmyk,
    /// Four inks, three of them stored as luma and chroma.
    Ycck,
}

impl Space {
    /// Channels in the file.
    pub fn channels(self) -> u32 {
        match self {
            Self::Grey => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk | Self::Ycck => 4,
        }
    }
}

/// What the header of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Colours.
    pub space: Space,
    /// Whether the picture comes in several scans, each finer than the last: takes two bytes a coefficient to decode.
    pub progressive: bool,
    /// Whether it is stored without loss, which knows neither scales nor parts.
    pub lossless: bool,
    /// Pixels in a row of the blocks that are coded together, where the sampling is a usual one: parts start on their edge.
    pub(crate) block: Option<u32>,
}

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectangle {
    /// Columns left of it.
    pub left: u32,
    /// Rows above it.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// What of a picture to decode, from [`Header::part`] or [`Header::whole`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Sides are decoded at this many eighths, rounded up: 1, 2, 4 or 8.
    pub eighths: u32,
    /// What is decoded, in pixels of the scaled picture.
    pub decoded: Rectangle,
    /// Where the wanted rectangle lies in `decoded`.
    pub wanted: Rectangle,
}

/// `pixels` at `eighths`, rounded up as the library does.
fn scaled(pixels: u32, eighths: u32) -> u32 {
    (u64::from(pixels) * u64::from(eighths)).div_ceil(8) as u32
}

impl Header {
    /// Sides at a scale.
    pub fn scaled(&self, eighths: u32) -> (u32, u32) {
        let eighths = if self.lossless { 8 } else { eighths };
        (scaled(self.width, eighths), scaled(self.height, eighths))
    }

    /// The whole picture at a scale.
    pub fn whole(&self, eighths: u32) -> Part {
        let (width, height) = self.scaled(eighths);
        let all = Rectangle { left: 0, top: 0, width, height };
        Part { eighths, decoded: all, wanted: all }
    }

    /// The least that must be decoded for a rectangle of the picture at a scale of `eighths` (1, 2, 4 or 8).
    ///
    /// `wanted` is in pixels of the *scaled* picture. Decoding starts at the edge of a block, and one block further out on
    /// either side, since chroma is interpolated from its neighbours: so the pixels are those of the whole picture. A file
    /// of unusual sampling is decoded in whole rows.
    pub fn part(&self, eighths: u32, wanted: Rectangle) -> Result<Part> {
        let (width, height) = self.scaled(eighths);
        let fits = |start: u32, length: u32, side: u32| length > 0 && start.checked_add(length).is_some_and(|end| end <= side);
        if !matches!(eighths, 1 | 2 | 4 | 8) || !fits(wanted.left, wanted.width, width) || !fits(wanted.top, wanted.height, height) {
            return Err(Error::Usage(format!("{wanted:?} at {eighths}/8 is not within {width} × {height}")));
        }
        let Some(block) = self.block.map(|block| block * eighths / 8) else {
            return Ok(Part { wanted, ..self.whole(eighths) });
        };
        let left = (wanted.left / block).saturating_sub(1) * block;
        let right = ((wanted.left + wanted.width).div_ceil(block) + 1).saturating_mul(block).min(width);
        let decoded = Rectangle { left, top: wanted.top, width: right - left, height: wanted.height };
        Ok(Part { eighths, decoded, wanted: Rectangle { left: wanted.left - left, top: 0, ..wanted } })
    }
}

impl Part {
    /// Bytes of the decoded rectangle at three a pixel.
    pub fn rgb_bytes(&self) -> usize {
        self.decoded.width as usize * self.decoded.height as usize * 3
    }
}
