//! Resamples a view of a picture into a normalised sample, planes of red, green and blue, in the format of the batch, in one
//! pass; where its colours are changed, in one pass after that.
//!
//! A view that is not turned is a rectangle, resized by a bilinear filter as wide as the sample is coarse. A turned one is
//! sampled bilinearly, of a picture that is first averaged over whole blocks of pixels where the view is at least twice as
//! fine as the sample, so that fine detail does not alias; beyond its edge a picture is mirrored.
//! Promises: the same bits for the same input whatever the thread and whatever SIMD the machine has (a test compares
//! them); nothing outside `out` is written.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::View;
use super::format::{Format, Single};
use super::jitter::Jitter;
use crate::decode::Picture;

/// Maps a byte of a channel to (byte / 255 - mean) / std.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Normalise {
    scale: [f32; 3],
    bias: [f32; 3],
}

impl Normalise {
    /// Maps a byte to itself.
    pub(crate) const NONE: Self = Self { scale: [1.0; 3], bias: [0.0; 3] };
    /// Maps a byte to 0…1.
    const UNIT: Self = Self { scale: [1.0 / 255.0; 3], bias: [0.0; 3] };

    pub(crate) fn new(mean: [f64; 3], std: [f64; 3]) -> Self {
        Self { scale: std.map(|std| (1.0 / (255.0 * std)) as f32), bias: [0, 1, 2].map(|channel| (-mean[channel] / std[channel]) as f32) }
    }
}

/// Renders views; keeps its working memory, so have one a thread.
#[derive(Default)]
pub(crate) struct Renderer {
    resizer: Resizer,
    rgb: Vec<u8>,
    /// A row of each channel.
    lines: [Vec<f32>; 3],
    /// A sample whose colours are changed.
    plain: Vec<f32>,
}

/// What a sample shows, and how.
pub(crate) struct Sample<'a> {
    pub(crate) view: &'a View,
    /// Side in pixels.
    pub(crate) size: u32,
    /// Changes of its colours.
    pub(crate) jitter: Option<&'a Jitter>,
    pub(crate) normalise: &'a Normalise,
}

impl Renderer {
    /// Renders a sample into `out`, shape `[3, size, size]`.
    pub(crate) fn render<F: Format>(&mut self, picture: &Picture, sample: &Sample<'_>, out: &mut [F::Bits]) {
        let Sample { view, size, jitter, normalise } = *sample;
        let Some(jitter) = jitter else { return self.show::<F>(picture, view, size, normalise, out) };
        let mut plain = std::mem::take(&mut self.plain);
        plain.resize(out.len(), 0.0);
        self.show::<Single>(picture, view, size, &Normalise::UNIT, &mut plain);
        jitter.apply(&mut plain);
        let side = size as usize;
        for (channel, (values, out)) in plain.chunks_exact_mut(side * side).zip(out.chunks_exact_mut(side * side)).enumerate() {
            let (scale, bias) = (255.0 * normalise.scale[channel], normalise.bias[channel]);
            for (values, out) in values.chunks_exact_mut(side).zip(out.chunks_exact_mut(side)) {
                values.iter_mut().for_each(|value| *value = *value * scale + bias);
                F::put(values, out);
            }
        }
        self.plain = plain;
    }

    fn show<F: Format>(&mut self, picture: &Picture, view: &View, size: u32, normalise: &Normalise, out: &mut [F::Bits]) {
        self.lines.iter_mut().for_each(|line| line.resize(size as usize, 0.0));
        if let Some(upright) = Upright::of(picture, view, size)
            && self.resize(picture, &upright, size)
        {
            return lay_out::<F>(&self.rgb, upright.mirrored, &mut self.lines, normalise, out);
        }
        let step = |direction: [f64; 2]| direction[0].hypot(direction[1]);
        let factor = step(view.right).min(step(view.down)).floor() as u32;
        if factor >= 2 {
            let (smaller, view) = reduce(picture, view, size, factor);
            resample::<F>(&smaller, &view, &mut self.lines, normalise, out);
        } else {
            resample::<F>(picture, view, &mut self.lines, normalise, out);
        }
    }

    /// Resizes a rectangle to the sample's size, bytes to bytes; false where the library refuses it.
    fn resize(&mut self, picture: &Picture, upright: &Upright, size: u32) -> bool {
        let [left, top, width, height] = upright.rectangle;
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).crop(left, top, width, height);
        self.rgb.resize(3 * size as usize * size as usize, 0);
        let Ok(source) = ImageRef::new(picture.width, picture.height, &picture.pixels, PixelType::U8x3) else { return false };
        let Ok(mut target) = Image::from_slice_u8(size, size, &mut self.rgb, PixelType::U8x3) else { return false };
        self.resizer.resize(&source, &mut target, &options).is_ok()
    }
}

/// A view that is not turned and lies within the picture: a rectangle, mirrored left to right or not.
struct Upright {
    /// Left, top, width, height.
    rectangle: [f64; 4],
    mirrored: bool,
}

impl Upright {
    fn of(picture: &Picture, view: &View, size: u32) -> Option<Self> {
        if view.right[1] != 0.0 || view.down[0] != 0.0 || view.down[1] <= 0.0 {
            return None;
        }
        let (width, height) = (view.right[0].abs() * f64::from(size), view.down[1] * f64::from(size));
        let (left, top) = (view.centre[0] - width / 2.0, view.centre[1] - height / 2.0);
        // What is beyond an edge by rounding alone is within.
        let within = |start: f64, length: f64, side: u32| start > -1e-6 && start + length < f64::from(side) + 1e-6;
        if !within(left, width, picture.width) || !within(top, height, picture.height) {
            return None;
        }
        let (left, top) = (left.max(0.0), top.max(0.0));
        let rectangle = [left, top, width.min(f64::from(picture.width) - left), height.min(f64::from(picture.height) - top)];
        Some(Self { rectangle, mirrored: view.right[0] < 0.0 })
    }
}

/// The rows of three planes of `size` × `size` numbers.
fn rows<T>(size: usize, out: &mut [T]) -> impl Iterator<Item = [&mut [T]; 3]> {
    let (red, rest) = out.split_at_mut(size * size);
    let (green, blue) = rest.split_at_mut(size * size);
    let rows = red.chunks_exact_mut(size).zip(green.chunks_exact_mut(size)).zip(blue.chunks_exact_mut(size));
    rows.map(|((red, green), blue)| [red, green, blue])
}

/// Fills a row of each plane with floats: in place where it holds such, else by way of `lines`.
fn fill<F: Format>(rows: [&mut [F::Bits]; 3], lines: &mut [Vec<f32>; 3], mut floats: impl FnMut([&mut [f32]; 3])) {
    match rows.map(F::floats) {
        [Ok(red), Ok(green), Ok(blue)] => floats([red, green, blue]),
        rows => {
            floats(lines.each_mut().map(Vec::as_mut_slice));
            lines.iter().zip(rows).for_each(|(line, row)| row.map_or_else(|row| F::put(line, row), |row| row.copy_from_slice(line)));
        }
    }
}

/// Bytes of interleaved channels to normalised planes, in one pass.
fn lay_out<F: Format>(rgb: &[u8], mirrored: bool, lines: &mut [Vec<f32>; 3], normalise: &Normalise, out: &mut [F::Bits]) {
    let size = lines[0].len();
    let Normalise { scale, bias } = normalise;
    for (pixels, rows) in rgb.chunks_exact(3 * size).zip(rows(size, out)) {
        let (pixels, _) = pixels.as_chunks::<3>();
        fill::<F>(rows, lines, |[red, green, blue]| {
            for ((pixel, red), (green, blue)) in pixels.iter().zip(red.iter_mut()).zip(green.iter_mut().zip(blue.iter_mut())) {
                *red = f32::from(pixel[0]) * scale[0] + bias[0];
                *green = f32::from(pixel[1]) * scale[1] + bias[1];
                *blue = f32::from(pixel[2]) * scale[2] + bias[2];
            }
            if mirrored {
                [red, green, blue].into_iter().for_each(|row| row.reverse());
            }
        });
    }
}

fn resample<F: Format>(picture: &Picture, view: &View, lines: &mut [Vec<f32>; 3], normalise: &Normalise, out: &mut [F::Bits]) {
    let size = lines[0].len();
    let half = (size as f64 - 1.0) / 2.0;
    let sampler = Sampler::new(picture, normalise);
    for (v, rows) in rows(size, out).enumerate() {
        let along = |axis: usize| view.centre[axis] - 0.5 + (v as f64 - half) * view.down[axis] - half * view.right[axis];
        let start = [along(0) as f32, along(1) as f32];
        let step = view.right.map(|step| step as f32);
        let at = |u: usize| [start[0] + u as f32 * step[0], start[1] + u as f32 * step[1]];
        // The row is straight, so if both of its ends are inside all of it is.
        let inside = sampler.holds(at(0)) && sampler.holds(at(size - 1));
        fill::<F>(rows, lines, |[red, green, blue]| {
            for (u, ((red, green), blue)) in red.iter_mut().zip(green).zip(blue).enumerate() {
                let rgb = if inside { sampler.inside(at(u)) } else { sampler.mirrored(at(u)) };
                [*red, *green, *blue] = rgb;
            }
        });
    }
}

struct Sampler<'a> {
    pixels: &'a [u8],
    width: usize,
    height: usize,
    normalise: &'a Normalise,
}

impl<'a> Sampler<'a> {
    fn new(picture: &'a Picture, normalise: &'a Normalise) -> Self {
        Self { pixels: &picture.pixels, width: picture.width as usize, height: picture.height as usize, normalise }
    }

    /// Whether a point has four neighbours in the picture.
    fn holds(&self, [x, y]: [f32; 2]) -> bool {
        let in_range = |value: f32, length: usize| length >= 2 && value >= 0.0 && value <= (length - 1) as f32;
        in_range(x, self.width) && in_range(y, self.height)
    }

    fn inside(&self, [x, y]: [f32; 2]) -> [f32; 3] {
        // On the last pixel's centre the pair before it is taken, with all weight on the second.
        let (column, row) = ((x as usize).min(self.width - 2), (y as usize).min(self.height - 2));
        let upper = (row * self.width + column) * 3;
        let lower = upper + self.width * 3;
        self.blend(&self.pixels[upper..upper + 6], &self.pixels[lower..lower + 6], x - column as f32, y - row as f32)
    }

    fn mirrored(&self, [x, y]: [f32; 2]) -> [f32; 3] {
        let (floor_x, floor_y) = (x.floor(), y.floor());
        let columns = [mirror(floor_x as i64, self.width), mirror(floor_x as i64 + 1, self.width)];
        let rows = [mirror(floor_y as i64, self.height), mirror(floor_y as i64 + 1, self.height)];
        let mut pairs = [[0u8; 6]; 2];
        for (pair, row) in pairs.iter_mut().zip(rows) {
            for (pixel, column) in pair.chunks_exact_mut(3).zip(columns) {
                let at = (row * self.width + column) * 3;
                pixel.copy_from_slice(&self.pixels[at..at + 3]);
            }
        }
        self.blend(&pairs[0], &pairs[1], x - floor_x, y - floor_y)
    }

    fn blend(&self, upper: &[u8], lower: &[u8], x: f32, y: f32) -> [f32; 3] {
        let (upper, lower) = (&upper[..6], &lower[..6]);
        let mut rgb = [0.0; 3];
        for channel in 0..3 {
            let mix = |pair: &[u8]| {
                let (left, right) = (f32::from(pair[channel]), f32::from(pair[channel + 3]));
                left + (right - left) * x
            };
            let (top, bottom) = (mix(upper), mix(lower));
            rgb[channel] = (top + (bottom - top) * y) * self.normalise.scale[channel] + self.normalise.bias[channel];
        }
        rgb
    }
}

/// The index that a mirror at both edges shows: … 1 0 | 0 1 2 … n-1 | n-1 n-2 …
fn mirror(index: i64, length: usize) -> usize {
    let length = length as i64;
    let folded = index.rem_euclid(2 * length);
    (if folded < length { folded } else { 2 * length - 1 - folded }) as usize
}

/// The part of the picture that the view sees, averaged over `factor` × `factor` pixels, and the view of that.
fn reduce(picture: &Picture, view: &View, size: u32, factor: u32) -> (Picture, View) {
    let (left, columns) = span(picture.width, view, 0, size, factor);
    let (top, rows) = span(picture.height, view, 1, size, factor);
    let block = factor as usize;
    let (width, height) = (columns.div_ceil(block), rows.div_ceil(block));
    let mut pixels = vec![0u8; width * height * 3];
    let mut sums = vec![[0u32; 3]; width];
    for (y, out) in pixels.chunks_exact_mut(width * 3).enumerate() {
        sums.fill([0; 3]);
        let lines = (y * block)..((y + 1) * block).min(rows);
        for line in lines.clone() {
            let start = ((top + line) * picture.width as usize + left) * 3;
            let source = &picture.pixels[start..start + columns * 3];
            for (sum, pixels) in sums.iter_mut().zip(source.chunks(block * 3)) {
                for pixel in pixels.chunks_exact(3) {
                    (0..3).for_each(|channel| sum[channel] += u32::from(pixel[channel]));
                }
            }
        }
        for (x, (pixel, sum)) in out.chunks_exact_mut(3).zip(&sums).enumerate() {
            let count = (lines.len() * (((x + 1) * block).min(columns) - x * block)) as u32;
            (0..3).for_each(|channel| pixel[channel] = ((sum[channel] + count / 2) / count) as u8);
        }
    }
    let scale = |vector: [f64; 2]| vector.map(|value| value / f64::from(factor));
    let centre = scale([view.centre[0] - left as f64, view.centre[1] - top as f64]);
    (Picture { width: width as u32, height: height as u32, pixels }, View { centre, right: scale(view.right), down: scale(view.down) })
}

/// First pixel and number of pixels along an axis that a view needs, with a block to spare for the neighbours.
fn span(length: u32, view: &View, axis: usize, size: u32, factor: u32) -> (usize, usize) {
    let reach = (view.right[axis].abs() + view.down[axis].abs()) * f64::from(size) / 2.0 + 2.0 * f64::from(factor);
    let bound = |value: f64| value.clamp(0.0, f64::from(length)) as usize;
    let (first, last) = (bound((view.centre[axis] - reach).floor()), bound((view.centre[axis] + reach).ceil()));
    let first = first.min(length as usize - 1);
    (first, last.max(first + 1) - first)
}

#[cfg(test)]
#[expect(unsafe_code, reason = "a SIMD level can only be chosen by an unsafe call")]
mod tests {
    use super::*;
    use crate::augment::Draws;
    use crate::augment::format::{Brain, Byte, Half};
    use fast_image_resize::CpuExtensions;
    use forebay_schemas::run::Augment;
    use proptest::prelude::*;

    const PLAIN: [[f64; 3]; 2] = [[0.0; 3], [1.0; 3]];

    fn picture(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) -> Picture {
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).flat_map(|(x, y)| pixel(x, y)).collect();
        Picture { width, height, pixels }
    }

    fn sample<'a>(view: &'a View, size: u32, normalise: &'a Normalise) -> Sample<'a> {
        Sample { view, size, jitter: None, normalise }
    }

    fn rendered(picture: &Picture, view: &View, size: u32) -> Vec<u8> {
        let mut out = vec![f32::NAN; (3 * size * size) as usize];
        Renderer::default().render::<Single>(picture, &sample(view, size, &Normalise::new(PLAIN[0], PLAIN[1])), &mut out);
        let plane = (size * size) as usize;
        (0..plane).flat_map(|i| [out[i], out[plane + i], out[2 * plane + i]]).map(|value| (value * 255.0).round() as u8).collect()
    }

    fn speckled(width: u32, height: u32) -> Picture {
        picture(width, height, |x, y| [(x * 7 + y * 13) as u8, (x * x + y) as u8, (x * y * 31) as u8])
    }

    #[test]
    fn the_whole_picture_at_its_own_size_is_unchanged() {
        let picture = speckled(32, 32);
        assert_eq!(rendered(&picture, &View::centred(32, 32, 32), 32), picture.pixels);
    }

    #[test]
    fn a_flip_mirrors_and_a_quarter_turn_turns() {
        let picture = speckled(8, 8);
        let view = View::centred(8, 8, 8);
        let at = |pixels: &[u8], x: usize, y: usize| pixels[(y * 8 + x) * 3..][..3].to_vec();
        let flipped = rendered(&picture, &View { right: [-1.0, 0.0], ..view }, 8);
        let turned = rendered(&picture, &View { right: [0.0, 1.0], down: [-1.0, 0.0], ..view }, 8);
        for (x, y) in (0..8).flat_map(|y| (0..8).map(move |x| (x, y))) {
            assert_eq!(at(&flipped, x, y), at(&picture.pixels, 7 - x, y));
            assert_eq!(at(&turned, x, y), at(&picture.pixels, 7 - y, x));
        }
    }

    #[test]
    fn beyond_the_edge_the_picture_is_mirrored() {
        assert_eq!([-3, -2, -1, 0, 1, 2, 3, 4, 5, 6].map(|index| mirror(index, 3)), [2, 1, 0, 0, 1, 2, 2, 1, 0, 0]);
        let picture = picture(2, 1, |x, _| if x == 0 { [10; 3] } else { [200; 3] });
        let view = View { centre: [1.0, 0.5], right: [1.0, 0.0], down: [0.0, 1.0] };
        assert_eq!(rendered(&picture, &view, 4)[..12], [[10; 3], [10; 3], [200; 3], [200; 3]].concat());
    }

    #[test]
    fn fine_stripes_become_grey_and_not_a_false_pattern() {
        let stripes = picture(320, 240, |x, _| if x % 2 == 0 { [0; 3] } else { [255; 3] });
        let sample = rendered(&stripes, &View::centred(320, 240, 32), 32);
        assert!(sample.iter().all(|&value| (100..=155).contains(&value)), "{:?}", &sample[..30]);
    }

    #[test]
    fn a_smooth_picture_keeps_its_shape_when_shrunk() {
        let ramp = picture(400, 300, |x, y| [(x * 255 / 399) as u8, (y * 255 / 299) as u8, 0]);
        let sample = rendered(&ramp, &View::centred(400, 300, 30), 30);
        for (x, y) in (0..30).flat_map(|y| (0..30).map(move |x| (x, y))) {
            let expected = [(50.0 + (x as f64 + 0.5) * 10.0) / 400.0 * 255.0, (y as f64 + 0.5) * 10.0 / 300.0 * 255.0];
            for channel in 0..2 {
                let found = f64::from(sample[(y * 30 + x) * 3 + channel]);
                assert!((found - expected[channel]).abs() < 3.0, "{x} {y} {channel}: {found} {expected:?}");
            }
        }
    }

    #[test]
    fn a_channel_is_centred_and_scaled_by_its_own_statistics() {
        let grey = picture(4, 4, |_, _| [51, 102, 255]);
        let mut out = vec![0.0; 3 * 16];
        let normalise = Normalise::new([0.1, 0.2, 0.5], [0.1, 0.4, 0.25]);
        Renderer::default().render::<Single>(&grey, &sample(&View::centred(4, 4, 4), 4, &normalise), &mut out);
        for (plane, expected) in out.chunks_exact(16).zip([1.0f32, 0.5, 2.0]) {
            assert!(plane.iter().all(|value| (value - expected).abs() < 1e-5), "{plane:?}");
        }
    }

    #[test]
    fn every_format_holds_the_same_numbers_as_well_as_it_can() {
        let (picture, size) = (speckled(60, 40), 24);
        let normalise = Normalise::new([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]);
        let augment = Augment { brightness: 0.3, contrast: 0.3, ..Augment::default() };
        for (seed, jitter) in (0..6).map(|seed| (seed, Jitter::random(&augment, seed, 0, 0, 0).filter(|_| seed % 2 == 0))) {
            let view = View::random(60, 40, size, &augment, &mut Draws::new(seed, 0, 0, 0));
            fn of<F: Format>(picture: &Picture, sample: &Sample<'_>) -> Vec<F::Bits> {
                let mut out = vec![F::Bits::default(); 3 * 24 * 24];
                Renderer::default().render::<F>(picture, sample, &mut out);
                out
            }
            let sample = Sample { view: &view, size, jitter: jitter.as_ref(), normalise: &normalise };
            let single = of::<Single>(&picture, &sample);
            let (mut brain, mut half) = (vec![0; single.len()], vec![0; single.len()]);
            Brain::put(&single, &mut brain);
            Half::put(&single, &mut half);
            assert!(brain == of::<Brain>(&picture, &sample) && half == of::<Half>(&picture, &sample), "seed {seed}");
            let bytes = of::<Byte>(&picture, &Sample { normalise: &Normalise::NONE, ..sample });
            for (channel, (bytes, single)) in bytes.chunks_exact(24 * 24).zip(single.chunks_exact(24 * 24)).enumerate() {
                let (scale, bias) = (normalise.scale[channel], normalise.bias[channel]);
                let near = |(byte, value): (&u8, &f32)| (f32::from(*byte) * scale + bias - value).abs() <= 0.501 * scale;
                assert!(bytes.iter().zip(single).all(near), "seed {seed}");
            }
        }
    }

    #[test]
    fn every_simd_level_gives_the_same_bits() {
        let normalise = Normalise::new([0.4; 3], [0.2; 3]);
        for (width, height, size) in [(500, 333, 224), (64, 40, 96), (37, 113, 16), (1200, 900, 64)] {
            let picture = speckled(width, height);
            let augment = Augment { min_crop_area: 0.2, max_rotation_degrees: 0.0, ..Augment::default() };
            for seed in 0..8 {
                let view = View::random(width, height, size, &augment, &mut Draws::new(seed, 0, 0, 0));
                let with = |level: Option<CpuExtensions>| {
                    let mut renderer = Renderer::default();
                    if let Some(level) = level {
                        // SAFETY: the processor was asked whether it has these instructions.
                        unsafe { renderer.resizer.set_cpu_extensions(level) };
                    }
                    let mut out = vec![0.0; (3 * size * size) as usize];
                    renderer.render::<Single>(&picture, &sample(&view, size, &normalise), &mut out);
                    out
                };
                let best = with(None);
                for level in [CpuExtensions::None, CpuExtensions::Sse4_1, CpuExtensions::Avx2] {
                    assert!(!level.is_supported() || with(Some(level)) == best, "{level:?}, {width} × {height} to {size}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn no_view_of_any_picture_leaves_its_range(width in 1u32..90, height in 1u32..90, size in 1u32..40, seed: u64) {
            let constant = picture(width, height, |_, _| [9, 99, 199]);
            let augment = Augment { min_crop_area: 0.05, max_rotation_degrees: 180.0, ..Augment::default() };
            let view = View::random(width, height, size, &augment, &mut Draws::new(seed, 0, 0, 0));
            prop_assert!(rendered(&constant, &view, size).chunks_exact(3).all(|pixel| pixel == [9, 99, 199]));
        }
    }
}
