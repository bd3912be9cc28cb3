use std::collections::{HashMap, HashSet};
use std::time::Instant;

use forebay_schemas::Digest;
use proptest::prelude::*;

use super::*;

const SMALL: Shuffle = Shuffle { block_rows: 16, window_blocks: 8 };
const LARGE: Shuffle = Shuffle { block_rows: 128, window_blocks: 128 };

fn source(name: &str, rows: u64, shuffle: Shuffle) -> Source {
    Source::whole(Digest::of(name.as_bytes()), rows, shuffle)
}

fn plan(seed: u64, rows: u64, micro_batches: u32, size: u32) -> Plan {
    Plan::new(&[source("dataset", rows, LARGE)], seed, micro_batches, size).expect("plan")
}

/// Samples of all micro-batches of `steps` steps, in order.
fn fed(plan: &Plan, steps: Range<u64>) -> Vec<Draw> {
    steps.flat_map(|step| (0..plan.micro_batches()).flat_map(move |m| plan.micro_batch(step, m).draws)).collect()
}

/// Every `keep`th run of ten rows or so.
fn selection(rows: u64, keep: u64) -> Selection {
    let mut builder = SelectionBuilder::default();
    for first in (0..rows).step_by(10).filter(|first| (first / 10).is_multiple_of(keep)) {
        assert!(builder.add(first..(first + 7).min(rows)));
    }
    builder.finish()
}

/// Several sources, some of them filtered, with weights that change.
fn mixtures() -> impl Strategy<Value = Vec<Source>> {
    let weights = (0.05f64..3.0, 0.0f64..3.0, 1u64..40);
    let one = (1u64..700, prop_oneof![Just(0u64), 1u64..4], 0u32..6, 1u64..20, weights);
    prop::collection::vec(one, 1..6).prop_map(|sources| {
        type Drawn = (u64, u64, u32, u64, (f64, f64, u64));
        let named = sources.into_iter().enumerate();
        let of = |(i, (rows, keep, block_bits, window_blocks, (before, after, step))): (usize, Drawn)| {
            let mut source = source(&format!("source {i}"), rows, Shuffle { block_rows: 1 << block_bits, window_blocks });
            source.selection = (keep > 0).then(|| Arc::new(selection(rows, keep)));
            source.weight = vec![(0, before), (step, if i == 0 { after + 0.1 } else { after })];
            source
        };
        named.map(of).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_row_is_fed_exactly_once_an_epoch_of_its_source(sources in mixtures(), seed: u64, k in 1u32..9, b in 1u32..33) {
        let plan = Plan::new(&sources, seed, k, b).expect("plan");
        let mut times: HashMap<(u32, u64), HashMap<u64, u32>> = HashMap::new();
        for draw in fed(&plan, 0..4_000u64.div_ceil(u64::from(k * b))) {
            *times.entry((draw.source, draw.epoch)).or_default().entry(draw.row).or_default() += 1;
        }
        for ((source, epoch), rows) in &times {
            prop_assert!(rows.values().all(|times| *times == 1), "source {source}, epoch {epoch}");
            let selected = sources[*source as usize].selection.as_ref();
            let complete = times.contains_key(&(*source, epoch + 1));
            prop_assert!(!complete || rows.len() as u64 == plan.rows(*source), "source {source}, epoch {epoch}: {}", rows.len());
            if let (true, Some(selected)) = (complete, selected) {
                prop_assert!((0..selected.len()).all(|k| rows.contains_key(&selected.row(k))));
            }
        }
    }

    #[test]
    fn any_order_of_asking_gives_the_same_rows(sources in mixtures(), seed: u64, k in 1u32..9, b in 1u32..33, step in 0u64..1 << 40) {
        let plan = Plan::new(&sources, seed, k, b).expect("plan");
        for m in (0..k).rev() {
            for (i, draw) in plan.micro_batch(step, m).draws.iter().enumerate() {
                prop_assert_eq!(*draw, plan.draw((step * u64::from(k) + u64::from(m)) * u64::from(b) + i as u64));
                prop_assert!(plan.places(plan.block_of(draw)).contains(&draw.place));
                prop_assert_eq!(plan.row(draw.source, draw.place), draw.row);
            }
        }
    }

    #[test]
    fn replicas_of_any_number_feed_the_same_steps(sources in mixtures(), seed: u64, k in 1u32..40, b in 1u32..9, step in 0u64..1000) {
        let alone = Plan::new(&sources, seed, k, b).expect("plan").micro_batch(step, 0);
        for world in 1..=16 {
            // Each opens a plan of its own; what it is told is which indices are its.
            let mut all: Vec<(u32, Vec<Draw>)> = (0..world)
                .flat_map(|rank| {
                    let plan = Plan::new(&sources, seed, k, b).expect("plan");
                    (0..k).filter(move |m| m % world == rank).map(move |m| (m, plan.micro_batch(step, m).draws)).collect::<Vec<_>>()
                })
                .collect();
            all.sort_by_key(|(m, _)| *m);
            prop_assert_eq!(all.len(), k as usize);
            prop_assert_eq!(&all[0].1, &alone.draws);
            let whole = fed(&Plan::new(&sources, seed, k, b).expect("plan"), step..step + 1);
            prop_assert_eq!(all.into_iter().flat_map(|(_, draws)| draws).collect::<Vec<_>>(), whole);
        }
    }

    #[test]
    fn how_samples_are_cut_into_batches_does_not_change_their_order(mut sources in mixtures(), seed: u64, k in 1u32..9, b in 1u32..40) {
        sources.iter_mut().for_each(|source| source.weight.truncate(1));
        let (cut, single) = (Plan::new(&sources, seed, k, b).expect("plan"), Plan::new(&sources, seed, 1, 1).expect("plan"));
        for (ordinal, draw) in (0..).zip(fed(&cut, 0..10)) {
            prop_assert_eq!(draw, single.draw(ordinal));
        }
    }

    #[test]
    fn another_source_does_not_move_the_order_within_one(sources in mixtures(), seed: u64) {
        let plan = Plan::new(&sources, seed, 1, 1).expect("plan");
        let rows: Vec<u64> = (0..500).map(|t| plan.draw(t)).filter(|draw| draw.source == 0).map(|draw| draw.row).collect();
        let mut alone = sources[..1].to_vec();
        alone[0].weight = vec![(0, 1.0)];
        let alone = Plan::new(&alone, seed, 1, 1).expect("plan");
        prop_assert_eq!((0..rows.len() as u64).map(|t| alone.draw(t).row).collect::<Vec<_>>(), rows);
    }

    #[test]
    fn the_next_use_of_a_block_is_the_next_sample_of_it(sources in mixtures(), seed: u64, step in 0u64..200) {
        let plan = Plan::new(&sources, seed, 2, 3).expect("plan");
        let first = step * 6;
        let mut seen: HashSet<Block> = HashSet::new();
        for ordinal in first..first + 300 {
            let block = plan.block_of(&plan.draw(ordinal));
            if seen.insert(block) {
                prop_assert_eq!(plan.next_use(block, step), Some(ordinal), "{:?}", block);
            }
        }
    }

    #[test]
    fn a_position_is_at_most_256_bytes(seed: u64, rows in 1u64.., step: u64, k in 1u32.., b in 1u32..) {
        let text = serde_json::to_string(&plan(seed, rows, k, b).position(step)).expect("json");
        prop_assert!(text.len() <= 256, "{} bytes: {}", text.len(), text);
    }

    #[test]
    fn a_window_that_is_left_is_never_empty(sources in mixtures(), seed: u64, step in 0u64..1 << 30) {
        prop_assert!(Plan::new(&sources, seed, 1, 3).expect("plan").left_in_window(step, 0) >= 1);
    }
}

#[test]
fn epochs_seeds_and_datasets_have_orders_of_their_own() {
    let order = |plan: &Plan, epoch: u64| (0..1000).map(|i| plan.draw(epoch * 1000 + i).row).collect::<Vec<_>>();
    let other_dataset = Plan::new(&[source("another", 1000, LARGE)], 1, 4, 8).expect("plan");
    let orders = [order(&plan(1, 1000, 4, 8), 0), order(&plan(1, 1000, 4, 8), 1), order(&plan(2, 1000, 4, 8), 0), order(&other_dataset, 0)];
    for (i, one) in orders.iter().enumerate() {
        for other in &orders[i + 1..] {
            let same = one.iter().zip(other).filter(|(a, b)| a == b).count();
            // Two random orders agree in one place on average, and in ten hardly ever.
            assert!(same < 10, "{same} rows in the same place");
        }
    }
}

#[test]
fn the_identity_says_what_is_read() {
    let one = source("a", 50, SMALL);
    assert_eq!(Plan::new(std::slice::from_ref(&one), 1, 1, 1).expect("plan").identity(), one.identity);
    let mut filtered = one.clone();
    filtered.selection = Some(Arc::new(selection(50, 2)));
    let (mut heavier, other) = (one.clone(), source("b", 50, SMALL));
    heavier.weight = vec![(0, 2.0)];
    let mixtures =
        [vec![one.clone()], vec![filtered.clone()], vec![one.clone(), other.clone()], vec![heavier, other.clone()], vec![filtered, other]];
    let identities: HashSet<Digest> = mixtures.iter().map(|sources| Plan::new(sources, 1, 1, 1).expect("plan").identity()).collect();
    assert_eq!(identities.len(), mixtures.len());
}

#[test]
fn all_that_moves_a_row_names_another_order() {
    let (one, other) = (source("a", 500, SMALL), source("b", 50, SMALL));
    let (mut filtered, mut heavier) = (one.clone(), one.clone());
    filtered.selection = Some(Arc::new(selection(500, 2)));
    heavier.weight = vec![(0, 2.0)];
    let alone = |source: &Source, seed, k, b| Plan::new(std::slice::from_ref(source), seed, k, b).expect("plan");
    let mut plans = vec![alone(&one, 1, 2, 4), alone(&one, 2, 2, 4), alone(&one, 1, 4, 2), alone(&one, 1, 2, 5), alone(&filtered, 1, 2, 4)];
    plans.push(alone(&source("a", 500, Shuffle { block_rows: 8, ..SMALL }), 1, 2, 4));
    plans.push(alone(&source("a", 500, Shuffle { window_blocks: 9, ..SMALL }), 1, 2, 4));
    plans.push(Plan::of_text(std::slice::from_ref(&one), 1, 2, 4, Some(Digest::of(b"spans"))).expect("plan"));
    plans.extend([[one.clone(), other.clone()], [heavier, other]].map(|sources| Plan::new(&sources, 1, 2, 4).expect("plan")));
    let orders: HashSet<Digest> = plans.iter().map(Plan::order).collect();
    assert_eq!(orders.len(), plans.len());
    assert_eq!(alone(&one, 1, 2, 4).order(), plans[0].order());
}

#[test]
fn an_epoch_ends_with_its_last_row() {
    let mut sources = vec![source("a", 100, SMALL), source("b", 30, SMALL)];
    sources[1].weight = vec![(0, 0.25)];
    let plan = Plan::new(&sources, 1, 2, 5).expect("plan");
    for (source, epoch) in [(0, 0), (0, 3), (1, 0), (1, 1)] {
        let end = plan.end_of_epoch(source, epoch).expect("an end");
        let fed = fed(&plan, 0..end + 1).into_iter().filter(|draw| (draw.source, draw.epoch) == (source, epoch)).count() as u64;
        assert_eq!(fed, plan.rows(source));
        let before = self::fed(&plan, 0..end).into_iter().filter(|draw| (draw.source, draw.epoch) == (source, epoch)).count() as u64;
        assert!(before < fed);
    }
}

#[test]
fn nothing_to_feed_is_invalid() {
    for (rows, k, b) in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
        let error = Plan::new(&[source("a", rows, SMALL)], 0, k, b).expect_err("nothing");
        assert_eq!(error.kind(), crate::Kind::Invalid);
        assert!(error.to_string().contains("found 0"), "{error}");
    }
}

#[test]
fn a_far_step_of_a_huge_table_costs_what_the_first_one_costs() {
    let plan = plan(3, 1_000_000_000_000, 64, 512);
    let began = Instant::now();
    for step in [0, 1_000_000_000_000, u64::MAX] {
        let draws = plan.micro_batch(step, 63).draws;
        assert!(draws.iter().all(|draw| draw.row < plan.rows(0)));
        assert_eq!(draws.iter().collect::<HashSet<_>>().len(), 512);
    }
    // Walking there would take days; the bound only has to tell the two apart on a busy machine.
    assert!(began.elapsed().as_secs() < 5);
    // Whatever the number of rows, a source is this and a schedule.
    assert!(size_of::<Inner>() + size_of::<(Order, Option<Arc<Selection>>)>() <= 512);
}

#[test]
fn the_order_is_pinned() {
    let rows = |plan: &Plan, first: u64| (first..first + 6).map(|i| plan.draw(i).row).collect::<Vec<_>>();
    let small = plan(42, 10, 2, 3);
    let large = plan(42, 1_000_003, 2, 3);
    assert_eq!(rows(&small, 0), PINNED[0], "small");
    assert_eq!(rows(&small, 10), PINNED[1], "small, second epoch");
    assert_eq!(rows(&large, 0), PINNED[2], "large");
    assert_eq!(rows(&large, 1_000_000_000_000), PINNED[3], "large, far away");
    let mut sources = vec![source("a", 1000, SMALL), source("b", 500, SMALL), source("c", 77, SMALL)];
    sources[1].weight = vec![(0, 0.5), (10, 0.1)];
    sources[2].selection = Some(Arc::new(selection(77, 2)));
    let mixed = Plan::new(&sources, 42, 2, 3).expect("plan");
    let found: Vec<(u32, u64)> = (0..6).map(|i| mixed.draw(i * 1009)).map(|draw| (draw.source, draw.row)).collect();
    assert_eq!(found, MIXED);
}

const PINNED: [[u64; 6]; 4] = [
    [1, 5, 8, 3, 4, 7],
    [9, 0, 7, 6, 8, 1],
    [362_437, 853_180, 226_736, 417_459, 160_236, 919_045],
    [504_062, 356_823, 24_470, 532_305, 764_578, 356_830],
];
const MIXED: [(u32, u64); 6] = [(2, 4), (2, 1), (0, 188), (2, 22), (0, 368), (2, 1)];

/// Of a table stored sorted by label in ten classes, every batch of 100 should hold about ten of each.
#[test]
fn a_table_sorted_by_label_is_fed_mixed() {
    let rows = 200_000;
    let plan = plan(9, rows, 1, 100);
    for step in 0..rows / 100 {
        let mut counts = [0; 10];
        plan.micro_batch(step, 0).draws.iter().for_each(|draw| counts[(draw.row * 10 / rows) as usize] += 1);
        assert!(counts.iter().all(|&count| count <= 40), "step {step}: {counts:?}");
    }
}

/// Run by hand: `cargo test -p forebay-loader -- --ignored --nocapture nanoseconds`.
#[test]
#[ignore = "a measurement"]
fn nanoseconds_of_a_draw() {
    // Of the processor, not of the clock: others use the machine too.
    let on_processor = || -> f64 {
        let times = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
        times.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds")
    };
    let measure = |name: &str, plan: &Plan| {
        let began = on_processor();
        let mut sum = 0u64;
        for step in 0..40 {
            for m in 0..64 {
                sum = plan.micro_batch(step, m).draws.iter().fold(sum, |sum, draw| sum.wrapping_add(draw.row));
            }
        }
        let batched = (on_processor() - began) / (40.0 * 64.0 * 512.0);
        let began = on_processor();
        for ordinal in 0..1_000_000u64 {
            sum = sum.wrapping_add(plan.draw(ordinal * 1_000_003).row);
        }
        let single = (on_processor() - began) / 1e6;
        println!("{name}: {batched:.1} ns a sample of a micro-batch, {single:.1} ns a single draw ({sum})");
    };
    for rows in [1_000u64, 1_000_000, 1_000_000_000_000] {
        measure(&format!("{rows} rows"), &plan(3, rows, 64, 512));
    }
    let mut filtered = source("filtered", 50_000_000, LARGE);
    filtered.selection = Some(Arc::new(selection(50_000_000, 2)));
    measure("half of 50,000,000 rows", &Plan::new(&[filtered.clone()], 3, 64, 512).expect("plan"));
    let mut sources: Vec<Source> = (0..7).map(|i| source(&format!("{i}"), 1_000_000_000, LARGE)).collect();
    sources.push(filtered);
    measure("a mixture of eight", &Plan::new(&sources, 3, 64, 512).expect("plan"));
}
