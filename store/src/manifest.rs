//! How manifests are written and read: JSON that starts with its format version.
//!
//! Promises: a manifest of a later format is refused as such before its fields are looked at; bytes that are no manifest
//! are `Corrupt` and named. Deliberately absent: what the fields mean.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use forebay_schemas::Digest;
use forebay_schemas::dataset::ObjectRef;

use crate::error::{Error, Kind, Result};
use crate::location::Location;

#[derive(serde::Deserialize)]
struct Head {
    format: u32,
}

/// The manifest in `bytes`, which were read from `relative`.
pub(crate) fn decode<T: DeserializeOwned>(location: &Location, relative: &str, bytes: &[u8], newest: u32) -> Result<T> {
    let bad = |error: serde_json::Error| location.corrupt(relative, format!("is not a manifest: {error}"));
    let head: Head = serde_json::from_slice(bytes).map_err(bad)?;
    if head.format > newest {
        let name = location.named(relative);
        return Err(Error::new(
            Kind::Invalid,
            format!("{name}: has format {}, this program reads up to {newest}: use a newer program", head.format),
        ));
    }
    serde_json::from_slice(bytes).map_err(bad)
}

/// The bytes of a manifest.
pub(crate) fn encode(manifest: &impl Serialize) -> Result<Bytes> {
    let mut bytes = serde_json::to_vec_pretty(manifest)
        .map_err(|error| Error::new(Kind::Internal, format!("manifest cannot be written as JSON: {error}")))?;
    bytes.push(b'\n');
    Ok(bytes.into())
}

/// The bytes of an object, checked against size and digest.
pub(crate) async fn get_checked(location: &Location, object: &ObjectRef) -> Result<Bytes> {
    let bytes = location.get(&object.path).await?;
    if bytes.len() as u64 != object.bytes {
        return Err(location.corrupt(&object.path, format!("has {} bytes, expected {}", bytes.len(), object.bytes)));
    }
    let (expected, bytes) = (object.digest, bytes);
    let hashed = bytes.clone();
    let found = tokio::task::spawn_blocking(move || Digest::of(&hashed))
        .await
        .map_err(|error| Error::new(Kind::Internal, format!("hashing ended early: {error}")))?;
    if found != expected {
        return Err(location.corrupt(&object.path, format!("has digest {found}, expected {expected}")));
    }
    Ok(bytes)
}
