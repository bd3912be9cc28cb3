//! The dataset versions that a run reads, opened and checked, and what the run makes of their rows.
//!
//! Promises: a version whose identity is not the one that the run or the checkpoint names is `Corrupt`, before any row is read.

use forebay_loader::{Batch, Loader, Ordering, Sourced, Transform};
use forebay_schemas::checkpoint::DatasetVersionRef;
use forebay_schemas::dataset::DatasetManifest;
use forebay_schemas::record::{TRAIN, VALIDATION};
use forebay_schemas::run::{Loading, Run, Weight};
use forebay_store::{Dataset, VersionSpec};
use tch::Device;

use crate::error::{Error, Kind, Result, of_loader};
use crate::model::{Input, Task};

/// An open dataset version, and those that are mixed in.
pub(crate) struct Source {
    pub(crate) dataset: Dataset,
    pub(crate) manifest: DatasetManifest,
    pub(crate) task: Task,
    /// What becomes of its rows.
    pub(crate) transform: Transform,
    mixed: Vec<(Dataset, DatasetManifest)>,
}

impl Source {
    /// Opens what a run reads.
    pub(crate) async fn open(named: &DatasetVersionRef, run: &Run) -> Result<Self> {
        let (dataset, manifest) = open(named).await?;
        let transform = Transform::training(run, &dataset, &manifest).await.map_err(of_loader)?;
        let task = Task::of(&manifest, &transform)?;
        let mut mixed = Vec::with_capacity(named.mixed.len());
        for named in &named.mixed {
            mixed.push(open(named).await?);
        }
        Ok(Self { dataset, manifest, task, transform, mixed })
    }

    /// A loader of the training rows of all versions, in the order and the batches of the run.
    pub(crate) async fn training(&self, run: &Run) -> Result<Loader> {
        if self.mixed.len() != run.mixture.len() {
            let message = format!("the run mixes in {} datasets, expected the {} with which it began", run.mixture.len(), self.mixed.len());
            return Err(Error::new(Kind::Invalid, message));
        }
        let mut sources = vec![sourced(&self.dataset, &self.manifest, run.filter.as_deref(), &run.weight)];
        for ((dataset, manifest), settings) in self.mixed.iter().zip(&run.mixture) {
            sources.push(sourced(dataset, manifest, settings.filter.as_deref(), &settings.weight));
        }
        Loader::open(&sources, TRAIN, &Ordering::of(run), self.transform.clone(), &run.loader).await.map_err(of_loader)
    }

    /// A loader of the validation rows of the first version.
    pub(crate) async fn validation(&self, run: &Run) -> Result<Loader> {
        let sources = [sourced(&self.dataset, &self.manifest, None, &Weight::default())];
        Loader::open(&sources, VALIDATION, &Ordering::of(run), self.transform.clone(), &Loading::default()).await.map_err(of_loader)
    }

    /// A batch of the loader as the model's input, on its way to `device`.
    pub(crate) fn input(&self, batch: Batch, device: Device) -> Result<Input> {
        let input = match (batch, &self.task) {
            (Batch::Tokens { ids, documents, masked, .. }, Task::Text { vocabulary, length }) => {
                Input::packed(ids, &documents, masked, *vocabulary, *length)
            }
            (Batch::Images { pixels, labels, size, .. }, Task::Images { classes }) => {
                let statistics = &self.manifest.statistics;
                let (mean, std) = statistics.channel_mean.zip(statistics.channel_std).unwrap_or(([0.0; 3], [1.0; 3]));
                Input::images(pixels, &labels, size as i64, *classes, [mean, std])
            }
            _ => Err(Error::new(
                Kind::Corrupt,
                format!("dataset version {}: its batches are not of its own modality", self.manifest.version),
            )),
        };
        input?.send(device)
    }
}

async fn open(named: &DatasetVersionRef) -> Result<(Dataset, DatasetManifest)> {
    let dataset = Dataset::open(&named.url).await?;
    let manifest = dataset.resolve(&VersionSpec::Number(named.version)).await?;
    let found = manifest.identity();
    if found != named.identity {
        let message = format!("dataset `{}`, version {}: found identity {found}, expected {}", named.url, named.version, named.identity);
        return Err(Error::new(Kind::Corrupt, message));
    }
    Ok((dataset, manifest))
}

fn sourced<'a>(dataset: &'a Dataset, manifest: &'a DatasetManifest, filter: Option<&'a str>, weight: &Weight) -> Sourced<'a> {
    Sourced { dataset, manifest, filter, weight: weight.0.clone() }
}
