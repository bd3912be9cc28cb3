//! How fast a loader is, alone: every micro-batch is taken as soon as it is there and thrown away.
//!
//! Deliberately absent: a model. A trainer's own waits say whether the loader is fast enough for it.

use std::time::Instant;

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
    /// Samples a second.
    pub samples_per_second: f64,
    /// Batches delivered, in millions of bytes.
    pub megabytes: f64,
    /// Where the consumer waited.
    pub waits: Waits,
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
    let began = Instant::now();
    let mut stream = loader.stream(runtime, (0..each_step).collect(), 0, steps, options);
    let (mut samples, mut bytes) = (0, 0);
    for _ in 0..micro_batches {
        let Some(micro_batch) = stream.next() else { break };
        let batch = micro_batch?.batch;
        samples += batch.samples() as u64;
        bytes += batch.bytes();
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(BenchReport {
        samples,
        seconds,
        samples_per_second: samples as f64 / seconds.max(1e-9),
        megabytes: bytes as f64 / 1e6,
        waits: stream.waits(),
        work: stream.work(),
        cache: loader.cache(),
        hedges: loader.hedges(),
    })
}
