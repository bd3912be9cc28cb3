//! Gzip (RFC 1952) of one or many members, one after the other.
//!
//! Zeros behind the last member are padding, as gzip(1) has it; anything else there is damage. Deliberately absent:
//! finding the next member behind a damaged one.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// Reads all members as one stream.
pub(super) struct Decoder<R> {
    member: Option<GzDecoder<R>>,
    at_end: bool,
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(input: R) -> Self {
        Self { member: Some(GzDecoder::new(input)), at_end: false }
    }

    /// Moves to the next member, if there is one.
    fn next(&mut self) -> io::Result<bool> {
        let Some(member) = self.member.take() else { return Ok(false) };
        let mut input = member.into_inner();
        if input.fill_buf()?.first() == Some(&0x1F) {
            self.member = Some(GzDecoder::new(input));
            return Ok(true);
        }
        loop {
            let padding = input.fill_buf()?;
            if padding.is_empty() {
                return Ok(false);
            }
            if padding.iter().any(|byte| *byte != 0) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes behind the last member that are no member"));
            }
            let count = padding.len();
            input.consume(count);
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.at_end && !buffer.is_empty() {
            let count = self.member.as_mut().map_or(Ok(0), |member| member.read(buffer))?;
            if count > 0 {
                return Ok(count);
            }
            self.at_end = !self.next()?;
        }
        Ok(0)
    }
}
