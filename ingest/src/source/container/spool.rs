//! A stream as a file to seek in: in memory while it is small, in a temporary file without a name beyond that.
//!
//! Deliberately absent: keeping it; it is gone when dropped, and when the process is killed.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::clean::Rejection;
use crate::source::fault::{self, damage};

/// Held in memory up to this.
const MEMORY_BYTES: usize = 16 << 20;
const CHUNK_BYTES: usize = 256 << 10;

/// A spooled stream; clones have a position each.
#[derive(Clone, Debug)]
pub(in crate::source) struct Spool {
    store: Store,
    length: u64,
    position: u64,
    /// Why there is no more: found again at the end.
    damage: Option<Rejection>,
}

#[derive(Clone, Debug)]
enum Store {
    Memory(Bytes),
    File(Arc<Mutex<File>>),
}

impl Spool {
    /// All of `input`, at most `max_bytes`, or what comes before a damage; an error is one of the machine.
    pub(in crate::source) fn read(input: &mut dyn Read, max_bytes: u64) -> io::Result<Self> {
        let mut memory = Vec::new();
        let mut file: Option<File> = None;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut length = 0;
        let damage = loop {
            let count = match input.read(&mut chunk) {
                Ok(0) => break None,
                Ok(count) => count,
                Err(error) => break Some(fault::rejection(&error)),
            };
            if length + count as u64 > max_bytes {
                break Some(Rejection::new(fault::TOO_LARGE, format!("more than {max_bytes} bytes, the most that is spooled")));
            }
            length += count as u64;
            keep(&chunk[..count], &mut memory, &mut file)?;
        };
        let store = file.map_or_else(|| Store::Memory(Bytes::from(memory)), |file| Store::File(Arc::new(Mutex::new(file))));
        Ok(Self { store, length, position: 0, damage })
    }

    /// Why it is not whole.
    pub(in crate::source) fn damage(&self) -> Option<&Rejection> {
        self.damage.as_ref()
    }

    pub(in crate::source) fn len(&self) -> u64 {
        self.length
    }

    /// The same from `position` on.
    pub(in crate::source) fn at(&self, position: u64) -> Self {
        Self { position, ..self.clone() }
    }

    /// A range of it, which must lie within.
    pub(in crate::source) fn range(&self, start: u64, length: usize) -> io::Result<Bytes> {
        let outside = || io::Error::new(io::ErrorKind::UnexpectedEof, format!("bytes {start} and {length} on, of {}", self.length));
        let end = start.checked_add(length as u64).filter(|end| *end <= self.length).ok_or_else(outside)?;
        match &self.store {
            Store::Memory(bytes) => Ok(bytes.slice(start as usize..end as usize)),
            Store::File(_) => {
                let mut bytes = vec![0; length];
                self.at(start).read_exact(&mut bytes)?;
                Ok(bytes.into())
            }
        }
    }
}

fn keep(chunk: &[u8], memory: &mut Vec<u8>, file: &mut Option<File>) -> io::Result<()> {
    if file.is_none() && memory.len() + chunk.len() > MEMORY_BYTES {
        let mut opened = tempfile::tempfile()?;
        opened.write_all(memory)?;
        *memory = Vec::new();
        *file = Some(opened);
    }
    match file {
        Some(file) => file.write_all(chunk),
        None => {
            memory.extend_from_slice(chunk);
            Ok(())
        }
    }
}

impl Read for Spool {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &self.store {
            Store::Memory(bytes) => {
                let mut cursor = Cursor::new(bytes);
                cursor.set_position(self.position);
                cursor.read(buffer)?
            }
            Store::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(self.position))?;
                file.read(buffer)?
            }
        };
        self.position += count as u64;
        match &self.damage {
            Some(found) if count == 0 && !buffer.is_empty() => Err(damage(found.reason.clone(), found.detail.as_str())),
            _ => Ok(count),
        }
    }
}

impl Seek for Spool {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
        };
        self.position = target.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek before the start"))?;
        Ok(self.position)
    }
}
