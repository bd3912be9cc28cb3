//! A stream with a memory: the bytes just read can be read again.
//!
//! Looking for the next record after damage means going back to where the damage began. The window holds the last few
//! MiB and so bounds memory, and it bounds work: the sum of all steps back stays below a multiple of the bytes read.
//! Deliberately absent: seeking; the stream may come from a network.

use std::io::{BufRead, ErrorKind, Read, Result};

/// Bytes that can be read again at the least, once they have been read.
const HELD_BYTES: usize = 4 << 20;
const READ_BYTES: usize = 64 << 10;
/// Bytes that may be read again for each byte read, in the mean.
const REREADS: u64 = 4;

/// See the module's head.
pub(super) struct Window<R> {
    input: R,
    held: Vec<u8>,
    /// Next byte in `held`.
    at: usize,
    /// Offset of `held` in the stream.
    base: u64,
    reread: u64,
    /// Whether an error came from `input` itself.
    failed: bool,
}

impl<R: Read> Window<R> {
    /// `held` is only a buffer to use; its content is lost.
    pub(super) fn new(input: R, mut held: Vec<u8>) -> Self {
        held.clear();
        Self { input, held, at: 0, base: 0, reread: 0, failed: false }
    }

    /// The buffer, for the next window.
    pub(super) fn into_held(self) -> Vec<u8> {
        self.held
    }

    /// Offset of the next byte in the stream.
    pub(super) fn position(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Whether the input itself has failed; an error of a reader above means damage otherwise.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    /// Goes back to `position`, or as near to it as bytes are held; not at all when too much has been read again.
    pub(super) fn rewind(&mut self, position: u64) {
        let position = position.max(self.base);
        let cost = self.position().saturating_sub(position);
        let end = self.base + self.held.len() as u64;
        if self.reread + cost <= REREADS * end + 2 * HELD_BYTES as u64 {
            self.reread += cost;
            self.at -= cost as usize;
        }
    }

    /// The next bytes: at least `count`, unless the stream ends before.
    pub(super) fn peek(&mut self, count: usize) -> Result<&[u8]> {
        while self.held.len() - self.at < count && self.fill()? {}
        Ok(&self.held[self.at..])
    }

    /// Whether nothing follows.
    pub(super) fn at_end(&mut self) -> Result<bool> {
        Ok(self.peek(1)?.is_empty())
    }

    /// Skips `count` bytes; fewer if the stream ends before. Returns how many.
    pub(super) fn skip(&mut self, count: u64) -> Result<u64> {
        let mut left = count;
        while left > 0 {
            let step = (self.fill_buf()?.len() as u64).min(left);
            if step == 0 {
                break;
            }
            self.consume(step as usize);
            left -= step;
        }
        Ok(count - left)
    }

    /// Skips bytes as long as `like` holds.
    pub(super) fn skip_while(&mut self, like: fn(u8) -> bool) -> Result<()> {
        loop {
            let held = self.fill_buf()?;
            let count = held.iter().take_while(|byte| like(**byte)).count();
            let more = count > 0 && count == held.len();
            self.consume(count);
            if !more {
                return Ok(());
            }
        }
    }

    /// Takes a line without its end into `line`. False, with nothing taken, at the end or where a line is longer than `limit`.
    pub(super) fn line(&mut self, limit: usize, line: &mut Vec<u8>) -> Result<bool> {
        line.clear();
        let mut looked = 0;
        loop {
            let held = &self.held[self.at..];
            if let Some(end) = memchr::memchr(b'\n', &held[looked..held.len().min(limit)]).map(|end| looked + end) {
                line.extend_from_slice(held[..end].strip_suffix(b"\r").unwrap_or(&held[..end]));
                self.at += end + 1;
                return Ok(true);
            }
            looked = held.len();
            if looked >= limit {
                return Ok(false);
            }
            if !self.fill()? {
                // The last line may lack its end.
                line.extend_from_slice(&self.held[self.at..]);
                self.at = self.held.len();
                return Ok(!line.is_empty());
            }
        }
    }

    /// Skips to the start of the next line; false at the end.
    pub(super) fn next_line(&mut self) -> Result<bool> {
        loop {
            let held = self.fill_buf()?;
            if held.is_empty() {
                return Ok(false);
            }
            match memchr::memchr(b'\n', held) {
                Some(end) => {
                    self.consume(end + 1);
                    return Ok(true);
                }
                None => {
                    let all = held.len();
                    self.consume(all);
                }
            }
        }
    }

    /// Reads on behind what is held; false at the end.
    fn fill(&mut self) -> Result<bool> {
        // Twice the promise, so that moving the rest to the front is rare. Unread bytes are always kept.
        if self.held.len() >= 2 * HELD_BYTES {
            let gone = (self.held.len() - HELD_BYTES).min(self.at);
            self.held.drain(..gone);
            self.at -= gone;
            self.base += gone as u64;
        }
        let end = self.held.len();
        self.held.resize(end + READ_BYTES, 0);
        let count = loop {
            match self.input.read(&mut self.held[end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.held.truncate(end + *count.as_ref().unwrap_or(&0));
        self.failed |= count.is_err();
        Ok(count? > 0)
    }
}

impl<R: Read> Read for Window<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = self.fill_buf()?.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.held[self.at..self.at + count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Window<R> {
    fn fill_buf(&mut self) -> Result<&[u8]> {
        self.peek(1)
    }

    fn consume(&mut self, count: usize) {
        self.at = (self.at + count).min(self.held.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_can_be_read_again() {
        let bytes: Vec<u8> = (0..=255).cycle().take(3 * READ_BYTES).collect();
        let mut window = Window::new(&bytes[..], Vec::new());
        assert_eq!(window.skip(100_000).ok(), Some(100_000));
        window.rewind(10);
        assert_eq!((window.position(), window.peek(1).ok().map(|held| held[0])), (10, Some(10)));
        assert_eq!(window.skip(u64::MAX).ok(), Some(bytes.len() as u64 - 10));
        assert!(window.at_end().expect("no error"));
    }

    #[test]
    fn memory_and_work_are_bounded() {
        let mut window = Window::new(std::io::repeat(7).take(40 << 20), Vec::new());
        let mut reread = 0;
        while !window.at_end().expect("no error") {
            let before = window.position();
            window.rewind(0);
            reread += before - window.position();
            window.skip(before + READ_BYTES as u64 - window.position()).expect("no error");
            assert!(window.held.len() <= 2 * HELD_BYTES + READ_BYTES);
        }
        assert!(reread <= REREADS * (40 << 20) + 2 * HELD_BYTES as u64, "{reread}");
        assert!(reread > 40 << 20, "{reread}");
    }

    #[test]
    fn lines_end_as_they_like_and_are_not_longer_than_asked() {
        let mut window = Window::new(&b"ab\r\n\ncdefgh\nlast"[..], Vec::new());
        let mut line = Vec::new();
        let mut lines = Vec::new();
        while window.line(6, &mut line).expect("no error") {
            lines.push(String::from_utf8_lossy(&line).into_owned());
        }
        assert_eq!(lines, ["ab", ""]);
        assert!(window.next_line().expect("no error"));
        assert!(window.line(6, &mut line).expect("no error"));
        assert_eq!(line, b"last");
        assert!(!window.line(6, &mut line).expect("no error"));
    }
}
