//! Image sources: folders and archives, good and bad.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};

use super::*;

fn picture(seed: u32, width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let pixel = |x: u32, y: u32| Rgb([(seed * 37 + x * 5) as u8, (y * 7) as u8, (x * y + seed) as u8]);
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_fn(width, height, pixel).write_to(&mut bytes, format).expect("picture");
    bytes.into_inner()
}

fn tar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).expect("member");
    }
    builder.into_inner().expect("archive")
}

/// The same picture with an EXIF header that says: turn by a quarter.
fn turned(jpeg: &[u8]) -> Vec<u8> {
    let exif = b"\xFF\xE1\x00\x22Exif\0\0MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    [&jpeg[..2], exif, &jpeg[2..]].concat()
}

#[tokio::test]
async fn class_folders_become_labelled_rows() {
    let place = Place::new();
    let jpeg = |seed| picture(seed, 40, 20, ImageFormat::Jpeg);
    for seed in 0..5 {
        place.put(&format!("train/dog/{seed}.jpg"), jpeg(seed));
        place.put(&format!("train/cat/{seed}.PNG"), picture(seed + 50, 32, 32, ImageFormat::Png));
    }
    place.put("test/dog/1.jpg", jpeg(90));
    place.put("test/dog/copy.jpg", jpeg(0));
    place.put("train/cat/turned.jpg", turned(&jpeg(77)));
    place.put("train/cat/cut.jpg", &jpeg(78)[..400]);
    place.put("train/cat/garbage.jpg", b"not a picture at all");
    place.put("train/cat/tiny.png", picture(1, 4, 4, ImageFormat::Png));
    place.put("train/cat/thin.png", picture(1, 200, 10, ImageFormat::Png));
    place.put("train/cat/vast.png", picture(1, 300, 300, ImageFormat::Png));
    place.put("loose.png", picture(2, 32, 32, ImageFormat::Png));
    let overrides = ["split.validation_keys=['test/**']", "picture.max_pixels=80000", "picture.near.enabled=false"];
    let manifest = committed(ingest(&place.pipeline("images", &overrides), Options::default(), Arc::new(Silent)).await);
    let tally = &manifest.tally;
    assert_eq!(tally.read, 19);
    assert_eq!(tally.removed, counts(&[("exact_duplicate", 1), ("too_small", 1), ("odd_aspect", 1)]));
    assert_eq!(tally.quarantined, counts(&[("corrupt_image", 2), ("too_many_pixels", 1), ("no_class", 1)]));
    let statistics = &manifest.statistics;
    assert_eq!(statistics.classes.as_deref(), Some(["cat".to_owned(), "dog".to_owned()].as_slice()));
    // `test/dog/copy.jpg` comes first by its key, so the copy in training is the one that goes.
    assert_eq!(statistics.class_counts.as_deref(), Some([6, 4].as_slice()));
    let train = place.read(&manifest, "train").await;
    assert_eq!((train.num_rows(), manifest.tables["validation"].rows), (10, 2));
    let (widths, heights) = (train.column(3).as_primitive::<UInt32Type>(), train.column(4).as_primitive::<UInt32Type>());
    let turned_rows = (0..10).filter(|row| (widths.value(*row), heights.value(*row)) == (20, 40)).count();
    assert_eq!(turned_rows, 1);
    let ids = train.column(0).as_fixed_size_binary();
    let place_of = |row: usize| twox_hash::XxHash3_64::oneshot_with_seed(0, ids.value(row));
    assert!((1..10).all(|row| place_of(row - 1) < place_of(row)), "rows are not shuffled by their ids");
    let contents = train.column(1).as_binary::<i64>();
    assert!((0..10).all(|row| blake3::hash(contents.value(row)).as_bytes().as_slice() == ids.value(row)));
    let mean = statistics.channel_mean.expect("mean");
    assert!(mean.iter().all(|mean| (0.05..0.95).contains(mean)), "{mean:?}");
}

#[tokio::test]
async fn a_tar_file_gives_the_rows_of_its_folder_and_a_cut_one_says_where() {
    let members: Vec<(String, Vec<u8>)> =
        (0..6).map(|i| (format!("train/{}/{i}.jpg", ["a", "b"][i as usize % 2]), picture(i, 16, 16, ImageFormat::Jpeg))).collect();
    let (folder, archive, cut) = (Place::new(), Place::new(), Place::new());
    members.iter().for_each(|(name, bytes)| folder.put(name, bytes));
    let named: Vec<(&str, Vec<u8>)> = members.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let bytes = tar(&named);
    archive.put("all.tar", &bytes);
    let last = 5 * (512 + members[0].1.len().div_ceil(512) * 512);
    cut.put("all.tar", &bytes[..last + 512 + 100]);
    cut.put("junk.tar", [b'x'; 2048]);
    let mut manifests = Vec::new();
    for place in [&folder, &archive, &cut] {
        let pipeline = place.pipeline("images", &["split.validation=0.0", "picture.near.enabled=false"]);
        manifests.push(committed(ingest(&pipeline, Options::default(), Arc::new(Silent)).await));
    }
    assert_eq!(manifests[1].rows_digest, manifests[0].rows_digest);
    assert_eq!(manifests[1].statistics, manifests[0].statistics);
    let ledger = archive.read(&manifests[1], "records").await;
    assert_eq!(ledger.column(0).as_string::<i32>().value(0), "all.tar#train/a/0.jpg");
    let tally = &manifests[2].tally;
    assert!(tally.is_conserved());
    assert_eq!((tally.kept, &tally.quarantined), (5, &counts(&[("corrupt_archive", 2)])));
}
