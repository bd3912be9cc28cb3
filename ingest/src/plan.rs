//! An ingest from end to end, readable top to bottom: list, clean, dedup, tokenise, shard, commit.
//!
//! Every stage leaves immutable objects that the next one reads, so a job that was killed goes on with its missing
//! tasks. Nothing is visible before the manifest is committed. Deliberately absent: the work itself, which is in the
//! module of each stage.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::AsArray;
use arrow::datatypes::{SchemaRef, UInt64Type};
use bytes::Bytes;
use forebay_schemas::dataset::{DatasetManifest, Modality, Tally};
use forebay_schemas::id::{Digest, RowsDigest};
use forebay_schemas::pipeline::{Output, Pipeline};
use forebay_store::{CLEANED, Dataset, WORK};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};

use crate::clean::{self, Cleaner};
use crate::dedup::known::{self, Known};
use crate::dedup::{Cleaned, Fate, Likeness, Reject, Search};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::progress::{Progress, Unit};
use crate::report;
use crate::shard::{self, Kept, Target};
use crate::source::{self, Source, TaskSize, named, read};
use crate::stage::Stage;

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
    /// A version already has exactly these rows; nothing was committed.
    Unchanged {
        /// That version.
        manifest: DatasetManifest,
        /// The conservation table of all that was read: more than the version's where new records are all left out.
        tally: Tally,
    },
    /// A dry run: what would be kept.
    Planned {
        /// The conservation table.
        tally: Tally,
        /// Digest of the records that would be kept.
        rows_digest: RowsDigest,
        /// The first records that each rule leaves out, by reason.
        rejects: BTreeMap<String, Vec<Reject>>,
    },
}

impl Outcome {
    /// The version that was made of the same records.
    pub(crate) fn unchanged(manifest: DatasetManifest) -> Self {
        Self::Unchanged { tally: manifest.tally.clone(), manifest }
    }
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
            Outcome::Committed(manifest) => &manifest.tally,
            Outcome::Unchanged { tally, .. } | Outcome::Planned { tally, .. } => tally,
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
    let mut given_up: Option<Job<'_>> = None;
    loop {
        let may_add = given_up.is_none();
        let job = Job::list(pipeline, dataset.clone(), Arc::clone(&progress), size, options, may_add).await?;
        clock.lap("list");
        if let Some(latest) = job.latest_of_same_inputs().await? {
            return Ok(clock.finish(Outcome::unchanged(latest)));
        }
        let mut outcome = job.run(options, &mut clock).await;
        // Another process with the same job may have committed it, and deleted the stage objects that both were using.
        if let (Err(_), Some(latest)) = (&outcome, job.latest_of_same_inputs().await?) {
            outcome = Ok(Some(Outcome::unchanged(latest)));
        }
        let cleared = job.clear(&outcome, options).await;
        clock.lap("commit");
        // What went wrong first is the error.
        let outcome = outcome?;
        cleared?;
        let Some(outcome) = outcome else {
            progress.note("a row of the version before would be another now: everything is read again");
            given_up = Some(job);
            continue;
        };
        if let Some(job) = given_up {
            job.delete(&[job.shared_folder(), job.cleaned_folder()]).await?;
        }
        return Ok(clock.finish(outcome));
    }
}

/// A name that no other attempt has, so that two at once never write into each other's tables.
fn attempt(job: &str) -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    Digest::of_parts([nanos.to_le_bytes().as_slice(), &std::process::id().to_le_bytes(), job.as_bytes()]).short()
}

/// The bytes of a given `tokenizer.json`.
async fn tokenizer_file(file: &str) -> Result<Bytes> {
    let failed = |reason| Error::new(Kind::Invalid, format!("setting `tokenizer.file`: reading `{file}` failed: {reason}"));
    named::read(file).await.map_err(failed)
}

/// Loads the cleaner on a thread that may block while it fetches lists and models.
async fn cleaner(pipeline: &Pipeline, engine: &Engine) -> Result<Cleaner> {
    let (pipeline, io) = (pipeline.clone(), engine.io().clone());
    let load =
        tokio::task::spawn_blocking(move || Cleaner::load(&pipeline, &|place| io.block_on(source::named::read(place)).map(Vec::from)));
    load.await.map_err(|error| Error::internal("loading lists and models stopped", error))?
}

/// One ingest of one listed input under one configuration.
pub(crate) struct Job<'a> {
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) dataset: Dataset,
    pub(crate) engine: Engine,
    pub(crate) progress: Arc<dyn Progress>,
    pub(crate) source: Arc<Source>,
    cleaner: Arc<Cleaner>,
    /// The version that this job adds to, if it can.
    pub(crate) known: Option<Known>,
    /// The list of inputs as stored, and its digest.
    pub(crate) inputs: Vec<u8>,
    pub(crate) inputs_digest: Digest,
    /// Digest of all settings and lists that decide the rows.
    pub(crate) setup: Digest,
    /// The given tokenizer file.
    pub(crate) given: Option<Bytes>,
    /// Name of the job in the folders of its stages.
    name: String,
    /// Name of this attempt at it: several processes may be at the same job.
    attempt: String,
    verdicts: Stage,
    contents: Stage,
    size: TaskSize,
}

impl<'a> Job<'a> {
    /// Lists the inputs; only where the job `may_add` is it one that adds to the newest version.
    async fn list(
        pipeline: &'a Pipeline,
        dataset: Dataset,
        progress: Arc<dyn Progress>,
        size: TaskSize,
        options: Options,
        may_add: bool,
    ) -> Result<Self> {
        let engine = Engine::start(&pipeline.limits)?;
        let modality = pipeline.source.modality;
        let given = match &pipeline.tokenizer.file {
            Some(file) if modality == Modality::Text && pipeline.output == Output::Tokens => Some(tokenizer_file(file).await?),
            _ => None,
        };
        let cleaner = Arc::new(cleaner(pipeline, &engine).await?);
        let mut source = Source::list(&pipeline.source, progress.as_ref()).await?;
        let inputs = source.manifest()?;
        let inputs_digest = source::digest(&inputs);
        let (program, settings, lists) = (program(), pipeline.digest(), cleaner.digest());
        let given_bytes = given.as_deref().unwrap_or_default();
        let setup = Digest::of_parts([settings.as_bytes().as_slice(), lists.as_bytes(), program.as_bytes(), given_bytes]);
        let known = if may_add { Self::known(pipeline, &dataset, setup, &mut source, &engine).await? } else { None };
        let before = known.as_ref().map(|known| known.manifest.identity());
        let before = before.as_ref().map_or(&[][..], |identity| identity.as_bytes().as_slice());
        let tasks = format!("{size:?}");
        let name = Digest::of_parts([inputs_digest.as_bytes().as_slice(), setup.as_bytes(), tasks.as_bytes(), before]).short();
        let attempt = attempt(&name);
        // A dry run deletes what it made, so others must not build upon it.
        let name = if options.dry_run { attempt.clone() } else { name };
        let folder = format!("{CLEANED}/{name}");
        let verdicts = Stage::new(dataset.location(), &folder, "verdicts", clean::verdict_schema(), engine.io());
        let contents = Stage::new(dataset.location(), &folder, "contents", clean::content_schema(modality), engine.io());
        let source = Arc::new(source);
        Ok(Self {
            pipeline,
            dataset,
            engine,
            progress,
            source,
            cleaner,
            known,
            inputs,
            inputs_digest,
            setup,
            given,
            name,
            attempt,
            verdicts,
            contents,
            size,
        })
    }

    /// The newest version, if this job can add to it rather than start anew: the same setup, and all its inputs are there.
    async fn known(pipeline: &Pipeline, dataset: &Dataset, setup: Digest, source: &mut Source, engine: &Engine) -> Result<Option<Known>> {
        // Where text is cut that stands elsewhere, a new record with a smaller id would change rows that are there.
        let can_add = !(pipeline.source.modality == Modality::Text && pipeline.dedup.repeats.is_on());
        let latest = dataset.latest().await?.filter(|latest| latest.config_digest == setup && can_add);
        let Some(latest) = latest else { return Ok(None) };
        let earlier = dataset.get_object(&latest.inputs.list).await?;
        let schema = clean::content_schema(pipeline.source.modality);
        let known = Known::open(dataset, latest, schema, engine.io()).await?;
        Ok(if known.is_some() && source.skip(&earlier)? { known } else { None })
    }

    /// The newest version, if the same program made it of the same objects under the same settings.
    async fn latest_of_same_inputs(&self) -> Result<Option<DatasetManifest>> {
        let latest = self.dataset.latest().await?;
        Ok(latest.filter(|latest| latest.inputs.digest == self.inputs_digest && latest.config_digest == self.setup))
    }

    /// A stage of this attempt alone, whose objects go when it ends.
    pub(crate) fn stage(&self, name: &str, schema: SchemaRef) -> Stage {
        Stage::new(self.dataset.location(), &self.own_folder(), name, schema, self.engine.io())
    }

    /// A stage whose tasks all attempts at this job share; its objects go when one of them has committed.
    pub(crate) fn shared_stage(&self, name: &str, schema: SchemaRef) -> Stage {
        Stage::new(self.dataset.location(), &self.shared_folder(), name, schema, self.engine.io())
    }

    fn own_folder(&self) -> String {
        format!("{WORK}/attempt-{}", self.attempt)
    }

    fn shared_folder(&self) -> String {
        format!("{WORK}/{}", self.name)
    }

    /// The folder of what cleaning made.
    pub(crate) fn cleaned_folder(&self) -> String {
        format!("{CLEANED}/{}", self.name)
    }

    /// Does it; none where it turns out not to add to the version before.
    async fn run(&self, options: Options, clock: &mut Clock) -> Result<Option<Outcome>> {
        let tasks = self.clean().await?;
        clock.lap("clean");
        let cleaned = Cleaned::open(&self.verdicts, &self.contents, tasks).await?;
        self.progress.stage("dedup", None, Unit::Records);
        let stage = |name: &str, schema| self.stage(name, schema);
        let likeness = Likeness::new(self.pipeline);
        let search = Search {
            engine: &self.engine,
            pipeline: self.pipeline,
            cleaned: &cleaned,
            likeness: &likeness,
            known: self.known.as_ref(),
            stage: &stage,
        };
        let Some((ledger, left)) = search.decide().await? else { return Ok(None) };
        self.progress.advance(cleaned.records);
        clock.lap("dedup");
        if !ledger.tally.is_conserved() {
            return Err(Error::new(Kind::Internal, format!("records were lost or doubled:\n{}", report::conservation(&ledger.tally))));
        }
        if options.dry_run {
            return Ok(Some(Outcome::Planned { tally: ledger.tally, rows_digest: ledger.rows_digest, rejects: ledger.rejects }));
        }
        let latest = self.dataset.latest().await?;
        if let Some(latest) = latest.filter(|latest| latest.config_digest == self.setup && latest.rows_digest == ledger.rows_digest) {
            return Ok(Some(Outcome::Unchanged { manifest: latest, tally: ledger.tally }));
        }
        if self.known.is_none() && !ledger.fates.contains(&Fate::Train) {
            return Err(Error::new(Kind::Invalid, nothing_left(&self.source.settings.url, &ledger.tally)));
        }
        let folder = format!("tables/{}", self.attempt);
        let target = Target { dataset: &self.dataset, format: self.pipeline.format, folder: &folder };
        let kept = Kept {
            engine: &self.engine,
            shard: &self.pipeline.shard,
            cleaned: &left,
            ledger: &ledger,
            known: self.known.as_ref(),
            progress: &self.progress,
        };
        let made = self.tables(kept, &target, clock).await?;
        self.commit(&cleaned, ledger, made).await.map(Some)
    }

    /// Cleans every task that is not done yet; how many tasks there are.
    async fn clean(&self) -> Result<usize> {
        let tasks = self.source.tasks(self.size);
        let size = |objects: &Range<usize>| self.source.fresh[objects.clone()].iter().map(|object| object.size).sum::<u64>();
        self.progress.stage("clean", Some(tasks.iter().map(size).sum()), Unit::Bytes);
        let mut done = self.cleaned_tasks().await?;
        if !done.is_empty() {
            self.progress.note(&format!("going on after {} of {} finished tasks", done.len(), tasks.len()));
        }
        let count = tasks.len();
        let (skipped, mut missing): (Vec<_>, Vec<_>) = tasks.into_iter().enumerate().partition(|(task, _)| done.contains(task));
        skipped.iter().for_each(|(_, objects)| self.progress.advance(size(objects)));
        // Several processes with the same job begin at different tasks, and leave out what another has done meanwhile.
        let first = std::process::id() as usize % missing.len().max(1);
        missing.rotate_left(first);
        let mut listed = Instant::now();
        // Threads that have no task of their own help with another.
        let threads_a_task = (self.engine.threads() / missing.len().max(1)).max(1);
        for tasks in missing.chunks(self.engine.threads()) {
            if listed.elapsed() > RELIST_AFTER {
                (done, listed) = (self.cleaned_tasks().await?, Instant::now());
            }
            let mut work = Vec::with_capacity(tasks.len());
            for (task, objects) in tasks {
                if !done.contains(task) {
                    work.push(self.clean_task(*task, objects.clone(), threads_a_task));
                }
            }
            let work = futures::stream::iter(work);
            work.buffer_unordered(self.engine.threads()).try_collect::<()>().await?;
        }
        Ok(count)
    }

    /// The tasks of which both stages are done.
    async fn cleaned_tasks(&self) -> Result<HashSet<usize>> {
        let contents: HashSet<usize> = self.contents.done().await?.iter().map(|part| part.task).collect();
        Ok(self.verdicts.done().await?.iter().map(|part| part.task).filter(|task| contents.contains(task)).collect())
    }

    /// Cleans the records of some objects, `threads` batches at a time.
    async fn clean_task(&self, task: usize, objects: Range<usize>, threads: usize) -> Result<()> {
        let modality = self.pipeline.source.modality;
        let raw = read::raw(&self.source, objects, self.engine.io(), threads);
        let table = Engine::table(read::schema(), raw)?;
        let plan = shard::session(&self.engine).read_table(table)?.select(clean::projection(&self.cleaner))?;
        let mut batches = match threads {
            1 => plan.execute_stream().await?,
            _ => self.engine.stream_in_turn(plan).await?,
        };
        let (mut verdicts, mut contents) = (self.verdicts.writer(task)?, self.contents.writer(task)?);
        let progress = Arc::clone(&self.progress);
        let work = self.engine.run(async move {
            while let Some(batch) = batches.try_next().await? {
                let (judged, kept) = clean::unnest(&batch, verdicts.rows(), modality)?;
                verdicts.write(&judged)?;
                contents.write(&kept)?;
                progress.advance(batch.column(1).as_primitive::<UInt64Type>().values().iter().sum());
                if verdicts.is_full() || contents.is_full() {
                    // Contents first: a task is taken for done by its verdicts.
                    contents.cut().await?;
                    verdicts.cut().await?;
                }
            }
            contents.finish().await?;
            verdicts.finish().await
        });
        work.await
    }

    /// Deletes the stage objects that are needed no more: those of this attempt always; those that attempts share unless it
    /// failed, as the next one goes on from them; those of cleaning only if no version names them.
    async fn clear(&self, outcome: &Result<Option<Outcome>>, options: Options) -> Result<()> {
        let mut folders = vec![self.own_folder()];
        if matches!(outcome, Ok(Some(_))) || options.dry_run {
            folders.push(self.shared_folder());
            let names = matches!(outcome, Ok(Some(Outcome::Committed(manifest))) if manifest.cleaned.is_some());
            if !names && !self.is_named().await? {
                folders.push(self.cleaned_folder());
            }
        }
        self.delete(&folders).await
    }

    async fn delete(&self, folders: &[String]) -> Result<()> {
        let location = self.dataset.location();
        for folder in folders {
            let listed: Vec<_> = location.list(folder).try_collect().await?;
            for path in listed.iter().filter_map(|meta| location.relative(&meta.location)) {
                location.delete(&path).await?;
            }
        }
        Ok(())
    }

    /// Whether the newest version builds upon what this job cleaned: another process may have committed it.
    async fn is_named(&self) -> Result<bool> {
        let Some(latest) = self.dataset.latest().await? else { return Ok(false) };
        let Some(list) = &latest.cleaned else { return Ok(false) };
        let list = self.dataset.get_object(list).await?;
        Ok(known::parse_tasks(&list)?.iter().any(|task| task.folder == self.cleaned_folder()))
    }
}

/// How long a list of finished tasks is believed.
const RELIST_AFTER: Duration = Duration::from_secs(2);

/// Wall time by stage.
pub(crate) struct Clock {
    start: Instant,
    last: Instant,
    stages: Vec<(String, f64)>,
}

impl Clock {
    fn start() -> Self {
        Self { start: Instant::now(), last: Instant::now(), stages: Vec::new() }
    }

    pub(crate) fn lap(&mut self, stage: &str) {
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
