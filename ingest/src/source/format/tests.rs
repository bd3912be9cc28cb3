//! Formats against suites of bad input with known verdicts, and against real data of known size.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use crate::source::fault;
use crate::source::open::tests::{Trial, faults, gzip, line, tar, texts, zip};
use crate::source::raw::{Content, RawRecord};

/// The files of an item of the test data by their paths; none without the data.
fn item(name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    let Some(folder) = std::env::var_os("FOREBAY_TEST_DATA") else {
        println!("skipped: no test data");
        return None;
    };
    let path = std::path::Path::new(&folder).join(format!("{name}.tar.zst"));
    let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut archive = ::tar::Archive::new(::zstd::Decoder::new(file).expect("zstd"));
    let mut files = BTreeMap::new();
    for entry in archive.entries().expect("tar") {
        let mut entry = entry.expect("member");
        let path = entry.path().expect("path").to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("bytes");
        if entry.header().entry_type().is_file() {
            files.insert(path, bytes);
        }
    }
    Some(files)
}

fn reasons(records: &[RawRecord]) -> BTreeSet<&str> {
    faults(records).into_iter().map(|(_, reason)| reason).collect()
}

fn corrupt(records: &[RawRecord]) -> bool {
    let reasons = reasons(records);
    reasons.contains(fault::CORRUPT_RECORD) || reasons.contains(fault::BAD_ENCODING)
}

#[test]
fn json_is_judged_as_the_test_suite_judges_it() {
    let Some(files) = item("bad_json_nst") else { return };
    let mut count = 0;
    for (path, bytes) in files.iter().filter(|(path, _)| path.contains("/test_parsing/") && path.ends_with(".json")) {
        let records = Trial::text().read("a.json", bytes);
        let name = path.rsplit('/').next().expect("name");
        match &name[..2] {
            "y_" => assert!(!corrupt(&records), "{name}: {:?}", records),
            "n_" => assert!(corrupt(&records), "{name}: {:?}", records),
            _ => {}
        }
        // As a line, a verdict too, whatever line ends it has.
        Trial::text().read("a.jsonl", bytes);
        count += 1;
    }
    assert!(count > 300, "{count} files");
}

#[test]
fn csv_is_read_as_the_spectrum_says() {
    let Some(files) = item("bad_csv_spectrum") else { return };
    let mut count = 0;
    for (path, bytes) in files.iter().filter(|(path, _)| path.ends_with(".csv")) {
        // The line ends of these files were lost on their way here; their truths have them.
        let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
        let bytes = if path.contains("_crlf") { text.replace('\n', "\r\n").into_bytes() } else { bytes.clone() };
        let truth = &files[&path.replace("/csvs/", "/json/").replace(".csv", ".json")];
        let truth: Vec<BTreeMap<String, String>> = serde_json::from_slice(truth).expect("truth");
        for name in truth[0].keys() {
            let expected: Vec<String> = truth.iter().map(|row| row[name].clone()).collect();
            let records = Trial::text().field(name).read("a.csv", &bytes);
            assert_eq!((texts(&records), faults(&records)), (expected, vec![]), "{path}, column {name}");
            count += 1;
        }
    }
    assert!(count >= 30, "{count} columns");
}

#[test]
fn zstd_frames_are_judged_as_their_authors_judge_them() {
    let Some(files) = item("bad_zstd_golden") else { return };
    let trial = Trial { max_record_bytes: 1 << 20, ..Trial::text() };
    for (path, bytes) in files.iter().filter(|(path, _)| path.ends_with(".zst")) {
        let records = trial.read("a.txt.zst", bytes);
        let good = path.contains("/golden-decompression/");
        assert_eq!((records.len(), records[0].content.is_ok()), (1, good), "{path}: {:?}", faults(&records));
    }
}

#[test]
fn parquet_files_are_rows_or_faults_and_never_a_panic() {
    let Some(files) = item("parquet_testing") else { return };
    let (mut rows, mut bad) = (0, 0);
    for (path, bytes) in files.iter().filter(|(path, _)| path.contains(".parquet")) {
        Trial::images().read("a.parquet", bytes);
        let records = Trial::text().read("a.parquet", bytes);
        assert!(records.iter().all(|record| record.content.is_err()), "{path}");
        assert!(!records.is_empty() || !path.contains("/bad_data/"), "{path}");
        for column in ["string_col", "a", "name", "nation", "foo", "FeatureName", "Int32", "col", "id", "c_customer_id", "arr", "value"] {
            let records = Trial::text().field(column).read("a.parquet", bytes);
            rows += texts(&records).len();
            bad += usize::from(path.contains("/bad_data/") && texts(&records).is_empty());
        }
    }
    assert!(rows > 500 && bad > 0, "{rows} rows, {bad} bad files");
}

#[test]
fn a_parquet_file_cut_off_or_flipped_is_faults_and_never_a_panic() {
    let Some(files) = item("parquet_testing") else { return };
    for name in ["alltypes_plain.snappy.parquet", "data_index_bloom_encoding_stats.parquet", "delta_encoding_required_column.parquet"] {
        let (_, bytes) = files.iter().find(|(path, _)| path.ends_with(name)).expect("file");
        for at in (0..bytes.len()).step_by(1 + bytes.len() / 150) {
            for column in ["string_col", "String", "c_customer_id"] {
                let trial = Trial::text().field(column);
                let cut = trial.read("a.parquet", &bytes[..at]);
                assert_eq!(faults(&cut).len(), 1, "{name} cut at {at}");
                let mut flipped = bytes.clone();
                flipped[at] ^= 0x24;
                trial.read("a.parquet", &flipped);
            }
        }
    }
}

#[test]
fn naughty_strings_come_through_every_format() {
    let Some(files) = item("naughty_strings") else { return };
    let (_, json) = files.iter().find(|(path, _)| path.ends_with("blns.json")).expect("strings");
    let truth: Vec<String> = serde_json::from_slice(json).expect("truth");
    assert!(truth.len() > 500);
    let records = Trial::text().read("a.json", json);
    assert_eq!((texts(&records), faults(&records)), (truth.clone(), vec![]));
    let lines: String = truth.iter().map(|text| line(text)).collect();
    assert_eq!(texts(&Trial::text().read("a.jsonl", lines.as_bytes())), truth);
    let quoted: String = truth.iter().map(|text| format!("1,\"{}\"\n", text.replace('"', "\"\""))).collect();
    assert_eq!(texts(&Trial::text().read("a.csv", format!("id,text\n{quoted}").as_bytes())), truth);
    let rows: String = truth.iter().map(|text| format!("<row Text=\"{}\"/>\n", escaped(text))).collect();
    assert_eq!(texts(&Trial::text().read("a.xml", format!("<posts>\n{rows}</posts>").as_bytes())), truth);
}

fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_ascii_alphanumeric() { vec![c] } else { format!("&#x{:X};", c as u32).chars().collect() }).collect()
}

#[test]
fn real_data_has_as_many_records_as_its_publishers_say() {
    let count = |name: &str, field: &str, wanted: fn(&str) -> bool| {
        let files = item(name)?;
        let (mut good, mut bad) = (0, Vec::new());
        for (path, bytes) in files.iter().filter(|(path, _)| wanted(path)) {
            let records = Trial::text().field(field).read(path, bytes);
            good += texts(&records).len();
            bad.extend(records.into_iter().filter_map(|record| record.content.err()));
        }
        Some((good, bad.len(), bad.into_iter().next()))
    };
    let Some(reuters) = count("reuters_json_dev", "title", |_| true) else { return };
    assert_eq!(reuters.0 + reuters.1, 11_000, "{reuters:?}");
    let bodies = count("reuters_json_dev", "body", |_| true).expect("data");
    assert!(bodies.0 > 9_000 && bodies.0 + bodies.1 == 11_000, "{bodies:?}");
    let posts = count("stackexchange_coffee", "text", |_| true).expect("data");
    assert_eq!((posts.0, posts.1), (592, 0), "{posts:?}");
    let papers = count("stackex_arxiv_jsonl", "text", |path| path.ends_with(".jsonl")).expect("data");
    assert_eq!((papers.0, papers.1), (81, 0), "{papers:?}");
    let classical = count("zh_classical", "text", |_| true).expect("data");
    assert_eq!((classical.0, classical.1), (803, 0), "{classical:?}");
    let reviews = count("zh_fewclue_dev", "sentence", |path| path.contains("/eprstmt/")).expect("data");
    assert_eq!((reviews.0, reviews.1), (21_568, 0), "{reviews:?}");
}

#[test]
fn csv_without_header_goes_by_numbers() {
    let Some(files) = item("ag_news_test_csv") else { return };
    let (_, bytes) = files.iter().find(|(path, _)| path.ends_with("test.csv")).expect("csv");
    let mut trial = Trial::text().field("3");
    trial.formats.header = false;
    let records = trial.read("test.csv", bytes);
    assert_eq!((texts(&records).len(), faults(&records)), (7_600, vec![]));
    assert!(texts(&records)[0].starts_with("Unions representing workers"));
    let records = Trial::text().read("test.csv", bytes);
    assert_eq!(faults(&records), [("", fault::NO_TEXT_FIELD)]);
}

#[test]
fn pictures_come_out_of_tar_files_whole() {
    let Some(files) = item("cifar10_jpg") else { return };
    let (_, bytes) = files.iter().find(|(path, _)| path.ends_with("test.tar")).expect("tar");
    let records = Trial::images().read("test.tar", bytes);
    assert_eq!((records.len(), faults(&records)), (10_000, vec![]));
    assert!(records.iter().all(|record| matches!(&record.content, Ok(Content::Image(bytes)) if bytes.starts_with(&[0xFF, 0xD8]))));
    assert_eq!(records[0].place, "#test/airplane/0000.jpg");
    // The same pictures as text are no text.
    let cut = Trial::text().read("test.tar", &bytes[..(1 << 20) + 700]);
    assert_eq!(reasons(&cut), BTreeSet::from([fault::UNSUPPORTED_FORMAT, fault::CORRUPT_ARCHIVE]));
}

#[test]
fn a_bad_line_is_a_fault_and_the_next_one_is_read() {
    let deep = "[".repeat(100_000);
    let cases: [(&[u8], &'static str, &str); 9] = [
        (b"{\"text\": \"a\"", fault::CORRUPT_RECORD, "EOF"),
        (b"{\"text\": \"\xFF\"}", fault::BAD_ENCODING, "not UTF-8 at byte 10"),
        (br#"{"text": "\ud800"}"#, fault::BAD_ENCODING, "surrogate"),
        (br#"{"text": 3}"#, fault::NO_TEXT_FIELD, "field `text`: found a number, expected a string"),
        (br#"{"text": null}"#, fault::NO_TEXT_FIELD, "found null"),
        (br#"{"body": "", "id": 1}"#, fault::NO_TEXT_FIELD, "found only `body`, `id`"),
        (br#"{"text": ["a"]}"#, fault::NO_TEXT_FIELD, "found a list"),
        (deep.as_bytes(), fault::CORRUPT_RECORD, "not JSON"),
        (&[b'x'; 200_000], fault::TOO_LARGE, "a line of 200000 bytes, expected at most 150000"),
    ];
    for (bad, reason, detail) in cases {
        let bytes = [line("before").as_bytes(), bad, b"\n", line("after").as_bytes()].concat();
        let records = Trial { max_record_bytes: 150_000, ..Trial::text() }.read("a.jsonl", &bytes);
        assert_eq!((texts(&records), faults(&records)), (vec!["before".to_owned(), "after".to_owned()], vec![("#2", reason)]));
        let found = records[1].content.as_ref().expect_err("fault");
        assert!(found.detail.contains(detail), "{found:?}");
    }
}

#[test]
fn an_array_goes_on_behind_what_is_no_text_and_ends_at_what_is_no_json() {
    let read = |json: &str| {
        let records = Trial { max_record_bytes: 100, ..Trial::text() }.read("a.json", json.as_bytes());
        (
            texts(&records).join(" "),
            faults(&records).iter().map(|(place, reason)| format!("{place} {reason}")).collect::<Vec<_>>().join(", "),
        )
    };
    let check = |json: &str, texts: &str, faults: &str| assert_eq!(read(json), (texts.to_owned(), faults.to_owned()), "{json}");
    check("[]", "", "");
    check(r#"[{"text":"a"},{"no":1},{"text":"b"}]"#, "a b", "#2 no_text_field");
    check(&format!(r#"[{{"text":"a"}},{{"x":"{}","text":"b"}},"c"]"#, ",]".repeat(100)), "a c", "#2 too_large");
    check(r#"[{"text":"a"},{"text":oops},{"text":"b"}]"#, "a", "#2 corrupt_record");
    check(r#"[{"text":"a"},]"#, "a", "#2 corrupt_record");
    check(r#"[{"text":"a"}] x"#, "a", "#2 corrupt_record");
    check(r#"[{"text":"a"}"#, "a", "#2 corrupt_record");
    check(r#"[{"text":"a"},"#, "a", "#2 corrupt_record");
    check(r#"[{"text":"a"},{"text":"b""#, "a", "#2 corrupt_record");
    check(r#"["\ud800","b"]"#, "b", "#1 bad_encoding");
    check("{\n\"text\":\"a\"}\n\n{\"text\":\n\"b\"}", "a b", "");
    check("{\n\"text\":\"a\"} {\"text\":\"b\"}", "a", "#2 corrupt_record");
    check("{\"text\":\"a\"}\n{\"text\":\"b\"}\n", "a b", "");
    check("{\"text\":\"a\"}\n{\"text\":\n{\"text\":\"b\"}\n", "a b", "#2 corrupt_record");
    check("", "", " corrupt_record");
}

#[test]
fn rows_of_csv_are_judged_one_by_one() {
    let trial = Trial { max_record_bytes: 60, ..Trial::text() };
    let large = format!("id,text,url\n1,a,\n2,{},u\n3,b\n4,\"{}\n\",u\n5,c,u\n6,\"open", "x".repeat(50_000), "\n".repeat(30_000));
    let records = trial.read("a.csv", large.as_bytes());
    assert_eq!(texts(&records), ["a", "c"]);
    assert_eq!(
        faults(&records),
        [("#2", fault::TOO_LARGE), ("#3", fault::CORRUPT_RECORD), ("#4", fault::TOO_LARGE), ("#6", fault::CORRUPT_RECORD)]
    );
    assert_eq!(records[4].url.as_deref(), Some("u"));
    let records = trial.read("a.csv", b"id,text\n1,caf\xE9\n");
    assert!(matches!(&records[0].content, Ok(Content::Plain { bytes, .. }) if &bytes[..] == b"caf\xE9"));
    let mut tabs = Trial::text();
    tabs.formats.quoted = false;
    assert_eq!(texts(&tabs.read("a.tsv", b"id\ttext\n1\t\"a\n2\tb\"\n")), ["\"a", "b\""]);
    tabs.formats.delimiter = Some(';');
    assert_eq!(texts(&tabs.read("a.csv", b"id;text\n1;a,b\n")), ["a,b"]);
    assert_eq!(Trial::text().read("a.csv", b""), []);
}

#[test]
fn rows_of_xml_have_the_attribute_asked_for_or_the_usual_one() {
    let xml =
        "<users><row Id=\"1\" AboutMe=\"&lt;b&gt;\" Views=\"12\" url='http://x/?a=1&amp;b=2'/><row Id='2' Text='a&#10;b\"'></row></users>";
    let records = Trial::text().read("Users.xml", xml.as_bytes());
    assert_eq!(texts(&records), ["<b>", "a\nb\""]);
    assert_eq!(records[0].url.as_deref(), Some("http://x/?a=1&b=2"));
    assert!(matches!(records[0].content, Ok(Content::Html { .. })) && matches!(records[1].content, Ok(Content::Text(_))));
    assert_eq!(texts(&Trial::text().field("Views").read("Users.xml", xml.as_bytes())), ["12", "a\nb\""]);
    for (xml, expected) in [
        ("<p><row Text=\"a\"/><row Text=\"b<row Text=\"c\"/></p>", vec![("#2", fault::CORRUPT_RECORD)]),
        ("<p><row Text=\"a\"/><row Text=\"&bad;\"/><row Text=\"c\"/></p>", vec![("#2", fault::CORRUPT_RECORD)]),
        ("<p><row Text=\"a\"/><row Id=\"2\"/><row Text=\"c\"/></p>", vec![("#2", fault::NO_TEXT_FIELD)]),
        ("<p><row Text=\"a\"/><row Text=\"c\"/>", vec![("#3", fault::CORRUPT_RECORD)]),
        ("<p><row Text=\"a\"/><row Text=\"c\"/><row Te", vec![("#3", fault::CORRUPT_RECORD)]),
    ] {
        let records = Trial::text().read("a.xml", xml.as_bytes());
        assert_eq!((texts(&records).join(""), faults(&records)), ("ac".to_owned(), expected), "{xml}");
    }
}

#[test]
fn files_are_one_record_of_their_kind() {
    let trial = Trial { max_record_bytes: 10, ..Trial::text() };
    assert!(
        matches!(&trial.read("src/a.rs", b"fn main")[0].content, Ok(Content::Plain { bytes, charset: None }) if &bytes[..] == b"fn main")
    );
    assert!(matches!(&trial.read("a.HTM", b"<p>")[0].content, Ok(Content::Html { .. })));
    assert_eq!(faults(&trial.read("a.txt", &[b'a'; 11])), [("", fault::TOO_LARGE)]);
    assert_eq!(texts(&trial.read("a.txt", b"")), [""]);
    assert!(matches!(&Trial::images().read("d/a.png", b"junk")[0].content, Ok(Content::Image(_))));
    assert_eq!(faults(&Trial::images().read("a.jsonl", b"{}")), [("", fault::UNSUPPORTED_FORMAT)]);
    assert_eq!(faults(&trial.read("a.pdf", b"%PDF-1.4")), [("", fault::UNSUPPORTED_FORMAT)]);
}

#[test]
fn a_sample_is_a_picture_and_the_class_beside_it() {
    let members: [(&str, &[u8]); 14] = [
        ("d/0.cls", b"3\n"),
        ("d/0.jpg", b"zero"),
        ("d/1.png", b"one"),
        ("d/1.json", b"{\"label\": \"cat\", \"x\": 1}"),
        ("d/1.txt", b"dog"),
        ("d/2.jpeg", b"two"),
        ("d/2.txt", b"a caption of\ntwo lines"),
        ("d/3.left.webp", b"three"),
        ("d/3.right.webp", b"four"),
        ("d/3.cls", b"both"),
        ("README.txt", b"about"),
        ("e/0.jpg", b"large picture"),
        ("f/0.npy", b"array"),
        ("f/0.jpg", b"five"),
    ];
    let trial = Trial { max_record_bytes: 10, ..Trial::images() };
    for records in [trial.read("a.tar", &tar(&members)), trial.read("a.tar.gz", &gzip(&tar(&members))), trial.read("a.zip", &zip(&members))]
    {
        let found: Vec<_> = records
            .iter()
            .map(|record| (&record.place[1..], record.content.as_ref().map_err(|fault| &*fault.reason), record.class.as_deref()))
            .collect();
        let image = |bytes: &'static [u8]| Content::Image(bytes::Bytes::from_static(bytes));
        let expected = [
            ("d/0.jpg", Ok(&image(b"zero")), Some("3")),
            ("d/1.png", Ok(&image(b"one")), Some("cat")),
            ("d/2.jpeg", Ok(&image(b"two")), None),
            ("d/3.left.webp", Ok(&image(b"three")), None),
            ("d/3.right.webp", Ok(&image(b"four")), Some("both")),
            ("README.txt", Err(fault::NO_IMAGE_FIELD), None),
            ("e/0.jpg", Err(fault::TOO_LARGE), None),
            ("f/0.jpg", Ok(&image(b"five")), None),
        ];
        assert_eq!(found, expected);
    }
}

/// A Parquet file of pictures, labels and texts in row groups of two rows.
fn parquet_file() -> Vec<u8> {
    use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
    use arrow::datatypes::{DataType, Field};
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    use std::sync::Arc;
    let bytes: ArrayRef =
        Arc::new(BinaryArray::from_opt_vec(vec![Some(b"one"), None, Some(b"three"), Some(b"a large picture"), Some(b"five")]));
    let path: ArrayRef = Arc::new(StringArray::from(vec!["1.jpg"; 5]));
    let image = StructArray::from(vec![
        (Arc::new(Field::new("bytes", DataType::Binary, true)), bytes),
        (Arc::new(Field::new("path", DataType::Utf8, true)), path),
    ]);
    let batch = RecordBatch::try_from_iter([
        ("image", Arc::new(image) as ArrayRef),
        ("label", Arc::new(Int64Array::from(vec![Some(1), Some(0), Some(7), Some(0), None]))),
        ("text", Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("more than ten"), Some("e")]))),
        ("url", Arc::new(StringArray::from(vec![Some("http://x/"), None, Some(""), None, None]))),
    ])
    .expect("batch");
    let names = r#"{"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}"#;
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(2))
        .set_key_value_metadata(Some(vec![KeyValue::new("huggingface".to_owned(), names.to_owned())]))
        .build();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).expect("parquet");
    writer.write(&batch).expect("parquet");
    writer.into_inner().expect("parquet")
}

#[test]
fn rows_of_parquet_have_pictures_with_named_classes_or_texts_with_addresses() {
    let file = parquet_file();
    let records = Trial { max_record_bytes: 10, ..Trial::images() }.read("a.parquet", &file);
    let classes: Vec<_> = records.iter().map(|record| record.class.as_deref()).collect();
    assert_eq!(classes, [Some("dog"), Some("cat"), Some("7"), Some("cat"), None]);
    assert_eq!(faults(&records), [("#2", fault::NO_IMAGE_FIELD), ("#4", fault::TOO_LARGE)]);
    assert_eq!(records[2].content, Ok(Content::Image(bytes::Bytes::from_static(b"three"))));
    let records = Trial { max_record_bytes: 10, ..Trial::text() }.read("a.parquet", &file);
    assert_eq!(
        (texts(&records).join("|"), records[0].url.as_deref(), records[2].url.as_deref()),
        ("a||e".to_owned(), Some("http://x/"), None)
    );
    assert_eq!(faults(&records), [("#2", fault::NO_TEXT_FIELD), ("#4", fault::TOO_LARGE)]);
    assert_eq!(texts(&Trial::text().field("image.path").read("a.parquet", &file)).len(), 5);
    let records = Trial::text().field("body").read("a.parquet", &file);
    assert_eq!(faults(&records), [("", fault::NO_TEXT_FIELD)]);
    assert!(records[0].content.as_ref().expect_err("fault").detail.contains("`image.bytes`, `image.path`, `label`, `text`"), "{records:?}");
}

#[test]
fn damage_in_a_row_group_costs_the_rest_of_it_and_no_other() {
    let file = parquet_file();
    // The first pages of the file are those of the first group.
    let mut broken = file.clone();
    broken[4..40].fill(0xFF);
    let records = Trial::images().read("a.parquet", &broken);
    assert_eq!(faults(&records), [("#1", fault::CORRUPT_RECORD)]);
    assert_eq!(records[1..], Trial::images().read("a.parquet", &file)[2..]);
}

#[test]
fn a_column_that_unpacks_to_too_much_is_a_bomb() {
    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    use std::sync::Arc;
    // One value of a megabyte in a dictionary, for sixty rows.
    let text = "a".repeat(1 << 20);
    let texts: ArrayRef = Arc::new(StringArray::from(vec![text.as_str(); 60]));
    let batch = RecordBatch::try_from_iter([("text", texts)]).expect("batch");
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_compression(parquet::basic::Compression::ZSTD(Default::default()))
        .set_dictionary_page_size_limit(4 << 20)
        .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
        .build();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).expect("parquet");
    writer.write(&batch).expect("parquet");
    let file = writer.into_inner().expect("parquet");
    assert!(file.len() < 10_000, "{} bytes", file.len());
    let records = Trial::text().read("a.parquet", &file);
    assert_eq!((self::texts(&records).len(), faults(&records)), (16, vec![("#17", fault::BOMB)]));
}
