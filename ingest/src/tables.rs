//! The tables of a version: what the rows of each output are made of, one after the other.
//!
//! A version that adds to another writes the same tables for what is new, and joins them to those of its parent.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use forebay_schemas::dataset::{Modality, ObjectRef, Statistics, TableRef, TokenizerRef};
use forebay_schemas::id::Digest;
use forebay_schemas::pipeline::Output;
use forebay_schemas::record::{self, INDEX, RECORDS, TRAIN, VALIDATION};
use forebay_tokens::{Encoder, Tokenizer};

use crate::dedup::Fate;
use crate::error::{Error, Kind, Result};
use crate::plan::{Clock, Job};
use crate::progress::Unit;
use crate::shard::amend::{self, Amended, Revived};
use crate::shard::index::Entries;
use crate::shard::text::{Before, Cut, Packed};
use crate::shard::{self, Kept, Target};
use crate::stage::Stage;

/// The tables of a version and what was measured on the way.
pub(crate) struct Made {
    /// Records counted while their rows were written.
    pub(crate) written: u64,
    /// Records that should have been: kept ones of this job, and earlier ones that are kept again.
    pub(crate) expected: u64,
    pub(crate) tables: BTreeMap<String, TableRef>,
    pub(crate) tokenizer: Option<TokenizerRef>,
    pub(crate) statistics: Statistics,
}

/// New rows of the two splits, and which rows of the parent's tables they replace.
struct Splits {
    tables: [TableRef; 2],
    deleted: [Vec<u64>; 2],
    written: u64,
    /// Tokens of new records by ordinal, and of earlier ones that are kept again by id.
    tokens: Vec<u32>,
    revived_tokens: HashMap<Digest, u64>,
}

const FATES: [Fate; 2] = [Fate::Train, Fate::Validation];

impl Job<'_> {
    /// Makes all tables.
    pub(crate) async fn tables(&self, kept: Kept<'_>, target: &Target<'_>, clock: &mut Clock) -> Result<Made> {
        let revived = match self.pipeline.source.modality {
            Modality::Text => Revived::read(kept).await?,
            // The search starts anew where a picture would be kept again.
            Modality::Images => Revived::default(),
        };
        let mut statistics = kept.known.map(|known| known.manifest.statistics.clone()).unwrap_or_default();
        let mut tokenizer = None;
        let splits = match (self.pipeline.source.modality, self.pipeline.output) {
            (Modality::Images, _) => self.images(kept, target, &mut statistics).await?,
            (Modality::Text, Output::Documents) => self.documents(kept, &revived, target).await?,
            (Modality::Text, Output::Tokens) => self.sequences(kept, &revived, target, &mut statistics, &mut tokenizer, clock).await?,
        };
        statistics.sizes.clone_from(&kept.ledger.sizes);
        statistics.languages.clone_from(&kept.ledger.languages);
        statistics.edits.clone_from(&kept.ledger.edits);
        let ledger = amend::records(kept, target, &splits.revived_tokens).await?;
        let records = shard::ledger::records(kept, splits.tokens, ledger.rows, target).await?;
        let mut tables: Vec<(&str, Vec<u64>, TableRef)> = vec![(RECORDS, ledger.deleted, records)];
        let first_task = kept.known.map_or(0, |known| known.tasks.len() as u32);
        let Amended { deleted, rows } = amend::index(kept)?;
        let entries = Entries::new(&kept.cleaned.parts, first_task, &kept.ledger.splitter);
        tables.push((INDEX, deleted, shard::ledger::index(kept, entries, rows, target).await?));
        let ([train, validation], [of_train, of_validation]) = (splits.tables, splits.deleted);
        tables.extend([(TRAIN, of_train, train), (VALIDATION, of_validation, validation)]);
        clock.lap("write");
        let mut joined = BTreeMap::new();
        for (name, deleted, part) in tables {
            let table = match kept.known {
                Some(known) => self.dataset.extend_table(amend::parent(&known.manifest.tables, name)?, &deleted, part).await?,
                None => part,
            };
            joined.insert(name.to_owned(), table);
        }
        let expected = kept.ledger.kept + revived.len() as u64;
        Ok(Made { written: splits.written, expected, tables: joined, tokenizer, statistics })
    }

    async fn documents(&self, kept: Kept<'_>, revived: &Revived, target: &Target<'_>) -> Result<Splits> {
        self.progress.stage("write", Some(kept.ledger.kept), Unit::Records);
        let (train, of_train) = shard::documents::lay_out(kept, revived, Fate::Train, target).await?;
        let (validation, of_validation) = shard::documents::lay_out(kept, revived, Fate::Validation, target).await?;
        let deleted = [amend::samples(kept, Fate::Train, target).await?, amend::samples(kept, Fate::Validation, target).await?];
        let written = of_train + of_validation;
        Ok(Splits { tables: [train, validation], deleted, written, tokens: Vec::new(), revived_tokens: HashMap::new() })
    }

    async fn images(&self, kept: Kept<'_>, target: &Target<'_>, statistics: &mut Statistics) -> Result<Splits> {
        self.progress.stage("write", Some(kept.ledger.kept), Unit::Records);
        let (train, of_train) = shard::images::lay_out(kept, Fate::Train, target).await?;
        let (validation, of_validation) = shard::images::lay_out(kept, Fate::Validation, target).await?;
        let deleted = [amend::samples(kept, Fate::Train, target).await?, amend::samples(kept, Fate::Validation, target).await?];
        (statistics.channel_mean, statistics.channel_std) = kept.ledger.moments.mean_and_std().unzip();
        statistics.channel_sums = Some(kept.ledger.moments.sums());
        statistics.classes = Some(kept.ledger.classes.keys().cloned().collect());
        statistics.class_counts = Some(kept.ledger.classes.values().copied().collect());
        let written = of_train + of_validation;
        Ok(Splits { tables: [train, validation], deleted, written, tokens: Vec::new(), revived_tokens: HashMap::new() })
    }

    async fn sequences(
        &self,
        kept: Kept<'_>,
        revived: &Revived,
        target: &Target<'_>,
        statistics: &mut Statistics,
        reference: &mut Option<TokenizerRef>,
        clock: &mut Clock,
    ) -> Result<Splits> {
        let (json, origin) = self.tokenizer_json(kept).await?;
        let tokenizer = Tokenizer::from_json(&json);
        let tokenizer = tokenizer.map_err(|error| Error::with_source(Kind::Invalid, format!("tokenizer `{origin}`"), error))?;
        let (vocabulary, end) = (tokenizer.vocabulary(), tokenizer.end_of_document());
        let object = self.dataset.put_object(json, ".tokenizer.json").await?;
        *reference = Some(TokenizerRef { object, vocabulary, end_of_document: end });
        clock.lap("tokenizer");
        self.progress.stage("encode", Some(kept.ledger.kept), Unit::Records);
        let encoded = self.shared_stage("encode", shard::text::schema());
        shard::text::encode(kept, &encoded, &tokenizer, record::id_bytes(vocabulary)).await?;
        clock.lap("encode");

        self.progress.stage("write", Some(kept.ledger.kept), Unit::Records);
        let (method, length) = (self.pipeline.pack.method, self.pipeline.pack.sequence_length);
        let id_bytes = shard::text::id_bytes(kept, vocabulary, target).await?;
        let cut = Cut { method, length, end, vocabulary, id_bytes };
        let mut encoder = Encoder::new(tokenizer);
        let mut revived_tokens = HashMap::new();
        let (mut packed, mut deleted, mut gone) = (Vec::with_capacity(2), Vec::with_capacity(2), Vec::new());
        for fate in FATES {
            let cutout = amend::sequences(kept, fate, end, target).await?;
            let mut before = Before { pieces: cutout.left, revived: Vec::new() };
            for (id, text) in revived.of(fate) {
                let tokens = encoder.encode(text).map_err(|error| Error::internal("a record that is kept again", error))?;
                revived_tokens.insert(*id, tokens.len() as u64);
                before.revived.push((id.as_u64(), tokens));
            }
            packed.push(self.pack(kept, &encoded, before, fate, cut, target).await?);
            deleted.push(cutout.deleted);
            gone.extend(cutout.gone.into_iter().filter(|_| fate == Fate::Train).flat_map(|(_, tokens, _)| tokens));
        }
        let (Some(validation), Some(train)) = (packed.pop(), packed.pop()) else {
            return Err(Error::new(Kind::Internal, "packing made no tables"));
        };
        let counts = self.token_counts(statistics.token_counts.as_ref(), &train.counts, &gone).await?;
        self.count(statistics, &counts, &[&train, &validation], cut.length).await?;
        let mut tokens = vec![0; kept.ledger.fates.len()];
        for (ordinal, length) in train.lengths.iter().chain(&validation.lengths) {
            tokens[*ordinal as usize] = *length;
        }
        let written = train.documents + validation.documents;
        let (Some(of_validation), Some(of_train)) = (deleted.pop(), deleted.pop()) else {
            return Err(Error::new(Kind::Internal, "packing made no tables"));
        };
        Ok(Splits { tables: [train.table, validation.table], deleted: [of_train, of_validation], written, tokens, revived_tokens })
    }

    async fn pack(&self, kept: Kept<'_>, encoded: &Stage, before: Before, fate: Fate, cut: Cut, target: &Target<'_>) -> Result<Packed> {
        shard::text::pack(kept, encoded, before, fate, cut, target).await
    }

    /// The tokenizer: that of the parent, the given one, or one trained on a sample.
    async fn tokenizer_json(&self, kept: Kept<'_>) -> Result<(Bytes, String)> {
        if let Some(before) = kept.known.and_then(|known| known.manifest.tokenizer.as_ref()) {
            return Ok((self.dataset.get_object(&before.object).await?, "of the version before".to_owned()));
        }
        if let (Some(given), Some(file)) = (&self.given, &self.pipeline.tokenizer.file) {
            return Ok((given.clone(), file.clone()));
        }
        let settings = &self.pipeline.tokenizer;
        self.progress.stage("tokenizer", Some(settings.sample.0), Unit::Bytes);
        let sample = shard::text::sample(kept, settings.sample.0).await?;
        self.progress.advance(sample.iter().map(|text| text.len() as u64).sum());
        let (vocabulary, mask) = (settings.vocabulary, settings.mask);
        let train =
            async move { forebay_tokens::train(&sample, vocabulary, mask).map_err(|error| Error::internal("the tokenizer", error)) };
        let trained = self.engine.run(train).await?;
        Ok((Bytes::from(trained), "trained".to_owned()))
    }

    /// Times each token occurs in the version: those of the parent and of the new rows, less those that are gone.
    async fn token_counts(&self, before: Option<&ObjectRef>, new: &[u64], gone: &[u32]) -> Result<Vec<u64>> {
        let mut counts = new.to_vec();
        if let Some(before) = before {
            let bytes = self.dataset.get_object(before).await?;
            let stored = bytes.chunks_exact(8).map(|count| count.iter().rev().fold(0, |count, byte| count << 8 | u64::from(*byte)));
            counts.iter_mut().zip(stored).for_each(|(count, stored)| *count += stored);
        }
        for token in gone {
            if let Some(count) = counts.get_mut(*token as usize) {
                *count = count.saturating_sub(1);
            }
        }
        Ok(counts)
    }

    async fn count(&self, statistics: &mut Statistics, counts: &[u64], packed: &[&Packed], length: u32) -> Result<()> {
        let stored: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
        statistics.token_counts = Some(self.dataset.put_object(stored.into(), ".counts").await?);
        statistics.tokens = Some(counts.iter().sum());
        statistics.sequence_length = Some(length);
        statistics.unigram_entropy_nats = Some(shard::text::entropy_nats(counts));
        let sum = |of: fn(&Packed) -> u64| packed.iter().map(|packed| of(packed)).sum::<u64>();
        statistics.padding_tokens = Some(statistics.padding_tokens.unwrap_or(0) + sum(|packed| packed.padding_tokens));
        statistics.split_documents = Some(statistics.split_documents.unwrap_or(0) + sum(|packed| packed.split_documents));
        Ok(())
    }
}
