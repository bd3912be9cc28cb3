//! Ingest from S3 to S3 through a store that fails.
//!
//! A process may give up, in one line and with code 1, and is then started again; it may never be wrong. Deliberately
//! absent: a store that lies, which no client can survive.

use serde_json::Value;

use crate::chance::seed;
use crate::corpus;
use crate::kills::PIPELINE;
use crate::lake::Lake;
use crate::s3::proxy::{Fault, Proxy};
use crate::s3::{self, Bucket};

/// Starts of one job, at most.
const ATTEMPTS: usize = 40;

#[test]
fn a_failing_store_costs_time_and_no_record() {
    let Some(bucket) = s3::folder("faults") else { return };
    let seed = seed();
    let [first, second] = corpus::states();
    let proxy = Proxy::start(&bucket.endpoint, 0.0, seed);
    let lake = through(&proxy, &bucket);
    bucket.put(&first);
    let calm = ingest(&lake, &bucket, "calm").0;
    let rounds = [0.02, 0.05, 0.1];
    let mut attempts = Vec::new();
    for (at, share) in rounds.into_iter().enumerate() {
        proxy.set_share(share);
        let (facts, starts) = ingest(&lake, &bucket, &format!("lake-{at}"));
        proxy.set_share(0.0);
        assert_eq!(facts, calm, "with {share} of the requests failed");
        assert_eq!(versions(&lake, &bucket, at).len(), 1);
        attempts.push(starts);
    }
    bucket.put(&second);
    let calm = ingest(&lake, &bucket, "calm").0;
    for (at, share) in rounds.into_iter().enumerate() {
        proxy.set_share(share);
        let (facts, starts) = ingest(&lake, &bucket, &format!("lake-{at}"));
        proxy.set_share(0.0);
        assert_eq!(facts, calm, "an increment with {share} of the requests failed");
        assert_eq!(versions(&lake, &bucket, at).len(), 2, "one version an input state");
        attempts.push(starts);
    }
    let (requests, faults) = proxy.counts();
    eprintln!("starts {attempts:?}, {requests} requests, faults {faults:?}");
    for fault in [Fault::LostAnswer, Fault::Truncated, Fault::Internal] {
        assert!(faults.contains_key(&fault), "{faults:?}");
    }
}

/// Every commit meets an answer that does not say who won.
#[test]
fn an_ambiguous_commit_is_committed_once() {
    let Some(bucket) = s3::folder("ambiguous") else { return };
    let [first, _] = corpus::states();
    let proxy = Proxy::start(&bucket.endpoint, 0.0, 0);
    let lake = through(&proxy, &bucket);
    bucket.put(&first);
    let calm = ingest(&lake, &bucket, "calm").0;
    for (at, fault) in [Fault::LostAnswer, Fault::ConflictAfterwards, Fault::RefusedAfterwards, Fault::Conflict].into_iter().enumerate() {
        proxy.fail_commits(fault);
        let (facts, starts) = ingest(&lake, &bucket, &format!("lake-{at}"));
        assert_eq!(facts, calm, "{fault:?}");
        // What was refused and never stored may be left to the next run; what was stored is ours.
        assert!(starts == 1 || fault == Fault::Conflict, "{fault:?} needs no second run");
        assert_eq!(versions(&lake, &bucket, at).len(), 1, "{fault:?}");
    }
    let (_, faults) = proxy.counts();
    assert_eq!(faults.len(), 4, "{faults:?}");
}

/// A lake whose processes reach the store only through the proxy.
pub(crate) fn through(proxy: &Proxy, bucket: &Bucket) -> Lake {
    let variables = [("AWS_ENDPOINT_URL", proxy.endpoint.as_str()), ("AWS_ALLOW_HTTP", "true")];
    Lake::new(&PIPELINE.replace("'raw'", &format!("'{}/raw'", bucket.url))).with_variables(&variables)
}

/// Ingests until a process says that it is done; facts, and how many processes it took.
fn ingest(lake: &Lake, bucket: &Bucket, dataset: &str) -> (Value, usize) {
    let mut errors = Vec::new();
    for start in 1..=ATTEMPTS {
        let ended = lake.ingest(&format!("{}/{dataset}", bucket.url), &[]);
        if ended.code == Some(0) {
            return (ended.facts(), start);
        }
        assert_eq!(ended.code, Some(1), "{}", ended.errors);
        let line = ended.errors.lines().find(|line| line.starts_with("forebay: error: "));
        errors.push(line.unwrap_or_else(|| panic!("it names no error: {}", ended.errors)).to_owned());
        eprintln!("{dataset}: {}", errors[errors.len() - 1]);
    }
    panic!("not done after {ATTEMPTS} starts: {errors:#?}");
}

fn versions(lake: &Lake, bucket: &Bucket, at: usize) -> Vec<Value> {
    let log = lake.json(&["dataset", "log", &format!("{}/lake-{at}", bucket.url)]);
    log["versions"].as_array().expect("versions").clone()
}
