//! Which rank computes which micro-batches: by measured pace, in consecutive runs, a function of the numbers alone.
//!
//! Promises: every micro-batch is dealt once; no other split into whole micro-batches ends sooner at these paces.

use std::cmp::Ordering;

/// A new split must end sooner than the present one by this share, or it is not worth the change.
const WORTHWHILE: f64 = 0.1;

/// Hands `micro_batches` out to `paces.len()` ranks, in order, so that the last one ends as early as can be.
///
/// `paces` are seconds a micro-batch; a rank that was not measured yet counts as the mean of those that were.
pub fn deal(micro_batches: &[u32], paces: &[Option<f64>]) -> Vec<Vec<u32>> {
    let mut rest = micro_batches;
    let take = |count: usize| {
        let (mine, left) = rest.split_at(count.min(rest.len()));
        rest = left;
        mine.to_vec()
    };
    counts(micro_batches.len(), &known(paces)).into_iter().map(take).collect()
}

/// [`deal`], if it ends sooner by a worthwhile share than `present`, the number of micro-batches of each rank.
pub(crate) fn redeal(micro_batches: &[u32], paces: &[Option<f64>], present: &[usize]) -> Option<Vec<Vec<u32>>> {
    let known = known(paces);
    let better = counts(micro_batches.len(), &known);
    (makespan(&better, &known) < (1.0 - WORTHWHILE) * makespan(present, &known)).then(|| deal(micro_batches, paces))
}

/// Gives each micro-batch to the rank that would have done with it first; of equals to the one with fewer, then the lower one.
fn counts(micro_batches: usize, paces: &[f64]) -> Vec<usize> {
    let mut counts = vec![0; paces.len()];
    for _ in 0..micro_batches {
        let ends = |rank: usize| (counts[rank] + 1) as f64 * paces[rank];
        let sooner = |&a: &usize, &b: &usize| ends(a).partial_cmp(&ends(b)).unwrap_or(Ordering::Equal).then(counts[a].cmp(&counts[b]));
        match (0..paces.len()).min_by(sooner) {
            Some(rank) => counts[rank] += 1,
            None => break,
        }
    }
    counts
}

fn makespan(counts: &[usize], paces: &[f64]) -> f64 {
    counts.iter().zip(paces).map(|(&count, pace)| count as f64 * pace).fold(0.0, f64::max)
}

fn known(paces: &[Option<f64>]) -> Vec<f64> {
    let measured: Vec<f64> = paces.iter().flatten().copied().filter(|pace| pace.is_finite() && *pace > 0.0).collect();
    let mean = if measured.is_empty() { 1.0 } else { measured.iter().sum::<f64>() / measured.len() as f64 };
    paces.iter().map(|pace| pace.filter(|pace| pace.is_finite() && *pace > 0.0).unwrap_or(mean)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pace() -> impl Strategy<Value = Option<f64>> {
        prop_oneof![1 => Just(None), 1 => Just(Some(f64::NAN)), 8 => (1u32..1000).prop_map(|pace| Some(f64::from(pace)))]
    }

    /// The earliest end of all splits, by trying them.
    fn best(micro_batches: usize, paces: &[f64]) -> f64 {
        let Some((first, rest)) = paces.split_first() else { return if micro_batches == 0 { 0.0 } else { f64::INFINITY } };
        (0..=micro_batches).map(|mine| (mine as f64 * first).max(best(micro_batches - mine, rest))).fold(f64::INFINITY, f64::min)
    }

    proptest! {
        #[test]
        fn every_micro_batch_is_dealt_once_in_order(micro_batches in prop::collection::btree_set(0u32..300, 0..100), paces in prop::collection::vec(pace(), 1..40)) {
            let all: Vec<u32> = micro_batches.into_iter().collect();
            prop_assert_eq!(deal(&all, &paces).concat(), all);
        }

        #[test]
        fn equal_ranks_differ_by_one_micro_batch_at_most(micro_batches in 0u32..200, world in 1usize..40) {
            let all: Vec<u32> = (0..micro_batches).collect();
            let counts: Vec<usize> = deal(&all, &vec![None; world]).iter().map(Vec::len).collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{:?}", counts);
            prop_assert!(counts.is_sorted_by(|a, b| a >= b), "{:?}", counts);
        }

        #[test]
        fn no_other_split_ends_sooner(micro_batches in 0usize..9, paces in prop::collection::vec(pace(), 1..5)) {
            let known = known(&paces);
            let found = makespan(&counts(micro_batches, &known), &known);
            prop_assert!(found <= best(micro_batches, &known) + 1e-9);
        }

        #[test]
        fn who_becomes_slower_never_gets_more(micro_batches in 0usize..60, paces in prop::collection::vec(1f64..9.0, 1..9), who in 0usize..9, slower in 1f64..5.0) {
            let who = who % paces.len();
            let mut slow = paces.clone();
            slow[who] *= slower;
            prop_assert!(counts(micro_batches, &slow)[who] <= counts(micro_batches, &paces)[who]);
        }
    }

    #[test]
    fn half_the_pace_is_half_the_work() {
        let all: Vec<u32> = (0..28).collect();
        let counts: Vec<usize> = deal(&all, &[Some(1.0), Some(1.0), Some(2.0), Some(1.0)]).iter().map(Vec::len).collect();
        assert_eq!(counts, [8, 8, 4, 8]);
        assert!(redeal(&all, &[Some(1.0), Some(1.0), Some(2.0), Some(1.0)], &[7, 7, 7, 7]).is_some());
        assert!(redeal(&all, &[Some(1.0), Some(1.0), Some(1.05), Some(1.0)], &[7, 7, 7, 7]).is_none(), "not worth a change");
    }
}
