//! The raw objects of a source.
//!
//! Promises: objects come in the order of their keys, and records in the order in which they lie in them, so that a
//! record's ordinal is a function of the input; what cannot be read becomes a record with a fault, never a gap.
//! Deliberately absent: content; `read` streams that.

use std::collections::HashSet;
use std::ops::Range;

use forebay_schemas::dataset::Modality;
use forebay_schemas::id::Digest;
use forebay_schemas::pipeline;
use forebay_store::Location;
use futures::TryStreamExt;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::progress::{Progress, Unit};

mod container;
mod fault;
mod format;
mod lance;
pub(crate) mod named;
mod open;
pub(crate) mod raw;
pub(crate) mod read;

const TEXT: [&str; 27] = [
    "rs", "py", "c", "h", "cc", "cpp", "hpp", "java", "go", "js", "ts", "rb", "php", "cs", "swift", "kt", "scala", "sh", "sql", "lua", "r",
    "jl", "hs", "md", "rst", "txt", "tex",
];
/// Formats of text that hold many records, or need more than a character set to be read.
const TEXT_FORMATS: [&str; 13] =
    ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "html", "htm", "xhtml", "xml", "warc", "arc", "lance"];
const IMAGES: [&str; 6] = ["jpg", "jpeg", "png", "webp", "gif", "bmp"];
const ARCHIVES: [&str; 3] = ["tar", "zip", "tgz"];
const CODECS: [&str; 4] = ["gz", "zst", "bz2", "xz"];

/// How many raw bytes and objects one task of cleaning takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskSize {
    pub(crate) bytes: u64,
    pub(crate) objects: usize,
}

impl Default for TaskSize {
    /// Some seconds of work.
    fn default() -> Self {
        Self { bytes: 32 << 20, objects: 8192 }
    }
}

/// One raw object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Object {
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) etag: Option<String>,
    /// Of a folder that is a Lance table: the version that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lance_version: Option<u64>,
    #[serde(skip)]
    pub(crate) path: Path,
}

/// A listed source.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) settings: pipeline::Source,
    pub(crate) location: Location,
    /// Whether a failure to read is the file's own rather than the network's.
    pub(crate) local: bool,
    /// All objects.
    pub(crate) objects: Vec<Object>,
    /// Those that are to be read, a part of all.
    pub(crate) fresh: Vec<Object>,
}

impl Source {
    /// Lists the objects that match.
    pub(crate) async fn list(settings: &pipeline::Source, progress: &dyn Progress) -> Result<Self> {
        progress.stage("list", None, Unit::Records);
        let location = Location::open(&settings.url).await?;
        let include = match settings.include.is_empty() {
            true => usual(settings.modality)?,
            false => globs("source.include", &settings.include)?,
        };
        let exclude = globs("source.exclude", &settings.exclude)?;
        let local = location.url().scheme() == "file";
        let mut objects = Vec::new();
        match single(&location).await {
            Some(object) => objects.push(object),
            None => {
                let mut tables = lance::Tables::default();
                let is_wanted = |key: &str| include.is_match(key) && !exclude.is_match(key);
                let mut listed = location.list("");
                while let Some(meta) = listed.try_next().await? {
                    let Some(key) = location.relative(&meta.location) else { continue };
                    tables.see(&key, &meta);
                    if is_wanted(&key) {
                        objects.push(object(key, meta));
                        progress.advance(1);
                    }
                }
                // The files that a table is made of are not read one by one.
                objects.retain(|object: &Object| !tables.holds(&object.key));
                objects
                    .extend(tables.objects(&location).into_iter().filter(|table| table.path == location.path("") || is_wanted(&table.key)));
            }
        }
        objects.sort_by(|a: &Object, b| a.key.cmp(&b.key));
        if objects.is_empty() {
            let message = format!("source `{}`: found nothing that matches, expected a folder with files or one file", settings.url);
            return Err(Error::new(Kind::Invalid, message));
        }
        Ok(Self { settings: settings.clone(), location, local, fresh: objects.clone(), objects })
    }

    /// Leaves out of what is to be read the objects of an earlier list. False, and nothing is left out, unless all of
    /// that list are still there as they were: what came from an object that is gone cannot be taken back one by one.
    pub(crate) fn skip(&mut self, earlier: &[u8]) -> Result<bool> {
        let malformed = |error| Error::with_source(Kind::Corrupt, "the list of an earlier version's inputs is malformed", error);
        let lines = earlier.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let known: HashSet<Object> = lines.map(serde_json::from_slice).collect::<std::result::Result<_, _>>().map_err(malformed)?;
        let is_known = |object: &Object| known.contains(&Object { path: Path::default(), ..object.clone() });
        let fresh: Vec<Object> = self.objects.iter().filter(|object| !is_known(object)).cloned().collect();
        if fresh.len() + known.len() != self.objects.len() {
            return Ok(false);
        }
        self.fresh = fresh;
        Ok(true)
    }

    /// The objects, one JSON object a line; its digest is that of the inputs.
    pub(crate) fn manifest(&self) -> Result<Vec<u8>> {
        let mut lines = Vec::new();
        for object in &self.objects {
            serde_json::to_writer(&mut lines, object).map_err(|error| Error::internal("writing the list of inputs failed", error))?;
            lines.push(b'\n');
        }
        Ok(lines)
    }

    /// Size of all objects.
    pub(crate) fn bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.size).sum()
    }

    /// The objects that are to be read, cut into runs of about `size`.
    pub(crate) fn tasks(&self, size: TaskSize) -> Vec<Range<usize>> {
        let mut tasks = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (index, object) in self.fresh.iter().enumerate() {
            bytes += object.size;
            if bytes >= size.bytes || index + 1 - start >= size.objects || index + 1 == self.fresh.len() {
                tasks.push(start..index + 1);
                (start, bytes) = (index + 1, 0);
            }
        }
        tasks
    }
}

/// A set of globs of a setting, in which `*` stops at `/`.
pub(crate) fn globs(setting: &str, patterns: &[String]) -> Result<GlobSet> {
    set(setting, patterns.iter().map(String::as_str), false)
}

/// The digest that names the inputs.
pub(crate) fn digest(manifest: &[u8]) -> Digest {
    Digest::of(manifest)
}

fn usual(modality: Modality) -> Result<GlobSet> {
    let extensions = match modality {
        Modality::Text => [&TEXT[..], &TEXT_FORMATS, &ARCHIVES].concat(),
        Modality::Images => [&IMAGES[..], &ARCHIVES, &["parquet"]].concat(),
    };
    let pattern = format!("**/*.{{{}}}{{,.{}}}", extensions.join(","), CODECS.join(",."));
    set("source.include", [pattern.as_str()].into_iter(), true)
}

fn set<'a>(setting: &str, patterns: impl Iterator<Item = &'a str>, any_case: bool) -> Result<GlobSet> {
    let invalid = |error: globset::Error| Error::with_source(Kind::Invalid, format!("setting `{setting}`: expected globs"), error);
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern).literal_separator(true).case_insensitive(any_case).empty_alternates(true).build();
        builder.add(glob.map_err(invalid)?);
    }
    builder.build().map_err(invalid)
}

/// The source itself, if it is one object.
async fn single(location: &Location) -> Option<Object> {
    let path = location.path("");
    let key = path.filename()?.to_owned();
    let meta = location.object_store().head(&path).await.ok()?;
    Some(object(key, meta))
}

fn object(key: String, meta: ObjectMeta) -> Object {
    Object { key, size: meta.size, etag: meta.e_tag, lance_version: None, path: meta.location }
}
