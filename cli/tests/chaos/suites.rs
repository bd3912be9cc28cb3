//! Torture suites of others through the command: every file gets a verdict, and the verdict is the suite's own.
//!
//! Counted are verdicts by what the names of the files promise, or by the files' own bytes. Rules of cleaning are off, so
//! that only what is broken is left out. Deliberately absent: suites without `FOREBAY_TEST_DATA`.

use std::path::Path;

use serde_json::Value;

use crate::lake::{Lake, unpacked};
use crate::version;

/// More than the command needs for any of these, which hold little that is good.
const PEAK_BYTES: u64 = 400 << 20;

/// Reads every record and refuses nothing that can be read.
const OPEN: [&str; 9] = [
    "clean.min_chars=0",
    "clean.max_chars=100000000",
    "clean.max_line_chars=100000000",
    "clean.min_alphanumeric=0",
    "dedup.exact=false",
    "dedup.near=false",
    "picture.near.enabled=false",
    "picture.min_side=1",
    "picture.max_aspect=100000",
];

/// Looks at the files of a suite that match, without a commit; what is printed adds up and memory is bounded.
fn look(folder: &Path, modality: &str, include: &str, more: &[&str]) -> Value {
    let lake = Lake::new("dataset = 'lake'\n[source]\nmodality = 'text'\nurl = 'set below'\n");
    let settings = [format!("source.url={}", folder.display()), format!("source.modality={modality}"), format!("source.include={include}")];
    let mut arguments = vec!["--dry-run"];
    for setting in settings.iter().map(String::as_str).chain(OPEN).chain(more.iter().copied()) {
        arguments.extend(["--set", setting]);
    }
    let ended = lake.ingest("lake", &arguments);
    assert!(!ended.has_crashed(), "{include}: {}", ended.errors);
    assert!(ended.peak_bytes < PEAK_BYTES, "{include}: peak {} MiB", ended.peak_bytes >> 20);
    ended.facts()
}

fn count(facts: &Value, verdict: &str, reason: &str) -> u64 {
    facts[verdict][reason].as_u64().unwrap_or(0)
}

fn total(facts: &Value, verdict: &str) -> u64 {
    facts[verdict].as_object().expect("counts").values().filter_map(Value::as_u64).sum()
}

/// Files whose path holds `part` and ends in `end`.
fn number_of(folder: &Path, part: &str, end: &str) -> u64 {
    let names = version::files(folder).into_iter().map(|path| path.to_string_lossy().into_owned());
    names.filter(|name| name.contains(part) && name.ends_with(end)).count() as u64
}

#[test]
fn json_that_is_none_is_corrupt_and_json_that_is_some_is_not() {
    let Some(suite) = unpacked("bad_json_nst") else { return };
    let refused = |facts: &Value| count(facts, "quarantined", "corrupt_record") + count(facts, "quarantined", "bad_encoding");
    let bad = look(suite.path(), "text", "['**/n_*.json']", &[]);
    assert_eq!(refused(&bad), number_of(suite.path(), "/n_", ".json"), "one fault a file: {bad}");
    let good = look(suite.path(), "text", "['**/y_*.json']", &[]);
    assert_eq!(count(&good, "quarantined", "corrupt_record"), 0, "{good}");
    assert_eq!(refused(&good), 1, "a NUL in a string is JSON and no text: {good}");
    let free = look(suite.path(), "text", "['**/i_*.json']", &[]);
    assert!(free["read"].as_u64() >= Some(number_of(suite.path(), "/i_", ".json")), "{free}");
}

#[test]
fn what_is_not_utf8_is_quarantined_and_nothing_else_is() {
    let Some(suite) = unpacked("bad_utf8_flenniken") else { return };
    let found = look(suite.path(), "text", "['**/*.txt', '**/*.md']", &[]);
    let files = version::files(suite.path()).into_iter().filter(|path| path.extension().is_some_and(|end| end == "txt" || end == "md"));
    let broken = files.filter(|path| std::str::from_utf8(&std::fs::read(path).expect("file")).is_err()).count();
    assert!(broken > 0);
    assert_eq!(count(&found, "quarantined", "bad_encoding"), broken as u64, "{found}");
    assert_eq!(total(&found, "quarantined"), broken as u64, "{found}");
}

#[test]
fn csv_has_the_records_that_its_gold_has() {
    let Some(suite) = unpacked("bad_csv_spectrum") else { return };
    // Without the column no row of a file can be read: one fault a file.
    let found = look(suite.path(), "text", "['**/*.csv']", &[]);
    assert_eq!(found["read"], number_of(suite.path(), "/", ".csv"), "{found}");
    assert_eq!(found["read"], count(&found, "quarantined", "no_text_field"), "{found}");
    let named = look(suite.path(), "text", "['**/csvs/*new*.csv', '**/csvs/esc*.csv']", &["source.formats.text_field=b"]);
    assert_eq!((total(&named, "quarantined"), &named["read"], &named["kept"]), (0, &10.into(), &10.into()), "{named}");
}

#[test]
fn naughty_strings_are_text() {
    let Some(suite) = unpacked("naughty_strings") else { return };
    let found = look(suite.path(), "text", "['**/*.json', '**/*.txt']", &[]);
    assert_eq!((&found["read"], total(&found, "quarantined")), (&found["kept"], 0), "{found}");
    assert!(found["read"].as_u64() > Some(1000), "{found}");
}

#[test]
fn zstd_frames_are_read_or_corrupt_as_zstd_says() {
    let Some(suite) = unpacked("bad_zstd_golden") else { return };
    let bad = look(suite.path(), "text", "['**/golden-decompression-errors/*.zst']", &[]);
    assert_eq!(count(&bad, "quarantined", "corrupt_archive"), number_of(suite.path(), "decompression-errors/", ".zst"), "{bad}");
    let good = look(suite.path(), "text", "['**/golden-decompression/*.zst']", &[]);
    assert_eq!(count(&good, "quarantined", "corrupt_archive"), 0, "{good}");
}

#[test]
fn web_archives_lose_their_broken_records_alone() {
    // Pages of other character sets are read; a few are beyond the limits on markup.
    for (suite, corrupt, complex, kept) in [("warc_warcio", 6, 0, 9), ("warc_cc_whirlwind", 0, 0, 2), ("warc_aut_dev", 3, 4, 254)] {
        let Some(suite) = unpacked(suite) else { return };
        let found = look(suite.path(), "text", "[]", &[]);
        let faults = [count(&found, "quarantined", "corrupt_record"), count(&found, "quarantined", "html_too_complex")];
        assert_eq!((faults, total(&found, "quarantined")), ([corrupt, complex], corrupt + complex), "{found}");
        assert_eq!(found["kept"], kept, "{found}");
    }
}

#[test]
fn parquet_files_are_read_or_refused() {
    let Some(suite) = unpacked("parquet_testing") else { return };
    let found = look(suite.path(), "text", "['**/*.parquet']", &[]);
    let files = number_of(suite.path(), "/", ".parquet");
    assert!(found["read"].as_u64() >= Some(files) && found["read"] == total(&found, "quarantined"), "no column is called `text`: {found}");
    assert!(count(&found, "quarantined", "corrupt_record") >= 1, "{found}");
    for field in ["string_col", "a", "String", "c", "values"] {
        look(suite.path(), "text", "['**/*.parquet']", &[&format!("source.formats.text_field={field}")]);
    }
}

#[test]
fn broken_pictures_are_corrupt_and_odd_ones_are_not() {
    let Some(suite) = unpacked("bad_png_suite") else { return };
    for (folder, broken) in [("pngsuite", 14), ("bugfixes", 8)] {
        let bad = look(suite.path(), "images", &format!("['**/{folder}/x*.png']"), &[]);
        assert_eq!(number_of(suite.path(), &format!("/{folder}/x"), ".png"), broken);
        assert_eq!((&bad["read"], count(&bad, "quarantined", "corrupt_image")), (&broken.into(), broken), "{bad}");
    }
    let good = look(suite.path(), "images", "['**/pngsuite/[!x]*.png', '**/pngsuite-extra/*.png']", &[]);
    assert_eq!((&good["read"], total(&good, "quarantined")), (&good["kept"], 0), "{good}");
    assert!(good["read"].as_u64() > Some(150), "{good}");
}

#[test]
fn pictures_that_readers_broke_on_break_nothing() {
    let Some(suite) = unpacked("bad_img_imagers") else { return };
    let bad = look(suite.path(), "images", "['**/tests/bad/**/*.bmp']", &[]);
    assert_eq!(bad["read"], count(&bad, "quarantined", "corrupt_image"), "{bad}");
    let good = look(suite.path(), "images", "['**/tests/reference/**/*.png']", &[]);
    assert_eq!((&good["read"], total(&good, "quarantined")), (&good["kept"], 0), "{good}");
    look(suite.path(), "images", "[]", &[]);
}

#[test]
fn jpegs_are_read_unless_cut_or_of_a_rare_kind() {
    let Some(suite) = unpacked("jpeg_reftest") else { return };
    let good = look(suite.path(), "images", "['**/reftest/images/*.jpg', '**/reftest/images/mozilla/*.jpg']", &[]);
    // Three are damaged, and readable only by making up pixels: a scan is cut, another refines none, a code ends too early.
    let found = (&good["read"], &good["kept"], count(&good, "quarantined", "corrupt_image"));
    assert_eq!(found, (&Value::from(37), &Value::from(34), 3), "{good}");
    let rare = look(suite.path(), "images", "['**/reftest/images/lossless/**/*.jpg']", &[]);
    assert_eq!((&rare["kept"], &rare["read"]), (&0.into(), &count(&rare, "quarantined", "unsupported_image").into()), "{rare}");
    let all = look(suite.path(), "images", "['**/crashtest/**', '**/fuzz-afl/**']", &[]);
    assert_eq!((&all["read"], &all["kept"]), (&Value::from(217), &Value::from(7)), "{all}");
}
