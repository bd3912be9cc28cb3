//! JPEG to pixels, whole or in part, and back, by libjpeg-turbo 3.1.0.
//!
//! [`Decoder::header`] reads what a picture is, [`Header::part`] chooses what of it to decode, [`Decoder::decode`] decodes
//! just that into a buffer of the caller; [`Encoder`] writes. Promises: pixels are the same bits on every processor (the
//! integer transforms and their SIMD versions agree bit by bit); pixels of a part are those of the whole picture; damage
//! that libjpeg only warns of is an error; an error of the library is a value. Deliberately absent: orientation, colour
//! profiles on reading, and judging by size, which are the caller's; 12 and 16 bits a sample.

#![expect(unsafe_code, reason = "calls libjpeg-turbo, the fastest decoder there is: decoding is what loading pictures costs")]

mod decode;
mod encode;
mod error;
mod handle;
mod header;

pub use decode::Decoder;
pub use encode::{Chroma, Encoder, Pixels};
pub use error::{Error, Result};
pub use header::{Header, Part, Rectangle, Space};

/// What made the pixels: they are the same bits wherever this is the same.
pub const IDENTITY: &str = "libjpeg-turbo 3.1.0, islow, fancy upsampling";

#[cfg(test)]
mod tests;
