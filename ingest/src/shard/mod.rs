//! From kept records to the tables of a version: encode, order, cut or lay out, measure.
//!
//! Rows come in the order of a hash of content and seed: a shuffle of the whole dataset that does not depend on how it
//! was read. The sort is the query engine's, which spills to disk beyond its memory. A version that adds to another
//! writes a part for what is new ([`amend`]). Deliberately absent: any second shuffle; that is the loader's, by seed.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, SchemaRef, UInt64Type};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::{DataFrame, SessionContext, col, lit};
use datafusion::scalar::ScalarValue;
use forebay_schemas::dataset::{TableFormat, TableRef};
use forebay_schemas::pipeline::{Order, Shard};
use forebay_schemas::{check, record};
use forebay_store::Dataset;
use futures::StreamExt;
use tokio::sync::mpsc;
use twox_hash::XxHash3_64;

use crate::dedup::{Cleaned, Fate, Ledger, known::Known};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::progress::Progress;
use crate::stage::ORDINAL;

pub(crate) mod amend;
pub(crate) mod documents;
pub(crate) mod images;
pub(crate) mod index;
pub(crate) mod ledger;
pub(crate) mod pack;
pub(crate) mod text;

/// Documents or pictures in a batch of a plan that carries content; with batches of the usual 8192 a sort would hold
/// gigabytes.
pub(crate) const CONTENT_ROWS: usize = 64;

/// What the stages before have left: the cleaned records and the verdicts on them.
#[derive(Clone, Copy)]
pub(crate) struct Kept<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) shard: &'a Shard,
    pub(crate) cleaned: &'a Cleaned,
    pub(crate) ledger: &'a Ledger,
    /// The version that this one adds to.
    pub(crate) known: Option<&'a Known>,
    pub(crate) progress: &'a Arc<dyn Progress>,
}

/// Where tables go.
pub(crate) struct Target<'a> {
    pub(crate) dataset: &'a Dataset,
    pub(crate) format: TableFormat,
    /// Folder of this attempt's tables; no other attempt writes there.
    pub(crate) folder: &'a str,
}

impl Target<'_> {
    /// Writes table `name` from batches that are made on the pool by `make`, which gets where to send them. Rows of samples
    /// get their checks here.
    pub(crate) async fn write<T, W>(
        &self,
        engine: &Engine,
        name: &str,
        schema: SchemaRef,
        make: impl FnOnce(Batches) -> W,
    ) -> Result<(TableRef, T)>
    where
        T: Send + 'static,
        W: Future<Output = Result<T>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(2);
        let rows = futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        let tables = self.dataset.tables(self.format);
        let path = format!("{}/{name}", self.folder);
        let failed = sender.clone();
        let make = make(Batches(sender));
        let making = engine.run(async move {
            let made = make.await;
            // A table that is cut short must not look complete.
            if let Err(error) = &made {
                let broken = forebay_store::Error::new(forebay_store::Kind::Internal, format!("its rows ended early: {error}"));
                drop(failed.send(Err(broken)).await);
            }
            made
        });
        let rows = rows.map(|rows| rows.and_then(checked));
        let (made, written) = tokio::join!(making, tables.write(&path, None, check::checked(schema), rows.boxed()));
        match (made, written) {
            (Ok(made), Ok(table)) => Ok((table, made)),
            // Whichever failed first is the cause: a writer that failed leaves the maker with nowhere to send.
            (Err(error), Err(_)) if error.kind() != Kind::Unavailable || error.to_string() != GONE => Err(error),
            (_, Err(error)) => Err(error.into()),
            (Err(error), Ok(_)) => Err(error),
        }
    }
}

fn checked(rows: RecordBatch) -> forebay_store::Result<RecordBatch> {
    let failed = |error| forebay_store::Error::new(forebay_store::Kind::Internal, format!("rows cannot be given their checks: {error}"));
    check::with_checks(rows).map_err(failed)
}

const GONE: &str = "the table's writer has stopped";

/// Sends batches to a table's writer and waits while it is behind.
pub(crate) struct Batches(mpsc::Sender<forebay_store::Result<RecordBatch>>);

impl Batches {
    pub(crate) async fn send(&self, batch: RecordBatch) -> Result<()> {
        self.0.send(Ok(batch)).await.map_err(|_| Error::new(Kind::Unavailable, GONE))
    }
}

/// The table that holds records of that fate.
pub(crate) fn table_name(fate: Fate) -> &'static str {
    if fate == Fate::Validation { record::VALIDATION } else { record::TRAIN }
}

/// A function of the plan: ordinal -> fate.
pub(crate) fn fate_function(fates: Arc<Vec<Fate>>) -> ScalarUDF {
    use arrow::array::UInt8Array;
    let fate = move |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let ordinals = arrays[0].as_primitive::<UInt64Type>();
        let fate = |ordinal: &u64| fates.get(*ordinal as usize).map_or(Fate::LeftOut as u8, |fate| *fate as u8);
        let column: UInt8Array = ordinals.values().iter().map(fate).collect::<Vec<u8>>().into();
        Ok(ColumnarValue::Array(Arc::new(column)))
    };
    create_udf("fate", vec![DataType::UInt64], DataType::UInt8, Volatility::Immutable, Arc::new(fate))
}

/// Rows of `table` with that fate.
pub(crate) fn with_fate(table: DataFrame, fates: &Arc<Vec<Fate>>, fate: Fate) -> Result<DataFrame> {
    let fate = lit(ScalarValue::UInt8(Some(fate as u8)));
    Ok(table.filter(fate_function(Arc::clone(fates)).call(vec![col(ORDINAL)]).eq(fate))?)
}

/// The rows in their order. A table in source order must have one partition.
pub(crate) fn in_order(table: DataFrame, shard: &Shard) -> Result<DataFrame> {
    if shard.order == Order::Source {
        return Ok(table);
    }
    let place = place_function(shard.seed).call(vec![col("id")]);
    Ok(table.sort(vec![place.sort(true, false), col("id").sort(true, false), col(ORDINAL).sort(true, false)])?)
}

/// A function of the plan: id -> place in the shuffle.
fn place_function(seed: u64) -> ScalarUDF {
    let place = move |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let ids = arrays[0].as_fixed_size_binary();
        let places: UInt64Array = ids.iter().map(|id| id.map(|id| XxHash3_64::oneshot_with_seed(seed, id))).collect();
        Ok(ColumnarValue::Array(Arc::new(places)))
    };
    create_udf("place", vec![DataType::FixedSizeBinary(32)], DataType::UInt64, Volatility::Immutable, Arc::new(place))
}

/// A session for plans that carry content.
pub(crate) fn session(engine: &Engine) -> SessionContext {
    engine.session(CONTENT_ROWS)
}
