//! What is counted over the ledger.

use std::collections::{BTreeMap, BTreeSet};

use forebay_schemas::dataset::Tally;
use forebay_schemas::record::{TRAIN, VALIDATION};

use super::clusters::Clusters;
use super::rows::{Record, Verdict};
use super::sample::Draw;
use crate::error::Result;
use crate::report::grouped;

/// Reasons that are told apart, removed and quarantined each; more are counted together as [`OTHER`].
pub(super) const MAX_REASONS: usize = 256;
/// The name of reasons beyond [`MAX_REASONS`].
pub(super) const OTHER: &str = "(other reasons)";

/// Records and their raw bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl Amount {
    fn add(&mut self, record: &Record<'_>) {
        self.records += 1;
        self.bytes += record.bytes;
    }
}

/// Records left out for one reason.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftOut {
    pub(super) amount: Amount,
    pub(super) draw: Draw,
}

/// The ledger in numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) read: Amount,
    pub(super) kept: Amount,
    pub(super) train: Amount,
    pub(super) validation: Amount,
    pub(super) removed: BTreeMap<String, LeftOut>,
    pub(super) quarantined: BTreeMap<String, LeftOut>,
    pub(super) tokens: Tokens,
    pub(super) clusters: Clusters,
}

impl Counts {
    pub(super) fn add(&mut self, record: Record<'_>) -> Result<()> {
        self.read.add(&record);
        match record.verdict {
            Verdict::Kept => self.keep(&record),
            Verdict::Removed => leave_out(&mut self.removed, &record),
            Verdict::Quarantined => leave_out(&mut self.quarantined, &record),
        }
        if let Some(survivor) = record.survivor.filter(|_| record.verdict == Verdict::Removed) {
            self.clusters.add(survivor);
        }
        Ok(())
    }

    /// What the ledger and the conservation table do not agree on, for people; empty if they do.
    pub(super) fn disagreements(&self, tally: &Tally) -> Vec<String> {
        let mut pairs = vec![("read".to_owned(), tally.read, self.read.records), ("kept".to_owned(), tally.kept, self.kept.records)];
        for (verdict, told, counted) in [("removed", &tally.removed, &self.removed), ("quarantined", &tally.quarantined, &self.quarantined)]
        {
            let sum = |reasons: &BTreeMap<String, LeftOut>| reasons.values().map(|reason| reason.amount.records).sum();
            pairs.push((verdict.to_owned(), told.values().sum(), sum(counted)));
            // Reasons that were counted together cannot be compared one by one.
            if !counted.contains_key(OTHER) {
                let names: BTreeSet<&String> = told.keys().chain(counted.keys()).collect();
                pairs.extend(names.into_iter().map(|name| {
                    let counted = counted.get(name).map_or(0, |reason| reason.amount.records);
                    (format!("{verdict}: {name}"), told.get(name).copied().unwrap_or(0), counted)
                }));
            }
        }
        let different = pairs.into_iter().filter(|(_, told, counted)| told != counted);
        different
            .map(|(name, told, counted)| format!("{name}: the manifest says {}, the ledger has {}", grouped(told), grouped(counted)))
            .collect()
    }

    fn keep(&mut self, record: &Record<'_>) {
        self.kept.add(record);
        match record.split {
            Some(TRAIN) => self.train.add(record),
            Some(VALIDATION) => self.validation.add(record),
            _ => {}
        }
        if let Some(tokens) = record.tokens {
            self.tokens.add(tokens);
        }
    }
}

fn leave_out(reasons: &mut BTreeMap<String, LeftOut>, record: &Record<'_>) {
    let name = if reasons.len() < MAX_REASONS || reasons.contains_key(record.reason) { record.reason } else { OTHER };
    if let Some(reason) = reasons.get_mut(name) {
        reason.amount.add(record);
        reason.draw.add(record);
        return;
    }
    let reason = reasons.entry(name.to_owned()).or_default();
    reason.amount.add(record);
    reason.draw.add(record);
}

/// Tokens a document.
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens {
    pub(super) documents: u64,
    pub(super) total: u64,
    pub(super) longest: u64,
    /// Documents without a token, with 1, with 2 to 3, with 4 to 7 and so on.
    pub(super) by_power: Vec<u64>,
}

impl Tokens {
    fn add(&mut self, tokens: u64) {
        let power = (u64::BITS - tokens.leading_zeros()) as usize;
        if self.by_power.len() <= power {
            self.by_power.resize(power + 1, 0);
        }
        self.by_power[power] += 1;
        self.documents += 1;
        self.total = self.total.saturating_add(tokens);
        self.longest = self.longest.max(tokens);
    }
}
