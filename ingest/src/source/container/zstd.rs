//! Zstandard (RFC 8878) of one or many frames, skippable ones too.
//!
//! A window above 128 MiB (`zstd --long=28` and more) is refused, as zstd(1) refuses it unasked. Deliberately absent:
//! dictionaries.

use std::io::{self, BufRead};

use ::zstd::stream::read::Decoder;

/// Logarithm of the largest window.
const WINDOW_LOG: u32 = 27;

/// Reads all frames as one stream.
pub(super) fn decoder<R: BufRead>(input: R) -> io::Result<Decoder<'static, R>> {
    let mut decoder = Decoder::with_buffer(input)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(decoder)
}
