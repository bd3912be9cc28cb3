use std::path::PathBuf;
use std::process::Command;

use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder, codecs::png::PngEncoder};

use super::*;

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
        let load = |i: u32| decode_image(&std::fs::read(folder.join(format!("{scene}_{i}.jpg"))).expect("file")).expect("picture");
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
