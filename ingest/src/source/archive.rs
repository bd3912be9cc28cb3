//! The members of a tar archive, found by its headers alone.
//!
//! Bodies are skipped, not read into memory; whatever the archive's size a window of some MiB is held. A member that
//! reaches past the end and a header that makes no sense become records with a fault.

use std::collections::HashSet;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use globset::GlobSet;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;

use super::{Object, Record};
use crate::clean::Rejection;
use crate::error::{Error, Result};

/// Bytes read at a time.
const WINDOW_BYTES: u64 = 4 << 20;

/// The records of archive number `index`: its regular members that match `wanted`.
pub(super) async fn members(store: Arc<dyn ObjectStore>, object: Object, index: usize, wanted: GlobSet) -> Result<Vec<Record>> {
    let handle = Handle::current();
    let scan = move || {
        let window = Window { store, object: object.clone(), handle, position: 0, start: 0, bytes: Bytes::new() };
        scan(window, &object, index, &wanted)
    };
    tokio::task::spawn_blocking(scan).await.map_err(|error| Error::internal("reading an archive stopped", error))
}

fn scan(window: impl Read + Seek, object: &Object, index: usize, wanted: &GlobSet) -> Vec<Record> {
    let mut records = Vec::new();
    let mut names = HashSet::new();
    let mut archive = tar::Archive::new(window);
    let fault = |position: u64, error: std::io::Error| Record {
        key: format!("{}#@{position}", object.key),
        object: index,
        range: position..position,
        fault: Some(Rejection::new("corrupt_archive", error.to_string())),
    };
    let entries = match archive.entries_with_seek() {
        Ok(entries) => entries,
        Err(error) => return vec![fault(0, error)],
    };
    let mut position = 0;
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            // Without a header there is no way to the next one: what follows is one record, counted and named.
            Err(error) => {
                records.push(fault(position, error));
                break;
            }
        };
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let range = entry.raw_file_position()..entry.raw_file_position() + entry.size();
        position = range.end;
        if entry.header().entry_type().is_dir() || !wanted.is_match(&name) {
            continue;
        }
        let (range, fault) = if !entry.header().entry_type().is_file() {
            (range.start..range.start, Some(Rejection::new("not_a_file", format!("{:?}", entry.header().entry_type()))))
        } else if range.end > object.size {
            let detail = format!("ends at byte {} of {}", range.end, object.size);
            (range.start..object.size.max(range.start), Some(Rejection::new("corrupt_archive", detail)))
        } else {
            (range, None)
        };
        records.push(Record { key: unique(&mut names, format!("{}#{name}", object.key)), object: index, range, fault });
    }
    records
}

/// A key that no earlier member has; an archive may name two members alike.
fn unique(names: &mut HashSet<String>, key: String) -> String {
    let mut candidate = key.clone();
    let mut copy = 1;
    while !names.insert(candidate.clone()) {
        copy += 1;
        candidate = format!("{key}~{copy}");
    }
    candidate
}

/// An object as a file to read and seek in, on a thread that may block.
struct Window {
    store: Arc<dyn ObjectStore>,
    object: Object,
    handle: Handle,
    position: u64,
    start: u64,
    bytes: Bytes,
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.position >= self.object.size || buffer.is_empty() {
            return Ok(0);
        }
        if self.position < self.start || self.position >= self.start + self.bytes.len() as u64 {
            let range = self.position..self.object.size.min(self.position + WINDOW_BYTES);
            self.bytes = self.handle.block_on(self.store.get_range(&self.object.path, range)).map_err(std::io::Error::other)?;
            self.start = self.position;
        }
        let held = &self.bytes[(self.position - self.start) as usize..];
        let count = held.len().min(buffer.len());
        buffer[..count].copy_from_slice(&held[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let target = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.object.size.checked_add_signed(offset),
        };
        self.position = target.ok_or_else(|| std::io::Error::other("seek before the start"))?;
        Ok(self.position)
    }
}
