//! A stream as a window of bytes that grows up to one record: what the readers of records cut from.
//!
//! Promises: the same bytes whatever the sizes of the reads. Deliberately absent: what a record is.

use std::io::{self, Read};

/// Bytes read at a time. Fits the second level of cache.
const CHUNK_BYTES: usize = 256 << 10;

/// Bytes read and not yet used.
pub(super) struct Window<'a> {
    input: &'a mut dyn Read,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<'a> Window<'a> {
    pub(super) fn new(input: &'a mut dyn Read) -> Self {
        Self { input, buffer: Vec::new(), start: 0, end: 0 }
    }

    /// The bytes in the window.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Drops the first `count` bytes of the window.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
    }

    /// Reads more behind the window, which stays where it is; false at the end of the stream.
    pub(super) fn more(&mut self) -> io::Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end == self.buffer.len() {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                self.buffer.resize(CHUNK_BYTES.max(self.buffer.len() * 2), 0);
            }
        }
        let count = self.input.read(&mut self.buffer[self.end..])?;
        self.end += count;
        Ok(count > 0)
    }

    /// Reads until the window has `count` bytes or the stream ends.
    pub(super) fn at_least(&mut self, count: usize) -> io::Result<()> {
        while self.bytes().len() < count && self.more()? {}
        Ok(())
    }

    /// Drops a byte order mark of UTF-8.
    pub(super) fn skip_mark(&mut self) -> io::Result<()> {
        self.at_least(3)?;
        if self.bytes().starts_with(b"\xEF\xBB\xBF") {
            self.consume(3);
        }
        Ok(())
    }

    /// Drops blanks and line ends; the byte behind them, none at the end of the stream.
    pub(super) fn skip_space(&mut self) -> io::Result<Option<u8>> {
        loop {
            let bytes = self.bytes();
            if let Some(at) = bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
                let byte = bytes[at];
                self.consume(at);
                return Ok(Some(byte));
            }
            self.consume(usize::MAX);
            if !self.more()? {
                return Ok(None);
            }
        }
    }
}
