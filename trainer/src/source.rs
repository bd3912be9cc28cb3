//! The dataset version that a run reads, opened and checked, and what the run makes of its rows.
//!
//! Promises: a version whose identity is not the one that the run or the checkpoint names is `Corrupt`, before any row is read.

use forebay_loader::{Batch, Loader, Transform};
use forebay_schemas::checkpoint::DatasetVersionRef;
use forebay_schemas::dataset::DatasetManifest;
use forebay_schemas::run::Run;
use forebay_store::{Dataset, VersionSpec};

use crate::error::{Error, Kind, Result};
use crate::model::{Input, Task};

/// An open dataset version.
pub(crate) struct Source {
    pub(crate) dataset: Dataset,
    pub(crate) manifest: DatasetManifest,
    pub(crate) task: Task,
}

impl Source {
    pub(crate) async fn open(named: &DatasetVersionRef) -> Result<Self> {
        let dataset = Dataset::open(&named.url).await?;
        let manifest = dataset.resolve(&VersionSpec::Number(named.version)).await?;
        let found = manifest.identity();
        if found != named.identity {
            let message =
                format!("dataset `{}`, version {}: found identity {found}, expected {}", named.url, named.version, named.identity);
            return Err(Error::new(Kind::Corrupt, message));
        }
        let task = Task::of(&manifest)?;
        Ok(Self { dataset, manifest, task })
    }

    /// A loader of `split` in the order and the batches of the run.
    pub(crate) async fn loader(&self, run: &Run, split: &str) -> Result<Loader> {
        let transform = Transform::training(run, &self.manifest)?;
        let (micro_batches, size) = (run.batch.micro_batches, run.batch.micro_batch_size);
        Ok(Loader::open(&self.dataset, &self.manifest, split, run.seed, micro_batches, size, transform).await?)
    }

    /// A batch of the loader as the model's input.
    pub(crate) fn input(&self, batch: &Batch) -> Result<Input> {
        match (batch, &self.task) {
            (Batch::Tokens { ids, .. }, Task::Text { vocabulary, length }) => Input::tokens(ids, *vocabulary, *length),
            (Batch::Images { pixels, labels, size, .. }, Task::Images { classes }) => Input::images(pixels, labels, *size as i64, *classes),
            _ => Err(Error::new(
                Kind::Corrupt,
                format!("dataset version {}: its batches are not of its own modality", self.manifest.version),
            )),
        }
    }
}

impl From<forebay_loader::Error> for Error {
    fn from(error: forebay_loader::Error) -> Self {
        use forebay_loader::Kind as Loader;
        let kind = match error.kind() {
            Loader::Invalid => Kind::Invalid,
            Loader::NotFound => Kind::NotFound,
            Loader::Unavailable => Kind::Unavailable,
            Loader::Corrupt => Kind::Corrupt,
            Loader::Internal => Kind::Internal,
        };
        Self::with_source(kind, "loader", error)
    }
}
