//! Whole ingests of small sources: what is kept, what is counted, and that nothing but content decides.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{UInt16Type, UInt32Type, UInt64Type};
use forebay_schemas::dataset::DatasetManifest;
use forebay_schemas::pipeline::Pipeline;
use forebay_schemas::settings::layered;
use forebay_store::Dataset;
use tempfile::TempDir;

use crate::plan::ingest_in_tasks;
use crate::source::TaskSize;
use crate::{Ingested, Kind, Options, Outcome, Progress, Result, Silent, Unit, ingest};

mod images;
mod increment;
mod lance;
mod repeats;

/// Places for a source and a dataset.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("raw")).expect("folder");
        Self { folder }
    }

    fn put(&self, key: &str, bytes: impl AsRef<[u8]>) {
        let path = self.folder.path().join("raw").join(key);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(path, bytes).expect("file");
    }

    fn pipeline(&self, modality: &str, overrides: &[&str]) -> Pipeline {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let text = format!("dataset = '{}'\n[source]\nmodality = '{modality}'\nurl = '{}'\n", path("lake"), path("raw"));
        let mut all = vec![
            "clean.detect_charset=false",
            "clean.max_line_chars=1000",
            "tokenizer.vocabulary=300",
            "tokenizer.sample='64KiB'",
            "pack.sequence_length=16",
        ];
        all.extend(overrides);
        let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
        layered("test.toml", &text, [], &all).expect("settings")
    }

    async fn ingest(&self, overrides: &[&str]) -> Result<Ingested> {
        ingest(&self.pipeline("text", overrides), Options::default(), Arc::new(Silent)).await
    }

    async fn read(&self, manifest: &DatasetManifest, table: &str) -> RecordBatch {
        let dataset = Dataset::open(&self.folder.path().join("lake").display().to_string()).await.expect("dataset");
        let reference = &manifest.tables[table];
        let table = dataset.tables(reference.format).open(reference).await.expect("table");
        let schema = table.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        table.read(std::slice::from_ref(&(0..table.rows())), &columns).await.expect("rows")
    }

    fn work(&self) -> bool {
        let work = self.folder.path().join("lake/_work");
        walk(&work).iter().any(|path| path.is_file())
    }
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn committed(done: Result<Ingested>) -> DatasetManifest {
    match done.expect("ingest").outcome {
        Outcome::Committed(manifest) => manifest,
        other => panic!("expected a commit, found {other:?}"),
    }
}

fn document(number: u32) -> String {
    let words: Vec<String> = (0..80).map(|i| format!("word{}", (number * 7919 + i * 104_729) % 10_007)).collect();
    format!("fn document_{number}() {{ {} }}\n", words.join(" "))
}

/// 20 good documents and one of each kind of trouble.
fn troubled() -> Place {
    let place = Place::new();
    for number in 0..20 {
        place.put(&format!("a/{number:02}.rs"), document(number));
    }
    place.put("b/copy.rs", document(3));
    place.put("b/copy-with-crlf.rs", document(4).replace('\n', "  \r\n"));
    place.put("b/near.rs", document(5) + "// the end\n");
    place.put("b/latin1.rs", b"// caf\xE9 au lait, and some more text here\n");
    place.put("b/binary.rs", [b"\x7fELF".as_slice(), &[0; 200]].concat());
    place.put("b/short.rs", "x\n");
    place.put("b/long-line.rs", "abc ".repeat(400));
    place.put("b/huge.rs", "let x = 1;\n".repeat(20_000));
    place.put("b/ignored.bin", "not text by its name, so not a record");
    place
}

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
}

#[tokio::test]
async fn every_record_is_kept_removed_or_quarantined_and_the_ledger_says_so() {
    let place = troubled();
    let manifest = committed(place.ingest(&["source.max_record='64KiB'", "split.validation=0.2"]).await);
    let tally = &manifest.tally;
    assert_eq!((tally.read, tally.kept), (28, 20));
    assert_eq!(tally.removed, counts(&[("exact_duplicate", 2), ("near_duplicate", 1), ("too_short", 1), ("long_line", 1)]));
    assert_eq!(tally.quarantined, counts(&[("bad_encoding", 2), ("too_large", 1)]));
    assert!(tally.is_conserved());
    assert_eq!(manifest.inputs.objects, 28);

    let ledger = place.read(&manifest, "records").await;
    let (keys, verdicts) = (ledger.column(0).as_string::<i32>(), ledger.column(2).as_string::<i32>());
    let (ids, survivors) = (ledger.column(1).as_fixed_size_binary(), ledger.column(5).as_fixed_size_binary());
    let of = |key: &str| keys.iter().position(|found| found == Some(key)).expect("row");
    assert_eq!(keys.len(), 28);
    assert_eq!(survivors.value(of("b/copy.rs")), ids.value(of("a/03.rs")));
    assert_eq!(survivors.value(of("b/copy-with-crlf.rs")), ids.value(of("a/04.rs")));
    // The near copies are judged by their ids, so either may be the survivor.
    let (near, other) = (of("b/near.rs"), of("a/05.rs"));
    let (gone, left) = if verdicts.value(near) == "removed" { (near, other) } else { (other, near) };
    assert_eq!((verdicts.value(left), survivors.value(gone)), ("kept", ids.value(left)));
    assert!(ids.is_null(of("b/latin1.rs")) && ids.is_null(of("b/huge.rs")));
    let tokens: u64 = ledger.column(8).as_primitive::<UInt64Type>().iter().flatten().sum();
    let rows = manifest.tables["train"].rows + manifest.tables["validation"].rows;
    assert!(rows >= tokens.div_ceil(16) && rows <= (tokens + 20).div_ceil(16) + 1, "{rows} rows of {tokens} tokens");
    assert!(manifest.tables["validation"].rows > 0);
    assert!(!place.work(), "stage objects are left");
}

#[tokio::test]
async fn the_same_content_again_commits_nothing() {
    let place = troubled();
    let first = committed(place.ingest(&[]).await);
    let again = place.ingest(&[]).await.expect("ingest");
    assert!(matches!(&again.outcome, Outcome::Unchanged { manifest, .. } if *manifest == first));
    // A copy is read and left out, and the table of what was read says so.
    let (raw, copy) = (place.folder.path().join("raw/a/00.rs"), place.folder.path().join("raw/a/copy.rs"));
    fs::copy(&raw, &copy).expect("copy");
    let copied = place.ingest(&[]).await.expect("ingest");
    assert!(matches!(&copied.outcome, Outcome::Unchanged { manifest, .. } if *manifest == first));
    assert_eq!((copied.tally().read, copied.tally().kept), (first.tally.read + 1, first.tally.kept));
    assert!(copied.tally().is_conserved());
    fs::remove_file(&copy).expect("remove");
    // Another file with the same bytes: other etags, so everything is read again, but no row is new.
    fs::rename(&raw, place.folder.path().join("raw/a/renamed.rs")).expect("rename");
    let renamed = place.ingest(&[]).await.expect("ingest");
    assert!(matches!(&renamed.outcome, Outcome::Unchanged { manifest, .. } if manifest.version == 1), "{:?}", renamed.outcome);
    place.put("a/new.rs", document(99));
    let grown = committed(place.ingest(&[]).await);
    assert_eq!((grown.version, grown.parent, grown.tally.kept), (2, Some(1), first.tally.kept + 1));
    assert!(!place.work());
}

#[tokio::test]
async fn rows_do_not_depend_on_threads_tasks_names_or_format() {
    let numbers: Vec<u32> = (0..40).collect();
    let mut results = Vec::new();
    let variants: [(&str, &str, u64, bool); 4] =
        [("1", "lance", 1 << 20, false), ("4", "lance", 1 << 20, true), ("2", "parquet", 1, false), ("3", "lance", 3_000, true)];
    for (threads, format, bytes, reversed) in variants {
        let place = Place::new();
        for number in &numbers {
            let name = if reversed { 1_000 - number } else { *number };
            place.put(&format!("{name:04}.rs"), document(*number));
            place.put(&format!("copies/{name:04}.rs"), document(*number) + if number % 3 == 0 { "// x\n" } else { "" });
        }
        let overrides = [format!("limits.threads={threads}"), format!("format={format}")];
        let pipeline = place.pipeline("text", &overrides.each_ref().map(String::as_str));
        let size = TaskSize { bytes, objects: 50 };
        let manifest = committed(ingest_in_tasks(&pipeline, Options::default(), Arc::new(Silent), size).await);
        let mut tables = Vec::new();
        for table in ["train", "validation"] {
            let rows = place.read(&manifest, table).await;
            let tokens = rows.column(0).as_fixed_size_list().values().as_primitive::<UInt16Type>().values().to_vec();
            let documents = rows.column(1).as_list::<i32>().values().as_primitive::<UInt64Type>().values().to_vec();
            tables.push((tokens, documents));
        }
        let tokenizer = manifest.tokenizer.expect("tokenizer").object.digest;
        results.push((manifest.rows_digest, tokenizer, manifest.statistics.unigram_entropy_nats, tables));
    }
    for other in &results[1..] {
        assert_eq!(*other, results[0]);
    }
}

/// Ends the process' interest in an ingest when a stage starts.
struct StopAt(&'static str, Mutex<Option<tokio::sync::oneshot::Sender<()>>>, Mutex<Vec<String>>);

impl Progress for StopAt {
    fn stage(&self, name: &str, _total: Option<u64>, _unit: Unit) {
        if name == self.0
            && let Some(stop) = self.1.lock().expect("lock").take()
        {
            let _ = stop.send(());
        }
    }
    fn advance(&self, _amount: u64) {}
    fn note(&self, line: &str) {
        self.2.lock().expect("lock").push(line.to_owned());
    }
}

#[tokio::test]
async fn an_ingest_that_was_cut_off_goes_on_and_doubles_nothing() {
    let whole = committed(troubled().ingest(&[]).await);
    for stage in ["clean", "dedup", "encode", "write"] {
        let place = troubled();
        let pipeline = place.pipeline("text", &[]);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let progress = Arc::new(StopAt(stage, Mutex::new(Some(stop)), Mutex::default()));
        tokio::select! {
            biased;
            _ = stopped => {}
            done = ingest(&pipeline, Options::default(), progress) => panic!("ingest ended before {stage}: {done:?}"),
        }
        let progress = Arc::new(StopAt("", Mutex::default(), Mutex::default()));
        let manifest = committed(ingest(&pipeline, Options::default(), Arc::clone(&progress) as Arc<dyn Progress>).await);
        assert_eq!((manifest.version, manifest.rows_digest, &manifest.tally), (1, whole.rows_digest, &whole.tally), "cut off at {stage}");
        if stage != "clean" {
            assert_eq!(*progress.2.lock().expect("lock"), ["going on after 1 of 1 finished tasks"], "cut off at {stage}");
        }
        // What only the attempt that was cut off knew is garbage.
        let dataset = Dataset::open(&pipeline.dataset).await.expect("dataset");
        dataset.gc(std::time::Duration::ZERO, true).await.expect("gc");
        assert!(!place.work());
    }
}

#[tokio::test]
async fn a_dry_run_decides_and_leaves_nothing() {
    let place = troubled();
    let pipeline = place.pipeline("text", &[]);
    let planned = ingest(&pipeline, Options { dry_run: true }, Arc::new(Silent)).await.expect("ingest");
    assert!(!place.work());
    let Outcome::Planned { tally, rows_digest, rejects } = planned.outcome else { panic!("expected a plan") };
    // Up to three of each reason, with what was judged.
    let expected = |count: &u64| (*count).min(3) as usize;
    let reasons: BTreeMap<&String, usize> =
        tally.removed.iter().chain(&tally.quarantined).map(|(name, count)| (name, expected(count))).collect();
    assert_eq!(rejects.iter().map(|(name, shown)| (name, shown.len())).collect::<BTreeMap<_, _>>(), reasons);
    assert!(rejects.values().flatten().all(|reject| !reject.key.is_empty() && !reject.detail.is_empty()));
    let manifest = committed(place.ingest(&[]).await);
    assert_eq!((manifest.version, manifest.tally, manifest.rows_digest), (1, tally, rows_digest));
}

#[tokio::test]
async fn a_missing_or_empty_source_is_named() {
    let place = Place::new();
    for (overrides, expected) in [
        (&[][..], "found nothing that matches"),
        (&["source.url='/nonexistent/forebay'"][..], "/nonexistent/forebay"),
        (&["source.include=['[']"][..], "source.include"),
        (&["split.validation=3.0"][..], "split.validation"),
    ] {
        let error = place.ingest(overrides).await.expect_err("refused");
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert!(error.to_string().contains(expected) && !error.to_string().contains('\n'), "{error}");
    }
    place.put("short.rs", "x");
    let error = place.ingest(&[]).await.expect_err("nothing kept");
    assert!(error.to_string().ends_with("no record is left to train on: read 1, kept 0, too_short 1"), "{error}");
}

/// Changes the source after it was listed.
struct Meddle(std::path::PathBuf);

impl Progress for Meddle {
    fn stage(&self, name: &str, _total: Option<u64>, _unit: Unit) {
        if name == "clean" {
            fs::remove_file(self.0.join("00.rs")).expect("remove");
            fs::write(self.0.join("01.rs"), document(77) + "// longer\n").expect("write");
        }
    }
    fn advance(&self, _amount: u64) {}
    fn note(&self, _line: &str) {}
}

#[tokio::test]
async fn a_file_that_goes_away_or_changes_is_quarantined_and_read_by_the_next_run() {
    let place = troubled();
    let meddle = Arc::new(Meddle(place.folder.path().join("raw/a")));
    let manifest = committed(ingest(&place.pipeline("text", &[]), Options::default(), meddle).await);
    assert_eq!(manifest.tally.quarantined["unreadable"], 2);
    assert!(manifest.tally.is_conserved());
    let next = committed(place.ingest(&[]).await);
    assert_eq!((next.version, next.tally.kept, next.tally.quarantined.get("unreadable")), (2, manifest.tally.kept + 1, None));
}

#[tokio::test]
async fn two_at_once_commit_one_version() {
    let place = troubled();
    let pipeline = place.pipeline("text", &[]);
    let run = || ingest(&pipeline, Options::default(), Arc::new(Silent));
    let (left, right) = tokio::join!(run(), run());
    let outcomes = [left.expect("left").outcome, right.expect("right").outcome];
    let commits = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Committed(_))).count();
    assert_eq!(commits, 1, "{outcomes:?}");
}

#[tokio::test]
async fn one_file_is_a_source_too() {
    let place = Place::new();
    place.put("only.txt", document(1));
    let url = format!("source.url='{}'", place.folder.path().join("raw/only.txt").display());
    let manifest = committed(place.ingest(&[&url, "split.validation=0.0"]).await);
    assert_eq!((manifest.tally.kept, manifest.tables["validation"].rows), (1, 0));
}

#[tokio::test]
async fn duplicates_stay_where_both_removals_are_off() {
    let place = Place::new();
    place.put("a.rs", document(1));
    place.put("b.rs", document(1));
    place.put("c.rs", document(2));
    let both = committed(place.ingest(&["dedup.exact=false", "dedup.near=false", "split.validation=0.0"]).await);
    assert_eq!(both.tally.kept, 3);
    let near = committed(place.ingest(&["dedup.exact=false", "split.validation=0.0"]).await);
    assert_eq!(near.tally.removed, counts(&[("near_duplicate", 1)]));
}
