//! JSON values that no line ends: the elements of an array, or objects one behind the other.
//!
//! A value is cut by its brackets and strings alone, then parsed by itself, so an array of any length takes the memory of
//! one element. Promises: a value that is no JSON ends the file with one fault, for nothing tells where the next one
//! starts; a value that is too large or has no text is a fault of its own. The place is its number, from 1.

use std::ops::ControlFlow;

use super::json::Records;
use super::window::Window;
use crate::clean::Rejection;
use crate::source::fault;
use crate::source::open::{End, Flow, Item, Walk};

/// Reads the elements of an array whose bracket has been read.
pub(super) fn array(walk: &mut Walk<'_, '_>, item: Item<'_>, window: &mut Window<'_>) -> Flow {
    let mut values = Values::new(walk, item, window, true);
    let mut first = true;
    loop {
        values.number += 1;
        match values.window.skip_space() {
            Ok(Some(b']')) if first => break,
            Ok(Some(_)) => {}
            Ok(None) => return values.corrupt(walk, 0, "the array has no end"),
            Err(error) => return values.broken(walk, 0, &error),
        }
        first = false;
        let Some(ending) = values.next(walk)? else { return ControlFlow::Continue(End::Damaged) };
        match ending {
            b',' => values.window.consume(1),
            b']' => {
                values.number += 1;
                break;
            }
            _ => {
                values.number += 1;
                return values.corrupt(walk, 0, "an element is closed twice");
            }
        }
    }
    values.window.consume(1);
    match values.window.skip_space() {
        Ok(None) => ControlFlow::Continue(End::Complete),
        Ok(Some(_)) => values.corrupt(walk, 0, "more behind the end of the array"),
        Err(error) => values.broken(walk, 0, &error),
    }
}

/// Reads objects one behind the other, each on lines of its own.
pub(super) fn sequence(walk: &mut Walk<'_, '_>, item: Item<'_>, window: &mut Window<'_>) -> Flow {
    let mut values = Values::new(walk, item, window, false);
    loop {
        values.number += 1;
        match values.window.skip_space() {
            Ok(Some(b'{' | b'[')) => {}
            Ok(Some(_)) => return values.corrupt(walk, 0, "neither an object nor a list"),
            Ok(None) => return ControlFlow::Continue(End::Complete),
            Err(error) => return values.broken(walk, 0, &error),
        }
        if values.next(walk)?.is_none() {
            return ControlFlow::Continue(End::Damaged);
        }
        if let Some(broken) = values.end_of_line(walk) {
            return broken;
        }
    }
}

struct Values<'w, 'i> {
    records: Records,
    window: &'w mut Window<'i>,
    scanner: Scanner,
    place: String,
    number: u64,
    max_record: usize,
}

impl<'w, 'i> Values<'w, 'i> {
    fn new(walk: &Walk<'_, '_>, item: Item<'_>, window: &'w mut Window<'i>, in_array: bool) -> Self {
        let records = Records::new(walk.reading.formats);
        let scanner = Scanner { in_array, depth: 0, in_string: false, escaped: false };
        Self { records, window, scanner, place: item.place.to_owned(), number: 0, max_record: walk.max_record() }
    }

    /// Hands out the value at the start of the window and moves to what ends it, which is the answer; none if it was damaged.
    fn next(&mut self, walk: &mut Walk<'_, '_>) -> ControlFlow<(), Option<u8>> {
        let (mut scanned, mut dropped) = (0, 0_u64);
        let length = loop {
            if let Some(at) = self.scanner.scan(&self.window.bytes()[scanned..]) {
                break scanned + at;
            }
            scanned = self.window.bytes().len();
            if scanned > self.max_record {
                dropped += scanned as u64;
                self.window.consume(scanned);
                scanned = 0;
            }
            let more = self.window.more();
            if matches!(more, Ok(true)) {
                continue;
            }
            let mut left = dropped + scanned as u64;
            if dropped == 0 && self.scanner.is_closed(self.window.bytes()) {
                let value = self.window.bytes().trim_ascii_end();
                self.records.emit(walk, self.place(), value)?;
                self.number += 1;
                left = 0;
            }
            let end = match more {
                Ok(_) => self.corrupt(walk, left, "the file ends within a value or array"),
                Err(error) => self.broken(walk, left, &error),
            };
            return end.map_continue(|_| None);
        };
        let place = self.place();
        let value = self.window.bytes()[..length].trim_ascii_end();
        let bytes = dropped + value.len() as u64;
        if bytes > self.max_record as u64 {
            let detail = format!("a value of {bytes} bytes, expected at most {}", self.max_record);
            walk.fault(place, bytes, Rejection::new(fault::TOO_LARGE, detail))?;
        } else if !self.records.emit(walk, place, value)? {
            return ControlFlow::Continue(None);
        }
        self.window.consume(length);
        ControlFlow::Continue(Some(self.window.bytes().first().copied().unwrap_or(b'\n')))
    }

    /// Moves to the next line; something if there is more on this one.
    fn end_of_line(&mut self, walk: &mut Walk<'_, '_>) -> Option<Flow> {
        loop {
            let bytes = self.window.bytes();
            match bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r')) {
                Some(at) if bytes[at] == b'\n' => {
                    self.window.consume(at + 1);
                    return None;
                }
                Some(_) => {
                    self.number += 1;
                    return Some(self.corrupt(walk, 0, "more behind the end of a value, expected a line end"));
                }
                None => self.window.consume(usize::MAX),
            }
            match self.window.more() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.number += 1;
                    return Some(self.broken(walk, 0, &error));
                }
            }
        }
    }

    fn place(&self) -> String {
        format!("{}#{}", self.place, self.number)
    }

    fn corrupt(&self, walk: &mut Walk<'_, '_>, bytes: u64, detail: &str) -> Flow {
        walk.damaged(self.place(), bytes, Rejection::new(fault::CORRUPT_RECORD, format!("not JSON: {detail}")))
    }

    fn broken(&self, walk: &mut Walk<'_, '_>, bytes: u64, error: &std::io::Error) -> Flow {
        walk.damaged(self.place(), bytes, fault::rejection(error))
    }
}

/// Finds the end of a value, whatever pieces it comes in.
#[derive(Debug)]
struct Scanner {
    /// Whether values end at a comma or bracket of the array around them; else at their own last bracket.
    in_array: bool,
    depth: u64,
    in_string: bool,
    escaped: bool,
}

impl Scanner {
    /// Whether the value scanned so far is whole by its own last bracket or quote.
    fn is_closed(&self, value: &[u8]) -> bool {
        self.depth == 0 && !self.in_string && matches!(value.trim_ascii_end().last(), Some(b'}' | b']' | b'"'))
    }

    /// Where in `bytes` the value ends; none if it goes on.
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            if self.escaped {
                self.escaped = false;
            } else if self.in_string {
                at += memchr::memchr2(b'"', b'\\', &bytes[at..])?;
                (self.escaped, self.in_string) = (bytes[at] == b'\\', bytes[at] == b'\\');
            } else {
                match bytes[at] {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b',' | b'}' | b']' if self.in_array && self.depth == 0 => return Some(at),
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 && !self.in_array {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
            }
            at += 1;
        }
        None
    }
}
