//! Containers of raw records: compression around a stream, archives around files.
//!
//! One file a codec or archive. Promises: what comes before a damage is delivered and the damage is one fault; nothing
//! unpacks without bound. Deliberately absent: repairing, and what a format inside means.

use std::cell::Cell;
use std::io::{self, BufReader, Read};

use super::fault::{self, damage};
use super::open::{Flow, Item, Origin, Walk};
use crate::clean::Rejection;

mod bzip2;
mod gzip;
pub(super) mod members;
pub(super) mod spool;
mod tar;
mod xz;
mod zip;
mod zstd;

/// Packed bytes read at a time.
const PACKED_BYTES: usize = 64 << 10;
/// So much may come out of anything, however small.
const FREE_BYTES: u64 = 16 << 20;

/// A container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Codec(Codec),
    Archive(Archive),
}

/// Compression of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

/// Files in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Archive {
    Tar,
    Zip,
}

impl Codec {
    /// By the last extension, lower case.
    pub(super) fn of_name(extension: &str) -> Option<Self> {
        match extension {
            "gz" | "gzip" | "tgz" => Some(Self::Gzip),
            "zst" | "zstd" | "tzst" => Some(Self::Zstd),
            "bz2" | "tbz2" | "tbz" => Some(Self::Bzip2),
            "xz" | "txz" | "lzma" => Some(Self::Xz),
            _ => None,
        }
    }

    /// By the first bytes.
    pub(super) fn of_bytes(head: &[u8]) -> Option<Self> {
        match head {
            [0x1F, 0x8B, 8, ..] => Some(Self::Gzip),
            // A frame, or one that readers skip.
            [0x28, 0xB5, 0x2F, 0xFD, ..] | [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => Some(Self::Zstd),
            // A text may start like the first four bytes; the next six are those of a block, or of the end.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Some(Self::Bzip2),
            [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            _ => None,
        }
    }

    /// Whether so few bytes are the start of this codec and no more of it.
    pub(super) fn is_cut_off(self, head: &[u8]) -> bool {
        let magic: &[u8] = match self {
            Self::Gzip => &[0x1F, 0x8B, 8],
            Self::Zstd => &[0x28, 0xB5, 0x2F, 0xFD],
            Self::Bzip2 => b"BZh",
            Self::Xz => &[0xFD, b'7', b'z', b'X', b'Z', 0],
        };
        head.len() < 10 && (head.starts_with(magic) || magic.starts_with(head))
    }

    /// What `name` is without this codec; `stem` is the name without its extension.
    pub(super) fn inner_name<'a>(self, name: &'a str, stem: &'a str) -> &'a str {
        let extension = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        match Self::of_name(&extension) {
            Some(_) if extension.starts_with('t') => ".tar",
            Some(_) => stem,
            None => name,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
        }
    }
}

impl Archive {
    /// By the first bytes.
    pub(super) fn of_bytes(head: &[u8]) -> Option<Self> {
        match head {
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Self::Zip),
            head if head.get(257..262) == Some(b"ustar") => Some(Self::Tar),
            _ => None,
        }
    }
}

/// Opens what is in a container.
pub(super) fn open(walk: &mut Walk<'_, '_>, container: Container, item: Item<'_>, input: &mut dyn Read) -> Flow {
    match container {
        Container::Codec(codec) => unpack(walk, codec, item, input),
        Container::Archive(Archive::Tar) => tar::read(walk, item, input),
        Container::Archive(Archive::Zip) => zip::read(walk, item, input),
    }
}

fn unpack(walk: &mut Walk<'_, '_>, codec: Codec, item: Item<'_>, input: &mut dyn Read) -> Flow {
    let packed = Cell::new(0);
    let counted = BufReader::with_capacity(PACKED_BYTES, Counted { input, bytes: &packed });
    let decoder: io::Result<Box<dyn Read + '_>> = match codec {
        Codec::Gzip => Ok(Box::new(gzip::Decoder::new(counted))),
        Codec::Zstd => zstd::decoder(counted).map(|decoder| Box::new(decoder) as Box<dyn Read>),
        Codec::Bzip2 => Ok(Box::new(bzip2::decoder(counted))),
        Codec::Xz => xz::decoder(counted).map(|decoder| Box::new(decoder) as Box<dyn Read>),
    };
    let decoder = match decoder {
        Ok(decoder) => decoder,
        Err(error) => return walk.abort(error),
    };
    let bound = Bound { packed: &packed, unpacked: 0, origin: walk.origin, max_ratio: walk.reading.formats.max_ratio };
    let mut unpacked = Unpacked { decoder, name: codec.name(), bound, broken: None };
    let stem = item.name.rsplit_once('.').map_or(item.name, |(stem, _)| stem);
    let name = codec.inner_name(item.name, stem);
    walk.open(Item { name, depth: item.depth + 1, ..item }, &mut unpacked)
}

/// Counts the bytes that pass.
struct Counted<'a, 'c> {
    input: &'a mut dyn Read,
    bytes: &'c Cell<u64>,
}

impl Read for Counted<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.bytes.set(self.bytes.get() + count as u64);
        Ok(count)
    }
}

/// How much may come out of a container.
struct Bound<'a> {
    packed: &'a Cell<u64>,
    unpacked: u64,
    origin: &'a Origin,
    max_ratio: u64,
}

impl Bound<'_> {
    /// Counts `count` unpacked bytes more in, or says why they are too many. They count against the object's own bytes as
    /// well: containers within each other multiply their ratios, and those of an archive may share their packed bytes.
    fn take(&mut self, count: u64) -> Option<Rejection> {
        self.unpacked += count;
        if is_bomb(self.unpacked, self.packed.get(), self.max_ratio) {
            return Some(bomb(self.unpacked, self.packed.get(), self.max_ratio));
        }
        charge(self.origin, count, self.max_ratio)
    }
}

/// Counts unpacked bytes against those of the object, or says why they are too many; then nothing more comes out of it.
pub(super) fn charge(origin: &Origin, count: u64, max_ratio: u64) -> Option<Rejection> {
    let (unpacked, packed) = origin.unpack(count);
    is_bomb(unpacked, packed, max_ratio).then(|| {
        origin.exhaust();
        bomb(unpacked, packed, max_ratio)
    })
}

/// Whether so much from so little is no honest compression.
pub(super) fn is_bomb(unpacked: u64, packed: u64, max_ratio: u64) -> bool {
    unpacked > FREE_BYTES.max(packed.saturating_mul(max_ratio))
}

/// The fault of so much from so little.
pub(super) fn bomb(unpacked: u64, packed: u64, max_ratio: u64) -> Rejection {
    Rejection::new(fault::BOMB, format!("{unpacked} bytes and more from {packed}, expected at most {max_ratio} for each"))
}

/// What a codec or a member of a zip file unpacks to. After its first error it has only that one.
struct Unpacked<'a, D> {
    decoder: D,
    name: &'a str,
    bound: Bound<'a>,
    broken: Option<Rejection>,
}

impl<D: Read> Read for Unpacked<'_, D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.broken.is_none() {
            match self.decoder.read(buffer) {
                Ok(count) => match self.bound.take(count as u64) {
                    None => return Ok(count),
                    broken => self.broken = broken,
                },
                Err(error) => self.broken = Some(fault::found_by(self.name, self.bound.unpacked, &error)),
            }
        }
        let broken = self.broken.clone().unwrap_or_else(|| Rejection::new(fault::CORRUPT_ARCHIVE, self.name));
        Err(damage(broken.reason, broken.detail))
    }
}

#[cfg(test)]
mod tests;
