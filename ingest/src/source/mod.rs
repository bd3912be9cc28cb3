//! The raw objects of a source and the records in them.
//!
//! Promises: objects and records come in the order of their keys, so that a record's ordinal is a function of the input;
//! what cannot be read becomes a record with a fault, never a gap. Deliberately absent: content; `read` streams that.

use std::ops::Range;
use std::sync::Arc;

use forebay_schemas::dataset::Modality;
use forebay_schemas::id::Digest;
use forebay_schemas::pipeline;
use forebay_store::Location;
use futures::{StreamExt, TryStreamExt};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::Serialize;

use crate::clean::Rejection;
use crate::error::{Error, Kind, Result};
use crate::progress::{Progress, Unit};

mod archive;
pub(crate) mod read;

const TEXT: [&str; 27] = [
    "rs", "py", "c", "h", "cc", "cpp", "hpp", "java", "go", "js", "ts", "rb", "php", "cs", "swift", "kt", "scala", "sh", "sql", "lua", "r",
    "jl", "hs", "md", "rst", "txt", "tex",
];
const IMAGES: [&str; 3] = ["jpg", "jpeg", "png"];

/// How the key of an archive ends.
const ARCHIVE: &str = ".tar";
const ARCHIVES_AT_A_TIME: usize = 4;

/// How many raw bytes and records one task of cleaning takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskSize {
    pub(crate) bytes: u64,
    pub(crate) records: usize,
}

impl Default for TaskSize {
    /// Some seconds of work and one object of output.
    fn default() -> Self {
        Self { bytes: 32 << 20, records: 8192 }
    }
}

/// One raw object.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Object {
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) etag: Option<String>,
    #[serde(skip)]
    pub(crate) path: Path,
}

/// One raw record: an object, or a member of an archive.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) key: String,
    /// Index of the object.
    pub(crate) object: usize,
    /// Its bytes in the object.
    pub(crate) range: Range<u64>,
    /// Why it cannot be read, where that is known before reading.
    pub(crate) fault: Option<Rejection>,
}

/// A listed source.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) url: String,
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Whether a failure to read is the file's own rather than the network's.
    pub(crate) local: bool,
    pub(crate) objects: Vec<Object>,
    pub(crate) records: Vec<Record>,
}

impl Source {
    /// Lists the objects that match, and the records in them.
    pub(crate) async fn list(settings: &pipeline::Source, progress: &dyn Progress) -> Result<Self> {
        progress.stage("list", None, Unit::Records);
        let location = Location::open(&settings.url).await?;
        let include = match settings.include.is_empty() {
            true => usual(settings.modality)?,
            false => globs("source.include", &settings.include)?,
        };
        let exclude = globs("source.exclude", &settings.exclude)?;
        let store = Arc::clone(location.object_store());
        let local = location.url().scheme() == "file";
        let mut objects = Vec::new();
        match single(&location, &store).await {
            Some(object) => objects.push(object),
            None => {
                let mut listed = location.list("");
                while let Some(meta) = listed.try_next().await? {
                    let key = location.relative(&meta.location);
                    if let Some(key) = key.filter(|key| include.is_match(key) && !exclude.is_match(key)) {
                        objects.push(object(key, meta));
                        progress.advance(1);
                    }
                }
            }
        }
        objects.sort_by(|a: &Object, b| a.key.cmp(&b.key));
        if objects.is_empty() {
            let message = format!("source `{}`: found nothing that matches, expected a folder with files or one file", settings.url);
            return Err(Error::new(Kind::Invalid, message));
        }
        let mut source = Self { url: settings.url.clone(), store, local, objects, records: Vec::new() };
        source.records = source.expand(settings, progress).await?;
        Ok(source)
    }

    /// The records in the objects, those of archives from their headers.
    async fn expand(&self, settings: &pipeline::Source, progress: &dyn Progress) -> Result<Vec<Record>> {
        let wanted = usual(settings.modality)?;
        let archives = (0..self.objects.len()).filter(|index| self.objects[*index].key.ends_with(ARCHIVE));
        let lists = archives.map(|index| {
            let (store, object, wanted) = (Arc::clone(&self.store), self.objects[index].clone(), wanted.clone());
            archive::members(store, object, index, wanted)
        });
        let mut lists = futures::stream::iter(lists).buffered(ARCHIVES_AT_A_TIME);
        let mut records = Vec::with_capacity(self.objects.len());
        // In the order of objects, so that a record's ordinal depends on nothing but the keys.
        for (index, object) in self.objects.iter().enumerate() {
            if !object.key.ends_with(ARCHIVE) {
                records.push(Record { key: object.key.clone(), object: index, range: 0..object.size, fault: None });
            } else if let Some(members) = lists.try_next().await? {
                progress.advance(members.len() as u64);
                records.extend(members);
            }
        }
        for record in &mut records {
            let size = record.range.end - record.range.start;
            if record.fault.is_none() && size > settings.max_record.0 {
                record.fault = Some(Rejection::new("too_large", format!("{size} bytes")));
            }
        }
        if records.is_empty() {
            return Err(Error::new(Kind::Invalid, format!("source `{}`: found no record in its archives", self.url)));
        }
        Ok(records)
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

    /// All records, cut into runs of about `size`.
    pub(crate) fn tasks(&self, size: TaskSize) -> Vec<Range<usize>> {
        let mut tasks = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (index, record) in self.records.iter().enumerate() {
            bytes += record.range.end - record.range.start;
            if bytes >= size.bytes || index + 1 - start >= size.records || index + 1 == self.records.len() {
                tasks.push(start..index + 1);
                (start, bytes) = (index + 1, 0);
            }
        }
        tasks
    }
}

/// The reason of a fault of this module, as it comes back from the column it was written to.
pub(crate) fn known_reason(reason: &str) -> &'static str {
    const REASONS: [&str; 4] = ["unreadable", "too_large", "corrupt_archive", "not_a_file"];
    REASONS.into_iter().find(|known| *known == reason).unwrap_or("unreadable")
}

/// A set of globs of a setting, in which `*` stops at `/`.
pub(crate) fn globs(setting: &str, patterns: &[String]) -> Result<GlobSet> {
    set(setting, patterns.iter().map(String::as_str), false)
}

/// The path of a record in its archive; none for a record that is an object itself.
pub(crate) fn path_in_archive(key: &str) -> Option<&str> {
    key.split_once(".tar#").map(|(_, member)| member)
}

/// The digest that names the inputs.
pub(crate) fn digest(manifest: &[u8]) -> Digest {
    Digest::of(manifest)
}

fn usual(modality: Modality) -> Result<GlobSet> {
    let (extensions, archives): (&[&str], &str) = match modality {
        Modality::Text => (&TEXT, ""),
        Modality::Images => (&IMAGES, ",tar"),
    };
    let pattern = format!("**/*.{{{}{archives}}}", extensions.join(","));
    set("source.include", [pattern.as_str()].into_iter(), true)
}

fn set<'a>(setting: &str, patterns: impl Iterator<Item = &'a str>, any_case: bool) -> Result<GlobSet> {
    let invalid = |error: globset::Error| Error::with_source(Kind::Invalid, format!("setting `{setting}`: expected globs"), error);
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        builder.add(GlobBuilder::new(pattern).literal_separator(true).case_insensitive(any_case).build().map_err(invalid)?);
    }
    builder.build().map_err(invalid)
}

/// The source itself, if it is one object.
async fn single(location: &Location, store: &Arc<dyn ObjectStore>) -> Option<Object> {
    let path = location.path("");
    let key = path.filename()?.to_owned();
    let meta = store.head(&path).await.ok()?;
    Some(object(key, meta))
}

fn object(key: String, meta: ObjectMeta) -> Object {
    Object { key, size: meta.size, etag: meta.e_tag, path: meta.location }
}
