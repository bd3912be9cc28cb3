//! Rule: no wording of an evaluation set (13-gram overlap, Brown et al. 2020, appendix C; whole-document removal as in
//! datatrove and decon).
//!
//! Promises: case, punctuation and line ends do not hide an overlap; one pass over the text, whatever the evaluation sets;
//! sixteen bytes at most for every n-gram. One of several items is told of the first. Deliberately absent: cutting the
//! overlap out and keeping the rest; n-grams that run from one item into the next.

use std::collections::{BTreeMap, BTreeSet};

use forebay_schemas::id::Digest;
use forebay_schemas::pipeline::Decontaminate;
use serde_json::Value;

use super::lists::{ReadObject, unpacked};
use super::{Rejection, Verdict, normalise};
use crate::error::{Error, Kind, Result};

mod ngrams;

use ngrams::{Index, Roll, hashes};

/// Loaded evaluation sets; threads share them.
#[derive(Debug)]
pub(crate) struct Evaluations {
    /// Lengths of n-grams in words, the usual one first, then those of short items.
    lengths: Vec<usize>,
    index: Index,
    /// Name of each set and its first item.
    sets: Vec<(String, u32)>,
    /// N-grams of each item.
    totals: Vec<u32>,
    min_ngrams: usize,
    digest: Digest,
}

impl Evaluations {
    /// Reads every evaluation set.
    pub(crate) fn load(settings: &Decontaminate, read: ReadObject<'_>) -> Result<Self> {
        let mut builder = Builder::new(settings);
        for place in &settings.evaluations {
            let bytes = unpacked(place, read)?;
            let text =
                String::from_utf8(bytes).map_err(|error| bad(place, format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to())))?;
            builder.sets.push((place.clone(), builder.totals.len() as u32));
            let name = place.split(['?', '#']).next().unwrap_or(place);
            let name = name.strip_suffix(".gz").unwrap_or(name);
            let is_json = [".json", ".jsonl", ".ndjson"].iter().any(|extension| name.ends_with(extension));
            let before = builder.ngrams.len();
            if is_json {
                builder.json(place, &text)?
            } else {
                builder.text(&text)
            }
            if builder.ngrams.len() == before {
                let expected = format!("expected one of {} words or more", settings.min_item_words);
                return Err(bad(place, format!("found no item that is long enough, {expected}")));
            }
        }
        Ok(builder.finish())
    }

    /// Digest of the n-grams, which decide rows.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// `contaminated`, with the item that has most n-grams in the text.
    pub(crate) fn check(&self, text: &str) -> Verdict {
        let mut found = BTreeSet::new();
        let mut rolls: Vec<Roll> = self.lengths.iter().map(|length| Roll::new(*length)).collect();
        hashes(text, |word| {
            for roll in &mut rolls {
                if let Some(ngram) = roll.push(word)
                    && self.index.may_have(ngram)
                    && let Some(item) = self.index.item(ngram)
                {
                    found.insert((ngram, item));
                }
            }
        });
        if found.is_empty() { Verdict::Keep } else { self.judge(&found) }
    }

    fn judge(&self, found: &BTreeSet<(u64, u32)>) -> Verdict {
        let mut items = BTreeMap::new();
        found.iter().for_each(|(_, item)| *items.entry(*item).or_insert(0u32) += 1);
        let total = |item: u32| self.totals.get(item as usize).copied().unwrap_or(u32::MAX);
        let has_whole_item = items.iter().any(|(item, count)| *count >= total(*item));
        // Of items with as many the first.
        let most = items.iter().max_by_key(|(item, count)| (**count, std::cmp::Reverse(**item)));
        let Some((item, count)) = most.filter(|_| found.len() >= self.min_ngrams || has_whole_item) else {
            return Verdict::Keep;
        };
        let set = self.sets.partition_point(|(_, first)| first <= item).saturating_sub(1);
        let (name, first) = &self.sets[set];
        let detail = format!("{} n-grams, {count} of {} of `{name}` item {}", found.len(), total(*item), item - first + 1);
        Verdict::Remove(Rejection::new("contaminated", detail))
    }
}

/// Collects n-grams item by item.
struct Builder<'a> {
    settings: &'a Decontaminate,
    length: usize,
    lengths: BTreeSet<usize>,
    ngrams: Vec<(u64, u32)>,
    sets: Vec<(String, u32)>,
    totals: Vec<u32>,
}

impl<'a> Builder<'a> {
    fn new(settings: &'a Decontaminate) -> Self {
        let length = settings.ngram_words as usize;
        Self { settings, length, lengths: BTreeSet::new(), ngrams: Vec::new(), sets: Vec::new(), totals: Vec::new() }
    }

    /// Paragraphs are items.
    fn text(&mut self, text: &str) {
        let text = normalise::normalise(text);
        let items = text.split("\n\n").filter(|item| !item.trim().is_empty());
        items.for_each(|item| self.item(&[item.to_owned()]));
    }

    /// Objects are items, on lines of their own or in arrays.
    fn json(&mut self, place: &str, text: &str) -> Result<()> {
        let mut has_field = false;
        for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
            let value = value.map_err(|error| bad(place, format!("not JSON: {error}")))?;
            let items = match value {
                Value::Array(items) => items,
                item => vec![item],
            };
            for item in &items {
                let mut texts = Vec::new();
                if !self.settings.fields.is_empty() {
                    self.settings.fields.iter().filter_map(|path| field(item, path)).for_each(|value| strings(value, &mut texts));
                    has_field |= !texts.is_empty();
                    self.item(&[normalise::normalise(&texts.join("\n"))]);
                } else {
                    strings(item, &mut texts);
                    self.item(&texts.into_iter().map(normalise::normalise).collect::<Vec<_>>());
                }
            }
        }
        if !has_field && !self.settings.fields.is_empty() {
            return Err(bad(place, format!("found no item with text in one of {}", self.settings.fields.join(", "))));
        }
        Ok(())
    }

    fn item(&mut self, texts: &[String]) {
        let item = self.totals.len() as u32;
        let mut ngrams = BTreeSet::new();
        for text in texts {
            let mut words = Vec::new();
            hashes(text, |word| words.push(word));
            if words.len() < self.settings.min_item_words as usize {
                continue;
            }
            let length = words.len().min(self.length);
            self.lengths.insert(length);
            let mut roll = Roll::new(length);
            ngrams.extend(words.into_iter().filter_map(|word| roll.push(word)));
        }
        self.totals.push(ngrams.len() as u32);
        self.ngrams.extend(ngrams.into_iter().map(|ngram| (ngram, item)));
    }

    fn finish(mut self) -> Evaluations {
        self.ngrams.sort_unstable();
        self.ngrams.dedup_by_key(|(ngram, _)| *ngram);
        let bytes: Vec<u8> = self.ngrams.iter().flat_map(|(ngram, _)| ngram.to_le_bytes()).collect();
        let lengths: Vec<usize> = self.lengths.into_iter().rev().collect();
        let parts = [bytes, self.totals.iter().flat_map(|total| total.to_le_bytes()).collect()];
        Evaluations {
            digest: Digest::of_parts(parts.iter().map(Vec::as_slice)),
            lengths,
            index: Index::new(&self.ngrams),
            sets: self.sets,
            totals: self.totals,
            min_ngrams: self.settings.min_ngrams as usize,
        }
    }
}

/// Every string in a value, in order.
fn strings<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(values) => values.iter().for_each(|value| strings(value, texts)),
        Value::Object(fields) => fields.values().for_each(|value| strings(value, texts)),
        _ => {}
    }
}

fn field<'a>(item: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(item, |value, name| value.get(name))
}

fn bad(place: &str, reason: String) -> Error {
    Error::new(Kind::Invalid, format!("evaluation set `{place}`: {reason}"))
}

#[cfg(test)]
mod tests;
