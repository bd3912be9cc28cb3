//! One read of storage: asked a second time where the first answer is slow, again where it failed, and given up where none comes.
//!
//! Promises: the rows that were asked for, in their number; of each whether it is what was written. Where a read fails because of
//! what is stored, its parts are read alone, until it is known which rows cannot be: the others are none the worse.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::{Array, ArrayData, RecordBatch, make_array, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use forebay_schemas::check::{self, CHECK};
use forebay_store::Kind;
use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};

use super::{Inner, Latencies, Ranges, policy};
use crate::error::{Error, Result};

type Arrow<T> = std::result::Result<T, ArrowError>;

/// A read may take so long, however little patience a run has.
const SHORTEST_LIMIT: Duration = Duration::from_secs(10);

/// Most rows of a read that are taken for damaged one by one; where there are more, the table is.
const MOST_UNREADABLE: usize = 16;

/// What a read gave.
pub(super) struct Rows {
    pub(super) batch: RecordBatch,
    /// Places in it of rows that are not what was written.
    pub(super) unfit: Vec<usize>,
}

impl Inner {
    /// Reads rows. Where they cannot be read because of what is stored, those that can be are, and the others are blank, and not what
    /// was written.
    pub(super) async fn persistent(&self, source: u32, ranges: &Ranges) -> Result<Rows> {
        let (found, attempts) = match self.again(source, ranges, true).await {
            Ok(rows) => return Ok(rows),
            Err((failure, attempts)) if failure.kind() == Kind::Corrupt => {
                (self.apart(source, ranges.clone(), failure, &mut { MOST_UNREADABLE }).await, attempts)
            }
            Err((failure, attempts)) => (Err(failure), attempts),
        };
        let doing = || format!("cannot read {} rows in {} ranges, after {attempts} attempts", ranges.rows(), ranges.as_slice().len());
        found.map_err(|source| Error::Store { split: self.split.clone(), doing: doing(), source })
    }

    /// Reads rows, again and again where that may help; if not, says how often. Rows that do not fit their checks may have been damaged
    /// on the way; what is read alike again is damaged where it lies. A read that is not `whole`, which is one of several that were
    /// tried together before, fails at once because of what is stored.
    async fn again(&self, source: u32, ranges: &Ranges, whole: bool) -> std::result::Result<Rows, (forebay_store::Error, u32)> {
        let began = self.machine.now();
        let (mut attempts, mut corrupt) = (1, 0);
        loop {
            let read = self.in_time(self.hedged(source, ranges)).await.unwrap_or_else(|| Err(self.unanswered()));
            let (failure, unfit) = match read {
                Ok(rows) if rows.unfit.is_empty() || corrupt + 1 >= policy::UNFIT_READS => return Ok(rows),
                Ok(rows) => {
                    (forebay_store::Error::new(Kind::Corrupt, format!("{} rows do not fit their checks", rows.unfit.len())), Some(rows))
                }
                Err(failure) => (failure, None),
            };
            let chance = u64::from(source) ^ ranges.end() ^ u64::from(std::process::id()) << 32;
            let since = self.machine.now().saturating_sub(began);
            let may = whole || unfit.is_some() || failure.kind() != Kind::Corrupt;
            corrupt += u32::from(failure.kind() == Kind::Corrupt);
            // A store that was away says nothing of what is stored.
            let failed = if failure.kind() == Kind::Corrupt { corrupt } else { attempts };
            let pause = policy::retry(failure.kind(), failed, since, self.settings.patience.duration(), chance).filter(|_| may);
            let Some(pause) = pause else { return unfit.ok_or((failure, attempts)) };
            tracing::debug!(%failure, attempts, ?pause, "a read is tried again");
            let _pause = self.meter.pause();
            self.machine.sleep(pause).await;
            attempts += 1;
        }
    }

    /// Reads rows that cannot be read together in two halves, and each that cannot be read either in two again. A row that cannot
    /// be read alone is blank; of such there may be so many.
    fn apart<'a>(
        &'a self,
        source: u32,
        ranges: Ranges,
        failure: forebay_store::Error,
        unreadable: &'a mut usize,
    ) -> BoxFuture<'a, forebay_store::Result<Rows>> {
        let rows = async move {
            let count = ranges.rows();
            if count <= 1 {
                *unreadable = unreadable.checked_sub(1).ok_or(failure)?;
                return Ok(Rows { batch: blank(&self.tables[source as usize].schema(), self.columns)?, unfit: vec![0] });
            }
            let (mut batches, mut unfit, mut before) = (Vec::new(), Vec::new(), 0);
            for half in ranges.cut(count.div_ceil(2)) {
                let Rows { batch, unfit: places } = match self.again(source, &half, half.rows() <= 1).await {
                    Ok(rows) => rows,
                    Err((failure, _)) if failure.kind() == Kind::Corrupt => self.apart(source, half, failure, unreadable).await?,
                    Err((failure, _)) => return Err(failure),
                };
                unfit.extend(places.iter().map(|place| before + place));
                before += batch.num_rows();
                batches.push(batch);
            }
            let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
            Ok(Rows { batch: concat_batches(&schema, &batches).map_err(internal)?, unfit })
        };
        rows.boxed()
    }

    /// What a read gives; none if no answer comes at all: a reader that waits for ever would hide what a store, or a library's task
    /// that has died, does not say.
    pub(super) async fn in_time<T>(&self, read: impl Future<Output = T> + Send) -> Option<T> {
        match select(Box::pin(read), self.machine.sleep(self.limit())).await {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(_) => None,
        }
    }

    fn limit(&self) -> Duration {
        self.settings.patience.duration().max(SHORTEST_LIMIT)
    }

    fn unanswered(&self) -> forebay_store::Error {
        forebay_store::Error::new(Kind::Unavailable, format!("no answer within {} s", self.limit().as_secs()))
    }

    /// Reads rows, asking a second time if the first answer takes much longer than most.
    async fn hedged(&self, source: u32, ranges: &Ranges) -> forebay_store::Result<Rows> {
        let first = Box::pin(self.once(source, ranges));
        let Some(after) = self.latencies().hedge_after(self.settings.hedge) else { return first.await };
        let first = match select(first, self.machine.sleep(after)).await {
            Either::Left((answer, _)) => return answer,
            Either::Right(((), first)) => first,
        };
        if !self.latencies().hedge() {
            return first.await;
        }
        match select(first, Box::pin(self.once(source, ranges))).await {
            Either::Left((Ok(rows), _)) | Either::Right((Ok(rows), _)) => Ok(rows),
            // One of the two failed; the other may still succeed.
            Either::Left((Err(_), second)) => second.await,
            Either::Right((Err(_), first)) => first.await,
        }
    }

    /// Columns of rows, and their checks if these are compared.
    pub(super) async fn columns_of(&self, source: u32, ranges: &Ranges, columns: &[&str]) -> forebay_store::Result<RecordBatch> {
        let corrupt = |message: String| forebay_store::Error::new(Kind::Corrupt, message);
        let columns: Vec<&str> = columns.iter().copied().chain(self.verifies(source).then_some(CHECK)).collect();
        // A damaged file can make a library panic.
        let read = AssertUnwindSafe(self.tables[source as usize].read(ranges.as_slice(), &columns)).catch_unwind().await;
        let batch = read.map_err(|_| corrupt("the reader of the table panicked".to_owned()))??;
        match batch.num_rows() as u64 {
            found if found == ranges.rows() => Ok(batch),
            found => Err(corrupt(format!("a read gave {found} rows, expected {}", ranges.rows()))),
        }
    }

    /// Whether rows of this source are compared with their checks.
    fn verifies(&self, source: u32) -> bool {
        self.settings.verify && self.tables[source as usize].schema().field_with_name(CHECK).is_ok()
    }

    async fn once(&self, source: u32, ranges: &Ranges) -> forebay_store::Result<Rows> {
        let began = self.machine.now();
        let verify = self.verifies(source);
        let mut batch = self.columns_of(source, ranges, self.columns).await?;
        self.latencies().took(self.machine.now().saturating_sub(began));
        let mut unfit = Vec::new();
        if verify {
            let missing = || forebay_store::Error::new(Kind::Corrupt, "a read gave rows without their checks");
            unfit = check::unfit(&batch).ok_or_else(missing)?;
            batch.remove_column(self.columns.len());
        }
        Ok(Rows { batch, unfit })
    }

    pub(super) fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One row of these columns in which nothing is.
fn blank(schema: &Schema, columns: &[&str]) -> forebay_store::Result<RecordBatch> {
    let blank = || {
        let places: Arrow<Vec<usize>> = columns.iter().map(|column| schema.index_of(column)).collect();
        let schema = schema.project(&places?)?;
        let columns = schema.fields().iter().map(|field| valid(new_null_array(field.data_type(), 1).to_data()).map(make_array));
        let columns: Arrow<Vec<_>> = columns.collect();
        RecordBatch::try_new(Arc::new(schema), columns?)
    };
    blank().map_err(internal)
}

/// The same values, none of them null.
fn valid(data: ArrayData) -> Arrow<ArrayData> {
    let children: Arrow<Vec<_>> = data.child_data().iter().cloned().map(valid).collect();
    data.into_builder().nulls(None).child_data(children?).build()
}

fn internal(error: ArrowError) -> forebay_store::Error {
    forebay_store::Error::new(Kind::Internal, format!("rows cannot be put together: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_schemas::{check, record};

    #[test]
    fn a_blank_row_has_the_columns_of_any_table_of_samples() {
        for (schema, columns) in [
            (record::sequences(8, 2), &["tokens", "starts"][..]),
            (record::documents(), &["text"]),
            (record::images(), &["bytes", "label"]),
        ] {
            let blank = blank(&check::checked(schema.clone()), columns).expect("a row");
            assert_eq!((blank.num_rows(), blank.num_columns()), (1, columns.len()));
            assert!(blank.columns().iter().all(|column| column.null_count() == 0), "{blank:?}");
        }
    }
}
