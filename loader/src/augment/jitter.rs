//! Random changes of brightness, contrast, saturation and hue, as torchvision's ColorJitter defines them for pictures of floats.
//!
//! Channels are in 0…1. Each change but that of hue mixes the picture with another one, out = f · in + (1 − f) · other, and
//! clamps: brightness with black, contrast with the mean grey of the sample, saturation with the grey of the pixel (ITU-R
//! BT.601). Hue turns the angle of HSV (Smith 1978). The changes come in a random order.
//! Promises: a function of the sample's pixels, the settings and (seed, source, epoch, row), the same bits on every machine;
//! other draws than those of the view, so neither moves the other. Checked against values that torchvision 0.26 gave.

use forebay_schemas::run::Augment;

use super::Draws;
use crate::plan::permutation::derive;

/// Names the draws of colours: "colour" in ASCII.
const COLOUR: u64 = 0x636f_6c6f_7572;

/// Weights of red, green and blue in grey.
const GREY: [f32; 3] = [0.2989, 0.587, 0.114];

/// Sums that are kept side by side, so that the compiler may add several at a time and yet always in one order.
const LANES: usize = 16;

/// Changes in the order in which they are made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Jitter {
    changes: Vec<Change>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Brightness(f32),
    Contrast(f32),
    Saturation(f32),
    /// Share of the circle.
    Hue(f32),
}

impl Jitter {
    /// The changes of a sample; none where the settings ask for none.
    pub(crate) fn random(augment: &Augment, seed: u64, source: u32, epoch: u64, row: u64) -> Option<Self> {
        let Augment { brightness, contrast, saturation, hue, .. } = *augment;
        if [brightness, contrast, saturation, hue] == [0.0; 4] {
            return None;
        }
        let mut draws = Draws::new(derive(seed, COLOUR), source, epoch, row);
        // All are drawn, whatever is asked for, so that one setting does not move another's draws.
        let mut places = [0u8, 1, 2, 3].map(|change| (draws.unit(), change));
        places.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut factor = |strength: f64| draws.between((1.0 - strength).max(0.0), 1.0 + strength) as f32;
        let (by_brightness, by_contrast, by_saturation) = (factor(brightness), factor(contrast), factor(saturation));
        let by_hue = draws.between(-hue, hue) as f32;
        let changes = places.into_iter().filter_map(|(_, change)| match change {
            0 => (brightness > 0.0).then_some(Change::Brightness(by_brightness)),
            1 => (contrast > 0.0).then_some(Change::Contrast(by_contrast)),
            2 => (saturation > 0.0).then_some(Change::Saturation(by_saturation)),
            _ => (hue > 0.0).then_some(Change::Hue(by_hue)),
        });
        Some(Self { changes: changes.collect() })
    }

    /// Changes a sample, shape `[3, pixels]`.
    pub(crate) fn apply(&self, sample: &mut [f32]) {
        let area = sample.len() / 3;
        let (red, rest) = sample.split_at_mut(area);
        let (green, blue) = rest.split_at_mut(area);
        for change in &self.changes {
            match *change {
                Change::Brightness(factor) => {
                    [&mut *red, green, blue].into_iter().flatten().for_each(|value| *value = (*value * factor).clamp(0.0, 1.0));
                }
                Change::Contrast(factor) => {
                    let other = (1.0 - factor) * mean_grey(red, green, blue);
                    let mix = |value: &mut f32| *value = (*value * factor + other).clamp(0.0, 1.0);
                    [&mut *red, green, blue].into_iter().flatten().for_each(mix);
                }
                Change::Saturation(factor) => {
                    for ((red, green), blue) in red.iter_mut().zip(green.iter_mut()).zip(blue.iter_mut()) {
                        let other = (1.0 - factor) * grey(*red, *green, *blue);
                        [red, green, blue].into_iter().for_each(|value| *value = (*value * factor + other).clamp(0.0, 1.0));
                    }
                }
                Change::Hue(turn) => {
                    for ((red, green), blue) in red.iter_mut().zip(green.iter_mut()).zip(blue.iter_mut()) {
                        [*red, *green, *blue] = turned([*red, *green, *blue], turn);
                    }
                }
            }
        }
    }
}

fn grey(red: f32, green: f32, blue: f32) -> f32 {
    GREY[0] * red + GREY[1] * green + GREY[2] * blue
}

fn mean_grey(red: &[f32], green: &[f32], blue: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let chunks = red.chunks(LANES).zip(green.chunks(LANES)).zip(blue.chunks(LANES));
    for ((red, green), blue) in chunks {
        for (sum, ((red, green), blue)) in sums.iter_mut().zip(red.iter().zip(green).zip(blue)) {
            *sum += grey(*red, *green, *blue);
        }
    }
    (sums.iter().map(|sum| f64::from(*sum)).sum::<f64>() / red.len().max(1) as f64) as f32
}

/// A colour whose hue is turned by a share of the circle.
fn turned([red, green, blue]: [f32; 3], turn: f32) -> [f32; 3] {
    let (highest, lowest) = (red.max(green).max(blue), red.min(green).min(blue));
    let range = highest - lowest;
    // Grey has no hue, and stays.
    let (saturation, divisor) = if range == 0.0 { (0.0, 1.0) } else { (range / highest, range) };
    let below = [red, green, blue].map(|channel| (highest - channel) / divisor);
    let sixths = if highest == red {
        below[2] - below[1]
    } else if highest == green {
        2.0 + below[0] - below[2]
    } else {
        4.0 + below[1] - below[0]
    };
    let hue = ((sixths / 6.0 + 1.0) % 1.0 + turn).rem_euclid(1.0) * 6.0;
    let sector = hue.floor();
    let part = hue - sector;
    let [p, q, t] = [saturation, saturation * part, saturation * (1.0 - part)].map(|less| (highest * (1.0 - less)).clamp(0.0, 1.0));
    match sector as u32 % 6 {
        0 => [highest, t, p],
        1 => [q, highest, p],
        2 => [p, highest, t],
        3 => [p, q, highest],
        4 => [t, p, highest],
        _ => [highest, p, q],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(changes: &[Change], sample: &[f32]) -> Vec<f32> {
        let mut sample = sample.to_vec();
        Jitter { changes: changes.to_vec() }.apply(&mut sample);
        sample
    }

    /// Two grey levels and six colours: planes of red, green and blue.
    const SAMPLE: [f32; 24] = [
        0.0, 0.5, 1.0, 0.8, 0.1, 0.25, 0.9, 0.3, //
        0.0, 0.5, 0.0, 0.6, 0.7, 0.25, 0.9, 0.2, //
        0.0, 0.5, 0.0, 0.1, 0.4, 0.75, 0.1, 0.6,
    ];

    #[test]
    #[rustfmt::skip]
    fn changes_are_those_of_the_published_formulas() {
        let golden = [
            (&[Change::Brightness(1.5)][..], [
                0.0, 0.75, 1.0, 1.0, 0.15, 0.375, 1.0, 0.45,
                0.0, 0.75, 0.0, 0.9, 1.0, 0.375, 1.0, 0.3,
                0.0, 0.75, 0.0, 0.15, 0.6, 1.0, 0.15, 0.9,
            ]),
            (&[Change::Contrast(0.25)][..], [
                0.307417, 0.432417, 0.557417, 0.507417, 0.332417, 0.369917, 0.532417, 0.382417,
                0.307417, 0.432417, 0.307417, 0.457417, 0.482417, 0.369917, 0.532417, 0.357417,
                0.307417, 0.432417, 0.307417, 0.332417, 0.407417, 0.494917, 0.332417, 0.457417,
            ]),
            (&[Change::Contrast(1.75)][..], [
                0.0, 0.567583, 1.0, 1.0, 0.0, 0.130083, 1.0, 0.217583,
                0.0, 0.567583, 0.0, 0.742583, 0.917583, 0.130083, 1.0, 0.042583,
                0.0, 0.567583, 0.0, 0.0, 0.392583, 1.0, 0.0, 0.742583,
            ]),
            (&[Change::Saturation(0.0)][..], [
                0.0, 0.49995, 0.2989, 0.60272, 0.48639, 0.306975, 0.80871, 0.27547,
                0.0, 0.49995, 0.2989, 0.60272, 0.48639, 0.306975, 0.80871, 0.27547,
                0.0, 0.49995, 0.2989, 0.60272, 0.48639, 0.306975, 0.80871, 0.27547,
            ]),
            (&[Change::Saturation(1.5)][..], [
                0.0, 0.500025, 1.0, 0.89864, 0.0, 0.221513, 0.945645, 0.312265,
                0.0, 0.500025, 0.0, 0.59864, 0.806805, 0.221513, 0.945645, 0.162265,
                0.0, 0.500025, 0.0, 0.0, 0.356805, 0.971513, 0.0, 0.762265,
            ]),
            (&[Change::Hue(0.1)][..], [
                0.0, 0.5, 1.0, 0.58, 0.1, 0.55, 0.42, 0.54,
                0.0, 0.5, 0.6, 0.8, 0.64, 0.25, 0.9, 0.2,
                0.0, 0.5, 0.0, 0.1, 0.7, 0.75, 0.1, 0.6,
            ]),
            (&[Change::Hue(-0.4)][..], [
                0.0, 0.5, 0.0, 0.32, 0.7, 0.45, 0.58, 0.26,
                0.0, 0.5, 0.4, 0.1, 0.16, 0.75, 0.1, 0.6,
                0.0, 0.5, 1.0, 0.8, 0.1, 0.25, 0.9, 0.2,
            ]),
            (&[Change::Hue(0.3), Change::Saturation(0.5), Change::Brightness(0.8), Change::Contrast(1.3)][..], [
                0.0, 0.420814, 0.341165, 0.239843, 0.16198, 0.504469, 0.286966, 0.385105,
                0.0, 0.420814, 0.757165, 0.603843, 0.06838, 0.244469, 0.702966, 0.187505,
                0.0, 0.420814, 0.237165, 0.427043, 0.38038, 0.296469, 0.619766, 0.177105,
            ]),
        ];
        for (changes, expected) in golden {
            let found = after(changes, &SAMPLE);
            assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 2e-6), "{changes:?}: {found:?}");
        }
    }

    #[test]
    fn no_change_changes_nothing_and_a_whole_turn_hardly() {
        let same = [Change::Brightness(1.0), Change::Contrast(1.0), Change::Saturation(1.0)];
        assert_eq!(after(&same, &SAMPLE), SAMPLE);
        let turned = after(&[Change::Hue(0.25), Change::Hue(0.25), Change::Hue(0.5)], &SAMPLE);
        assert!(turned.iter().zip(SAMPLE).all(|(found, expected)| (found - expected).abs() < 1e-5), "{turned:?}");
    }

    #[test]
    fn what_is_not_asked_for_is_not_done_and_moves_no_other_draw() {
        let augment = |hue: f64| Augment { brightness: 0.4, contrast: 0.2, hue, ..Augment::default() };
        for row in 0..50 {
            let with = Jitter::random(&augment(0.1), 3, 0, 1, row).expect("changes").changes;
            let without = Jitter::random(&augment(0.0), 3, 0, 1, row).expect("changes").changes;
            assert_eq!(with.into_iter().filter(|change| !matches!(change, Change::Hue(_))).collect::<Vec<_>>(), without);
            assert_eq!(without.len(), 2);
        }
        assert_eq!(Jitter::random(&Augment::default(), 3, 0, 1, 1), None);
    }

    #[test]
    fn factors_are_uniform_in_their_range_and_orders_alike() {
        let augment = Augment { brightness: 0.4, saturation: 2.0, ..Augment::default() };
        let (mut first, mut sums) = (0, [0.0, 0.0]);
        for row in 0..4000 {
            let changes = Jitter::random(&augment, 11, 0, 0, row).expect("changes").changes;
            first += usize::from(matches!(changes[0], Change::Brightness(_)));
            for change in changes {
                match change {
                    Change::Brightness(factor) if (0.6..=1.4).contains(&factor) => sums[0] += f64::from(factor) / 4000.0,
                    Change::Saturation(factor) if (0.0..=3.0).contains(&factor) => sums[1] += f64::from(factor) / 4000.0,
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!((1880..2120).contains(&first), "{first}");
        assert!((sums[0] - 1.0).abs() < 0.01 && (sums[1] - 1.5).abs() < 0.05, "{sums:?}");
    }

    proptest! {
        #[test]
        fn channels_stay_in_their_range(seed: u64, pixels in prop::collection::vec((0.0f32..=1.0, 0.0f32..=1.0, 0.0f32..=1.0), 1..40)) {
            let augment = Augment { brightness: 1.0, contrast: 2.0, saturation: 3.0, hue: 0.5, ..Augment::default() };
            let plane = |of: fn(&(f32, f32, f32)) -> f32| pixels.iter().map(of).collect::<Vec<f32>>();
            let mut sample = [plane(|pixel| pixel.0), plane(|pixel| pixel.1), plane(|pixel| pixel.2)].concat();
            Jitter::random(&augment, seed, 0, 0, 0).expect("changes").apply(&mut sample);
            prop_assert!(sample.iter().all(|value| (0.0..=1.0).contains(value)), "{:?}", sample);
        }
    }
}
