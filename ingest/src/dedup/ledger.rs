//! The ledger: what becomes of every record, counted.
//!
//! Verdicts and decisions are two streams in the order of ordinals; read together they are the ledger. It is read twice,
//! to count it and to write it, rather than held. Held are a byte a record, its fate, and the counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{UInt32Type, UInt64Type};
use datafusion::execution::SendableRecordBatchStream;
use forebay_schemas::dataset::{Modality, Quality, Tally};
use forebay_schemas::id::{Digest, RowsDigest};
use forebay_schemas::pipeline::Split;
use futures::TryStreamExt;
use globset::GlobSet;
use serde::Serialize;

use super::near::{Found, Revision};
use super::repeats::{Change, REPEATED};
use super::{ByOrdinal, Cleaned, DECISION_COLUMNS, Decision, Search, digest};
use crate::clean;
use crate::clean::edits::Edits;
use crate::clean::picture::moments::Moments;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::source::globs;
use crate::stage::{ORDINAL, Stage};

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Fate {
    LeftOut = 0,
    Train = 1,
    Validation = 2,
}

/// A record that is left out, for people to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reject {
    /// Object key, and the place in it.
    pub key: String,
    /// The value that was judged.
    pub detail: String,
}

/// Rejects that are held of each reason.
const REJECTS: usize = 3;

/// The verdicts on all records of a job, counted.
pub(crate) struct Ledger {
    /// By ordinal.
    pub(crate) fates: Arc<Vec<Fate>>,
    /// Of the version: earlier records included.
    pub(crate) tally: Tally,
    /// Of the version.
    pub(crate) rows_digest: RowsDigest,
    /// Training records of each class of the kept records; empty for text. Of the version.
    pub(crate) classes: BTreeMap<String, u64>,
    /// Sums over the training pixels; of the version.
    pub(crate) moments: Moments,
    /// Kept records by size, as in the manifest's statistics; of the version.
    pub(crate) sizes: Vec<u64>,
    /// Kept records by language; of the version.
    pub(crate) languages: BTreeMap<String, u64>,
    /// What cleaning changed in kept records; of the version.
    pub(crate) edits: BTreeMap<String, u64>,
    /// The first records of this job that each rule leaves out, by reason.
    pub(crate) rejects: BTreeMap<String, Vec<Reject>>,
    /// Records of this job that are kept.
    pub(crate) kept: u64,
    decisions: Stage,
    /// Records of earlier versions of which something else holds now.
    pub(crate) revisions: Vec<Revision>,
    pub(crate) quality: Option<Quality>,
    pub(crate) splitter: Arc<Splitter>,
}

/// Some records with the verdicts of cleaning and what deduplication decided.
pub(crate) struct Judged {
    /// Columns as in [`COLUMNS`], with ordinals in front.
    pub(crate) batch: RecordBatch,
    /// Of each row.
    pub(crate) decisions: Vec<Option<Decision>>,
}

/// Columns of verdicts that the ledger and the index are made of.
pub(crate) const COLUMNS: [&str; 11] = [ORDINAL, "key", "bytes", "id", "verdict", "reason", "detail", "size", "class", "edits", "moments"];

impl Judged {
    /// Verdict and reason of a row.
    pub(crate) fn verdict(&self, row: usize) -> (&str, Option<&str>) {
        let verdict = self.batch.column(4).as_string::<i32>().value(row);
        match &self.decisions[row] {
            Some(decision) => (clean::REMOVED, Some(&decision.reason)),
            None => (verdict, super::text_at(self.batch.column(5).as_string::<i32>(), row)),
        }
    }

    /// The value that was judged.
    pub(crate) fn detail(&self, row: usize) -> Option<String> {
        match &self.decisions[row] {
            Some(decision) => Some(decision.detail()),
            None => super::text_at(self.batch.column(6).as_string::<i32>(), row).map(str::to_owned),
        }
    }

    fn reject(&self, row: usize) -> Reject {
        let key = self.batch.column(1).as_string::<i32>().value(row).to_owned();
        let survivor = self.decisions[row].as_ref().map(|decision| format!(", like {}", decision.survivor.short()));
        Reject { key, detail: self.detail(row).unwrap_or_default() + &survivor.unwrap_or_default() }
    }
}

/// Reads the ledger in the order of ordinals.
pub(crate) struct Reader {
    verdicts: SendableRecordBatchStream,
    decisions: ByOrdinal,
}

impl Reader {
    async fn open(engine: &Engine, cleaned: &Cleaned, decisions: &Stage, extra: &[&str]) -> Result<Self> {
        let session = engine.session(8192);
        let columns: Vec<&str> = COLUMNS.iter().chain(extra).copied().collect();
        let verdicts = engine.stream(session.read_table(cleaned.verdicts(&columns, 1)?)?.select_columns(&columns)?).await?;
        let table = session.read_table(decisions.table(&decisions.whole(1).await?, &DECISION_COLUMNS, 1)?)?;
        Ok(Self { verdicts, decisions: ByOrdinal::new(engine.stream(table).await?) })
    }

    /// The next records.
    pub(crate) async fn next(&mut self) -> Result<Option<Judged>> {
        let Some(batch) = self.verdicts.try_next().await? else { return Ok(None) };
        let mut decisions = Vec::with_capacity(batch.num_rows());
        for ordinal in batch.column(0).as_primitive::<UInt64Type>().values() {
            decisions.push(self.decisions.find(*ordinal, Decision::at).await?);
        }
        Ok(Some(Judged { batch, decisions }))
    }
}

impl Ledger {
    /// Reads it again; `extra` columns of the verdicts come after those of the ledger.
    pub(crate) async fn read(&self, engine: &Engine, cleaned: &Cleaned, extra: &[&str]) -> Result<Reader> {
        Reader::open(engine, cleaned, &self.decisions, extra).await
    }
}

/// Counts the ledger and gives every record its fate; `changed` are the kept records that lost text.
pub(super) async fn settle(search: &Search<'_>, decisions: Stage, changed: Option<Stage>, near: Found) -> Result<Ledger> {
    let modality = search.pipeline.source.modality;
    let splitter = Arc::new(Splitter::new(&search.pipeline.split)?);
    let before = search.known.map(|known| &known.manifest);
    let mut tally = before.map(|manifest| manifest.tally.clone()).unwrap_or_default();
    let mut rows_digest = before.map(|manifest| manifest.rows_digest).unwrap_or_default();
    let mut sizes = before.map(|manifest| manifest.statistics.sizes.clone()).unwrap_or_default();
    let mut languages = before.map(|manifest| manifest.statistics.languages.clone()).unwrap_or_default();
    let mut edits = before.map(|manifest| manifest.statistics.edits.clone()).unwrap_or_default();
    let mut rejects = BTreeMap::<String, Vec<Reject>>::new();
    tally.read += search.cleaned.records;
    let mut fates = Vec::with_capacity(search.cleaned.records as usize);
    let statistics = before.map(|manifest| &manifest.statistics);
    let names = statistics.and_then(|statistics| Some(statistics.classes.iter().flatten().cloned().zip(statistics.class_counts.clone()?)));
    let mut classes: BTreeMap<String, u64> = names.into_iter().flatten().collect();
    let mut moments = statistics.and_then(|statistics| statistics.channel_sums).map_or_else(Moments::default, Moments::of);
    let mut kept = 0;
    let mut reader = Reader::open(search.engine, search.cleaned, &decisions, &[]).await?;
    let mut changes = match &changed {
        Some(changed) => Some(Change::read(search.engine, changed).await?),
        None => None,
    };
    while let Some(judged) = reader.next().await? {
        let batch = &judged.batch;
        let (keys, ids) = (batch.column(1).as_string::<i32>(), batch.column(3).as_fixed_size_binary());
        let (size, class) = (batch.column(7).as_primitive::<UInt32Type>(), batch.column(8).as_string::<i32>());
        let (edited, measured) = (batch.column(9).as_string::<i32>(), batch.column(10).as_binary::<i32>());
        let ordinals = batch.column(0).as_primitive::<UInt64Type>();
        for row in 0..batch.num_rows() {
            let mut fate = Fate::LeftOut;
            match judged.verdict(row) {
                (clean::KEPT, _) => {
                    let (id, key) = (digest(ids.value(row))?, keys.value(row));
                    let (language, class) = match modality {
                        Modality::Text => (super::text_at(class, row), ""),
                        Modality::Images => (None, super::text_at(class, row).unwrap_or_default()),
                    };
                    fate = splitter.fate(&id, key);
                    kept += 1;
                    tally.kept += 1;
                    let change = match &mut changes {
                        Some(changes) => changes.find(ordinals.value(row), Change::at).await?,
                        None => None,
                    };
                    rows_digest.add(&row_digest(change.as_ref().map_or(&id, |change| &change.digest), fate, class));
                    *size_count(&mut sizes, change.as_ref().map_or(size.value(row), |change| change.size)) += 1;
                    count(&mut edits, change.map(|change| (REPEATED, u64::from(change.cuts))));
                    count(&mut languages, language.map(|language| (language, 1)));
                    count(&mut edits, super::text_at(edited, row).into_iter().flat_map(Edits::parse));
                    if modality == Modality::Images {
                        count(&mut classes, [(class, u64::from(fate == Fate::Train))]);
                        if fate == Fate::Train {
                            moments.add_stored(measured.value(row));
                        }
                    }
                }
                (verdict, reason) => {
                    let reason = reason.unwrap_or("unnamed");
                    let counts = if verdict == clean::REMOVED { &mut tally.removed } else { &mut tally.quarantined };
                    count(counts, [(reason, 1)]);
                    if rejects.get(reason).is_none_or(|held| held.len() < REJECTS) {
                        rejects.entry(reason.to_owned()).or_default().push(judged.reject(row));
                    }
                }
            }
            fates.push(fate);
        }
    }
    for revision in near.revisions.iter().filter(|revision| revision.leaves() || revision.returns()) {
        let Revision { record, now } = revision;
        let class = record.class.as_deref().unwrap_or_default();
        let row = row_digest(&record.id, record.fate, if modality == Modality::Images { class } else { "" });
        let removed = tally.removed.entry("near_duplicate".to_owned()).or_default();
        let is_training = u64::from(record.fate == Fate::Train);
        // What is one more or one less for each.
        let mut counts = vec![&mut tally.kept, size_count(&mut sizes, record.size)];
        match modality {
            Modality::Images => counts.extend(classes.get_mut(class).filter(|_| is_training == 1)),
            Modality::Text => counts.extend(record.class.clone().map(|language| languages.entry(language).or_default())),
        }
        match now {
            Some(_) => {
                *removed += 1;
                rows_digest.remove(&row);
                counts.into_iter().for_each(|count| *count = count.saturating_sub(1));
            }
            None => {
                *removed = removed.saturating_sub(1);
                rows_digest.add(&row);
                counts.into_iter().for_each(|count| *count += 1);
            }
        }
        match (&record.moments, now) {
            (Some(stored), Some(_)) if is_training == 1 => moments.remove_stored(stored),
            (Some(stored), None) if is_training == 1 => moments.add_stored(stored),
            _ => {}
        }
    }
    tally.removed.retain(|_, count| *count > 0);
    languages.retain(|_, count| *count > 0);
    if fates.len() as u64 != search.cleaned.records {
        let message = format!("ledger: found {} records, expected {}: records were lost or doubled", fates.len(), search.cleaned.records);
        return Err(Error::new(Kind::Internal, message));
    }
    let (revisions, quality) = (near.revisions, near.quality);
    Ok(Ledger {
        fates: Arc::new(fates),
        tally,
        rows_digest,
        classes,
        moments,
        sizes,
        languages,
        edits,
        rejects,
        kept,
        decisions,
        revisions,
        quality,
        splitter,
    })
}

/// Adds to counts; a name is copied only when it is new.
fn count<'a>(counts: &mut BTreeMap<String, u64>, found: impl IntoIterator<Item = (&'a str, u64)>) {
    for (name, number) in found {
        match counts.get_mut(name) {
            Some(count) => *count += number,
            None => drop(counts.insert(name.to_owned(), number)),
        }
    }
}

/// Digest of a kept record with what else decides its row.
fn row_digest(id: &Digest, fate: Fate, class: &str) -> Digest {
    Digest::of_parts([id.as_bytes().as_slice(), &[fate as u8], class.as_bytes()])
}

/// How many records have a size of that order of magnitude.
fn size_count(sizes: &mut Vec<u64>, size: u32) -> &mut u64 {
    let place = size.max(1).ilog2() as usize;
    if sizes.len() <= place {
        sizes.resize(place + 1, 0);
    }
    &mut sizes[place]
}

/// Which records are validation.
pub(crate) struct Splitter {
    share: f64,
    keys: Option<GlobSet>,
}

impl Splitter {
    pub(super) fn new(settings: &Split) -> Result<Self> {
        let keys = match settings.validation_keys.is_empty() {
            true => None,
            false => Some(globs("split.validation_keys", &settings.validation_keys)?),
        };
        Ok(Self { share: settings.validation, keys })
    }

    /// The fate of a kept record; `key` matters only if the split is by keys.
    pub(crate) fn fate(&self, id: &Digest, key: &str) -> Fate {
        let is_validation = match &self.keys {
            // A member of an archive is named by its path in it as well as by its whole key.
            Some(keys) => keys.is_match(key) || key.match_indices('#').any(|(at, _)| keys.is_match(&key[at + 1..])),
            None => {
                // Not the first 8 bytes: rows are ordered by these.
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&id.as_bytes()[8..16]);
                (u64::from_le_bytes(bytes) as f64) < self.share * 2f64.powi(64)
            }
        };
        if is_validation { Fate::Validation } else { Fate::Train }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_counted_by_order_of_magnitude() {
        let mut sizes = Vec::new();
        for size in [0, 1, 2, 3, 4, 1_000] {
            *size_count(&mut sizes, size) += 1;
        }
        assert_eq!(sizes, [2, 2, 1, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn members_of_archives_are_split_by_their_own_path_too() {
        let split = Split { validation_keys: vec!["test/**".to_owned()], ..Split::default() };
        let splitter = Splitter::new(&split).expect("globs");
        let id = Digest::of(b"x");
        for (key, fate) in [
            ("test/a.jpg", Fate::Validation),
            ("x.tar#test/a.jpg", Fate::Validation),
            ("x.tar#train/a.jpg", Fate::Train),
            ("a.jpg", Fate::Train),
        ] {
            assert_eq!(splitter.fate(&id, key), fate, "{key}");
        }
    }
}
