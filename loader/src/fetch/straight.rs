//! Rows of token sequences read from local files straight into their batches.
//!
//! Where a table says where its rows are ([`Direct`]), they go from the file to their places in the batches of a group, neighbours
//! in one read, and are compared with their checks while they are in the processor's cache. The small columns beside them are
//! decoded as ever, those of a group at once.
//! Promises: rows that fit their checks, or none. Where anything is amiss (a table that is not local, a disk that fails, a row
//! that does not fit) the group is read as all others are, which knows how to try again and what to leave out.

use std::sync::atomic::Ordering;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use forebay_schemas::check::{self, CHECK};
use forebay_store::{Direct, Kind, Result};

use super::{Fetch, Fetched, Inner, Piece, Ranges};
use crate::batch::{Arena, Pool};
use crate::decode::Starts;
use crate::machine::blocking;
use crate::plan::Draw;

/// Decoding few rows of a small column costs as much as decoding all of their neighbours: a gap of so many is read along.
const GAP_ROWS: u64 = 128;

/// Rows that are in their batches.
pub(crate) struct Straight {
    /// The ids of each micro-batch.
    pub(crate) ids: Vec<Arena<u32>>,
    /// The columns beside them.
    pub(crate) beside: Fetched,
    /// For each draw, which piece of these has its row, and where.
    pub(crate) places: Vec<(u32, u32)>,
    /// Rows, each counted once.
    pub(crate) distinct: u64,
}

/// A row, and which sample of the group it is: the row in the upper half, so that they are sorted as numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted(u128);

impl Wanted {
    fn new(row: u64, sample: usize) -> Self {
        Self(u128::from(row) << 64 | sample as u128)
    }

    fn row(self) -> u64 {
        (self.0 >> 64) as u64
    }

    fn sample(self) -> usize {
        self.0 as u64 as usize
    }
}

/// Rows of one source: where they are, and what is beside them.
struct Located {
    source: u32,
    rows: Vec<Wanted>,
    direct: Direct,
    ranges: Ranges,
    beside: RecordBatch,
    /// Where in `beside` each of `rows` is.
    places: Vec<u32>,
}

impl Fetch {
    /// Fetches the rows of `draws`, `width` ids each, into micro-batches of so many samples; none where that is not possible.
    pub(crate) async fn straight(&self, draws: &[Draw], samples: &[usize], width: usize, pool: &Pool) -> Option<Straight> {
        let inner = &self.inner;
        if inner.cache.is_some() || inner.indirect.load(Ordering::Relaxed) {
            return None;
        }
        let _read = inner.meter.read();
        let _permit = inner.permit().await.ok()?;
        match inner.in_time(inner.straight(draws, samples, width, pool)).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "rows that cannot be read straight into their batches are read again");
                None
            }
        }
    }
}

impl Inner {
    async fn straight(&self, draws: &[Draw], samples: &[usize], width: usize, pool: &Pool) -> Result<Option<Straight>> {
        let mut wanted: Vec<Vec<Wanted>> = vec![Vec::new(); self.tables.len()];
        draws.iter().enumerate().for_each(|(sample, draw)| wanted[draw.source as usize].push(Wanted::new(draw.row, sample)));
        let mut located = Vec::new();
        for (source, mut rows) in (0..).zip(wanted).filter(|(_, rows)| !rows.is_empty()) {
            rows.sort_unstable();
            match self.located(source, rows, 4 * width).await? {
                Some(found) => located.push(found),
                // It will not be another time either.
                None => {
                    self.indirect.store(true, Ordering::Relaxed);
                    return Ok(None);
                }
            }
        }
        let ids: Vec<Arena<u32>> = samples.iter().map(|samples| pool.take(width * samples)).collect();
        let read = blocking(self.machine.as_ref(), move || {
            let mut ids = ids;
            fill(&mut ids, width, &located).map(|()| (ids, located))
        });
        let shutting_down = || forebay_store::Error::new(Kind::Internal, "the runtime is shutting down");
        let (ids, located) = read.await.ok_or_else(shutting_down)??;
        let (mut places, mut distinct, mut pieces) = (vec![(0, 0); draws.len()], 0, Vec::with_capacity(located.len()));
        for (piece, Located { source, rows, ranges, beside, places: found, .. }) in (0..).zip(located) {
            rows.iter().zip(&found).for_each(|(wanted, place)| places[wanted.sample()] = (piece, *place));
            distinct += 1 + found.windows(2).filter(|pair| pair[0] != pair[1]).count() as u64;
            pieces.push(Piece { source, ranges, rows: beside, unfit: Vec::new(), stored: true });
        }
        let beside = Fetched { pieces, unfit: Default::default(), read_rows: draws.len() as u64 };
        Ok(Some(Straight { ids, beside, places, distinct }))
    }

    /// Rows of one source, in ascending order, of so many bytes each; none if they have to be decoded.
    async fn located(&self, source: u32, rows: Vec<Wanted>, bytes: usize) -> Result<Option<Located>> {
        let Some((ids, beside)) = self.columns.split_first() else { return Ok(None) };
        let table = &self.tables[source as usize];
        let numbers: Vec<u64> = rows.iter().map(|wanted| wanted.row()).collect();
        let Some(direct) = table.direct(&numbers, ids).await?.filter(|direct| direct.width() == bytes) else { return Ok(None) };
        let ranges = Ranges::spanning(numbers, GAP_ROWS);
        let places = ranges.places(rows.iter().map(|wanted| wanted.row()));
        let beside = self.columns_of(source, &ranges, beside).await?;
        Ok(Some(Located { source, rows, direct, ranges, beside, places }))
    }
}

/// Reads all rows to their places. `Corrupt` if one does not fit its check.
fn fill(ids: &mut [Arena<u32>], width: usize, located: &[Located]) -> Result<()> {
    let mut places: Vec<Option<&mut [u8]>> =
        ids.iter_mut().flat_map(|ids| ids.as_bytes_mut().chunks_exact_mut(4 * width)).map(Some).collect();
    for Located { rows, direct, beside, places: beside_places, .. } in located {
        let corrupt = |what: String| forebay_store::Error::new(Kind::Corrupt, what);
        let checks = match beside.column_by_name(CHECK) {
            Some(_) => Some(Checks::of(beside).ok_or_else(|| corrupt("a read gave rows without their checks".to_owned()))?),
            None => None,
        };
        let mut own: Vec<&mut [u8]> = rows.iter().filter_map(|wanted| places.get_mut(wanted.sample())?.take()).collect();
        let mut unfit = 0;
        direct.read(&mut own, |first, filled| {
            let Some(checks) = &checks else { return };
            unfit += filled.iter().zip(&beside_places[first..]).filter(|(ids, place)| !checks.fits(**place as usize, ids)).count();
        })?;
        if unfit > 0 {
            return Err(corrupt(format!("{unfit} rows do not fit their checks")));
        }
    }
    Ok(())
}

/// The checks of rows, and what they are computed of beside the ids.
struct Checks<'a> {
    starts: Starts<'a>,
    written: &'a arrow::array::UInt64Array,
}

impl<'a> Checks<'a> {
    fn of(rows: &'a RecordBatch) -> Option<Self> {
        Some(Self { starts: Starts::of(rows)?, written: rows.column_by_name(CHECK)?.as_primitive_opt::<UInt64Type>()? })
    }

    /// Whether these ids are those of the row at a place.
    fn fits(&self, place: usize, ids: &[u8]) -> bool {
        let written = self.written.is_valid(place).then(|| self.written.value(place));
        let found = self.starts.bytes(place).map(|starts| check::of_sequence(ids, starts));
        written.is_some() && written == found
    }
}
