//! Damage of containers: everything before it comes out, and it is one fault.

use crate::source::fault;
use crate::source::open::tests::{Trial, bzip2, faults, gzip, line, lines, tar, texts, xz, zip, zstd};
use crate::source::raw::RawRecord;

/// Reads `packed` cut off at every byte. `whole` places are where nothing is missing.
fn cut_everywhere(key: &str, packed: &[u8], whole: impl Fn(usize) -> bool) {
    let all = Trial::text().read(key, packed);
    assert_eq!(faults(&all), [], "{key}");
    for cut in 0..packed.len() {
        let records = Trial::text().read(key, &packed[..cut]);
        let good: Vec<&RawRecord> = records.iter().filter(|record| record.content.is_ok()).collect();
        assert!(good.iter().zip(&all).all(|(a, b)| *a == b), "{key} at {cut}: {records:?}");
        assert_eq!(faults(&records).len(), usize::from(!whole(cut)), "{key} at {cut} of {}: {:?}", packed.len(), faults(&records));
    }
}

/// Reads `packed` with every bit of some bytes flipped: what comes out otherwise than whole has a fault.
fn flip_everywhere(key: &str, packed: &[u8]) {
    let all = Trial::text().read(key, packed);
    for at in 0..packed.len() {
        for bit in [0, 3, 7] {
            let mut flipped = packed.to_vec();
            flipped[at] ^= 1 << bit;
            let records = Trial::text().read(key, &flipped);
            assert!(records == all || !faults(&records).is_empty(), "{key}, bit {bit} of byte {at}: {:?}", texts(&records));
        }
    }
}

#[test]
fn a_truncated_stream_is_one_fault_behind_its_records() {
    let (first, second) = (lines(12), lines(5));
    for key in ["a.jsonl.gz", "a.jsonl.zst", "a.jsonl.bz2", "a.jsonl.xz"] {
        let pack = |text: &str| match key {
            "a.jsonl.gz" => gzip(text.as_bytes()),
            "a.jsonl.zst" => zstd(text.as_bytes()),
            "a.jsonl.bz2" => bzip2(text.as_bytes()),
            _ => xz(text.as_bytes()),
        };
        let start = pack(&first);
        let packed = [&start[..], &pack(&second)].concat();
        assert_eq!(texts(&Trial::text().read(key, &packed)).len(), 17, "{key}");
        cut_everywhere(key, &packed, |cut| cut == start.len());
    }
}

#[test]
fn a_truncated_file_of_one_record_is_that_fault() {
    for (key, packed) in
        [("a.txt.gz", gzip(b"text")), ("a.txt.zst", zstd(b"text")), ("a.txt.bz2", bzip2(b"text")), ("a.txt.xz", xz(b"text"))]
    {
        for cut in 0..packed.len() {
            let records = Trial::text().read(key, &packed[..cut]);
            assert_eq!(faults(&records), [("", fault::CORRUPT_ARCHIVE)], "{key} at {cut}");
        }
    }
}

#[test]
fn a_truncated_archive_is_one_fault_behind_its_members() {
    let long = format!("{}/a.txt", "folder".repeat(40));
    let members: [(&str, &[u8]); 3] =
        [("a.txt", b"first"), (&long, b"second"), ("c.jsonl", b"{\"text\":\"third\"}\n{\"text\":\"fourth\"}\n")];
    let archive = tar(&members);
    let end = archive.len() - 1024;
    cut_everywhere("a.tar", &archive, |cut| cut >= end + 512 && cut.is_multiple_of(512));
    cut_everywhere("a.tar.zst", &zstd(&archive), |_| false);
    cut_everywhere("a.tar.gz", &gzip(&archive), |_| false);
    cut_everywhere("a.zip", &zip(&members), |_| false);
    let records = Trial::text().read("a.zip", &zip(&members)[..200]);
    assert_eq!(texts(&records), ["first"]);
}

#[test]
fn a_flipped_bit_never_changes_a_record_unnoticed() {
    let members: [(&str, &[u8]); 2] =
        [("a.txt", b"first text, and a little more of it"), ("c.jsonl", b"{\"text\":\"third\"}\n{\"text\":\"fourth\"}\n")];
    flip_everywhere("a.jsonl.gz", &gzip(lines(4).as_bytes()));
    flip_everywhere("a.jsonl.zst", &zstd(lines(4).as_bytes()));
    flip_everywhere("a.jsonl.bz2", &bzip2(lines(4).as_bytes()));
    flip_everywhere("a.jsonl.xz", &xz(lines(4).as_bytes()));
    flip_everywhere("a.tar.zst", &zstd(&tar(&members)));
}

#[test]
fn a_flipped_bit_of_an_archive_never_panics() {
    let members: [(&str, &[u8]); 2] = [("a.txt", b"first text"), ("c.jsonl", b"{\"text\":\"third\"}\n")];
    for (key, packed) in [("a.zip", zip(&members)), ("a.tar", tar(&members))] {
        for at in 0..packed.len() {
            for bit in 0..8 {
                let mut flipped = packed.clone();
                flipped[at] ^= 1 << bit;
                assert!(!Trial::text().read(key, &flipped).is_empty(), "{key}, bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn members_of_one_name_are_all_read_at_places_of_their_own() {
    let archive = tar(&[("a.txt", b"1"), ("a.txt", b"2"), ("a.txt~2", b"3"), ("./a.txt", b"4")]);
    let records = Trial::text().read("a.tar", &archive);
    assert_eq!(texts(&records), ["1", "2", "3", "4"]);
    let places: Vec<&str> = records.iter().map(|record| record.place.as_str()).collect();
    assert_eq!(places, ["#a.txt", "#a.txt~2", "#a.txt~2~2", "#a.txt~3"]);
}

#[test]
fn long_names_and_sizes_of_pax_are_obeyed() {
    let name = format!("{}/ä.txt", "d".repeat(150));
    let mut builder = ::tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("path", name.as_bytes()), ("size", b"4")]).expect("pax");
    let mut header = ::tar::Header::new_ustar();
    header.set_size(4);
    header.set_path("short").expect("path");
    header.set_cksum();
    builder.append(&header, &b"text"[..]).expect("member");
    let mut archive = builder.into_inner().expect("tar");
    // The header's own size is wrong where pax has one, as for members of 8 GiB and more.
    let at = archive.len() - 1024 - 1024;
    let mut header = ::tar::Header::from_byte_slice(&archive[at..at + 512]).clone();
    header.set_size(0);
    header.set_cksum();
    archive[at..at + 512].copy_from_slice(header.as_bytes());
    let records = Trial::text().read("a.tar", &archive);
    assert_eq!((texts(&records), records[0].place.as_str()), (vec!["text".to_owned()], format!("#{name}").as_str()));
}

#[test]
fn links_are_no_files_and_folders_are_nothing() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut append = |kind: ::tar::EntryType, name: &str| {
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        if kind == ::tar::EntryType::Symlink {
            header.set_link_name("a.txt").expect("link");
        }
        builder.append_data(&mut header, name, &b""[..]).expect("member");
    };
    append(::tar::EntryType::Directory, "d/");
    append(::tar::EntryType::Symlink, "d/link.txt");
    append(::tar::EntryType::Regular, "d/a.txt");
    append(::tar::EntryType::Regular, "d/._a.txt");
    append(::tar::EntryType::Fifo, "d/pipe");
    let records = Trial::text().read("a.tar", &builder.into_inner().expect("tar"));
    assert_eq!(faults(&records), [("#d/link.txt", fault::NOT_A_FILE), ("#d/pipe", fault::NOT_A_FILE)]);
    assert_eq!(texts(&records), [""]);
}

#[test]
fn archives_behind_each_other_are_one() {
    let both = [tar(&[("a.txt", b"1")]), tar(&[("b.txt", b"2")])].concat();
    assert_eq!(texts(&Trial::text().read("a.tar", &both)), ["1", "2"]);
    let records = Trial::text().read("a.tar", &[tar(&[("a.txt", b"1")]), vec![7; 512]].concat());
    assert_eq!((texts(&records).len(), faults(&records)), (1, vec![("#@1024", fault::CORRUPT_ARCHIVE)]));
}

#[test]
fn padding_behind_gzip_is_ignored_and_anything_else_told() {
    let packed = gzip(line("a").as_bytes());
    assert_eq!(faults(&Trial::text().read("a.jsonl.gz", &[&packed[..], &[0; 1000]].concat())), []);
    let records = Trial::text().read("a.jsonl.gz", &[&packed[..], b"tail"].concat());
    assert_eq!((texts(&records), faults(&records)), (vec!["a".to_owned()], vec![("#2", fault::CORRUPT_ARCHIVE)]));
}

#[test]
fn a_damaged_member_of_a_zip_costs_no_other() {
    let members: [(&str, &[u8]); 3] = [("a.txt", b"first"), ("b.txt", b"second"), ("c.txt", b"third")];
    let mut archive = zip(&members);
    let at = archive.windows(5).position(|window| window == b"b.txt").expect("name") + 5;
    archive[at] ^= 0x55;
    let records = Trial::text().read("a.zip", &archive);
    assert_eq!(
        (texts(&records), faults(&records)),
        (vec!["first".to_owned(), "third".to_owned()], vec![("#b.txt", fault::CORRUPT_ARCHIVE)])
    );
}

#[test]
fn a_large_zip_is_spooled_to_a_file_up_to_its_limit() {
    let noise: Vec<u8> = (0..20_u64 << 20).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8 & 0x5F | 0x20).collect();
    let mut writer = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = ::zip::write::SimpleFileOptions::default().compression_method(::zip::CompressionMethod::Stored);
    for name in ["a.txt", "b.txt"] {
        writer.start_file(name, stored).expect("zip");
        std::io::Write::write_all(&mut writer, &noise).expect("zip");
    }
    let archive = writer.finish().expect("zip").into_inner();
    let mut trial = Trial { max_record_bytes: 32 << 20, ..Trial::text() };
    let records = trial.read("a.zip", &archive);
    assert_eq!(records.iter().map(|record| record.bytes).collect::<Vec<_>>(), [20 << 20; 2]);
    assert!(texts(&records).iter().all(|text| text.as_bytes() == noise));
    trial.formats.max_spooled.0 = 30 << 20;
    let records = trial.read("a.zip", &archive);
    assert_eq!((texts(&records).len(), faults(&records)[0].1), (1, fault::TOO_LARGE));
}
