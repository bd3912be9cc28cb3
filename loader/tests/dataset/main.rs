//! Loaders over real datasets: written, committed and opened through `store`, in both table formats.

mod checks;
mod lake;
mod straight;
mod text;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use forebay_loader::{Batch, BenchOptions, Kind, Loader, Masking, MicroBatch, Ordering, Sourced, Stream, StreamOptions, Transform, bench};
use forebay_schemas::dataset::{DatasetManifest, TableFormat};
use forebay_schemas::run::{Augment, Cache, Loading, Pixels, Run, Shuffle, Spans};
use forebay_schemas::units::ByteSize;
use tokio::runtime::Runtime;

use lake::{LENGTH, Lake, expected_ids};

fn all(mut stream: Stream) -> Vec<MicroBatch> {
    std::iter::from_fn(|| stream.next()).map(|item| item.expect("micro-batch")).collect()
}

fn ordering(k: u32, b: u32) -> Ordering {
    Ordering { seed: 5, micro_batches: k, micro_batch_size: b, shuffle: Shuffle::default(), text: None }
}

fn open(lake: &Lake, k: u32, b: u32, transform: Transform) -> forebay_loader::Result<Loader> {
    lake.runtime.block_on(Loader::open(&[lake.source()], "train", &ordering(k, b), transform, &Loading::default()))
}

fn ids(batch: &Batch) -> &[u32] {
    let Batch::Tokens { ids, length, .. } = batch else { panic!("expected tokens") };
    assert_eq!(*length, LENGTH);
    ids
}

#[test]
fn every_world_is_fed_the_plan_with_no_row_doubled_or_missing() {
    for format in [TableFormat::Lance, TableFormat::Parquet] {
        let rows = 700;
        let lake = Lake::tokens(format, rows);
        let loader = open(&lake, 16, 5, Transform::Tokens { masking: None }).expect("loader");
        // 80 samples a step do not divide 700 rows: the ninth step runs over the end of the epoch.
        let mut reference = BTreeMap::new();
        for world in [1usize, 7, 11, 13, 16] {
            let mut fed = BTreeMap::new();
            for rank in 0..world {
                let mine: Vec<u32> = (0..16).filter(|m| *m as usize % world == rank).collect();
                for micro_batch in all(loader.stream(lake.handle(), mine, 0, 10, StreamOptions::default())) {
                    let plan = loader.plan().micro_batch(micro_batch.step, micro_batch.index);
                    let expected: Vec<u32> = plan.draws.iter().flat_map(|draw| expected_ids(draw.row)).collect();
                    assert_eq!(ids(&micro_batch.batch), expected, "world {world}, step {}", micro_batch.step);
                    assert_eq!(micro_batch.digest, plan.digest());
                    assert!(fed.insert((micro_batch.step, micro_batch.index), micro_batch.batch).is_none());
                }
            }
            assert_eq!(fed.len(), 160);
            let mut epoch: Vec<u32> =
                fed.values().flat_map(|batch| ids(batch).chunks_exact(LENGTH + 1)).map(|ids| ids[0]).take(rows as usize).collect();
            epoch.sort_unstable();
            assert_eq!(epoch, (0..rows).map(|row| expected_ids(row)[0]).collect::<Vec<_>>(), "{format:?}, world {world}");
            if world == 1 {
                reference = fed;
            } else {
                assert_eq!(fed, reference, "world {world}");
            }
        }
    }
}

#[test]
fn validation_rows_come_in_stored_order_with_a_smaller_last_batch() {
    let lake = Lake::tokens(TableFormat::Lance, 25);
    let loader = open(&lake, 1, 1, Transform::Tokens { masking: None }).expect("loader");
    let read = |max_samples| {
        let batches = loader.sequential(lake.handle(), 10, max_samples, StreamOptions::default());
        batches.map(|batch| ids(&batch.expect("batch")).to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(read(None).concat(), (0..25).flat_map(expected_ids).collect::<Vec<_>>());
    assert_eq!(read(None).iter().map(|ids| ids.len() / (LENGTH + 1)).collect::<Vec<_>>(), [10, 10, 5]);
    assert_eq!(read(Some(13)).concat(), (0..13).flat_map(expected_ids).collect::<Vec<_>>());
    assert_eq!(loader.sequential(lake.handle(), 10, Some(13), StreamOptions::default()).samples(), 13);
}

#[test]
fn images_are_decoded_with_their_labels_and_the_same_bits_for_every_world() {
    let lake = Lake::images(90);
    let transform = Transform::Images {
        size: 24,
        mean: [0.5; 3],
        std: [0.25; 3],
        format: Pixels::F32,
        augment: Some(Augment { max_rotation_degrees: 5.0, ..Augment::default() }),
    };
    let loader = open(&lake, 6, 4, transform).expect("loader");
    let alone = all(loader.stream(lake.handle(), (0..6).collect(), 0, 8, StreamOptions::default()));
    let options = StreamOptions { threads: 3, prefetch_bytes: 1 << 16, ..StreamOptions::default() };
    let mut shared: Vec<MicroBatch> =
        (0..4).flat_map(|rank| all(loader.stream(lake.handle(), (0..6).filter(|m| m % 4 == rank).collect(), 0, 8, options))).collect();
    shared.sort_by_key(|micro_batch| (micro_batch.step, micro_batch.index));
    assert_eq!(alone, shared);
    for micro_batch in &alone {
        let Batch::Images { pixels, labels, samples, size } = &micro_batch.batch else { panic!("expected images") };
        assert_eq!((*samples, *size, pixels.len()), (4, 24, 4 * 3 * 24 * 24));
        let draws = loader.plan().micro_batch(micro_batch.step, micro_batch.index).draws;
        for ((draw, label), sample) in draws.iter().zip(labels).zip(pixels.as_f32().expect("floats").chunks_exact(3 * 24 * 24)) {
            assert_eq!(*label, (draw.row % 10) as i64);
            // The pictures are of one colour, which no crop, flip or turn changes.
            for (plane, byte) in sample.chunks_exact(24 * 24).zip(lake::colour(draw.row)) {
                let expected = (f32::from(byte) / 255.0 - 0.5) / 0.25;
                assert!(plane.iter().all(|value| (value - expected).abs() < 0.1), "row {}: {} {expected}", draw.row, plane[0]);
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_invalid_and_named() {
    let lake = Lake::tokens(TableFormat::Lance, 5);
    let images = Transform::Images { size: 8, mean: [0.0; 3], std: [1.0; 3], format: Pixels::F32, augment: None };
    let error = open(&lake, 1, 1, images).expect_err("text is no image");
    assert!(error.kind() == Kind::Invalid && error.to_string().contains("found modality Text"), "{error}");
    let error = open(&lake, 1, 0, Transform::Tokens { masking: None }).expect_err("no samples");
    assert!(error.kind() == Kind::Invalid && error.to_string().contains("found 0 samples"), "{error}");
    let opened = lake.runtime.block_on(Loader::open(
        &[lake.source()],
        "test",
        &ordering(1, 1),
        Transform::Tokens { masking: None },
        &Loading::default(),
    ));
    let error = opened.expect_err("no such split");
    assert!(error.kind() == Kind::Invalid && error.to_string().contains("no table `test`, expected one of train"), "{error}");
    let images = Lake::images(3);
    for (size, std) in [(0, [1.0; 3]), (32, [1.0, 0.0, 1.0])] {
        let error =
            open(&images, 1, 1, Transform::Images { size, mean: [0.0; 3], std, format: Pixels::F32, augment: None }).expect_err("range");
        assert!(error.kind() == Kind::Invalid && error.to_string().contains("expected"), "{error}");
    }
}

#[test]
fn a_run_says_what_becomes_of_its_rows() {
    let run = |model: &str| -> Run {
        serde_json::from_str(&format!(
            r#"{{"name":"x","dataset":"d","checkpoints":"c","model":{model},"batch":{{"steps":1,"micro_batches":1,"micro_batch_size":1}}}}"#
        ))
        .expect("run")
    };
    let (gpt, resnet) = (run(r#"{"kind":"gpt","layers":1,"heads":1,"width":2}"#), run(r#"{"kind":"resnet","depth":20,"image_size":32}"#));
    let lake = Lake::tokens(TableFormat::Lance, 3);
    let (text, mut images) = (&lake.manifest, Lake::images(3).manifest);
    let training = |run: &Run, manifest: &DatasetManifest| lake.runtime.block_on(Transform::training(run, &lake.dataset, manifest));
    images.statistics.channel_mean = Some([0.1, 0.2, 0.3]);
    images.statistics.channel_std = Some([0.4, 0.5, 0.6]);
    assert_eq!(training(&gpt, text).expect("transform"), Transform::Tokens { masking: None });
    let expected =
        Transform::Images { size: 32, mean: [0.1, 0.2, 0.3], std: [0.4, 0.5, 0.6], format: Pixels::F32, augment: Some(Augment::default()) };
    assert_eq!(training(&resnet, &images).expect("transform"), expected);
    let mut masked = resnet.clone();
    masked.augment.spans = Some(Spans::default());
    let error = training(&masked, &images).expect_err("no text");
    assert!(error.to_string().starts_with("setting `augment.spans`: found it for a dataset of images"), "{error}");
    images.statistics.channel_std = None;
    for (run, manifest, expected) in
        [(&gpt, &images, "expected Text"), (&resnet, text, "expected Images"), (&resnet, &images, "no channel")]
    {
        let error = training(run, manifest).expect_err("unfit");
        assert!(error.kind() == Kind::Invalid && error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_measurement_counts_what_was_delivered() {
    let lake = Lake::tokens(TableFormat::Lance, 500);
    let loader = open(&lake, 3, 10, Transform::Tokens { masking: None }).expect("loader");
    let report = bench(
        &loader,
        lake.handle(),
        BenchOptions { micro_batches: 20, copy: true, bare: true, ..BenchOptions::default() },
        StreamOptions::default(),
    )
    .expect("report");
    assert_eq!(report.samples, 200);
    assert_eq!(report.megabytes, (200 * (LENGTH + 1) * 4) as f64 / 1e6);
    assert!(report.waits.copy > 0.0 && report.bare.is_some_and(|bare| bare.samples == 200), "{report:?}");
    assert!(report.waits.total() <= report.seconds && report.work.read_rows >= 200, "{report:?}");
    assert!(report.between.p50 > 0.0 && report.between.p50 <= report.between.longest, "{report:?}");
    assert!(report.memory.is_some_and(|memory| memory.peak >= memory.late), "{report:?}");
}

#[test]
fn every_moment_of_a_run_is_charged_to_what_it_was_spent_on() {
    // Rows of about a kilobyte: a read of them all takes some tens of milliseconds, and as long until it begins.
    let lake = Lake::far_tokens(400, Duration::from_millis(15), Duration::from_nanos(100));
    let loader = open(&lake, 1, 20, Transform::Tokens { masking: None }).expect("loader");
    let (began, mut mine) = (Instant::now(), Duration::ZERO);
    let mut stream = loader.stream(lake.handle(), vec![0], 0, 40, StreamOptions::default());
    loop {
        let Some(item) = stream.next() else { break };
        let started = Instant::now();
        assert_eq!(item.expect("micro-batch").batch.samples(), 20);
        std::thread::sleep(Duration::from_millis(1));
        mine += started.elapsed();
        let started = Instant::now();
        std::thread::sleep(Duration::from_millis(1));
        stream.copied(started.elapsed());
    }
    let (wall, waits) = (began.elapsed().as_secs_f64(), stream.waits());
    let accounted = waits.total() + mine.as_secs_f64();
    assert!((accounted / wall - 1.0).abs() < 0.01, "{accounted} of {wall}: {waits:?}");
    assert!(waits.request > 0.010 && waits.bandwidth > 0.005 && waits.copy > 0.039, "{waits:?}");
}

#[test]
fn a_filter_is_run_once_a_version_and_damage_to_what_is_kept_of_it_is_found() {
    let lake = Lake::tokens(TableFormat::Parquet, 900);
    let open = |filter| {
        let source = Sourced { filter: Some(filter), ..lake.source() };
        let (order, loading) = (ordering(1, 10), Loading::default());
        let sources = [source];
        let opened = Loader::open(&sources, "train", &order, Transform::Tokens { masking: None }, &loading);
        lake.runtime.block_on(opened).expect("loader").rows()
    };
    let kept = || {
        let folder = lake.folder.path().join("_forebay/selections").join(lake.manifest.identity().to_string());
        let files = std::fs::read_dir(folder).expect("folder");
        files.map(|file| file.expect("file").path()).collect::<Vec<_>>()
    };
    assert_eq!(open("tokens[1] < 3000"), 300);
    let [first] = &kept()[..] else { panic!("one file") };
    assert_eq!(open("tokens[1] < 5000"), 500);
    let second = kept().into_iter().find(|path| path != first).expect("a file for each filter");
    // Whoever opens it again takes what is kept: here, that of another filter.
    std::fs::copy(&second, first).expect("copy");
    assert_eq!(open("tokens[1] < 3000"), 500);
    let mut bytes = std::fs::read(first).expect("file");
    bytes[60] ^= 4;
    std::fs::write(first, bytes).expect("file");
    assert_eq!((open("tokens[1] < 3000"), open("tokens[1] < 3000")), (300, 300));
}

/// Two sets of tokens, the second filtered.
fn mixture<'a>(first: &'a Lake, second: &'a Lake) -> [Sourced<'a>; 2] {
    // The ids of row r begin with 10 r.
    let filter = Some("tokens[1] % 30 = 0 AND tokens[1] < 6000");
    [Sourced { weight: vec![(0, 1.0), (40, 0.2)], ..first.source() }, Sourced { filter, weight: vec![(0, 0.5)], ..second.source() }]
}

#[test]
fn a_filtered_mixture_is_fed_alike_to_every_world_with_a_cache_and_without() {
    let (first, second) = (Lake::tokens(TableFormat::Lance, 900), Lake::tokens(TableFormat::Parquet, 1_000));
    let sources = mixture(&first, &second);
    let folder = tempfile::tempdir().expect("folder");
    let cache = |size: u64| Loading {
        cache: Cache { folder: folder.path().to_str().map(str::to_owned), size: ByteSize(size) },
        ..Loading::default()
    };
    let mut ordering = ordering(11, 3);
    ordering.shuffle = Shuffle { block_rows: 8, window_rows: 128 };
    let masking = Masking { spans: Spans { density: 0.3, ..Spans::default() }, mask: 7 };
    let transform = Transform::Tokens { masking: Some(masking) };
    let mut reference = Vec::new();
    for (world, loading) in [(1usize, Loading::default()), (3, cache(1 << 20)), (7, cache(1 << 20)), (4, cache(20_000)), (13, cache(1))] {
        let loaders: Vec<Loader> = (0..world)
            .map(|_| first.runtime.block_on(Loader::open(&sources, "train", &ordering, transform.clone(), &loading)).expect("loader"))
            .collect();
        let mut fed = Vec::new();
        for (rank, loader) in loaders.iter().enumerate() {
            let mine: Vec<u32> = (0..11).filter(|m| *m as usize % world == rank).collect();
            fed.extend(all(loader.stream(first.handle(), mine, 0, 100, StreamOptions::default())));
        }
        fed.sort_by_key(|micro_batch| (micro_batch.step, micro_batch.index));
        let plan = loaders[0].plan();
        assert_eq!((plan.rows(0), plan.rows(1)), (900, 200));
        for micro_batch in &fed {
            let draws = plan.micro_batch(micro_batch.step, micro_batch.index).draws;
            let expected: Vec<u32> = draws.iter().flat_map(|draw| expected_ids(draw.row)).collect();
            assert_eq!(ids(&micro_batch.batch), expected);
            assert!(matches!(&micro_batch.batch, Batch::Tokens { masked: Some(masked), .. } if masked.inputs.contains(&7)));
            assert!(draws.iter().all(|draw| draw.source == 0 || (draw.row % 3 == 0 && draw.row < 600)));
        }
        let counts = loaders[0].cache();
        assert_eq!(counts.is_some(), world > 1);
        match world {
            1 => reference = fed,
            _ => assert_eq!(fed, reference, "world {world}, {counts:?}"),
        }
        if world == 7 {
            // What the run before left is all that is needed.
            assert!(counts.is_some_and(|counts| counts.misses == 0 && counts.hits > 0), "{counts:?}");
        }
    }
}

#[test]
fn a_flipped_byte_or_a_cut_file_in_the_cache_is_found_and_read_again() {
    let lake = Lake::tokens(TableFormat::Lance, 600);
    let folder = tempfile::tempdir().expect("folder");
    let cache = Cache { folder: folder.path().to_str().map(str::to_owned), ..Cache::default() };
    let loading = Loading { cache, ..Loading::default() };
    let open = || {
        lake.runtime
            .block_on(Loader::open(&[lake.source()], "train", &ordering(2, 5), Transform::Tokens { masking: None }, &loading))
            .expect("loader")
    };
    let stream = |loader: &Loader| all(loader.stream(lake.handle(), vec![0, 1], 0, 60, StreamOptions::default()));
    let expected = stream(&open());
    let files: Vec<_> =
        std::fs::read_dir(folder.path().join("blocks")).expect("blocks").map(|entry| entry.expect("entry").path()).collect();
    assert!(!files.is_empty());
    for (number, file) in files.iter().enumerate() {
        let mut bytes = std::fs::read(file).expect("file");
        match number % 3 {
            0 => bytes[200 + number] ^= 1,
            1 => bytes.truncate(300),
            _ => bytes.clear(),
        }
        std::fs::write(file, bytes).expect("damage");
    }
    let again = open();
    assert_eq!(stream(&again), expected);
    let counts = again.cache().expect("a cache");
    // Two groups may come upon the same file.
    assert!(counts.misses == files.len() as u64 && counts.damaged >= counts.misses, "{counts:?}");
}

#[test]
fn what_does_not_decode_is_replaced_and_written_to_the_quarantine() {
    let lake = Lake::broken_images(40, &[7, 33]);
    let folder = tempfile::tempdir().expect("folder");
    let quarantine = folder.path().to_str().map(str::to_owned);
    let loading = Loading { quarantine, ..Loading::default() };
    let transform = Transform::Images { size: 16, mean: [0.5; 3], std: [0.25; 3], format: Pixels::F32, augment: None };
    let opened = lake.runtime.block_on(Loader::open(&[lake.source()], "train", &ordering(1, 8), transform, &loading));
    let loader = opened.expect("loader");
    let options = StreamOptions { corrupt_samples: 2, ..StreamOptions::default() };
    let fed = all(loader.stream(lake.handle(), vec![0], 0, 5, options));
    let mut rows: Vec<u64> = fed.iter().flat_map(|micro_batch| &micro_batch.replaced).map(|replaced| replaced.row).collect();
    rows.sort_unstable();
    assert_eq!(rows, [7, 33]);
    for row in rows {
        let path = folder.path().join(lake.manifest.identity().short()).join(format!("train-{row:012}.json"));
        let began = std::time::Instant::now();
        while !path.exists() && began.elapsed().as_secs() < 10 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let entry: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).expect("an entry")).expect("json");
        assert_eq!((&entry["row"], &entry["split"]), (&row.into(), &"train".into()));
        assert!(entry["reason"].as_str().is_some_and(|reason| reason.starts_with("image")), "{entry}");
    }
    let strict = StreamOptions { corrupt_samples: 1, ..options };
    let mut stream = loader.stream(lake.handle(), vec![0], 0, 5, strict);
    let last = std::iter::from_fn(|| stream.next()).last().expect("an item").expect_err("one too many");
    assert!(last.kind() == Kind::Corrupt && last.to_string().starts_with("split `train`, row"), "{last}");
}

#[test]
fn what_does_not_fit_the_first_dataset_is_refused() {
    let (text, images) = (Lake::tokens(TableFormat::Lance, 5), Lake::images(3));
    let open = |sources: &[Sourced<'_>]| {
        text.runtime.block_on(Loader::open(sources, "train", &ordering(1, 1), Transform::Tokens { masking: None }, &Loading::default()))
    };
    let error = open(&[text.source(), images.source()]).expect_err("modality");
    assert!(error.kind() == Kind::Invalid && error.to_string().contains("dataset 1 of the mixture: found modality Images"), "{error}");
    for (filter, expected) in [("tokens[1] > 5000", "leaves none of its 5 rows"), ("tokens", "expected true or false")] {
        let error = open(&[Sourced { filter: Some(filter), ..text.source() }]).expect_err("filter");
        let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source()).map(ToString::to_string);
        let chain = chain.collect::<Vec<_>>().join(": ");
        assert!(error.kind() == Kind::Invalid && chain.contains(expected), "{chain}");
    }
    let folder = Loading { cache: Cache { folder: Some("/dev/null/x".to_owned()), ..Cache::default() }, ..Loading::default() };
    let opened =
        text.runtime.block_on(Loader::open(&[text.source()], "train", &ordering(1, 1), Transform::Tokens { masking: None }, &folder));
    assert!(opened.expect_err("folder").to_string().starts_with("setting `loader.cache.folder`: found `/dev/null/x`"));
}

/// Run by hand: `cargo test -p forebay-loader --test dataset -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn rows_and_images_a_second() {
    let show = |name: &str, loader: &Loader, runtime: &Runtime, micro_batches: u64, options: StreamOptions| {
        let report =
            bench(loader, runtime.handle().clone(), BenchOptions { micro_batches, ..BenchOptions::default() }, options).expect("report");
        println!("{name}: {:.0} samples/s, {report:?}", report.samples_per_second);
    };
    for format in [TableFormat::Lance, TableFormat::Parquet] {
        let lake = Lake::wide_tokens(format, 60_000);
        let loader = open(&lake, 4, 16, Transform::Tokens { masking: None }).expect("loader");
        show(&format!("257 tokens, {format:?}, all"), &loader, &lake.runtime, 3_000, StreamOptions::default());
        let mut stream = loader.stream(lake.handle(), vec![1], 0, 900, StreamOptions::default());
        let began = std::time::Instant::now();
        let count = std::iter::from_fn(|| stream.next()).count();
        println!(
            "257 tokens, {format:?}, one of four: {:.0} samples/s {:?}",
            count as f64 * 16.0 / began.elapsed().as_secs_f64(),
            stream.work()
        );
        let began = std::time::Instant::now();
        let first = loader.stream(lake.handle(), vec![1], 500, 900, StreamOptions::default()).next();
        println!("first micro-batch of a new stream after {:?} ({})", began.elapsed(), first.is_some());
    }
    let Some(lake) = Lake::cifar(5_000) else { return };
    for augment in [None, Some(Augment::default())] {
        let transform = Transform::Images { size: 32, mean: [0.5; 3], std: [0.25; 3], format: Pixels::F32, augment: augment.clone() };
        let loader = open(&lake, 4, 32, transform).expect("loader");
        show(&format!("CIFAR-10, augment {}", augment.is_some()), &loader, &lake.runtime, 200, StreamOptions::default());
    }
}
