//! Small files that claim or unpack to much: refused with a reason, in bounded memory and time.
//!
//! Each lies beside a good record, which must be kept. Deliberately absent: bombs within the limits, which are records.

use std::io::Write;
use std::time::Duration;

use flate2::{Compression, write::GzEncoder, write::ZlibEncoder};
use serde_json::Value;

use crate::lake::Lake;

const PEAK_BYTES: u64 = 450 << 20;
const TIME: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

const TEXT: &str = "dataset = 'lake'\n[source]\nmodality = 'text'\nurl = 'raw'\n[tokenizer]\nvocabulary = 300\n";
const IMAGES: &str = "dataset = 'lake'\n[source]\nmodality = 'images'\nurl = 'raw'\n";

/// Ingests one hostile file beside a good one, which is kept; gives what became of the other.
fn beside_good(pipeline: &str, good: (&str, &[u8]), name: &str, bytes: &[u8]) -> Value {
    let lake = Lake::new(pipeline);
    lake.write(&format!("raw/{}", good.0), good.1);
    lake.write(&format!("raw/{name}"), bytes);
    let ended = lake.ingest("lake", &[]);
    let facts = ended.facts();
    assert_eq!(facts["kept"], 1, "{name}: {facts}");
    assert!(ended.peak_bytes < PEAK_BYTES, "{name}: peak {} MiB", ended.peak_bytes >> 20);
    assert!(ended.took < TIME, "{name}: {:?}", ended.took);
    facts
}

/// Ingests hostile text, of which nothing is kept and some is left out with one of these reasons.
fn refused(name: &str, bytes: &[u8], reasons: &[&str]) {
    let good = "a good record with some words in it, long enough for every rule there is";
    let facts = beside_good(TEXT, ("good.txt", good.as_bytes()), name, bytes);
    let found = facts["quarantined"].as_object().expect("counts");
    assert!(!found.is_empty() && found.keys().all(|reason| reasons.contains(&reason.as_str())), "{name}: {facts}");
}

/// Zeros, packed.
fn packed<W: Write>(mut encoder: W, mebibytes: usize) -> W {
    let zeros = vec![0; MIB];
    (0..mebibytes).for_each(|_| encoder.write_all(&zeros).expect("packed"));
    encoder
}

fn gzip(mebibytes: usize) -> Vec<u8> {
    packed(GzEncoder::new(Vec::new(), Compression::best()), mebibytes).finish().expect("gzip")
}

fn zip_of(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive.start_file(name, zip::write::SimpleFileOptions::default()).expect("member");
    archive.write_all(bytes).expect("member");
    archive.finish().expect("zip").into_inner()
}

fn tar_of(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, name, bytes).expect("member");
    archive.into_inner().expect("tar")
}

#[test]
fn packed_zeros_are_refused_by_every_codec() {
    let zstd = packed(zstd::Encoder::new(Vec::new(), 3).expect("zstd"), 1024).finish().expect("zstd");
    let bzip2 = packed(bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best()), 256).finish().expect("bzip2");
    for (name, bytes) in [("a.jsonl.gz", gzip(1024)), ("a.jsonl.zst", zstd), ("a.jsonl.bz2", bzip2)] {
        assert!(bytes.len() < 2 * MIB, "{name} is small");
        refused(name, &bytes, &["bomb", "too_large"]);
        // One record, whose size alone refuses it.
        refused(&name.replace("jsonl", "txt"), &bytes, &["bomb", "too_large"]);
    }
    refused("a.zip", &zip_of("a.txt", &vec![0; 300 * MIB]), &["bomb", "too_large"]);
}

#[test]
fn containers_nested_too_deep_are_refused() {
    let mut bytes = gzip(1);
    let mut name = "a.txt.gz".to_owned();
    for _ in 0..8 {
        bytes = zip_of(&name, &bytes);
        name = "a.zip".to_owned();
    }
    refused(&name, &bytes, &["too_deep"]);
    let mut outer = GzEncoder::new(Vec::new(), Compression::best());
    outer.write_all(&gzip(2048)).expect("gzip");
    refused("b.jsonl.gz", &outer.finish().expect("gzip"), &["bomb", "too_large"]);
}

#[test]
fn an_archive_that_claims_more_than_it_has_is_corrupt() {
    let mut claims = tar_of("a.txt", b"few bytes");
    let mut header = tar::Header::new_gnu();
    header.set_path("a.txt").expect("path");
    // Beyond what octal digits can say, as GNU writes it.
    header.set_size(1 << 62);
    header.set_cksum();
    claims[..512].copy_from_slice(header.as_bytes());
    refused("a.tar", &claims, &["too_large", "corrupt_archive"]);
}

#[test]
fn a_picture_that_claims_too_many_pixels_is_refused_before_it_is_decoded() {
    let small = png(64, 64);
    for side in [50_000, 200_000, i32::MAX as u32] {
        let facts = beside_good(IMAGES, ("good/a.png", &small), "bad/a.png", &png(side, side));
        let found: Vec<&String> = facts["quarantined"].as_object().expect("counts").keys().collect();
        assert!(found == ["too_many_pixels"] || found == ["corrupt_image"], "{side}: {facts}");
    }
    let facts = beside_good(IMAGES, ("good/a.png", &small), "bad/a.png", &png(50_000, 50_000));
    assert_eq!(facts["quarantined"]["too_many_pixels"], 1, "{facts}");
}

/// A grey picture of this size, with the pixels of at most 64 lines.
fn png(width: u32, height: u32) -> Vec<u8> {
    let mut lines = ZlibEncoder::new(Vec::new(), Compression::best());
    for line in 0..height.min(64) {
        let pixels: Vec<u8> = (0..=width.min(1 << 16)).map(|at| if at == 0 { 0 } else { (at * (line + 3)) as u8 }).collect();
        lines.write_all(&pixels).expect("line");
    }
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let chunks = [(b"IHDR", header), (b"IDAT", lines.finish().expect("zlib")), (b"IEND", Vec::new())];
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in chunks {
        let mut checksum = flate2::Crc::new();
        checksum.update(kind);
        checksum.update(&data);
        bytes.extend([&(data.len() as u32).to_be_bytes()[..], kind, &data, &checksum.sum().to_be_bytes()].concat());
    }
    bytes
}
