//! A replica's side of the membership, blocking: for the one thread that trains.
//!
//! Promises: the process's life is visible to the coordinator while the thread computes; the end of a generation is
//! known at once, so that its collectives can be aborted from outside. Signs of life come from a thread of its own; a step is
//! reported on the caller's, which saves two changes of threads where every tenth of a millisecond counts.
//! Deliberately absent: a watch over the training thread itself. A replica whose process lives is alive.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use forebay_schemas::Digest;
use forebay_schemas::checkpoint::CheckpointManifest;
use forebay_schemas::wire::{
    Assignment, Fail, Finish, Identity, Join, Joined, Member, MicroBatchReport, Next, PROTOCOL, Presence, Publish, Published, Ready,
    RunInfo, Timings, Verdict,
};
use forebay_store::Checkpoints;
use futures::StreamExt;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::door;
use super::progress::Progress;
use super::rendezvous::Rendezvous;
use super::transport::{PATIENCE, Transport};
use crate::error::{Error, Kind, Result};

/// While another replica is out of reach, its door is knocked at again so often.
const KNOCK_AGAIN: Duration = Duration::from_secs(1);

/// Pause before a broken presence stream is opened again.
const RECONNECT: Duration = Duration::from_millis(50);

/// One stay of a replica in a run. Not for use on a thread that runs async tasks: its methods block.
pub struct Session {
    transport: Transport,
    info: RunInfo,
    identity: Identity,
    order: Digest,
    stay: Arc<Stay>,
    lease: Duration,
    signs: Vec<JoinHandle<()>>,
    // Options only so that they can be taken out when the session is dropped.
    runtime: Option<Runtime>,
    steps: Option<Steps>,
}

/// What steps are reported by, on the thread that computes them.
struct Steps {
    transport: Transport,
    runtime: Runtime,
}

/// What the signs-of-life tasks and the training thread share.
#[derive(Default)]
struct Stay {
    member: u64,
    // Questions for an assignment that were asked.
    turn: AtomicU64,
    state: Mutex<State>,
    // Doors of the peers among whom a collective failed.
    doubted: Mutex<Vec<String>>,
}

#[derive(Default)]
struct State {
    // Generations up to this one are over.
    over: Option<(u64, String)>,
    out: Option<String>,
    on_over: Option<(u64, OnOver)>,
}

type OnOver = Box<dyn FnOnce(&str) + Send>;

impl Session {
    /// Asks the coordinator at `url` for its run, which is not joined yet. Waits a bounded time for a coordinator that is not
    /// there. The door of `identity` is opened here, at its host.
    pub fn meet(url: &str, token: &str, identity: Identity) -> Result<Self> {
        let transport = Transport::new(url, token)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("membership").enable_all().build();
        let runtime = runtime.map_err(|error| Error::with_source(Kind::Internal, "the thread of the membership cannot start", error))?;
        let asking = transport.clone();
        let info: RunInfo = block(&runtime, async move { asking.get("v1/run").await })?;
        if info.protocol != PROTOCOL {
            let message = format!("coordinator {url} speaks protocol {}, expected {PROTOCOL}", info.protocol);
            return Err(Error::new(Kind::Invalid, message));
        }
        let host = identity.host.clone();
        // It is open as long as the runtime is there.
        let (door, _) = block(&runtime, async move { door::open(&host).await })?;
        let identity = Identity { door, ..identity };
        let steps = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let steps = steps.map_err(|error| Error::with_source(Kind::Internal, "what reports steps cannot start", error))?;
        let steps = Some(Steps { transport: transport.apart()?, runtime: steps });
        let (order, stay, lease, signs) = (Digest::of(&[]), Arc::default(), Duration::ZERO, Vec::new());
        Ok(Self { transport, info, identity, order, stay, lease, signs, runtime: Some(runtime), steps })
    }

    /// Joins the run with what feeds the replica in an order of this name, before anything else is asked. `Invalid` if the others
    /// are fed in another one.
    pub fn join(&mut self, order: Digest) -> Result<()> {
        self.order = order;
        self.rejoin()
    }

    /// Looks in the run's journal for a coordinator that was started elsewhere, when this one cannot be reached.
    pub fn follow(&self, checkpoints: Checkpoints) {
        self.transport.follow(checkpoints);
    }

    /// Joins again as a new member, after `Fenced`. What the replica has stays its own: the next assignment says what of it
    /// still counts.
    pub fn rejoin(&mut self) -> Result<()> {
        self.signs.drain(..).for_each(|sign| sign.abort());
        let (identity, config_digest) = (self.identity.clone(), self.info.run.digest());
        let request = Join { protocol: PROTOCOL, identity, config_digest, order: self.order };
        let joined: Joined = self.ask("v1/join", request)?;
        self.lease = Duration::from_millis(joined.lease_ms);
        self.stay = Arc::new(Stay { member: joined.member, ..Stay::default() });
        let runtime = self.runtime()?;
        let signs = vec![
            runtime.spawn(be_present(self.transport.clone(), Arc::clone(&self.stay))),
            runtime.spawn(renew(self.transport.clone(), Arc::clone(&self.stay), self.lease / 4)),
        ];
        self.signs = signs;
        Ok(())
    }

    /// The run: settings and dataset version.
    pub fn run(&self) -> &RunInfo {
        &self.info
    }

    /// Silent for so long, a member is out.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Waits for this member's place in the next generation; none when the run is done.
    ///
    /// To ask means to have done with the generation before. `Fenced`: [`Self::rejoin`].
    pub fn assignment(&self, progress: &Progress) -> Result<Option<Assignment>> {
        let (have, held) = (progress.have(), progress.indices());
        let turn = self.stay.turn.fetch_add(1, Ordering::Relaxed) + 1;
        let doubted = std::mem::take(&mut *self.stay.doubted.lock().unwrap_or_else(PoisonError::into_inner));
        let ready = Ready { member: self.stay.member, turn, have, held, reached: Vec::new(), unreached: Vec::new() };
        let transport = self.transport.clone();
        block(self.runtime()?, async move { ask_for_place(&transport, ready, doubted).await })
    }

    /// Reports a step whose summed gradient is there, and waits whether to apply it. Micro-batches ascend by index; `state` is
    /// the digest on which all members must agree.
    pub fn finish_step(
        &self,
        generation: u64,
        step: u64,
        micro_batches: Vec<MicroBatchReport>,
        state: Digest,
        timings: Timings,
    ) -> Result<Verdict> {
        let finish = Finish { member: self.stay.member, generation, step, micro_batches, state, timings };
        let Steps { transport, runtime } = self.steps.as_ref().ok_or_else(ended)?;
        runtime.block_on(transport.ask("v1/finish", &finish))
    }

    /// Reports that a collective of a generation failed, unless the coordinator has ended that itself; then ask for the next
    /// assignment. It may be that a line to one of the members is cut, which is found out before.
    pub fn fail(&self, assignment: &Assignment, reason: &str) -> Result<()> {
        let generation = assignment.generation;
        if self.ended(generation).is_some() {
            return Ok(());
        }
        *self.stay.doubted.lock().unwrap_or_else(PoisonError::into_inner) = self.doors(assignment);
        self.ask("v1/fail", Fail { member: self.stay.member, generation, reason: reason.to_owned() })
    }

    /// Doors of the other members.
    fn doors(&self, assignment: &Assignment) -> Vec<String> {
        let others = assignment.members.iter().filter(|member| member.door != self.identity.door);
        others.map(|member| member.door.clone()).collect()
    }

    /// Publishes a checkpoint whose objects are staged; false if one of this or a later step is there already.
    pub fn publish(&self, manifest: CheckpointManifest) -> Result<bool> {
        let published: Published = self.ask("v1/checkpoint", Publish { member: self.stay.member, manifest })?;
        Ok(published.published)
    }

    /// Calls `abort` with the reason once `generation` is over, from another thread, or at once if it is already.
    /// Replaces what was set before.
    pub fn on_generation_end(&self, generation: u64, abort: impl FnOnce(&str) + Send + 'static) {
        let mut state = self.stay.lock();
        if let Some(reason) = state.ended(generation) {
            drop(state);
            abort(&reason);
        } else {
            state.on_over = Some((generation, Box::new(abort)));
        }
    }

    /// Why a generation is over, once it is: worth a look between two micro-batches.
    pub fn ended(&self, generation: u64) -> Option<String> {
        self.stay.lock().ended(generation)
    }

    /// The keys through which the members of a generation find each other.
    pub fn rendezvous(&self, assignment: &Assignment) -> Result<Rendezvous> {
        let stay = Arc::clone(&self.stay);
        let ended = Box::new(move |generation| stay.lock().ended(generation));
        let (transport, runtime) = (self.transport.clone(), self.runtime()?.handle().clone());
        Ok(Rendezvous::new(transport, runtime, ended, assignment.generation, self.doors(assignment)))
    }

    /// Says goodbye. A session that is dropped without it counts as a death.
    pub fn leave(self) -> Result<()> {
        // The member may be out already; it is gone either way.
        match self.ask::<()>("v1/leave", Member { member: self.stay.member }) {
            Err(error) if error.kind() != Kind::Fenced => Err(error),
            _ => Ok(()),
        }
    }

    fn ask<A: serde::de::DeserializeOwned + Send + 'static>(
        &self,
        path: &'static str,
        request: impl serde::Serialize + Send + Sync + 'static,
    ) -> Result<A> {
        let transport = self.transport.clone();
        block(self.runtime()?, async move { transport.ask(path, &request).await })
    }

    fn runtime(&self) -> Result<&Runtime> {
        self.runtime.as_ref().ok_or_else(ended)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Dropping a runtime waits, which is forbidden on a thread that runs async tasks.
        let steps = self.steps.take().map(|steps| steps.runtime);
        [self.runtime.take(), steps].into_iter().flatten().for_each(Runtime::shutdown_background);
    }
}

fn ended() -> Error {
    Error::new(Kind::Internal, "the session has ended")
}

/// Runs a task on the runtime's thread and waits for it on this one.
fn block<T: Send + 'static>(runtime: &Runtime, task: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        // The receiver waits below.
        let _ = sender.send(task.await);
    });
    receiver.recv().map_err(|_| Error::new(Kind::Internal, "the thread of the membership ended"))?
}

impl Stay {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, generation: u64, reason: &str) {
        let mut state = self.lock();
        if state.over.as_ref().is_none_or(|(over, _)| *over < generation) {
            state.over = Some((generation, reason.to_owned()));
        }
        let due = state.on_over.take_if(|(waiting, _)| *waiting <= generation);
        // Not under the lock: it may ask whether the generation is over.
        drop(state);
        if let Some((_, abort)) = due {
            abort(reason);
        }
    }

    fn out(&self, reason: &str) {
        self.lock().out.get_or_insert_with(|| reason.to_owned());
        self.end(u64::MAX, reason);
    }
}

impl State {
    fn ended(&self, generation: u64) -> Option<String> {
        self.over.as_ref().filter(|(over, _)| *over >= generation).map(|(_, reason)| reason.clone())
    }
}

/// Waits for a place; none when the run is done. While a peer is out of reach it is asked again and again under the same number, so
/// that the coordinator hears when the line is mended.
async fn ask_for_place(transport: &Transport, mut ready: Ready, mut doubted: Vec<String>) -> Result<Option<Assignment>> {
    loop {
        (ready.reached, ready.unreached) = door::knock(&doubted).await;
        let answer = if ready.unreached.is_empty() {
            transport.ask("v1/assignment", &ready).await?
        } else {
            tracing::warn!(doors = ?ready.unreached, "other replicas do not answer");
            match tokio::time::timeout(KNOCK_AGAIN, transport.ask("v1/assignment", &ready)).await {
                Ok(answer) => answer?,
                Err(_) => continue,
            }
        };
        match answer {
            Next::Knock { doors } => doubted = doors,
            Next::Train { assignment } => return Ok(Some(assignment)),
            Next::Done => return Ok(None),
        }
    }
}

/// Keeps the presence stream open and acts on what comes over it.
async fn be_present(transport: Transport, stay: Arc<Stay>) {
    let mut away_since: Option<Instant> = None;
    loop {
        match transport.presence(stay.member).await {
            Ok(response) => {
                away_since = None;
                listen(response, &stay).await;
            }
            Err(error) if error.kind() == Kind::Unavailable => {
                if away_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    return stay.out(&error.to_string());
                }
            }
            Err(error) => return stay.out(&error.to_string()),
        }
        if stay.lock().out.is_some() {
            return;
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// Until the stream ends, by whatever cause.
async fn listen(response: reqwest::Response, stay: &Stay) {
    let mut chunks = response.bytes_stream();
    let mut buffer = Vec::new();
    while let Some(Ok(chunk)) = chunks.next().await {
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(Presence::Beat) => {}
                Ok(Presence::Over { generation, reason }) => stay.end(generation, &reason),
                Ok(Presence::Out { reason }) => stay.out(&reason),
                Err(error) => return stay.out(&format!("the coordinator said something that this version does not know: {error}")),
            }
        }
    }
}

async fn renew(transport: Transport, stay: Arc<Stay>, every: Duration) {
    let mut clock = tokio::time::interval(every);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let renewed = transport.post::<()>("v1/renew", &Member { member: stay.member }).await;
        if let Err(error) = renewed
            && error.kind() != Kind::Unavailable
        {
            return stay.out(&error.to_string());
        }
    }
}
