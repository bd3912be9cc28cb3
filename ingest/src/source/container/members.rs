//! Members of archives: their places, their number, and which of them are files to read.
//!
//! Deliberately absent: how an archive stores them.

use std::collections::HashSet;
use std::ops::ControlFlow;

use twox_hash::XxHash3_64;

use crate::clean::Rejection;
use crate::source::fault;
use crate::source::open::Walk;

/// Places given so far, as hashes: some bytes a member. Two that collide by chance only cost one of them a number.
#[derive(Debug, Default)]
pub(in crate::source) struct Names(HashSet<u64>);

impl Names {
    /// The place of a member in `container`: one that no earlier member has, for an archive may name two alike.
    pub(in crate::source) fn place(&mut self, container: &str, name: &str) -> String {
        // `#` joins the parts of a place.
        let place = format!("{container}#{}", name.replace('#', "%23"));
        let mut candidate = place.clone();
        let mut copy = 1;
        while !self.0.insert(XxHash3_64::oneshot(candidate.as_bytes())) {
            copy += 1;
            candidate = format!("{place}~{copy}");
        }
        candidate
    }
}

/// Counts a member in; one too many is a fault for the rest of the archive, of which the answer is true.
pub(super) fn is_one_too_many(walk: &mut Walk<'_, '_>, container: &str) -> ControlFlow<(), bool> {
    walk.members += 1;
    let most = walk.reading.formats.max_members;
    if walk.members <= most {
        return ControlFlow::Continue(false);
    }
    let place = walk.names.place(container, &format!("@{}", walk.members));
    walk.fault(place, 0, Rejection::new(fault::TOO_MANY_MEMBERS, format!("more than {most} members")))?;
    ControlFlow::Continue(true)
}

/// Whether a member is an operating system's own note rather than somebody's data.
pub(super) fn is_litter(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    name.starts_with("__MACOSX/") || file.starts_with("._") || matches!(file, ".DS_Store" | "Thumbs.db" | "desktop.ini")
}
