//! An ingest from end to end, readable top to bottom: list, clean, dedup, tokenise, shard, commit.
//!
//! Every stage leaves immutable objects that the next one reads, so a job that was killed goes on with its missing
//! tasks. Nothing is visible before the manifest is committed. Deliberately absent: the work itself, which is in the
//! module of each stage.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use bytes::Bytes;
use datafusion::catalog::streaming::StreamingTable;
use forebay_schemas::dataset::{DatasetManifest, Modality, Statistics, Tally, TokenizerRef};
use forebay_schemas::id::{Digest, RowsDigest};
use forebay_schemas::pipeline::Pipeline;
use forebay_store::Dataset;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};

use crate::clean;
use crate::commit::Made;
use crate::dedup::{self, Fate};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::progress::{Progress, Unit};
use crate::report;
use crate::shard::{self, Kept, Target};
use crate::source::{self, Source, TaskSize, read};
use crate::stage::{ObjectWriter, Stage};
use crate::tokenizer;

/// How to ingest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Read and decide, but commit nothing and leave nothing behind.
    pub dry_run: bool,
}

/// How an ingest ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// This version was committed.
    Committed(DatasetManifest),
    /// This version already has exactly these rows; nothing was committed.
    Unchanged(DatasetManifest),
    /// A dry run: what would be kept.
    Planned {
        /// The conservation table.
        tally: Tally,
        /// Digest of the records that would be kept.
        rows_digest: RowsDigest,
    },
}

/// The result of an ingest.
#[derive(Clone, Debug)]
pub struct Ingested {
    /// How it ended.
    pub outcome: Outcome,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Wall time of each stage in seconds, in order.
    pub stages: Vec<(String, f64)>,
}

impl Ingested {
    /// The conservation table, however it ended.
    pub fn tally(&self) -> &Tally {
        match &self.outcome {
            Outcome::Committed(manifest) | Outcome::Unchanged(manifest) => &manifest.tally,
            Outcome::Planned { tally, .. } => tally,
        }
    }
}

/// The version of the rules: a change of it makes every job start anew.
pub(crate) fn program() -> String {
    format!("forebay {}", env!("CARGO_PKG_VERSION"))
}

/// Ingests a source into a dataset.
///
/// Fails as `Invalid` if a setting is out of range, the source is missing or empty, or nothing is kept.
///
/// Boxed, because the code of an `async fn` is generated again in every crate that awaits it, here with much of DataFusion.
pub fn ingest(pipeline: &Pipeline, options: Options, progress: Arc<dyn Progress>) -> BoxFuture<'_, Result<Ingested>> {
    Box::pin(ingest_in_tasks(pipeline, options, progress, TaskSize::default()))
}

/// [`ingest`] with tasks of another size, which changes no row.
pub(crate) async fn ingest_in_tasks(
    pipeline: &Pipeline,
    options: Options,
    progress: Arc<dyn Progress>,
    size: TaskSize,
) -> Result<Ingested> {
    let mut clock = Clock::start();
    pipeline.validate().map_err(|error| Error::new(Kind::Invalid, error.to_string()))?;
    let dataset = Dataset::create(&pipeline.dataset).await?;
    let job = Job::list(pipeline, dataset, progress, size).await?;
    clock.lap("list");
    if let Some(latest) = job.latest_of_same_inputs().await? {
        return Ok(clock.finish(Outcome::Unchanged(latest)));
    }
    let mut outcome = job.run(options, &mut clock).await;
    // Another process with the same job may have committed it, and deleted the stage objects that both were using.
    if let (Err(_), Some(latest)) = (&outcome, job.latest_of_same_inputs().await?) {
        outcome = Ok(Outcome::Unchanged(latest));
    }
    // What a failed job made is kept for the next attempt, unless nobody asked for one.
    if outcome.is_ok() || options.dry_run {
        job.clear().await?;
    }
    clock.lap("commit");
    Ok(clock.finish(outcome?))
}

/// One ingest of one listed input under one configuration.
pub(crate) struct Job<'a> {
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) dataset: Dataset,
    engine: Engine,
    progress: Arc<dyn Progress>,
    pub(crate) source: Arc<Source>,
    /// The list of inputs as stored, and its digest.
    pub(crate) inputs: Vec<u8>,
    pub(crate) inputs_digest: Digest,
    /// The given tokenizer file.
    given: Option<Bytes>,
    work: String,
    cleaned: Stage,
    size: TaskSize,
}

impl<'a> Job<'a> {
    async fn list(pipeline: &'a Pipeline, dataset: Dataset, progress: Arc<dyn Progress>, size: TaskSize) -> Result<Self> {
        let engine = Engine::start(&pipeline.limits)?;
        let modality = pipeline.source.modality;
        let given = match &pipeline.tokenizer.file {
            Some(file) if modality == Modality::Text => Some(tokenizer::read(file).await?),
            _ => None,
        };
        let source = Source::list(&pipeline.source, progress.as_ref()).await?;
        let inputs = source.manifest()?;
        let inputs_digest = source::digest(&inputs);
        let (program, settings) = (program(), pipeline.digest());
        let tasks = format!("{size:?}");
        let given_bytes = given.as_deref().unwrap_or_default();
        let parts = [inputs_digest.as_bytes().as_slice(), settings.as_bytes(), program.as_bytes(), tasks.as_bytes(), given_bytes];
        let work = format!("_work/{}", Digest::of_parts(parts).short());
        let cleaned = Stage::new(dataset.location(), &work, "clean", clean::schema(modality), engine.io());
        Ok(Self { pipeline, dataset, engine, progress, source: Arc::new(source), inputs, inputs_digest, given, work, cleaned, size })
    }

    /// The newest version, if the same program made it of the same objects under the same settings.
    async fn latest_of_same_inputs(&self) -> Result<Option<DatasetManifest>> {
        let latest = self.dataset.latest().await?;
        Ok(latest.filter(|latest| latest.inputs.digest == self.inputs_digest && self.is_same_setup(latest)))
    }

    fn is_same_setup(&self, latest: &DatasetManifest) -> bool {
        let given = self.given.as_ref().map(|given| Digest::of(given));
        let tokenizer = latest.tokenizer.as_ref().map(|tokenizer| tokenizer.object.digest);
        latest.config_digest == self.pipeline.digest() && latest.program == program() && (given.is_none() || given == tokenizer)
    }

    async fn run(&self, options: Options, clock: &mut Clock) -> Result<Outcome> {
        let tasks = self.clean().await?;
        clock.lap("clean");
        let records = self.source.records.len();
        self.progress.stage("dedup", None, Unit::Records);
        let ledger = dedup::decide(&self.engine, &self.cleaned, tasks, records, self.pipeline).await?;
        self.progress.advance(records as u64);
        clock.lap("dedup");
        if !ledger.tally.is_conserved() {
            return Err(Error::new(Kind::Internal, format!("records were lost or doubled:\n{}", report::conservation(&ledger.tally))));
        }
        if options.dry_run {
            return Ok(Outcome::Planned { tally: ledger.tally, rows_digest: ledger.rows_digest });
        }
        let latest = self.dataset.latest().await?;
        if let Some(latest) = latest.filter(|latest| self.is_same_setup(latest) && latest.rows_digest == ledger.rows_digest) {
            return Ok(Outcome::Unchanged(latest));
        }
        if !ledger.fates.contains(&Fate::Train) {
            return Err(Error::new(Kind::Invalid, nothing_left(&self.source.url, &ledger.tally)));
        }
        let folder = format!("tables/{}", self.attempt());
        let target = Target { dataset: &self.dataset, format: self.pipeline.format, folder: &folder };
        let kept = Kept { engine: &self.engine, cleaned: &self.cleaned, tasks, ledger: &ledger, progress: &self.progress };
        let made = match self.pipeline.source.modality {
            Modality::Text => self.shard_text(kept, &target, clock).await?,
            Modality::Images => self.shard_images(kept, &target, clock).await?,
        };
        self.commit(ledger, made).await
    }

    /// Cleans every task that is not done yet; returns the number of all.
    async fn clean(&self) -> Result<usize> {
        let tasks = self.source.tasks(self.size);
        let done = self.cleaned.done().await?;
        let total = self.source.records.iter().map(|record| record.range.end - record.range.start).sum();
        self.progress.stage("clean", Some(total), Unit::Bytes);
        let finished = (0..tasks.len()).filter(|task| done.contains(task)).count();
        if finished > 0 {
            self.progress.note(&format!("going on after {finished} of {} finished tasks", tasks.len()));
        }
        let count = tasks.len();
        let (skipped, missing): (Vec<_>, Vec<_>) = tasks.into_iter().enumerate().partition(|(task, _)| done.contains(task));
        for (_, records) in skipped {
            self.progress.advance(self.source.records[records].iter().map(|record| record.range.end - record.range.start).sum());
        }
        let work = futures::stream::iter(missing).map(|(task, records)| self.clean_task(task, records));
        work.buffer_unordered(self.engine.threads()).try_collect::<()>().await?;
        Ok(count)
    }

    async fn clean_task(&self, task: usize, records: Range<usize>) -> Result<()> {
        let raw = read::RawTask::new(Arc::clone(&self.source), records, self.engine.io().clone());
        let table = StreamingTable::try_new(read::schema(), vec![Arc::new(raw)])?;
        let plan = shard::session(&self.engine).read_table(Arc::new(table))?.select(clean::projection(self.pipeline))?;
        let (schema, progress) = (Arc::clone(self.cleaned.schema()), Arc::clone(&self.progress));
        let bytes = self.engine.run(async move {
            let mut writer = ObjectWriter::new(&schema)?;
            let mut batches = plan.execute_stream().await?;
            while let Some(batch) = batches.try_next().await? {
                writer.write(&clean::unnest(&batch, &schema)?)?;
                progress.advance(batch.column(2).as_primitive::<UInt64Type>().values().iter().sum());
            }
            writer.finish()
        });
        self.cleaned.put(task, bytes.await?).await
    }

    async fn shard_text(&self, kept: Kept<'_>, target: &Target<'_>, clock: &mut Clock) -> Result<Made> {
        let (json, origin) = match (&self.given, &self.pipeline.tokenizer.file) {
            (Some(given), Some(file)) => (given.clone(), file.as_str()),
            _ => (Bytes::from(self.train_tokenizer(kept).await?), "trained"),
        };
        let (tokenizer, end) = tokenizer::load(&json, origin)?;
        let vocabulary = tokenizer::vocabulary(&tokenizer);
        let object = self.dataset.put_object(json, ".tokenizer.json").await?;
        clock.lap("tokenizer");
        self.progress.stage("encode", Some(kept.ledger.tally.kept), Unit::Records);
        let encoded = Stage::new(self.dataset.location(), &self.work, "encode", shard::text::schema(), self.engine.io());
        shard::text::encode(kept, &encoded, &tokenizer, shard::text::width(vocabulary)).await?;
        clock.lap("encode");
        self.progress.stage("write", Some(kept.ledger.tally.kept), Unit::Records);
        let cut = shard::text::Cut { length: self.pipeline.pack.sequence_length, end, vocabulary };
        let train = shard::text::pack(kept, &encoded, Fate::Train, cut, target).await?;
        let validation = shard::text::pack(kept, &encoded, Fate::Validation, cut, target).await?;
        let mut tokens = vec![None; kept.ledger.fates.len()];
        for (ordinal, length) in train.lengths.iter().chain(&validation.lengths) {
            tokens[*ordinal as usize] = Some(*length);
        }
        let records = shard::ledger::write(kept, tokens, target).await?;
        clock.lap("write");
        Ok(Made {
            written: train.documents + validation.documents,
            tables: [train.table, validation.table, records],
            tokenizer: Some(TokenizerRef { object, vocabulary, end_of_document: end }),
            statistics: Statistics {
                tokens: Some(train.counts.iter().sum()),
                sequence_length: Some(cut.length),
                unigram_entropy_nats: Some(shard::text::entropy_nats(&train.counts)),
                ..Statistics::default()
            },
        })
    }

    async fn train_tokenizer(&self, kept: Kept<'_>) -> Result<Vec<u8>> {
        let settings = &self.pipeline.tokenizer;
        self.progress.stage("tokenizer", Some(settings.sample.0), Unit::Bytes);
        let sample = shard::text::sample(kept, settings.sample.0).await?;
        self.progress.advance(sample.iter().map(|text| text.len() as u64).sum());
        let vocabulary = settings.vocabulary;
        self.engine.run(async move { tokenizer::train(&sample, vocabulary) }).await
    }

    async fn shard_images(&self, kept: Kept<'_>, target: &Target<'_>, clock: &mut Clock) -> Result<Made> {
        self.progress.stage("write", Some(kept.ledger.tally.kept), Unit::Records);
        let train = shard::images::lay_out(kept, Fate::Train, target).await?;
        let validation = shard::images::lay_out(kept, Fate::Validation, target).await?;
        let records = shard::ledger::write(kept, Vec::new(), target).await?;
        clock.lap("write");
        let (mean, deviation) = train.moments.mean_and_std().unzip();
        Ok(Made {
            written: train.records + validation.records,
            tables: [train.table, validation.table, records],
            tokenizer: None,
            statistics: Statistics {
                classes: Some(kept.ledger.classes.clone()),
                class_counts: Some(kept.ledger.class_counts.clone()),
                channel_mean: mean,
                channel_std: deviation,
                ..Statistics::default()
            },
        })
    }

    /// A name that no other attempt has, so that two at once never write into each other's tables.
    fn attempt(&self) -> String {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let nonce = Digest::of_parts([nanos.to_le_bytes().as_slice(), &std::process::id().to_le_bytes(), self.work.as_bytes()]);
        format!("{}-{}", self.work.trim_start_matches("_work/"), &nonce.short()[..6])
    }

    /// Deletes the stage objects.
    async fn clear(&self) -> Result<()> {
        let location = self.dataset.location();
        let listed: Vec<_> = location.list(&self.work).try_collect().await?;
        for path in listed.iter().filter_map(|meta| location.relative(&meta.location)) {
            location.delete(&path).await?;
        }
        Ok(())
    }
}

/// Wall time by stage.
struct Clock {
    start: Instant,
    last: Instant,
    stages: Vec<(String, f64)>,
}

impl Clock {
    fn start() -> Self {
        Self { start: Instant::now(), last: Instant::now(), stages: Vec::new() }
    }

    fn lap(&mut self, stage: &str) {
        self.stages.push((stage.to_owned(), self.last.elapsed().as_secs_f64()));
        self.last = Instant::now();
    }

    fn finish(self, outcome: Outcome) -> Ingested {
        Ingested { outcome, seconds: self.start.elapsed().as_secs_f64(), stages: self.stages }
    }
}

fn nothing_left(source: &str, tally: &Tally) -> String {
    let reasons = tally.removed.iter().chain(&tally.quarantined).map(|(reason, count)| format!(", {reason} {count}"));
    format!("source `{source}`: no record is left to train on: read {}, kept {}{}", tally.read, tally.kept, reasons.collect::<String>())
}
