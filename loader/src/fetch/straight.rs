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
}

/// A row, and which sample of the group it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    source: u32,
    row: u64,
    sample: usize,
}

/// Rows of one source: where they are, and what is beside them.
struct Located {
    rows: Vec<Wanted>,
    direct: Direct,
    ranges: Ranges,
    beside: RecordBatch,
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
        match inner.straight(draws, samples, width, pool).await {
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
        let wanted = |(sample, draw): (usize, &Draw)| Wanted { source: draw.source, row: draw.row, sample };
        let mut wanted: Vec<Wanted> = draws.iter().enumerate().map(wanted).collect();
        wanted.sort_unstable();
        let mut located = Vec::new();
        for rows in wanted.chunk_by(|one, other| one.source == other.source) {
            match self.located(rows, 4 * width).await? {
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
        let piece = |located: Located| {
            let source = located.rows.first().map_or(0, |wanted| wanted.source);
            Piece { source, ranges: located.ranges, rows: located.beside, unfit: Vec::new(), stored: true }
        };
        let pieces = located.into_iter().map(piece).collect();
        Ok(Some(Straight { ids, beside: Fetched { pieces, unfit: Default::default(), read_rows: wanted.len() as u64 } }))
    }

    /// Rows of one source, in ascending order, of so many bytes each; none if they have to be decoded.
    async fn located(&self, rows: &[Wanted], bytes: usize) -> Result<Option<Located>> {
        let (Some(source), Some((ids, beside))) = (rows.first().map(|row| row.source), self.columns.split_first()) else { return Ok(None) };
        let table = &self.tables[source as usize];
        let numbers: Vec<u64> = rows.iter().map(|wanted| wanted.row).collect();
        let Some(direct) = table.direct(&numbers, ids).await?.filter(|direct| direct.width() == bytes) else { return Ok(None) };
        let ranges = Ranges::spanning(numbers, GAP_ROWS);
        let columns: Vec<&str> = beside.iter().copied().chain(self.verifies(source).then_some(CHECK)).collect();
        let beside = table.read(ranges.as_slice(), &columns).await?;
        let found = beside.num_rows() as u64;
        match found == ranges.rows() {
            true => Ok(Some(Located { rows: rows.to_vec(), direct, ranges, beside })),
            false => Err(forebay_store::Error::new(Kind::Corrupt, format!("a read gave {found} rows, expected {}", ranges.rows()))),
        }
    }
}

/// Reads all rows to their places. `Corrupt` if one does not fit its check.
fn fill(ids: &mut [Arena<u32>], width: usize, located: &[Located]) -> Result<()> {
    let mut places: Vec<Option<&mut [u8]>> =
        ids.iter_mut().flat_map(|ids| ids.as_bytes_mut().chunks_exact_mut(4 * width)).map(Some).collect();
    for Located { rows, direct, ranges, beside } in located {
        let corrupt = |what: String| forebay_store::Error::new(Kind::Corrupt, what);
        let checks = match beside.column_by_name(CHECK) {
            Some(_) => Some(Checks::of(beside).ok_or_else(|| corrupt("a read gave rows without their checks".to_owned()))?),
            None => None,
        };
        let mut own: Vec<&mut [u8]> = rows.iter().filter_map(|wanted| places.get_mut(wanted.sample)?.take()).collect();
        let mut unfit = 0;
        direct.read(&mut own, |first, filled| {
            let Some(checks) = &checks else { return };
            let fits = |(ids, wanted): &(&&mut [u8], &Wanted)| ranges.place(wanted.row).is_some_and(|place| checks.fits(place, ids));
            unfit += filled.iter().zip(&rows[first..]).filter(|row| !fits(row)).count();
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
