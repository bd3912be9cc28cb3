//! Rows of token sequences that go from a local file straight into their batches, and those that do not.

use std::fs;

use forebay_loader::{Batch, Kind, Loader, MicroBatch, Sourced, StreamOptions, Transform};
use forebay_schemas::dataset::TableFormat;
use forebay_schemas::run::{Cache, Loading};
use forebay_schemas::units::Millis;

use super::checks::data;
use super::lake::Lake;
use super::ordering;

const ROWS: u64 = 3_000;
const BATCH: u64 = 20;

fn loader(lake: &Lake, loading: &Loading) -> Loader {
    let (sources, order) = ([lake.source()], ordering(1, BATCH as u32));
    lake.runtime.block_on(Loader::open(&sources, "train", &order, Transform::Tokens { masking: None }, loading)).expect("loader")
}

/// What is fed in two epochs, each id checked; and of how many rows that were wanted how many came straight.
fn fed(lake: &Lake, loading: &Loading, prefetch_bytes: u64) -> (Vec<MicroBatch>, u64, u64) {
    let loader = loader(lake, loading);
    let options = StreamOptions { prefetch_bytes, ..StreamOptions::default() };
    let mut stream = loader.stream(lake.handle(), vec![0], 0, 2 * ROWS / BATCH, options);
    let mut fed = Vec::new();
    while let Some(item) = stream.next() {
        let micro_batch = item.expect("micro-batch");
        let Batch::Tokens { ids, documents, .. } = &micro_batch.batch else { panic!("expected tokens") };
        let draws = loader.plan().micro_batch(micro_batch.step, micro_batch.index).draws;
        assert_eq!((ids.len(), documents.rows()), (257 * draws.len(), draws.len()));
        for (draw, ids) in draws.iter().zip(ids.chunks_exact(257)) {
            assert!((0..).zip(ids).all(|(at, id)| u64::from(*id) == draw.row * 10 + at), "row {}: {ids:?}", draw.row);
        }
        fed.push(micro_batch);
    }
    let work = stream.work();
    assert_eq!(fed.len() as u64, 2 * ROWS / BATCH);
    (fed, work.straight_rows, work.read_rows)
}

#[test]
fn rows_of_a_local_lance_file_go_straight_into_their_batches_and_all_others_do_not() {
    let local = Lake::wide_tokens(TableFormat::Lance, ROWS);
    let (expected, straight, read) = fed(&local, &Loading::default(), 64 << 20);
    assert_eq!((straight, read), (2 * ROWS, 2 * ROWS));
    // Whatever the groups are, and whether or not rows are compared.
    let (found, straight, _) = fed(&local, &Loading { verify: false, ..Loading::default() }, 100 << 10);
    assert!(found == expected && straight == 2 * ROWS);
    let folder = tempfile::tempdir().expect("folder");
    let folder = Some(folder.path().to_string_lossy().into_owned());
    let cached = Loading { cache: Cache { folder, ..Cache::default() }, ..Loading::default() };
    let (found, straight, _) = fed(&local, &cached, 64 << 20);
    assert!(found == expected && straight == 0);
    let parquet = Lake::wide_tokens(TableFormat::Parquet, ROWS);
    assert_eq!(fed(&parquet, &Loading::default(), 64 << 20).1, 0);
    let wide = Lake::wide_ids(TableFormat::Lance, ROWS);
    assert_eq!(fed(&wide, &Loading::default(), 64 << 20).1, 2 * ROWS);
    assert_eq!(fed(&wide, &cached, 64 << 20).1, 0);
}

#[test]
fn in_a_mixture_rows_of_local_lance_files_go_straight_whatever_the_others_are() {
    let local = Lake::wide_tokens(TableFormat::Lance, ROWS);
    let loading = Loading::default();
    for format in [TableFormat::Parquet, TableFormat::Lance] {
        let other = Lake::wide_ids(format, 700);
        let sources = [local.source(), Sourced { weight: vec![(0, 0.5)], ..other.source() }];
        let (order, tokens) = (ordering(2, BATCH as u32), Transform::Tokens { masking: None });
        let loader = local.runtime.block_on(Loader::open(&sources, "train", &order, tokens, &loading)).expect("loader");
        // In groups of a few batches, as of two replicas.
        let options = StreamOptions { prefetch_bytes: 200 << 10, ..StreamOptions::default() };
        let mut found = 0;
        for rank in 0..2 {
            let mut stream = loader.stream(local.handle(), vec![rank], 0, 120, options);
            let mut draws_of = [0, 0];
            while let Some(item) = stream.next() {
                let micro_batch = item.expect("micro-batch");
                let Batch::Tokens { ids, documents, .. } = &micro_batch.batch else { panic!("expected tokens") };
                let draws = loader.plan().micro_batch(micro_batch.step, micro_batch.index).draws;
                for (place, (draw, ids)) in draws.iter().zip(ids.chunks_exact(257)).enumerate() {
                    assert!((0..).zip(ids).all(|(at, id)| u64::from(*id) == draw.row * 10 + at), "row {}: {ids:?}", draw.row);
                    assert_eq!((documents.starts(place), documents.tokens(place)), (&[0][..], 257));
                    draws_of[draw.source as usize] += 1;
                }
                assert_eq!(micro_batch.digest, loader.plan().samples_digest(micro_batch.step, micro_batch.index));
                found += 1;
            }
            let work = stream.work();
            match (format, rank) {
                (TableFormat::Lance, _) => assert_eq!(work.straight_rows, draws_of[0] + draws_of[1]),
                // It takes a group to find out about the other source, which the second stream knows.
                (TableFormat::Parquet, 0) => assert!(draws_of[0] * 9 / 10 < work.straight_rows && work.straight_rows < draws_of[0]),
                (TableFormat::Parquet, _) => assert_eq!(work.straight_rows, draws_of[0]),
            }
        }
        assert_eq!(found, 240);
    }
}

#[test]
fn a_row_that_changed_is_replaced_and_moves_no_other() {
    let lake = Lake::wide_tokens(TableFormat::Lance, ROWS);
    let (sound, _, _) = fed(&lake, &Loading::default(), 64 << 20);
    let [file] = &data(lake.folder.path())[..] else { panic!("one file") };
    let mut bytes = fs::read(file).expect("file");
    let row: Vec<u8> = (12_340..12_340 + 257u16).flat_map(u16::to_le_bytes).collect();
    let at = bytes.windows(row.len()).position(|found| found == row).expect("the row, as it is in memory");
    bytes[at + 300] ^= 4;
    fs::write(file, bytes).expect("file");
    let loader = loader(&lake, &Loading { patience: Millis(0), ..Loading::default() });
    let options = StreamOptions { corrupt_samples: 1, ..StreamOptions::default() };
    let mut stream = loader.stream(lake.handle(), vec![0], 0, ROWS / BATCH, options);
    let found: Vec<MicroBatch> = std::iter::from_fn(|| stream.next()).map(|item| item.expect("micro-batch")).collect();
    // Only the group of that row was read again, by the format's reader.
    let straight = stream.work().straight_rows;
    assert!(straight > 0 && straight < ROWS, "{straight} rows");
    let mut replaced = 0;
    for (found, sound) in found.iter().zip(&sound) {
        let (Batch::Tokens { ids, .. }, Batch::Tokens { ids: others, .. }) = (&found.batch, &sound.batch) else {
            panic!("expected tokens")
        };
        for (place, (ids, others)) in ids.chunks_exact(257).zip(others.chunks_exact(257)).enumerate() {
            match found.replaced.iter().find(|replaced| replaced.place as usize == place) {
                None => assert_eq!(ids, others),
                Some(one) => {
                    let by = one.by as usize;
                    assert_eq!((one.row, ids), (1_234, &sound_row(sound, by)[..]));
                    replaced += 1;
                }
            }
        }
    }
    assert_eq!(replaced, 1);
}

fn sound_row(micro_batch: &MicroBatch, place: usize) -> Vec<u32> {
    let Batch::Tokens { ids, .. } = &micro_batch.batch else { panic!("expected tokens") };
    ids[257 * place..257 * (place + 1)].to_vec()
}

#[test]
fn a_file_that_is_cut_short_under_a_stream_is_an_error() {
    let lake = Lake::wide_tokens(TableFormat::Lance, ROWS);
    let loader = loader(&lake, &Loading { patience: Millis(0), ..Loading::default() });
    let mut stream = loader.stream(lake.handle(), vec![0], 0, 1000 * ROWS, StreamOptions::default());
    assert!(stream.next().expect("an item").is_ok());
    let [file] = &data(lake.folder.path())[..] else { panic!("one file") };
    fs::File::options().write(true).open(file).expect("file").set_len(514 * 700).expect("cut");
    let error = std::iter::from_fn(|| stream.next()).find_map(Result::err).expect("an error");
    assert_ne!(error.kind(), Kind::Invalid, "{error}");
}
