//! The wait from batch to batch, exactly: a store of which one request in a hundred is 20 × slower, a consumer of steady pace.
//!
//! On a real machine its own noise is as large as what is looked for. Here time is the simulated clock's: requests take what the
//! store draws (1 to 10 ms), batches take nothing to make, so whatever the consumer waits beyond its pace is the loader's doing.
//! `cargo test -p forebay-loader tail -- --nocapture` prints the table.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay_schemas::Digest;
use forebay_schemas::dataset::Modality;
use forebay_schemas::run::Loading;
use forebay_store::Table;

use super::machine::{Tasks, Turned};
use super::store::{Faults, ROW_BYTES, Shelf, schema};
use crate::batch::{Recipe, Transform};
use crate::fetch::{Fetch, Host};
use crate::machine::Machine;
use crate::plan::{Plan, Shuffle, Source};
use crate::prefetch::Order;
use crate::prefetch::queue::Queue;
use crate::prefetch::reader;

/// So long the consumer computes a batch: about what a request takes.
const PACE: Duration = Duration::from_millis(5);
/// How often the consumer looks for a batch that is late.
const LOOK: Duration = Duration::from_micros(100);
const SAMPLES: u32 = 64;
const STEPS: u64 = 5_000;

/// What came of a run.
#[derive(Debug, PartialEq)]
struct Tail {
    /// Of the times from batch to batch the 99.9th percentile over the median.
    p999: f64,
    /// The longest over the median.
    longest: f64,
    /// Time in which the consumer waited, of all of it.
    waited: f64,
    /// Reads of the store, for each batch.
    reads: f64,
}

/// Feeds a consumer whose bound holds so many batches.
fn run(batches: u64, hedge: f64, slow: u64) -> Tail {
    let clock = Arc::new(Turned::default());
    let faults = Faults { slow, fails: 0, lies: 0, outage: 0 };
    let source = Source::whole(Digest::of(b"tail"), 100_000, Shuffle { block_rows: 64, window_blocks: 256 });
    let shelf = Arc::new(Shelf::new(0, source.rows, Arc::clone(&clock), faults, 0x7a11));
    let plan = Plan::new(&[source], 9, 1, SAMPLES).expect("plan");
    let recipe = Recipe::new("train", 9, (Modality::Text, None), &schema(), &Transform::Tokens { masking: None }).expect("recipe");
    let machine: Arc<dyn Machine> = Arc::new(Arc::clone(&clock));
    let loading = Loading { hedge, ..Loading::default() };
    let host = Host { machine: Arc::clone(&machine), meter: Arc::default() };
    let tables = vec![Arc::clone(&shelf) as Arc<dyn Table>];
    let fetch = Fetch::new(tables, plan.clone(), "train", recipe.columns(), None, host, &loading);
    let order = Order::planned(plan, vec![0], 0, STEPS).expect("order");
    // Rows and batches share the bound, as in a stream.
    let bound = batches * u64::from(SAMPLES) * ROW_BYTES / 2;
    let queue = Arc::new(Queue::new(recipe, STEPS, bound, None));
    let between: Mutex<Vec<Duration>> = Mutex::default();
    let mut tasks = Tasks::default();
    tasks.spawn(0, reader::read(Arc::clone(&queue), fetch, order, bound));
    tasks.spawn(0, async {
        let mut last = None;
        for sequence in 0..STEPS {
            loop {
                queue.work_now();
                match queue.take_now(sequence) {
                    Some(item) => break drop(item.expect("micro-batch")),
                    None => machine.sleep(LOOK).await,
                }
            }
            let now = machine.now();
            between.lock().expect("times").extend(last.map(|last| now - last));
            last = Some(now);
            machine.sleep(PACE).await;
        }
    });
    assert!(tasks.run(&clock, Duration::from_secs(3_600)));
    drop(tasks);
    let mut between = between.into_inner().expect("times");
    let all: Duration = between.iter().sum();
    between.sort_unstable();
    let at = |share: f64| between[(between.len() as f64 * share) as usize];
    let over = |time: Duration| time.as_secs_f64() / at(0.5).as_secs_f64();
    Tail {
        p999: over(at(0.999)),
        longest: over(between[between.len() - 1]),
        waited: 1.0 - between.len() as f64 * PACE.as_secs_f64() / all.as_secs_f64(),
        reads: shelf.reads() as f64 / STEPS as f64,
    }
}

#[test]
fn slow_requests_stay_out_of_the_tail() {
    println!("{:>8} {:>6}  {:>8} {:>8} {:>8} {:>8}", "batches", "hedge", "p99.9", "longest", "waited", "reads");
    for batches in [8, 16, 32, 64] {
        let [alone, hedged, sooner] = [0.0, 4.0, 2.0].map(|hedge| {
            let tail = run(batches, hedge, 100);
            let Tail { p999, longest, waited, reads } = tail;
            println!("{batches:>8} {hedge:>6}  {p999:>8.2} {longest:>8.2} {:>6.2} % {reads:>8.3}", 100.0 * waited);
            tail
        });
        // A request asked for again takes about 27 ms, which is five batches: half of the bound is ready or being read.
        assert!(hedged.p999 <= if batches < 16 { 3.0 } else { 1.1 }, "{batches} batches: {hedged:?}");
        assert!(sooner.p999 <= hedged.p999 && hedged.waited <= alone.waited, "{batches} batches: {sooner:?}, {hedged:?}, {alone:?}");
        // The test tells one from the other, and the second requests are few.
        assert!(batches > 32 || alone.p999 > 5.0, "{batches} batches: {alone:?}");
        assert!(hedged.reads < 1.1 * alone.reads, "{hedged:?}, {alone:?}");
    }
    assert_eq!(run(16, 4.0, 0).longest, 1.0);
    assert_eq!(run(16, 4.0, 100), run(16, 4.0, 100));
}
