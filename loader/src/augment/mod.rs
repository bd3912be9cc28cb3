//! Which part of a picture or a document a sample shows: random for training, the centre or the beginning for validation. What of
//! text is hidden is in [`tokens`].
//!
//! Crop, horizontal flip, rotation and resize are one affine map from the sample's pixels to the picture's, so a picture
//! is resampled once, however many of them there are; [`Renderer`] does it and normalises on the way, and changes its
//! colours in between where a [`Jitter`] says so.
//! Promises: a pure function of the picture, the settings and (seed, source, epoch, row).
//! Deliberately absent: anything that needs a second sample.

mod format;
mod jitter;
mod philox;
mod render;
mod tokens;

pub(crate) use format::{Brain, Byte, Format, Half, Single};
pub(crate) use jitter::Jitter;
pub(crate) use philox::Draws;
pub(crate) use render::{Normalise, Renderer, Sample};
pub(crate) use tokens::{hide, span_draws, window, window_draws};

use forebay_schemas::run::Augment;

/// Aspect ratio of a random crop, width / height, from 3:4 to 4:3.
const ASPECT: [f64; 2] = [0.75, 4.0 / 3.0];

/// Tries to place a random crop before the whole picture is taken (as torchvision's RandomResizedCrop).
const TRIES: usize = 10;

/// Where the square sample lies in the picture, in pixels: its centre, and the steps that its right and lower neighbour
/// pixel are away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct View {
    pub(crate) centre: [f64; 2],
    pub(crate) right: [f64; 2],
    pub(crate) down: [f64; 2],
}

/// A rectangle in a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Crop {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl View {
    /// The largest centred square: the same as resizing the shorter side to `size` and cropping the centre.
    pub(crate) fn centred(width: u32, height: u32, size: u32) -> Self {
        let side = f64::from(width.min(height));
        let crop = Crop { left: (f64::from(width) - side) / 2.0, top: (f64::from(height) - side) / 2.0, width: side, height: side };
        Self::of(crop, size, false, 0.0)
    }

    /// A random view under `augment`.
    pub(crate) fn random(width: u32, height: u32, size: u32, augment: &Augment, draws: &mut Draws) -> Self {
        // Always in this order, and flip and angle whatever their settings, so that one setting does not move another's draws.
        let flip = draws.unit() < augment.flip;
        let degrees = draws.between(-augment.max_rotation_degrees, augment.max_rotation_degrees);
        let crop = random_crop(f64::from(width), f64::from(height), augment.min_crop_area, draws);
        Self::of(crop, size, flip, degrees)
    }

    /// The same view of a picture of other sides.
    pub(crate) fn scaled(&self, factor: f64) -> Self {
        let scale = |vector: [f64; 2]| vector.map(|value| value * factor);
        Self { centre: scale(self.centre), right: scale(self.right), down: scale(self.down) }
    }

    fn of(crop: Crop, size: u32, flip: bool, degrees: f64) -> Self {
        let (step_x, step_y) = (crop.width / f64::from(size), crop.height / f64::from(size));
        let (sine, cosine) = degrees.to_radians().sin_cos();
        let mirror = if flip { -1.0 } else { 1.0 };
        Self {
            centre: [crop.left + crop.width / 2.0, crop.top + crop.height / 2.0],
            right: [mirror * step_x * cosine, mirror * step_x * sine],
            down: [-step_y * sine, step_y * cosine],
        }
    }
}

/// A crop of a random share of the area and a random aspect, at a random place; where none fits, the largest centred one
/// with an allowed aspect, which of most pictures is the whole.
fn random_crop(width: f64, height: f64, min_area: f64, draws: &mut Draws) -> Crop {
    for _ in 0..TRIES {
        let area = draws.between(min_area, 1.0) * width * height;
        let aspect = draws.between(ASPECT[0].ln(), ASPECT[1].ln()).exp();
        let (left, top) = (draws.unit(), draws.unit());
        let (crop_width, crop_height) = ((area * aspect).sqrt(), (area / aspect).sqrt());
        if crop_width <= width && crop_height <= height {
            return Crop { left: left * (width - crop_width), top: top * (height - crop_height), width: crop_width, height: crop_height };
        }
    }
    let (crop_width, crop_height) = (width.min(height * ASPECT[1]), height.min(width / ASPECT[0]));
    Crop { left: (width - crop_width) / 2.0, top: (height - crop_height) / 2.0, width: crop_width, height: crop_height }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_crop_lies_in_the_picture_and_is_large_enough(
            width in 1u32..5000, height in 1u32..5000, min_area in 0.01f64..=1.0, seed: u64,
        ) {
            let (w, h) = (f64::from(width), f64::from(height));
            let crop = random_crop(w, h, min_area, &mut Draws::new(seed, 0, 0, 0));
            let slack = 1e-6 * (w + h);
            prop_assert!(crop.left >= -slack && crop.top >= -slack);
            prop_assert!(crop.left + crop.width <= w + slack && crop.top + crop.height <= h + slack);
            prop_assert!(crop.width / crop.height > ASPECT[0] - 1e-9 && crop.width / crop.height < ASPECT[1] + 1e-9);
            // A picture longer than 4:3 may have room for no allowed crop of that area; then the largest is taken.
            let whole = w / h >= ASPECT[0] && w / h <= ASPECT[1];
            prop_assert!(!whole || crop.width * crop.height >= (min_area - 1e-9) * w * h);
        }
    }

    #[test]
    fn a_smallest_share_of_one_takes_the_whole_picture() {
        let augment = Augment { min_crop_area: 1.0, flip: 0.0, max_rotation_degrees: 0.0, ..Augment::default() };
        let view = View::random(40, 32, 16, &augment, &mut Draws::new(3, 1, 4, 1));
        assert_eq!(view.centre, [20.0, 16.0]);
        assert_eq!((view.right, view.down), ([40.0 / 16.0, 0.0], [0.0, 2.0]));
    }

    #[test]
    fn flips_and_turns_are_as_frequent_as_set() {
        let augment = Augment { min_crop_area: 0.5, flip: 0.25, max_rotation_degrees: 10.0, ..Augment::default() };
        let views: Vec<View> = (0..4000).map(|i| View::random(32, 32, 32, &augment, &mut Draws::new(7, 0, 0, i))).collect();
        let flipped = views.iter().filter(|view| view.right[0] < 0.0).count() as f64 / 4000.0;
        assert!((flipped - 0.25).abs() < 0.03, "{flipped}");
        let angle = |view: &View| view.down[0].atan2(view.down[1]).to_degrees().abs();
        assert!(views.iter().all(|view| angle(view) <= 10.0 + 1e-9));
        let mean = views.iter().map(angle).sum::<f64>() / 4000.0;
        assert!((mean - 5.0).abs() < 0.3, "{mean}");
    }
}
