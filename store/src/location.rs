//! A place in object storage: URL -> object store and path.
//!
//! Promises: errors are one line and name the object; no credentials in messages or `Debug`; a whole object appears at
//! once or not at all; a dead S3 endpoint is `Unavailable` within seconds. Deliberately absent: putting over an object
//! that others may write, which is the business of [`crate::commit`].

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, WriteMultipart, path::Path};
use url::Url;

use crate::cause::from_object_store;
use crate::error::{Error, Kind, Result};

mod open;
pub(crate) mod staged;
mod watched;

pub use watched::Watch;

/// Larger objects are put in parts of this size, so that a slow network never has to repeat all of one.
const PART_BYTES: usize = 16 << 20;
/// Parts that are under way at a time.
const PARTS_IN_FLIGHT: usize = 4;

/// A folder in an object store. Cheap to clone.
#[derive(Clone)]
pub struct Location {
    url: Url,
    store: Arc<dyn ObjectStore>,
    root: Path,
}

// By hand: the store's own `Debug` prints its whole configuration.
impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({})", self.url)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str())
    }
}

impl Location {
    /// Opens a URL (`file://`, `s3://`, `memory://`) or a local path (`~` and `${NAME:-default}` are expanded, relative to the
    /// working directory). Reads no object. S3 credentials and endpoint come from the usual `AWS_*` variables.
    /// `memory://NAME` is one store a process for each NAME, for tests.
    pub async fn open(url: &str) -> Result<Self> {
        open::open(url)
    }

    /// A folder of a store that the caller made: for stores that [`Self::open`] does not know, and for tests.
    ///
    /// `url` is what messages call it. Its scheme must not be `file`, which names the local file system to Lance.
    pub fn from_store(url: Url, store: Arc<dyn ObjectStore>, root: Path) -> Self {
        Self { url, store, root }
    }

    /// The same place, where `watch` is told of every read; a local disk is not watched.
    pub fn watched(&self, watch: Arc<dyn Watch>) -> Self {
        match self.url.scheme() {
            "file" => self.clone(),
            _ => Self { store: watched::watched(self.store.clone(), watch), ..self.clone() },
        }
    }

    /// The folder `relative` below this one.
    pub fn child(&self, relative: &str) -> Self {
        Self { url: self.url_of(relative), store: self.store.clone(), root: self.path(relative) }
    }

    /// Where this is, without credentials.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The store and the path of `relative` in it, for libraries that take these.
    pub fn object_store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The path of `relative` in [`Self::object_store`].
    pub fn path(&self, relative: &str) -> Path {
        let relative = relative.trim_matches('/');
        let joined = match (self.root.as_ref(), relative) {
            (root, "") => root.to_owned(),
            ("", relative) => relative.to_owned(),
            (root, relative) => format!("{root}/{relative}"),
        };
        // What a listing returned parses as it is; only names that no listing returns need escapes.
        Path::parse(&joined).unwrap_or_else(|_| Path::from(joined))
    }

    /// All bytes of an object.
    pub async fn get(&self, relative: &str) -> Result<Bytes> {
        let read = async { self.store.get(&self.path(relative)).await?.bytes().await };
        read.await.map_err(|error| self.failed(relative, error))
    }

    /// A range of the bytes of an object.
    pub async fn get_range(&self, relative: &str, range: Range<u64>) -> Result<Bytes> {
        self.store.get_range(&self.path(relative), range).await.map_err(|error| self.failed(relative, error))
    }

    /// Whether an object is there, and its size.
    pub async fn head(&self, relative: &str) -> Result<Option<ObjectMeta>> {
        match self.store.head(&self.path(relative)).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(relative, error)),
        }
    }

    /// Everything below `relative`, in no promised order; [`ObjectMeta::location`] is the store's path (see [`Self::relative`]).
    pub fn list(&self, relative: &str) -> BoxStream<'static, Result<ObjectMeta>> {
        let name = self.named(relative);
        self.store.list(Some(&self.path(relative))).map_err(move |error| from_object_store(&name, error)).boxed()
    }

    /// Names of the folders directly below `relative`, sorted.
    pub async fn folders(&self, relative: &str) -> Result<Vec<String>> {
        let found = self.store.list_with_delimiter(Some(&self.path(relative))).await.map_err(|error| self.failed(relative, error))?;
        let mut names: Vec<String> = found.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// The part of a store's path below this location; none if it is not below.
    pub fn relative(&self, path: &Path) -> Option<String> {
        let rest = path.as_ref().strip_prefix(self.root.as_ref())?;
        if self.root.as_ref().is_empty() || rest.is_empty() {
            return Some(rest.to_owned());
        }
        rest.strip_prefix('/').map(str::to_owned)
    }

    /// Writes an object, replacing what is there: only for names that nobody else writes (content-named or unique).
    pub async fn put(&self, relative: &str, bytes: Bytes) -> Result<()> {
        let path = self.path(relative);
        let write = async {
            if bytes.len() <= PART_BYTES {
                return self.store.put(&path, bytes.into()).await.map(|_| ());
            }
            let mut upload = WriteMultipart::new_with_chunk_size(self.store.put_multipart(&path).await?, PART_BYTES);
            for at in (0..bytes.len()).step_by(PART_BYTES) {
                upload.wait_for_capacity(PARTS_IN_FLIGHT).await?;
                upload.put(bytes.slice(at..bytes.len().min(at + PART_BYTES)));
            }
            upload.finish().await.map(|_| ())
        };
        write.await.map_err(|error| self.failed(relative, error))
    }

    /// Deletes an object; not an error if it is not there.
    pub async fn delete(&self, relative: &str) -> Result<()> {
        match self.store.delete(&self.path(relative)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(relative, error)),
        }
    }

    /// The URL of `relative` below this location.
    pub(crate) fn url_of(&self, relative: &str) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(relative.split('/').filter(|segment| !segment.is_empty()));
        }
        url
    }

    /// How messages name an object.
    pub(crate) fn named(&self, relative: &str) -> String {
        format!("object `{}`", self.url_of(relative))
    }

    pub(crate) fn failed(&self, relative: &str, error: object_store::Error) -> Error {
        from_object_store(&self.named(relative), error)
    }

    /// A `Corrupt` error about an object.
    pub(crate) fn corrupt(&self, relative: &str, found: impl fmt::Display) -> Error {
        Error::new(Kind::Corrupt, format!("{}: {found}", self.named(relative)))
    }
}

#[cfg(test)]
mod tests;
