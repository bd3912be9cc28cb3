//! Where plans run: a pool of CPU threads of its own and DataFusion sessions on it.
//!
//! Promises: CPU work never runs on the caller's runtime, which keeps doing I/O; sorting and grouping take at most half
//! of `limits.memory` and spill to local disk beyond. Deliberately absent: any global pool.

use std::future::Future;
use std::sync::Arc;

use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use forebay_schemas::pipeline::Limits;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Error, Kind, Result};

/// The CPU pool and the memory of one ingest.
pub(crate) struct Engine {
    cpu: Option<Runtime>,
    threads: usize,
    io: Handle,
    memory: Arc<RuntimeEnv>,
    pool_bytes: usize,
}

impl Engine {
    /// Starts the pool. Must be called on the runtime that does I/O.
    pub(crate) fn start(limits: &Limits) -> Result<Self> {
        let threads = match limits.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            given => given as usize,
        };
        let cpu = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("ingest")
            .enable_time()
            .build()
            .map_err(|error| Error::with_source(Kind::Unavailable, format!("starting {threads} threads failed"), error))?;
        let pool_bytes = usize::try_from(limits.memory.0 / 2).unwrap_or(usize::MAX);
        let memory = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(pool_bytes))).build_arc()?;
        Ok(Self { cpu: Some(cpu), threads, io: Handle::current(), memory, pool_bytes })
    }

    /// CPU threads; also the number of tasks at work at a time.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// The runtime on which objects are read.
    pub(crate) fn io(&self) -> &Handle {
        &self.io
    }

    /// A session whose batches have about `batch_rows` rows.
    pub(crate) fn session(&self, batch_rows: usize) -> SessionContext {
        let mut config = SessionConfig::new().with_target_partitions(self.threads).with_batch_size(batch_rows);
        // A partition of a source is already the unit of work; repartitioning would only copy text around.
        config.options_mut().optimizer.enable_round_robin_repartition = false;
        // What a sort keeps for merging its spilled runs must leave room for the sort itself in a small pool.
        config.options_mut().execution.sort_spill_reservation_bytes = (self.pool_bytes / 32).min(10 << 20);
        SessionContext::new_with_config_rt(config, Arc::clone(&self.memory))
    }

    /// Runs `work` on the pool.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        match &self.cpu {
            Some(cpu) => cpu.spawn(work).await.map_err(|error| Error::internal("a worker stopped", error))?,
            None => Err(Error::new(Kind::Internal, "the pool has stopped")),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A runtime may not be waited for inside another one; what still runs there ends at its next await.
        if let Some(cpu) = self.cpu.take() {
            cpu.shutdown_background();
        }
    }
}
