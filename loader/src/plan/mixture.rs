//! Which source each sample comes from: sample number t → source and number within it, and back, by weights.
//!
//! Two sources are dealt like the letters of a Sturmian word: the first gets sample t if `⌊(t + 1) · α + ½⌋` is larger than
//! `⌊t · α + ½⌋`, which then is its number within the source. More sources are the leaves of a binary tree of such nodes. So the
//! mixture is a bijection by construction, and nothing is counted: O(log sources) time, no state.
//! Promises: at every moment each source has had its share of the samples to within half a sample a level of the
//! tree, so every micro-batch has its shares to within a sample a level: none drifts from the weights as one drawn by chance does.
//! A schedule of weights is a list of *stages* of constant weights; the numbers go on where the stage before ended.

use crate::error::{Error, Result};

/// Stages into which a change of weights from one point of a schedule to the next is cut.
pub(crate) const RAMP_STAGES: u64 = 32;

/// Most stages of a mixture.
const MAX_STAGES: usize = 1 << 14;

/// Weight of a source over time: (step, weight), ascending steps. Between two points it changes linearly, in 32
/// equal stages; before the first and after the last it is constant.
pub type Schedule = Vec<(u64, f64)>;

/// The stages of a mixture.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mixture {
    stages: Vec<Stage>,
}

#[derive(Clone, Debug, PartialEq)]
struct Stage {
    /// Its first sample.
    first: u64,
    /// Samples that each source gave before it.
    given: Vec<u64>,
    nodes: Vec<Node>,
    root: Child,
    /// For each source the way from the root to it; none if its weight is 0.
    paths: Vec<Option<Vec<(usize, Side)>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Child {
    Source(u32),
    Node(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// Deals samples to two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    /// The left side's share in units of 2⁻⁶⁴, never 0.
    share: u64,
    left: Child,
    right: Child,
}

const HALF: u128 = 1 << 63;
const ONE: u128 = 1 << 64;

impl Mixture {
    /// Sources with these schedules, in steps of `global_batch` samples.
    pub(crate) fn new(schedules: &[Schedule], global_batch: u64) -> Result<Self> {
        check(schedules)?;
        let mut stages: Vec<Stage> = Vec::new();
        for step in starts(schedules) {
            let weights: Vec<f64> = schedules.iter().map(|schedule| weight(schedule, step)).collect();
            // A step that no number of samples reaches begins no stage.
            let Some(first) = step.checked_mul(global_batch) else { break };
            let given = stages.last().map_or_else(|| vec![0; weights.len()], |last| last.given_at(first));
            if !weights.iter().any(|weight| *weight > 0.0) {
                return Err(Error::Invalid(format!("weights: found none above 0 at step {step}, expected one at least")));
            }
            stages.push(Stage::new(first, given, &weights));
        }
        Ok(Self { stages })
    }

    /// The source of sample `t`, and the sample's number within it.
    pub(crate) fn deal(&self, t: u64) -> (u32, u64) {
        self.stage(t).deal(t)
    }

    /// Samples that a source gave before sample `t`.
    pub(crate) fn given(&self, source: u32, t: u64) -> u64 {
        self.stage(t).given_of(source, t)
    }

    /// The sample that is number `number` of a source; none if it never comes.
    pub(crate) fn when(&self, source: u32, number: u64) -> Option<u64> {
        let at = self.stages.partition_point(|stage| stage.given[source as usize] <= number).checked_sub(1)?;
        self.stages[at].when(source, number)
    }

    fn stage(&self, t: u64) -> &Stage {
        // There is a first stage, and it begins with sample 0.
        &self.stages[self.stages.partition_point(|stage| stage.first <= t).saturating_sub(1)]
    }
}

impl Stage {
    fn new(first: u64, given: Vec<u64>, weights: &[f64]) -> Self {
        let sources: Vec<(u32, f64)> = (0..).zip(weights.iter().copied()).filter(|(_, weight)| *weight > 0.0).collect();
        let mut nodes = Vec::new();
        let root = split(&sources, &mut nodes);
        let mut paths = vec![None; weights.len()];
        trace(&nodes, root, &mut Vec::new(), &mut paths);
        Self { first, given, nodes, root, paths }
    }

    fn deal(&self, t: u64) -> (u32, u64) {
        let (mut at, mut t) = (self.root, t - self.first);
        loop {
            match at {
                Child::Source(source) => return (source, self.given[source as usize] + t),
                Child::Node(index) => {
                    let node = &self.nodes[index];
                    let lefts = node.lefts(t.into());
                    (at, t) = if node.lefts(u128::from(t) + 1) > lefts { (node.left, lefts) } else { (node.right, t - lefts) };
                }
            }
        }
    }

    fn given_of(&self, source: u32, t: u64) -> u64 {
        let before = self.given[source as usize];
        let Some(path) = &self.paths[source as usize] else { return before };
        let count = path.iter().fold(t - self.first, |t, (node, side)| match side {
            Side::Left => self.nodes[*node].lefts(t.into()),
            Side::Right => t - self.nodes[*node].lefts(t.into()),
        });
        before + count
    }

    fn given_at(&self, t: u64) -> Vec<u64> {
        (0..self.given.len() as u32).map(|source| self.given_of(source, t)).collect()
    }

    fn when(&self, source: u32, number: u64) -> Option<u64> {
        let path = self.paths[source as usize].as_ref()?;
        let up =
            path.iter().rev().try_fold(number - self.given[source as usize], |number, (node, side)| self.nodes[*node].when(*side, number));
        up?.checked_add(self.first)
    }
}

impl Node {
    /// How many of the first `t` samples go to the left: t · α rounded.
    fn lefts(&self, t: u128) -> u64 {
        ((t * u128::from(self.share) + HALF) >> 64) as u64
    }

    /// The sample that is number `number` of a side.
    fn when(&self, side: Side, number: u64) -> Option<u64> {
        let (number, share) = (u128::from(number), u128::from(self.share));
        // One less than the smallest t at which the side had more than `number`.
        let t = match side {
            Side::Left => ((number << 64) + HALF).div_ceil(share),
            Side::Right => ((number << 64) + HALF) / (ONE - share) + 1,
        };
        u64::try_from(t - 1).ok()
    }
}

/// A tree over sources of positive weights, halved by number.
fn split(sources: &[(u32, f64)], nodes: &mut Vec<Node>) -> Child {
    if let [(source, _)] = sources {
        return Child::Source(*source);
    }
    let (left, right) = sources.split_at(sources.len() / 2);
    let sum = |side: &[(u32, f64)]| side.iter().map(|(_, weight)| weight).sum::<f64>();
    let share = sum(left) / (sum(left) + sum(right));
    // Converting saturates, so a share that rounds to 0 or 1 becomes the next one that is neither.
    let share = ((share * ONE as f64) as u64).max(1);
    let (left, right) = (split(left, nodes), split(right, nodes));
    nodes.push(Node { share, left, right });
    Child::Node(nodes.len() - 1)
}

fn trace(nodes: &[Node], at: Child, way: &mut Vec<(usize, Side)>, paths: &mut [Option<Vec<(usize, Side)>>]) {
    match at {
        Child::Source(source) => paths[source as usize] = Some(way.clone()),
        Child::Node(index) => {
            for (side, child) in [(Side::Left, nodes[index].left), (Side::Right, nodes[index].right)] {
                way.push((index, side));
                trace(nodes, child, way, paths);
                way.pop();
            }
        }
    }
}

/// The steps at which stages begin, ascending, 0 first.
fn starts(schedules: &[Schedule]) -> Vec<u64> {
    let mut steps = vec![0];
    for pair in schedules.iter().flat_map(|schedule| schedule.windows(2)) {
        let ((from, before), (to, after)) = (pair[0], pair[1]);
        steps.push(to);
        if before != after {
            let cut = |i: u64| from + ((u128::from(to - from) * u128::from(i)) / u128::from(RAMP_STAGES)) as u64;
            steps.extend((0..RAMP_STAGES).map(cut));
        }
    }
    steps.sort_unstable();
    steps.dedup();
    steps
}

/// The weight of a source in the stage that begins at `step`.
fn weight(schedule: &Schedule, step: u64) -> f64 {
    let at = schedule.partition_point(|(from, _)| *from <= step);
    match (at.checked_sub(1).map(|at| schedule[at]), schedule.get(at)) {
        (None, Some((_, first))) => *first,
        (Some((from, before)), Some((to, after))) if before != *after => {
            // The last stage that begins at `step` or before; its middle stands for it.
            let stage = (u128::from(step - from + 1) * u128::from(RAMP_STAGES)).div_ceil(u128::from(to - from)) - 1;
            before + (after - before) * ((stage as f64 + 0.5) / RAMP_STAGES as f64).min(1.0)
        }
        (Some((_, before)), _) => before,
        (None, None) => 0.0,
    }
}

fn check(schedules: &[Schedule]) -> Result<()> {
    if schedules.is_empty() {
        return Err(Error::Invalid("order of samples: found no source, expected at least 1".to_owned()));
    }
    for (source, schedule) in schedules.iter().enumerate() {
        let bad = |found: String| Err(Error::Invalid(format!("weight of source {source}: found {found}")));
        if schedule.is_empty() {
            return bad("no point, expected at least 1".to_owned());
        }
        if let Some((step, weight)) = schedule.iter().find(|(_, weight)| !(weight.is_finite() && *weight >= 0.0 && *weight <= 1e12)) {
            return bad(format!("{weight} at step {step}, expected 0 to 1e12"));
        }
        if let Some(pair) = schedule.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return bad(format!("step {} after step {}, expected ascending steps", pair[1].0, pair[0].0));
        }
    }
    let stages = starts(schedules).len();
    if stages > MAX_STAGES {
        return Err(Error::Invalid(format!("weights: found {stages} changes, expected at most {MAX_STAGES}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn constant(weights: &[f64]) -> Vec<Schedule> {
        weights.iter().map(|weight| vec![(0, *weight)]).collect()
    }

    fn weights() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(prop_oneof![Just(0.0), Just(1.0), 0.0f64..1.0, 1e-9f64..1e-3, 1f64..1e9], 1..9)
            .prop_filter("one above 0", |weights| weights.iter().any(|weight| *weight > 0.0))
    }

    fn schedules() -> impl Strategy<Value = Vec<Schedule>> {
        let schedule = prop::collection::btree_map(0u64..60, 0.0f64..5.0, 1..4);
        prop::collection::vec(schedule, 1..5).prop_map(|mut all| {
            // So that some weight is above 0 whenever.
            all[0].insert(61, 1.0);
            all[0].values_mut().for_each(|weight| *weight += 0.1);
            all.into_iter().map(|schedule| schedule.into_iter().collect()).collect()
        })
    }

    proptest! {
        #[test]
        fn sources_are_numbered_without_gaps_and_found_again(schedules in schedules(), batch in 1u64..40) {
            let mixture = Mixture::new(&schedules, batch).expect("mixture");
            let mut given = vec![0; schedules.len()];
            for t in 0..70 * batch {
                let (source, number) = mixture.deal(t);
                for (source, given) in given.iter().enumerate() {
                    prop_assert_eq!(mixture.given(source as u32, t), *given, "source {} before sample {}", source, t);
                }
                prop_assert_eq!(number, given[source as usize]);
                prop_assert_eq!(mixture.when(source, number), Some(t));
                given[source as usize] += 1;
            }
        }

        #[test]
        fn far_away_it_is_the_same(weights in weights(), t in 0u64..u64::MAX) {
            let mixture = Mixture::new(&constant(&weights), 1).expect("mixture");
            let (source, number) = mixture.deal(t);
            prop_assert!(weights[source as usize] > 0.0);
            prop_assert_eq!(mixture.given(source, t), number);
            prop_assert_eq!(mixture.given(source, t + 1), number + 1);
            prop_assert_eq!(mixture.when(source, number), Some(t));
            let all: u128 = (0..weights.len() as u32).map(|source| u128::from(mixture.given(source, t))).sum();
            prop_assert_eq!(all, u128::from(t));
        }

        #[test]
        fn shares_are_kept_to_within_half_a_sample_a_level(weights in weights(), t in 0u64..1 << 40) {
            let mixture = Mixture::new(&constant(&weights), 1).expect("mixture");
            let sum: f64 = weights.iter().sum();
            for (source, weight) in weights.iter().enumerate() {
                let off = mixture.given(source as u32, t) as f64 - weight / sum * t as f64;
                let levels = f64::from(weights.len().next_power_of_two().ilog2());
                prop_assert!(off.abs() <= 0.5 * levels + 0.01, "source {source} of {weights:?} at {t}: {off}");
            }
        }
    }

    #[test]
    fn weights_change_when_the_schedule_says_so() {
        let mixture = Mixture::new(&[vec![(0, 1.0), (10, 1.0), (11, 0.0)], vec![(0, 0.0), (10, 0.0), (11, 1.0)]], 100).expect("mixture");
        let share = |step: u64| (mixture.given(1, (step + 1) * 100) - mixture.given(1, step * 100)) as f64 / 100.0;
        assert_eq!([share(0), share(9), share(11), share(500)], [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(mixture.when(0, 1_000_000), None, "a source that has ended");
        let ramp = Mixture::new(&[vec![(0, 1.0)], vec![(0, 0.0), (3200, 1.0)]], 50).expect("mixture");
        let share = |step: u64| (ramp.given(1, (step + 100) * 50) - ramp.given(1, step * 50)) as f64 / 5000.0;
        for step in [0, 800, 1600, 2400, 3100] {
            let weight = (step as f64 + 50.0) / 3200.0;
            assert!((share(step) - weight / (1.0 + weight)).abs() < 0.002, "step {step}: {}", share(step));
        }
    }

    #[test]
    fn what_is_no_mixture_is_refused() {
        for (schedules, expected) in [
            (vec![], "no source"),
            (vec![vec![]], "no point"),
            (constant(&[0.0, 0.0]), "none above 0 at step 0"),
            (constant(&[1.0, -1.0]), "weight of source 1: found -1 at step 0"),
            (constant(&[f64::NAN]), "found NaN"),
            (vec![vec![(5, 1.0), (5, 2.0)]], "step 5 after step 5"),
            (vec![vec![(0, 1.0), (1, 0.0)]], "none above 0 at step 1"),
        ] {
            let error = Mixture::new(&schedules, 1).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
