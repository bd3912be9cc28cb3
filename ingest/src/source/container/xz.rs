//! Xz of one or many streams, and the older .lzma.
//!
//! A dictionary that takes more than 256 MiB is refused; the largest preset, `xz -9`, takes 65 MiB. Deliberately absent:
//! lzip.

use std::io::{self, BufRead};

use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

const MEMORY_BYTES: u64 = 256 << 20;

/// Reads all streams as one.
pub(super) fn decoder<R: BufRead>(input: R) -> io::Result<XzDecoder<R>> {
    Ok(XzDecoder::new_stream(input, Stream::new_auto_decoder(MEMORY_BYTES, CONCATENATED)?))
}
