//! Archives written here, with damage planted, and archives as crawlers wrote them.

use std::collections::HashSet;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

/// All records, and how reading ended.
fn records(mut bytes: &[u8], max: u64) -> (Vec<RawRecord>, Result<()>) {
    let mut records = Vec::new();
    let outcome = read("", &mut bytes, max, &mut |record| {
        records.push(record);
        Flow::Continue(())
    });
    (records, outcome)
}

/// Places and contents, one line each.
fn told(bytes: &[u8]) -> Vec<String> {
    let (records, outcome) = records(bytes, 1 << 20);
    outcome.expect("no error of the input");
    let line = |record: RawRecord| match record.content {
        Ok(Content::Html { bytes, charset }) => format!("{} html {:?} {}", record.place, charset, String::from_utf8_lossy(&bytes)),
        Ok(Content::Plain { bytes, charset }) => format!("{} plain {:?} {}", record.place, charset, String::from_utf8_lossy(&bytes)),
        Ok(other) => format!("{} {other:?}", record.place),
        Err(rejection) => format!("{} {}: {}", record.place, rejection.reason, rejection.detail),
    };
    records.into_iter().map(line).collect()
}

fn page(name: &str) -> Vec<u8> {
    let block = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=latin1\r\n\r\n<p>{name}");
    record("response", "application/http; msgtype=response", name, block.as_bytes())
}

fn record(kind: &str, media: &str, name: &str, block: &[u8]) -> Vec<u8> {
    let length = block.len();
    let head = format!(
        "WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://{name}/\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), block, b"\r\n\r\n"].concat()
}

fn member(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("written");
    encoder.finish().expect("compressed")
}

#[test]
fn only_text_of_pages_is_a_record() {
    let not_found = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\n<p>none";
    let picture = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n\x89PNG";
    let bare = b"HTTP/1.1 200 OK\r\n\r\n <!DOCTYPE HTML><p>bare";
    let parts = [
        record("warcinfo", "application/warc-fields", "a", b"software: x\r\n"),
        record("request", "application/http; msgtype=request", "a", b"GET / HTTP/1.1\r\n\r\n"),
        page("a"),
        record("response", "application/http;msgtype=response", "b", not_found),
        record("response", "application/http;msgtype=response", "c", picture),
        record("response", "application/http;msgtype=response", "d", bare),
        record("revisit", "application/http;msgtype=response", "a", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"),
        record("response", "text/dns", "dns:a", b"20140101000000\n"),
        record("metadata", "text/plain", "a", b"note"),
        record("resource", "text/html;charset=\"utf-8\"", "e", b"<p>e"),
        record("resource", "image/png", "f", b"\x89PNG"),
        record("conversion", "text/plain", "g", b"text"),
    ];
    let at = |index: usize| parts[..index].iter().map(Vec::len).sum::<usize>();
    let expected = [
        format!("#{} html Some(\"latin1\") <p>a", at(2)),
        format!("#{} html None  <!DOCTYPE HTML><p>bare", at(5)),
        format!("#{} html Some(\"utf-8\") <p>e", at(9)),
        format!("#{} plain None text", at(11)),
    ];
    assert_eq!(told(&parts.concat()), expected);
    // One member a record, and one member for all.
    let members: Vec<Vec<u8>> = parts.iter().map(|part| member(part)).collect();
    let at = |index: usize| members[..index].iter().map(Vec::len).sum::<usize>();
    let starts: Vec<String> = told(&members.concat()).iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(starts, [2, 5, 9, 11].map(|index| format!("#{}", at(index))));
    let whole = told(&member(&parts.concat()));
    assert_eq!(whole, expected.map(|line| line.replacen('#', "#0+", 1)));
}

#[test]
fn a_truncated_member_is_a_fault_not_a_gap() {
    let (a, b, c) = (member(&page("a")), member(&page("b")), member(&page("c")));
    let cut = &b[..b.len() - 20];
    let lines = told(&[&a, cut, &c].concat());
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[0], "#0 html Some(\"latin1\") <p>a");
    assert!(lines[1].starts_with(&format!("#{} corrupt_record: ", a.len())), "{lines:?}");
    assert_eq!(lines[2], format!("#{} html Some(\"latin1\") <p>c", a.len() + cut.len()));
    let lines = told(&[&a, cut].concat());
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains("corrupt_record"), "{lines:?}");
}

#[test]
fn a_checksum_that_does_not_fit_condemns_the_record() {
    let (a, mut b, c) = (member(&page("a")), member(&page("b")), member(&page("c")));
    let crc = b.len() - 8;
    b[crc] ^= 1;
    let lines = told(&[a.clone(), b.clone(), c].concat());
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[1].starts_with(&format!("#{} corrupt_record", a.len())), "{lines:?}");
    assert!(lines[2].ends_with("<p>c"), "{lines:?}");
}

#[test]
fn what_is_no_member_between_members_is_one_fault() {
    let (a, b) = (member(&page("a")), member(&page("b")));
    let lines = told(&[&a[..], &[0; 512], b"garbage \x1F\x8B\x08\x00 garbage", &b, &[0; 99]].concat());
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[1], format!("#{0} corrupt_record: byte {0}: expected a gzip member", a.len() + 512));
    assert!(lines[2].ends_with("<p>b"), "{lines:?}");
}

#[test]
fn a_wrong_length_is_a_fault_and_the_next_record_is_found() {
    let (a, b, c) = (page("a"), page("b"), page("c"));
    let [short, long] = ["61", "163"]
        .map(|length| String::from_utf8_lossy(&b).replace("Content-Length: 64", &format!("Content-Length: {length}")).into_bytes());
    assert_ne!(short, b, "a length was replaced");
    for wrong in [short, long] {
        let lines = told(&[&a[..], &wrong, &c].concat());
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[1].starts_with(&format!("#{} corrupt_record: byte ", a.len())), "{lines:?}");
        assert_eq!(lines[2], format!("#{} html Some(\"latin1\") <p>c", a.len() + wrong.len()));
    }
}

#[test]
fn a_record_cut_off_by_the_next_or_by_the_end_is_a_fault() {
    let (a, b) = (page("a"), page("b"));
    let cut = &a[..a.len() - 9];
    let lines = told(&[cut, b"\r\n", &b].concat());
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("#0 corrupt_record: "), "{lines:?}");
    assert!(lines[1].ends_with("<p>b"), "{lines:?}");
    assert_eq!(told(cut), ["#0 corrupt_record: cut off: 59 of 64 bytes"]);
    assert_eq!(told(&a[..20]), ["#0 corrupt_record: byte 0: the head is cut off"]);
}

#[test]
fn a_damaged_head_does_not_condemn_the_record_before_it() {
    let bad = String::from_utf8_lossy(&page("b")).replace("Content-Length: ", "Content-Length: x").into_bytes();
    let lines = told(&[&page("a")[..], &bad, &page("c")].concat());
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].ends_with("<p>a") && lines[2].ends_with("<p>c"), "{lines:?}");
    assert!(lines[1].ends_with("Content-Length `x64`"), "{lines:?}");
}

#[test]
fn what_is_no_archive_is_one_fault() {
    assert_eq!(told(b""), [""; 0]);
    assert_eq!(told(b"\0\0\r\n"), [""; 0]);
    assert_eq!(told(b"<html>\n<p>a page"), ["#0 corrupt_record: byte 0: found no head of a WARC record"]);
    assert_eq!(told(&member(b"<html>\n<p>a page")), ["#0 corrupt_record: byte 0: found no head of a WARC record"]);
    assert_eq!(told(b"\x1F\x8B\x08\x00 no gzip").len(), 1);
}

#[test]
fn a_large_record_is_too_large_only_if_it_is_text() {
    let html = [b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", &[b'x'; 2000][..]].concat();
    let film = [b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n\r\n", &[b'x'; 2000][..]].concat();
    let bytes = [record("response", "application/http", "a", &html), record("response", "application/http", "b", &film)].concat();
    let (records, outcome) = records(&bytes, 1000);
    outcome.expect("no error");
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].content, Err(Rejection::new("too_large", "2000 bytes")));
}

#[test]
fn a_failing_input_is_an_error() {
    struct Failing<'a>(&'a [u8]);
    impl Read for Failing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
            if self.0.is_empty() { Err(std::io::Error::other("the network")) } else { self.0.read(buffer) }
        }
    }
    for bytes in [page("a"), member(&page("a"))] {
        let outcome = read("", &mut Failing(&bytes[..bytes.len() - 5]), 1 << 20, &mut |_| Flow::Continue(()));
        assert_eq!(outcome.expect_err("fails").to_string(), "the network");
    }
}

#[test]
fn a_visitor_can_stop() {
    for bytes in [[page("a"), page("b"), page("c")].concat(), [member(&page("a")), member(&page("b"))].concat()] {
        let mut count = 0;
        let outcome = read("", &mut &bytes[..], 1 << 20, &mut |_| {
            count += 1;
            Flow::Break(())
        });
        outcome.expect("no error");
        assert_eq!(count, 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damage_anywhere_hides_no_record_elsewhere(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), gzip: bool) {
        let names: Vec<String> = (0..6).map(|name| format!("page-{name}")).collect();
        let parts: Vec<Vec<u8>> = names.iter().map(|name| if gzip { member(&page(name)) } else { page(name) }).collect();
        let mut bytes = parts.concat();
        let mut hit = HashSet::new();
        for (index, value) in &flips {
            let at = index.index(bytes.len());
            bytes[at] = *value;
            let mut end = 0;
            let part = parts.iter().position(|part| { end += part.len(); at < end });
            hit.extend(part);
            // The line end that a record begins behind belongs to both.
            hit.extend(part.filter(|_| !gzip && at + 1 == end).map(|part| part + 1));
        }
        let lines = told(&bytes);
        let places: HashSet<&str> = lines.iter().filter_map(|line| line.split(' ').next()).collect();
        prop_assert_eq!(places.len(), lines.len());
        for (number, name) in names.iter().enumerate() {
            // The record before may be condemned by what follows it.
            let near = hit.contains(&number) || (!gzip && hit.contains(&(number + 1)));
            let found = lines.iter().any(|line| line.ends_with(&format!("<p>{name}")));
            prop_assert!(found || near, "{} of {:?}", name, lines);
            // Without a checksum a letter may turn into another one unnoticed.
            prop_assert!(found || !gzip || lines.iter().any(|line| line.contains("corrupt_record")), "{:?}", lines);
        }
    }

    #[test]
    fn any_bytes_are_read_to_the_end(bytes in prop::collection::vec(any::<u8>(), 0..300), start in 0..4usize) {
        let start = [&b""[..], b"WARC/1.0\r\n", GZIP, b"filedesc://a 1.2.3.4 20140401000000 text/plain 3\n"][start];
        let (records, outcome) = records(&[start, &bytes].concat(), 100);
        prop_assert!(outcome.is_ok());
        let places: HashSet<&String> = records.iter().map(|record| &record.place).collect();
        prop_assert_eq!(places.len(), records.len());
    }
}

/// The files of an item of real data by name; none without the data.
fn item(name: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let Ok(folder) = std::env::var("FOREBAY_TEST_DATA") else {
        println!("skipped: no test data");
        return None;
    };
    let file = std::fs::File::open(std::path::Path::new(&folder).join(format!("{name}.tar.zst"))).expect("the item");
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).expect("zstd"));
    let mut files = Vec::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a path").file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("read");
        files.push((name, bytes));
    }
    files.sort();
    Some(files)
}

/// Pages, plain texts and faults.
fn counts(bytes: &[u8]) -> [usize; 3] {
    let (records, outcome) = records(bytes, 16 << 20);
    outcome.expect("no error of the input");
    let mut counts = [0; 3];
    for record in &records {
        counts[match record.content {
            Ok(Content::Html { .. }) => 0,
            Ok(_) => 1,
            Err(_) => 2,
        }] += 1;
    }
    counts
}

/// Files with their pages, plain texts and faults.
fn all_counts(files: &[(String, Vec<u8>)]) -> Vec<(&str, [usize; 3])> {
    files.iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(name, bytes)| (name.as_str(), counts(bytes))).collect()
}

#[test]
fn crawls_of_others_are_read_whole() {
    let Some(files) = item("warc_aut_dev") else { return };
    // Of the 299 responses 130 are text with a status of 2xx; the same crawl as ARC has the same.
    let expected = [("badexample.arc.gz", [0, 0, 3]), ("example.arc.gz", [94, 36, 0]), ("example.warc.gz", [94, 36, 0])];
    assert_eq!(all_counts(&files), expected);
    let Some(files) = item("warc_cc_whirlwind") else { return };
    let expected = [
        ("CC-MAIN-2024-22.warc.paths.gz", [0, 0, 1]),
        ("whirlwind.warc", [1, 0, 0]),
        ("whirlwind.warc.gz", [1, 0, 0]),
        ("whirlwind.warc.wat", [0, 0, 0]),
        ("whirlwind.warc.wat.gz", [0, 0, 0]),
        ("whirlwind.warc.wet", [0, 1, 0]),
        ("whirlwind.warc.wet.gz", [0, 1, 0]),
    ];
    assert_eq!(all_counts(&files), expected);
}

#[test]
fn good_and_bad_archives_get_their_verdicts() {
    let Some(files) = item("warc_warcio") else { return };
    let expected = [
        ("bad.arc", [0, 1, 3]),
        ("example-bad-non-chunked.warc.gz", [1, 0, 0]),
        ("example-bad.warc.gz.bad", [1, 0, 0]),
        ("example-digest.warc", [0, 0, 0]),
        ("example-iana.org-chunked.warc", [1, 0, 0]),
        ("example-resource.warc.gz", [1, 0, 0]),
        ("example-space-in-target-uri.warc.gz", [0, 0, 0]),
        ("example-space-in-url.arc", [0, 0, 1]),
        ("example-trunc.warc", [0, 0, 1]),
        ("example-wget-bad-target-uri.warc.gz", [1, 0, 0]),
        ("example-wrong-chunks.warc.gz", [0, 0, 1]),
        ("example.arc", [1, 0, 0]),
        ("example.arc.gz", [1, 0, 0]),
        ("example.warc", [1, 0, 0]),
        ("example.warc.gz", [1, 0, 0]),
        ("post-test.warc.gz", [0, 0, 0]),
    ];
    assert_eq!(all_counts(&files), expected);
}
