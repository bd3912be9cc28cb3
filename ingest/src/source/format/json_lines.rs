//! JSON Lines: a JSON value a line, blank lines ignored.
//!
//! Promises: a bad or overlong line is a fault of its own, and the next line is read. The place of a record is the number
//! of its line, from 1. The hot path: lines are cut and parsed where they were read to.

use std::ops::ControlFlow;

use super::json::Records;
use super::window::Window;
use crate::clean::Rejection;
use crate::source::fault;
use crate::source::open::{End, Flow, Item, Walk};

/// Reads the lines of `window`.
pub(super) fn read(walk: &mut Walk<'_, '_>, item: Item<'_>, window: &mut Window<'_>) -> Flow {
    let records = Records::new(walk.reading.formats);
    let max_record = walk.max_record();
    let mut number = 0_u64;
    // A failure here comes again with the first line.
    let mut error = window.skip_mark().err();
    loop {
        number += 1;
        let place = || format!("{}#{number}", item.place);
        let (mut searched, mut dropped) = (0, 0_u64);
        let (length, ended) = loop {
            if let Some(at) = memchr::memchr(b'\n', &window.bytes()[searched..]) {
                break (searched + at, false);
            }
            searched = window.bytes().len();
            if searched > max_record {
                dropped += searched as u64;
                window.consume(searched);
                searched = 0;
            }
            match error.take().map_or_else(|| window.more(), Err) {
                Ok(true) => {}
                Ok(false) => break (searched, true),
                Err(error) => return walk.damaged(place(), dropped + searched as u64, fault::rejection(&error)),
            }
        };
        if ended && length == 0 && dropped == 0 {
            return ControlFlow::Continue(End::Complete);
        }
        let line = window.bytes()[..length].trim_ascii();
        if dropped > 0 || line.len() > max_record {
            let bytes = dropped + length as u64;
            walk.fault(
                place(),
                bytes,
                Rejection::new(fault::TOO_LARGE, format!("a line of {bytes} bytes, expected at most {max_record}")),
            )?;
        } else if !line.is_empty() {
            records.emit(walk, place(), line)?;
        }
        window.consume(length + 1);
    }
}
