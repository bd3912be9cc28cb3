//! A table whose reads are slow, fail, are refused for a while, and give other rows than were asked for.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{FixedSizeListArray, ListArray, RecordBatch, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use forebay_store::{Error, Kind, Result, RowRanges, Table};
use futures::stream::BoxStream;

use super::Chance;
use super::machine::Turned;
use crate::machine::Machine;

/// Ids in a row.
pub(super) const WIDTH: usize = 16;
/// Bytes of a row.
pub(super) const ROW_BYTES: u64 = 4 * WIDTH as u64;

/// How often what goes wrong: one in so many reads, 0 never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    pub(super) slow: u64,
    pub(super) fails: u64,
    pub(super) lies: u64,
    /// One in so many reads begins a time in which all fail.
    pub(super) outage: u64,
}

/// Rows that say where they are from: every id is source · 2²⁴ + row, but for the last, which counts.
pub(super) struct Shelf {
    source: u32,
    rows: u64,
    clock: Arc<Turned>,
    faults: Faults,
    state: Mutex<State>,
}

struct State {
    chance: Chance,
    away_until: Duration,
    under_way: u64,
    most_under_way: u64,
    reads: u64,
}

impl Shelf {
    pub(super) fn new(source: u32, rows: u64, clock: Arc<Turned>, faults: Faults, seed: u64) -> Self {
        let chance = Chance::new(seed);
        let state = State { chance, away_until: Duration::ZERO, under_way: 0, most_under_way: 0, reads: 0 };
        Self { source, rows, clock, faults, state: Mutex::new(state) }
    }

    /// Most rows that were being read at a time.
    pub(super) fn most_under_way(&self) -> u64 {
        self.state.lock().expect("shelf").most_under_way
    }

    pub(super) fn reads(&self) -> u64 {
        self.state.lock().expect("shelf").reads
    }
}

/// The ids of a row.
pub(super) fn ids(source: u32, row: u64) -> Vec<u32> {
    let mut ids = vec![(source << 24) | row as u32; WIDTH];
    ids[WIDTH - 1] = row as u32 % 97;
    ids
}

/// Where a document begins in a row.
pub(super) fn start(row: u64) -> u32 {
    (row % WIDTH as u64) as u32
}

/// The columns of a table of sequences that are read.
pub(super) fn schema() -> SchemaRef {
    let whole = forebay_schemas::record::sequences(WIDTH - 1, 4);
    Arc::new(Schema::new(["tokens", "starts"].map(|name| whole.field_with_name(name).expect("column").clone()).to_vec()))
}

fn rows_of(source: u32, rows: impl Iterator<Item = u64>) -> RecordBatch {
    let rows: Vec<u64> = rows.collect();
    let item = Arc::new(Field::new("item", DataType::UInt32, false));
    let values = UInt32Array::from_iter_values(rows.iter().flat_map(|row| ids(source, *row)));
    let tokens = FixedSizeListArray::new(Arc::clone(&item), WIDTH as i32, Arc::new(values), None);
    let starts = UInt32Array::from_iter_values(rows.iter().map(|row| start(*row)));
    let starts = ListArray::new(item, OffsetBuffer::from_lengths(vec![1; rows.len()]), Arc::new(starts), None);
    RecordBatch::try_new(schema(), vec![Arc::new(tokens), Arc::new(starts)]).expect("rows")
}

/// Counts rows that are being read, also of reads that are given up.
struct UnderWay<'a>(&'a Shelf, u64);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.state.lock().expect("shelf").under_way -= self.1;
    }
}

#[async_trait]
impl Table for Shelf {
    fn rows(&self) -> u64 {
        self.rows
    }

    fn schema(&self) -> SchemaRef {
        schema()
    }

    async fn read(&self, ranges: &[Range<u64>], _columns: &[&str]) -> Result<RecordBatch> {
        assert!(ranges.iter().all(|range| range.end <= self.rows), "{ranges:?} of {}", self.rows);
        let count: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let (delay, outcome) = {
            let mut state = self.state.lock().expect("shelf");
            state.reads += 1;
            state.under_way += count;
            state.most_under_way = state.most_under_way.max(state.under_way);
            let mut delay = 1_000 + state.chance.below(9_000);
            if state.chance.one_in(self.faults.slow) {
                delay *= 20;
            }
            if state.chance.one_in(self.faults.outage) {
                state.away_until = self.clock.now() + Duration::from_millis(state.chance.below(8_000));
            }
            let outcome = match () {
                () if self.clock.now() < state.away_until || state.chance.one_in(self.faults.fails) => Err(Kind::Unavailable),
                () if state.chance.one_in(self.faults.lies) => match state.chance.below(3) {
                    0 => Err(Kind::Corrupt),
                    1 => Ok(-1),
                    _ => Ok(1),
                },
                () => Ok(0),
            };
            (Duration::from_micros(delay), outcome)
        };
        let _under_way = UnderWay(self, count);
        self.clock.sleep(delay).await;
        let rows = ranges.iter().cloned().flatten();
        match outcome {
            Err(kind) => Err(Error::new(kind, "simulated")),
            Ok(0) => Ok(rows_of(self.source, rows)),
            Ok(-1) => Ok(rows_of(self.source, rows.skip(1))),
            Ok(_) => Ok(rows_of(self.source, rows.chain([0]))),
        }
    }

    async fn select(&self, _predicate: &str) -> Result<BoxStream<'static, Result<RowRanges>>> {
        unreachable!("the plan is given")
    }

    async fn scan(&self, _columns: &[&str]) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        unreachable!("the loader reads ranges")
    }
}
