//! How fast a loader is, alone: every micro-batch is taken as soon as it is there and thrown away.
//!
//! Deliberately absent: a model. A trainer's own waits say whether the loader is fast enough for it.

use std::time::{Duration, Instant};

use forebay_schemas::{Digest, Waits};
use serde::Serialize;
use tokio::runtime::Handle;

use crate::cache::Counts;
use crate::error::Result;
use crate::loader::Loader;
use crate::prefetch::{StreamOptions, Work};
use crate::stall::Traffic;

/// How a measurement is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct BenchOptions {
    /// The step to begin with.
    pub first_step: u64,
    /// Micro-batches to take from there on.
    pub micro_batches: u64,
    /// So long the consumer computes a batch: it sleeps.
    pub pace: Duration,
    /// Copies each batch, as a consumer does who computes elsewhere.
    pub copy: bool,
    /// Afterwards makes the same batches in a plain loop on one thread, of rows that are in memory: what no loader can be
    /// cheaper than.
    pub bare: bool,
}

/// What a measurement found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BenchReport {
    /// Samples delivered.
    pub samples: u64,
    /// Time from the start to the last of them.
    pub seconds: f64,
    /// Processor time of the process in it, in steps of 10 ms; none where the system does not say.
    pub cpu_seconds: Option<f64>,
    /// Time from the start to the first micro-batch.
    pub first_seconds: f64,
    /// Samples a second.
    pub samples_per_second: f64,
    /// Batches delivered, in millions of bytes.
    pub megabytes: f64,
    /// Digest of all micro-batches in order: of every sample and the key of its augmentation.
    pub samples_digest: Digest,
    /// Samples that did not decode and were replaced.
    pub replaced: u64,
    /// Where the consumer waited.
    pub waits: Waits,
    /// What is left of the time: the consumer's own.
    pub consumer: f64,
    /// What the stages took, whether or not anybody waited for them.
    pub work: Work,
    /// What the cache did; none without one.
    pub cache: Option<Counts>,
    /// Reads that were asked for twice.
    pub hedges: u64,
    /// What was taken from storage, from the opening of the datasets on; nothing where they are on a local disk.
    pub traffic: Traffic,
    /// From each batch to the next one.
    pub between: Quantiles,
    /// Memory of the process; none where the system does not say.
    pub memory: Option<Memory>,
    /// What making the batches takes alone, if that was asked for.
    pub bare: Option<Bare>,
}

/// Quantiles of some durations, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// The median.
    pub p50: f64,
    /// 99 of 100 are shorter.
    pub p99: f64,
    /// 999 of 1000 are shorter.
    pub p999: f64,
    /// The longest.
    pub longest: f64,
}

impl Quantiles {
    fn of(mut seconds: Vec<f32>) -> Self {
        seconds.sort_unstable_by(f32::total_cmp);
        let at =
            |share: f64| seconds.get((seconds.len() as f64 * share) as usize).or(seconds.last()).map_or(0.0, |found| f64::from(*found));
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), longest: at(1.0) }
    }
}

/// Resident memory of the process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// Most there was at a time.
    pub peak: u64,
    /// Before the first micro-batch was asked for.
    pub before: u64,
    /// After a tenth of the micro-batches.
    pub early: u64,
    /// After the last.
    pub late: u64,
}

/// Batches made of rows in memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bare {
    /// Samples made: not all of them where their rows take more than 512 MiB.
    pub samples: u64,
    /// Time of the loop; on its one thread, so processor time where nothing else runs.
    pub seconds: f64,
    /// Processor time of the process in it; none where the system does not say.
    pub cpu_seconds: Option<f64>,
}

/// Most bytes of rows that are held for [`Bare`].
const BARE_BYTES: u64 = 512 << 20;

/// Takes micro-batches. Blocks; not to be called inside of async code.
pub fn bench(loader: &Loader, runtime: Handle, options: BenchOptions, stream: StreamOptions) -> Result<BenchReport> {
    let BenchOptions { first_step, micro_batches, pace, copy, bare } = options;
    let each_step = loader.plan().micro_batches();
    let end_step = first_step.saturating_add(micro_batches.div_ceil(u64::from(each_step)));
    let (began, cpu_before) = (Instant::now(), cpu_seconds());
    let mut stream = loader.stream(runtime.clone(), (0..each_step).collect(), first_step, end_step, stream);
    let (mut samples, mut bytes, mut replaced, mut first) = (0, 0, 0, None);
    let (mut digests, mut copied, mut between, mut last) = (blake3::Hasher::new(), Vec::new(), Vec::new(), began);
    let (before, mut early) = (resident("VmRSS:"), None);
    between.reserve_exact(micro_batches.min(1 << 24) as usize);
    for number in 0..micro_batches {
        let Some(micro_batch) = stream.next() else { break };
        let micro_batch = micro_batch?;
        let now = Instant::now();
        match first {
            None => first = Some((now - began).as_secs_f64()),
            Some(_) => between.push((now - last).as_secs_f32()),
        }
        last = now;
        if copy {
            copied.clear();
            copied.extend_from_slice(micro_batch.batch.as_bytes());
            std::hint::black_box(&copied);
            stream.copied(now.elapsed());
        }
        samples += micro_batch.batch.samples() as u64;
        bytes += micro_batch.batch.bytes();
        replaced += micro_batch.replaced.len() as u64;
        digests.update(micro_batch.digest.as_bytes());
        drop(micro_batch);
        if number == micro_batches / 10 {
            early = resident("VmRSS:");
        }
        if !pace.is_zero() {
            std::thread::sleep(pace);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu_seconds = cpu_seconds().zip(cpu_before).map(|(after, before)| after - before);
    let (waits, work) = (stream.waits(), stream.work());
    let memory = (resident("VmHWM:"), before, early, resident("VmRSS:"));
    drop(stream);
    Ok(BenchReport {
        samples,
        seconds,
        cpu_seconds,
        first_seconds: first.unwrap_or(seconds),
        samples_digest: Digest::from_bytes(*digests.finalize().as_bytes()),
        replaced,
        consumer: seconds - waits.total(),
        samples_per_second: samples as f64 / seconds.max(1e-9),
        megabytes: bytes as f64 / 1e6,
        waits,
        work,
        cache: loader.cache(),
        hedges: loader.hedges(),
        traffic: loader.traffic(),
        between: Quantiles::of(between),
        memory: match memory {
            // The system's peak may lag behind what it says of the present.
            (Some(peak), Some(before), Some(early), Some(late)) => {
                Some(Memory { peak: peak.max(before).max(early).max(late), before, early, late })
            }
            _ => None,
        },
        bare: if bare { Some(make_bare(loader, &runtime, first_step, micro_batches)?) } else { None },
    })
}

fn make_bare(loader: &Loader, runtime: &Handle, first_step: u64, micro_batches: u64) -> Result<Bare> {
    let rows = runtime.block_on(loader.held(first_step, micro_batches, BARE_BYTES))?;
    let (began, cpu_before) = (Instant::now(), cpu_seconds());
    let samples = loader.make(&rows)?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Bare { samples, seconds, cpu_seconds: cpu_seconds().zip(cpu_before).map(|(after, before)| after - before) })
}

/// A size that the system keeps of this process.
fn resident(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

/// Processor time of this process and its threads, also those that have ended.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th field after it, in hundredths.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: Vec<u64> = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
    (ticks.len() == 2).then(|| ticks.iter().sum::<u64>() as f64 / 100.0)
}
