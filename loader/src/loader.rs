//! A split of a dataset version, ready to be streamed.
//!
//! Promises: what is streamed is what the plan says, whoever asks and however it is divided among replicas.
//! Deliberately absent: progress. The caller names the step to start at; the loader remembers nothing.

use std::sync::Arc;

use forebay_schemas::dataset::DatasetManifest;
use forebay_store::Dataset;
use tokio::runtime::Handle;

use crate::batch::{Recipe, Transform};
use crate::error::{Error, Result};
use crate::fetch::Fetch;
use crate::plan::Plan;
use crate::prefetch::{Order, Sequential, Stream, StreamOptions};

/// One split of one dataset version under one seed. Cheap to clone.
#[derive(Clone)]
pub struct Loader {
    inner: Arc<Inner>,
}

struct Inner {
    plan: Plan,
    fetch: Fetch,
    recipe: Recipe,
}

impl Loader {
    /// Opens `split` (a table of the manifest: `train` or `validation`) for steps of `micro_batches` × `micro_batch_size`
    /// samples in the order of `seed`.
    ///
    /// `Invalid` if there is no such split, it has no rows, or the transform does not fit the dataset.
    pub async fn open(
        dataset: &Dataset,
        manifest: &DatasetManifest,
        split: &str,
        seed: u64,
        micro_batches: u32,
        micro_batch_size: u32,
        transform: Transform,
    ) -> Result<Self> {
        let table = manifest.tables.get(split).ok_or_else(|| {
            let names = manifest.tables.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            Error::Invalid(format!("dataset version {}: found no table `{split}`, expected one of {names}", manifest.version))
        })?;
        if table.rows == 0 {
            return Err(Error::Invalid(format!(
                "dataset version {}, split `{split}`: found no rows, expected at least 1",
                manifest.version
            )));
        }
        let plan = Plan::new(manifest.identity(), seed, table.rows, micro_batches, micro_batch_size)?;
        let table = dataset.tables(table.format).open(table).await.map_err(|source| Error::Store {
            split: split.to_owned(),
            doing: format!("cannot open its table in dataset version {}", manifest.version),
            source,
        })?;
        let recipe = Recipe::new(split, seed, manifest.modality, &table.schema(), &transform)?;
        let fetch = Fetch { table, split: split.to_owned(), columns: recipe.columns() };
        Ok(Self { inner: Arc::new(Inner { plan, fetch, recipe }) })
    }

    /// The order of the samples.
    pub fn plan(&self) -> &Plan {
        &self.inner.plan
    }

    /// Rows of the split.
    pub fn rows(&self) -> u64 {
        self.inner.plan.rows()
    }

    /// The micro-batches with these indices of the steps from `first_step` to before `end_step`, in the order of
    /// (step, index). An index twice, or one that is no less than K, is the stream's first and only item, an error.
    pub fn stream(&self, runtime: Handle, micro_batches: Vec<u32>, first_step: u64, end_step: u64, options: StreamOptions) -> Stream {
        let recipe = self.inner.recipe.clone();
        match Order::planned(self.inner.plan, micro_batches, first_step, end_step) {
            Ok(order) => Stream::start(&runtime, self.inner.fetch.clone(), recipe, order, options),
            Err(error) => Stream::refused(recipe, error),
        }
    }

    /// The rows as stored, at most `max_samples` of them, in batches of `batch_size` without augmentation; the last batch
    /// may be smaller.
    pub fn sequential(&self, runtime: Handle, batch_size: usize, max_samples: Option<u64>, options: StreamOptions) -> Sequential {
        let rows = self.rows().min(max_samples.unwrap_or(u64::MAX));
        let order = Order::Stored { rows, batch_size: batch_size.max(1) as u64 };
        Sequential::new(Stream::start(&runtime, self.inner.fetch.clone(), self.inner.recipe.plain(), order, options), rows)
    }
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("split", &self.inner.fetch.split).field("plan", &self.inner.plan).finish_non_exhaustive()
    }
}
