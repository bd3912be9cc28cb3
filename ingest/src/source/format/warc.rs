//! Web archives: WARC 0.17 to 1.1 (ISO 28500) and ARC 1 and 2, plain or gzip member by member.
//!
//! Promises: every response and resource of HTML or plain text is a record, with the HTTP head and the codings taken off;
//! damage is a record with a fault, and reading goes on at the next member or record that is whole; memory is bounded by
//! twice the largest record and some MiB; an error is an error of the input itself. A record counts only once what
//! follows it makes sense, since a wrong length shows only there.
//! Deliberately absent: checking digests, following revisits to what they repeat, and a record for anything that is no
//! text of a page (requests, metadata, redirects, pictures); of those only the damage is told.

use std::io::{Read, Result};
use std::ops::ControlFlow;

use bytes::Bytes;
use flate2::bufread::GzDecoder;

use self::head::{Bad, Head, Kind};
use self::window::Window;
use crate::clean::Rejection;
use crate::source::raw::{Content, RawRecord, Visit};

mod head;
mod http;
#[cfg(test)]
mod tests;
mod window;

/// Reads the archive behind `input`; the place of a record is `place_prefix`, `#` and the byte at which it begins.
///
/// In a gzip file that is the byte at which its member begins, as in a CDX index, with `+` and the byte inside the
/// member for records behind its first one.
pub(crate) fn read(place_prefix: &str, input: &mut dyn Read, max_record_bytes: u64, visit: &mut Visit<'_>) -> Result<()> {
    let mut window = Window::new(input, Vec::new());
    let mut archive = Archive { place_prefix, max_record_bytes, visit, member: None, kind: None, open: None, lost: false };
    let gzip = is_gzip(window.peek(START_BYTES)?);
    let outcome = if gzip { archive.members(&mut window) } else { archive.records(&mut window) };
    outcome.map(drop)
}

const GZIP: &[u8] = &[0x1F, 0x8B];
/// Bytes that are searched for what the archive is, if its first ones do not say so.
const START_BYTES: usize = 64 << 10;

fn is_gzip(start: &[u8]) -> bool {
    let first = |needle| memchr::memmem::find(start, needle).unwrap_or(usize::MAX);
    start.starts_with(GZIP) || first(&[0x1F, 0x8B, 8]) < first(b"WARC/").min(first(b"filedesc:"))
}

/// Whether the reader of records has been told to stop.
type Flow = ControlFlow<()>;

struct Archive<'a, 'v> {
    place_prefix: &'a str,
    max_record_bytes: u64,
    visit: &'a mut Visit<'v>,
    /// Where the gzip member begins that is being read.
    member: Option<u64>,
    kind: Option<Kind>,
    /// The record being read, or read and not yet known to end where it should.
    open: Option<Open>,
    /// Whether damage has been told and no record been found since.
    lost: bool,
}

struct Open {
    place: String,
    /// Where its block begins.
    block: u64,
    read: u64,
    record: Option<RawRecord>,
}

impl Archive<'_, '_> {
    /// The members of a gzip file.
    fn members(&mut self, raw: &mut Window<&mut dyn Read>) -> Result<Flow> {
        let mut held = Vec::new();
        loop {
            raw.skip_while(|byte| byte == 0)?;
            if raw.at_end()? {
                return Ok(Flow::Continue(()));
            }
            let start = raw.position();
            self.member = Some(start);
            if !raw.peek(2)?.starts_with(GZIP) {
                if self.damage(0, format!("byte {start}: expected a gzip member")).is_break() {
                    return Ok(Flow::Break(()));
                }
                find_member(raw)?;
                continue;
            }
            let mut window = Window::new(GzDecoder::new(&mut *raw), held);
            let outcome = self.records(&mut window);
            held = window.into_held();
            match outcome {
                Ok(Flow::Continue(())) => {}
                Ok(Flow::Break(())) => return Ok(Flow::Break(())),
                Err(error) if raw.failed() => return Err(error),
                Err(error) => {
                    if self.damage(0, format!("gzip member at byte {start}: {error}")).is_break() {
                        return Ok(Flow::Break(()));
                    }
                    // A member that was cut off has swallowed the start of the next one.
                    raw.rewind(start + 1);
                    find_member(raw)?;
                }
            }
        }
    }

    /// The records up to the end of `window`.
    fn records<R: Read>(&mut self, window: &mut Window<R>) -> Result<Flow> {
        loop {
            head::skip_blank(window)?;
            if window.at_end()? {
                return Ok(self.close());
            }
            let start = window.position();
            let flow = match head::read(window, &mut self.kind)? {
                Ok(head) => match self.close() {
                    Flow::Continue(()) => self.record(window, start, head)?,
                    stop => stop,
                },
                Err(Bad::Damaged(detail)) => match self.close() {
                    Flow::Continue(()) => {
                        self.lost = false;
                        let flow = self.damage(start, format!("byte {start}: {detail}"));
                        window.rewind(start + 1);
                        window.next_line()?;
                        head::find(window, self.kind)?;
                        flow
                    }
                    stop => stop,
                },
                // Either the record before is longer or shorter than it says, or there is something else behind it.
                Err(Bad::Absent(detail)) => {
                    let block = self.open.as_ref().map(|open| open.block);
                    let flow = self.damage(start, format!("byte {start}: {detail}"));
                    window.rewind(block.unwrap_or(start));
                    if block.is_none() {
                        window.next_line()?;
                    }
                    head::find(window, self.kind)?;
                    flow
                }
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
    }

    /// Reads the record behind `head`, its block into memory only if it is wanted, and leaves it open.
    fn record<R: Read>(&mut self, window: &mut Window<R>, start: u64, head: Head) -> Result<Flow> {
        self.lost = false;
        let (place, block_start) = (self.place(start), window.position());
        self.open = Some(Open { place: place.clone(), block: block_start, read: 0, record: None });
        let known = (http::HEAD_BYTES as u64).min(head.length) as usize;
        let block = window.peek(known)?;
        let wanted = Wanted::of(&head, &block[..block.len().min(known)]);
        let body_bytes = head.length - wanted.as_ref().map_or(0, Wanted::body) as u64;
        let too_large = body_bytes > self.max_record_bytes;
        let mut block = Vec::new();
        let read = match wanted.is_some() && !too_large {
            true => window.by_ref().take(head.length).read_to_end(&mut block)? as u64,
            false => window.skip(head.length)?,
        };
        if read < head.length {
            // The head of another record may be among the bytes that this one has taken.
            let flow = self.damage(start, format!("cut off: {read} of {} bytes", head.length));
            window.rewind(block_start);
            head::find(window, self.kind)?;
            return Ok(flow);
        }
        let record = wanted.map(|wanted| {
            let content = match too_large {
                true => Err(Rejection::new("too_large", format!("{body_bytes} bytes"))),
                false => wanted.content(Bytes::from(block), head.truncated, self.max_record_bytes),
            };
            let bytes = match &content {
                Ok(Content::Html { bytes, .. } | Content::Plain { bytes, .. }) => bytes.len() as u64,
                _ => body_bytes,
            };
            RawRecord { place: place.clone(), bytes, content, url: head.url, class: None }
        });
        self.open = Some(Open { place, block: block_start, read, record });
        Ok(Flow::Continue(()))
    }

    /// The open record is whole: what follows it makes sense.
    fn close(&mut self) -> Flow {
        match self.open.take().and_then(|open| open.record) {
            Some(record) => (self.visit)(record),
            None => Flow::Continue(()),
        }
    }

    /// Tells damage once: of the open record, or else of the place where a record should begin.
    fn damage(&mut self, start: u64, detail: String) -> Flow {
        let (place, read) = match self.open.take() {
            Some(open) => (open.place, open.read),
            None if self.lost => return Flow::Continue(()),
            None => (self.place(start), 0),
        };
        self.lost = true;
        (self.visit)(fault(&place, read, Rejection::new("corrupt_record", detail)))
    }

    fn place(&self, start: u64) -> String {
        match self.member {
            None => format!("{}#{start}", self.place_prefix),
            Some(member) if start == 0 => format!("{}#{member}", self.place_prefix),
            Some(member) => format!("{}#{member}+{start}", self.place_prefix),
        }
    }
}

fn fault(place: &str, bytes: u64, rejection: Rejection) -> RawRecord {
    RawRecord { place: place.to_owned(), bytes, content: Err(rejection), url: None, class: None }
}

/// Moves to the next bytes that can be the head of a gzip member; to the end if there are none.
fn find_member(raw: &mut Window<&mut dyn Read>) -> Result<()> {
    loop {
        let held = raw.peek(4)?;
        if held.len() < 4 {
            let rest = held.len() as u64;
            return raw.skip(rest).map(drop);
        }
        // Magic, deflate, and none of the reserved flags.
        let found = memchr::memmem::find_iter(held, &[0x1F, 0x8B, 8]).find(|at| held.get(at + 3).is_some_and(|flags| flags & 0xE0 == 0));
        let count = found.unwrap_or(held.len() - 3);
        raw.skip(count as u64)?;
        if found.is_some() {
            return Ok(());
        }
    }
}

/// What makes a record one of text.
enum Wanted {
    Response { response: http::Response, html: bool, charset: Option<String> },
    Block { html: bool, charset: Option<String> },
}

impl Wanted {
    /// From the head of a record and the start of its block; none if the record is no text of a page.
    fn of(head: &Head, start: &[u8]) -> Option<Self> {
        let media = head.media.trim().to_ascii_lowercase();
        let http = match head.kind.as_str() {
            "response" if head.arc => start.starts_with(b"HTTP/"),
            "response" => media.is_empty() || media.starts_with("application/http"),
            "resource" | "conversion" => false,
            _ => return None,
        };
        if !http {
            // Notes of the crawler on itself.
            if head.url.as_ref().is_some_and(|url| url.starts_with("metadata:")) {
                return None;
            }
            let (html, charset) = text_media(&media)?;
            return Some(Self::Block { html, charset });
        }
        let response = http::parse(start).filter(|response| (200..300).contains(&response.status))?;
        let (html, charset) = match &response.media {
            Some(media) => text_media(media)?,
            None => (looks_like_html(&start[response.body..]).then_some(true)?, None),
        };
        Some(Self::Response { response, html, charset })
    }

    /// Where the body begins in the block.
    fn body(&self) -> usize {
        match self {
            Self::Response { response, .. } => response.body,
            Self::Block { .. } => 0,
        }
    }

    fn content(self, block: Bytes, cut: bool, max_bytes: u64) -> std::result::Result<Content, Rejection> {
        let (bytes, html, charset) = match self {
            Self::Response { response, html, charset } => (response.decode(block, cut, max_bytes)?, html, charset),
            Self::Block { html, charset } => (block, html, charset),
        };
        Ok(if html { Content::Html { bytes, charset } } else { Content::Plain { bytes, charset } })
    }
}

/// Whether a media type is HTML (true) or plain text (false), and the character set it claims; none for all others.
fn text_media(media: &str) -> Option<(bool, Option<String>)> {
    let mut parts = media.split(';');
    let html = match parts.next()?.trim().to_ascii_lowercase().as_str() {
        "text/html" | "application/xhtml+xml" | "application/vnd.wap.xhtml+xml" => true,
        "text/plain" => false,
        _ => return None,
    };
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let value = value.trim().trim_matches(['"', '\'']);
        (name.trim().eq_ignore_ascii_case("charset") && !value.is_empty()).then(|| value.to_owned())
    });
    Some((html, charset))
}

/// Whether a body without a media type is a page, by its first tag.
fn looks_like_html(body: &[u8]) -> bool {
    let start = body.strip_prefix(&[0xEF, 0xBB, 0xBF]).unwrap_or(body).trim_ascii_start();
    let start = start[..start.len().min(16)].to_ascii_lowercase();
    [&b"<!doctype html"[..], b"<html"].iter().any(|tag| start.starts_with(tag))
}
