//! Tags: names for versions, each an object of its own, put if absent.
//!
//! Deliberately absent: moving a tag in one step. Whoever moves one takes it away first, and readers see that.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::TryStreamExt;

use super::{Dataset, VersionSpec};
use crate::commit::{self, Outcome};
use crate::error::{Error, Kind, Result};

const TAGS: &str = "_forebay/tags";

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Tag {
    version: u64,
}

/// The number that `3` or `v3` means.
pub(super) fn number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('v').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Refuses what cannot be a tag.
pub(super) fn check(tag: &str) -> Result<()> {
    let fits = !tag.is_empty()
        && tag.len() <= 128
        && tag != "latest"
        && !tag.starts_with('.')
        && !tag.strip_prefix('v').unwrap_or(tag).bytes().all(|byte| byte.is_ascii_digit())
        && tag.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
    if fits {
        return Ok(());
    }
    Err(Error::new(Kind::Invalid, format!("tag `{tag}`: expected letters, digits, `-`, `_` or `.`, not a number and not `latest`")))
}

fn name(tag: &str) -> String {
    format!("{TAGS}/{tag}.json")
}

impl Dataset {
    pub(super) async fn put_tag(&self, tag: &str, version: u64) -> Result<()> {
        check(tag)?;
        self.resolve(&VersionSpec::Number(version)).await?;
        let bytes = Bytes::from(format!("{{\"version\":{version}}}\n"));
        if commit::put_if_absent(self.location(), &name(tag), bytes).await? == Outcome::Committed {
            return Ok(());
        }
        let there = self.tagged(tag).await?.map_or_else(|| "another version".to_owned(), |there| format!("version {there}"));
        Err(self.error(Kind::Conflict, format!("tag `{tag}` already names {there}, take it away first")))
    }

    pub(super) async fn delete_tag(&self, tag: &str) -> Result<()> {
        check(tag)?;
        if self.tagged(tag).await?.is_none() {
            return Err(self.missing(&VersionSpec::Tag(tag.to_owned())).await?);
        }
        self.location().delete(&name(tag)).await
    }

    pub(super) async fn read_tags(&self) -> Result<BTreeMap<String, u64>> {
        let folder = self.location().child(TAGS);
        let names: Vec<String> = folder
            .list("")
            .try_filter_map(|meta| {
                let name = folder.relative(&meta.location).and_then(|name| Some(name.strip_suffix(".json")?.to_owned()));
                async move { Ok(name) }
            })
            .try_collect()
            .await?;
        let mut tags = BTreeMap::new();
        for tag in names {
            if let Some(version) = self.tagged(&tag).await? {
                tags.insert(tag, version);
            }
        }
        Ok(tags)
    }

    /// The version that `tag` names.
    pub(super) async fn tagged(&self, tag: &str) -> Result<Option<u64>> {
        let name = name(tag);
        match self.location().get(&name).await {
            Ok(bytes) => match serde_json::from_slice::<Tag>(&bytes) {
                Ok(tag) => Ok(Some(tag.version)),
                Err(error) => Err(self.location().corrupt(&name, format!("is not a tag: {error}"))),
            },
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
