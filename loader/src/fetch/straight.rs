//! Rows of token sequences read from local files straight into their batches.
//!
//! Where a table says where its rows are ([`Direct`]), they are read from the file, neighbours in one read, compared with their
//! checks while they are in the processor's cache, and copied to their places in the batches of a group. The small columns beside
//! them are decoded as ever, those of a group at once. Whether it is possible is known of each source; rows of the others are
//! decoded, and copied when the batch is made.
//! Promises: rows that fit their checks, or none. Where anything is amiss (a disk that fails, a row that does not fit) the group is
//! read as all others are, which knows how to try again and what to leave out.

use std::sync::atomic::Ordering;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use forebay_schemas::check::{self, CHECK};
use forebay_store::{Direct, Kind};
use futures::future::join;

use super::streaming::{self, Width};
use super::{Demand, Fetch, Fetched, Inner, Piece, Ranges, distinct};
use crate::batch::{Arena, Pool};
use crate::decode::Starts;
use crate::error::Result;
use crate::machine::blocking;

type Stored<T> = forebay_store::Result<T>;

/// Small columns are stored in chunks that are decoded as a whole, of about so many rows: a gap of as many is read along.
const GAP_ROWS: u64 = 1024;

/// Rows that are in their batches, and others that are not yet.
pub(crate) struct Straight {
    /// The ids of each micro-batch, of other rows any.
    pub(crate) ids: Vec<Arena<u32>>,
    /// The columns beside them; of other rows all columns.
    pub(crate) fetched: Fetched,
    /// For each draw, which piece of these has its row, and where.
    pub(crate) places: Vec<(u32, u32)>,
    /// How many rows are in their batches.
    pub(crate) rows: u64,
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
    ids: Width,
    ranges: Ranges,
    beside: RecordBatch,
    /// Where in `beside` each of `rows` is.
    places: Vec<u32>,
}

impl Fetch {
    /// Fetches the rows of `demand`, `width` ids each, into micro-batches of so many samples; none where that is not possible.
    pub(crate) async fn straight(&self, demand: &Demand<'_>, samples: &[usize], width: usize, pool: &Pool) -> Result<Option<Straight>> {
        let (inner, draws) = (&self.inner, demand.draws);
        if inner.cache.is_some() {
            return Ok(None);
        }
        let mut wanted: Vec<Vec<Wanted>> = vec![Vec::new(); inner.tables.len()];
        let (mut others, mut decoded) = (Vec::new(), Vec::new());
        for (sample, draw) in draws.iter().enumerate() {
            if inner.is_indirect[draw.source as usize].load(Ordering::Relaxed) {
                others.push(sample);
                decoded.push(*draw);
            } else {
                wanted[draw.source as usize].push(Wanted::new(draw.row, sample));
            }
        }
        if decoded.len() == draws.len() {
            return Ok(None);
        }
        let wanted = (0..).zip(wanted).filter(|(_, rows)| !rows.is_empty()).collect();
        let rest = Demand { draws: &decoded, row_bytes: demand.row_bytes, steps: demand.steps.clone() };
        let filled = async {
            let _permit = self.permit().await.ok()?;
            inner.filled(wanted, samples, width, pool).await
        };
        let (filled, fetched) = join(filled, self.group(&rest)).await;
        let Some((ids, located)) = filled else { return Ok(None) };
        let fetched = fetched?;

        let mut places = vec![(0, 0); draws.len()];
        let (mut rows, mut distinct, mut pieces) = (0, distinct(&decoded), Vec::with_capacity(located.len()));
        for (piece, Located { source, rows: wanted, ranges, beside, places: found, .. }) in (0..).zip(located) {
            wanted.iter().zip(&found).for_each(|(wanted, place)| places[wanted.sample()] = (piece, *place));
            distinct += 1 + found.windows(2).filter(|pair| pair[0] != pair[1]).count() as u64;
            rows += wanted.len() as u64;
            pieces.push(Piece { source, ranges, rows: beside, unfit: Vec::new(), stored: true });
        }
        for (sample, (piece, place)) in others.into_iter().zip(fetched.places(&decoded)?) {
            places[sample] = (pieces.len() as u32 + piece, place);
        }
        pieces.extend(fetched.pieces);
        let fetched = Fetched { pieces, unfit: fetched.unfit, read_rows: rows + fetched.read_rows };
        Ok(Some(Straight { ids, fetched, places, rows, distinct }))
    }
}

impl Inner {
    /// Micro-batches of which these rows of each source are in their places; none if that is not possible.
    async fn filled(
        &self,
        wanted: Vec<(u32, Vec<Wanted>)>,
        samples: &[usize],
        width: usize,
        pool: &Pool,
    ) -> Option<(Vec<Arena<u32>>, Vec<Located>)> {
        let _read = self.meter.read();
        let sources: Vec<u32> = wanted.iter().map(|(source, _)| *source).collect();
        match self.in_time(self.fill(wanted, samples, width, pool)).await {
            Some(Ok(filled)) => filled,
            Some(Err(error)) => {
                tracing::debug!(%error, "rows that cannot be read straight into their batches are read again");
                None
            }
            None => {
                tracing::warn!("rows are not read straight into their batches any more: there was no answer");
                sources.iter().for_each(|source| self.is_indirect[*source as usize].store(true, Ordering::Relaxed));
                None
            }
        }
    }

    async fn fill(
        &self,
        wanted: Vec<(u32, Vec<Wanted>)>,
        samples: &[usize],
        width: usize,
        pool: &Pool,
    ) -> Stored<Option<(Vec<Arena<u32>>, Vec<Located>)>> {
        let mut located = Vec::with_capacity(wanted.len());
        for (source, mut rows) in wanted {
            rows.sort_unstable();
            match self.located(source, rows, width).await? {
                Some(found) => located.push(found),
                // It will not be another time either.
                None => {
                    self.is_indirect[source as usize].store(true, Ordering::Relaxed);
                    return Ok(None);
                }
            }
        }
        let ids: Vec<Arena<u32>> = samples.iter().map(|samples| pool.take(width * samples)).collect();
        let read = blocking(self.machine.as_ref(), move || {
            let mut ids = ids;
            read(&located, &mut ids, width).map(|()| (ids, located))
        });
        let shutting_down = || forebay_store::Error::new(Kind::Internal, "the runtime is shutting down");
        read.await.ok_or_else(shutting_down)?.map(Some)
    }

    /// Rows of one source, in ascending order, of so many ids each; none if they have to be decoded.
    async fn located(&self, source: u32, rows: Vec<Wanted>, width: usize) -> Stored<Option<Located>> {
        let Some((ids, beside)) = self.columns.split_first() else { return Ok(None) };
        let table = &self.tables[source as usize];
        let numbers: Vec<u64> = rows.iter().map(|wanted| wanted.row()).collect();
        let Some(direct) = table.direct(&numbers, ids).await? else { return Ok(None) };
        let Some(ids) = Width::of(direct.width(), width) else { return Ok(None) };
        let ranges = Ranges::spanning(numbers, GAP_ROWS);
        let places = ranges.places(rows.iter().map(|wanted| wanted.row()));
        let beside = self.columns_of(source, &ranges, beside).await?;
        Ok(Some(Located { source, rows, direct, ids, ranges, beside, places }))
    }
}

/// Reads all rows to their places. `Corrupt` if one does not fit its check.
fn read(located: &[Located], batches: &mut [Arena<u32>], width: usize) -> Stored<()> {
    let mut places: Vec<Option<&mut [u32]>> = batches.iter_mut().flat_map(|ids| ids.chunks_exact_mut(width)).map(Some).collect();
    for Located { rows, direct, ids, beside, places: beside_places, .. } in located {
        let corrupt = |what: String| forebay_store::Error::new(Kind::Corrupt, what);
        let checks = match beside.column_by_name(CHECK) {
            Some(_) => Some(Checks::of(beside).ok_or_else(|| corrupt("a read gave rows without their checks".to_owned()))?),
            None => None,
        };
        let mut own: Vec<&mut [u32]> = rows.iter().filter_map(|wanted| places.get_mut(wanted.sample())?.take()).collect();
        let mut unfit = 0;
        direct.read(|first, run| {
            let run = run.chunks_exact(direct.width());
            let Some(own) = own.get_mut(first..first + run.len()) else { return };
            streaming::announce(own);
            if let Some(checks) = &checks {
                unfit += run.clone().zip(&beside_places[first..]).filter(|(ids, place)| !checks.fits(**place as usize, ids)).count();
            }
            streaming::copy(*ids, run, own);
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
