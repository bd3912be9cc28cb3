//! How fast a loader is, alone: every micro-batch is taken as soon as it is there and thrown away.
//!
//! Deliberately absent: a model. A trainer's own waits say whether the loader is fast enough for it.

use std::time::Instant;

use forebay_schemas::Digest;
use serde::Serialize;
use tokio::runtime::Handle;

use crate::cache::Counts;
use crate::error::Result;
use crate::loader::Loader;
use crate::prefetch::{StreamOptions, Work};
use crate::stall::Waits;

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
}

/// Takes `micro_batches` micro-batches from step 0 on. Blocks; not to be called inside of async code.
pub fn bench(loader: &Loader, runtime: Handle, micro_batches: u64, options: StreamOptions) -> Result<BenchReport> {
    let each_step = loader.plan().micro_batches();
    let steps = micro_batches.div_ceil(u64::from(each_step));
    let (began, cpu_before) = (Instant::now(), cpu_seconds());
    let mut stream = loader.stream(runtime, (0..each_step).collect(), 0, steps, options);
    let (mut samples, mut bytes, mut replaced, mut first, mut digests) = (0, 0, 0, None, Vec::new());
    for _ in 0..micro_batches {
        let Some(micro_batch) = stream.next() else { break };
        let micro_batch = micro_batch?;
        first.get_or_insert_with(|| began.elapsed().as_secs_f64());
        samples += micro_batch.batch.samples() as u64;
        bytes += micro_batch.batch.bytes();
        replaced += micro_batch.replaced.len() as u64;
        digests.push(micro_batch.digest);
    }
    let seconds = began.elapsed().as_secs_f64();
    let waits = stream.waits();
    Ok(BenchReport {
        samples,
        seconds,
        cpu_seconds: cpu_seconds().zip(cpu_before).map(|(after, before)| after - before),
        first_seconds: first.unwrap_or(seconds),
        samples_digest: Digest::of_parts(digests.iter().map(|digest| &digest.as_bytes()[..])),
        replaced,
        consumer: seconds - waits.total(),
        samples_per_second: samples as f64 / seconds.max(1e-9),
        megabytes: bytes as f64 / 1e6,
        waits,
        work: stream.work(),
        cache: loader.cache(),
        hedges: loader.hedges(),
    })
}

/// Processor time of this process and its threads, also those that have ended.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th field after it, in hundredths.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: Vec<u64> = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
    (ticks.len() == 2).then(|| ticks.iter().sum::<u64>() as f64 / 100.0)
}
