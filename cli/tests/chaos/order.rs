//! Neither threads nor the names, order and cut of files change a row.
//!
//! Deliberately absent: the size of tasks, which the crate `ingest` varies in its own tests.

use crate::chance::{Chance, seed};
use crate::corpus;
use crate::kills::PIPELINE;
use crate::lake::Lake;
use crate::version;

#[test]
fn any_number_of_threads_writes_the_same_bytes() {
    let lake = Lake::new(PIPELINE);
    corpus::write_boulders(&lake);
    let states = corpus::states();
    let datasets = [1, 2, 3, 4].map(|threads| (format!("lake-{threads}"), format!("limits.threads={threads}")));
    for (at, state) in states.iter().enumerate() {
        state.write(&lake);
        let found = datasets.each_ref().map(|(dataset, threads)| {
            let facts = lake.ingest(dataset, &["--set", threads]).facts();
            let folder = lake.path(dataset);
            (facts, version::tables(&folder, &version::manifests(&folder)[at]))
        });
        assert!(found.iter().all(|other| *other == found[0]), "other bytes in the tables of version {}", at + 1);
    }
}

#[test]
fn any_order_and_cut_of_the_files_keeps_the_same_rows() {
    let mut chance = Chance::new(seed());
    let [first, _] = corpus::states();
    let calm = Lake::new(PIPELINE);
    first.write(&calm);
    let facts = calm.ingest("lake", &[]).facts();
    let tables = version::tables(&calm.path("lake"), &version::manifests(&calm.path("lake"))[0]);
    for _ in 0..4 {
        let lake = Lake::new(PIPELINE);
        for (name, bytes) in &first.files {
            let extension = name.rsplit('.').next().expect("extension");
            let pieces: Vec<&[u8]> = match extension {
                "jsonl" => bytes.split_inclusive(|byte| *byte == b'\n').collect(),
                _ => vec![bytes],
            };
            for lines in pieces.chunks(1 + chance.below(5)) {
                lake.write(&format!("raw/{:016x}.{extension}", chance.next()), lines.concat());
            }
        }
        assert_eq!(lake.ingest("lake", &[]).facts(), facts);
        let found = version::tables(&lake.path("lake"), &version::manifests(&lake.path("lake"))[0]);
        for table in ["train", "validation"] {
            assert!(found[table] == tables[table], "other bytes in the table {table}");
        }
    }
}
