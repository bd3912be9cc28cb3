//! Character sets that a protocol header, the head of a page or an XML declaration names.
//!
//! The search in a page follows the prescan of the HTML standard in spirit: its first bytes, `<meta charset>` or
//! `http-equiv`, comments skipped; a page that names UTF-16 in letters of ASCII means UTF-8.

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

use super::Claim;

/// Bytes of markup that are searched; the standard asks for 1,024, writers need more.
const PRESCAN_BYTES: usize = 4096;

/// The encodings that are claimed, the most trusted first.
pub(super) fn encodings(bytes: &[u8], claim: Claim<'_>) -> impl Iterator<Item = &'static Encoding> {
    let header = claim.charset.and_then(|label| Encoding::for_label(label.trim().as_bytes()));
    let page = if claim.markup { prescan(&bytes[..bytes.len().min(PRESCAN_BYTES)]) } else { None };
    header.into_iter().chain(page.filter(|page| Some(*page) != header))
}

fn prescan(head: &[u8]) -> Option<&'static Encoding> {
    let head = head.to_ascii_lowercase();
    let mut at = 0;
    while let Some(start) = memchr::memchr(b'<', &head[at..]).map(|start| at + start) {
        let tag = &head[start..];
        at = start + 1;
        if tag.starts_with(b"<!--") {
            at = start + 2 + memchr::memmem::find(&tag[2..], b"-->")?;
            continue;
        }
        let key: &[u8] = if tag.starts_with(b"<meta") {
            b"charset"
        } else if tag.starts_with(b"<?xml") {
            b"encoding"
        } else {
            continue;
        };
        let tag = &tag[..memchr::memchr(b'>', tag).unwrap_or(tag.len())];
        if let Some(encoding) = value(tag, key).and_then(Encoding::for_label) {
            return Some(if encoding == UTF_16LE || encoding == UTF_16BE { UTF_8 } else { encoding });
        }
    }
    None
}

/// The value behind `key` and `=` in a tag.
fn value<'a>(tag: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    memchr::memmem::find_iter(tag, key).find_map(|at| {
        let rest = tag[at + key.len()..].trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
        let rest = rest.strip_prefix(b"\"").or_else(|| rest.strip_prefix(b"'")).unwrap_or(rest).trim_ascii_start();
        let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\'' | b';' | b'/' | b'?') || byte.is_ascii_whitespace());
        Some(&rest[..end.unwrap_or(rest.len())]).filter(|value| !value.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_page_names_its_character_set() {
        for (head, name) in [
            ("<html><head><meta charset=gbk>", Some("GBK")),
            ("<META CharSet = \"ISO-8859-2\" />", Some("ISO-8859-2")),
            ("<meta http-equiv='Content-Type' content='text/html; charset=Shift_JIS'>", Some("Shift_JIS")),
            ("<!-- <meta charset=gbk> --><meta charset=koi8-r>", Some("KOI8-R")),
            ("<!--><meta charset=koi8-r>", Some("KOI8-R")),
            ("<?xml version='1.0' encoding='windows-1251'?><rss>", Some("windows-1251")),
            ("<meta charset=utf-16>", Some("UTF-8")),
            ("<meta charset=klingon><meta name=charset content=x>", None),
            ("<p>charset=gbk", None),
            ("<meta charset", None),
        ] {
            assert_eq!(prescan(head.as_bytes()).map(Encoding::name), name, "{head}");
        }
    }

    #[test]
    fn the_header_is_trusted_before_the_page() {
        let claim = Claim { charset: Some(" Big5 "), markup: true };
        let names: Vec<&str> = encodings(b"<meta charset=gbk>", claim).map(Encoding::name).collect();
        assert_eq!(names, ["Big5", "GBK"]);
    }
}
