//! Rule: no record from a listed address (the URL filter of RefinedWeb, Penedo et al. 2023, as datatrove's `URLFilter`).
//!
//! Promises: a listed domain blocks its sub-domains of every depth (datatrove looks at the registered and the full name
//! only); listed addresses match without scheme, `www.`, port, fragment and last slash, so that lists without schemes
//! work; eight bytes an entry. Deliberately absent: a table of public suffixes; a listed `com` blocks the host `com` alone.

use std::borrow::Cow;
use std::collections::BTreeSet;

use aho_corasick::AhoCorasick;
use forebay_schemas::id::Digest;
use forebay_schemas::pipeline::Blocklist;
use twox_hash::XxHash3_64;

use super::lists::{ReadObject, entries};
use super::{Rejection, Verdict};
use crate::error::{Error, Kind, Result};

/// Loaded lists; threads share them.
#[derive(Debug)]
pub(crate) struct Blocked {
    domains: Hashes,
    urls: Hashes,
    words: BTreeSet<String>,
    soft_words: BTreeSet<String>,
    soft_word_threshold: usize,
    substrings: Vec<String>,
    searcher: Option<AhoCorasick>,
    digest: Digest,
}

impl Blocked {
    /// Reads every list.
    pub(crate) fn load(settings: &Blocklist, read: ReadObject<'_>) -> Result<Self> {
        let domains = Hashes::load(&settings.domains, read, |entry| domain(entry).into_owned())?;
        let urls = Hashes::load(&settings.urls, read, |entry| Address::parse(entry).canonical())?;
        let words = normalised(&settings.words, read)?;
        let soft_words = normalised(&settings.soft_words, read)?;
        let substrings: Vec<String> = normalised(&settings.substrings, read)?.into_iter().collect();
        let searcher = (!substrings.is_empty()).then(|| AhoCorasick::new(&substrings)).transpose();
        let searcher = searcher.map_err(|error| Error::with_source(Kind::Invalid, "blocklist: the substrings are too many", error))?;
        let texts = [&words.iter().collect::<Vec<_>>(), &soft_words.iter().collect::<Vec<_>>(), &substrings.iter().collect::<Vec<_>>()]
            .map(|texts| texts.iter().map(|text| format!("{text}\n")).collect::<String>());
        let hashes = [domains.bytes(), urls.bytes()];
        let digest = Digest::of_parts(hashes.iter().map(Vec::as_slice).chain(texts.iter().map(String::as_bytes)));
        let soft_word_threshold = settings.soft_word_threshold as usize;
        Ok(Self { domains, urls, words, soft_words, soft_word_threshold, substrings, searcher, digest })
    }

    /// Digest of the entries, which decide rows.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// `blocked_domain`, `blocked_url`, `blocked_word`, `blocked_words` or `blocked_substring`, whichever is first.
    pub(crate) fn check(&self, url: &str) -> Verdict {
        let rejection = self.domain_or_url(url).or_else(|| self.word(url)).or_else(|| self.substring(url));
        rejection.map_or(Verdict::Keep, Verdict::Remove)
    }

    fn domain_or_url(&self, url: &str) -> Option<Rejection> {
        if self.domains.is_empty() && self.urls.is_empty() {
            return None;
        }
        let address = Address::parse(url);
        if let Some(listed) = address.suffixes().find(|name| self.domains.contains(name)) {
            return Some(Rejection::new("blocked_domain", listed));
        }
        if self.urls.is_empty() {
            return None;
        }
        let canonical = address.canonical();
        self.urls.contains(&canonical).then(|| Rejection::new("blocked_url", canonical))
    }

    fn word(&self, url: &str) -> Option<Rejection> {
        if self.words.is_empty() && self.soft_words.is_empty() {
            return None;
        }
        let lower = url.to_ascii_lowercase();
        let words: BTreeSet<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
        if let Some(word) = words.iter().find(|word| self.words.contains(**word)) {
            return Some(Rejection::new("blocked_word", *word));
        }
        let soft: Vec<&str> = words.into_iter().filter(|word| self.soft_words.contains(*word)).collect();
        (soft.len() >= self.soft_word_threshold).then(|| Rejection::new("blocked_words", soft.join(", ")))
    }

    fn substring(&self, url: &str) -> Option<Rejection> {
        let found = self.searcher.as_ref()?.find(&letters_and_digits(url))?;
        Some(Rejection::new("blocked_substring", self.substrings.get(found.pattern().as_usize())?.as_str()))
    }
}

/// Sorted hashes of entries.
#[derive(Debug, Default)]
struct Hashes(Box<[u64]>);

impl Hashes {
    fn load(places: &[String], read: ReadObject<'_>, canonical: impl Fn(&str) -> String) -> Result<Self> {
        let mut hashes = Vec::new();
        for place in places {
            entries(place, read, |entry| hashes.push(XxHash3_64::oneshot(canonical(entry).as_bytes())))?;
        }
        hashes.sort_unstable();
        hashes.dedup();
        Ok(Self(hashes.into_boxed_slice()))
    }

    fn contains(&self, entry: &str) -> bool {
        self.0.binary_search(&XxHash3_64::oneshot(entry.as_bytes())).is_ok()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|hash| hash.to_le_bytes()).collect()
    }
}

fn normalised(places: &[String], read: ReadObject<'_>) -> Result<BTreeSet<String>> {
    let mut words = BTreeSet::new();
    for place in places {
        entries(place, read, |entry| {
            words.insert(letters_and_digits(entry));
        })?;
    }
    // A word of another script has nothing left, and nothing is in every address.
    words.remove("");
    Ok(words)
}

fn letters_and_digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// A listed domain as it is looked up; lists have `.example.com` and `*.example.com` too.
fn domain(entry: &str) -> Cow<'_, str> {
    let name = entry.trim_start_matches('*').trim_matches('.');
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) }
}

/// What of an address is compared.
struct Address<'a> {
    host: String,
    /// Path and query, without a slash at the end.
    rest: &'a str,
}

impl<'a> Address<'a> {
    fn parse(url: &'a str) -> Self {
        let url = url.trim();
        let after_scheme = url.find("://").filter(|at| !url[..*at].contains(['/', '?', '#', '.'])).map_or(url, |at| &url[at + 3..]);
        let after_scheme = after_scheme.trim_start_matches('/');
        let without_fragment = after_scheme.split('#').next().unwrap_or(after_scheme);
        let (authority, rest) = without_fragment.split_at(without_fragment.find(['/', '?', '\\']).unwrap_or(without_fragment.len()));
        let name = authority.rsplit('@').next().unwrap_or(authority);
        let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let name = name.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(name, |(name, _)| name);
        Self { host: name.trim_matches('.').to_ascii_lowercase(), rest: rest.trim_end_matches('/') }
    }

    /// The host, then every domain that it belongs to, down to two labels; of a number it is the whole only.
    fn suffixes(&self) -> impl Iterator<Item = &str> {
        let is_number = self.host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') || self.host.starts_with('[');
        let longer = self.host.match_indices('.').map(|(dot, _)| &self.host[dot + 1..]).filter(|name| name.contains('.'));
        std::iter::once(self.host.as_str()).chain(longer.take(if is_number { 0 } else { usize::MAX }))
    }

    fn canonical(&self) -> String {
        format!("{}{}", self.host.strip_prefix("www.").unwrap_or(&self.host), self.rest)
    }
}

#[cfg(test)]
mod tests;
