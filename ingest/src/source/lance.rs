//! Lance tables as sources: a folder with a table in it is one object, its rows are the records.
//!
//! The newest version at the time of listing is read, whatever is written meanwhile; deleted rows are not. Places are the
//! numbers of the rows, from 1. Deliberately absent: reading the files of a table by themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{FieldRef, Fields, Schema};
use forebay_store::Location;
use forebay_store::table::open_lance;
use futures::TryStreamExt;
use object_store::ObjectMeta;
use tokio::runtime::Handle;

use super::format::columns::{self, Columns, as_view};
use super::raw::{RawRecord, Visit};
use super::{Object, Source};
use crate::clean::Rejection;
use crate::error::{Error, Kind, Result};

/// Lance tables, found by the names of their files.
#[derive(Default)]
pub(super) struct Tables {
    /// Folder -> table.
    found: BTreeMap<String, Found>,
    /// Sizes of what lies in folders called `data`, as a listing may show these first.
    data: BTreeMap<String, u64>,
}

/// The newest version of a table.
struct Found {
    version: u64,
    etag: Option<String>,
}

impl Tables {
    /// Looks at a listed file.
    pub(super) fn see(&mut self, key: &str, meta: &ObjectMeta) {
        if let Some((folder, name)) = split(key, "_versions") {
            let Some(version) = version(name) else { return };
            let found = self.found.entry(folder.to_owned()).or_insert(Found { version, etag: None });
            if version >= found.version {
                *found = Found { version, etag: meta.e_tag.clone() };
            }
        } else if let Some((folder, _)) = split(key, "data") {
            *self.data.entry(folder.to_owned()).or_default() += meta.size;
        }
    }

    /// Whether a file belongs to a table.
    pub(super) fn holds(&self, key: &str) -> bool {
        let mut folders = key.match_indices('/').map(|(at, _)| &key[..at]).chain([""]);
        !self.found.is_empty() && folders.any(|folder| self.found.contains_key(folder))
    }

    /// The tables as objects.
    pub(super) fn objects(self, location: &Location) -> Vec<Object> {
        let own_name = || location.path("").filename().unwrap_or_default().to_owned();
        let object = |(folder, found): (String, Found)| Object {
            size: self.data.get(&folder).copied().unwrap_or(0),
            etag: found.etag,
            lance_version: Some(found.version),
            path: location.path(&folder),
            key: if folder.is_empty() { own_name() } else { folder },
        };
        self.found.into_iter().map(object).collect()
    }
}

/// The folder around a folder `inner` with a file in it, and the file's name.
fn split<'a>(key: &'a str, inner: &str) -> Option<(&'a str, &'a str)> {
    let (folders, name) = key.rsplit_once('/')?;
    let folder = folders.strip_suffix(inner)?;
    (folder.is_empty() || folder.ends_with('/')).then(|| (folder.trim_end_matches('/'), name))
}

/// The version of a manifest: names count upwards, or downwards so that the newest is listed first.
fn version(name: &str) -> Option<u64> {
    let number: u64 = name.strip_suffix(".manifest")?.parse().ok()?;
    Some(if number > u64::MAX / 2 { u64::MAX - number } else { number })
}

/// Gives the rows of a table to `visit` until it breaks.
pub(super) fn read(source: &Source, io: &Handle, object: &Object, version: u64, visit: &mut Visit<'_>) -> Result<()> {
    let settings = &source.settings;
    let wanted = columns::wanted(&settings.formats, settings.modality);
    let fault = |place: String, reason: &'static str, detail: String| RawRecord::fault(place, 0, Rejection::new(reason, detail));
    let folder = source.location.relative(&object.path).unwrap_or_default();
    let mut number = 0u64;
    let reading = async {
        let table = open_lance(&source.location.child(&folder), version).await?;
        let schema = table.schema();
        let tops = wanted.each_ref().map(|path| path.split('.').next().unwrap_or_default());
        let there: Vec<&str> = tops.into_iter().filter(|top| schema.column_with_name(top).is_some()).collect();
        if there.first() != Some(&tops[0]) {
            let told = schema.fields().iter().take(8).map(|field| format!("`{}`", field.name())).collect::<Vec<_>>().join(", ");
            let detail = format!("column `{}`: found only {told}", wanted[0]);
            let _ = visit(fault(String::new(), columns::reason(settings.modality), detail));
            return Ok(());
        }
        let mut rows = table.scan(&there).await?;
        while let Some(batch) = rows.try_next().await? {
            let batch = views(&batch)?;
            let columns = match Columns::of(&batch, &wanted, settings.modality) {
                Ok(columns) => columns,
                Err(rejection) => {
                    let _ = visit(RawRecord::fault(String::new(), 0, rejection));
                    return Ok(());
                }
            };
            for row in 0..batch.num_rows() {
                number += 1;
                if visit(columns.record(row, format!("#{number}"), settings.max_record.0, &[])).is_break() {
                    return Ok(());
                }
            }
        }
        Ok::<_, Error>(())
    };
    match io.block_on(reading) {
        // A table that is damaged, or gone since it was listed, is like any object that is; what was read of it counts.
        Err(error) if source.local || error.kind() != Kind::Unavailable => {
            let _ = visit(fault("#unreadable".to_owned(), "unreadable", error.to_string()));
            Ok(())
        }
        ended => ended,
    }
}

/// The columns as [`Columns`] takes them.
fn views(batch: &RecordBatch) -> Result<RecordBatch> {
    let fields: Fields = batch.schema().fields().iter().map(as_view).collect();
    let cast = |(column, field): (&ArrayRef, &FieldRef)| arrow::compute::cast(column, field.data_type());
    let columns = batch.columns().iter().zip(fields.iter()).map(cast).collect::<std::result::Result<_, _>>()?;
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_count_upwards_or_downwards() {
        for (name, expected) in [
            ("7.manifest", Some(7)),
            ("18446744073709551608.manifest", Some(7)),
            ("d123.manifest", None),
            ("latest.manifest", None),
            ("7.txn", None),
        ] {
            assert_eq!(version(name), expected, "{name}");
        }
    }

    #[test]
    fn a_table_is_the_folder_around_its_versions() {
        for (key, inner, expected) in [
            ("a/b.lance/_versions/1.manifest", "_versions", Some(("a/b.lance", "1.manifest"))),
            ("_versions/1.manifest", "_versions", Some(("", "1.manifest"))),
            ("a/x_versions/1.manifest", "_versions", None),
            ("a/_versions/deeper/1.manifest", "_versions", None),
            ("a/data/0.lance", "data", Some(("a", "0.lance"))),
        ] {
            assert_eq!(split(key, inner), expected, "{key}");
        }
    }
}
