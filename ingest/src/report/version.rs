//! The page of a version that lies in a dataset: reads its ledger and hands it to [`super::page`].

use forebay_schemas::dataset::DatasetManifest;
use forebay_schemas::record::{RECORDS, records};
use forebay_store::{Dataset, Table};
use futures::TryStreamExt;
use futures::future::BoxFuture;

use super::page::Summary;
use crate::error::{Error, Kind, Result};

/// Earlier versions that a page tells of.
const ANCESTORS: usize = 20;

/// The page of a version as HTML. The ledger is read twice at most, as a stream.
///
/// Boxed, so that its code is generated here and not in every crate that awaits it.
pub fn page_of<'a>(dataset: &'a Dataset, manifest: &'a DatasetManifest) -> BoxFuture<'a, Result<String>> {
    Box::pin(async move {
        let reference = manifest.tables.get(RECORDS);
        let reference =
            reference.ok_or_else(|| Error::new(Kind::Corrupt, format!("version {} has no table `records`", manifest.version)))?;
        let table = dataset.tables(reference.format).open(reference).await?;
        let mut summary = Summary::new(manifest);
        read(table.as_ref(), &mut summary, Summary::add).await?;
        if summary.has_survivors() {
            read(table.as_ref(), &mut summary, Summary::name).await?;
        }
        let mut ancestors = dataset.log().await?;
        ancestors.retain(|version| version.version < manifest.version);
        ancestors.reverse();
        ancestors.truncate(ANCESTORS);
        Ok(summary.page(dataset.location().url().as_str(), &ancestors))
    })
}

async fn read(table: &dyn Table, summary: &mut Summary, add: fn(&mut Summary, &arrow::array::RecordBatch) -> Result<()>) -> Result<()> {
    let schema = records();
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut rows = table.scan(&columns).await?;
    while let Some(batch) = rows.try_next().await? {
        add(summary, &batch)?;
    }
    Ok(())
}
