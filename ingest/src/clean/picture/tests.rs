//! Pictures made here, and real ones: torture suites, orientations, edits with truth.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::PathBuf;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;

use forebay_schemas::pipeline::picture::NearPicture;

use super::bands::Bands;
use super::perceptual::distance;
use super::*;

/// Smooth enough that JPEG keeps it, and nowhere symmetric.
fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = ((f64::from(x) + 0.5) / f64::from(width), (f64::from(y) + 0.5) / f64::from(height));
        let wave = |a: f64, b: f64, c: f64| (127.5 + 100.0 * (a * u + b * v * v + c * u * v).sin()) as u8;
        Rgb([wave(9.0, 5.0, 1.0), wave(4.0, 13.0, 6.0), wave(17.0, 2.0, 8.0)])
    })
}

fn written(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("picture");
    bytes.into_inner()
}

fn clean<'a>(bytes: &'a [u8], settings: &Picture) -> Cleaned<'a> {
    Cleaner::new(settings).expect("decoder").clean(Ok(bytes), Some("class"))
}

fn stored<'a>(bytes: &'a [u8], settings: &Picture) -> Stored<'a> {
    let cleaned = clean(bytes, settings);
    cleaned.stored.unwrap_or_else(|| panic!("{:?}", cleaned.verdict))
}

fn reason(bytes: &[u8], settings: &Picture) -> std::borrow::Cow<'static, str> {
    match clean(bytes, settings).verdict {
        Verdict::Keep => "kept".into(),
        Verdict::Remove(rejection) | Verdict::Quarantine(rejection) => rejection.reason,
    }
}

/// As the loader decodes: JPEG by libjpeg-turbo, all else through `image`, upright, eight bits.
fn loaded(bytes: &[u8]) -> RgbImage {
    if image::guess_format(bytes).expect("format") == ImageFormat::Jpeg {
        let mut decoder = Decoder::new(None).expect("decoder");
        let header = decoder.header(bytes).expect("header");
        let mut rgb = vec![0; header.whole(8).rgb_bytes()];
        decoder.decode(bytes, &header, &header.whole(8), &mut rgb).expect("pixels");
        let mut picture = DynamicImage::ImageRgb8(RgbImage::from_raw(header.width, header.height, rgb).expect("pixels"));
        picture.apply_orientation(container::layout(bytes).expect("layout").orientation);
        return picture.into_rgb8();
    }
    let mut decoder = ImageReader::new(Cursor::new(bytes)).with_guessed_format().expect("format").into_decoder().expect("header");
    let orientation = decoder.orientation().expect("orientation");
    let mut picture = DynamicImage::from_decoder(decoder).expect("pixels");
    picture.apply_orientation(orientation);
    picture.into_rgb8()
}

/// A JPEG segment or PNG chunk or RIFF chunk.
fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
    [&[0xFF, marker][..], &(content.len() as u16 + 2).to_be_bytes(), content].concat()
}

fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut sum = flate2::Crc::new();
    sum.update(kind);
    sum.update(content);
    [&(content.len() as u32).to_be_bytes()[..], kind, content, &sum.sum().to_be_bytes()].concat()
}

/// EXIF with an orientation and a second entry, `SECRET`, as a camera's name.
fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"II\x2A\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0\x10\x01\x02\0\x07\0\0\0\x26\0\0\0\0\0\0\0SECRET\0".to_vec();
    exif[18] = orientation;
    exif
}

/// A file of each kind with `SECRET` wherever the format has room for notes.
fn noted(format: ImageFormat, orientation: u8) -> Vec<u8> {
    let picture = DynamicImage::ImageRgb8(scene(90, 60));
    let plain = written(&picture, format);
    match format {
        ImageFormat::Jpeg => {
            let notes = [
                segment(0xE1, &[b"Exif\0\0".to_vec(), exif(orientation)].concat()),
                segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x>SECRET</x>"),
                segment(0xED, b"Photoshop 3.0\08BIM SECRET"),
                segment(0xFE, b"SECRET"),
                segment(0xE2, b"ICC_PROFILE\0\x01\x01PROFILE"),
                segment(0xE2, b"MPF\0SECRET"),
            ];
            [&plain[..2], &notes.concat(), &plain[2..], b"SECRET behind the end"].concat()
        }
        ImageFormat::Png => {
            let notes = [
                chunk(b"tEXt", b"Comment\0SECRET"),
                chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0SECRET"),
                chunk(b"eXIf", &exif(orientation)),
                chunk(b"gAMA", &45_455u32.to_be_bytes()),
                chunk(b"tIME", b"SECRET!"),
            ];
            // After the signature and IHDR.
            [&plain[..33], &notes.concat(), &plain[33..], b"SECRET"].concat()
        }
        ImageFormat::WebP => {
            let riff = |kind: &[u8; 4], content: &[u8]| {
                let pad = vec![0; content.len() % 2];
                [&kind[..], &(content.len() as u32).to_le_bytes(), content, &pad].concat()
            };
            let header = [0x0C, 0, 0, 0, 89, 0, 0, 59, 0, 0];
            let chunks =
                [riff(b"VP8X", &header), plain[12..].to_vec(), riff(b"EXIF", &exif(orientation)), riff(b"XMP ", b"SECRET!")].concat();
            [&b"RIFF"[..], &(chunks.len() as u32 + 4).to_le_bytes(), b"WEBP", &chunks, b"SECRET"].concat()
        }
        _ => {
            let comment = b"\x21\xFE\x06SECRET\0\x21\xFF\x0BXMP DataXMP\x06SECRET\0";
            let end = plain.len() - 1;
            [&plain[..end], comment, &plain[end..], b"SECRET"].concat()
        }
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(bytes, needle).is_some()
}

const NOTED: [ImageFormat; 4] = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif];

#[test]
fn notes_are_gone_and_the_pixels_are_the_same() {
    let (strip, leave) = (Picture::default(), Picture { strip_metadata: false, ..Picture::default() });
    for format in NOTED {
        for orientation in 1..=8 {
            let bytes = noted(format, orientation);
            assert!(contains(&bytes, b"SECRET"), "{format:?}");
            let (clean, raw) = (stored(&bytes, &strip), stored(&bytes, &leave));
            assert_eq!(raw.bytes, bytes, "{format:?}");
            assert!(!contains(&clean.bytes, b"SECRET"), "{format:?} {orientation}");
            assert_eq!(contains(&clean.bytes, b"PROFILE"), format == ImageFormat::Jpeg);
            assert_eq!((clean.pixels, clean.width, clean.height), (raw.pixels, raw.width, raw.height), "{format:?} {orientation}");
            assert_eq!(loaded(&clean.bytes), loaded(&bytes), "{format:?} {orientation}");
            assert_eq!((clean.width, clean.height), loaded(&clean.bytes).dimensions());
            let again = stored(&clean.bytes, &strip);
            assert!(matches!(again.bytes, Cow::Owned(_)) || orientation == 1 || format == ImageFormat::Gif);
            assert_eq!(again.bytes, clean.bytes, "{format:?} {orientation}: cleaning a clean file changed it");
        }
    }
}

#[test]
fn a_file_without_notes_is_borrowed() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp] {
        let bytes = written(&DynamicImage::ImageRgb8(scene(40, 30)), format);
        assert!(matches!(stored(&bytes, &Picture::default()).bytes, Cow::Borrowed(_)), "{format:?}");
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp] {
        let bytes = written(&DynamicImage::ImageRgb8(scene(40, 30)), format);
        for length in (1..bytes.len()).step_by(7) {
            assert_eq!(reason(&bytes[..length], &Picture::default()), "corrupt_image", "{format:?} cut to {length} of {}", bytes.len());
        }
    }
}

#[test]
fn equal_pixels_in_other_containers_have_one_digest() {
    let picture = DynamicImage::ImageRgb8(scene(64, 48));
    let of = |format| stored(&written(&picture, format), &Picture::default()).pixels;
    let png = of(ImageFormat::Png);
    assert_eq!((of(ImageFormat::Bmp), of(ImageFormat::WebP)), (png, png));
    assert_ne!(of(ImageFormat::Jpeg), png);
}

#[test]
fn a_bomb_is_refused_by_its_header() {
    let bytes = written(&DynamicImage::ImageRgb8(scene(100, 100)), ImageFormat::Png);
    assert_eq!(reason(&bytes, &Picture { max_pixels: 9_999, ..Picture::default() }), "too_many_pixels");
    let mut vast = bytes;
    vast[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let mut sum = flate2::Crc::new();
    sum.update(&vast[12..29]);
    vast[29..33].copy_from_slice(&sum.sum().to_be_bytes());
    assert_eq!(reason(&vast, &Picture::default()), "too_many_pixels");
    let settings = Picture { max_pixels: u64::MAX, ..Picture::default() };
    assert_eq!(reason(&vast, &settings), "too_many_pixels", "memory is a limit of its own");
}

#[test]
fn kinds_of_colour_are_kept_converted_or_refused() {
    let rgba = RgbaImage::from_fn(40, 30, |x, _| Rgba([200, 0, 0, if x < 20 { 0 } else { 255 }]));
    let grey = DynamicImage::ImageRgb8(scene(40, 30)).into_luma8();
    let deep = DynamicImage::ImageRgb8(scene(40, 30)).into_rgb16();
    let png = |picture: DynamicImage| written(&picture, ImageFormat::Png);
    let refuse = Picture {
        grey: Handling::Refuse,
        palette: Handling::Refuse,
        transparency: Handling::Refuse,
        deep: Handling::Refuse,
        ..Picture::default()
    };
    let gif = written(&DynamicImage::ImageRgb8(scene(40, 30)), ImageFormat::Gif);
    let opaque = png(DynamicImage::ImageRgba8(DynamicImage::ImageRgb8(scene(40, 30)).into_rgba8()));
    let files = [png(DynamicImage::ImageRgba8(rgba)), png(DynamicImage::ImageLuma8(grey)), png(DynamicImage::ImageRgb16(deep)), gif];
    for file in &files {
        assert_eq!((reason(file, &refuse), reason(file, &Picture::default())), ("colour_mode".into(), "kept".into()));
    }
    assert_eq!(reason(&opaque, &refuse), "kept", "a channel of transparency that is opaque all over is none");
    let flat = loaded(&stored(&files[0], &Picture::default()).bytes);
    let near = |pixel: &Rgb<u8>, expected: [u8; 3]| pixel.0.iter().zip(expected).all(|(a, b)| a.abs_diff(b) < 12);
    assert!(near(flat.get_pixel(5, 15), [255, 255, 255]) && near(flat.get_pixel(35, 15), [200, 0, 0]), "not laid over white");
    let settings = Picture { grey: Handling::Convert, deep: Handling::Convert, ..Picture::default() };
    assert!(files[1..3].iter().all(|file| stored(file, &settings).bytes.starts_with(&[0xFF, 0xD8])));
}

#[test]
fn large_pictures_are_scaled_and_small_ones_keep_their_bytes() {
    let settings = Picture { max_short_side: Some(64), ..Picture::default() };
    let bytes = noted(ImageFormat::Jpeg, 6);
    let small = stored(&bytes, &settings);
    assert_eq!((small.width, small.height), (60, 90));
    let bytes = written(&DynamicImage::ImageRgb8(scene(300, 200)), ImageFormat::Png);
    let (scaled, plain) = (stored(&bytes, &settings), stored(&bytes, &Picture::default()));
    assert_eq!((scaled.width, scaled.height), (96, 64));
    assert_eq!(scaled.pixels, plain.pixels);
    let picture = loaded(&scaled.bytes);
    assert_eq!(picture.dimensions(), (96, 64));
    let mut moments = Moments::default();
    moments.add_pixels(picture.as_raw());
    let (written, measured) = (moments.mean_and_std().expect("pixels"), scaled.moments.mean_and_std().expect("pixels"));
    assert!((0..3).all(|channel| (written.0[channel] - measured.0[channel]).abs() < 0.01), "{written:?} {measured:?}");
    let expected = scene(96, 64);
    let off = picture.as_raw().iter().zip(expected.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / picture.len() as f64;
    assert!(off < 4.0, "mean difference {off}");
}

#[test]
fn hashes_of_the_eight_ways_to_lie_are_those_of_the_turned_picture() {
    let mut hasher = Hasher::default();
    for (width, height) in [(320, 240), (97, 211), (40, 30)] {
        let picture = DynamicImage::ImageRgb8(scene(width, height));
        let own = hasher.fingerprint(picture.as_bytes(), width, height).expect("pixels");
        // Mirrored, upside down, both; then the same of the transpose, which is a turn and a mirror.
        for (turn, hash) in own.hashes.iter().enumerate() {
            let mut turned = picture.clone();
            if turn & 4 != 0 {
                turned.apply_orientation(Orientation::Rotate90FlipH);
            }
            if turn & 1 != 0 {
                turned.apply_orientation(Orientation::FlipHorizontal);
            }
            if turn & 2 != 0 {
                turned.apply_orientation(Orientation::FlipVertical);
            }
            let expected = hasher.fingerprint(turned.as_bytes(), turned.width(), turned.height()).expect("pixels");
            assert!(distance(hash, &expected.hashes[0]) <= 4, "{width} × {height}, turn {turn}: {}", distance(hash, &expected.hashes[0]));
            assert_eq!(own.quality, expected.quality);
        }
        let others = own.hashes[1..].iter().map(|hash| distance(&own.hashes[0], hash)).min();
        assert!(others > Some(40), "the scene is symmetric: {others:?}");
    }
}

#[test]
fn a_flat_picture_has_no_quality() {
    let mut hasher = Hasher::default();
    let flat = hasher.fingerprint(&[90; 64 * 64 * 3], 64, 64).expect("pixels");
    assert_eq!(flat.quality, 0);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(tail in prop::collection::vec(any::<u8>(), 0..600), head in 0usize..6) {
        let heads: [&[u8]; 6] = [b"\xFF\xD8\xFF", b"\x89PNG\r\n\x1A\n\0\0\0\x0DIHDR", b"GIF89a", b"RIFF\x50\x02\0\0WEBPVP8X", b"BM", b""];
        clean(&[heads[head], &tail].concat(), &Picture::default());
    }

    #[test]
    fn no_damage_makes_it_panic(format in 0usize..4, at in any::<prop::sample::Index>(), value in any::<u8>(), count in 1usize..6) {
        let mut bytes = noted(NOTED[format], 6);
        let start = at.index(bytes.len());
        for step in 0..count {
            let place = (start + step * 31) % bytes.len();
            bytes[place] ^= value;
        }
        // What is kept must be readable by the loader, and as measured.
        if let Some(kept) = clean(&bytes, &Picture::default()).stored {
            prop_assert_eq!(loaded(&kept.bytes).dimensions(), (kept.width, kept.height));
        }
    }

    #[test]
    fn hashes_within_the_threshold_share_a_key_as_often_as_the_formula_says(seed in any::<u64>()) {
        let settings = NearPicture::default();
        let bands = Bands::new(&settings);
        let mut state = seed;
        let mut below = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let mut found = 0;
        for _ in 0..400 {
            let left: [u8; 32] = std::array::from_fn(|_| below(256) as u8);
            let mut right = left;
            while distance(&left, &right) < settings.max_distance {
                let bit = below(256) as usize;
                right[bit / 8] |= 1 << (bit % 8);
                right[bit / 8] ^= (left[bit / 8] & 1 << (bit % 8)) & right[bit / 8];
            }
            let keys: Vec<u64> = bands.keys(&left).collect();
            found += usize::from(bands.keys(&right).zip(&keys).any(|(a, b)| a == *b));
        }
        // 0.95 of 400 is 380; five standard deviations below.
        prop_assert!(found >= 358, "{} of 400", found);
    }
}

/// The files of an item of the test data, by name; none without test data.
fn item(name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
    let folder = std::env::var_os("FOREBAY_TEST_DATA");
    let archive = folder.and_then(|folder| std::fs::File::open(PathBuf::from(folder).join(format!("{name}.tar.zst"))).ok());
    let Some(archive) = archive else {
        println!("skipped: no test data");
        return None;
    };
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(zstd::Decoder::new(archive).expect("zstd")).entries().expect("tar") {
        let mut entry = entry.expect("entry");
        let path = entry.path().expect("path").to_string_lossy().into_owned();
        if entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("bytes");
            files.insert(path, bytes);
        }
    }
    Some(files)
}

#[test]
fn all_orientations_of_a_scene_come_out_upright_and_nearly_equal() {
    let Some(files) = item("exif_orientation") else { return };
    for scene in ["Landscape", "Portrait"] {
        let mut hashes = Vec::new();
        for (name, bytes) in files.iter().filter(|(name, _)| name.contains(scene)) {
            let kept = stored(bytes, &Picture::default());
            assert_eq!(kept.width > kept.height, scene == "Landscape", "{name}");
            assert_eq!(loaded(&kept.bytes).dimensions(), (kept.width, kept.height), "{name}");
            hashes.push(kept.fingerprint.hashes[0]);
        }
        assert_eq!(hashes.len(), 9);
        let far = hashes.iter().map(|hash| distance(hash, &hashes[0])).max();
        assert!(far <= Some(8), "{scene}: {far:?}");
    }
}

#[test]
fn torture_suites_end_in_verdicts_and_what_is_kept_can_be_loaded() {
    // Item, and how many of its files are kept.
    for (name, expected) in [("bad_img_imagers", 281), ("bad_png_suite", 174), ("jpeg_reftest", 105), ("jpeg_turbo_testimgs", 8)] {
        let Some(files) = item(name) else { return };
        let settings = Picture { min_side: 1, max_aspect: 1e9, max_pixels: 30_000_000, ..Picture::default() };
        let mut kept = 0;
        for (path, bytes) in &files {
            if let Some(stored) = clean(bytes, &settings).stored {
                kept += 1;
                assert_eq!(loaded(&stored.bytes).dimensions(), (stored.width, stored.height), "{path}");
            }
        }
        assert_eq!(kept, expected, "{name}");
    }
}

#[test]
fn png_suite_gets_the_verdicts_that_its_names_say() {
    let Some(files) = item("bad_png_suite") else { return };
    let settings = Picture { min_side: 1, ..Picture::default() };
    let mut judged = 0;
    for (path, bytes) in files.iter().filter(|(path, _)| path.contains("/pngsuite/") && path.ends_with(".png")) {
        // Names of broken files start with an x.
        let is_broken = path.rsplit('/').next().is_some_and(|name| name.starts_with('x'));
        assert_eq!(reason(bytes, &settings) == "corrupt_image", is_broken, "{path}: {}", reason(bytes, &settings));
        judged += 1;
    }
    assert!(judged > 150, "{judged}");
}

#[test]
fn edits_of_a_picture_are_near_and_other_pictures_are_far() {
    let (Some(pdq), Some(ukbench)) = (item("neardup_img_pdq"), item("neardup_img_ukbench")) else { return };
    let settings = NearPicture::default();
    let bands = Bands::new(&settings);
    let mut pictures: Vec<(String, Fingerprint)> = Vec::new();
    for (path, bytes) in pdq.iter().chain(&ukbench) {
        if let Some(stored) = clean(bytes, &Picture::default()).stored.filter(|stored| stored.fingerprint.quality >= settings.min_quality) {
            let name = path.rsplit('/').next().unwrap_or_default();
            // All of the bridge is one picture; of the others the number says which, but for one, and for turns by other than
            // right angles, which are no near duplicates.
            let is_bridge = path.contains("bridge") || path.contains("/modes/");
            let truth = match name {
                _ if is_bridge => "bridge",
                "alpha_channel_image.png" => "ukbench00120",
                turned if turned.ends_with("_rotation.jpg") => turned,
                _ => name.split(['.', '_']).next().unwrap_or_default(),
            };
            pictures.push((truth.to_owned(), stored.fingerprint));
        }
    }
    let (mut near, mut shared) = (0, 0);
    for (at, (truth, own)) in pictures.iter().enumerate() {
        for (other, theirs) in &pictures[at + 1..] {
            let least = theirs.hashes.iter().map(|hash| distance(&own.hashes[0], hash)).min().unwrap_or(u32::MAX);
            assert_eq!(truth == other, least <= settings.max_distance, "{truth} and {other}: {least}");
            if truth == other {
                near += 1;
                let meets = |hash: &_| bands.keys(&own.hashes[0]).zip(bands.keys(hash)).any(|(a, b)| a == b);
                shared += usize::from(theirs.hashes.iter().any(meets));
            }
        }
    }
    assert!(near > 300, "{near} pairs");
    assert!(shared * 100 >= near * 99, "{shared} of {near} pairs share a key");
}
