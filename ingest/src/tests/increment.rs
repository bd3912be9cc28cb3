//! A source that grows: what is new is added, and the version is the one that an ingest of everything would make.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// A document of a family: members of one family are near duplicates if they have few edits.
fn member(family: u32, edits: &[u8]) -> String {
    let mut words: Vec<String> = (0..80).map(|i| format!("w{}", family * 1_000 + i)).collect();
    for edit in edits {
        words[*edit as usize % 80] = format!("edit{edit}");
    }
    words.join(" ") + "\n"
}

async fn ingested(place: &Place, overrides: &[&str]) -> DatasetManifest {
    match place.ingest(overrides).await.expect("ingest").outcome {
        Outcome::Committed(manifest) | Outcome::Unchanged { manifest, .. } => manifest,
        planned @ Outcome::Planned { .. } => panic!("expected a version, found {planned:?}"),
    }
}

/// By key: verdict, id and survivor.
type Verdicts = BTreeMap<String, (String, Vec<u8>, Option<Vec<u8>>)>;

/// Ids of the kept records by the ledger, and the verdicts of all.
async fn kept(place: &Place, manifest: &DatasetManifest) -> (BTreeSet<Vec<u8>>, Verdicts) {
    let ledger = place.read(manifest, "records").await;
    let (keys, ids) = (ledger.column(0).as_string::<i32>(), ledger.column(1).as_fixed_size_binary());
    let (verdicts, survivors) = (ledger.column(2).as_string::<i32>(), ledger.column(5).as_fixed_size_binary());
    let mut all = BTreeMap::new();
    let mut kept = BTreeSet::new();
    for row in 0..ledger.num_rows() {
        let survivor = survivors.is_valid(row).then(|| survivors.value(row).to_vec());
        let verdict = (verdicts.value(row).to_owned(), ids.value(row).to_vec(), survivor);
        assert!(all.insert(keys.value(row).to_owned(), verdict).is_none(), "{} twice", keys.value(row));
        if verdicts.value(row) == "kept" {
            assert!(kept.insert(ids.value(row).to_vec()), "{} is kept twice", keys.value(row));
        }
    }
    (kept, all)
}

/// Ids in the rows of both splits.
async fn in_tables(place: &Place, manifest: &DatasetManifest, is_text: bool) -> Vec<u64> {
    let mut ids = Vec::new();
    for table in ["train", "validation"] {
        let rows = place.read(manifest, table).await;
        if is_text {
            ids.extend(
                rows.column(0).as_fixed_size_binary().iter().flatten().map(|id| u64::from_le_bytes(id[..8].try_into().expect("id"))),
            );
        } else {
            ids.extend(rows.column(1).as_list::<i32>().values().as_primitive::<UInt64Type>().values());
        }
    }
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Ingests documents in some runs and at once, and compares.
async fn compare(runs: &[Vec<(u32, Vec<u8>)>], overrides: &[&str], is_text: bool) {
    let (grown, whole) = (Place::new(), Place::new());
    // Some of them are training data by their hash, since a version without any is refused.
    for number in 0..6 {
        for place in [&grown, &whole] {
            place.put(&format!("m/anchor-{number}.txt"), member(900 + number, &[]));
        }
    }
    let mut last = None;
    for (number, run) in runs.iter().enumerate() {
        for (at, (family, edits)) in run.iter().enumerate() {
            // Keys of later runs come before those of earlier ones every other time.
            let key = format!("{}/{number}-{at:03}.txt", if number % 2 == 0 { "m" } else { "a" });
            grown.put(&key, member(*family, edits));
            whole.put(&key, member(*family, edits));
        }
        last = Some(ingested(&grown, overrides).await);
    }
    let (grown_version, whole_version) = (last.expect("a run"), ingested(&whole, overrides).await);
    assert_eq!(grown_version.rows_digest, whole_version.rows_digest);
    assert_eq!(grown_version.tally.kept, whole_version.tally.kept);
    let (kept_grown, grown_ledger) = kept(&grown, &grown_version).await;
    let (kept_whole, _) = kept(&whole, &whole_version).await;
    assert_eq!(kept_grown, kept_whole);
    // Whatever a later run removed, every survivor that the ledger names is kept.
    for (key, (verdict, _, survivor)) in &grown_ledger {
        if let Some(survivor) = survivor {
            assert!(verdict == "removed" && kept_grown.contains(survivor), "{key}: its survivor is not kept");
        }
    }
    let expected: Vec<u64> = {
        let mut ids: Vec<u64> = kept_whole.iter().map(|id| u64::from_le_bytes(id[..8].try_into().expect("id"))).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(in_tables(&grown, &grown_version, is_text).await, expected);
    assert_eq!(in_tables(&whole, &whole_version, is_text).await, expected);
    // A run whose records are all left out makes no version, so they are in no index yet.
    if grown_version.inputs.objects == whole_version.inputs.objects {
        let index = grown.read(&grown_version, "index").await;
        assert_eq!(index.num_rows(), whole.read(&whole_version, "index").await.num_rows());
    }
}

#[test]
fn any_split_over_runs_gives_the_same_rows() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let document = (0u32..3, prop::collection::vec(any::<u8>(), 0..7));
    let runs = prop::collection::vec(prop::collection::vec(document, 1..6), 2..4);
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let overrides = ["output=documents", "split.validation=0.2", "clean.min_chars=1", "format=parquet"];
    let tested = runner.run(&runs, |runs| {
        runtime.block_on(compare(&runs, &overrides, true));
        Ok(())
    });
    tested.expect("the same rows");
}

#[tokio::test]
async fn sequences_of_tokens_lose_the_documents_that_are_replaced_and_no_others() {
    let first: Vec<(u32, Vec<u8>)> = (0..30).map(|n| (n % 15, vec![n as u8; usize::from(n >= 15) * 3])).collect();
    let second: Vec<(u32, Vec<u8>)> = (0..20).map(|n| (n, vec![200, n as u8 + 7, n as u8 * 3])).collect();
    for method in ["pack.method=stream", "pack.method=best_fit"] {
        let runs = [first.clone(), second.clone()];
        compare(&runs, &["split.validation=0.2", "clean.min_chars=1", method], false).await;
    }
}

#[tokio::test]
async fn an_increment_reads_only_what_is_new_and_keeps_the_tokenizer() {
    let place = troubled();
    let first = committed(place.ingest(&[]).await);
    place.put("a/new.rs", document(99));
    // Were the old files read, they would be found changed.
    for number in 0..20 {
        let path = place.folder.path().join(format!("raw/a/{number:02}.rs"));
        let time = fs::metadata(&path).expect("file").modified().expect("time");
        let size = fs::metadata(&path).expect("file").len() as usize;
        let mut bytes = vec![b'x'; size];
        bytes[size - 1] = b'\n';
        fs::write(&path, bytes).expect("file");
        fs::File::options().write(true).open(&path).expect("file").set_modified(time).expect("time");
    }
    let second = committed(place.ingest(&[]).await);
    assert_eq!((second.version, second.tally.read, second.tally.kept), (2, first.tally.read + 1, first.tally.kept + 1));
    assert_eq!(second.tokenizer, first.tokenizer);
    assert!(second.layout.is_some() && second.identity() != first.identity());
    assert_eq!(second.tables["train"].plain().len(), 2);
}

#[tokio::test]
async fn an_object_that_is_gone_means_a_start_from_the_beginning() {
    let place = troubled();
    committed(place.ingest(&[]).await);
    fs::remove_file(place.folder.path().join("raw/a/00.rs")).expect("remove");
    place.put("a/new.rs", document(99));
    let second = committed(place.ingest(&[]).await);
    assert_eq!((second.version, second.tally.read, second.layout), (2, 28, None));
}

/// A picture of a family: members of one family are near duplicates, of `edit` 0 and the same family copies.
fn picture(family: u32, edit: u32) -> Vec<u8> {
    let wave = |a: f64, b: f64, u: f64, v: f64| {
        (127.5 + 100.0 * ((a + f64::from(family)) * u + b * v * v + f64::from(family) * u * v).sin()) as u8
    };
    let pixel = |x: u32, y: u32| {
        let (u, v) = (f64::from(x) / 64.0, f64::from(y) / 48.0);
        // An edit is a corner in another colour.
        if x < edit % 4 && y < 3 {
            image::Rgb([edit as u8; 3])
        } else {
            image::Rgb([wave(9.0, 5.0, u, v), wave(4.0, 13.0, v, u), wave(17.0, 2.0, u, v)])
        }
    };
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_fn(64, 48, pixel).write_to(&mut bytes, image::ImageFormat::Png).expect("picture");
    bytes.into_inner()
}

async fn pictures(place: &Place) -> DatasetManifest {
    let pipeline = place.pipeline("images", &["split.validation_keys=['test/**']", "format=parquet"]);
    ingest(&pipeline, Options::default(), Arc::new(Silent)).await.expect("ingest");
    // As it is stored: a number that is read may differ in its last bit from the one that was written.
    Dataset::open(&pipeline.dataset).await.expect("dataset").latest().await.expect("versions").expect("a version")
}

/// Id and label of every row of the two splits.
async fn labelled(place: &Place, manifest: &DatasetManifest) -> BTreeSet<(bool, Vec<u8>, u32)> {
    let mut found = BTreeSet::new();
    for table in ["train", "validation"] {
        let rows = place.read(manifest, table).await;
        let (ids, labels) = (rows.column(0).as_fixed_size_binary(), rows.column(2).as_primitive::<UInt32Type>());
        found.extend((0..rows.num_rows()).map(|row| (table == "train", ids.value(row).to_vec(), labels.value(row))));
    }
    found
}

/// Ingests pictures, given by key, family and edit, in two runs and at once, and compares; whether the second run added.
async fn compare_pictures(first: &[(String, u32, u32)], second: &[(String, u32, u32)]) -> bool {
    let (grown, whole) = (Place::new(), Place::new());
    first.iter().chain(second).for_each(|(key, family, edit)| whole.put(key, picture(*family, *edit)));
    first.iter().for_each(|(key, family, edit)| grown.put(key, picture(*family, *edit)));
    pictures(&grown).await;
    second.iter().for_each(|(key, family, edit)| grown.put(key, picture(*family, *edit)));
    let (grown_version, whole_version) = (pictures(&grown).await, pictures(&whole).await);
    assert_eq!(grown_version.rows_digest, whole_version.rows_digest);
    assert_eq!(grown_version.statistics, whole_version.statistics);
    assert_eq!(grown_version.tally.kept, whole_version.tally.kept);
    assert_eq!(labelled(&grown, &grown_version).await, labelled(&whole, &whole_version).await);
    let stored_twice = walk(&grown.folder.path().join("lake/cleaned"));
    assert!(stored_twice.is_empty(), "{stored_twice:?}");
    grown_version.layout.is_some()
}

#[test]
fn pictures_in_any_split_over_runs_give_the_same_rows() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let picture = (prop::sample::select(vec!["train/a", "train/b", "train/c", "test/a", "test/b"]), 0u32..40, 0u32..4);
    let runs = (prop::collection::vec(picture.clone(), 4..14), prop::collection::vec(picture, 1..6));
    let mut runner = TestRunner::new(Config { cases: 16, failure_persistence: None, ..Config::default() });
    let tested = runner.run(&runs, |(first, second)| {
        let name = |run: &str, pictures: Vec<(&str, u32, u32)>| {
            let named =
                pictures.into_iter().enumerate().map(|(at, (folder, family, edit))| (format!("{folder}/{run}-{at:03}.png"), family, edit));
            named.collect::<Vec<_>>()
        };
        // One that is training data whatever comes, and keys of the second run before those of the first.
        let mut first = name("m", first);
        first.push(("train/a/anchor.png".to_owned(), 99, 0));
        runtime.block_on(compare_pictures(&first, &name("b", second)));
        Ok(())
    });
    tested.expect("the same rows");
}

#[tokio::test]
async fn pictures_are_added_unless_a_row_would_be_another() {
    let named = |key: &str, family: u32, edit: u32| (key.to_owned(), family, edit);
    let first: Vec<_> = (0..8).map(|n| named(&format!("train/{}/m-{n}.png", ["a", "b"][n as usize % 2]), n * 5, 0)).collect();
    assert!(compare_pictures(&first, &[named("train/a/new.png", 77, 0), named("train/b/copy.png", 5, 0)]).await);
    assert!(!compare_pictures(&first, &[named("train/c/new.png", 77, 0)]).await, "a class is new");
    assert!(!compare_pictures(&first, &[named("train/a/copy.png", 5, 0)]).await, "a copy in another class");
    assert!(!compare_pictures(&first, &[named("test/b/copy.png", 5, 0)]).await, "a copy in another split");
}
