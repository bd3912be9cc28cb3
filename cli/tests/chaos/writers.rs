//! Many processes with the same job on the same dataset at once, some of them killed.
//!
//! All of them may do the work; one commits, and the others say what it committed. Deliberately absent: writers of
//! different jobs, which may each commit a version.

use std::process::Child;
use std::time::Duration;

use serde_json::Value;

use crate::chance::{Chance, seed};
use crate::corpus;
use crate::faults;
use crate::kills::PIPELINE;
use crate::lake::{Lake, end};
use crate::s3::{self, proxy::Proxy};
use crate::version;

const WRITERS: usize = 16;

#[test]
fn sixteen_writers_on_a_disk_make_one_version() {
    let lake = Lake::new(PIPELINE);
    for (at, state) in corpus::states().into_iter().enumerate() {
        state.write(&lake);
        let calm = lake.ingest("calm", &[]).facts();
        assert_eq!(crowd(&lake, "crowd"), calm);
        assert_eq!(version::manifests(&lake.path("crowd")).len(), at + 1);
        let tables = |dataset: &str| version::tables(&lake.path(dataset), &version::manifests(&lake.path(dataset))[at]);
        assert!(tables("calm") == tables("crowd"), "other bytes in the tables of version {}", at + 1);
    }
}

#[test]
fn sixteen_writers_on_s3_make_one_version() {
    let Some(bucket) = s3::folder("writers") else { return };
    let lake = faults::through(&Proxy::start(&bucket.endpoint, 0.0, 0), &bucket);
    let [calm, crowded] = ["calm", "crowd"].map(|name| format!("{}/{name}", bucket.url));
    for (at, state) in corpus::states().iter().enumerate() {
        bucket.put(state);
        let calm = lake.ingest(&calm, &[]).facts();
        assert_eq!(crowd(&lake, &crowded), calm);
        let log = lake.json(&["dataset", "log", &crowded]);
        assert_eq!(log["versions"].as_array().map(Vec::len), Some(at + 1));
    }
}

#[test]
fn writers_survive_the_kills_of_others() {
    let mut chance = Chance::new(seed());
    let lake = Lake::new(PIPELINE);
    corpus::write_boulders(&lake);
    let [first, second] = corpus::states();
    first.write(&lake);
    let calm = lake.ingest("calm", &[]);
    for round in 0..8 {
        let dataset = format!("lake-{round}");
        let mut writers: Vec<Child> = (0..5).map(|_| lake.start_ingest(&dataset, &[])).collect();
        let survivors = writers.split_off(3);
        for mut killed in writers {
            std::thread::sleep(calm.took.mul_f64(chance.share()));
            killed.kill().expect("kill");
            end(killed);
        }
        for survivor in survivors {
            assert_eq!(end(survivor).facts(), calm.facts());
        }
        assert_eq!(version::manifests(&lake.path(&dataset)).len(), 1, "one version, whoever committed it");
    }
    second.write(&lake);
    let increment = lake.ingest("calm", &[]).facts();
    assert_eq!(lake.ingest("lake-0", &[]).facts(), increment, "an increment builds upon it like upon any other");
}

#[test]
fn dry_runs_beside_it_change_nothing() {
    let lake = Lake::new(PIPELINE);
    let [first, _] = corpus::states();
    first.write(&lake);
    let calm = lake.ingest("calm", &[]).facts();
    for round in 0..6 {
        let dataset = format!("lake-{round}");
        let runs: Vec<Child> = (0..9)
            .map(|at| {
                std::thread::sleep(Duration::from_millis(30));
                lake.start_ingest(&dataset, if at == 4 { &[] } else { &["--dry-run"] })
            })
            .collect();
        for (at, ended) in runs.into_iter().map(end).enumerate() {
            // Those that were under way when another cleared up may have to give up, but not be wrong.
            assert!(!ended.has_crashed(), "{}", ended.errors);
            if ended.code == Some(0) {
                let facts = ended.facts();
                let of = |facts: &Value| ["read", "kept", "removed", "quarantined", "rows_digest"].map(|name| facts[name].clone());
                assert_eq!(of(&facts), of(&calm), "run {at}");
            }
        }
        assert_eq!(lake.ingest(&dataset, &[]).facts(), calm);
        assert_eq!(version::manifests(&lake.path(&dataset)).len(), 1);
        let tables = |dataset: &str| version::tables(&lake.path(dataset), &version::manifests(&lake.path(dataset))[0]);
        assert!(tables(&dataset) == tables("calm"), "other bytes in the tables");
    }
}

/// Runs the job in many processes at once; all must end well and say the same.
fn crowd(lake: &Lake, dataset: &str) -> Value {
    let start = || {
        // Spread a little, so that they meet in all stages.
        std::thread::sleep(Duration::from_millis(20));
        lake.start_ingest(dataset, &[])
    };
    let writers: Vec<Child> = (0..WRITERS).map(|_| start()).collect();
    let mut ended = writers.into_iter().map(end);
    let (mut committed, mut facts) = (0, Value::Null);
    for ended in ended.by_ref() {
        committed += usize::from(ended.json()["committed"] == true);
        let found = ended.facts();
        assert!(facts.is_null() || facts == found, "{facts} {found}");
        facts = found;
    }
    assert_eq!(committed, 1, "one of them commits");
    facts
}
