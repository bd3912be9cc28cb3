//! Kills at random moments of an ingest and of an increment.
//!
//! The delay before a SIGKILL is drawn evenly over the time of an undisturbed run; the job is started again at once, over
//! what the killed one left. Deliberately absent: a loss of power, after which the file system may forget.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::chance::{Chance, number, seed};
use crate::corpus::{self, Corpus};
use crate::lake::{Lake, end};
use crate::version;

/// Kills of one state of one dataset, at most.
const KILLS_IN_A_ROW: usize = 5;
/// The moment from which another run has nothing to do.
const AFTER: &str = "after the commit";
/// Rounds that run at a time.
const WORKERS: usize = 2;

pub(crate) const PIPELINE: &str = "
dataset = 'set by each test'
[source]
modality = 'text'
url = 'raw'
max_record = '1MiB'
[clean]
detect_charset = false
[split]
validation = 0.1
[tokenizer]
vocabulary = 300
sample = '64KiB'
[pack]
sequence_length = 64
";

/// What an undisturbed run makes of one state.
pub(crate) struct Calm {
    pub(crate) facts: Value,
    tables: BTreeMap<String, Vec<Vec<u8>>>,
    took: Duration,
}

/// All that the workers share.
struct Storm {
    states: [Corpus; 2],
    calm: Vec<Calm>,
    /// What the two versions differ in.
    difference: Value,
    left: AtomicI64,
    landed: Mutex<BTreeMap<&'static str, u64>>,
}

#[test]
fn killed_at_random_moments_it_loses_and_doubles_nothing() {
    let (seed, kills) = (seed(), number("FOREBAY_CHAOS_KILLS").unwrap_or(200));
    let states = corpus::states();
    let (calm, difference) = calm(&states);
    let storm = Storm { states, calm, difference, left: AtomicI64::new(kills as i64), landed: Mutex::default() };
    std::thread::scope(|scope| {
        for worker in 0..WORKERS as u64 {
            let storm = &storm;
            scope.spawn(move || storm.work(Chance::new(seed ^ worker)));
        }
    });
    let landed = storm.landed.into_inner().expect("count");
    eprintln!("{kills} kills landed: {landed:?}");
    assert_eq!(landed.values().sum::<u64>(), kills);
    assert!(kills < 100 || landed.len() >= 3, "the kills must land everywhere: {landed:?}");
}

/// Undisturbed runs of the states, one after the other; they must find what is planted.
fn calm(states: &[Corpus]) -> (Vec<Calm>, Value) {
    let lake = Lake::new(PIPELINE);
    let boulders = corpus::write_boulders(&lake);
    let mut calm = Vec::new();
    for (at, state) in states.iter().enumerate() {
        state.write(&lake);
        let ended = lake.ingest("lake", &[]);
        let facts = ended.facts();
        let sum = |count: fn(&Corpus) -> u64| states[..=at].iter().map(count).sum::<u64>();
        assert_eq!(facts["version"], at + 1);
        assert_eq!(facts["kept"], sum(|state| state.distinct), "{facts}");
        assert_eq!(facts["removed"]["exact_duplicate"], sum(|state| state.exact), "{facts}");
        assert_eq!(facts["removed"]["near_duplicate"], sum(|state| state.near), "{facts}");
        assert_eq!(facts["removed"]["too_short"], sum(|state| state.short), "{facts}");
        assert_eq!(facts["quarantined"]["too_large"], boulders, "{facts}");
        let manifests = version::manifests(&lake.path("lake"));
        assert_eq!(manifests.len(), at + 1);
        calm.push(Calm { facts, tables: version::tables(&lake.path("lake"), &manifests[at]), took: ended.took });
    }
    assert_eq!(calm[1].tables["train"].len(), 3, "an increment is a part of its own, and a list of replaced rows");
    assert_eq!(lake.ingest("at-once", &[]).facts()["rows_digest"], calm[1].facts["rows_digest"], "whether in two steps or one");
    (calm, difference(&lake, "lake"))
}

/// What the ledgers of the two versions differ in, counted by reading them back.
fn difference(lake: &Lake, dataset: &str) -> Value {
    let found = lake.json(&["dataset", "diff", dataset, "1", "2"]);
    serde_json::json!([found["added"], found["removed"], found["unchanged"], found["inputs"]])
}

impl Storm {
    /// Rounds with new datasets until all kills are done.
    fn work(&self, mut chance: Chance) {
        let lake = Lake::new(PIPELINE);
        corpus::write_boulders(&lake);
        for round in 0.. {
            if self.left.load(Ordering::Relaxed) <= 0 {
                return;
            }
            self.states[1].delete(&lake);
            self.round(&lake, &format!("lake-{round}"), &mut chance);
        }
    }

    fn round(&self, lake: &Lake, dataset: &str, chance: &mut Chance) {
        let folder = lake.path(dataset);
        for (at, (state, calm)) in self.states.iter().zip(&self.calm).enumerate() {
            state.write(lake);
            for _ in 0..KILLS_IN_A_ROW {
                if !self.kill(lake, dataset, at, calm.took.mul_f64(chance.share())) {
                    break;
                }
            }
            assert_eq!(lake.ingest(dataset, &[]).facts(), calm.facts);
            let manifests = version::manifests(&folder);
            assert_eq!(manifests.len(), at + 1, "one version an input state");
            assert!(version::tables(&folder, &manifests[at]) == calm.tables, "other bytes in the tables of version {}", at + 1);
        }
        lake.json(&["dataset", "gc", dataset, "--older-than", "0ms", "--delete"]);
        let left = version::files(&folder.join("tables"));
        assert_eq!(version::attempts(&folder), self.calm.len(), "what the killed ones left is garbage: {left:#?}");
        assert_eq!(difference(lake, dataset), self.difference);
        assert_eq!(lake.ingest(dataset, &[]).facts(), self.calm[1].facts, "and is not needed");
        std::fs::remove_dir_all(folder).expect("folder");
    }

    /// Starts the job and kills it after `delay`. False if there is nothing left to kill: no kills, or the job is done.
    fn kill(&self, lake: &Lake, dataset: &str, versions: usize, delay: Duration) -> bool {
        if self.left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return false;
        }
        let mut child = lake.start_ingest(dataset, &[]);
        std::thread::sleep(delay);
        if child.try_wait().expect("wait").is_some() {
            self.left.fetch_add(1, Ordering::Relaxed);
            assert_eq!(end(child).facts()["version"], versions + 1);
            return false;
        }
        child.kill().expect("kill");
        let ended = end(child);
        let moment = if ended.code.is_some() { AFTER } else { moment(&lake.path(dataset), versions) };
        *self.landed.lock().expect("count").entry(moment).or_default() += 1;
        moment != AFTER
    }
}

/// How far a killed job had come, which had so many versions before it.
fn moment(dataset: &Path, versions: usize) -> &'static str {
    let committed = version::manifests(dataset).len();
    let count = |folder: &str| version::files(&dataset.join(folder)).len();
    match (committed > versions, version::attempts(dataset) > versions, count("cleaned") > 8 * versions, count("_work")) {
        (true, ..) => AFTER,
        (_, true, ..) => "while tables were written",
        (_, _, _, 1..) => "while duplicates were searched",
        (_, _, true, _) => "while records were cleaned",
        _ => "before",
    }
}
