//! Dataset versions: open, commit, log, diff, tag, gc.
//!
//! Layout below the root: `_forebay/versions/{version:020}.json` are the manifests, `_forebay/tags/{tag}.json` the tags,
//! `objects/{digest}{suffix}` content-named objects, `tables/…` the tables, `cleaned/…` and `_work/…` stage objects of
//! ingest. Promises: a version is there with its
//! manifest and never changes; versions are numbered without gaps; a tally that does not add up is not committed.
//! Deliberately absent: how rows are made.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_schemas::Digest;
use forebay_schemas::dataset::{DatasetManifest, FORMAT, ObjectRef, TableFormat, TableRef, Tally};
use futures::{StreamExt, TryStreamExt};

use crate::commit::{self, Journal, Outcome};
use crate::error::{Error, Kind, Result};
use crate::location::{Location, Watch};
use crate::manifest;
use crate::table::{self, Tables};

mod diff;
mod gc;
mod tag;

const VERSIONS: &str = "_forebay/versions";
const OBJECTS: &str = "objects";
const READS_IN_FLIGHT: usize = 8;

/// The folder below a dataset's root where tables should be written; [`Dataset::gc`] looks there for what nobody names.
pub const TABLES: &str = "tables";

/// The folder below a dataset's root of the stage objects of cleaning that later versions build upon.
pub const CLEANED: &str = "cleaned";

/// The folder below a dataset's root of stage objects that go when the job is done.
pub const WORK: &str = "_work";

/// The folder below a dataset's root of the rows that filters left of a version, each version's in a folder of its identity.
pub const SELECTIONS: &str = "_forebay/selections";

/// A dataset: a folder with committed versions.
#[derive(Clone, Debug)]
pub struct Dataset {
    location: Location,
    versions: Journal,
}

/// Which version is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionSpec {
    /// The newest.
    Latest,
    /// By number.
    Number(u64),
    /// By tag.
    Tag(String),
}

impl FromStr for VersionSpec {
    type Err = Error;
    /// `latest`, a number (`3`, also `v3`), or a tag.
    fn from_str(text: &str) -> Result<Self> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Some(number) = tag::number(text) {
            return Ok(Self::Number(number));
        }
        tag::check(text)?;
        Ok(Self::Tag(text.to_owned()))
    }
}

impl fmt::Display for VersionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Tag(tag) => f.write_str(tag),
        }
    }
}

/// What changed between two versions.
#[derive(Clone, Debug, serde::Serialize)]
pub struct VersionDiff {
    /// Older version.
    pub from: u64,
    /// Newer version.
    pub to: u64,
    /// Records kept in `to` and not in `from`, by content id.
    pub added: u64,
    /// Records kept in `from` and not in `to`.
    pub removed: u64,
    /// Records kept in both.
    pub unchanged: u64,
    /// Input objects by change: `added`, `removed`, `changed`, `unchanged`.
    pub inputs: BTreeMap<String, u64>,
    /// Tallies of both.
    pub tallies: [Tally; 2],
    /// Configuration keys (dotted) whose value differs: key -> (from, to).
    pub config: BTreeMap<String, (serde_json::Value, serde_json::Value)>,
}

/// What gc found.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct GcReport {
    /// Objects that no version names.
    pub objects: u64,
    /// Their size.
    pub bytes: u64,
    /// Whether they were deleted.
    pub deleted: bool,
}

impl Dataset {
    /// Opens a dataset to read; `NotFound` if it has no version.
    pub async fn open(url: &str) -> Result<Self> {
        let dataset = Self::at_location(Location::open(url).await?);
        if dataset.versions.numbers().await?.is_empty() {
            return Err(dataset.error(Kind::NotFound, "not found: no version was ever committed there"));
        }
        Ok(dataset)
    }

    /// Opens a dataset to write, existing or not; refuses a store without put-if-absent.
    pub async fn create(url: &str) -> Result<Self> {
        let location = Location::open(url).await?;
        commit::require_put_if_absent(&location).await?;
        Ok(Self::at_location(location))
    }

    /// The dataset at a location, unchecked: neither that it has a version nor what its store can do.
    pub fn at_location(location: Location) -> Self {
        Self { versions: Journal::new(location.child(VERSIONS)), location }
    }

    /// The same dataset, where `watch` is told of every read; one on a local disk is not watched.
    pub fn watched(&self, watch: Arc<dyn Watch>) -> Self {
        Self::at_location(self.location.watched(watch))
    }

    /// The dataset's root.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// All versions, ascending.
    pub async fn log(&self) -> Result<Vec<DatasetManifest>> {
        let numbers = self.versions.numbers().await?;
        futures::stream::iter(numbers).map(|number| self.must_find(number)).buffered(READS_IN_FLIGHT).try_collect().await
    }

    /// The newest version, if there is one.
    pub async fn latest(&self) -> Result<Option<DatasetManifest>> {
        match self.versions.numbers().await?.last() {
            Some(number) => self.must_find(*number).await.map(Some),
            None => Ok(None),
        }
    }

    /// The version that `spec` means; `NotFound` says which there are.
    pub async fn resolve(&self, spec: &VersionSpec) -> Result<DatasetManifest> {
        let found = match spec {
            VersionSpec::Latest => self.latest().await?,
            VersionSpec::Number(number) => self.find(*number).await?,
            VersionSpec::Tag(tag) => match self.tagged(tag).await? {
                Some(number) => Some(self.must_find(number).await?),
                None => None,
            },
        };
        match found {
            Some(manifest) => Ok(manifest),
            None => Err(self.missing(spec).await?),
        }
    }

    /// Puts the manifest as version `manifest.version` if absent. Refuses (`Invalid`) one whose tally is not conserved.
    pub async fn commit(&self, manifest: &DatasetManifest) -> Result<Outcome> {
        let version = manifest.version;
        let refuse = |why: String| Err(self.error(Kind::Invalid, format!("version {version} is not committed: {why}")));
        if !manifest.tally.is_conserved() {
            let Tally { read, kept, .. } = manifest.tally;
            let (removed, quarantined) = (manifest.tally.removed_total(), manifest.tally.quarantined_total());
            return refuse(format!("read {read} records, expected kept {kept} + removed {removed} + quarantined {quarantined}"));
        }
        if manifest.format != FORMAT {
            return refuse(format!("its format is {}, expected {FORMAT}", manifest.format));
        }
        let parent = version.checked_sub(1).filter(|parent| *parent > 0);
        if version == 0 || manifest.parent != parent {
            return refuse(format!("its parent is {:?}, expected the version before it", manifest.parent));
        }
        if let Some(parent) = parent
            && self.versions.location().head(&Journal::name(parent)).await?.is_none()
        {
            return refuse(format!("its parent, version {parent}, does not exist"));
        }
        self.versions.append(version, manifest::encode(manifest)?).await
    }

    /// Stores a content-named object (`objects/{digest}{suffix}`) for a manifest to name.
    pub async fn put_object(&self, bytes: Bytes, suffix: &str) -> Result<ObjectRef> {
        let digest = Digest::of(&bytes);
        let object = ObjectRef { path: format!("{OBJECTS}/{digest}{suffix}"), bytes: bytes.len() as u64, digest };
        self.location.put(&object.path, bytes).await?;
        Ok(object)
    }

    /// The bytes of an object, checked against its digest.
    pub async fn get_object(&self, object: &ObjectRef) -> Result<Bytes> {
        manifest::get_checked(&self.location, object).await
    }

    /// Tables of this dataset in a format.
    pub fn tables(&self, format: TableFormat) -> Arc<dyn Tables> {
        table::tables(self.location.clone(), format)
    }

    /// The table that `parent` and `part` make together, less the rows `deleted` of the parent, which ascend and count the
    /// rows as they are read. Nothing is rewritten: the parts stay as they are, the deleted rows are listed.
    pub async fn extend_table(&self, parent: &TableRef, deleted: &[u64], part: TableRef) -> Result<TableRef> {
        let before = table::deleted(&self.location, parent).await?;
        let mut all: Vec<u64> = deleted.iter().map(|row| table::undeleted(&before, *row)).collect();
        all.extend(before);
        all.sort_unstable();
        let mut parts = parent.plain().to_vec();
        parts.extend(Some(part.clone()).filter(|part| part.rows > 0));
        let rows = parts.iter().map(|part| part.rows).sum::<u64>() - all.len() as u64;
        let deleted = match all.is_empty() {
            true => None,
            false => Some(self.put_object(all.iter().flat_map(|row| row.to_le_bytes()).collect::<Vec<u8>>().into(), ".rows").await?),
        };
        Ok(TableRef { rows, parts, deleted, files: Vec::new(), lance_version: None, ..part })
    }

    /// Names a version; a tag is put if absent, and `Conflict` if it names another version. Tags are letters, digits, `-_.`, not a number, not `latest`.
    pub async fn tag(&self, tag: &str, version: u64) -> Result<()> {
        self.put_tag(tag, version).await
    }

    /// Takes a tag away.
    pub async fn untag(&self, tag: &str) -> Result<()> {
        self.delete_tag(tag).await
    }

    /// All tags and the versions they name.
    pub async fn tags(&self) -> Result<BTreeMap<String, u64>> {
        self.read_tags().await
    }

    /// What changed from version `from` to version `to`.
    pub async fn diff(&self, from: u64, to: u64) -> Result<VersionDiff> {
        let from = self.resolve(&VersionSpec::Number(from)).await?;
        let to = self.resolve(&VersionSpec::Number(to)).await?;
        diff::diff(self, &from, &to).await
    }

    /// Finds objects that no version names and that are older than `grace`; deletes them if `delete`.
    pub async fn gc(&self, grace: Duration, delete: bool) -> Result<GcReport> {
        gc::gc(self, grace, delete).await
    }

    async fn find(&self, number: u64) -> Result<Option<DatasetManifest>> {
        let Some(bytes) = self.versions.get(number).await? else { return Ok(None) };
        let name = Journal::name(number);
        let manifest: DatasetManifest = manifest::decode(self.versions.location(), &name, &bytes, FORMAT)?;
        if manifest.version != number {
            return Err(self.versions.location().corrupt(&name, format!("is of version {}, expected {number}", manifest.version)));
        }
        Ok(Some(manifest))
    }

    async fn must_find(&self, number: u64) -> Result<DatasetManifest> {
        let found = self.find(number).await?;
        found.ok_or_else(|| self.versions.location().corrupt(&Journal::name(number), "is missing, expected the manifest of a version"))
    }

    async fn missing(&self, spec: &VersionSpec) -> Result<Error> {
        let numbers = self.versions.numbers().await?;
        let tags: Vec<String> = self.read_tags().await?.iter().map(|(tag, number)| format!("{tag} ({number})")).collect();
        let versions = match (numbers.first(), numbers.last()) {
            (Some(first), Some(last)) if first != last => format!("there are versions {first} to {last}"),
            (Some(only), _) => format!("there is version {only}"),
            _ => "there is no version".to_owned(),
        };
        let tags = if tags.is_empty() { "no tags".to_owned() } else { format!("tags {}", tags.join(", ")) };
        Ok(self.error(Kind::NotFound, format!("version `{spec}` not found: {versions} and {tags}")))
    }

    fn error(&self, kind: Kind, message: impl fmt::Display) -> Error {
        Error::new(kind, format!("dataset `{}`: {message}", self.location))
    }
}
