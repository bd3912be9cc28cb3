//! What lies in a dataset's folder on disk, read without the command: manifests and the bytes of tables.
//!
//! The same rows in the same order are the same bytes, so a row that was lost or doubled shows here, whatever a manifest
//! says of itself. Deliberately absent: datasets on S3, and what the bytes mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The manifests of all versions, oldest first.
pub(crate) fn manifests(dataset: &Path) -> Vec<Value> {
    let read = |path: PathBuf| serde_json::from_slice(&std::fs::read(path).expect("manifest")).expect("JSON");
    files(&dataset.join("_forebay/versions")).into_iter().filter(|path| is(path, "json")).map(read).collect()
}

/// The bytes of every part of every table that a manifest names, and of the list of deleted rows.
pub(crate) fn tables(dataset: &Path, manifest: &Value) -> BTreeMap<String, Vec<Vec<u8>>> {
    let tables = manifest["tables"].as_object().expect("tables");
    let read = |path: PathBuf| std::fs::read(path).expect("table");
    let bytes = |table: &Value| {
        let parts = table["parts"].as_array().filter(|parts| !parts.is_empty());
        let parts = parts.cloned().unwrap_or_else(|| vec![table.clone()]);
        let folders = parts.iter().map(|part| dataset.join(part["path"].as_str().expect("path")));
        let mut found: Vec<Vec<u8>> = folders.flat_map(|folder| files(&folder)).filter(|path| is_rows(path)).map(read).collect();
        found.extend(table["deleted"]["path"].as_str().map(|path| read(dataset.join(path))));
        found
    };
    tables.iter().map(|(name, table)| (name.clone(), bytes(table))).collect()
}

/// The folders of tables with something in them, committed or not.
pub(crate) fn attempts(dataset: &Path) -> usize {
    let folders = std::fs::read_dir(dataset.join("tables")).into_iter().flatten().flatten();
    folders.filter(|folder| !files(&folder.path()).is_empty()).count()
}

/// All files below a folder, by name.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    let mut found: Vec<PathBuf> = entries.into_iter().flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    found.sort();
    found
}

fn is_rows(path: &Path) -> bool {
    is(path, "lance") || is(path, "parquet")
}

fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}
