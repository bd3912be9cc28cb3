//! Objects of every kind in memory, and what holds for all of them: cuts of the reads, failing inputs, bombs.

use std::collections::HashSet;
use std::io::{self, Cursor, Read, Write};
use std::ops::ControlFlow;

use forebay_schemas::dataset::Modality;
use forebay_schemas::pipeline::Formats;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Reading, read};
use crate::source::fault;
use crate::source::raw::{Content, RawRecord};

/// How a test reads.
pub(in crate::source) struct Trial {
    pub(in crate::source) formats: Formats,
    pub(in crate::source) modality: Modality,
    pub(in crate::source) max_record_bytes: u64,
}

impl Trial {
    pub(in crate::source) fn text() -> Self {
        Self { formats: Formats::default(), modality: Modality::Text, max_record_bytes: 16 << 20 }
    }

    pub(in crate::source) fn images() -> Self {
        Self { modality: Modality::Images, ..Self::text() }
    }

    pub(in crate::source) fn field(mut self, name: &str) -> Self {
        self.formats.text_field = name.to_owned();
        self
    }

    pub(in crate::source) fn read(&self, key: &str, bytes: &[u8]) -> Vec<RawRecord> {
        self.read_from(key, &mut &bytes[..]).0.expect("bytes in memory do not fail")
    }

    pub(in crate::source) fn read_from(&self, key: &str, input: &mut dyn Read) -> (Result<Vec<RawRecord>, io::Error>, Vec<RawRecord>) {
        let reading = Reading { formats: &self.formats, modality: self.modality, max_record_bytes: self.max_record_bytes };
        let (mut records, mut places) = (Vec::new(), HashSet::new());
        let outcome = read(key, input, reading, &mut |record| {
            assert!(places.insert(record.place.clone()), "{key}: two records at `{}`", record.place);
            assert!(record.place.is_empty() || record.place.starts_with('#'), "{key}: place `{}`", record.place);
            records.push(record);
            ControlFlow::Continue(())
        });
        (outcome.map(|()| records.clone()), records)
    }
}

/// The texts of good records.
pub(in crate::source) fn texts(records: &[RawRecord]) -> Vec<String> {
    let text = |record: &RawRecord| match record.content.as_ref().ok()? {
        Content::Text(text) => Some(text.clone()),
        Content::Plain { bytes, .. } | Content::Html { bytes, .. } => Some(String::from_utf8_lossy(bytes).into_owned()),
        Content::Image(_) => None,
    };
    records.iter().filter_map(text).collect()
}

/// Places and reasons of bad records.
pub(in crate::source) fn faults(records: &[RawRecord]) -> Vec<(&str, &str)> {
    records.iter().filter_map(|record| Some((record.place.as_str(), &*record.content.as_ref().err()?.reason))).collect()
}

pub(in crate::source) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("gzip");
    encoder.finish().expect("gzip")
}

pub(in crate::source) fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 3).expect("zstd");
    encoder.include_checksum(true).expect("zstd");
    encoder.write_all(bytes).expect("zstd");
    encoder.finish().expect("zstd")
}

pub(in crate::source) fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::fast());
    encoder.write_all(bytes).expect("bzip2");
    encoder.finish().expect("bzip2")
}

pub(in crate::source) fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(bytes).expect("xz");
    encoder.finish().expect("xz")
}

pub(in crate::source) fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).expect("tar");
    }
    builder.into_inner().expect("tar")
}

pub(in crate::source) fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ::zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        writer.start_file(*name, ::zip::write::SimpleFileOptions::default()).expect("zip");
        writer.write_all(bytes).expect("zip");
    }
    writer.finish().expect("zip").into_inner()
}

/// A line of JSON with this text.
pub(in crate::source) fn line(text: &str) -> String {
    format!("{}\n", serde_json::json!({"id": 7, "text": text, "url": "http://x/"}))
}

pub(in crate::source) fn lines(count: usize) -> String {
    (0..count).map(|number| line(&format!("document {number} \"quoted\" \n ä 漢字"))).collect()
}

/// Objects of every kind, each with some good and some bad records.
fn objects() -> Vec<(&'static str, Vec<u8>)> {
    let jsonl = format!("\u{FEFF}{}\r\n\n{{\"text\": 3}}\n{{oops\n{}{{\"text\":\"last\"}}", lines(20), line("more"));
    let array = format!("\u{FEFF} [{}, {{\"x\":[]}} , \"bare\"]\n", lines(9).trim_end().replace('\n', ",\n "));
    let pretty = "{\n \"text\": \"a{\\\"}\"\n}\n{\n \"text\": \"b\"}\n".to_owned();
    let csv = "\u{FEFF}id,text,url\r\n1,\"a \"\"b\"\"\nc\",http://x\r\n2,only\r\n3,plain,\r\n";
    let xml = concat!(
        "\u{FEFF}<?xml version=\"1.0\"?>\n<posts>\n<!-- <row Body=\"no\"/> -->\n",
        " <row Id=\"1\" Title=\"A &amp; B\" Body=\"&lt;p&gt;x&gt;y&lt;/p&gt;\" />\n",
        " <row Id=\"2\" Body=\"broken <row Id=\"3\" Text=\"c&#xA;d\"/>\n <row Id=\"4\"/>\n</posts>\n",
    );
    let members: [(&str, &[u8]); 5] = [
        ("d/a.jsonl", jsonl.as_bytes()),
        ("d/b.txt", b"plain"),
        ("d/c.html", b"<p>page</p>"),
        ("d/d#.csv", csv.as_bytes()),
        ("d/e.bin", b"\0\0"),
    ];
    vec![
        ("a.jsonl", jsonl.clone().into_bytes()),
        ("a.json", array.into_bytes()),
        ("p.json", pretty.into_bytes()),
        ("a.csv", csv.as_bytes().to_vec()),
        ("a.tsv", csv.replace(',', "\t").into_bytes()),
        ("Posts.xml", xml.as_bytes().to_vec()),
        ("a.md", b"# title".to_vec()),
        ("a.jsonl.gz", [gzip(jsonl.as_bytes()), gzip(lines(3).as_bytes())].concat()),
        ("a.jsonl.zst", [zstd(jsonl.as_bytes()), zstd(lines(3).as_bytes())].concat()),
        ("a.jsonl.bz2", [bzip2(jsonl.as_bytes()), bzip2(lines(3).as_bytes())].concat()),
        ("a.jsonl.xz", [xz(jsonl.as_bytes()), xz(lines(3).as_bytes())].concat()),
        ("a.tar", tar(&members)),
        ("a.zip", zip(&members)),
        ("a.tar.zst", zstd(&tar(&members))),
        ("a.tgz", gzip(&tar(&[("inner.zip", &zip(&members)), ("x.csv.gz", &gzip(csv.as_bytes()))]))),
        ("cut.tar.gz", {
            let all = gzip(&tar(&members));
            all[..all.len() / 2].to_vec()
        }),
    ]
}

/// An input that gives pieces of these sizes, over and over.
struct Pieces<'a> {
    bytes: &'a [u8],
    sizes: &'a [usize],
    turn: usize,
    /// Fails instead of ending.
    fails: bool,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.turn += 1;
        if self.turn.is_multiple_of(5) {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        if self.bytes.is_empty() && self.fails {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "reset"));
        }
        let count = self.sizes[self.turn % self.sizes.len()].min(buffer.len()).min(self.bytes.len());
        buffer[..count].copy_from_slice(&self.bytes[..count]);
        self.bytes = &self.bytes[count..];
        Ok(count)
    }
}

#[test]
fn records_do_not_depend_on_how_the_reads_are_cut() {
    for (key, bytes) in objects() {
        let whole = Trial::text().read(key, &bytes);
        assert!(!whole.is_empty(), "{key}");
        for sizes in [&[1][..], &[3, 1, 7], &[511, 513], &[4095, 4097]] {
            let mut pieces = Pieces { bytes: &bytes, sizes, turn: 0, fails: false };
            assert_eq!(Trial::text().read_from(key, &mut pieces).0.expect("read"), whole, "{key} by {sizes:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_bytes_under_any_name_are_records_or_faults(bytes in vec(any::<u8>(), 0..300), sizes in vec(1_usize..50, 1..4)) {
        for (key, whole) in objects() {
            // Noise by itself, and behind a good start.
            for bytes in [bytes.clone(), [&whole[..whole.len() / 3], &bytes[..]].concat()] {
                let records = Trial::text().read(key, &bytes);
                let mut pieces = Pieces { bytes: &bytes, sizes: &sizes, turn: 0, fails: false };
                prop_assert_eq!(Trial::text().read_from(key, &mut pieces).0.expect("read"), records);
                Trial::images().read(key, &bytes);
            }
        }
    }
}

#[test]
fn an_input_that_fails_is_an_error_and_no_fault() {
    for (key, bytes) in objects() {
        let whole = Trial::text().read(key, &bytes);
        for cut in (0..=bytes.len()).step_by(1 + bytes.len() / 60) {
            let mut pieces = Pieces { bytes: &bytes[..cut], sizes: &[97], turn: 0, fails: true };
            let (outcome, records) = Trial::text().read_from(key, &mut pieces);
            let error = outcome.expect_err("the input failed");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{key} at {cut}");
            assert!(whole.starts_with(&records), "{key} at {cut}: {records:?}");
        }
    }
}

#[test]
fn a_visitor_that_breaks_gets_nothing_more() {
    for (key, bytes) in objects() {
        let formats = Formats::default();
        let reading = Reading { formats: &formats, modality: Modality::Text, max_record_bytes: 1 << 20 };
        let mut count = 0;
        read(key, &mut &bytes[..], reading, &mut |_| {
            count += 1;
            ControlFlow::Break(())
        })
        .expect("read");
        assert_eq!(count, 1, "{key}");
    }
}

#[test]
fn places_lead_inwards() {
    let records = Trial::text().read("a.tgz", &objects()[14].1);
    let places: Vec<&str> = records.iter().map(|record| record.place.as_str()).collect();
    for place in ["#inner.zip#d/a.jsonl#1", "#inner.zip#d/b.txt", "#inner.zip#d/d%23.csv#3", "#x.csv.gz#1"] {
        assert!(places.contains(&place), "{place}: {places:?}");
    }
}

/// So many zeros.
fn zeros(bytes: u64) -> impl Read {
    io::repeat(0).take(bytes)
}

fn packed_zeros(bytes: u64) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    io::copy(&mut zeros(bytes), &mut encoder).expect("gzip");
    encoder.finish().expect("gzip")
}

#[test]
fn a_bomb_is_refused_at_its_limit() {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).expect("zstd");
    io::copy(&mut zeros(1 << 30), &mut encoder).expect("zstd");
    let zstd = encoder.finish().expect("zstd");
    assert!(zstd.len() < 300 << 10, "{} bytes", zstd.len());
    for key in ["a.jsonl.zst", "a.txt.zst", "a.tar.zst", "a.zip.zst", "a.csv.zst", "a.json.zst", "a.xml.zst", "a.parquet.zst"] {
        let trial = Trial { max_record_bytes: 1 << 30, ..Trial::text() };
        let trial = Trial { formats: Formats { max_ratio: 100, ..trial.formats }, ..trial };
        let records = trial.read(key, &zstd);
        assert_eq!(records.len(), 1, "{key}: {:?}", faults(&records));
        assert!(["bomb", "corrupt_archive", "unsupported_format"].contains(&faults(&records)[0].1), "{key}: {records:?}");
        assert!(records[0].bytes <= 64 << 20, "{key}: {} bytes", records[0].bytes);
    }
}

#[test]
fn a_small_file_may_be_as_regular_as_it_likes() {
    let records = Trial::text().read("a.txt.zst", &zstd(&vec![b'a'; 15 << 20]));
    assert_eq!(faults(&records), []);
    assert_eq!(records[0].bytes, 15 << 20);
}

#[test]
fn nested_bombs_are_refused_together() {
    // 16 members of 16 MiB, twice over: 4 GiB from some KiB, no single member more regular than deflate allows.
    let page = vec![b'0'; 16 << 20];
    let mut level: Vec<u8> = page;
    for _ in 0..3 {
        let names: Vec<String> = (0..8).map(|number| format!("{number}.zip")).collect();
        let members: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &level[..])).collect();
        level = zip(&members);
    }
    let records = Trial::text().read("a.zip", &level);
    assert!(
        faults(&records).iter().any(|(_, reason)| *reason == fault::BOMB || *reason == fault::CORRUPT_ARCHIVE),
        "{:?}",
        faults(&records)
    );
    let unpacked: u64 = records.iter().map(|record| record.bytes).sum();
    assert!(records.len() < 10 && unpacked < 64 << 20, "{} records of {unpacked} bytes", records.len());
}

#[test]
fn containers_are_opened_to_a_bounded_depth() {
    let mut bytes = line("deep").into_bytes();
    for _ in 0..4 {
        bytes = gzip(&bytes);
    }
    assert_eq!(texts(&Trial::text().read("a.jsonl.gz.gz.gz.gz", &bytes)), ["deep"]);
    let records = Trial::text().read("a.jsonl.gz.gz.gz.gz.gz", &gzip(&bytes));
    assert_eq!(faults(&records), [("", fault::TOO_DEEP)]);
    let many = tar(&[("a.txt", b"a"), ("b.txt", b"b"), ("c.txt", b"c")]);
    let trial = Trial { formats: Formats { max_members: 2, ..Formats::default() }, ..Trial::text() };
    let records = trial.read("a.tar", &many);
    assert_eq!((texts(&records).len(), faults(&records)), (2, vec![("#@3", fault::TOO_MANY_MEMBERS)]));
}

#[test]
fn a_gigabyte_of_gzipped_zeros_is_a_bomb() {
    let packed = packed_zeros(256 << 20);
    let trial = Trial { max_record_bytes: 16 << 20, ..Trial::text() };
    for key in ["a.jsonl.gz", "a.csv.gz", "a.xml.gz"] {
        let records = trial.read(key, &packed);
        assert_eq!(records.len(), 1, "{key}: {:?}", faults(&records));
    }
    assert_eq!(faults(&trial.read("a.jsonl.gz", &packed)), [("#1", fault::BOMB)]);
    assert_eq!(faults(&trial.read("a.zip", &zip(&[("a.jsonl", &vec![0; 64 << 20])]))), [("#a.jsonl#1", fault::BOMB)]);
}
