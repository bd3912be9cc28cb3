//! Members of an archive as records: files of text each by itself, pictures together with the notes beside them.
//!
//! WebDataset (github.com/webdataset/webdataset): members that follow each other and share their path up to the first
//! dot of the file's name are one sample. A `.cls` has its class, else the class field of a `.json`, else a `.txt` of one
//! short line. A picture is held until the next one or the end of its sample, so a class may stand before or behind it.
//! Deliberately absent: captions, and members of a sample that are neither picture nor class.

use std::io::{self, Read};
use std::ops::ControlFlow;

use bytes::Bytes;
use forebay_schemas::dataset::Modality;

use super::fields::Fields;
use super::{detect, whole};
use crate::clean::Rejection;
use crate::source::fault;
use crate::source::open::{Item, Walk};
use crate::source::raw::{Content, RawRecord};

/// A longer note has no class.
const NOTE_BYTES: usize = 1 << 20;
/// A longer text is a caption.
const CLASS_BYTES: usize = 256;

/// Turns members into records.
pub(in crate::source) struct Samples<'a> {
    item: Item<'a>,
    modality: Modality,
    /// Path of the sample up to the first dot; its first member.
    key: Option<(String, String)>,
    picture: Option<Picture>,
    has_picture: bool,
    /// The class, and how sure it is.
    class: Option<(Rank, String)>,
}

struct Picture {
    place: String,
    bytes: Vec<u8>,
}

/// Where a class stands; the greater counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Text,
    Json,
    Class,
}

impl<'a> Samples<'a> {
    /// For the archive `item`.
    pub(in crate::source) fn new(modality: Modality, item: Item<'a>) -> Self {
        Self { item, modality, key: None, picture: None, has_picture: false, class: None }
    }

    /// The place of the archive.
    pub(in crate::source) fn archive(&self) -> &'a str {
        self.item.place
    }

    /// Takes the member `path`. Damage of `body` becomes a fault.
    pub(in crate::source) fn member(&mut self, walk: &mut Walk<'_, '_>, path: &str, body: &mut dyn Read) -> ControlFlow<()> {
        let file = path.rsplit('/').next().unwrap_or(path);
        if self.modality == Modality::Text {
            return self.open(walk, path, file, body);
        }
        let stem = path.len() - file.len() + file.find('.').unwrap_or(file.len());
        if self.key.as_ref().is_none_or(|(key, _)| *key != path[..stem]) {
            self.finish(walk)?;
            self.key = Some((path[..stem].to_owned(), path.to_owned()));
        }
        let extension = file[stem - (path.len() - file.len())..].rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "jpg" | "jpeg" | "png" | "webp" => self.hold(walk, path, body),
            "cls" => self.note(walk, path, Rank::Class, body),
            "json" => self.note(walk, path, Rank::Json, body),
            "txt" => self.note(walk, path, Rank::Text, body),
            _ if detect::is_opened(file) => {
                self.has_picture = true;
                self.open(walk, path, file, body)
            }
            // Anything else belongs to its sample.
            _ => ControlFlow::Continue(()),
        }
    }

    /// Hands out what is held.
    pub(in crate::source) fn finish(&mut self, walk: &mut Walk<'_, '_>) -> ControlFlow<()> {
        self.hand_out(walk)?;
        self.class = None;
        let (Some((_, first)), false) = (self.key.take(), std::mem::take(&mut self.has_picture)) else { return ControlFlow::Continue(()) };
        let place = walk.names.place(self.item.place, &first);
        walk.fault(place, 0, Rejection::new(fault::NO_IMAGE_FIELD, "a sample without a picture"))
    }

    fn open(&self, walk: &mut Walk<'_, '_>, path: &str, file: &str, body: &mut dyn Read) -> ControlFlow<()> {
        let place = walk.names.place(self.item.place, path);
        walk.open(Item { name: file, place: &place, depth: self.item.depth + 1, member: true }, body).map_continue(drop)
    }

    fn hold(&mut self, walk: &mut Walk<'_, '_>, path: &str, body: &mut dyn Read) -> ControlFlow<()> {
        self.hand_out(walk)?;
        self.has_picture = true;
        let place = walk.names.place(self.item.place, path);
        let mut bytes = Vec::new();
        let fault = match whole::take(body, walk.max_record(), &mut bytes) {
            Ok(true) => {
                self.picture = Some(Picture { place, bytes });
                return ControlFlow::Continue(());
            }
            Ok(false) => Rejection::new(fault::TOO_LARGE, format!("more than {} bytes", walk.max_record())),
            Err(error) => fault::rejection(&error),
        };
        walk.fault(place, bytes.len() as u64, fault)
    }

    fn note(&mut self, walk: &mut Walk<'_, '_>, path: &str, rank: Rank, body: &mut dyn Read) -> ControlFlow<()> {
        let mut bytes = Vec::new();
        match whole::take(body, NOTE_BYTES, &mut bytes) {
            Ok(true) => {}
            Ok(false) => return ControlFlow::Continue(()),
            Err(error) => return self.broken_note(walk, path, &error),
        }
        let class = match rank {
            Rank::Json => class_in(&bytes, &walk.reading.formats.class_field),
            _ => std::str::from_utf8(&bytes).ok().map(|text| text.trim().to_owned()),
        };
        let class = class.filter(|class| !class.is_empty() && class.len() <= CLASS_BYTES && !class.contains('\n'));
        if let Some(class) = class.filter(|_| self.class.as_ref().is_none_or(|(held, _)| rank > *held)) {
            self.class = Some((rank, class));
        }
        ControlFlow::Continue(())
    }

    fn broken_note(&mut self, walk: &mut Walk<'_, '_>, path: &str, error: &io::Error) -> ControlFlow<()> {
        // Without its note a sample is not what it was: the fault stands for all of it.
        self.has_picture = true;
        let place = self.picture.take().map_or_else(|| walk.names.place(self.item.place, path), |picture| picture.place);
        walk.fault(place, 0, fault::rejection(error))
    }

    fn hand_out(&mut self, walk: &mut Walk<'_, '_>) -> ControlFlow<()> {
        let Some(Picture { place, bytes }) = self.picture.take() else { return ControlFlow::Continue(()) };
        let class = self.class.as_ref().map(|(_, class)| class.clone());
        let length = bytes.len() as u64;
        walk.emit(RawRecord { place, bytes: length, content: Ok(Content::Image(Bytes::from(bytes))), url: None, class })
    }
}

/// The class that a note in JSON has.
fn class_in(json: &[u8], field: &str) -> Option<String> {
    let fields = Fields::new([field, field]);
    let [class, _] = fields.find(std::str::from_utf8(json).ok()?).ok()?;
    class?.label().map(|class| class.into_owned())
}
