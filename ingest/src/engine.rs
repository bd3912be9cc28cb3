//! Where plans run: a pool of CPU threads of its own and DataFusion sessions on it.
//!
//! Promises: CPU work never runs on the caller's runtime, which keeps doing I/O; sorting and grouping take at most
//! two fifths of `limits.memory` and spill to local disk beyond. Deliberately absent: any global pool.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use forebay_schemas::pipeline::Limits;
use futures::{Stream, StreamExt};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;

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
        let pool_bytes = usize::try_from(limits.memory.0 / 5 * 2).unwrap_or(usize::MAX);
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
        // Buffered batches are sorted as one, which takes twice their size for a moment. The other way, a merge of thousands of
        // small sorted batches, costs more in time, and in memory more than it was granted when it has to spill.
        config.options_mut().execution.sort_in_place_threshold_bytes = usize::MAX;
        // A hash join cannot spill what it builds; a merge join can.
        config.options_mut().optimizer.prefer_hash_join = false;
        SessionContext::new_with_config_rt(config, Arc::clone(&self.memory))
    }

    /// The rows of a plan, which runs on the pool, a few batches ahead of who reads them.
    pub(crate) async fn stream(&self, plan: DataFrame) -> Result<SendableRecordBatchStream> {
        let schema = Arc::clone(plan.schema().inner());
        let (sender, receiver) = mpsc::channel(2);
        self.cpu()?.spawn(async move {
            match plan.execute_stream().await {
                Ok(batches) => forward(batches, sender).await,
                Err(error) => drop(sender.send(Err(error)).await),
            }
        });
        let batches = futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    /// The rows of a plan whose partitions work side by side on the pool: a batch of each in turn, as they were dealt.
    pub(crate) async fn stream_in_turn(&self, plan: DataFrame) -> Result<SendableRecordBatchStream> {
        let schema = Arc::clone(plan.schema().inner());
        let mut receivers = Vec::new();
        for batches in plan.execute_stream_partitioned().await? {
            let (sender, receiver) = mpsc::channel(1);
            self.cpu()?.spawn(forward(batches, sender));
            receivers.push(receiver);
        }
        let batches = futures::stream::unfold((receivers, 0), |(mut receivers, at)| async move {
            let batch = receivers.get_mut(at)?.recv().await?;
            let next = (at + 1) % receivers.len();
            Some((batch, (receivers, next)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    /// Batches that are made on the way as a table of a plan, a partition for each stream; it can be read once.
    pub(crate) fn table<S>(schema: SchemaRef, partitions: impl IntoIterator<Item = S>) -> Result<Arc<dyn TableProvider>>
    where
        S: Stream<Item = Result<RecordBatch>> + Send + 'static,
    {
        let partition = |batches: S| -> Arc<dyn PartitionStream> {
            let batches = Box::pin(batches.map(|batch| batch.map_err(DataFusionError::from)));
            let batches: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), batches));
            Arc::new(Once { schema: Arc::clone(&schema), batches: Mutex::new(Some(batches)) })
        };
        let partitions = partitions.into_iter().map(partition).collect();
        Ok(Arc::new(StreamingTable::try_new(Arc::clone(&schema), partitions)?))
    }

    fn cpu(&self) -> Result<&Runtime> {
        self.cpu.as_ref().ok_or_else(|| Error::new(Kind::Internal, "the pool has stopped"))
    }

    /// Bytes that sorting and grouping may take.
    pub(crate) fn pool_bytes(&self) -> usize {
        self.pool_bytes
    }

    /// Runs `work` on the pool.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        self.cpu()?.spawn(work).await.map_err(|error| Error::internal("a worker stopped", error))?
    }
}

/// Sends batches until there are no more or nobody takes them.
async fn forward(mut batches: SendableRecordBatchStream, sender: mpsc::Sender<datafusion::error::Result<RecordBatch>>) {
    while let Some(batch) = batches.next().await {
        if sender.send(batch).await.is_err() {
            return;
        }
    }
}

/// A partition that can be read once.
struct Once {
    schema: SchemaRef,
    batches: Mutex<Option<SendableRecordBatchStream>>,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once")
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner).take();
        batches.unwrap_or_else(|| {
            let again = futures::stream::iter([Err(DataFusionError::Internal("a table that can be read once was read twice".to_owned()))]);
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), again))
        })
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
