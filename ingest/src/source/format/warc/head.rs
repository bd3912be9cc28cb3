//! Heads of records: the named fields of WARC 0.17 to 1.1 (ISO 28500), and the line of ARC 1 and 2 (Burner and Kahle, 1996).
//!
//! Read as writers write them, not only as the standards ask: LF line ends, continued lines, a URL in angle brackets or
//! with blanks in it. Deliberately absent: fields that decide nothing here.

use std::io::{Read, Result};

use super::window::Window;

/// A larger head is damage.
const HEAD_BYTES: u64 = 1 << 20;
/// A longer line of an ARC is not a head.
const ARC_LINE_BYTES: usize = 64 << 10;

/// What a head says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Head {
    /// Type of the record, lower case; that of an ARC record is `response`, of its first one `warcinfo`.
    pub(super) kind: String,
    /// Length of the block behind the head.
    pub(super) length: u64,
    pub(super) url: Option<String>,
    /// Media type of the block.
    pub(super) media: String,
    /// Whether the writer has said that the content is cut off.
    pub(super) truncated: bool,
    /// Whether the block may be a message without an HTTP head, as old ARC files have it.
    pub(super) arc: bool,
}

/// Which of the two is being read; known from the first record on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Warc,
    Arc,
}

/// Why a head is none.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Bad {
    /// Something else follows.
    Absent(String),
    /// A head, and damaged.
    Damaged(String),
}

/// What follows in the stream: a head, or why it is none.
pub(super) fn read<R: Read>(window: &mut Window<R>, kind: &mut Option<Kind>) -> Result<std::result::Result<Head, Bad>> {
    if window.peek(5)?.starts_with(b"WARC/") {
        *kind = Some(Kind::Warc);
        return Ok(warc(window)?.map_err(Bad::Damaged));
    }
    let mut line = Vec::new();
    if *kind != Some(Kind::Warc)
        && window.line(ARC_LINE_BYTES, &mut line)?
        && let Some(head) = arc(&line)
    {
        *kind = Some(Kind::Arc);
        return Ok(head.map_err(Bad::Damaged));
    }
    Ok(Err(Bad::Absent(format!("found no head of a {} record", if *kind == Some(Kind::Arc) { "ARC" } else { "WARC" }))))
}

/// Moves to the next line that can be a head; false if there is none.
pub(super) fn find<R: Read>(window: &mut Window<R>, kind: Option<Kind>) -> Result<bool> {
    let mut line = Vec::new();
    loop {
        if window.peek(6)?.starts_with(b"WARC/") && window.peek(6)?.get(5).is_some_and(u8::is_ascii_digit) {
            return Ok(true);
        }
        if kind != Some(Kind::Warc) {
            let start = window.position();
            if window.line(ARC_LINE_BYTES, &mut line)? {
                if arc(&line).is_some() {
                    window.rewind(start);
                    if window.position() == start {
                        return Ok(true);
                    }
                }
                continue;
            }
        }
        if !window.next_line()? {
            return Ok(false);
        }
    }
}

fn warc<R: Read>(window: &mut Window<R>) -> Result<std::result::Result<Head, String>> {
    let start = window.position();
    let mut line = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    // The version: its digits decide nothing, the fields are the same in all.
    window.line(64, &mut line)?;
    if !matches!(line.get(5..8), Some([b'0' | b'1', b'.', b'0'..=b'9'])) {
        return Ok(Err(format!("version `{}`, expected WARC/0.17 to WARC/1.1", String::from_utf8_lossy(&line))));
    }
    loop {
        if !window.line(HEAD_BYTES as usize, &mut line)? {
            return Ok(Err("the head is cut off".to_owned()));
        }
        if line.is_empty() {
            return Ok(fields_to_head(&fields));
        }
        if window.position() - start > HEAD_BYTES {
            return Ok(Err(format!("a head of more than {HEAD_BYTES} bytes")));
        }
        let text = String::from_utf8_lossy(&line);
        match (text.split_once(':'), fields.last_mut()) {
            (_, Some((_, value))) if text.starts_with([' ', '\t']) => {
                value.push(' ');
                value.push_str(text.trim());
            }
            (Some((name, value)), _) => fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned())),
            (None, _) => return Ok(Err(format!("a line of the head without a colon, {} bytes", line.len()))),
        }
    }
}

fn fields_to_head(fields: &[(String, String)]) -> std::result::Result<Head, String> {
    let field = |name: &str| fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    let length = field("content-length").ok_or("no Content-Length in the head")?;
    Ok(Head {
        kind: field("warc-type").unwrap_or_default().to_ascii_lowercase(),
        length: length.parse().map_err(|_| format!("Content-Length `{}`", shortened(length)))?,
        url: field("warc-target-uri").map(|url| url.trim_start_matches('<').trim_end_matches('>').to_owned()).filter(|url| !url.is_empty()),
        media: field("content-type").unwrap_or_default().to_owned(),
        truncated: field("warc-truncated").is_some(),
        arc: false,
    })
}

/// The head in a line of an ARC; none if the line is something else, an error if it is one with a length that is none.
fn arc(line: &[u8]) -> Option<std::result::Result<Head, String>> {
    let line = std::str::from_utf8(line).ok()?;
    // A URL may hold blanks, so count from the end: version 1 has 4 fields behind the URL, version 2 has 9.
    let fields: Vec<&str> = line.rsplitn(11, ' ').collect();
    let at = [3, 8].into_iter().find(|at| is_address(fields.get(*at)) && is_date(fields.get(at - 1)))?;
    let behind: usize = fields[..=at].iter().map(|field| field.len() + 1).sum();
    let url = line.get(..line.len().checked_sub(behind)?)?;
    if !url.contains(':') {
        return None;
    }
    let length = match fields[0].parse() {
        Ok(length) => length,
        Err(_) => return Some(Err(format!("length `{}` in the head", shortened(fields[0])))),
    };
    let kind = if url.starts_with("filedesc:") { "warcinfo" } else { "response" };
    let media = fields[at - 2].to_owned();
    Some(Ok(Head { kind: kind.to_owned(), length, url: Some(url.to_owned()), media, truncated: false, arc: true }))
}

fn is_address(field: Option<&&str>) -> bool {
    field.is_some_and(|field| field.parse::<std::net::IpAddr>().is_ok())
}

fn is_date(field: Option<&&str>) -> bool {
    field.is_some_and(|field| (8..=20).contains(&field.len()) && field.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A value for a message.
fn shortened(value: &str) -> String {
    value.chars().take(40).collect()
}

/// Skips what stands between records: line ends and padding.
pub(super) fn skip_blank<R: Read>(window: &mut Window<R>) -> Result<()> {
    window.skip_while(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> std::result::Result<Head, Bad> {
        read(&mut Window::new(text.as_bytes(), Vec::new()), &mut None).expect("no error")
    }

    #[test]
    fn fields_are_read_in_any_case_and_order() {
        let text = "WARC/0.18\ncontent-length:  12\r\nWARC-TYPE: Response\r\nX: a\r\n  b\r\nWARC-Target-URI: <http://a/ b>\r\n\
                    Content-Type: application/http; msgtype=response\r\nWARC-Truncated: length\r\n\r\nabc";
        let expected = Head {
            kind: "response".to_owned(),
            length: 12,
            url: Some("http://a/ b".to_owned()),
            media: "application/http; msgtype=response".to_owned(),
            truncated: true,
            arc: false,
        };
        assert_eq!(head(text), Ok(expected));
    }

    #[test]
    fn a_head_that_is_damaged_says_how() {
        for (text, detail) in [
            ("WARC/2.0\r\n\r\n", "version `WARC/2.0`, expected WARC/0.17 to WARC/1.1"),
            ("WARC/1.0\r\nWARC-Type: response\r\n\r\n", "no Content-Length in the head"),
            ("WARC/1.0\r\nContent-Length: -3\r\n\r\n", "Content-Length `-3`"),
            ("WARC/1.0\r\nContent-Length: 3\r\n", "the head is cut off"),
            ("WARC/1.0\r\nContent-Length 3\r\n\r\n", "a line of the head without a colon, 16 bytes"),
            ("http://a/ 1.2.3.4 20140401000000 text/html abc\n", "length `abc` in the head"),
        ] {
            assert_eq!(head(text), Err(Bad::Damaged(detail.to_owned())), "{text}");
        }
        assert_eq!(head("nonsense\n"), Err(Bad::Absent("found no head of a WARC record".to_owned())));
    }

    #[test]
    fn an_arc_line_may_have_blanks_in_its_url() {
        for (line, url, media, length) in [
            ("http://a/x y z 1.2.3.4 20140401000000 text/html 17\n", "http://a/x y z", "text/html", 17),
            ("http://a/ 1.2.3.4 20140401000000 text/html 200 checksum - 120 a.arc 17\n", "http://a/", "text/html", 17),
            ("http://a/ ::1 20140401000000 text/plain 0", "http://a/", "text/plain", 0),
        ] {
            let found = head(line).expect("a head");
            assert_eq!((found.url.as_deref(), found.media.as_str(), found.length), (Some(url), media, length), "{line}");
        }
    }
}
