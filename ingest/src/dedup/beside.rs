//! Near duplicates between new records and those of earlier versions: which of these take part.
//!
//! First those that share a key with a new record, then those that share one with a record whose verdict changed, until none
//! changes any more. Of these only the contents of records that may change are read: one that was removed stays so while
//! its survivor takes no part. Deliberately absent: the judging of a round ([`super::near`]), the looks at the index
//! ([`super::known`]).

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use forebay_schemas::dataset::Modality;
use forebay_schemas::id::Digest;
use futures::TryStreamExt;

use super::exact::Firsts;
use super::known::{Ids, Keys, Known, KnownRecord, Place, shares};
use super::near::{Found, Round};
use super::quality::Sample;
use super::{Search, digest};
use crate::error::{Error, Kind, Result};
use crate::stage::ORDINAL;

/// A record of an earlier version that takes part.
pub(super) struct Pulled {
    pub(super) record: KnownRecord,
    /// What is compared of it, if it is judged.
    pub(super) content: Option<Vec<u8>>,
}

/// Searches round after round until no verdict changes any more.
pub(super) async fn find(search: &Search<'_>, firsts: &Firsts, known: &Known) -> Result<(Found, Option<Sample>)> {
    let (_, mut keys) = search.ids_and_keys(firsts).await?;
    let (mut more, mut named): (Vec<_>, Vec<_>) =
        firsts.met.iter().cloned().partition(|record| shares(search.likeness, &record.sketch, &keys));
    let mut pulled: BTreeMap<u64, Pulled> = BTreeMap::new();
    let mut last: Option<(Found, Option<Sample>)> = None;
    for round in 0.. {
        for record in more {
            pulled.entry(record.index_row).or_insert(Pulled { record, content: None });
        }
        named.retain(|record| !pulled.contains_key(&record.index_row));
        let read = search.read_contents(known, &mut pulled).await?;
        let before = match last {
            // None of those that came may change, so none of the others does.
            Some(found) if read == 0 => return Ok(found),
            Some((_, sample)) => sample.unwrap_or_default(),
            None => Sample::default(),
        };
        let all: Vec<&Pulled> = pulled.values().collect();
        let (found, sample) = Round { search, firsts, pulled: &all, named: &named }.judge(&format!("near-{round}"), before).await?;
        // Whatever shares a key with a record whose verdict changed may change too.
        let mut fresh = Keys::default();
        for revision in found.revisions.iter().filter(|revision| revision.leaves() || revision.returns()) {
            fresh.extend(search.likeness.distinct_keys(&revision.record.sketch).into_iter().filter(|key| keys.insert(*key)));
        }
        if fresh.is_empty() {
            return Ok((found, sample));
        }
        more = known.pull(search.likeness, &Ids::default(), &fresh).await?;
        last = Some((found, sample));
    }
    unreachable!("an endless range ended")
}

impl Search<'_> {
    /// Ids and keys of first records; only for a version that adds to another, whose size this is.
    pub(super) async fn ids_and_keys(&self, firsts: &Firsts) -> Result<(Ids, Keys)> {
        let session = self.engine.session(8192);
        let table = session.read_table(self.cleaned.verdicts(&[ORDINAL, "id", "sketch"], 1)?)?;
        let mut batches = self.engine.stream(table).await?;
        let (mut ids, mut keys) = (Ids::with_capacity_and_hasher(firsts.count as usize, Default::default()), Keys::default());
        while let Some(batch) = batches.try_next().await? {
            let ordinals = batch.column(0).as_primitive::<UInt64Type>().values();
            let (column, sketches) = (batch.column(1).as_fixed_size_binary(), batch.column(2).as_binary::<i32>());
            for (row, ordinal) in ordinals.iter().enumerate().filter(|(_, ordinal)| firsts.flags[**ordinal as usize]) {
                ids.insert(digest(column.value(row))?, *ordinal);
                if self.likeness.is_wanted() {
                    keys.extend(self.likeness.distinct_keys(sketches.value(row)));
                }
            }
        }
        Ok((ids, keys))
    }

    /// Reads what is compared of the records that may change; of how many.
    async fn read_contents(&self, known: &Known, pulled: &mut BTreeMap<u64, Pulled>) -> Result<usize> {
        let ids: HashSet<Digest> = pulled.values().map(|pulled| pulled.record.id).collect();
        let may_change = |record: &KnownRecord| record.survivor.is_none_or(|survivor| ids.contains(&survivor));
        let missing: Vec<&mut Pulled> =
            pulled.values_mut().filter(|pulled| pulled.content.is_none() && may_change(&pulled.record)).collect();
        let count = missing.len();
        if self.pipeline.source.modality == Modality::Images {
            missing.into_iter().for_each(|pulled| pulled.content = Some(pulled.record.sketch.clone()));
            return Ok(count);
        }
        let places: Vec<Place> = missing.iter().map(|pulled| pulled.record.place).collect();
        let mut texts = HashMap::with_capacity(places.len());
        for (place, batch, row) in known.contents(&places, &["text"]).await? {
            texts.insert(place, batch.column(0).as_string::<i64>().value(row).as_bytes().to_vec());
        }
        for pulled in missing {
            let place = pulled.record.place;
            let text = texts.remove(&place);
            pulled.content =
                Some(text.ok_or_else(|| Error::new(Kind::Corrupt, format!("the text at {place:?} of an earlier version is missing")))?);
        }
        Ok(count)
    }
}
