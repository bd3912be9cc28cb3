//! Bytes of a dataset's files that change after they were written.

use std::fs;
use std::path::{Path, PathBuf};

use forebay_loader::{Kind, Loader, MicroBatch, StreamOptions, Transform};
use forebay_schemas::dataset::TableFormat;
use forebay_schemas::run::{Loading, Pixels};
use forebay_schemas::units::Millis;

use super::lake::Lake;
use super::ordering;

/// The data files of a dataset.
pub(crate) fn data(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        match path.is_dir() {
            true => files.extend(data(&path)),
            false => files.extend(path.extension().is_some_and(|kind| kind == "lance" || kind == "parquet").then_some(path)),
        }
    }
    files
}

/// An epoch, or why there is none.
fn epoch(lake: &Lake, transform: &Transform, verify: bool) -> Result<Vec<MicroBatch>, Kind> {
    let loading = Loading { verify, patience: Millis(0), hedge: 0.0, ..Loading::default() };
    let (sources, order) = ([lake.source()], ordering(1, 20));
    let opened = Loader::open(&sources, "train", &order, transform.clone(), &loading);
    let loader = lake.runtime.block_on(opened).map_err(|error| error.kind())?;
    let mut stream = loader.stream(lake.handle(), vec![0], 0, loader.rows() / 20, StreamOptions::default());
    std::iter::from_fn(|| stream.next()).map(|item| item.map_err(|error| error.kind())).collect()
}

/// Flips bytes, one at a time, over all of the only data file; returns for how many of them nothing was said though other
/// samples were fed.
fn flip(lake: &Lake, transform: &Transform, verify: bool) -> (usize, usize) {
    let files = data(lake.folder.path());
    let [file] = &files[..] else { panic!("one file, found {files:?}") };
    let (sound, reference) = (fs::read(file).expect("file"), epoch(lake, transform, verify).expect("a sound epoch"));
    let (mut found, mut missed) = (0, 0);
    for at in (0..sound.len()).step_by(sound.len() / 150 + 1) {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(file, bytes).expect("file");
        match epoch(lake, transform, verify) {
            Ok(fed) => missed += usize::from(fed != reference),
            Err(kind) => {
                assert!(matches!(kind, Kind::Corrupt | Kind::Internal | Kind::Unavailable | Kind::Invalid), "byte {at}: {kind:?}");
                found += 1;
            }
        }
    }
    fs::write(file, sound).expect("file");
    (found, missed)
}

#[test]
fn no_flipped_byte_changes_a_token_that_is_fed() {
    let narrow = [TableFormat::Lance, TableFormat::Parquet].map(|format| (format, Lake::tokens(format, 400)));
    // So wide that rows are read straight into their batches.
    for (format, lake) in narrow.into_iter().chain([(TableFormat::Lance, Lake::wide_tokens(TableFormat::Lance, 60))]) {
        let (found, missed) = flip(&lake, &Transform::Tokens { masking: None }, true);
        assert!(found > 50 && missed == 0, "{format:?}: {found} found, {missed} missed");
        // Neither format would have said so.
        assert!(flip(&lake, &Transform::Tokens { masking: None }, false).1 > 50, "{format:?}");
    }
}

#[test]
fn no_flipped_byte_changes_a_picture_or_its_label() {
    let lake = Lake::images(60);
    let transform = Transform::Images { size: 8, mean: [0.5; 3], std: [0.5; 3], format: Pixels::U8, augment: None };
    let (found, missed) = flip(&lake, &transform, true);
    assert!(found > 50 && missed == 0, "{found} found, {missed} missed");
}
