//! A split of one or several dataset versions, ready to be streamed.
//!
//! Promises: what is streamed is what the plan says, whoever asks and however it is divided among replicas.
//! Deliberately absent: progress. The caller names the step to start at; the loader remembers nothing.

use std::path::Path;
use std::sync::Arc;

use forebay_schemas::Digest;
use forebay_schemas::run::Loading;
use forebay_store::Location;
use tokio::runtime::Handle;

use crate::batch::{Ingredients, Memory, Pool, Recipe, Scratch, Transform};
use crate::cache::disk::{Disk, Folder};
use crate::cache::{Cache, Counts};
use crate::error::{Error, Result};
use crate::fetch::{Demand, Fetch, Fetched, Host};
use crate::machine::{Machine, Real, blocking};
use crate::plan::{Draw, Plan};
use crate::prefetch::{Order, Sequential, Stream, StreamOptions, WORDS_BYTES};
use crate::quarantine::Quarantine;
use crate::sources::{Ordering, Resolved, Sourced, watched};
use crate::stall::{Meter, Traffic};

/// One split of dataset versions under one seed. Cheap to clone.
#[derive(Clone)]
pub struct Loader {
    inner: Arc<Inner>,
    memory: Option<Memory>,
}

/// A micro-batch whose rows are in memory.
pub(crate) struct Held {
    draws: Vec<Draw>,
    rows: Fetched,
}

struct Inner {
    plan: Plan,
    fetch: Fetch,
    recipe: Recipe,
    cache: Option<Cache>,
    quarantine: Option<Arc<Quarantine>>,
}

impl Loader {
    /// Opens `split` (a table of the manifests: `train` or `validation`) of all sources.
    ///
    /// `Invalid` if there is no such split, it has no rows, the sources do not fit each other or the transform does not fit
    /// them, or the folder of the cache cannot be used.
    pub async fn open(sources: &[Sourced<'_>], split: &str, ordering: &Ordering, transform: Transform, loading: &Loading) -> Result<Self> {
        let meter = Arc::new(Meter::default());
        let Resolved { plan, tables, row_bytes } = watched(sources, split, ordering, &meter).await?;
        let mut recipe = None;
        for (source, table) in sources.iter().zip(&tables) {
            let end = source.manifest.tokenizer.as_ref().map(|tokenizer| tokenizer.end_of_document);
            let other = Recipe::new(split, ordering.seed, (source.manifest.modality, end), &table.schema(), &transform)?;
            match &recipe {
                Some(recipe) if *recipe != other => {
                    let message = format!("split `{split}`: found rows of two shapes in the mixture, expected one");
                    return Err(Error::Invalid(message));
                }
                _ => recipe = Some(other),
            }
        }
        let recipe = recipe.ok_or_else(|| Error::Invalid("found no dataset to read, expected at least 1".to_owned()))?;
        let recipe = recipe.expecting(row_bytes);
        let machine: Arc<dyn Machine> = Arc::new(Real::new());
        let cache = match &loading.cache.folder {
            None => None,
            Some(folder) => {
                let disk = open_folder(machine.as_ref(), folder).await?;
                let names = names(sources, &plan, split, recipe.columns());
                Some(Cache::open(plan.clone(), &names, disk, Arc::clone(&machine), loading.cache.size.0).await)
            }
        };
        let quarantine = match &loading.quarantine {
            None => None,
            Some(url) => {
                let location = Location::open(url).await.map_err(|source| Error::Store {
                    split: split.to_owned(),
                    doing: "cannot open its quarantine".to_owned(),
                    source,
                })?;
                let identities = sources.iter().map(|source| source.manifest.identity()).collect();
                Some(Quarantine::new(location, split, identities))
            }
        };
        let fetch = Fetch::new(tables, plan.clone(), split, recipe.columns(), cache.clone(), Host { machine, meter }, loading);
        Ok(Self { inner: Arc::new(Inner { plan, fetch, recipe, cache, quarantine }), memory: None })
    }

    /// The same, with batches in memory that somebody else gives out: what a GPU reads by itself, for example.
    pub fn with_memory(self, memory: Memory) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// The order of the samples.
    pub fn plan(&self) -> &Plan {
        &self.inner.plan
    }

    /// Rows that are fed in an epoch, over all sources.
    pub fn rows(&self) -> u64 {
        (0..self.inner.plan.sources()).map(|source| self.inner.plan.rows(source)).sum()
    }

    /// What the cache did; none without one.
    pub fn cache(&self) -> Option<Counts> {
        self.inner.cache.as_ref().map(Cache::counts)
    }

    /// Reads that were asked for twice, because the first answer was slow.
    pub fn hedges(&self) -> u64 {
        self.inner.fetch.hedges()
    }

    /// What was taken from storage since the datasets were opened; nothing of local disks.
    pub fn traffic(&self) -> Traffic {
        self.inner.fetch.meter().traffic()
    }

    /// The micro-batches with these indices of the steps from `first_step` to before `end_step`, in the order of
    /// (step, index). An index twice, or one that is no less than K, is the stream's first and only item, an error.
    pub fn stream(&self, runtime: Handle, micro_batches: Vec<u32>, first_step: u64, end_step: u64, options: StreamOptions) -> Stream {
        let recipe = self.inner.recipe.clone();
        match Order::planned(self.inner.plan.clone(), micro_batches, first_step, end_step) {
            Ok(order) => {
                let (fetch, memory) = (self.inner.fetch.clone(), self.memory.clone());
                Stream::start(&runtime, fetch, recipe, order, memory, options).with(self.inner.quarantine.clone())
            }
            Err(error) => Stream::refused(recipe, error),
        }
    }

    /// The rows of micro-batches from a step on, as many as take about so many bytes.
    pub(crate) async fn held(&self, first_step: u64, micro_batches: u64, bytes: u64) -> Result<Vec<Held>> {
        let Inner { plan, fetch, recipe, .. } = self.inner.as_ref();
        let (mut held, mut left) = (Vec::new(), bytes);
        for number in 0..micro_batches {
            let (step, index) = (first_step + number / u64::from(plan.micro_batches()), (number % u64::from(plan.micro_batches())) as u32);
            let draws = plan.micro_batch(step, index).draws;
            let rows = fetch.group(&Demand { draws: &draws, row_bytes: recipe.row_bytes(), steps: step..step + 1 }).await?;
            let size = rows.bytes();
            held.push(Held { draws, rows });
            left = left.saturating_sub(size);
            if left == 0 {
                break;
            }
        }
        Ok(held)
    }

    /// Makes batches of rows that are held, one after the other; returns how many samples they have.
    pub(crate) fn make(&self, held: &[Held]) -> Result<u64> {
        let (mut scratch, mut samples) = (Scratch::new(Pool::default(), WORDS_BYTES), 0);
        for Held { draws, rows } in held {
            let places = rows.places(draws)?;
            let ingredients = Ingredients { draws, places: &places, rows: &rows.batches(), unfit: &rows.unfit };
            let made = self.inner.recipe.make(&ingredients, &mut scratch, &|| false)?;
            samples += made.map_or(0, |made| made.batch.samples() as u64);
        }
        Ok(samples)
    }

    /// The rows of the first source as stored, at most `max_samples` of them, in batches of `batch_size` without
    /// augmentation; the last batch may be smaller.
    pub fn sequential(&self, runtime: Handle, batch_size: usize, max_samples: Option<u64>, options: StreamOptions) -> Sequential {
        let rows = self.inner.fetch.stored_rows().min(max_samples.unwrap_or(u64::MAX));
        let order = Order::Stored { rows, batch_size: batch_size.max(1) as u64 };
        let (fetch, recipe) = (self.inner.fetch.uncached(), self.inner.recipe.plain());
        Sequential::new(Stream::start(&runtime, fetch, recipe, order, self.memory.clone(), options), rows)
    }
}

async fn open_folder(machine: &dyn Machine, folder: &str) -> Result<Arc<dyn Disk>> {
    let path = match (folder.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => Path::new(folder).to_owned(),
    };
    let opened = blocking(machine, move || Folder::open(&path)).await;
    match opened {
        Some(Ok(disk)) => Ok(Arc::new(disk)),
        Some(Err(error)) => {
            Err(Error::Invalid(format!("setting `loader.cache.folder`: found `{folder}`, expected a folder that can be written: {error}")))
        }
        None => Err(Error::Internal("the runtime is shutting down".to_owned())),
    }
}

/// What is in the blocks of each source.
fn names(sources: &[Sourced<'_>], plan: &Plan, split: &str, columns: &[&str]) -> Vec<Digest> {
    let name = |(number, source): (u32, &Sourced<'_>)| {
        let block = plan.places(crate::plan::Block { source: number, number: 0 });
        let selection = plan.selection(number).map_or_else(Vec::new, |digest| digest.as_bytes().to_vec());
        Digest::of_parts([
            source.manifest.identity().as_bytes(),
            split.as_bytes(),
            columns.join(",").as_bytes(),
            &selection[..],
            &(block.end - block.start).to_le_bytes(),
        ])
    };
    (0..).zip(sources).map(name).collect()
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("split", &self.inner.fetch.split()).field("plan", &self.inner.plan).finish_non_exhaustive()
    }
}
