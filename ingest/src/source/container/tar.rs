//! Tar archives as a stream: ustar, GNU and pax names and sizes, one archive behind another.
//!
//! Promises: a header that makes no sense, or an end without the blocks that mark it, is one fault. Names are bounded,
//! bodies are streamed. Deliberately absent: sparse files, and finding the next header behind a damaged one, for a body
//! may hold headers too.

use std::io::{self, Read};
use std::ops::ControlFlow;

use ::tar::{EntryType, GnuExtSparseHeader, GnuHeader, Header, PaxExtensions};

use super::members::{is_litter, is_one_too_many};
use crate::clean::Rejection;
use crate::source::fault::{self, damage};
use crate::source::format::web_dataset::Samples;
use crate::source::open::{End, Flow, Item, Walk};

const BLOCK_BYTES: u64 = 512;
/// A longer name or pax header is damage.
const MAX_NAME_BYTES: u64 = 1 << 20;

/// Opens the members of the archive `item`.
pub(super) fn read(walk: &mut Walk<'_, '_>, item: Item<'_>, input: &mut dyn Read) -> Flow {
    let mut archive = Archive { input, position: 0 };
    let mut samples = Samples::new(walk.reading.modality, item);
    let end = members(walk, item, &mut archive, &mut samples)?;
    samples.finish(walk)?;
    let (position, error) = match end {
        Ok(end) => return ControlFlow::Continue(end),
        Err(broken) => broken,
    };
    let place = walk.names.place(item.place, &format!("@{position}"));
    walk.damaged(place, 0, fault::rejection(&error))
}

/// A damage that nobody has reported yet, and the start of the header it belongs to.
type Unreported = (u64, io::Error);

fn members(
    walk: &mut Walk<'_, '_>,
    item: Item<'_>,
    archive: &mut Archive<'_>,
    samples: &mut Samples<'_>,
) -> ControlFlow<(), Result<End, Unreported>> {
    loop {
        let start = archive.position;
        let member = match archive.next() {
            Ok(Some(member)) => member,
            Ok(None) => return ControlFlow::Continue(Ok(End::Complete)),
            Err(error) => return ControlFlow::Continue(Err((start, error))),
        };
        let body = archive.position;
        let end = body.saturating_add(member.size);
        if !member.kind.is_dir() && !member.name.ends_with('/') && !is_litter(&member.name) {
            if is_one_too_many(walk, item.place)? {
                return ControlFlow::Continue(Ok(End::Damaged));
            }
            let mut reader = Body { archive, end, name: &member.name, failed: false };
            open(walk, item, &member, samples, &mut reader)?;
            // Whoever met the damage has made a fault of it.
            if reader.failed {
                return ControlFlow::Continue(Ok(End::Damaged));
            }
        }
        if let Err(error) = archive.skip_to(end.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)) {
            return ControlFlow::Continue(Err((start, error)));
        }
    }
}

fn open(walk: &mut Walk<'_, '_>, item: Item<'_>, member: &Member, samples: &mut Samples<'_>, body: &mut Body<'_, '_>) -> ControlFlow<()> {
    let unread = match member.kind {
        _ if member.sparse => Some(Rejection::new(fault::UNSUPPORTED_FORMAT, "a sparse file")),
        EntryType::Regular | EntryType::Continuous => None,
        kind => Some(Rejection::new(fault::NOT_A_FILE, format!("{kind:?}"))),
    };
    match unread {
        Some(fault) => {
            let place = walk.names.place(item.place, &member.name);
            walk.fault(place, member.size, fault)
        }
        None => samples.member(walk, &member.name, body),
    }
}

/// A member by its headers.
struct Member {
    name: String,
    kind: EntryType,
    size: u64,
    sparse: bool,
}

/// The stream, and how far it was read.
struct Archive<'a> {
    input: &'a mut dyn Read,
    position: u64,
}

impl Archive<'_> {
    /// The next member, extension headers applied; none at the end.
    fn next(&mut self) -> io::Result<Option<Member>> {
        let (mut name, mut size, mut sparse) = (None, None, false);
        loop {
            let Some(header) = self.header(name.is_some() || size.is_some())? else { return Ok(None) };
            let length = header.entry_size().map_err(|error| corrupt(format!("header with a bad size: {error}")))?;
            match header.entry_type() {
                EntryType::GNULongName => {
                    let mut bytes = self.extension(length)?;
                    bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
                    name = Some(bytes);
                }
                EntryType::GNULongLink | EntryType::XGlobalHeader => drop(self.extension(length)?),
                EntryType::XHeader => {
                    let bytes = self.extension(length)?;
                    for record in PaxExtensions::new(&bytes) {
                        let record = record.map_err(|error| corrupt(error.to_string()))?;
                        match record.key_bytes() {
                            b"path" => name = Some(record.value_bytes().to_vec()),
                            b"size" => size = Some(record.value().ok().and_then(|text| text.parse().ok()).ok_or_else(bad_size)?),
                            key => sparse |= key.starts_with(b"GNU.sparse."),
                        }
                    }
                }
                kind => {
                    if kind.is_gnu_sparse() {
                        sparse = true;
                        self.skip_sparse_map(&header)?;
                    }
                    let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
                    let name = String::from_utf8_lossy(&name);
                    let name = name.trim_start_matches("./").to_owned();
                    // Links have a size in some archives, and never a body.
                    let size = if kind.is_hard_link() || kind.is_symlink() { 0 } else { size.unwrap_or(length) };
                    return Ok(Some(Member { name, kind, size, sparse }));
                }
            }
        }
    }

    /// The next header. Zero blocks mark an end, behind which another archive may start.
    fn header(&mut self, awaited: bool) -> io::Result<Option<Header>> {
        let mut zeros = 0;
        loop {
            let mut header = Header::new_old();
            let block = header.as_mut_bytes();
            let count = self.fill(block)?;
            if count == 0 && zeros > 0 && !awaited {
                return Ok(None);
            }
            if count < block.len() {
                let what = if count == 0 { "ends without the zero blocks of an end" } else { "ends within a header" };
                return Err(corrupt(format!("{what}, at byte {}", self.position)));
            }
            if block.iter().all(|byte| *byte == 0) {
                zeros += 1;
                continue;
            }
            let sum = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum::<u32>();
            if header.cksum().ok() != Some(sum) {
                return Err(corrupt(format!("no header at byte {}, its checksum is wrong", self.position - BLOCK_BYTES)));
            }
            return Ok(Some(header));
        }
    }

    /// The body of an extension header.
    fn extension(&mut self, length: u64) -> io::Result<Vec<u8>> {
        if length > MAX_NAME_BYTES {
            return Err(corrupt(format!("a name of {length} bytes, expected at most {MAX_NAME_BYTES}")));
        }
        let mut bytes = vec![0; length as usize];
        if self.fill(&mut bytes)? < bytes.len() {
            return Err(corrupt(format!("ends within a name, at byte {}", self.position)));
        }
        self.skip_to(self.position.div_ceil(BLOCK_BYTES) * BLOCK_BYTES)?;
        Ok(bytes)
    }

    /// Passes the blocks with the rest of a sparse file's map.
    fn skip_sparse_map(&mut self, header: &Header) -> io::Result<()> {
        let mut extended = header.as_gnu().is_some_and(GnuHeader::is_extended);
        while extended {
            let mut map = GnuExtSparseHeader::new();
            if self.fill(map.as_mut_bytes())? < BLOCK_BYTES as usize {
                return Err(corrupt(format!("ends within the map of a sparse file, at byte {}", self.position)));
            }
            extended = map.is_extended();
        }
        Ok(())
    }

    /// Reads until `buffer` is full or the stream ends.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    fn skip_to(&mut self, target: u64) -> io::Result<()> {
        let mut scratch = [0; 16 << 10];
        while self.position < target {
            let wanted = (target - self.position).min(scratch.len() as u64) as usize;
            if self.fill(&mut scratch[..wanted])? < wanted {
                return Err(corrupt(format!("ends at byte {}, expected at least {target}", self.position)));
            }
        }
        Ok(())
    }
}

fn corrupt(detail: String) -> io::Error {
    damage(fault::CORRUPT_ARCHIVE, format!("tar: {detail}"))
}

fn bad_size() -> io::Error {
    corrupt("pax header with a bad size".to_owned())
}

/// The body of a member.
struct Body<'a, 'i> {
    archive: &'a mut Archive<'i>,
    end: u64,
    name: &'a str,
    failed: bool,
}

impl Read for Body<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end - self.archive.position;
        let wanted = left.min(buffer.len() as u64) as usize;
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.archive.input.read(&mut buffer[..wanted]);
        let count = *read.as_ref().unwrap_or(&0);
        self.archive.position += count as u64;
        self.failed = count == 0;
        if read.is_ok() && count == 0 {
            return Err(corrupt(format!("`{}` ends {left} bytes early", self.name)));
        }
        read
    }
}
