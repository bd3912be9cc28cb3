use std::path::PathBuf;
use std::process::Command;

use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder, codecs::png::PngEncoder};

use super::*;
use crate::augment::{Draws, Normalise, Renderer, Sample, Single};
use forebay_schemas::run::Augment;

fn gradient(width: u32, height: u32) -> Vec<u8> {
    (0..height).flat_map(|y| (0..width).flat_map(move |x| [(x * 255 / width) as u8, (y * 255 / height) as u8, 128])).collect()
}

fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 95)
        .write_image(&gradient(width, height), width, height, ExtendedColorType::Rgb8)
        .expect("jpeg");
    bytes
}

fn sample<'a>(view: &'a View, size: u32, normalise: &'a Normalise) -> Sample<'a> {
    Sample { view, size, jitter: None, normalise }
}

/// All of a picture, upright: the view that shows it pixel by pixel, rendered.
fn decode_image(bytes: &[u8]) -> Result<Picture, String> {
    let mut images = Images::default();
    let opened = images.open(bytes)?;
    let (width, height) = opened.sides();
    let side = width.max(height);
    let view = View { centre: [f64::from(side) / 2.0; 2], right: [1.0, 0.0], down: [0.0, 1.0] };
    let (picture, view) = images.part(opened, &view, side)?;
    let mut planes = vec![0.0; 3 * (side * side) as usize];
    let unchanged = Normalise::new([0.0; 3], [1.0 / 255.0; 3]);
    Renderer::default().render::<Single>(&picture, &sample(&view, side, &unchanged), &mut planes);
    let plane = (side * side) as usize;
    let shown = (0..height).flat_map(|y| (0..width).map(move |x| (y * side + x) as usize));
    let pixels = shown.flat_map(|at| [planes[at], planes[plane + at], planes[2 * plane + at]]).map(|value| value.round() as u8);
    Ok(Picture { width, height, pixels: pixels.collect() })
}

/// The same by the other decoder, which knows no parts.
fn reference(bytes: &[u8]) -> Picture {
    decode(bytes).expect("picture")
}

#[test]
fn a_part_is_what_the_whole_picture_shows_there() {
    let mut images = Images::default();
    for (width, height, quality) in [(500, 333, 90), (333, 500, 60), (97, 64, 95), (1500, 1100, 85)] {
        let file = speckled_jpeg(width, height, quality);
        let opened = images.open(&file).expect("jpeg");
        let Opened::Jpeg(whole) = opened else { panic!("a jpeg") };
        let header = Decoder::new(None).expect("decoder").header(&file).expect("header");
        let mut pixels = vec![0; header.whole(8).rgb_bytes()];
        Decoder::new(None).expect("decoder").decode(&file, &header, &header.whole(8), &mut pixels).expect("pixels");
        let whole_picture = Picture { width, height, pixels };
        for seed in 0..30 {
            let augment =
                Augment { min_crop_area: 0.1, max_rotation_degrees: if seed % 2 == 0 { 0.0 } else { 25.0 }, ..Augment::default() };
            // So large a sample that no view is twice as fine, and the scale is 1.
            let size = 2 * width.max(height).min(400);
            let view = View::random(width, height, size, &augment, &mut Draws::new(seed, 0, 0, 0));
            let (part, inner) = whole.part(images.decoder().expect("decoder"), &view, size, Vec::new()).expect("part");
            let render = |picture: &Picture, view: &View| {
                let mut out = vec![0.0; 3 * (size * size) as usize];
                Renderer::default().render::<Single>(picture, &sample(view, size, &Normalise::NONE), &mut out);
                out
            };
            let (found, expected) = (render(&part, &inner), render(&whole_picture, &view));
            // Coordinates counted from another origin round otherwise; pixels do not.
            let off = found.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() > 1.01).count();
            assert!(off <= found.len() / 10_000, "{width} × {height}, seed {seed}: {off} of {}", found.len());
        }
    }
}

#[test]
fn a_coarser_scale_shows_the_same_picture() {
    let (width, height) = (1600, 1200);
    let file = jpeg(width, height);
    let mut images = Images::default();
    for size in [32, 100, 180, 300] {
        let opened = images.open(&file).expect("jpeg");
        let view = View::centred(width, height, size);
        let (part, inner) = images.part(opened, &view, size).expect("part");
        assert!(part.width < 8 * size && part.width >= size, "{} columns for {size}", part.width);
        let mut out = vec![0.0; 3 * (size * size) as usize];
        Renderer::default().render::<Single>(&part, &sample(&inner, size, &Normalise::NONE), &mut out);
        for (x, y) in (0..size).flat_map(|y| (0..size).map(move |x| (x, y))) {
            let scale = 1200.0 / f64::from(size);
            let expected = [(200.0 + (f64::from(x) + 0.5) * scale) / 1600.0 * 255.0, (f64::from(y) + 0.5) * scale / 1200.0 * 255.0];
            for (channel, expected) in expected.into_iter().enumerate() {
                let found = f64::from(out[(channel as u32 * size * size + y * size + x) as usize]);
                assert!((found - expected).abs() < 4.0, "{size}: {x}, {y}, {channel}: {found} {expected}");
            }
        }
    }
}

fn speckled_jpeg(width: u32, height: u32, quality: u8) -> Vec<u8> {
    let pixel = |x: u32, y: u32| [(x * 7 + y * 13) as u8, ((x / 9) * (y / 5) * 11) as u8, ((x + y) / 3) as u8];
    let raw: Vec<u8> = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality).write_image(&raw, width, height, ExtendedColorType::Rgb8).expect("jpeg");
    bytes
}

#[test]
fn a_jpeg_decodes_to_about_its_pixels() {
    let picture = decode_image(&jpeg(40, 24)).expect("picture");
    assert_eq!((picture.width, picture.height), (40, 24));
    let worst = picture.pixels.iter().zip(gradient(40, 24)).map(|(a, b)| a.abs_diff(b)).max();
    assert!(worst <= Some(12), "{worst:?}");
}

#[test]
fn a_png_of_any_colour_type_decodes_to_rgb() {
    for (kind, channels, expected) in
        [(ExtendedColorType::Rgb8, 3, [10, 20, 30]), (ExtendedColorType::L8, 1, [10; 3]), (ExtendedColorType::Rgba8, 4, [10, 20, 30])]
    {
        let raw = [10, 20, 30, 40][..channels].repeat(6);
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes).write_image(&raw, 3, 2, kind).expect("png");
        let picture = decode_image(&bytes).expect("picture");
        assert_eq!((picture.width, picture.height), (3, 2));
        assert_eq!(picture.pixels, expected.repeat(6), "{kind:?}");
    }
}

#[test]
fn what_is_no_image_is_refused_with_a_reason() {
    for bytes in [&b""[..], b"not an image", &jpeg(16, 16)[..40], b"\x89PNG\r\n\x1a\nbroken"] {
        let reason = decode_image(bytes).expect_err("no image");
        assert!(reason.contains("expected"), "{reason}");
    }
}

#[test]
fn a_bomb_is_refused_before_memory_is_taken() {
    // A PNG header that claims 60,000 × 60,000 pixels, with a correct checksum.
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bytes.extend_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60, 8, 2, 0, 0, 0]);
    let checksum = crc32(&bytes[12..]);
    bytes.extend_from_slice(&checksum.to_be_bytes());
    bytes.extend_from_slice(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    let reason = decode_image(&bytes).expect_err("bomb");
    assert!(reason.contains("60000") || reason.to_lowercase().contains("limit"), "{reason}");
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// The files of an archive of test data, unpacked with `tar`; none without the data.
fn unpacked(name: &str) -> Option<(tempfile::TempDir, PathBuf)> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    let data = std::env::var_os("FOREBAY_TEST_DATA").map_or_else(|| PathBuf::from(default), PathBuf::from);
    let archive = data.join(format!("{name}.tar.zst"));
    if !archive.exists() {
        println!("skipped: no test data");
        return None;
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let status = Command::new("tar").arg("--zstd").arg("-xf").arg(&archive).arg("-C").arg(folder.path()).status();
    if !status.is_ok_and(|status| status.success()) {
        println!("skipped: tar with zstd cannot unpack {}", archive.display());
        return None;
    }
    let path = folder.path().join(name);
    Some((folder, path))
}

#[test]
fn all_orientations_of_a_scene_come_out_upright_and_nearly_equal() {
    let Some((_keep, folder)) = unpacked("exif_orientation") else { return };
    for scene in ["Landscape", "Portrait"] {
        let load = |i: u32| {
            let file = std::fs::read(folder.join(format!("{scene}_{i}.jpg"))).expect("file");
            let (found, expected) = (decode_image(&file).expect("picture"), reference(&file));
            assert_eq!((found.width, found.height), (expected.width, expected.height), "{scene}_{i}");
            let sum: u64 = found.pixels.iter().zip(&expected.pixels).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
            assert!((sum as f64) < 0.6 * found.pixels.len() as f64, "{scene}_{i}: turned otherwise, {sum}");
            found
        };
        let upright = load(1);
        assert_eq!(upright.width > upright.height, scene == "Landscape");
        for i in (0..=8).filter(|&i| i != 1) {
            let other = load(i);
            assert_eq!((other.width, other.height), (upright.width, upright.height), "{scene}_{i}");
            let sum: u64 = other.pixels.iter().zip(&upright.pixels).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
            let mean = sum as f64 / upright.pixels.len() as f64;
            assert!(mean < 12.0, "{scene}_{i}: mean difference {mean}");
        }
    }
}

/// Run by hand: `cargo test -p forebay-loader -- --ignored --nocapture images_a_processor_second`.
#[test]
#[ignore = "a measurement"]
fn images_a_processor_second() {
    let Some((_keep, folder)) = unpacked("flower_photos_val") else { return };
    let mut folders = vec![folder];
    let mut files = Vec::new();
    while let Some(path) = folders.pop() {
        for entry in std::fs::read_dir(path).expect("folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "jpg") {
                files.push(std::fs::read(path).expect("file"));
            }
        }
    }
    let photo = reference(&files[0]);
    let twelve = image::imageops::resize(
        &image::RgbImage::from_raw(photo.width, photo.height, photo.pixels).expect("photo"),
        4000,
        3000,
        image::imageops::FilterType::Triangle,
    );
    let mut large = Vec::new();
    JpegEncoder::new_with_quality(&mut large, 90).write_image(&twelve, 4000, 3000, ExtendedColorType::Rgb8).expect("jpeg");
    let on_processor = || -> f64 {
        let times = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
        times.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds") / 1e9
    };
    let augment = Augment { min_crop_area: 0.08, max_rotation_degrees: 0.0, ..Augment::default() };
    let normalise = Normalise::new([0.48, 0.45, 0.4], [0.22, 0.22, 0.22]);
    for (name, files) in [("photos", files), ("12 megapixels", vec![large; 40])] {
        let mut out = vec![0.0; 3 * 224 * 224];
        let (mut images, mut renderer, mut decoder) = (Images::default(), Renderer::default(), Decoder::new(None).expect("decoder"));
        let mut seconds = [Vec::new(), Vec::new()];
        for round in 0..5 {
            let began = on_processor();
            for (at, file) in files.iter().enumerate() {
                let opened = images.open(file).expect("jpeg");
                let (width, height) = opened.sides();
                let view = View::random(width, height, 224, &augment, &mut Draws::new(round, 0, 0, at as u64));
                let (picture, view) = images.part(opened, &view, 224).expect("part");
                renderer.render::<Single>(&picture, &sample(&view, 224, &normalise), &mut out);
                images.recycle(picture);
            }
            let parts = on_processor();
            let mut pixels = Vec::new();
            for (at, file) in files.iter().enumerate() {
                let header = decoder.header(file).expect("header");
                let view = View::random(header.width, header.height, 224, &augment, &mut Draws::new(round, 0, 0, at as u64));
                pixels.resize(header.whole(8).rgb_bytes(), 0);
                decoder.decode(file, &header, &header.whole(8), &mut pixels).expect("pixels");
                let picture = Picture { width: header.width, height: header.height, pixels: std::mem::take(&mut pixels) };
                renderer.render::<Single>(&picture, &sample(&view, 224, &normalise), &mut out);
                pixels = picture.pixels;
            }
            seconds[0].push(parts - began);
            seconds[1].push(on_processor() - parts);
        }
        let [part, whole] = seconds.map(|mut rounds: Vec<f64>| {
            rounds.sort_by(f64::total_cmp);
            files.len() as f64 / rounds[2]
        });
        println!("{name}: {} files, {part:.0} a processor second, {whole:.0} decoded whole: {:.2} times", files.len(), part / whole);
    }
}
