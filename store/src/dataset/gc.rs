//! Garbage: what a crashed writer left behind, found as objects that no version names.
//!
//! Careful by design: only `objects/`, `tables/`, the folders of tables that some version names, those of stage objects,
//! what filters left of versions, and probes are looked at, so that whatever else somebody keeps below the root stays; nothing
//! younger than the grace is touched; a Lance table goes or stays as a whole. Files on a local disk that were to become
//! objects count as objects.
//! Deliberately absent: versions, which are never deleted.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime};

use forebay_schemas::dataset::{CleanedTask, DatasetManifest, TableFormat, TableRef};
use futures::TryStreamExt;

use super::{CLEANED, Dataset, GcReport, OBJECTS, SELECTIONS, TABLES, WORK};
use crate::commit::PROBES;
use crate::error::Result;

/// Folders that only a Lance table has; what stands before them is its root.
const LANCE_FOLDERS: [&str; 5] = ["/_versions/", "/_transactions/", "/data/", "/_deletions/", "/_indices/"];

pub(super) async fn gc(dataset: &Dataset, grace: Duration, delete: bool) -> Result<GcReport> {
    // Listed before the manifests are read: what is committed in between is named by then.
    let found = list(dataset).await?;
    let versions = dataset.log().await?;
    let cutoff = SystemTime::now().checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut kept = named_stages(dataset, &versions).await?;
    kept.extend(versions.iter().map(|version| format!("{SELECTIONS}/{}", version.identity())));
    let garbage = garbage(&versions, &kept, &found, cutoff);
    let report = GcReport { objects: garbage.len() as u64, bytes: garbage.iter().map(|object| object.bytes).sum(), deleted: delete };
    if delete {
        for object in garbage {
            match object.is_staged {
                true => dataset.location().delete_staged(&object.path)?,
                false => dataset.location().delete(&object.path).await?,
            }
        }
    }
    Ok(report)
}

struct Object {
    path: String,
    bytes: u64,
    modified: SystemTime,
    is_staged: bool,
}

async fn list(dataset: &Dataset) -> Result<Vec<Object>> {
    let mut folders: HashSet<String> = [OBJECTS, TABLES, PROBES, CLEANED, WORK, SELECTIONS].map(str::to_owned).into();
    for version in dataset.log().await? {
        let tables = version.tables.values().flat_map(TableRef::plain);
        folders.extend(tables.map(|table| table.path.split('/').next().unwrap_or_default().to_owned()));
    }
    let mut objects = Vec::new();
    for folder in folders.iter().filter(|folder| !folder.is_empty()) {
        let mut listed = dataset.location().list(folder);
        while let Some(meta) = listed.try_next().await? {
            if let Some(path) = dataset.location().relative(&meta.location) {
                objects.push(Object { path, bytes: meta.size, modified: meta.last_modified.into(), is_staged: false });
            }
        }
        let staged = dataset.location().staged(folder)?.into_iter();
        objects.extend(staged.map(|file| Object { path: file.relative, bytes: file.bytes, modified: file.modified, is_staged: true }));
    }
    Ok(objects)
}

/// Folders of stage objects that some version builds upon.
async fn named_stages(dataset: &Dataset, versions: &[DatasetManifest]) -> Result<HashSet<String>> {
    let mut folders = HashSet::new();
    for list in versions.iter().filter_map(|version| version.cleaned.as_ref()) {
        let bytes = dataset.get_object(list).await?;
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let task: CleanedTask =
                serde_json::from_slice(line).map_err(|error| dataset.location().corrupt(&list.path, format!("is malformed: {error}")))?;
            folders.insert(task.folder);
        }
    }
    Ok(folders)
}

fn garbage<'a>(versions: &[DatasetManifest], kept: &HashSet<String>, found: &'a [Object], cutoff: SystemTime) -> Vec<&'a Object> {
    let mut named: HashSet<&str> = HashSet::new();
    let mut lance: Vec<&str> = Vec::new();
    for version in versions {
        let objects = version.cleaned.iter().chain(&version.statistics.token_counts).chain([&version.inputs.list]);
        let objects = objects.chain(version.tokenizer.iter().map(|tokenizer| &tokenizer.object));
        named.extend(objects.chain(version.tables.values().filter_map(|table| table.deleted.as_ref())).map(|object| object.path.as_str()));
        for table in version.tables.values().flat_map(TableRef::plain) {
            named.extend(table.files.iter().map(|file| file.object.path.as_str()));
            if table.format == TableFormat::Lance {
                lance.push(&table.path);
            }
        }
    }
    let is_below = |path: &str, folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    let unnamed = found.iter().filter(|object| {
        let path = object.path.as_str();
        !named.contains(path) && !lance.iter().any(|table| is_below(path, table)) && !kept.iter().any(|folder| is_below(path, folder))
    });

    let mut groups: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
    for object in unnamed {
        let root = LANCE_FOLDERS.iter().filter_map(|folder| object.path.find(folder)).min();
        groups.entry(root.map_or(object.path.as_str(), |end| &object.path[..end])).or_default().push(object);
    }
    groups.into_values().filter(|group| group.iter().all(|object| object.modified < cutoff)).flatten().collect()
}
