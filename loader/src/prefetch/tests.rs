//! Streams over a table in memory whose reads can be held back or made to fail.

use std::io::Cursor;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use arrow::array::{FixedSizeListArray, LargeBinaryArray, ListArray, RecordBatch, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use forebay_schemas::Digest;
use forebay_schemas::dataset::Modality;
use forebay_schemas::run::{Augment, Loading, Pixels};
use forebay_schemas::units::Millis;
use forebay_store::{Direct, RowRanges, Table};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use image::{ImageFormat, RgbImage};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use super::*;
use crate::batch::Transform;
use crate::error::Kind;
use crate::fetch::Host;
use crate::machine::{Machine, Real};
use crate::plan::{Draw, Plan, Shuffle, Source};

const WIDTH: usize = 5;

/// A table of rows in memory; every read takes a permit from the gate, and one of them may fail.
struct Memory {
    rows: RecordBatch,
    gate: Semaphore,
    reads: AtomicU64,
    fail_at: Option<u64>,
    begun: mpsc::Sender<()>,
    /// Whether nobody answers who asks where rows are, and how many did.
    is_silent: AtomicBool,
    asked: AtomicU64,
}

#[async_trait]
impl Table for Memory {
    fn rows(&self) -> u64 {
        self.rows.num_rows() as u64
    }

    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    async fn read(&self, ranges: &[Range<u64>], _columns: &[&str]) -> forebay_store::Result<RecordBatch> {
        let _ = self.begun.send(());
        let _permit = self.gate.acquire().await.expect("an open gate");
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        if self.fail_at == Some(reads) {
            return Err(forebay_store::Error::new(forebay_store::Kind::Unavailable, "out of reach"));
        }
        let indices: UInt32Array = ranges.iter().cloned().flatten().map(|row| row as u32).collect();
        Ok(arrow::compute::take_record_batch(&self.rows, &indices).expect("rows in range"))
    }

    async fn direct(&self, _rows: &[u64], _column: &str) -> forebay_store::Result<Option<Direct>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.is_silent.load(Ordering::Relaxed) {
            true => futures::future::pending().await,
            false => Ok(None),
        }
    }

    async fn select(&self, _predicate: &str) -> forebay_store::Result<BoxStream<'static, forebay_store::Result<RowRanges>>> {
        unreachable!("a stream has no filter")
    }

    async fn scan(&self, _columns: &[&str]) -> forebay_store::Result<BoxStream<'static, forebay_store::Result<RecordBatch>>> {
        unreachable!("a stream reads ranges")
    }
}

/// Row r holds the ids r · WIDTH … r · WIDTH + WIDTH - 1, so that every id says where it came from, and a document that
/// begins at r modulo WIDTH.
fn sequences(rows: u32) -> RecordBatch {
    let values = UInt32Array::from_iter_values(0..rows * WIDTH as u32);
    let item = Arc::new(Field::new("item", DataType::UInt32, false));
    let tokens = FixedSizeListArray::new(Arc::clone(&item), WIDTH as i32, Arc::new(values), None);
    let second = UInt32Array::from_iter_values((0..rows).map(|row| row % WIDTH as u32));
    let starts = ListArray::new(item, OffsetBuffer::from_lengths(vec![1; rows as usize]), Arc::new(second), None);
    RecordBatch::try_new(record_schema(), vec![Arc::new(tokens), Arc::new(starts)]).expect("rows")
}

/// The columns of a table of sequences that are read.
fn record_schema() -> SchemaRef {
    let whole = forebay_schemas::record::sequences(WIDTH - 1, 4);
    Arc::new(Schema::new(["tokens", "starts"].map(|name| whole.field_with_name(name).expect("column").clone()).to_vec()))
}

/// PNG images of many sizes, labelled by row; the rows in `broken` hold something else.
fn images(rows: u32, broken: &[u32]) -> RecordBatch {
    let encoded: Vec<Vec<u8>> = (0..rows)
        .map(|row| {
            let mut bytes = Vec::new();
            let pixel = |x: u32, y: u32| image::Rgb([(x * 9 + row) as u8, (y * 7) as u8, (x * y + row * 31) as u8]);
            let picture = RgbImage::from_fn(12 + row % 30, 20 + row % 7, pixel);
            picture.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).expect("png");
            if broken.contains(&row) { b"broken".to_vec() } else { bytes }
        })
        .collect();
    let schema = Schema::new(vec![Field::new("bytes", DataType::LargeBinary, false), Field::new("label", DataType::UInt32, false)]);
    let bytes = LargeBinaryArray::from_iter_values(&encoded);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(bytes), Arc::new(UInt32Array::from_iter_values(0..rows))]).expect("rows")
}

/// A table with its plan, ready to be streamed.
struct Bed {
    runtime: Option<Runtime>,
    table: Arc<Memory>,
    plan: Plan,
    recipe: Recipe,
    begun: mpsc::Receiver<()>,
}

impl Bed {
    fn new(rows: RecordBatch, k: u32, b: u32, transform: &Transform, fail_at: Option<u64>) -> Self {
        let (sender, begun) = mpsc::channel();
        let shuffle = Shuffle { block_rows: 128, window_blocks: 128 };
        let plan = Plan::new(&[Source::whole(Digest::of(b"bed"), rows.num_rows() as u64, shuffle)], 11, k, b).expect("plan");
        let modality = if matches!(transform, Transform::Tokens { .. }) { Modality::Text } else { Modality::Images };
        let recipe = Recipe::new("train", 11, (modality, None), &rows.schema(), transform).expect("recipe");
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("runtime");
        let (reads, asked, is_silent) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let table = Arc::new(Memory { rows, gate: Semaphore::new(1), reads, fail_at, begun: sender, is_silent, asked });
        Self { runtime: Some(runtime), table, plan, recipe, begun }
    }

    fn tokens(rows: u32, k: u32, b: u32) -> Self {
        Self::new(sequences(rows), k, b, &Transform::Tokens { masking: None }, None)
    }

    /// Reads wait from now on until the gate is opened.
    fn close(&self) {
        self.table.gate.try_acquire().expect("an idle gate").forget();
    }

    fn stream(&self, micro_batches: Vec<u32>, steps: Range<u64>, options: StreamOptions) -> Stream {
        let order = Order::planned(self.plan.clone(), micro_batches, steps.start, steps.end).expect("order");
        self.start(order, options)
    }

    fn start(&self, order: Order, options: StreamOptions) -> Stream {
        self.start_on(Arc::new(Real::new()), order, options)
    }

    fn start_on(&self, machine: Arc<dyn Machine>, order: Order, options: StreamOptions) -> Stream {
        // Reads are counted and fail in these tests, so each is made once.
        let loading = Loading { hedge: 0.0, patience: Millis(0), ..Loading::default() };
        let tables = vec![Arc::clone(&self.table) as Arc<dyn Table>];
        let host = Host { machine, meter: Arc::default() };
        let fetch = Fetch::new(tables, self.plan.clone(), "train", self.recipe.columns(), None, host, &loading);
        let runtime = self.runtime.as_ref().expect("a running runtime");
        Stream::start(runtime.handle(), fetch, self.recipe.clone(), order, None, options)
    }
}

/// A machine on which every wait is over at once.
struct Hasty;

impl Machine for Hasty {
    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _time: Duration) -> BoxFuture<'static, ()> {
        futures::future::ready(()).boxed()
    }

    fn block(&self, _work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        unreachable!("a stream without a cache")
    }
}

#[test]
fn a_read_that_is_never_answered_ends_the_stream_with_an_error() {
    let bed = Bed::tokens(40, 2, 5);
    bed.close();
    let order = Order::planned(bed.plan.clone(), vec![0, 1], 0, 3).expect("order");
    let error = bed.start_on(Arc::new(Hasty), order, StreamOptions::default()).next().expect("an answer").expect_err("an error");
    assert!(error.to_string().contains("cannot read"), "{error}");
    let source = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(source.contains("no answer within 10 s"), "{source}");
}

#[test]
fn rows_are_read_the_other_way_where_nobody_says_where_they_are() {
    let bed = Bed::tokens(400, 2, 5);
    let order = || Order::planned(bed.plan.clone(), vec![0, 1], 0, 80).expect("order");
    let expected = all(bed.start(order(), StreamOptions::default()));
    bed.table.is_silent.store(true, Ordering::Relaxed);
    bed.table.asked.store(0, Ordering::Relaxed);
    let mut stream = bed.start_on(Arc::new(Hasty), order(), StreamOptions::default());
    let found: Vec<MicroBatch> = std::iter::from_fn(|| stream.next()).map(|item| item.expect("micro-batch")).collect();
    assert_eq!((found.len(), stream.work().straight_rows), (160, 0));
    assert!(found == expected);
    // Those that wait at the time do so in vain, and nobody asks again.
    let asked = bed.table.asked.load(Ordering::Relaxed);
    assert!((1..=4).contains(&asked), "{asked} groups waited");
}

fn all(mut stream: Stream) -> Vec<MicroBatch> {
    std::iter::from_fn(|| stream.next()).map(|item| item.expect("micro-batch")).collect()
}

/// The rows that a batch of tokens holds, checked id by id.
fn rows_of(batch: &Batch) -> Vec<u64> {
    let Batch::Tokens { ids, documents, samples, length, .. } = batch else { panic!("expected tokens, found {batch:?}") };
    assert_eq!((ids.len(), documents.rows(), *length), (samples * WIDTH, *samples, WIDTH - 1));
    let row = |(place, ids): (usize, &[u32])| {
        assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{ids:?}");
        let row = u64::from(ids[0]) / WIDTH as u64;
        let begins = (row % WIDTH as u64) as u32;
        assert_eq!(documents.starts(place), if begins == 0 { vec![0] } else { vec![0, begins] });
        row
    };
    ids.chunks_exact(WIDTH).enumerate().map(row).collect()
}

fn options(threads: usize, prefetch_bytes: u64) -> StreamOptions {
    StreamOptions { threads, prefetch_bytes, corrupt_samples: 0 }
}

#[test]
fn replicas_of_any_number_are_fed_the_plan_and_together_an_epoch_once() {
    let (rows, k, b) = (1000, 16, 7);
    let bed = Bed::tokens(rows, k, b);
    let steps = 2 * u64::from(rows).div_ceil(u64::from(k * b));
    for world in [1usize, 2, 3, 4, 7, 8, 11, 13, 16] {
        let mut fed: Vec<(u64, u32, Vec<Draw>)> = Vec::new();
        for rank in 0..world {
            let mine: Vec<u32> = (0..k).filter(|m| *m as usize % world == rank).collect();
            for micro_batch in all(bed.stream(mine.clone(), 0..steps, options(2, 1 << (8 + rank)))) {
                let plan = bed.plan.micro_batch(micro_batch.step, micro_batch.index);
                assert!(mine.contains(&micro_batch.index));
                assert_eq!(micro_batch.digest, plan.digest());
                let planned: Vec<u64> = plan.draws.iter().map(|draw| draw.row).collect();
                assert_eq!(rows_of(&micro_batch.batch), planned, "world {world}, step {}", micro_batch.step);
                fed.push((micro_batch.step, micro_batch.index, plan.draws));
            }
        }
        fed.sort_unstable_by_key(|(step, index, _)| (*step, *index));
        let mut first_epoch: Vec<u64> =
            fed.iter().flat_map(|(_, _, draws)| draws).filter(|draw| draw.epoch == 0).map(|draw| draw.row).collect();
        first_epoch.sort_unstable();
        assert_eq!(first_epoch, (0..u64::from(rows)).collect::<Vec<_>>(), "world {world}");
        assert_eq!(fed.len() as u64, steps * u64::from(k));
    }
}

#[test]
fn a_stream_can_start_at_any_step() {
    let bed = Bed::tokens(300, 4, 3);
    let whole = all(bed.stream(vec![1, 3], 0..40, options(1, 1 << 20)));
    let later = all(bed.stream(vec![3, 1], 33..40, options(2, 1 << 12)));
    assert_eq!(later, whole[66..]);
    assert!(all(bed.stream(vec![], 0..40, options(1, 1 << 20))).is_empty());
    assert!(all(bed.stream(vec![0], 40..40, options(1, 1 << 20))).is_empty());
    let far = all(bed.stream(vec![0], 1_000_000_000_000..1_000_000_000_001, options(1, 1 << 20)));
    assert_eq!(far[0].digest, bed.plan.samples_digest(1_000_000_000_000, 0));
}

#[test]
fn a_micro_batch_larger_than_the_bound_is_delivered() {
    let bed = Bed::tokens(500, 3, 100);
    let expected = all(bed.stream(vec![0, 1, 2], 0..4, options(1, 1 << 30)));
    for threads in [1, 4] {
        assert_eq!(all(bed.stream(vec![0, 1, 2], 0..4, options(threads, 0))), expected);
    }
}

#[test]
fn two_batches_fit_into_what_is_enough() {
    for (bytes, batch) in [(0, 0), (0, 7), (1 << 20, 100), (1 << 20, 400 << 10), (1000, 375), (1 << 40, 37 << 20)] {
        for (encoders, is_straight) in [(0, false), (0, true), (1, false), (5, false)] {
            let shares = Shares::of(bytes, batch, (encoders, is_straight));
            let words = encoders * shares.words as u64;
            assert!(if is_straight { shares.rows + shares.batches <= bytes } else { shares.rows + shares.batches + words == bytes });
            assert_eq!(bytes >= shares.enough, shares.batches >= 2 * batch, "{bytes} bytes, {batch} a batch: {shares:?}");
            assert!(shares.rows >= (bytes - words) / 4 && words <= bytes / 4 && shares.words <= WORDS_BYTES);
        }
    }
}

#[test]
fn a_batch_with_the_consumer_takes_its_share_until_it_is_dropped() {
    let bed = Bed::tokens(500, 1, 64);
    let batch = 4 * WIDTH as u64 * 64;
    // Room for three batches: while two are with the consumer, one more is made, and no second.
    let mut stream = bed.stream(vec![0], 0..9, options(1, 24 * batch));
    let mut held: Vec<MicroBatch> = (0..2).map(|_| stream.next().expect("one").expect("micro-batch")).collect();
    let ready = |stream: &Stream| stream.queue.ready();
    let wait_for = |stream: &Stream, many: usize| {
        let until = Instant::now() + Duration::from_secs(10);
        while ready(stream) < many && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Time in which one that should not be made would be.
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(ready(stream), many);
    };
    wait_for(&stream, 1);
    held.pop();
    wait_for(&stream, 2);
    held.pop();
    wait_for(&stream, 3);
}

#[test]
fn what_is_ahead_of_the_consumer_is_bounded() {
    let (b, bound) = (10u64, 64u64 << 10);
    let bed = Bed::tokens(20_000, 1, b as u32);
    let mut stream = bed.stream(vec![0], 0..3000, options(2, bound));
    let row_bytes = 4 * WIDTH as u64;
    let mut delivered = 0;
    while let Some(item) = stream.next() {
        delivered += item.expect("micro-batch").batch.samples() as u64;
        let ahead = stream.work().used_rows.saturating_sub(delivered);
        assert!(ahead * row_bytes <= bound, "{ahead} rows ahead after {delivered}");
    }
    assert_eq!(delivered, 30_000);
}

#[test]
fn a_whole_window_is_read_in_few_reads() {
    let bed = Bed::tokens(16_000, 1, 100);
    assert_eq!(all(bed.stream(vec![0], 0..160, options(1, 64 << 20))).len(), 160);
    let reads = bed.begun.try_iter().count();
    // Groups of 1, 2, 4, … micro-batches: 160 of them take eight.
    assert!(reads <= 8, "{reads} reads");
}

#[test]
fn dropping_a_stream_that_waits_for_storage_does_not_wait_with_it() {
    let bed = Bed::tokens(100, 1, 10);
    bed.close();
    let stream = bed.stream(vec![0], 0..10, options(3, 1 << 20));
    bed.begun.recv().expect("a read");
    drop(stream);
}

#[test]
fn stopping_wakes_a_consumer_that_is_blocked() {
    let bed = Bed::tokens(100, 1, 10);
    bed.close();
    let mut stream = bed.stream(vec![0], 0..10, options(1, 1 << 20));
    let stopper = stream.stopper();
    let consumer = std::thread::spawn(move || stream.next().is_none());
    bed.begun.recv().expect("a read");
    stopper.stop();
    assert!(consumer.join().expect("consumer"));
}

#[test]
fn a_runtime_that_shuts_down_is_an_error_and_not_a_hang() {
    let mut bed = Bed::tokens(100, 1, 10);
    bed.close();
    let mut stream = bed.stream(vec![0], 0..10, options(1, 1 << 20));
    bed.begun.recv().expect("a read");
    bed.runtime.take().expect("runtime").shutdown_background();
    let error = stream.next().expect("an item").expect_err("an error");
    assert_eq!(error.kind(), Kind::Internal);
    assert!(stream.next().is_none());
}

#[test]
fn a_failed_read_comes_in_its_place_and_ends_the_stream() {
    let bed = Bed::new(sequences(400), 1, 10, &Transform::Tokens { masking: None }, Some(9));
    // So small a bound that every micro-batch is read alone.
    let mut stream = bed.stream(vec![0], 0..40, options(2, 64));
    for step in 0..9 {
        assert_eq!(stream.next().expect("an item").expect("micro-batch").step, step);
    }
    let error = stream.next().expect("an item").expect_err("a failure");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().starts_with("split `train`: cannot read"), "{error}");
    assert!(stream.next().is_none());
}

#[test]
fn an_impossible_assignment_is_the_only_item() {
    let bed = Bed::tokens(10, 2, 2);
    let error = Order::planned(bed.plan.clone(), vec![2], 0, 5).expect_err("assignment");
    let mut stream = Stream::refused(bed.recipe.clone(), error);
    assert_eq!(stream.next().expect("an item").expect_err("refused").kind(), Kind::Invalid);
    assert!(stream.next().is_none());
}

fn transform(augment: Option<Augment>) -> Transform {
    Transform::Images { size: 16, mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3], format: Pixels::F32, augment }
}

#[test]
fn augmented_samples_have_the_same_bits_for_any_threads_and_any_world() {
    let bed = Bed::new(images(60, &[]), 4, 5, &transform(Some(Augment::default())), None);
    let expected = all(bed.stream(vec![0, 1, 2, 3], 0..6, options(1, 1 << 30)));
    assert_eq!(expected, all(bed.stream(vec![0, 1, 2, 3], 0..6, options(3, 1 << 14))));
    let alone = all(bed.stream(vec![2], 3..6, options(2, 0)));
    assert_eq!(alone, expected.iter().filter(|m| m.index == 2 && m.step >= 3).cloned().collect::<Vec<_>>());
    let Batch::Images { pixels, labels, samples, size } = &expected[0].batch else { panic!("expected images") };
    assert_eq!((pixels.len(), *samples, *size), (5 * 3 * 16 * 16, 5, 16));
    let planned: Vec<i64> = bed.plan.micro_batch(0, 0).draws.iter().map(|draw| draw.row as i64).collect();
    assert_eq!(labels, &planned);
}

#[test]
fn the_same_picture_is_augmented_anew_in_every_epoch() {
    let bed = Bed::new(images(1, &[]), 1, 1, &transform(Some(Augment::default())), None);
    let fed = all(bed.stream(vec![0], 0..4, options(1, 1 << 20)));
    for (i, one) in fed.iter().enumerate() {
        assert!(fed[i + 1..].iter().all(|other| other.batch != one.batch));
    }
    let plain = Bed::new(images(1, &[]), 1, 1, &transform(None), None);
    let fed = all(plain.stream(vec![0], 0..4, options(1, 1 << 20)));
    assert!(fed.iter().all(|other| other.batch == fed[0].batch));
}

#[test]
fn a_broken_image_is_corrupt_and_named() {
    let bed = Bed::new(images(12, &[7]), 1, 4, &transform(None), None);
    let mut stream = bed.start(Order::Stored { rows: 12, batch_size: 4 }, options(2, 1 << 20));
    assert_eq!(stream.next().expect("an item").expect("batch").batch.samples(), 4);
    let error = stream.next().expect("an item").expect_err("broken");
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().starts_with("split `train`, row 7: image"), "{error}");
    assert!(stream.next().is_none());
}

#[test]
fn a_broken_image_is_replaced_within_the_budget_and_moves_no_other() {
    let augmented = transform(Some(Augment::default()));
    let sound = Bed::new(images(12, &[]), 1, 4, &augmented, None);
    let broken = Bed::new(images(12, &[7, 2]), 1, 4, &augmented, None);
    let with = |bed: &Bed, corrupt_samples: u64, threads: usize| {
        let mut stream = bed.stream(vec![0], 0..3, StreamOptions { corrupt_samples, ..options(threads, 1 << 20) });
        std::iter::from_fn(|| stream.next()).collect::<Vec<_>>()
    };
    let expected: Vec<MicroBatch> = with(&sound, 0, 1).into_iter().map(|item| item.expect("micro-batch")).collect();
    let found: Vec<MicroBatch> = with(&broken, 2, 1).into_iter().map(|item| item.expect("micro-batch")).collect();
    assert_eq!(found.iter().map(|micro_batch| micro_batch.replaced.len()).sum::<usize>(), 2);
    for (found, expected) in found.iter().zip(&expected) {
        let (Batch::Images { pixels, labels, .. }, Batch::Images { pixels: others, labels: right, .. }) = (&found.batch, &expected.batch)
        else {
            panic!("expected images")
        };
        let (pixels, others) = (pixels.as_f32().expect("floats"), others.as_f32().expect("floats"));
        let area = 3 * 16 * 16;
        for place in 0..4 {
            let at = place * area..(place + 1) * area;
            match found.replaced.iter().find(|replaced| replaced.place as usize == place) {
                None => assert_eq!((&pixels[at.clone()], labels[place]), (&others[at], right[place])),
                Some(replaced) => {
                    assert!([7, 2].contains(&replaced.row) && replaced.reason.contains("expected"), "{replaced:?}");
                    assert_eq!(labels[place], right[replaced.by as usize]);
                    assert!(pixels[at].iter().any(|value| *value != 0.0));
                }
            }
        }
        assert_eq!(found.digest == expected.digest, found.replaced.is_empty());
    }
    // Whoever makes it, it is the same; and one more than the budget is an error.
    assert_eq!(with(&broken, 9, 3).into_iter().map(|item| item.expect("micro-batch")).collect::<Vec<_>>(), found);
    let last = with(&broken, 1, 2).pop().expect("an item").expect_err("over the budget");
    assert!(last.kind() == Kind::Corrupt && last.to_string().starts_with("split `train`, row "), "{last}");
}

#[test]
fn a_wait_for_rows_is_charged_to_reading_them() {
    let bed = Bed::tokens(1000, 1, 10);
    bed.close();
    let mut stream = bed.stream(vec![0], 0..100, options(1, 1 << 20));
    let (table, began) = (Arc::clone(&bed.table), Instant::now());
    let opener = std::thread::spawn(move || {
        // The wait itself is what is measured here.
        std::thread::sleep(Duration::from_millis(40));
        table.gate.add_permits(1);
    });
    while let Some(item) = stream.next() {
        item.expect("micro-batch");
    }
    let (waits, elapsed) = (stream.waits(), began.elapsed().as_secs_f64());
    opener.join().expect("opener");
    // This table tells nobody of its requests.
    assert!(waits.decompress >= 0.02 && waits.request == 0.0, "{waits:?}");
    assert!(waits.total() <= elapsed, "{waits:?} of {elapsed}");
    assert!(stream.work().request >= 0.02 && stream.work().read_rows >= 1000);
}
