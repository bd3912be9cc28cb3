//! Checkpoints of a run: stage, publish, list, open, verify, retain.
//!
//! Promises: a checkpoint is visible only with all its objects in full size; publishing twice is publishing once;
//! retention never takes an object that a remaining checkpoint names or that a writer may still publish.
//! Deliberately absent: what the objects hold.

use std::collections::HashSet;

use bytes::Bytes;
use forebay_schemas::Digest;
use forebay_schemas::checkpoint::{CheckpointManifest, FORMAT};
use forebay_schemas::dataset::ObjectRef;
use futures::{StreamExt, TryStreamExt};

use crate::commit::{Journal, Outcome};
use crate::error::{Error, Kind, Result};
use crate::location::Location;
use crate::manifest;

const MANIFESTS: &str = "manifests";
const OBJECTS: &str = "objects";
const READS_IN_FLIGHT: usize = 8;

/// The checkpoints of one run, in the folder `{checkpoints}/{run}`.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    location: Location,
    journal: Journal,
}

impl Checkpoints {
    /// The checkpoints of `run` below `url`. Reads nothing.
    pub async fn open(url: &str, run: &str) -> Result<Self> {
        check_name("run", run)?;
        Ok(Self::at_location(Location::open(url).await?.child(run)))
    }

    /// The checkpoints in the folder of a run.
    pub fn at_location(location: Location) -> Self {
        Self { journal: Journal::new(location.child(MANIFESTS)), location }
    }

    /// Names of all runs below `url` that have something stored.
    pub async fn runs(url: &str) -> Result<Vec<String>> {
        Location::open(url).await?.folders("").await
    }

    /// The run's folder; the coordinator keeps its journal in `journal/` below it.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Writes an object under a name that no other writer uses: `objects/{step:020}-{generation}-{writer}-{name}`. Invisible until published.
    pub async fn stage(&self, step: u64, generation: u64, writer: &str, name: &str, bytes: Bytes) -> Result<ObjectRef> {
        check_name("writer", writer)?;
        check_name("object", name)?;
        let path = format!("{OBJECTS}/{step:020}-{generation}-{writer}-{name}");
        let hashed = bytes.clone();
        let digest = tokio::task::spawn_blocking(move || Digest::of(&hashed));
        let size = bytes.len() as u64;
        self.location.put(&path, bytes).await?;
        let digest = digest.await.map_err(|error| Error::new(Kind::Internal, format!("hashing ended early: {error}")))?;
        Ok(ObjectRef { path, bytes: size, digest })
    }

    /// Puts the manifest of its step if absent, after checking that its objects are there in full size.
    pub async fn publish(&self, manifest: &CheckpointManifest) -> Result<Outcome> {
        for object in objects(manifest) {
            match self.location.head(&object.path).await? {
                Some(meta) if meta.size == object.bytes => {}
                Some(meta) => {
                    return Err(self.location.corrupt(&object.path, format!("has {} bytes, expected {}", meta.size, object.bytes)));
                }
                None => {
                    let name = self.location.named(&object.path);
                    return Err(Error::new(Kind::NotFound, format!("{name}: not found, expected it before its checkpoint is published")));
                }
            }
        }
        self.journal.append(manifest.position.step, manifest::encode(manifest)?).await
    }

    /// All checkpoints, ascending by step.
    pub async fn log(&self) -> Result<Vec<CheckpointManifest>> {
        let steps = self.journal.numbers().await?;
        let manifests = futures::stream::iter(steps).map(|step| self.find(step)).buffered(READS_IN_FLIGHT);
        // One that retention took since the listing is not there any more, and that is no error.
        manifests.try_filter_map(|found| async move { Ok(found) }).try_collect().await
    }

    /// The newest, if there is one.
    pub async fn latest(&self) -> Result<Option<CheckpointManifest>> {
        match self.journal.numbers().await?.last() {
            Some(step) => self.find(*step).await,
            None => Ok(None),
        }
    }

    /// The one of `step`; `NotFound` says which there are.
    pub async fn at(&self, step: u64) -> Result<CheckpointManifest> {
        if let Some(manifest) = self.find(step).await? {
            return Ok(manifest);
        }
        let steps: Vec<String> = self.journal.numbers().await?.iter().map(u64::to_string).collect();
        let there = if steps.is_empty() { "there are none".to_owned() } else { format!("there are {}", steps.join(", ")) };
        Err(Error::new(Kind::NotFound, format!("checkpoint of step {step} of `{}`: not found, {there}", self.location)))
    }

    /// The bytes of an object, checked against size and digest (`Corrupt` names the object, what was found and expected).
    pub async fn get(&self, object: &ObjectRef) -> Result<Bytes> {
        match manifest::get_checked(&self.location, object).await {
            Err(error) if error.kind() == Kind::NotFound => {
                Err(self.location.corrupt(&object.path, format!("is missing, expected {} bytes", object.bytes)))
            }
            other => other,
        }
    }

    /// Reads every object of a checkpoint and checks it.
    pub async fn verify(&self, manifest: &CheckpointManifest) -> Result<()> {
        for object in objects(manifest) {
            self.get(object).await?;
        }
        Ok(())
    }

    /// Deletes all but the `keep` newest (0 keeps all): manifest first, then objects that no remaining manifest names.
    /// Gives the number of checkpoints deleted. Objects of the newest step and later stay, somebody may be about to publish them.
    pub async fn retain(&self, keep: usize) -> Result<usize> {
        let steps = self.journal.numbers().await?;
        let Some(newest) = steps.last().copied() else { return Ok(0) };
        let drop = if keep == 0 { 0 } else { steps.len().saturating_sub(keep) };
        for step in &steps[..drop] {
            self.journal.location().delete(&Journal::name(*step)).await?;
        }
        if keep == 0 {
            return Ok(0);
        }
        let remaining = self.log().await?;
        let named: HashSet<&str> = remaining.iter().flat_map(objects).map(|object| object.path.as_str()).collect();
        let mut found = self.location.list(OBJECTS);
        while let Some(meta) = found.try_next().await? {
            let Some(path) = self.location.relative(&meta.location) else { continue };
            if !named.contains(path.as_str()) && staged_step(&path).is_some_and(|step| step < newest) {
                self.location.delete(&path).await?;
            }
        }
        Ok(drop)
    }

    async fn find(&self, step: u64) -> Result<Option<CheckpointManifest>> {
        let Some(bytes) = self.journal.get(step).await? else { return Ok(None) };
        let name = Journal::name(step);
        let manifest: CheckpointManifest = manifest::decode(self.journal.location(), &name, &bytes, FORMAT)?;
        if manifest.position.step != step {
            return Err(self.journal.location().corrupt(&name, format!("is of step {}, expected {step}", manifest.position.step)));
        }
        Ok(Some(manifest))
    }
}

fn objects(manifest: &CheckpointManifest) -> [&ObjectRef; 2] {
    [&manifest.model, &manifest.optimizer]
}

fn staged_step(path: &str) -> Option<u64> {
    path.strip_prefix(OBJECTS)?.strip_prefix('/')?.split('-').next()?.parse().ok()
}

fn check_name(what: &str, name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= 128
        && !name.starts_with('.')
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
    if fits {
        return Ok(());
    }
    Err(Error::new(Kind::Invalid, format!("{what} `{name}`: expected 1 to 128 letters, digits, `-`, `_` or `.`, not starting with `.`")))
}
