//! Zip archives by their directory, and by the headers of the members where the directory is lost.
//!
//! The directory stands at the end, so the archive is spooled. Promises: the directory is walked, not held, and members
//! of one name are all read. Deliberately absent: encryption, and methods other than stored and deflate.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::{Read, Seek};
use std::ops::ControlFlow;

use ::zip::read::{Config, ZipFile, read_zipfile_from_stream};
use ::zip::result::{ZipError, ZipResult};
use ::zip::unstable::read::ZipIterable;
use ::zip::{CompressionMethod, ZipReadOptions};

use super::members::{is_litter, is_one_too_many};
use super::spool::Spool;
use super::{Bound, Unpacked};
use crate::clean::Rejection;
use crate::source::fault;
use crate::source::format::web_dataset::Samples;
use crate::source::open::{End, Flow, Item, Walk};

/// Opens the members of the archive `item`.
pub(super) fn read(walk: &mut Walk<'_, '_>, item: Item<'_>, input: &mut dyn Read) -> Flow {
    let spool = match Spool::read(input, walk.reading.formats.max_spooled.0) {
        Ok(spool) => spool,
        Err(error) => return walk.abort(error),
    };
    let damage = spool.damage().cloned();
    let mut samples = Samples::new(walk.reading.modality, item);
    let end = match ZipIterable::try_new(spool.clone(), Config::default()) {
        Ok(mut archive) if damage.is_none() => by_directory(walk, item, &spool, &mut archive, &mut samples)?,
        directory => {
            let lost = damage.or_else(|| Some(corrupt(&directory.err()?)));
            by_headers(walk, item, &spool, lost, &mut samples)?
        }
    };
    samples.finish(walk)?;
    match end {
        Ok(end) => ControlFlow::Continue(end),
        Err((position, fault)) => {
            let place = walk.names.place(item.place, &format!("@{position}"));
            walk.damaged(place, 0, fault)
        }
    }
}

/// How an archive ended, or a damage that nobody has reported yet and about where it is.
type Left = ControlFlow<(), Result<End, (u64, Rejection)>>;

fn by_directory(
    walk: &mut Walk<'_, '_>,
    item: Item<'_>,
    spool: &Spool,
    archive: &mut ZipIterable<Spool>,
    samples: &mut Samples<'_>,
) -> Left {
    let entries = match archive.files() {
        Ok(entries) => entries,
        Err(error) => return ControlFlow::Continue(Err((spool.len(), corrupt(&error)))),
    };
    let mut read = 0;
    for entry in entries {
        // The next entry stands behind this one: without it there is no way on.
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return ControlFlow::Continue(Err((read, corrupt(&error)))),
        };
        read = entry.central_header_start();
        let name = name(entry.name(), entry.name_raw());
        if entry.is_dir() || is_litter(&name) {
            continue;
        }
        if is_one_too_many(walk, item.place)? {
            return ControlFlow::Continue(Ok(End::Damaged));
        }
        let (size, packed) = (entry.size(), entry.compressed_size().min(spool.len()));
        let mut body = spool.clone();
        let unread = if entry.is_symlink() {
            Some(Rejection::new(fault::NOT_A_FILE, "Symlink"))
        } else if entry.encrypted() {
            Some(Rejection::new(fault::UNSUPPORTED_FORMAT, "zip: encrypted"))
        } else {
            match entry.with_reader(&mut body, ZipReadOptions::default()) {
                Ok(file) => {
                    member(walk, &name, packed, file, samples)?;
                    None
                }
                Err(error) => Some(corrupt(&error)),
            }
        };
        if let Some(fault) = unread {
            let place = walk.names.place(item.place, &name);
            walk.fault(place, size, fault)?;
        }
        if walk.origin.is_exhausted() {
            return ControlFlow::Continue(Ok(End::Damaged));
        }
    }
    ControlFlow::Continue(Ok(End::Complete))
}

/// The members up to the damage, where the directory is lost. `lost` says how it was.
fn by_headers(walk: &mut Walk<'_, '_>, item: Item<'_>, spool: &Spool, lost: Option<Rejection>, samples: &mut Samples<'_>) -> Left {
    let mut stream = spool.at(0);
    loop {
        let start = stream.stream_position().unwrap_or_default();
        let file = match read_zipfile_from_stream(&mut stream) {
            Ok(Some(file)) => file,
            Ok(None) => return ControlFlow::Continue(Err((start, lost.unwrap_or_else(|| Rejection::new(fault::CORRUPT_ARCHIVE, "zip"))))),
            Err(error) => return ControlFlow::Continue(Err((start, lost.unwrap_or_else(|| corrupt(&error))))),
        };
        let name = name(file.name(), file.name_raw());
        if file.is_dir() || is_litter(&name) {
            continue;
        }
        if is_one_too_many(walk, item.place)? {
            return ControlFlow::Continue(Ok(End::Damaged));
        }
        let packed = file.compressed_size().min(spool.len());
        if member(walk, &name, packed, file, samples)? || walk.origin.is_exhausted() {
            return ControlFlow::Continue(Ok(End::Damaged));
        }
    }
}

/// Opens a member; true if it broke on the way.
fn member(walk: &mut Walk<'_, '_>, name: &str, packed: u64, file: ZipFile<'_, Spool>, samples: &mut Samples<'_>) -> ControlFlow<(), bool> {
    if !matches!(file.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
        let fault = Rejection::new(fault::UNSUPPORTED_FORMAT, format!("zip: method {}", file.compression()));
        let place = walk.names.place(samples.archive(), name);
        walk.fault(place, file.size(), fault)?;
        return ControlFlow::Continue(false);
    }
    let packed = Cell::new(packed);
    let bound = Bound { packed: &packed, unpacked: 0, origin: walk.origin, max_ratio: walk.reading.formats.max_ratio };
    let mut body = Unpacked { decoder: file, name: "zip", bound, broken: None };
    samples.member(walk, name, &mut body)?;
    ControlFlow::Continue(body.broken.is_some())
}

fn name(name: ZipResult<Cow<'_, str>>, raw: &[u8]) -> String {
    name.unwrap_or_else(|_| String::from_utf8_lossy(raw)).trim_start_matches("./").to_owned()
}

fn corrupt(error: &ZipError) -> Rejection {
    if let ZipError::Io(error) = error {
        return fault::found_by("zip", 0, error);
    }
    let reason = match error {
        ZipError::UnsupportedArchive(_) | ZipError::CompressionMethodNotSupported(_) => fault::UNSUPPORTED_FORMAT,
        _ => fault::CORRUPT_ARCHIVE,
    };
    Rejection::new(reason, format!("zip: {error}"))
}
