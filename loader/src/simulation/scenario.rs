//! A run of generations of replicas, drawn from a seed, and its check.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay_schemas::Digest;
use forebay_schemas::dataset::Modality;
use forebay_schemas::run::{Loading, Spans};
use forebay_schemas::units::Millis;
use forebay_store::Table;

use super::Chance;
use super::disk::Platter;
use super::machine::{Tasks, Turned};
use super::store::{Faults, ROW_BYTES, Shelf, WIDTH, ids, schema, start};
use crate::augment::{hide, span_draws};
use crate::batch::{Batch, Documents, Masked, Masking, MicroBatch, Recipe, Transform};
use crate::cache::disk::Disk;
use crate::cache::{Cache, Counts};
use crate::error::Kind;
use crate::fetch::{Fetch, Host};
use crate::machine::Machine;
use crate::plan::{Draw, Plan, SelectionBuilder, Shuffle, Source};
use crate::prefetch::Order;
use crate::prefetch::queue::Queue;
use crate::prefetch::reader;

/// Stands for hidden tokens.
const MASK: u32 = u32::MAX;

/// Virtual time in which a generation that is not disturbed must get on, far beyond the longest outage and backoff.
const STUCK: Duration = Duration::from_secs(600);

/// What a history is made of.
#[derive(Clone, Debug)]
struct Scenario {
    sources: Vec<Source>,
    micro_batches: u32,
    micro_batch_size: u32,
    steps: u64,
    faults: Faults,
    /// Size of the cache; none has none.
    cache: Option<u64>,
    disk_fails: u64,
    disk_damages: u64,
    bound: u64,
    hedge: f64,
    kills: bool,
    /// Worlds are drawn up to this size.
    most_replicas: u64,
    /// What of a sample is hidden.
    masking: Option<Masking>,
}

/// What came of it.
struct History {
    /// By (step, micro-batch): what was fed in the step that was committed.
    fed: BTreeMap<(u64, u32), MicroBatch>,
    generations: u64,
    reads: u64,
    counts: Counts,
}

impl Scenario {
    fn drawn(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let sources = (0..1 + chance.below(3)).map(|number| {
            let rows = 1 + chance.below(400);
            let shuffle = Shuffle { block_rows: 1 << chance.below(5), window_blocks: 1 + chance.below(12) };
            let mut source = Source::whole(Digest::of(&number.to_le_bytes()), rows, shuffle);
            if chance.one_in(2) {
                let mut builder = SelectionBuilder::default();
                (0..rows).filter(|row| *row == 0 || chance.one_in(2)).for_each(|row| assert!(builder.add(row..row + 1)));
                source.selection = Some(Arc::new(builder.finish()));
            }
            source.weight = vec![(0, 1.0 + chance.below(5) as f64), (1 + chance.below(30), 0.1 + chance.below(4) as f64)];
            source
        });
        let sources = sources.collect();
        Self {
            sources,
            micro_batches: 1 + chance.below(20) as u32,
            micro_batch_size: 1 + chance.below(9) as u32,
            steps: 10 + chance.below(40),
            faults: Faults {
                slow: [0, 100, 20][chance.below(3) as usize],
                fails: [0, 50, 5][chance.below(3) as usize],
                lies: [0, 40, 20][chance.below(3) as usize],
                outage: [0, 200][chance.below(2) as usize],
            },
            cache: [None, Some(0), Some(1_500), Some(20_000), Some(1 << 30)][chance.below(5) as usize],
            disk_fails: [0, 40, 4][chance.below(3) as usize],
            disk_damages: [0, 20, 3][chance.below(3) as usize],
            bound: 1 << (6 + chance.below(12)),
            hedge: [0.0, 3.0][chance.below(2) as usize],
            kills: chance.one_in(2),
            most_replicas: 1 + chance.below(16),
            masking: chance.one_in(2).then(|| Masking { spans: Spans { density: 0.4, ..Spans::default() }, mask: MASK }),
        }
    }

    fn plan(&self) -> Plan {
        Plan::new(&self.sources, 9, self.micro_batches, self.micro_batch_size).expect("plan")
    }

    /// Runs generations until all steps are committed.
    fn run(&self, seed: u64) -> History {
        let mut chance = Chance::new(seed ^ 0x5eed);
        let clock = Arc::new(Turned::default());
        let plan = self.plan();
        let shelves: Vec<Arc<Shelf>> = (0..)
            .zip(&self.sources)
            .map(|(number, source)| {
                Arc::new(Shelf::new(number, source.rows, Arc::clone(&clock), self.faults, seed ^ u64::from(number) << 40))
            })
            .collect();
        let disk = Arc::new(Platter::new(self.disk_fails, self.disk_damages, seed ^ 0xd15c));
        let mut history = History { fed: BTreeMap::new(), generations: 0, reads: 0, counts: Counts::default() };
        let (mut committed, mut most_world) = (0, 0);
        while committed < self.steps {
            let world = 1 + chance.below(self.most_replicas) as usize;
            most_world = most_world.max(world as u64);
            let disturbed = self.kills && history.generations < 12;
            let ends = if disturbed { Duration::from_millis(5 + chance.below(700)) } else { STUCK };
            let frozen = (disturbed && world > 1 && chance.one_in(2)).then_some(0);
            let (fed, failed) = self.generation(
                &plan,
                &clock,
                &shelves,
                &disk,
                world,
                committed,
                (frozen, ends, disturbed),
                &mut chance,
                &mut history.counts,
            );
            // A step is committed when all of its micro-batches were fed.
            let whole = |step: &u64| (0..self.micro_batches).all(|index| fed.contains_key(&(*step, index)));
            let upto = (committed..self.steps).find(|step| !whole(step)).unwrap_or(self.steps);
            assert!(disturbed || failed || upto == self.steps, "seed {seed}: nobody got on beyond step {upto} of {}: {self:?}", self.steps);
            history.fed.extend(fed.into_iter().filter(|((step, _), _)| *step < upto));
            committed = upto;
            history.generations += 1;
        }
        history.reads = shelves.iter().map(|shelf| shelf.reads()).sum();
        self.check_bounds(&shelves, &disk, most_world);
        history
    }

    /// Replicas of one generation, until they are done, or the time is up and all are killed: what they fed, and whether one failed.
    #[expect(clippy::too_many_arguments, reason = "the parts of a history, put together in one place")]
    fn generation(
        &self,
        plan: &Plan,
        clock: &Arc<Turned>,
        shelves: &[Arc<Shelf>],
        disk: &Arc<Platter>,
        world: usize,
        first: u64,
        (frozen, ends, disturbed): (Option<usize>, Duration, bool),
        chance: &mut Chance,
        counts: &mut Counts,
    ) -> (BTreeMap<(u64, u32), MicroBatch>, bool) {
        let fed: Mutex<BTreeMap<(u64, u32), MicroBatch>> = Mutex::default();
        let failed = Mutex::new(false);
        let (fed, failed, mut tasks, mut caches) = (&fed, &failed, Tasks::default(), Vec::new());
        let machine: Arc<dyn Machine> = Arc::new(Arc::clone(clock));
        for rank in 0..world {
            let mine: Vec<u32> = (0..self.micro_batches).filter(|index| *index as usize % world == rank).collect();
            let tables = shelves.iter().map(|shelf| Arc::clone(shelf) as Arc<dyn Table>).collect();
            let transform = Transform::Tokens { masking: self.masking.clone() };
            let recipe = Recipe::new("train", 9, (Modality::Text, None), &schema(), &transform).expect("recipe");
            let cache = self.cache.map(|size| open_cache(plan, disk, &machine, clock, size));
            caches.extend(cache.clone());
            let host = Host { machine: Arc::clone(&machine), meter: Arc::default() };
            let loading = Loading { reads: 4, hedge: self.hedge, patience: Millis(3_600_000), ..Loading::default() };
            let fetch = Fetch::new(tables, plan.clone(), "train", recipe.columns(), cache, host, &loading);
            let order = Order::planned(plan.clone(), mine, first, self.steps).expect("order");
            let total = order.len();
            let queue = Arc::new(Queue::new(recipe, total, self.bound, None));
            tasks.spawn(rank, reader::read(Arc::clone(&queue), fetch, order, self.bound));
            let pace = chance.below(4_000);
            let machine = Arc::clone(&machine);
            tasks.spawn(rank, async move {
                for sequence in 0..total {
                    let micro_batch = loop {
                        queue.work_now();
                        match queue.take_now(sequence) {
                            Some(Ok((micro_batch, _))) => break micro_batch,
                            // A store that lies again and again; the trainer would stop and be started again.
                            Some(Err(error)) => {
                                assert_eq!(error.kind(), Kind::Corrupt, "{error}");
                                *failed.lock().expect("failed") = true;
                                return;
                            }
                            None => machine.sleep(Duration::from_millis(4)).await,
                        }
                    };
                    let key = (micro_batch.step, micro_batch.index);
                    assert!(fed.lock().expect("fed").insert(key, micro_batch).is_none(), "{key:?} twice");
                    machine.sleep(Duration::from_micros(pace)).await;
                }
            });
        }
        let began = clock.now();
        if let Some(rank) = frozen {
            let _ = tasks.run(clock, began + ends / 2);
            tasks.freeze(rank);
        }
        let done = tasks.run(clock, began + ends);
        assert!(done || disturbed, "stuck after {ends:?} in a world of {world}: {self:?}");
        for cache in &caches {
            let more = cache.counts();
            counts.hits += more.hits;
            counts.misses += more.misses;
            counts.damaged += more.damaged;
            counts.evicted += more.evicted;
            counts.bypassed += more.bypassed;
        }
        drop(tasks);
        let failed = *failed.lock().expect("failed");
        (std::mem::take(&mut fed.lock().expect("fed")), failed)
    }

    fn check_bounds(&self, shelves: &[Arc<Shelf>], disk: &Platter, most_world: u64) {
        if self.hedge == 0.0 && self.cache.is_none() {
            // Each replica has a bound of its own; a gap that is read along at most doubles what a micro-batch takes.
            let one = 2 * u64::from(self.micro_batch_size) * ROW_BYTES;
            let bound = most_world * self.bound.max(one).max(1 << 10);
            let found: u64 = shelves.iter().map(|shelf| shelf.most_under_way() * ROW_BYTES).max().unwrap_or(0);
            assert!(found <= bound, "{found} bytes under way, the bound is {bound}: {self:?}");
        }
        if let Some(size) = self.cache.filter(|_| self.disk_fails == 0) {
            // Until it lists the folder again, a replica does not know what the others wrote.
            let largest = 1_600 + 16 * ROW_BYTES;
            let allowed = size + most_world * (size / 32 + largest);
            assert!(disk.most_bytes() <= allowed, "{} bytes on the disk, {allowed} allowed: {self:?}", disk.most_bytes());
        }
    }

    /// The invariants about what was fed.
    fn check(&self, history: &History, seed: u64) {
        let plan = self.plan();
        let mut times: BTreeMap<(u32, u64), BTreeMap<u64, u32>> = BTreeMap::new();
        for step in 0..self.steps {
            for index in 0..self.micro_batches {
                let planned = plan.micro_batch(step, index);
                let micro_batch = &history.fed[&(step, index)];
                assert_eq!(micro_batch.digest, planned.digest(), "seed {seed}, step {step}, micro-batch {index}");
                let Batch::Tokens { ids: found, documents, masked, .. } = &micro_batch.batch else { panic!("tokens") };
                self.check_masked(&planned.draws, (found, documents), masked.as_ref());
                for ((place, draw), found) in planned.draws.iter().enumerate().zip(found.chunks_exact(WIDTH)) {
                    assert_eq!(found, ids(draw.source, draw.row), "seed {seed}, step {step}, micro-batch {index}, {draw:?}");
                    let Draw { source, epoch, row, .. } = *draw;
                    assert_eq!(documents.starts(place).last(), Some(&start(row)), "seed {seed}, step {step}, {draw:?}");
                    *times.entry((source, epoch)).or_default().entry(row).or_default() += 1;
                }
            }
        }
        for ((source, epoch), rows) in &times {
            assert!(rows.values().all(|times| *times == 1), "seed {seed}: a row of source {source} twice in epoch {epoch}");
            let complete = times.contains_key(&(*source, epoch + 1));
            assert!(!complete || rows.len() as u64 == plan.rows(*source), "seed {seed}: rows of source {source} missing in epoch {epoch}");
        }
    }
}

impl Scenario {
    /// Whoever made a batch, what of it is hidden follows from its draws.
    fn check_masked(&self, draws: &[Draw], (ids, documents): (&[u32], &Documents), masked: Option<&Masked>) {
        let (Some(masking), Some(masked)) = (&self.masking, masked) else { return assert!(self.masking.is_none() && masked.is_none()) };
        let (length, targets) = (WIDTH - 1, documents.targets(WIDTH - 1));
        for (place, draw) in draws.iter().enumerate() {
            let (row, targets) = (&ids[place * WIDTH..(place + 1) * WIDTH], &targets[place * length..(place + 1) * length]);
            let mut hidden = vec![false; length];
            hide(&masking.spans, targets, &mut span_draws(9, draw.source, draw.epoch, draw.row), &mut hidden);
            let shown = |place: usize| if place > 0 && hidden[place - 1] { MASK } else { row[place] };
            assert!((0..length).map(shown).eq(masked.inputs[place * length..(place + 1) * length].iter().copied()), "{draw:?}");
            assert_eq!(masked.scored[place * length..(place + 1) * length], *targets);
        }
    }
}

/// Opening lists the folder, which takes a moment of the clock.
fn open_cache(plan: &Plan, disk: &Arc<Platter>, machine: &Arc<dyn Machine>, clock: &Arc<Turned>, size: u64) -> Cache {
    let names: Vec<Digest> = (0..plan.sources()).map(|source| Digest::of(&source.to_le_bytes())).collect();
    let opened = Mutex::new(None);
    let mut tasks = Tasks::default();
    let disk = Arc::clone(disk) as Arc<dyn Disk>;
    tasks.spawn(0, async {
        let cache = Cache::open(plan.clone(), &names, disk, Arc::clone(machine), size).await;
        *opened.lock().expect("cache") = Some(cache);
    });
    assert!(tasks.run(clock, clock.now() + STUCK));
    drop(tasks);
    opened.into_inner().expect("cache").expect("an open cache")
}

#[test]
fn the_invariants_hold_in_every_history() {
    let (mut generations, mut total) = (0, Counts::default());
    // As many as are done in some seconds; FOREBAY_HISTORIES asks for more.
    let histories = std::env::var("FOREBAY_HISTORIES").ok().and_then(|many| many.parse().ok()).unwrap_or(60);
    for seed in 0..histories {
        let scenario = Scenario::drawn(seed);
        let history = scenario.run(seed);
        scenario.check(&history, seed);
        generations += history.generations;
        total.hits += history.counts.hits;
        total.misses += history.counts.misses;
        total.damaged += history.counts.damaged;
        total.evicted += history.counts.evicted;
    }
    // The histories are worth something: all of this happened.
    assert!(generations > histories * 2, "{generations} generations");
    assert!(total.hits > 300 && total.misses > 300 && total.damaged > 30 && total.evicted > 30, "{total:?}");
}

#[test]
fn a_history_can_be_run_again() {
    for seed in 0..20 {
        let scenario = Scenario::drawn(seed);
        let (one, other) = (scenario.run(seed), scenario.run(seed));
        assert_eq!((one.generations, one.reads, one.counts), (other.generations, other.reads, other.counts), "seed {seed}");
    }
}

#[test]
fn a_calm_store_is_asked_once_a_block_and_a_warm_cache_not_at_all() {
    let mut scenario = Scenario::drawn(1);
    scenario.faults = Faults { slow: 0, fails: 0, lies: 0, outage: 0 };
    (scenario.disk_fails, scenario.disk_damages, scenario.kills, scenario.hedge) = (0, 0, false, 0.0);
    (scenario.cache, scenario.most_replicas, scenario.micro_batches, scenario.steps) = (Some(1 << 30), 7, 14, 60);
    let history = scenario.run(3);
    scenario.check(&history, 3);
    let plan = scenario.plan();
    let blocks: std::collections::BTreeSet<_> = (0..60)
        .flat_map(|step| (0..14).flat_map(move |index| [(step, index)]))
        .flat_map(|(step, index)| plan.micro_batch(step, index).draws)
        .map(|draw| plan.block_of(&draw))
        .collect();
    assert_eq!(history.reads, blocks.len() as u64, "every block once, however many replicas and epochs");
    assert_eq!(history.counts.misses, blocks.len() as u64);
}
