//! One object that a setting names: a tokenizer, a list, a model.

use bytes::Bytes;
use forebay_store::Location;
use object_store::ObjectStoreExt;

/// Its bytes, or in words why there are none; `place` is a path or URL as everywhere in the settings.
pub(crate) async fn read(place: &str) -> Result<Bytes, String> {
    let location = Location::open(place).await.map_err(|error| error.to_string())?;
    let found = location.object_store().get(&location.path("")).await;
    let read = match found {
        Ok(found) => found.bytes().await,
        Err(error) => Err(error),
    };
    read.map_err(|error| match error {
        object_store::Error::NotFound { .. } => "not found".to_owned(),
        error => error.to_string(),
    })
}
