//! `forebay loader`: who reads what when, and how fast.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use forebay_loader::{
    BenchOptions, BenchReport, Counts, Draw, Loader as Stream, Ordering, Plan, Sourced, StreamOptions, Transform, pin, resolve,
};
use forebay_schemas::checkpoint::DatasetVersionRef;
use forebay_schemas::dataset::DatasetManifest;
use forebay_schemas::record::TRAIN;
use forebay_schemas::run::{Run, Weight};
use forebay_store::{Dataset, VersionSpec};
use forebay_trainer::membership::deal;
use serde::Serialize;
use serde_json::json;

use forebay::config::{Settings, runtime};
use forebay::failure::Usage;
use forebay::output;

/// Shows the order of samples, and measures how fast they come
#[derive(Args)]
#[command(
    after_help = "Example:\n  forebay loader plan examples/rust-code-gpt.toml --step 100 --replicas 3\n  forebay loader bench examples/rust-code-gpt.toml --steps 200"
)]
pub(crate) struct Loader {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Shows which rows the micro-batches of some steps take, and which replica computes them
    Plan {
        #[command(flatten)]
        settings: Settings,
        /// First step
        #[arg(long, default_value_t = 0)]
        step: u64,
        /// Number of steps
        #[arg(long, default_value_t = 1)]
        steps: u64,
        /// Replicas among which the micro-batches are dealt; the rows do not depend on it
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
        replicas: u32,
        /// Prints {identity, order, sources: [{dataset, version, rows, fed, block_rows, window_blocks, share, epoch_ends}], micro_batches:
        /// [{step, index, replica, samples: [{source, epoch, row}], digest}]}
        #[arg(long)]
        json: bool,
    },
    /// Reads, decodes and augments the batches of some steps and throws them away
    Bench {
        #[command(flatten)]
        settings: Settings,
        /// First step
        #[arg(long, default_value_t = 0)]
        step: u64,
        /// Number of steps
        #[arg(long, default_value_t = 100)]
        steps: u64,
        /// So many milliseconds the consumer computes each batch
        #[arg(long, value_name = "MS", default_value_t = 0)]
        pace: u64,
        /// Decoding threads; 0 is one a core
        #[arg(long, default_value_t = 0)]
        threads: usize,
        /// Also copies each batch, as a trainer does that computes elsewhere
        #[arg(long)]
        copy: bool,
        /// Afterwards makes the same batches in a plain loop, of rows in memory, and says what the loader costs beyond that
        #[arg(long)]
        bare: bool,
        /// Prints {samples, seconds, cpu_seconds, first_seconds, samples_per_second, megabytes, samples_digest, replaced, waits: {request,
        /// bandwidth, decompress, queue, decode, augment, collate, wake, copy}, consumer, work, cache, hedges, traffic: {requests, bytes}, between: {p50, p99, p999, longest}, memory: {peak, before, early, late}, bare}
        #[arg(long)]
        json: bool,
    },
}

impl Loader {
    pub(crate) fn run(self) -> Result<()> {
        match self.action {
            Action::Plan { settings, step, steps, replicas, json } => {
                let Some(mut run) = settings.run()? else { return Ok(()) };
                plan(&mut run, step, steps, replicas, json)
            }
            Action::Bench { settings, step, steps, pace, threads, copy, bare, json } => {
                let Some(mut run) = settings.run()? else { return Ok(()) };
                let micro_batches = steps.saturating_mul(run.batch.micro_batches.into());
                let options = BenchOptions { first_step: step, micro_batches, pace: Duration::from_millis(pace), copy, bare };
                bench(&mut run, options, threads, json)
            }
        }
    }
}

/// The datasets of a run, the first of them the run's own.
struct Opened {
    url: String,
    dataset: Dataset,
    manifest: DatasetManifest,
    filter: Option<String>,
    weight: Weight,
}

async fn open(run: &Run) -> Result<Vec<Opened>> {
    let own = (&run.dataset, &run.version, &run.filter, &run.weight);
    let mixed = run.mixture.iter().map(|mixed| (&mixed.dataset, &mixed.version, &mixed.filter, &mixed.weight));
    let mut opened = Vec::new();
    for (url, version, filter, weight) in std::iter::once(own).chain(mixed) {
        let dataset = Dataset::open(url).await?;
        let manifest = dataset.resolve(&version.parse::<VersionSpec>()?).await?;
        opened.push(Opened { url: url.clone(), dataset, manifest, filter: filter.clone(), weight: weight.clone() });
    }
    Ok(opened)
}

fn sourced(opened: &[Opened]) -> Vec<Sourced<'_>> {
    let sources = opened.iter().map(|Opened { dataset, manifest, filter, weight, .. }| {
        let weight = weight.0.clone();
        Sourced { dataset, manifest, filter: filter.as_deref(), weight }
    });
    sources.collect()
}

/// The steps in which all rows of a run's dataset, at this version, are fed `batch.epochs` times.
pub(crate) async fn steps(run: &Run, version: &DatasetVersionRef) -> Result<u64> {
    let mut pinned = run.clone();
    pinned.version = version.version.to_string();
    for (mixed, version) in pinned.mixture.iter_mut().zip(&version.mixed) {
        mixed.version = version.version.to_string();
    }
    let opened = open(&pinned).await?;
    let plan = resolve(&sourced(&opened), TRAIN, &Ordering::of(&pinned)).await?.plan;
    let last = plan.end_of_epoch(0, run.batch.epochs.saturating_sub(1));
    let never = || {
        Usage(format!(
            "setting `batch.epochs`: epoch {} of `{}` never ends, expected a weight that stays above 0",
            run.batch.epochs, run.dataset
        ))
    };
    Ok(last.ok_or_else(never)? + 1)
}

/// One source of a plan, for people and programs.
#[derive(Serialize)]
struct SourceLine {
    dataset: String,
    version: u64,
    rows: u64,
    fed: u64,
    block_rows: u64,
    window_blocks: u64,
    share: f64,
    epoch_ends: Option<u64>,
}

impl SourceLine {
    fn new(number: u32, opened: &Opened, plan: &Plan, step: u64) -> Self {
        let given = |source: u32| plan.given(source, step + 1) - plan.given(source, step);
        let all: u64 = (0..plan.sources()).map(given).sum();
        let shuffle = plan.shuffle(number);
        let epoch = plan.given(number, step) / plan.rows(number);
        Self {
            dataset: opened.url.clone(),
            version: opened.manifest.version,
            rows: opened.manifest.tables.get(TRAIN).map_or(0, |table| table.rows),
            fed: plan.rows(number),
            block_rows: shuffle.block_rows,
            window_blocks: shuffle.window_blocks,
            share: given(number) as f64 / all.max(1) as f64,
            epoch_ends: plan.end_of_epoch(number, epoch),
        }
    }

    fn cells(&self, number: usize) -> Vec<String> {
        vec![
            number.to_string(),
            self.dataset.clone(),
            self.version.to_string(),
            output::grouped(self.rows),
            output::grouped(self.fed),
            format!("{} x {}", self.window_blocks, self.block_rows),
            format!("{:.1} %", 100.0 * self.share),
            self.epoch_ends.map_or_else(|| "never".to_owned(), |step| format!("in step {step}")),
        ]
    }
}

fn plan(run: &mut Run, step: u64, steps: u64, replicas: u32, json: bool) -> Result<()> {
    let runtime = runtime()?;
    runtime.block_on(pin(run))?;
    let opened = runtime.block_on(open(run))?;
    let plan = runtime.block_on(resolve(&sourced(&opened), TRAIN, &Ordering::of(run)))?.plan;
    let sources: Vec<SourceLine> = (0..).zip(&opened).map(|(number, opened)| SourceLine::new(number, opened, &plan, step)).collect();
    let listed = (step..step.saturating_add(steps)).flat_map(|step| (0..run.batch.micro_batches).map(move |index| (step, index)));
    let shares = deal(&(0..run.batch.micro_batches).collect::<Vec<_>>(), &vec![None; replicas as usize]);
    let replica = |index: u32| shares.iter().position(|share| share.contains(&index)).unwrap_or_default();
    let listed = listed.map(|(step, index)| (replica(index), plan.micro_batch(step, index)));
    if json {
        let listed: Vec<_> = listed
            .map(|(replica, micro_batch)| {
                let samples: Vec<_> =
                    micro_batch.draws.iter().map(|draw| json!({"source": draw.source, "epoch": draw.epoch, "row": draw.row})).collect();
                let (step, index, digest) = (micro_batch.position.step, micro_batch.index, micro_batch.digest());
                json!({"step": step, "index": index, "replica": replica, "samples": samples, "digest": digest})
            })
            .collect();
        return output::json(&json!({"identity": plan.identity(), "order": plan.order(), "sources": sources, "micro_batches": listed}));
    }
    let head = ["source", "dataset", "version", "rows", "fed an epoch", "window", "share", "epoch ends"];
    output::table(&head, &sources.iter().enumerate().map(|(number, source)| source.cells(number)).collect::<Vec<_>>())?;
    output::line("")?;
    let lines: Vec<Vec<String>> = listed
        .map(|(replica, micro_batch)| {
            let first = micro_batch.draws.first().map_or(0, |draw| draw.epoch);
            vec![
                micro_batch.position.step.to_string(),
                micro_batch.index.to_string(),
                replica.to_string(),
                first.to_string(),
                micro_batch.digest().short(),
                rows(&micro_batch.draws, plan.sources()),
            ]
        })
        .collect();
    output::table(&["step", "micro-batch", "replica", "epoch", "digest", if sources.len() > 1 { "source:row" } else { "rows" }], &lines)
}

/// The rows in the order in which they are fed, after their source where there are several.
fn rows(draws: &[Draw], sources: u32) -> String {
    let row = |draw: &Draw| if sources > 1 { format!("{}:{}", draw.source, draw.row) } else { draw.row.to_string() };
    draws.iter().map(row).collect::<Vec<_>>().join(" ")
}

fn bench(run: &mut Run, options: BenchOptions, threads: usize, json: bool) -> Result<()> {
    let runtime = runtime()?;
    runtime.block_on(pin(run))?;
    let opened = runtime.block_on(open(run))?;
    let first = opened.first().context("a run reads a dataset")?;
    let transform = runtime.block_on(Transform::training(run, &first.dataset, &first.manifest))?;
    let loader = runtime.block_on(Stream::open(&sourced(&opened), TRAIN, &Ordering::of(run), transform, &run.loader))?;
    let stream = StreamOptions { threads, prefetch_bytes: run.loader.prefetch.0, corrupt_samples: run.loader.corrupt_samples };
    let report = forebay_loader::bench(&loader, runtime.handle().clone(), options, stream)?;
    if json {
        return output::json(&report);
    }
    print(&report)
}

/// A measurement for people: how fast, and where the time went.
fn print(report: &BenchReport) -> Result<()> {
    output::line(format!(
        "{} samples in {:.2} s: {:.0} samples/s, {:.1} MB/s of batches, the first after {:.3} s",
        output::grouped(report.samples),
        report.seconds,
        report.samples_per_second,
        report.megabytes / report.seconds.max(1e-9),
        report.first_seconds
    ))?;
    if let Some(cpu) = report.cpu_seconds {
        output::line(format!("{:.2} CPU-seconds: {:.0} samples a CPU-second", cpu, report.samples as f64 / cpu.max(0.01)))?;
    }
    if let Some(bare) = report.bare {
        let each = |seconds: f64, samples: u64| 1e6 * seconds / samples.max(1) as f64;
        let (bare, whole) = (each(bare.seconds, bare.samples), report.cpu_seconds.map(|cpu| each(cpu, report.samples)));
        let beyond = whole.map_or_else(String::new, |whole| format!(", the loader takes {:.1} % more", 100.0 * (whole / bare - 1.0)));
        output::line(format!("{bare:.1} µs a sample in a plain loop{beyond}"))?;
    }
    let work = report.work;
    output::line(format!(
        "{} rows read for {} that were wanted, {} reads asked for twice",
        output::grouped(work.read_rows),
        output::grouped(work.used_rows),
        report.hedges
    ))?;
    if report.traffic.requests > 0 {
        let wanted = work.read_bytes as f64 * work.used_rows as f64 / work.read_rows.max(1) as f64;
        output::line(format!(
            "{} requests to storage brought {:.1} MB; the rows that were wanted take {:.1} MB of memory",
            output::grouped(report.traffic.requests),
            report.traffic.bytes as f64 / 1e6,
            wanted / 1e6
        ))?;
    }
    if let Some(cache) = report.cache {
        let Counts { hits, misses, damaged, bypassed, evicted } = cache;
        output::line(format!("cache: {hits} hits, {misses} misses, {evicted} evicted, {bypassed} not kept, {damaged} damaged"))?;
    }
    let between = report.between;
    let [p50, p99, p999] = [between.p50, between.p99, between.p999].map(|seconds| 1e3 * seconds);
    let memory = report.memory.map_or_else(String::new, |memory| format!("; at most {} MiB of memory", memory.peak >> 20));
    output::line(format!("from batch to batch {p50:.2} ms (median), {p99:.2} ms (p99), {p999:.2} ms (p99.9){memory}"))?;
    if report.replaced > 0 {
        output::line(format!("{} samples do not decode and were replaced", report.replaced))?;
    }
    output::line(format!("digest of what was fed: {}\n", report.samples_digest))?;
    let worked = |cause: &str| match cause {
        "request" => Some(work.request),
        "decode" => Some(work.decode),
        "augment" => Some(work.augment),
        "collate" => Some(work.collate),
        _ => None,
    };
    let causes = report.waits.causes().into_iter().chain([("consumer", report.consumer)]);
    let mut lines: Vec<Vec<String>> = causes
        .map(|(cause, waited)| {
            let share = waited / report.seconds.max(1e-9);
            let worked = worked(cause).map_or_else(String::new, |worked| format!("{worked:.3}"));
            vec![cause.to_owned(), format!("{waited:.3}"), format!("{:.1}", 100.0 * share), worked, output::bar(share, BAR)]
        })
        .collect();
    lines.push(vec!["wall".to_owned(), format!("{:.3}", report.seconds), "100.0".to_owned()]);
    output::table(&["waited for", "seconds", "%", "worked, thread-seconds", ""], &lines)
}

/// Characters of a whole bar.
const BAR: usize = 40;
