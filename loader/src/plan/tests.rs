use std::collections::HashSet;
use std::time::Instant;

use forebay_schemas::Digest;
use proptest::prelude::*;

use super::*;

fn plan(seed: u64, rows: u64, micro_batches: u32, size: u32) -> Plan {
    Plan::new(Digest::of(b"dataset"), seed, rows, micro_batches, size).expect("plan")
}

/// Rows of all micro-batches of `steps` steps, in order.
fn fed(plan: &Plan, steps: u64) -> Vec<Draw> {
    (0..steps).flat_map(|step| (0..plan.micro_batches()).flat_map(move |m| plan.micro_batch(step, m).draws)).collect()
}

/// Sizes about blocks, windows and the longer last window, where an error would sit.
fn awkward_rows() -> impl Strategy<Value = u64> {
    let near = |size: u64| (size - 2).max(1)..size + 3;
    prop_oneof![
        1u64..600,
        near(BLOCK_ROWS),
        near(WINDOW_ROWS),
        near(WINDOW_ROWS + WINDOW_ROWS / 2),
        near(2 * WINDOW_ROWS + WINDOW_ROWS / 2),
        near(3 * WINDOW_ROWS),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_row_is_fed_exactly_once_an_epoch(seed: u64, rows in awkward_rows(), k in 1u32..9, b in 1u32..70) {
        let plan = plan(seed, rows, k, b);
        let batch = u64::from(k) * u64::from(b);
        let steps = (2 * rows).div_ceil(batch);
        let draws = fed(&plan, steps);
        for epoch in 0..2 {
            let mut seen = vec![0u8; rows as usize];
            for (i, draw) in draws[(epoch * rows) as usize..((epoch + 1) * rows) as usize].iter().enumerate() {
                prop_assert_eq!(draw.epoch, epoch, "sample {}", i);
                seen[draw.row as usize] += 1;
            }
            prop_assert!(seen.iter().all(|&times| times == 1), "rows {rows} seed {seed} epoch {epoch}");
        }
    }

    #[test]
    fn any_order_of_asking_gives_the_same_rows(seed: u64, rows in awkward_rows(), k in 1u32..9, b in 1u32..40, step in 0u64..1 << 40) {
        let plan = plan(seed, rows, k, b);
        let backwards: Vec<_> = (0..k).rev().map(|m| plan.micro_batch(step, m)).collect();
        for (m, found) in (0..k).rev().zip(&backwards) {
            prop_assert_eq!(found, &plan.micro_batch(step, m));
            for (i, draw) in found.draws.iter().enumerate() {
                let ordinal = (step * u64::from(k) + u64::from(m)) * u64::from(b) + i as u64;
                prop_assert_eq!(*draw, plan.draw(ordinal));
            }
        }
    }

    #[test]
    fn how_samples_are_cut_into_batches_does_not_change_their_order(seed: u64, rows in awkward_rows(), k in 1u32..9, b in 1u32..40) {
        let cut = fed(&plan(seed, rows, k, b), 10);
        let single = plan(seed, rows, 1, 1);
        for (ordinal, draw) in cut.iter().enumerate() {
            prop_assert_eq!(*draw, single.draw(ordinal as u64));
        }
    }

    #[test]
    fn a_position_is_at_most_256_bytes(seed: u64, rows in 1u64.., step: u64, k in 1u32.., b in 1u32..) {
        let text = serde_json::to_string(&plan(seed, rows, k, b).position(step)).expect("json");
        prop_assert!(text.len() <= 256, "{} bytes: {}", text.len(), text);
    }

    #[test]
    fn a_window_that_is_left_is_never_empty_and_never_crosses_an_epoch(seed: u64, rows in awkward_rows(), step in 0u64..1 << 30, b in 1u32..40) {
        let plan = plan(seed, rows, 1, b);
        let left = plan.left_in_window(step, 0);
        let index = step * u64::from(b) % rows;
        prop_assert!(left >= 1 && index + left <= rows);
    }
}

#[test]
fn epochs_seeds_and_datasets_have_orders_of_their_own() {
    let order = |plan: &Plan, epoch: u64| (0..1000).map(|i| plan.draw(epoch * 1000 + i).row).collect::<Vec<_>>();
    let other_dataset = Plan::new(Digest::of(b"another"), 1, 1000, 4, 8).expect("plan");
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
fn nothing_to_feed_is_invalid() {
    for (rows, k, b) in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
        let error = Plan::new(Digest::of(b""), 0, rows, k, b).expect_err("nothing");
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
        assert!(draws.iter().all(|draw| draw.row < plan.rows()));
        assert_eq!(draws.iter().collect::<HashSet<_>>().len(), 512);
    }
    // Walking there would take days; the bound only has to tell the two apart on a busy machine.
    assert!(began.elapsed().as_secs() < 5);
    assert!(size_of::<Plan>() <= 256);
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
}

const PINNED: [[u64; 6]; 4] = [
    [0, 5, 3, 1, 9, 8],
    [9, 5, 4, 2, 1, 0],
    [128_550, 633_625, 105_150, 484_457, 308_870, 391_103],
    [136_434, 282_716, 639_623, 616_656, 682_977, 836_963],
];

#[test]
fn a_window_is_read_in_whole_blocks() {
    let plan = plan(5, 10 * WINDOW_ROWS + 77, 1, 1);
    let mut rows: Vec<u64> = (0..WINDOW_ROWS).map(|i| plan.draw(i).row).collect();
    rows.sort_unstable();
    let runs = 1 + rows.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count() as u64;
    // Two more than the blocks at most: the ring's seam cuts a block, and the ragged end may be in it.
    assert!(runs <= WINDOW_BLOCKS + 2, "{runs} runs");
}

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
    for rows in [1_000u64, 1_000_000, 1_000_000_000_000] {
        let plan = plan(3, rows, 64, 512);
        let began = Instant::now();
        let mut sum = 0u64;
        for step in 0..40 {
            for m in 0..64 {
                sum = plan.micro_batch(step, m).draws.iter().fold(sum, |sum, draw| sum.wrapping_add(draw.row));
            }
        }
        let batched = began.elapsed().as_nanos() as f64 / (40.0 * 64.0 * 512.0);
        let began = Instant::now();
        for ordinal in 0..1_000_000u64 {
            sum = sum.wrapping_add(plan.draw(ordinal * 1_000_003).row);
        }
        let single = began.elapsed().as_nanos() as f64 / 1e6;
        println!("{rows} rows: {batched:.1} ns a sample of a micro-batch, {single:.1} ns a single draw ({sum})");
    }
}
