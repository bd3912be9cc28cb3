//! Bytes to text, in the order of certainty: a byte order mark, valid UTF-8, what the protocol or the page claims, a guess.
//!
//! A result is taken only if nearly nothing in it had to be replaced; all else is `bad_encoding`, with the place. Text
//! that is mostly UTF-8 is never taken for another encoding because of a damaged spot. The guess is chardetng's, that of
//! Firefox; it can be switched off, since a wrong guess makes text that looks fine and is not.
//! Deliberately absent: languages and top-level domains as hints, and encodings that no browser reads but UTF-32.

use std::borrow::Cow;

use encoding_rs::{Encoding, ISO_2022_JP, REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE};

use super::Rejection;

mod claim;
mod guess;
#[cfg(test)]
mod tests;
mod unicode;

/// More replaced characters than one in this many is `bad_encoding`; a page cut off inside a character has one.
const CHARS_PER_REPLACED: usize = 1000;
/// More NULs than one in this many bytes is a binary; a stray one is dropped by the normaliser.
const BYTES_PER_NUL: usize = 100;

/// What is said about bytes, other than by themselves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Claim<'a> {
    /// Character set of a protocol header.
    pub(crate) charset: Option<&'a str>,
    /// Whether the bytes are markup, whose head may name a character set.
    pub(crate) markup: bool,
}

/// Text without its byte order mark; `detect` allows a guess.
pub(crate) fn decode<'a>(bytes: &'a [u8], claim: Claim<'_>, detect: bool) -> Result<Cow<'a, str>, Rejection> {
    let text = match bytes {
        [0xFF, 0xFE, 0, 0, rest @ ..] if rest.len() % 4 == 0 => Cow::Owned(unicode::utf32(rest, u32::from_le_bytes)?),
        [0, 0, 0xFE, 0xFF, rest @ ..] => Cow::Owned(unicode::utf32(rest, u32::from_be_bytes)?),
        [0xFF, 0xFE, rest @ ..] => Cow::Owned(unicode::utf16(rest, u16::from_le_bytes)?),
        [0xFE, 0xFF, rest @ ..] => Cow::Owned(unicode::utf16(rest, u16::from_be_bytes)?),
        _ => without_mark(bytes, claim, detect)?,
    };
    let nuls = nuls(text.as_bytes());
    if nuls * BYTES_PER_NUL > text.len() {
        return Err(bad(format!("{nuls} NUL bytes in {}", text.len())));
    }
    Ok(text)
}

fn without_mark<'a>(bytes: &'a [u8], claim: Claim<'_>, detect: bool) -> Result<Cow<'a, str>, Rejection> {
    let marked = bytes.strip_prefix(&[0xEF, 0xBB, 0xBF]);
    let rest = marked.unwrap_or(bytes);
    let error = match std::str::from_utf8(rest) {
        Ok(text) => {
            let other = if marked.is_none() { in_disguise(text, claim, detect) } else { None };
            return Ok(other.map_or(Cow::Borrowed(text), Cow::Owned));
        }
        Err(error) => error,
    };
    if let Some(text) = unicode::repaired(rest) {
        return Ok(Cow::Owned(text));
    }
    if marked.is_none() {
        let claimed = claim::encodings(bytes, claim).filter(|encoding| *encoding != UTF_8);
        if let Some(text) = claimed.filter_map(|encoding| decoded(bytes, encoding)).next() {
            return Ok(Cow::Owned(text));
        }
        if detect
            && !unicode::is_mostly_utf8(rest)
            && let Some(text) = guess::guess(bytes)
        {
            return Ok(Cow::Owned(text));
        }
    }
    Err(bad(format!("not UTF-8 at byte {}", bytes.len() - rest.len() + error.valid_up_to())))
}

/// What is valid UTF-8 and yet something else: UTF-16 or UTF-32 of ASCII letters, by its NULs, and ISO-2022-JP, by its escapes.
fn in_disguise(text: &str, claim: Claim<'_>, detect: bool) -> Option<String> {
    let bytes = text.as_bytes();
    if memchr::memchr(0, bytes).is_some() && nuls(bytes) * BYTES_PER_NUL > bytes.len() {
        let claimed = claim::encodings(bytes, claim).find(|encoding| *encoding == UTF_16LE || *encoding == UTF_16BE);
        return claimed.and_then(|encoding| decoded(bytes, encoding)).or_else(|| detect.then(|| unicode::by_nuls(bytes)).flatten());
    }
    if memchr::memchr(0x1B, bytes).is_some() {
        let claimed = claim::encodings(bytes, claim).any(|encoding| encoding == ISO_2022_JP);
        let escapes = || [&b"\x1B$B"[..], b"\x1B$@"].iter().any(|escape| memchr::memmem::find(bytes, escape).is_some());
        if claimed || (detect && escapes()) {
            return decoded(bytes, ISO_2022_JP);
        }
    }
    None
}

/// The text, if nearly nothing in it is spoilt.
fn decoded(bytes: &[u8], encoding: &'static Encoding) -> Option<String> {
    if encoding == REPLACEMENT {
        return None;
    }
    let (text, _) = encoding.decode_without_bom_handling(bytes);
    is_sound(&text).then(|| text.into_owned())
}

/// Whether few enough characters are replaced, or controls that no writer of text has meant.
fn is_sound(text: &str) -> bool {
    let spoilt = |c: char| matches!(c, '\u{FFFD}' | '\u{80}'..='\u{84}' | '\u{86}'..='\u{9F}' | '\u{E000}'..='\u{F8FF}');
    let (spoilt, chars) = text.chars().fold((0, 0), |(bad, all), c| (bad + usize::from(spoilt(c)), all + 1));
    spoilt * CHARS_PER_REPLACED <= chars
}

fn nuls(bytes: &[u8]) -> usize {
    memchr::memchr_iter(0, bytes).count()
}

fn bad(detail: String) -> Rejection {
    Rejection::new("bad_encoding", detail)
}
