//! Which tokens of a document a sample shows, and which of them the model does not see.
//!
//! Spans are hidden as in T5 (Raffel et al. 2020, 3.1.4): the number of hidden tokens and of spans follow from the settings, and
//! one of all ways to lay that many spans of that many tokens is drawn, with a seen token between two. They are laid on a circle
//! that is turned at random, so every token is as likely to be hidden. The share of hidden tokens is kept sample by sample, and
//! lengths are about geometric. A token that is no target (the first of a document, filling) is passed over: it is never hidden,
//! and parts what lies on both sides of it, as the end of the sample does.
//! Promises: a function of the settings, of which tokens are targets and of (seed, source, epoch, row), the same on every machine.

use forebay_schemas::run::Spans;

use super::Draws;
use crate::plan::permutation::derive;

/// Names the draws of windows: "window" in ASCII.
const WINDOW: u64 = 0x7769_6e64_6f77;
/// Names the draws of spans: "spans" in ASCII.
const SPANS: u64 = 0x73_7061_6e73;

/// The draws of a sample's window.
pub(crate) fn window_draws(seed: u64, source: u32, epoch: u64, row: u64) -> Draws {
    Draws::new(derive(seed, WINDOW), source, epoch, row)
}

/// The draws of a sample's spans: others than those of its window, so neither moves the other.
pub(crate) fn span_draws(seed: u64, source: u32, epoch: u64, row: u64) -> Draws {
    Draws::new(derive(seed, SPANS), source, epoch, row)
}

/// The first of `width` neighbours among `tokens`: each as likely as any other, and 0 where there are no more than `width`.
pub(crate) fn window(tokens: usize, width: usize, draws: &mut Draws) -> usize {
    let places = tokens.saturating_sub(width) + 1;
    ((draws.unit() * places as f64) as usize).min(places - 1)
}

/// Says of each token whether it is hidden; of those that are no targets none is. Both slices are as long.
pub(crate) fn hide(spans: &Spans, targets: &[bool], draws: &mut Draws, hidden: &mut [bool]) {
    hidden.fill(false);
    let tokens = targets.iter().filter(|target| **target).count();
    // Up or down by chance, so that the mean over samples is exact.
    let hide = ((tokens as f64 * spans.density + draws.unit()) as usize).min(tokens);
    let many = (hide as f64 / spans.mean_length + draws.unit()) as usize;
    let turn = ((draws.unit() * tokens as f64) as usize).min(tokens.saturating_sub(1));
    if hide == 0 {
        return;
    }
    let mut left = Left { seen: tokens - hide, hidden: hide, spans: many.clamp(1, hide.min(tokens - hide).max(1)) };
    let mut places = (0..targets.len()).filter(|place| targets[*place]).cycle().skip(turn);
    while left.hidden > 0 {
        // A span may stand before each seen token that is left.
        if draws.chance(left.spans, left.seen.max(1)) {
            left.spans -= 1;
            loop {
                places.next().into_iter().for_each(|place| hidden[place] = true);
                left.hidden -= 1;
                // So many of the tokens that are left begin a span.
                if left.hidden == 0 || draws.chance(left.spans, left.hidden) {
                    break;
                }
            }
        }
        places.next();
        left.seen = left.seen.saturating_sub(1);
    }
}

/// What is yet to be laid.
struct Left {
    seen: usize,
    hidden: usize,
    spans: usize,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spans(density: f64, mean_length: f64) -> Spans {
        Spans { density, mean_length, ..Spans::default() }
    }

    fn hidden(spans: &Spans, targets: &[bool], row: u64) -> Vec<bool> {
        let mut hidden = vec![true; targets.len()];
        hide(spans, targets, &mut span_draws(5, 0, 0, row), &mut hidden);
        hidden
    }

    /// Lengths of the runs of hidden tokens, where those that are no targets part them.
    fn runs(hidden: &[bool]) -> Vec<usize> {
        hidden.split(|hidden| !hidden).map(<[bool]>::len).filter(|length| *length > 0).collect()
    }

    proptest! {
        #[test]
        fn only_targets_are_hidden_and_as_many_as_the_density_says(
            targets in prop::collection::vec(prop::bool::weighted(0.9), 0..300), density in 0.01f64..0.99, mean in 1.0f64..20.0, row: u64,
        ) {
            let found = hidden(&spans(density, mean), &targets, row);
            prop_assert!(targets.iter().zip(&found).all(|(target, hidden)| *target || !hidden));
            let (tokens, hidden) = (targets.iter().filter(|target| **target).count(), found.iter().filter(|hidden| **hidden).count());
            prop_assert!((hidden as f64 - tokens as f64 * density).abs() <= 1.0, "{} of {}", hidden, tokens);
        }

        #[test]
        fn without_boundaries_there_are_as_many_spans_as_the_mean_length_says(
            tokens in 50usize..500, density in 0.05f64..0.5, mean in 1.0f64..10.0, row: u64,
        ) {
            let found = runs(&hidden(&spans(density, mean), &vec![true; tokens], row));
            let hidden: usize = found.iter().sum();
            let expected = (hidden as f64 / mean).clamp(1.0, (tokens - hidden) as f64);
            // One of them may be cut in two by the end of the sample.
            let spans = found.len() as f64 - expected;
            prop_assert!((-1.0..=2.0).contains(&spans), "{:?}, {} expected", found, expected);
        }

        #[test]
        fn a_window_lies_in_its_document(tokens in 0usize..5000, width in 1usize..600, row: u64) {
            let first = window(tokens, width, &mut window_draws(1, 2, 3, row));
            prop_assert!(first == 0 || first + width <= tokens);
        }
    }

    #[test]
    fn density_and_length_are_met_and_every_place_is_as_likely() {
        let (spans, targets, rows) = (spans(0.15, 3.0), [true; 200], 4000);
        let (mut counts, mut lengths) = (vec![0u32; 200], Vec::new());
        for row in 0..rows {
            let found = hidden(&spans, &targets, row);
            counts.iter_mut().zip(&found).for_each(|(count, hidden)| *count += u32::from(*hidden));
            lengths.extend(runs(&found));
        }
        let share = f64::from(counts.iter().sum::<u32>()) / (200.0 * rows as f64);
        assert!((share - 0.15).abs() < 1e-3, "{share}");
        let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
        assert!((mean - 3.0).abs() < 0.05, "{mean}");
        // Geometric lengths would be of one token in a third of the spans, of 1 or 2 in five ninths.
        let share = |most: usize| lengths.iter().filter(|length| **length <= most).count() as f64 / lengths.len() as f64;
        assert!((share(1) - 0.33).abs() < 0.05 && (share(2) - 0.56).abs() < 0.05, "{} {}", share(1), share(2));
        let each = counts.iter().map(|count| f64::from(*count) / rows as f64);
        let (low, high) = each.fold((1.0f64, 0.0f64), |(low, high), share| (low.min(share), high.max(share)));
        assert!(low > 0.11 && high < 0.19, "{low} {high}");
    }

    #[test]
    fn spans_are_parted_by_what_is_no_target_and_change_with_every_coordinate() {
        let mut targets = [true; 60];
        targets[20] = false;
        targets[40] = false;
        let spans = spans(0.9, 30.0);
        for row in 0..50 {
            let found = hidden(&spans, &targets, row);
            assert!(!found[20] && !found[40] && found.iter().filter(|hidden| **hidden).count() >= 51, "{found:?}");
        }
        let with = |seed, source, epoch, row| {
            let mut hidden = [false; 60];
            hide(
                &Spans { mean_length: 2.0, density: 0.5, ..Spans::default() },
                &targets,
                &mut span_draws(seed, source, epoch, row),
                &mut hidden,
            );
            hidden
        };
        let base = with(1, 2, 3, 4);
        assert_eq!(base, with(1, 2, 3, 4));
        assert!([with(0, 2, 3, 4), with(1, 0, 3, 4), with(1, 2, 0, 4), with(1, 2, 3, 0)].iter().all(|other| *other != base));
    }

    #[test]
    fn every_window_of_a_document_is_as_likely() {
        let mut counts = [0u32; 11];
        (0..11_000).for_each(|row| counts[window(110, 100, &mut window_draws(3, 0, 1, row))] += 1);
        assert!(counts.iter().all(|count| (880..1120).contains(count)), "{counts:?}");
        assert_eq!(window(0, 8, &mut window_draws(3, 0, 1, 7)), 0);
    }
}
