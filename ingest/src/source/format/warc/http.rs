//! The HTTP message in a record: its head, and its body without the codings of the transfer and the content.
//!
//! Archives are written by crawlers that undo codings and forget to say so: a body that does not look like its coding is
//! taken as it is. Deliberately absent: messages other than responses, and byte ranges put together.

use std::io::{BufRead, Read};

use brotli_decompressor::Decompressor;
use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, GzDecoder, ZlibDecoder};

use crate::clean::Rejection;

/// A larger head is not searched for its end.
pub(super) const HEAD_BYTES: usize = 64 << 10;
/// Codings upon codings are an attack.
const MAX_CODINGS: usize = 4;

/// The head of a response.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) media: Option<String>,
    chunked: bool,
    /// In the order in which they were applied.
    codings: Vec<String>,
    /// Where the body begins.
    pub(super) body: usize,
}

/// The head at the start of `block`; none if it is none. A head without its end has no body.
pub(super) fn parse(block: &[u8]) -> Option<Response> {
    let mut response = Response { body: block.len(), ..Response::default() };
    let mut lines = block.split_inclusive(|byte| *byte == b'\n');
    let mut at = 0;
    let status = lines.next()?;
    at += status.len();
    let status = status.strip_prefix(b"HTTP/")?;
    let status = String::from_utf8_lossy(&status[..status.len().min(64)]).into_owned();
    response.status = status.split_ascii_whitespace().nth(1)?.parse().ok()?;
    for line in lines {
        at += line.len();
        if line.trim_ascii().is_empty() {
            response.body = at;
            break;
        }
        let line = String::from_utf8_lossy(line);
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "content-type" if response.media.is_none() => response.media = Some(value.to_owned()),
            "transfer-encoding" => response.chunked |= list(value).any(|coding| coding == "chunked"),
            "content-encoding" => response.codings.extend(list(value).filter(|coding| coding != "identity")),
            _ => {}
        }
    }
    Some(response)
}

fn list(value: &str) -> impl Iterator<Item = String> + '_ {
    value.split(',').map(|item| item.trim().to_ascii_lowercase()).filter(|item| !item.is_empty())
}

impl Response {
    /// The body in `block` without its codings. `cut`: whether it is known to be cut off, so that its end may be missing.
    pub(super) fn decode(&self, block: Bytes, cut: bool, max_bytes: u64) -> Result<Bytes, Rejection> {
        if self.codings.len() > MAX_CODINGS {
            return Err(corrupt(format!("{} content codings, expected at most {MAX_CODINGS}", self.codings.len())));
        }
        let mut body = block.slice(self.body.min(block.len())..);
        if self.chunked {
            body = unchunk(&body, cut)?.map_or(body, Bytes::from);
        }
        for coding in self.codings.iter().rev() {
            body = undo(coding, &body, cut, max_bytes)?.map_or(body, Bytes::from);
        }
        Ok(body)
    }
}

fn corrupt(detail: String) -> Rejection {
    Rejection::new("corrupt_record", detail)
}

/// The chunks of RFC 9112 in a row; none for a body that does not begin with the size of a chunk, which is not chunked any more.
fn unchunk(body: &[u8], cut: bool) -> Result<Option<Vec<u8>>, Rejection> {
    let mut whole = Vec::with_capacity(body.len());
    let mut at = 0;
    loop {
        let rest = &body[at..];
        let line = memchr::memchr(b'\n', &rest[..rest.len().min(1024)]);
        let size = line.and_then(|end| chunk_size(&rest[..end]));
        let (Some(line), Some(size)) = (line, size) else {
            return match at {
                0 => Ok(None),
                _ if cut => Ok(Some(whole)),
                _ => Err(corrupt(format!("byte {at} of the body: expected the size of a chunk"))),
            };
        };
        if size == 0 {
            return Ok(Some(whole));
        }
        let data = &rest[line + 1..];
        if data.len() < size {
            if !cut {
                return Err(corrupt(format!("byte {at} of the body: a chunk of {size} bytes has {}", data.len())));
            }
            whole.extend_from_slice(data);
            return Ok(Some(whole));
        }
        whole.extend_from_slice(&data[..size]);
        let end = &data[size..];
        let blank = end.len() - end.strip_prefix(b"\r\n").or_else(|| end.strip_prefix(b"\n")).unwrap_or(end).len();
        at = body.len() - end.len() + blank;
    }
}

fn chunk_size(line: &[u8]) -> Option<usize> {
    let size = line.split(|byte| *byte == b';').next()?.trim_ascii();
    if size.is_empty() || size.len() > 15 || !size.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()
}

/// The body without one coding; none where it is decoded already.
fn undo(coding: &str, body: &[u8], cut: bool, max_bytes: u64) -> Result<Option<Vec<u8>>, Rejection> {
    let zlib = matches!(body, [head, flags, ..] if head & 0x0F == 8 && (u16::from(*head) << 8 | u16::from(*flags)) % 31 == 0);
    let undone = match coding {
        "gzip" | "x-gzip" if body.starts_with(&[0x1F, 0x8B]) => inflate(GzDecoder::new(body), cut, max_bytes),
        "deflate" if zlib => inflate(ZlibDecoder::new(body), cut, max_bytes),
        // Some servers mean the bare format by the name.
        "deflate" if !is_textual(body) => inflate(DeflateDecoder::new(body), cut, max_bytes),
        "br" if !is_textual(body) => inflate(Decompressor::new(body, 4096), cut, max_bytes),
        "zstd" if body.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) => match zstd::stream::read::Decoder::with_buffer(body) {
            Ok(decoder) => inflate(decoder, cut, max_bytes),
            Err(error) => Err(corrupt(error.to_string())),
        },
        "gzip" | "x-gzip" | "deflate" | "br" | "zstd" => return Ok(None),
        _ if is_textual(body) => return Ok(None),
        _ => Err(corrupt("expected gzip, deflate, br or zstd".to_owned())),
    };
    let named = |rejection: Rejection| {
        let coding: String = coding.chars().take(20).collect();
        Rejection::new(rejection.reason, format!("content coding {coding}: {}", rejection.detail))
    };
    undone.map(Some).map_err(named)
}

/// Whether the first bytes are those of a text in a superset of ASCII.
fn is_textual(body: &[u8]) -> bool {
    let start = &body[..body.len().min(512)];
    let odd = start.iter().filter(|byte| **byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0C)).count();
    let plain = start.iter().filter(|byte| (0x20..0x7F).contains(*byte)).count();
    odd == 0 && plain * 4 >= start.len() * 3
}

fn inflate(decoder: impl Read, cut: bool, max_bytes: u64) -> Result<Vec<u8>, Rejection> {
    let mut decoder = std::io::BufReader::new(decoder);
    let mut whole = Vec::new();
    loop {
        let step = match decoder.fill_buf() {
            Ok([]) => return Ok(whole),
            Ok(step) => step,
            Err(_) if cut && !whole.is_empty() => return Ok(whole),
            Err(error) => return Err(corrupt(format!("{error} after {} bytes", whole.len()))),
        };
        if (whole.len() + step.len()) as u64 > max_bytes {
            return Err(Rejection::new("too_large", format!("more than {max_bytes} bytes")));
        }
        whole.extend_from_slice(step);
        let count = step.len();
        decoder.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const PAGE: &[u8] = b"<html><body>Gr\xFC\xDFe, Gr\xFC\xDFe, Gr\xFC\xDFe</body></html>";

    fn body(headers: &str, body: &[u8], cut: bool) -> Result<Vec<u8>, String> {
        let block = [format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes(), body].concat();
        let response = parse(&block).expect("a head");
        let body = response.decode(Bytes::from(block), cut, 1 << 10);
        body.map(Vec::from).map_err(|rejection| format!("{}: {}", rejection.reason, rejection.detail))
    }

    fn compressed(coding: &str) -> Vec<u8> {
        let done = match coding {
            "gzip" => GzEncoder::new(Vec::new(), Compression::best()).write_all_and(GzEncoder::finish),
            "zlib" => ZlibEncoder::new(Vec::new(), Compression::best()).write_all_and(ZlibEncoder::finish),
            _ => DeflateEncoder::new(Vec::new(), Compression::best()).write_all_and(DeflateEncoder::finish),
        };
        done.expect("compressed")
    }

    trait WriteAllAnd: Write + Sized {
        fn write_all_and(mut self, finish: fn(Self) -> std::io::Result<Vec<u8>>) -> std::io::Result<Vec<u8>> {
            self.write_all(PAGE)?;
            finish(self)
        }
    }
    impl<W: Write> WriteAllAnd for W {}

    #[test]
    fn a_head_ends_at_the_blank_line_and_names_are_in_any_case() {
        let response = parse(b"HTTP/1.0 404 Not\nCONTENT-TYPE : text/html; charset=x\nTransfer-Encoding: Chunked\n\nabc").expect("a head");
        assert_eq!((response.status, response.body), (404, 81));
        assert_eq!((response.media.as_deref(), response.chunked), (Some("text/html; charset=x"), true));
        assert_eq!(parse(b"GET / HTTP/1.0\r\n\r\n"), None);
        assert_eq!(parse(b"HTTP/1.1\r\n\r\n"), None);
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nA: b").map(|response| response.body), Some(21));
    }

    #[test]
    fn codings_are_undone() {
        assert_eq!(body("", PAGE, false), Ok(PAGE.to_vec()));
        assert_eq!(body("Content-Encoding: gzip\r\n", &compressed("gzip"), false), Ok(PAGE.to_vec()));
        assert_eq!(body("Content-Encoding: deflate\r\n", &compressed("zlib"), false), Ok(PAGE.to_vec()));
        assert_eq!(body("Content-Encoding: deflate\r\n", &compressed("raw"), false), Ok(PAGE.to_vec()));
        let zstd = zstd::encode_all(PAGE, 3).expect("compressed");
        assert_eq!(body("Content-Encoding: zstd\r\n", &zstd, false), Ok(PAGE.to_vec()));
        let brotli = [0x0B, 2, 0x80, b'a', b'b', b'c', b'd', b'\n', 3];
        assert_eq!(body("Content-Encoding: br\r\n", &brotli, false), Ok(b"abcd\n".to_vec()));
        let gzip = compressed("gzip");
        let (left, right) = gzip.split_at(9);
        let chunks = [b"9;x=y\r\n", left, b"\r\n", format!("{:X}\r\n", right.len()).as_bytes(), right, b"\r\n0\r\n\r\n"].concat();
        assert_eq!(body("Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n", &chunks, false), Ok(PAGE.to_vec()));
    }

    #[test]
    fn a_body_that_was_decoded_already_is_taken_as_it_is() {
        for headers in ["Transfer-Encoding: chunked", "Content-Encoding: gzip", "Content-Encoding: deflate", "Content-Encoding: br"] {
            assert_eq!(body(&format!("{headers}\r\n"), PAGE, false), Ok(PAGE.to_vec()), "{headers}");
        }
    }

    #[test]
    fn damage_is_named_unless_it_is_known() {
        let chunks = b"5\r\nabcde\r\n5\r\nfg";
        let short = "corrupt_record: byte 10 of the body: a chunk of 5 bytes has 2";
        assert_eq!(body("Transfer-Encoding: chunked\r\n", chunks, false), Err(short.to_owned()));
        assert_eq!(body("Transfer-Encoding: chunked\r\n", chunks, true), Ok(b"abcdefg".to_vec()));
        let gzip = compressed("gzip");
        let found = body("Content-Encoding: gzip\r\n", &gzip[..gzip.len() - 9], false).expect_err("cut off");
        assert!(found.starts_with("corrupt_record: content coding gzip: "), "{found}");
        let found = body("Content-Encoding: compress\r\n", &[0x1F, 0x9D, 0x90], false);
        assert_eq!(found, Err("corrupt_record: content coding compress: expected gzip, deflate, br or zstd".to_owned()));
    }

    #[test]
    fn a_bomb_is_too_large() {
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        bomb.write_all(&[b'a'; 1 << 20]).expect("written");
        let found = body("Content-Encoding: gzip\r\n", &bomb.finish().expect("compressed"), false);
        assert_eq!(found, Err("too_large: content coding gzip: more than 1024 bytes".to_owned()));
    }
}
