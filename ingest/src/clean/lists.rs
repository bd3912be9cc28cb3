//! Lists given as files: one entry a line, plain or gzip, `#` opens a comment line.
//!
//! Promises: entries come trimmed and never empty; what is not text is an error that names list and line. Deliberately
//! absent: fetching, which the caller does; archives of several lists.

use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Kind, Result};

/// Reads an object by its path or URL.
pub(crate) type ReadObject<'a> = &'a dyn Fn(&str) -> std::result::Result<Vec<u8>, String>;

/// The bytes of the object at `place`, unpacked where they are gzip.
pub(super) fn unpacked(place: &str, read: ReadObject<'_>) -> Result<Vec<u8>> {
    let bytes = fetched(place, read)?;
    if !is_gzip(&bytes) {
        return Ok(bytes);
    }
    let mut plain = Vec::new();
    MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain).map_err(|error| bad(place, format!("damaged gzip: {error}")))?;
    Ok(plain)
}

/// Visits every entry of the list at `place`. A packed list is unpacked as it is read, never whole.
pub(super) fn entries(place: &str, read: ReadObject<'_>, mut visit: impl FnMut(&str)) -> Result<()> {
    let bytes = fetched(place, read)?;
    let mut lines: Box<dyn BufRead + '_> = match is_gzip(&bytes) {
        true => Box::new(BufReader::new(MultiGzDecoder::new(&bytes[..]))),
        false => Box::new(&bytes[..]),
    };
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        if lines.read_until(b'\n', &mut line).map_err(|error| bad(place, format!("line {number}: {error}")))? == 0 {
            break;
        }
        let text = std::str::from_utf8(&line).map_err(|_| bad(place, format!("line {number} is not UTF-8")))?;
        let entry = text.trim_start_matches('\u{FEFF}').trim();
        if !entry.is_empty() && !entry.starts_with('#') {
            visit(entry);
        }
    }
    Ok(())
}

fn fetched(place: &str, read: ReadObject<'_>) -> Result<Vec<u8>> {
    read(place).map_err(|reason| bad(place, reason))
}

fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1F, 0x8B])
}

fn bad(place: &str, reason: String) -> Error {
    Error::new(Kind::Invalid, format!("list `{place}`: {reason}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn listed(bytes: &[u8]) -> std::result::Result<Vec<String>, String> {
        let mut found = Vec::new();
        let read = |_: &str| Ok(bytes.to_vec());
        entries("a.txt", &read, |entry| found.push(entry.to_owned())).map(|()| found).map_err(|error| error.to_string())
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn entries_are_trimmed_and_comments_left_out() {
        let text = "\u{FEFF}one \r\n\n# a comment\n two words\nlast";
        let expected = Ok(["one", "two words", "last"].map(str::to_owned).to_vec());
        assert_eq!(listed(text.as_bytes()), expected);
        assert_eq!(listed(&packed(text.as_bytes())), expected);
        assert_eq!(unpacked("a", &|_| Ok(packed(b"ab"))).expect("gzip"), b"ab");
    }

    #[test]
    fn faults_name_list_and_line() {
        assert_eq!(listed(b"a\n\xFF\n"), Err("list `a.txt`: line 2 is not UTF-8".to_owned()));
        let whole = packed(b"abc\n".repeat(100).as_slice());
        assert!(listed(&whole[..whole.len() - 9]).expect_err("truncated").starts_with("list `a.txt`: line"));
        assert!(unpacked("a", &|_| Ok(whole[..whole.len() - 9].to_vec())).is_err());
        let error = entries("gone", &|_| Err("no such file".to_owned()), |_| ()).expect_err("gone").to_string();
        assert_eq!(error, "list `gone`: no such file");
    }
}
