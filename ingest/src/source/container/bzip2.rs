//! Bzip2 of one or many streams, as `pbzip2` and the dumps of Wikipedia have them.
//!
//! Deliberately absent: finding the next block behind a damaged one.

use std::io::BufRead;

use ::bzip2::bufread::MultiBzDecoder;

/// Reads all streams as one.
pub(super) fn decoder<R: BufRead>(input: R) -> MultiBzDecoder<R> {
    MultiBzDecoder::new(input)
}
