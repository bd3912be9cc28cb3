//! The loop of a replica, from joining to leaving.
//!
//! A generation is a set of replicas with ranks. In each: connect, take over the state, compute steps until the generation
//! ends. A step is applied only after the coordinator committed it, so whatever dies, freezes or is cut off, no step is lost or
//! applied twice; and what was computed of it is kept for the next generation, so that nothing is computed twice either. A
//! generation that ends aborts this replica's collectives from outside: nobody waits for a dead peer.
//! Deliberately absent: a decision about membership; the coordinator takes them all. What a replica has, and what of it
//! counts, is [`Progress`]'s.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use forebay_c10d::{AbortHandle, Patience, Pinned, ProcessGroup};
use forebay_loader::{Block, Loader, Stream, StreamOptions};
use forebay_schemas::Digest;
use forebay_schemas::Waits;
use forebay_schemas::run::Reduce;
use forebay_schemas::wire::{Assignment, Identity, MicroBatchReport, Restore, RunInfo, Timings};
use forebay_store::Checkpoints;
use forebay_trainer::Wish;
use forebay_trainer::membership::{Outcome, Progress, Session};
use tch::Device;
use tokio::runtime::Runtime;

use crate::checkpoint::{self, Snapshot, writer};
use crate::device;
use crate::engine::{self, Computed, Engine};
use crate::error::{Error, Kind, Result, of_loader};
use crate::model::{Input, Task};
use crate::rendezvous::PeerStore;
use crate::source::Source;

/// What a replica is told when it is started; everything else comes from the coordinator.
#[derive(Clone, Debug, Default)]
pub struct ReplicaOptions {
    /// URL of the coordinator.
    pub coordinator: String,
    /// Secret of the run.
    pub token: String,
    /// Name in reports.
    pub name: String,
    /// Address under which the other replicas reach this one.
    pub host: String,
    /// CPU threads; 0 takes those that the run's settings say, or one a core.
    pub threads: usize,
    /// What it computes on.
    pub device: Wish,
    /// Its place among the replicas of its host, from 0.
    pub place: usize,
    /// Is called after each applied step with the number of steps that the weights have seen.
    pub watch: Option<fn(&Engine, u64)>,
}

/// What came of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaSummary {
    /// Steps that its weights have seen.
    pub step: u64,
    /// Steps that it took part in.
    pub computed: u64,
    /// Generations that it took part in.
    pub generations: u64,
}

/// An operation on a peer or a store that does not answer is given up after this; the end of a generation comes much sooner.
const COLLECTIVE_TIMEOUT: Duration = Duration::from_secs(300);

/// A connection between replicas over which nothing was acknowledged for so many leases is cut. A frozen process is noticed
/// before, by its lease.
const LEASES_OF_SILENCE: u32 = 4;
const SHORTEST_LEASE: Duration = Duration::from_millis(500);

/// Attempts to write the last checkpoint of a run, and the wait between two.
const LAST_CHECKPOINT_ATTEMPTS: u32 = 5;
const LAST_CHECKPOINT_PAUSE: Duration = Duration::from_secs(1);

/// Joins the run of a coordinator and trains until it is done.
///
/// Blocks; not for a thread that runs async tasks. `Invalid` if the settings do not fit the data or the loss diverged.
pub fn replica(options: ReplicaOptions) -> Result<ReplicaSummary> {
    let pid = std::process::id();
    let device = device::choose(options.device, options.place)?;
    let identity =
        Identity { name: options.name.clone(), host: options.host.clone(), pid, device: device::name(device), door: String::new() };
    let session = Session::meet(&options.coordinator, &options.token, identity)?;
    let mut replica = Replica::open(session, options, device)?;
    while let Some(assignment) = replica.assignment()? {
        replica.summary.generations += 1;
        let outcome = replica.generation(&assignment);
        let ended = Instant::now();
        replica.engine.detach()?;
        tracing::debug!(generation = assignment.generation, milliseconds = ended.elapsed().as_millis(), "left the group");
        match outcome {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::Unavailable => replica.give_up(&assignment, &error)?,
            Err(error) if error.kind() == Kind::Fenced => replica.rejoin(&error)?,
            Err(error) => return Err(error),
        }
    }
    replica.leave()
}

struct Replica {
    options: ReplicaOptions,
    info: RunInfo,
    runtime: Runtime,
    session: Arc<RwLock<Session>>,
    source: Source,
    loader: Loader,
    checkpoints: Checkpoints,
    engine: Engine,
    writer: writer::Writer,
    progress: Progress,
    /// Loss of the last step, if this replica took part in it.
    loss: Option<f64>,
    summary: ReplicaSummary,
}

/// Micro-batches on their way, and which ones of every step.
struct Samples {
    stream: Stream,
    indices: Vec<u32>,
    /// The next one, if it was there in time: it goes to the device while the one before is computed.
    next: Option<Result<Taken>>,
}

/// A micro-batch that was taken from the stream.
struct Taken {
    step: u64,
    index: u32,
    /// Of the samples.
    digest: Digest,
    input: Input,
}

/// Times of the step before, which are reported with the next one.
#[derive(Clone, Copy, Default)]
struct Before {
    commit: Duration,
    apply: Duration,
}

impl Replica {
    fn open(mut session: Session, options: ReplicaOptions, device: Device) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("storage").enable_all().build();
        let runtime = runtime.map_err(|error| Error::with_source(Kind::Internal, "the threads for storage cannot start", error))?;
        let info = session.run().clone();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (told, set) = (options.threads, info.run.elastic.threads as usize);
        if info.run.reduce == Reduce::Strict && told > 0 && told != set {
            let message = format!(
                "--threads: found {told}, expected {set} as in `elastic.threads`: with `reduce = \"strict\"` the bits depend on it"
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        let wanted = [told, set, cores];
        engine::set_threads(wanted.into_iter().find(|&threads| threads > 0).unwrap_or(1));

        let (source, loader, checkpoints) = runtime.block_on(async {
            let source = Source::open(&info.dataset, &info.run).await?;
            let mut loader = source.training(&info.run).await?;
            if device.is_cuda() {
                loader = loader.with_memory(Arc::new(|bytes| Some(Box::new(Pinned::new(bytes).ok()?) as Box<dyn Block>)));
            }
            let checkpoints = Checkpoints::open(&info.run.checkpoints, &info.run.name).await?;
            Ok::<_, Error>((source, loader, checkpoints))
        })?;
        session.follow(checkpoints.clone());
        let order = loader.plan().order();
        session.join(order)?;
        let engine = Engine::new(&info.run, &source.task, device)?;
        let session = Arc::new(RwLock::new(session));
        let writer = writer::Writer::new(writer::Target {
            runtime: runtime.handle().clone(),
            checkpoints: checkpoints.clone(),
            session: Arc::clone(&session),
            info: info.clone(),
            order,
            writer: options.name.clone(),
        });
        let summary = ReplicaSummary { step: 0, computed: 0, generations: 0 };
        let progress = Progress::default();
        Ok(Self { options, info, runtime, session, source, loader, checkpoints, engine, writer, progress, loss: None, summary })
    }

    /// Waits for a place in the next generation; none when the run is done.
    fn assignment(&mut self) -> Result<Option<Assignment>> {
        loop {
            let asked = self.session.write().unwrap_or_else(PoisonError::into_inner).assignment(&self.progress);
            match asked {
                Err(error) if error.kind() == Kind::Fenced => self.rejoin(&error)?,
                asked => return asked,
            }
        }
    }

    /// Trains until the generation ends; `Ok` if it ended in order or by the coordinator's word.
    fn generation(&mut self, assignment: &Assignment) -> Result<()> {
        if !self.progress.take(assignment)? {
            self.engine.discard()?;
        }
        let began = Instant::now();
        let mut samples = self.samples(assignment.state.step);
        let group = self.connect(assignment)?;
        tracing::debug!(generation = assignment.generation, milliseconds = began.elapsed().as_millis(), "connected");
        let abort = group.as_ref().map(ProcessGroup::abort_handle);
        self.free_at_end(assignment, &samples, abort.clone());
        self.restore(assignment, group.as_ref())?;
        self.engine.attach(group)?;
        if assignment.checkpoint {
            self.checkpoint()?;
        }
        let mut before = Before::default();
        let mut salvaged = assignment.salvage.is_some();
        for step in assignment.state.step..self.info.run.batch.steps {
            if samples.indices != self.progress.due() {
                samples = self.samples(step);
                self.free_at_end(assignment, &samples, abort.clone());
            }
            let outcome = self.step(assignment, step, salvaged, &mut samples, &mut before)?;
            let Outcome::Apply { regroup: false, .. } = outcome else { return Ok(()) };
            salvaged = false;
        }
        Ok(())
    }

    /// One step: compute, sum, agree, apply.
    fn step(&mut self, assignment: &Assignment, step: u64, salvaged: bool, samples: &mut Samples, before: &mut Before) -> Result<Outcome> {
        self.engine.begin(salvaged)?;
        let waited = samples.stream.waits();
        while let Some(&index) = self.progress.due().first() {
            self.micro_batch(assignment, step, index, samples)?;
        }
        let computed = self.engine.reduce()?;
        let asked = Instant::now();
        let digest = self.engine.digest(step, &computed)?;
        let timings = timings(&computed, samples.stream.waits().since(&waited), *before);
        let reports = self.progress.held().to_vec();
        let verdict = self.session().finish_step(assignment.generation, step, reports, digest, timings)?;
        before.commit = asked.elapsed();
        let outcome = self.progress.hear(verdict);
        match outcome {
            Outcome::Keep => {}
            Outcome::Drop => {
                tracing::warn!(step, "the state of this replica differs from that of the others: it takes theirs");
                self.engine.discard()?;
            }
            Outcome::Apply { checkpoint, .. } => {
                let committed = Instant::now();
                self.engine.apply(step, &computed)?;
                before.apply = committed.elapsed();
                self.loss = Some(computed.loss);
                self.summary.computed += 1;
                self.writer.look();
                if let Some(watch) = self.options.watch {
                    watch(&self.engine, step + 1);
                }
                if checkpoint {
                    self.checkpoint()?;
                }
            }
        }
        Ok(outcome)
    }

    /// Computes the next micro-batch of a step, and keeps its gradient and which samples it was.
    fn micro_batch(&mut self, assignment: &Assignment, step: u64, index: u32, samples: &mut Samples) -> Result<()> {
        if let Some(reason) = self.session().ended(assignment.generation) {
            return Err(over(assignment, &reason));
        }
        let asked = Instant::now();
        let taken = samples.next.take().or_else(|| self.take(samples));
        let Taken { step: of, index: number, digest, input } =
            taken.ok_or_else(|| over(assignment, "its stream of samples was stopped"))??;
        if (of, number) != (step, index) {
            return Err(Error::new(Kind::Internal, format!("micro-batch {number} of step {of}: expected {index} of step {step}")));
        }
        samples.next = if samples.stream.is_ready() { self.take(samples) } else { None };
        let last = self.progress.due().len() == 1;
        let computed = self.engine.compute(index, input, last, asked.elapsed());
        if computed.is_err() {
            // Half of it may have been added.
            self.progress.drop_held();
            self.engine.discard()?;
        }
        let loss = Some(computed?).filter(|loss| loss.is_finite());
        self.progress.computed(MicroBatchReport { index, loss, samples: digest });
        Ok(())
    }

    /// Waits for the next micro-batch and sends it to the device; none once the stream was stopped.
    fn take(&self, samples: &mut Samples) -> Option<Result<Taken>> {
        let micro_batch = match samples.stream.next()? {
            Ok(micro_batch) => micro_batch,
            Err(error) => return Some(Err(of_loader(error))),
        };
        let step = micro_batch.step;
        for replaced in &micro_batch.replaced {
            let (row, reason) = (replaced.row, &replaced.reason);
            tracing::warn!(step, row, source = replaced.source, reason, "a sample does not decode and was replaced");
        }
        let copied = Instant::now();
        let input = self.source.input(micro_batch.batch, self.engine.device());
        samples.stream.copied(copied.elapsed());
        Some(input.map(|input| Taken { step, index: micro_batch.index, digest: micro_batch.digest, input }))
    }

    /// Starts to read the samples of the micro-batches that are due, in this step and those after it.
    fn samples(&self, step: u64) -> Samples {
        let loading = &self.info.run.loader;
        let threads = match (loading.threads, &self.source.task) {
            (0, Task::Text { .. }) => 1,
            // Decoding takes about as long as computing in a small model.
            (0, Task::Images { .. }) => tch::get_num_threads().max(1) as usize,
            (threads, _) => threads as usize,
        };
        let options = StreamOptions { threads, prefetch_bytes: loading.prefetch.0, corrupt_samples: loading.corrupt_samples };
        let indices = self.progress.due().to_vec();
        let stream = self.loader.stream(self.runtime.handle().clone(), indices.clone(), step, self.info.run.batch.steps, options);
        Samples { stream, indices, next: None }
    }

    /// Connects the members of a generation; none for one that is alone.
    fn connect(&self, assignment: &Assignment) -> Result<Option<ProcessGroup>> {
        let generation = assignment.generation;
        if assignment.members.len() < 2 {
            return Ok(None);
        }
        let store = Arc::new(PeerStore(self.session().rendezvous(assignment)?));
        let silence = LEASES_OF_SILENCE * self.session().lease().max(SHORTEST_LEASE);
        let patience = Patience { operation: COLLECTIVE_TIMEOUT, silence };
        let (prefix, rank, world) = (format!("generation-{generation}"), assignment.rank as usize, assignment.members.len());
        let group = ProcessGroup::connect(Arc::clone(&store) as _, &prefix, rank, world, &self.options.host, patience);
        // A group keeps its store.
        store.0.settled();
        let group = group.map_err(|error| Error::with_source(Kind::Unavailable, format!("generation {generation}"), error))?;
        Ok(Some(group))
    }

    /// Whatever blocks is freed when the generation ends.
    fn free_at_end(&self, assignment: &Assignment, samples: &Samples, abort: Option<AbortHandle>) {
        let stopper = samples.stream.stopper();
        self.session().on_generation_end(assignment.generation, move |reason| {
            stopper.stop();
            if let Some(abort) = abort {
                abort.abort(reason);
            }
        });
    }

    /// Brings the weights to the state of the assignment.
    fn restore(&mut self, assignment: &Assignment, group: Option<&ProcessGroup>) -> Result<()> {
        if assignment.restore != Restore::Current {
            self.loss = None;
        }
        match assignment.restore {
            Restore::Fresh => self.engine = Engine::new(&self.info.run, &self.source.task, self.engine.device())?,
            Restore::Checkpoint { step } => self.load(step)?,
            Restore::Peer { .. } | Restore::Current => {}
        }
        if let (true, Some(source), Some(group)) = (assignment.transfer, assignment.source, group) {
            let state: Vec<_> = self.engine.state().into_iter().map(|(_, tensor)| tensor).collect();
            let sent = group.broadcast(&state, source as usize);
            sent.map_err(|error| Error::with_source(Kind::Unavailable, format!("state from replica {source}"), error))?;
        }
        self.progress.restored(assignment);
        Ok(())
    }

    fn load(&mut self, step: u64) -> Result<()> {
        let (manifest, model, optimizer) = self.runtime.block_on(async {
            let manifest = self.checkpoints.at(step).await?;
            let (model, optimizer) = (self.checkpoints.get(&manifest.model).await?, self.checkpoints.get(&manifest.optimizer).await?);
            Ok::<_, Error>((manifest, model, optimizer))
        })?;
        self.loss = manifest.loss;
        checkpoint::load(&self.engine.weights(), &model, &manifest.model.path)?;
        checkpoint::load(&self.engine.optimizer_state(), &optimizer, &manifest.optimizer.path)
    }

    /// Writes a checkpoint of the present state: in the background, except for the last of the run.
    fn checkpoint(&mut self) -> Result<()> {
        let Some(state) = self.progress.have() else { return Err(Error::new(Kind::Internal, "a checkpoint without a state")) };
        let snapshot = Snapshot::take(&self.engine)?;
        if state.step < self.info.run.batch.steps {
            return self.writer.write(snapshot, state, self.loss);
        }
        for attempt in 1..=LAST_CHECKPOINT_ATTEMPTS {
            self.writer.write(snapshot.clone(), state, self.loss)?;
            match self.writer.wait() {
                Err(error) if error.kind() == Kind::Unavailable && attempt < LAST_CHECKPOINT_ATTEMPTS => {
                    tracing::warn!(%error, attempt, "the last checkpoint was not published");
                    std::thread::sleep(LAST_CHECKPOINT_PAUSE);
                }
                outcome => return outcome,
            }
        }
        Ok(())
    }

    /// Tells the coordinator that a collective failed, so that nobody goes on waiting.
    fn give_up(&mut self, assignment: &Assignment, error: &Error) -> Result<()> {
        tracing::info!(generation = assignment.generation, error = error.chain(), "this generation is over");
        let told = self.session().fail(assignment, &error.chain());
        match told {
            Err(error) if error.kind() == Kind::Fenced => self.rejoin(&error),
            told => told,
        }
    }

    /// Comes back after it was put out, or to a new coordinator, as a new member with what it has.
    fn rejoin(&mut self, reason: &Error) -> Result<()> {
        tracing::warn!(%reason, "this replica was put out of the run and joins again");
        self.session.write().unwrap_or_else(PoisonError::into_inner).rejoin()
    }

    fn leave(mut self) -> Result<ReplicaSummary> {
        self.summary.step = self.progress.have().map_or(0, |state| state.step);
        let Self { session, writer, summary, .. } = self;
        // The writer holds the session as well; nothing is under way any more.
        drop(writer);
        if let Some(session) = Arc::into_inner(session) {
            session.into_inner().unwrap_or_else(PoisonError::into_inner).leave()?;
        }
        Ok(summary)
    }

    fn session(&self) -> std::sync::RwLockReadGuard<'_, Session> {
        self.session.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn timings(computed: &Computed, waits: Waits, before: Before) -> Timings {
    let phases = computed.phases;
    Timings {
        data: phases.data.as_secs_f64(),
        waits,
        compute: (phases.forward + phases.backward).as_secs_f64(),
        reduce: phases.reduce.as_secs_f64(),
        commit: before.commit.as_secs_f64(),
        apply: before.apply.as_secs_f64(),
    }
}

fn over(assignment: &Assignment, reason: &str) -> Error {
    Error::new(Kind::Unavailable, format!("generation {} is over: {reason}", assignment.generation))
}
