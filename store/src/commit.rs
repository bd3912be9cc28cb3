//! The commit rule: put the next manifest if absent.
//!
//! Promises: of any number of racing writers exactly one wins, and each learns which it was, also when the store's
//! answer was ambiguous. Deliberately absent: locks, leases and retries; whoever loses reads again and decides.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStoreExt, PutMode, PutOptions};

use crate::error::{Error, Kind, Result};
use crate::location::Location;

/// Folder of the objects with which [`require_put_if_absent`] tries a store; they are deleted at once.
pub(crate) const PROBES: &str = "_forebay/probes";

/// How an attempt to commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These bytes are the committed ones (also when an earlier attempt of ours put exactly them).
    Committed,
    /// Somebody else's bytes are there.
    Lost,
}

/// Puts `bytes` at `relative` if nothing is there. After an ambiguous answer (a 409, a lost response) reads back before it says who won.
pub async fn put_if_absent(location: &Location, relative: &str, bytes: Bytes) -> Result<Outcome> {
    use object_store::Error as Store;
    let error = match create(location, relative, bytes.clone()).await {
        Ok(()) => return Ok(Outcome::Committed),
        Err(Store::NotImplemented { .. } | Store::NotSupported { .. }) => return Err(refusal(location, "it says that it cannot")),
        Err(error) => error,
    };
    // Neither a refusal nor a lost answer says whose bytes lie there: a retry inside the client may have met our own.
    let read = async { location.object_store().get(&location.path(relative)).await?.bytes().await };
    match read.await {
        Ok(found) if found == bytes => Ok(Outcome::Committed),
        Ok(_) => Ok(Outcome::Lost),
        Err(_) => Err(location.failed(relative, error)),
    }
}

/// Refuses a store that does not honour put-if-absent, by trying it on a probe object.
pub async fn require_put_if_absent(location: &Location) -> Result<()> {
    use object_store::Error as Store;
    let probe = format!("{PROBES}/{}", unique());
    let (first, second) = (Bytes::from(unique()), Bytes::from(unique()));
    match create(location, &probe, first.clone()).await {
        Ok(()) => {}
        Err(Store::NotImplemented { .. } | Store::NotSupported { .. }) => return Err(refusal(location, "it says that it cannot")),
        Err(error) => return Err(location.failed(&probe, error)),
    }
    let again = create(location, &probe, second).await;
    let found = location.get(&probe).await;
    location.delete(&probe).await?;
    let found = found?;
    match again {
        Ok(()) => Err(refusal(location, "a second put over the same object succeeded")),
        Err(Store::AlreadyExists { .. } | Store::Precondition { .. }) if found == first => Ok(()),
        Err(Store::AlreadyExists { .. } | Store::Precondition { .. }) => Err(refusal(location, "a put that it refused was stored")),
        Err(error) => Err(location.failed(&probe, error)),
    }
}

/// A name that no other process or call makes: time, process and a random number.
pub(crate) fn unique() -> String {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    // The standard library's hasher is keyed at random, which is all that is needed here.
    let random = RandomState::new().hash_one(nanos);
    format!("{nanos:020}-{}-{random:016x}", std::process::id())
}

async fn create(location: &Location, relative: &str, bytes: Bytes) -> object_store::Result<()> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    location.object_store().put_opts(&location.path(relative), bytes.into(), options).await.map(|_| ())
}

fn refusal(location: &Location, why: &str) -> Error {
    Error::new(
        Kind::Invalid,
        format!(
            "store `{}` does not honour put-if-absent: {why}; use a local disk or an S3 store that refuses a second PUT with If-None-Match",
            location.url()
        ),
    )
}

/// A numbered sequence of immutable entries, `{prefix}/{number:020}.json`, each put if absent.
///
/// Whoever appends must name the number after the last entry that it knows: one who missed an entry loses, and is thereby fenced.
#[derive(Clone, Debug)]
pub struct Journal {
    location: Location,
}

impl Journal {
    /// The journal in the folder `location`.
    pub fn new(location: Location) -> Self {
        Self { location }
    }

    /// Puts entry `number` if absent.
    pub async fn append(&self, number: u64, bytes: Bytes) -> Result<Outcome> {
        put_if_absent(&self.location, &Self::name(number), bytes).await
    }

    /// Entry `number`.
    pub async fn get(&self, number: u64) -> Result<Option<Bytes>> {
        match self.location.get(&Self::name(number)).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The numbers of all entries, ascending.
    pub async fn numbers(&self) -> Result<Vec<u64>> {
        let mut numbers: Vec<u64> = self
            .location
            .list("")
            .try_filter_map(|meta| {
                let name = self.location.relative(&meta.location);
                async move { Ok(name.and_then(|name| Self::number(&name))) }
            })
            .try_collect()
            .await?;
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The folder of the entries.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The name of entry `number` in the folder.
    pub(crate) fn name(number: u64) -> String {
        format!("{number:020}.json")
    }

    fn number(name: &str) -> Option<u64> {
        let digits = name.strip_suffix(".json").filter(|digits| digits.len() == 20)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    }
}
