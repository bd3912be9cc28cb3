//! Dataset versions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::FixedSizeBinaryBuilder;
use arrow::array::{Array, RecordBatch, StringArray, UInt64Array, new_null_array};
use bytes::Bytes;
use forebay_schemas::Digest;
use forebay_schemas::dataset::{DatasetManifest, TableFormat, TableRef, Tally};
use forebay_schemas::record;
use forebay_store::dataset::SELECTIONS;
use forebay_store::{Dataset, Kind, Outcome, VersionSpec};
use serde_json::json;

use crate::place::{Place, on_every_store};
use crate::table::{schema, sequences, stream};

on_every_store!(
    versions_are_committed_logged_and_resolved,
    of_racing_commits_one_is_the_version,
    what_is_not_conserved_or_leaves_a_gap_is_refused,
    a_tag_names_one_version,
    a_damaged_or_newer_manifest_is_named,
    a_diff_counts_records_inputs_and_settings,
    gc_finds_only_what_no_version_names,
);

const GOLDEN: &str = include_str!("../../../schemas/golden/dataset-2.json");

/// A manifest of `version`, with tables and an input list that exist.
pub(crate) async fn manifest(dataset: &Dataset, version: u64, tables: BTreeMap<String, TableRef>) -> DatasetManifest {
    let mut manifest: DatasetManifest = serde_json::from_str(GOLDEN).expect("golden manifest");
    let list = format!("{{\"key\":\"a\",\"size\":1,\"etag\":null}}\n{{\"key\":\"v{version}\",\"size\":{version},\"etag\":null}}\n");
    manifest.inputs.list = dataset.put_object(Bytes::from(list), ".jsonl").await.expect("list");
    manifest.version = version;
    manifest.parent = (version > 1).then(|| version - 1);
    manifest.tokenizer = None;
    manifest.cleaned = None;
    manifest.statistics.token_counts = None;
    manifest.tables = tables;
    manifest
}

async fn commit(dataset: &Dataset, version: u64) -> DatasetManifest {
    let manifest = manifest(dataset, version, BTreeMap::new()).await;
    assert_eq!(dataset.commit(&manifest).await.expect("commit"), Outcome::Committed);
    manifest
}

fn spec(text: &str) -> VersionSpec {
    text.parse().expect("version")
}

async fn versions_are_committed_logged_and_resolved(place: Place) {
    let error = Dataset::open(&place.url).await.expect_err("nothing there");
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    let dataset = place.dataset().await;
    assert!(dataset.latest().await.expect("latest").is_none());
    let first = commit(&dataset, 1).await;
    let second = commit(&dataset, 2).await;
    assert_eq!(dataset.commit(&second).await.expect("again"), Outcome::Committed);

    let dataset = Dataset::open(&place.url).await.expect("open");
    assert_eq!(dataset.log().await.expect("log"), [first.clone(), second.clone()]);
    dataset.tag("gold", 1).await.expect("tag");
    for (text, expected) in [("1", &first), ("v1", &first), ("gold", &first), ("2", &second), ("latest", &second)] {
        assert_eq!(&dataset.resolve(&spec(text)).await.expect("resolve"), expected, "{text}");
    }
    let error = dataset.resolve(&spec("7")).await.expect_err("missing");
    assert!(
        error.kind() == Kind::NotFound && error.to_string().ends_with("version `7` not found: there are versions 1 to 2 and tags gold (1)"),
        "{error}"
    );
    assert_eq!(dataset.resolve(&spec("silver")).await.expect_err("missing").kind(), Kind::NotFound);
    let object = dataset.get_object(&first.inputs.list).await.expect("object");
    assert_eq!(Digest::of(&object), first.inputs.list.digest);
}

async fn of_racing_commits_one_is_the_version(place: Place) {
    let dataset = place.dataset().await;
    let base = manifest(&dataset, 1, BTreeMap::new()).await;
    let racers: Vec<_> = (0..16u64)
        .map(|racer| {
            let (dataset, mut manifest) = (dataset.clone(), base.clone());
            manifest.created_unix_ms += racer;
            tokio::spawn(async move { (dataset.commit(&manifest).await.expect("commit"), manifest) })
        })
        .collect();
    let outcomes = futures::future::try_join_all(racers).await.expect("racers");
    let winners: Vec<&DatasetManifest> =
        outcomes.iter().filter(|(outcome, _)| *outcome == Outcome::Committed).map(|(_, manifest)| manifest).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(&dataset.latest().await.expect("latest").expect("there"), winners[0]);
}

async fn what_is_not_conserved_or_leaves_a_gap_is_refused(place: Place) {
    let dataset = place.dataset().await;
    let good = manifest(&dataset, 1, BTreeMap::new()).await;
    let lossy = DatasetManifest { tally: Tally { read: 11, ..good.tally.clone() }, ..good.clone() };
    let gap = DatasetManifest { version: 2, parent: Some(1), ..good.clone() };
    let orphan = DatasetManifest { version: 2, parent: None, ..good.clone() };
    let zero = DatasetManifest { version: 0, ..good.clone() };
    let newer = DatasetManifest { format: 99, ..good };
    for (bad, why) in [
        (lossy, "read 11 records, expected kept 6 + removed 3 + quarantined 1"),
        (gap, "its parent, version 1, does not exist"),
        (orphan, "its parent is None"),
        (zero, "its parent is None"),
        (newer, "its format is 99"),
    ] {
        let error = dataset.commit(&bad).await.expect_err(why);
        assert!(error.kind() == Kind::Invalid && error.to_string().contains(why), "{error}");
    }
    assert!(dataset.latest().await.expect("latest").is_none());
}

async fn a_tag_names_one_version(place: Place) {
    let dataset = place.dataset().await;
    commit(&dataset, 1).await;
    commit(&dataset, 2).await;
    dataset.tag("best.2026-01", 1).await.expect("tag");
    dataset.tag("best.2026-01", 1).await.expect("tag again");
    let error = dataset.tag("best.2026-01", 2).await.expect_err("taken");
    assert!(error.kind() == Kind::Conflict && error.to_string().contains("already names version 1"), "{error}");
    assert_eq!(dataset.tag("other", 3).await.expect_err("no version").kind(), Kind::NotFound);
    for bad in ["", "latest", "12", "v3", "a/b", "ä", ".x"] {
        assert_eq!(dataset.tag(bad, 1).await.expect_err(bad).kind(), Kind::Invalid, "{bad}");
    }
    assert_eq!(dataset.tags().await.expect("tags"), BTreeMap::from([("best.2026-01".to_owned(), 1)]));
    dataset.untag("best.2026-01").await.expect("untag");
    assert_eq!(dataset.untag("best.2026-01").await.expect_err("gone").kind(), Kind::NotFound);
    assert!(dataset.tags().await.expect("tags").is_empty());
}

async fn a_damaged_or_newer_manifest_is_named(place: Place) {
    let dataset = place.dataset().await;
    let text = serde_json::to_string(&commit(&dataset, 1).await).expect("json");
    let newer = text.replacen("\"format\":2", "\"format\":3,\"new\":true", 1);
    let other = text.replacen("\"version\":1", "\"version\":7", 1);
    for (bytes, kind, why) in [
        (text[..text.len() / 2].to_owned(), Kind::Corrupt, "is not a manifest"),
        ("[]".to_owned(), Kind::Corrupt, "is not a manifest"),
        (other, Kind::Corrupt, "is of version 7, expected 1"),
        (newer, Kind::Invalid, "has format 3, this program reads up to 2: use a newer program"),
    ] {
        dataset.location().put("_forebay/versions/00000000000000000001.json", Bytes::from(bytes)).await.expect("put");
        let error = dataset.latest().await.expect_err(why);
        assert!(
            error.kind() == kind && error.to_string().contains("00000000000000000001.json") && error.to_string().contains(why),
            "{error}"
        );
    }
}

fn records(kept: std::ops::Range<u8>) -> RecordBatch {
    let schema = record::records();
    let mut ids = FixedSizeBinaryBuilder::new(32);
    kept.clone().for_each(|id| ids.append_value([id; 32]).expect("id"));
    ids.append_value([255; 32]).expect("id");
    ids.append_null();
    let rows = kept.len() + 2;
    let verdicts: Vec<&str> = kept.map(|_| "kept").chain(["removed", "quarantined"]).collect();
    let nulls = |index: usize| new_null_array(schema.field(index).data_type(), rows);
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(StringArray::from_iter_values((0..rows).map(|row| row.to_string()))),
        Arc::new(ids.finish()),
        Arc::new(StringArray::from(verdicts)),
        nulls(3),
        nulls(4),
        nulls(5),
        nulls(6),
        Arc::new(UInt64Array::from(vec![1; rows])),
        nulls(8),
    ];
    RecordBatch::try_new(schema, columns).expect("batch")
}

async fn a_diff_counts_records_inputs_and_settings(place: Place) {
    let dataset = place.dataset().await;
    for (version, format, kept) in [(1, TableFormat::Lance, 0..10), (2, TableFormat::Parquet, 4..20)] {
        let path = format!("tables/{version}/records");
        let table = dataset.tables(format).write(&path, None, record::records(), stream(vec![records(kept)])).await.expect("write");
        let mut manifest = manifest(&dataset, version, BTreeMap::from([("records".to_owned(), table)])).await;
        manifest.config = json!({"dedup": {"near": version == 1}, "dataset": "x"});
        assert_eq!(dataset.commit(&manifest).await.expect("commit"), Outcome::Committed);
    }
    let diff = dataset.diff(1, 2).await.expect("diff");
    assert_eq!((diff.added, diff.removed, diff.unchanged), (10, 4, 6));
    let expected = [("added", 1), ("removed", 1), ("changed", 0), ("unchanged", 1)].map(|(change, count)| (change.to_owned(), count));
    assert_eq!(diff.inputs, BTreeMap::from(expected));
    assert_eq!(diff.config, BTreeMap::from([("dedup.near".to_owned(), (json!(true), json!(false)))]));
    let same = dataset.diff(2, 2).await.expect("diff");
    assert_eq!((same.added, same.removed, same.unchanged, same.config.len()), (0, 0, 16, 0));
    assert_eq!(dataset.diff(1, 3).await.expect_err("missing").kind(), Kind::NotFound);
}

async fn gc_finds_only_what_no_version_names(place: Place) {
    let dataset = place.dataset().await;
    let mut tables = BTreeMap::new();
    for format in [TableFormat::Lance, TableFormat::Parquet] {
        let open = dataset.tables(format);
        let write = async |name: &str| {
            open.write(&format!("tables/{name}-{format:?}"), None, schema(), stream(vec![sequences(0..9)])).await.expect("write")
        };
        tables.insert(format!("{format:?}"), write("kept").await);
        write("orphan").await;
    }
    let mut kept = manifest(&dataset, 1, tables).await;
    // Of two jobs that cleaned, one has a task in the version.
    let task = r#"{"folder":"cleaned/job","task":0,"records":1}"#;
    kept.cleaned = Some(dataset.put_object(Bytes::from(task), ".jsonl").await.expect("put"));
    for path in ["cleaned/job/contents/00000.parquet", "cleaned/crashed/contents/00000.parquet", "_work/crashed/encode/00000.parquet"] {
        dataset.location().put(path, Bytes::from("stage object")).await.expect("put");
    }
    assert_eq!(dataset.commit(&kept).await.expect("commit"), Outcome::Committed);
    let selections = [format!("{SELECTIONS}/{}/a.rows", kept.identity()), format!("{SELECTIONS}/{}/a.rows", Digest::of(b"a lost version"))];
    for path in &selections {
        dataset.location().put(path, Bytes::from("rows")).await.expect("put");
    }
    // What a writer that is killed in the middle of an object leaves on a disk; no listing shows it.
    let disk = Some(Path::new(&place.url)).filter(|path| path.is_absolute());
    let staged = disk.map(|path| path.join("tables/killed/_versions/1.manifest#1"));
    if let Some(staged) = &staged {
        std::fs::create_dir_all(staged.parent().expect("parent")).expect("folder");
        std::fs::write(staged, b"half").expect("file");
    }
    let lost = dataset.put_object(Bytes::from("nobody names this"), ".bin").await.expect("put");
    dataset.location().put("checkpoints/run/objects/x", Bytes::from("somebody else's")).await.expect("put");

    let grace = Duration::from_secs(3600);
    assert_eq!(dataset.gc(grace, true).await.expect("gc").objects, 0, "all of it is young");
    // The store's clock may be a little behind ours, and S3 counts whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let found = dataset.gc(Duration::ZERO, false).await.expect("gc");
    assert!(found.objects >= 7 && !found.deleted, "{found:?}");
    let deleted = dataset.gc(Duration::ZERO, true).await.expect("gc");
    assert_eq!((deleted.objects, deleted.bytes, deleted.deleted), (found.objects, found.bytes, true));
    assert_eq!(dataset.gc(Duration::ZERO, true).await.expect("gc").objects, 0);

    assert_eq!(dataset.get_object(&lost).await.expect_err("deleted").kind(), Kind::NotFound);
    assert!(dataset.location().head("checkpoints/run/objects/x").await.expect("head").is_some());
    dataset.get_object(&kept.inputs.list).await.expect("named");
    assert!(staged.is_none_or(|staged| !staged.exists()));
    for (path, is_left) in [
        ("cleaned/job/contents/00000.parquet", true),
        ("cleaned/crashed/contents/00000.parquet", false),
        ("_work/crashed/encode/00000.parquet", false),
        (&selections[0], true),
        (&selections[1], false),
    ] {
        assert_eq!(dataset.location().head(path).await.expect("head").is_some(), is_left, "{path}");
    }
    for table in kept.tables.values() {
        let open = dataset.tables(table.format).open(table).await.expect("open");
        assert_eq!(open.read(std::slice::from_ref(&(0..9)), &["tokens"]).await.expect("read").num_rows(), 9);
    }
}
