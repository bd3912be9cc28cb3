//! Bytes to text: UTF-8, or UTF-16 that says so by its byte order mark.
//!
//! Everything else is `bad_encoding`, with the place. Deliberately absent: guessing an encoding; a wrong guess makes
//! text that looks fine and is not.

use std::borrow::Cow;

use super::Rejection;

/// Text without its byte order mark.
pub(crate) fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, Rejection> {
    let text = match bytes {
        [0xFF, 0xFE, rest @ ..] => Cow::Owned(utf16(rest, u16::from_le_bytes)?),
        [0xFE, 0xFF, rest @ ..] => Cow::Owned(utf16(rest, u16::from_be_bytes)?),
        _ => {
            let rest = bytes.strip_prefix(&[0xEF, 0xBB, 0xBF]).unwrap_or(bytes);
            let offset = bytes.len() - rest.len();
            let bad = |error: std::str::Utf8Error| bad(format!("not UTF-8 at byte {}", offset + error.valid_up_to()));
            Cow::Borrowed(std::str::from_utf8(rest).map_err(bad)?)
        }
    };
    let nuls = text.bytes().filter(|byte| *byte == 0).count();
    // A stray NUL is dropped by the normaliser; more than one in a hundred bytes is a binary.
    if nuls * 100 > text.len() {
        return Err(bad(format!("{nuls} NUL bytes in {}", text.len())));
    }
    Ok(text)
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, Rejection> {
    let pairs = bytes.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(bad(format!("UTF-16 of an odd number of bytes, {}", bytes.len())));
    }
    char::decode_utf16(pairs.map(|pair| unit([pair[0], pair[1]])))
        .collect::<Result<String, _>>()
        .map_err(|error| bad(format!("unpaired surrogate {:#06x} in UTF-16", error.unpaired_surrogate())))
}

fn bad(detail: String) -> Rejection {
    Rejection::new("bad_encoding", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_dropped_and_obeyed() {
        assert_eq!(decode(b"\xEF\xBB\xBFab").as_deref(), Ok("ab"));
        assert_eq!(decode(b"\xFF\xFEa\0\xE4\0").as_deref(), Ok("aä"));
        assert_eq!(decode(b"\xFE\xFF\0a\0\xE4").as_deref(), Ok("aä"));
    }

    #[test]
    fn what_is_not_text_is_rejected_with_the_place() {
        for (bytes, detail) in [
            (&b"ab\xFFcd"[..], "not UTF-8 at byte 2"),
            (b"\xEF\xBB\xBFa\xC3", "not UTF-8 at byte 4"),
            (b"\xFF\xFEa", "UTF-16 of an odd number of bytes, 1"),
            (b"\xFF\xFE\x00\xD8", "unpaired surrogate 0xd800 in UTF-16"),
            (b"ELF\0\0\0\0", "4 NUL bytes in 7"),
        ] {
            assert_eq!(decode(bytes), Err(bad(detail.to_owned())));
        }
    }
}
