//! A writer is killed at random moments; readers never see anything half-written, and the next writer goes on.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use arrow::array::RecordBatch;
use forebay_schemas::dataset::TableFormat;
use forebay_store::{Dataset, Outcome};
use futures::TryStreamExt;

use crate::dataset::manifest;
use crate::place::{self, Place};
use crate::table::{schema, sequences, stream};

const URL: &str = "FOREBAY_CRASH_URL";
const ROWS: u64 = 40;
const KILLS: u64 = 10;

/// Appends [`ROWS`] rows to both tables and commits the next version.
async fn commit_next(dataset: &Dataset) -> Outcome {
    let latest = dataset.latest().await.expect("latest");
    let version = latest.as_ref().map_or(0, |latest| latest.version) + 1;
    let mut tables = BTreeMap::new();
    for format in [TableFormat::Lance, TableFormat::Parquet] {
        let name = format!("{format:?}");
        let parent = latest.as_ref().map(|latest| &latest.tables[&name]);
        let rows = stream(vec![sequences((version - 1) * ROWS..version * ROWS)]);
        let table = dataset.tables(format).write(&format!("tables/{name}"), parent, schema(), rows).await.expect("write");
        tables.insert(name, table);
    }
    let manifest = manifest(dataset, version, tables).await;
    dataset.commit(&manifest).await.expect("commit")
}

/// Every version holds exactly the rows of its number.
async fn check(dataset: &Dataset) -> u64 {
    let versions = dataset.log().await.expect("log");
    for (at, version) in versions.iter().enumerate() {
        assert_eq!(version.version, at as u64 + 1, "no gap");
        dataset.get_object(&version.inputs.list).await.expect("inputs");
        for table in version.tables.values() {
            let open = dataset.tables(table.format).open(table).await.expect("open");
            assert_eq!(open.rows(), version.version * ROWS);
        }
    }
    if let Some(latest) = versions.last() {
        for table in latest.tables.values() {
            let open = dataset.tables(table.format).open(table).await.expect("open");
            let rows: Vec<RecordBatch> = open.scan(&["tokens"]).await.expect("scan").try_collect().await.expect("rows");
            let rows = arrow::compute::concat_batches(&rows[0].schema(), &rows).expect("concat");
            assert_eq!(rows, sequences(0..latest.version * ROWS).project(&[0]).expect("project"));
        }
    }
    versions.len() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the writer that the tests below start and kill"]
async fn writes_until_it_is_killed() {
    let Ok(url) = std::env::var(URL) else { return };
    let dataset = Dataset::create(&url).await.expect("dataset");
    // Standard error is neither captured under --nocapture nor buffered.
    eprintln!("ready");
    for _ in 0..1000 {
        assert_eq!(commit_next(&dataset).await, Outcome::Committed);
    }
}

fn start_writer(url: &str) -> Child {
    let mut child = Command::new(std::env::current_exe().expect("test binary"))
        .args(["--exact", "crash::writes_until_it_is_killed", "--ignored", "--nocapture"])
        .env(URL, url)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("writer");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("ready"));
    assert!(ready, "the writer ended before it began");
    child
}

async fn killed_writers_leave_nothing_visible(place: Place) {
    let mut versions = 0;
    for round in 0..KILLS {
        let mut writer = start_writer(&place.url);
        // Spread over the first commits, so that every stage of one is hit sooner or later.
        std::thread::sleep(Duration::from_millis(15 + 37 * round));
        writer.kill().expect("kill");
        writer.wait().expect("wait");
        let dataset = place.dataset().await;
        let found = check(&dataset).await;
        assert!(found >= versions);
        assert_eq!(commit_next(&dataset).await, Outcome::Committed, "after the kill of round {round}");
        versions = check(&dataset).await;
        assert_eq!(versions, found + 1);
    }
    assert!(versions > KILLS, "some writer must have committed something before it was killed");
    let dataset = place.dataset().await;
    let garbage = dataset.gc(Duration::ZERO, true).await.expect("gc");
    eprintln!("{versions} versions; {} objects left behind by {KILLS} killed writers", garbage.objects);
    assert_eq!(check(&dataset).await, versions);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_writers_leave_nothing_visible_on_disk() {
    killed_writers_leave_nothing_visible(place::file().expect("folder")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_writers_leave_nothing_visible_on_s3() {
    if let Some(place) = place::s3() {
        killed_writers_leave_nothing_visible(place).await;
    }
}
