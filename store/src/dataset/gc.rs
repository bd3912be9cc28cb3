//! Garbage: what a crashed writer left behind, found as objects that no version names.
//!
//! Careful by design: only `objects/`, `tables/`, the folders of tables that some version names, and probes are looked
//! at, so that whatever else somebody keeps below the root stays; nothing younger than the grace is touched; a Lance
//! table goes or stays as a whole. Deliberately absent: versions, which are never deleted.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime};

use forebay_schemas::dataset::{DatasetManifest, TableFormat};
use futures::TryStreamExt;

use super::{Dataset, GcReport, OBJECTS, TABLES};
use crate::commit::PROBES;
use crate::error::Result;

/// Folders that only a Lance table has; what stands before them is its root.
const LANCE_FOLDERS: [&str; 5] = ["/_versions/", "/_transactions/", "/data/", "/_deletions/", "/_indices/"];

pub(super) async fn gc(dataset: &Dataset, grace: Duration, delete: bool) -> Result<GcReport> {
    // Listed before the manifests are read: what is committed in between is named by then.
    let found = list(dataset).await?;
    let versions = dataset.log().await?;
    let cutoff = SystemTime::now().checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH);
    let garbage = garbage(&versions, &found, cutoff);
    let report = GcReport { objects: garbage.len() as u64, bytes: garbage.iter().map(|object| object.bytes).sum(), deleted: delete };
    if delete {
        for object in garbage {
            dataset.location().delete(&object.path).await?;
        }
    }
    Ok(report)
}

struct Object {
    path: String,
    bytes: u64,
    modified: SystemTime,
}

async fn list(dataset: &Dataset) -> Result<Vec<Object>> {
    let mut folders: HashSet<String> = [OBJECTS, TABLES, PROBES].map(str::to_owned).into();
    for version in dataset.log().await? {
        folders.extend(version.tables.values().map(|table| table.path.split('/').next().unwrap_or_default().to_owned()));
    }
    let mut objects = Vec::new();
    for folder in folders.iter().filter(|folder| !folder.is_empty()) {
        let mut listed = dataset.location().list(folder);
        while let Some(meta) = listed.try_next().await? {
            if let Some(path) = dataset.location().relative(&meta.location) {
                objects.push(Object { path, bytes: meta.size, modified: meta.last_modified.into() });
            }
        }
    }
    Ok(objects)
}

fn garbage<'a>(versions: &[DatasetManifest], found: &'a [Object], cutoff: SystemTime) -> Vec<&'a Object> {
    let mut named: HashSet<&str> = HashSet::new();
    let mut lance: Vec<&str> = Vec::new();
    for version in versions {
        named.insert(&version.inputs.list.path);
        named.extend(version.tokenizer.iter().map(|tokenizer| tokenizer.object.path.as_str()));
        for table in version.tables.values() {
            named.extend(table.files.iter().map(|file| file.object.path.as_str()));
            if table.format == TableFormat::Lance {
                lance.push(&table.path);
            }
        }
    }
    let is_below = |path: &str, folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    let unnamed =
        found.iter().filter(|object| !named.contains(object.path.as_str()) && !lance.iter().any(|table| is_below(&object.path, table)));

    let mut groups: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
    for object in unnamed {
        let root = LANCE_FOLDERS.iter().filter_map(|folder| object.path.find(folder)).min();
        groups.entry(root.map_or(object.path.as_str(), |end| &object.path[..end])).or_default().push(object);
    }
    groups.into_values().filter(|group| group.iter().all(|object| object.modified < cutoff)).flatten().collect()
}
