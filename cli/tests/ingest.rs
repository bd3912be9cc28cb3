//! Ingest and versions through the command, with kills and bad input.

mod support;

use std::time::Duration;

use support::Lake;

fn total(counts: &serde_json::Value) -> u64 {
    counts.as_object().expect("counts").values().map(|count| count.as_u64().expect("count")).sum()
}

#[test]
fn every_record_is_kept_removed_or_quarantined() {
    let lake = Lake::new();
    lake.write(
        "raw/copy/lib.rs",
        std::fs::read(lake.path("raw/schemas/id.rs")).or_else(|_| std::fs::read(lake.path("raw/schemas/src/id.rs"))).expect("source"),
    );
    lake.write("raw/bad/latin1.rs", b"// caf\xe9 is not UTF-8, whatever else this file says\n");
    lake.write("raw/bad/short.rs", b"fn f() {}");
    let ingested = lake.json(&["ingest", "pipeline.toml", "--set", "clean.detect_charset=false"]);
    let count = |key: &str| ingested[key].as_u64().expect(key);
    assert_eq!(count("read"), count("kept") + total(&ingested["removed"]) + total(&ingested["quarantined"]));
    assert_eq!(ingested["quarantined"]["bad_encoding"], 1);
    assert_eq!(ingested["removed"]["exact_duplicate"], 1);
    assert_eq!(ingested["removed"]["too_short"], 1);
    assert_eq!(count("version"), 1);
}

#[test]
fn the_same_input_again_commits_nothing() {
    let lake = Lake::new();
    let first = lake.json(&["ingest", "pipeline.toml"]);
    let again = lake.json(&["ingest", "pipeline.toml"]);
    assert_eq!((&first["committed"], &again["committed"]), (&true.into(), &false.into()));
    assert_eq!(again["version"], 1);
    assert_eq!(first["rows_digest"], again["rows_digest"]);
    assert_eq!(lake.json(&["dataset", "log", "lake/code"])["versions"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_dry_run_commits_nothing() {
    let lake = Lake::new();
    let dry = lake.json(&["ingest", "pipeline.toml", "--dry-run"]);
    assert_eq!(dry["committed"], false);
    assert!(dry["kept"].as_u64().expect("kept") > 0);
    lake.error(1, &["dataset", "log", "lake/code"]);
}

#[test]
fn versions_are_shown_compared_and_named() {
    let lake = Lake::new();
    lake.json(&["ingest", "pipeline.toml"]);
    lake.write(
        "raw/new.rs",
        "//! A file that was not there before, with enough words in it to be kept by every rule.\npub fn new() -> u32 { 7 }\n",
    );
    lake.json(&["ingest", "pipeline.toml"]);
    let diff = lake.json(&["dataset", "diff", "lake/code", "1", "latest"]);
    assert_eq!((&diff["added"], &diff["removed"]), (&1.into(), &0.into()));
    lake.json(&["dataset", "tag", "lake/code", "first", "1"]);
    assert_eq!(lake.json(&["dataset", "show", "lake/code", "first"])["version"], 1);
    let error = lake.error(1, &["dataset", "tag", "lake/code", "first", "2"]);
    assert!(error.contains("first"), "{error}");
    let error = lake.error(1, &["dataset", "show", "lake/code", "9"]);
    assert!(error.contains('9') && error.contains("1 to 2"), "{error}");
}

#[test]
fn parquet_holds_the_same_rows_as_lance() {
    let lake = Lake::new();
    let lance = lake.json(&["ingest", "pipeline.toml"]);
    let parquet = lake.json(&["ingest", "pipeline.toml", "--set", "dataset=lake/parquet", "--set", "format=parquet"]);
    assert_eq!(lance["rows_digest"], parquet["rows_digest"]);
    let identity = |dataset: &str| lake.json(&["dataset", "log", dataset])["versions"][0]["identity"].clone();
    assert_eq!(identity("lake/code"), identity("lake/parquet"));
}

#[test]
fn killed_at_any_moment_it_goes_on_and_ends_the_same() {
    let lake = Lake::new();
    let whole = lake.json(&["ingest", "pipeline.toml", "--set", "dataset=lake/whole"]);
    for delay_ms in [20, 60, 120, 200, 300, 450] {
        let mut child = lake
            .command(&["ingest", "pipeline.toml"])
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("start");
        std::thread::sleep(Duration::from_millis(delay_ms));
        child.kill().expect("kill");
        child.wait().expect("wait");
    }
    let resumed = lake.json(&["ingest", "pipeline.toml"]);
    assert_eq!(resumed["rows_digest"], whole["rows_digest"]);
    assert_eq!(resumed["kept"], whole["kept"]);
    let log = lake.json(&["dataset", "log", "lake/code"]);
    assert_eq!(log["versions"].as_array().map(Vec::len), Some(1), "one version, whichever run committed it");
}

#[test]
fn bad_settings_and_sources_are_named() {
    let lake = Lake::new();
    let cases: [(i32, &[&str], &[&str]); 8] = [
        (2, &["ingest", "missing.toml"], &["missing.toml"]),
        (2, &["ingest", "pipeline.toml", "--set", "dedup.threshhold=1"], &["threshhold"]),
        (2, &["ingest", "pipeline.toml", "--set", "split.validation=0.9"], &["split.validation", "0.9", "0 to 0.5"]),
        (2, &["ingest", "pipeline.toml", "--set", "nonsense"], &["key=value"]),
        (2, &["ingest", "pipeline.toml", "--set", "dataset=ftp://host/x"], &["ftp"]),
        (2, &["ingest", "pipeline.toml", "--set", "source.url=nowhere"], &["nowhere"]),
        (2, &["ingest", "pipeline.toml", "--set", "source.include=['*.nothing']"], &["raw"]),
        (1, &["dataset", "log", "lake/none"], &["lake/none"]),
    ];
    for (code, arguments, names) in cases {
        let error = lake.error(code, arguments);
        assert!(names.iter().all(|name| error.contains(name)), "{arguments:?} -> {error}");
    }
}

#[test]
fn s3_without_credentials_says_which_variables() {
    let lake = Lake::new();
    let output = lake
        .command(&["ingest", "pipeline.toml", "--set", "dataset=s3://bucket/x"])
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .env_remove("AWS_ENDPOINT_URL")
        .output()
        .expect("start");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("AWS_ACCESS_KEY_ID"), "{text}");
}

#[test]
fn settings_in_force_are_printed() {
    let lake = Lake::new();
    let output = lake
        .command(&["ingest", "pipeline.toml", "--print-config", "--set", "dedup.bands=20"])
        .env("FOREBAY_SET_DEDUP__NEAR", "false")
        .output()
        .expect("start");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    let printed: toml::Table = text.parse().expect("TOML");
    assert_eq!(printed["dedup"]["bands"].as_integer(), Some(20));
    assert_eq!(printed["dedup"]["near"].as_bool(), Some(false));
    assert!(!lake.path("lake").exists(), "nothing was written");
}
