//! The one task that owns the service: it takes commands in order, and carries out the effects in order.
//!
//! Deliberately absent: decisions, which are the service's and the group's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_schemas::checkpoint::CheckpointManifest;
use forebay_schemas::journal::JournalEntry;
use forebay_schemas::run::Run;
use forebay_schemas::wire::{Mark, Presence};
use forebay_store::{Checkpoints, Outcome};
use tokio::sync::{mpsc, oneshot};

use super::coordinator::{Fault, RunSummary, unix_ms};
use super::group::Cause;
use super::journal::Ledger;
use super::rendezvous::Keys;
use super::service::{Effect, Refused, Request, Response, Service};
use crate::error::{Error, Kind, Result};
use crate::telemetry::{self, Observer, Recorder, What};

/// How often time is looked at.
const TICK: Duration = Duration::from_millis(5);

/// How often a coordinator looks whether another one has taken the run over.
const LOOK_FOR_ANOTHER: Duration = Duration::from_secs(2);

/// Members get so long to hear that the run is done and to leave.
const FAREWELL: Duration = Duration::from_secs(3);

/// Attempts to write to storage before the run fails; the waits between them double from the first.
const ATTEMPTS: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Where an answer goes.
pub(crate) type Reply = oneshot::Sender<std::result::Result<Response, Refused>>;

/// What the routes ask for.
#[expect(clippy::large_enum_variant, reason = "a few messages a second, in a channel of its own")]
pub(crate) enum Command {
    Request(Request, Reply),
    Connect(u64, mpsc::Sender<Presence>, oneshot::Sender<std::result::Result<u64, Refused>>),
    Disconnect(u64, u64),
    Published(std::result::Result<(CheckpointManifest, bool), Refused>, Reply),
}

pub(crate) struct Owner {
    pub(crate) run: Run,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) ledger: Ledger,
    pub(crate) service: Service<Reply>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) recorder: Recorder,
    pub(crate) last_manifest: Option<CheckpointManifest>,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) began: Instant,
    pub(crate) streams: HashMap<u64, mpsc::Sender<Presence>>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) done_since: Option<Instant>,
}

impl Owner {
    /// Works until the run is done and its members have heard of it.
    pub(crate) async fn work(mut self, mut commands: mpsc::Receiver<Command>) -> Result<RunSummary> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        if self.service.group().is_done() {
            self.done_since = Some(Instant::now());
        }
        let overtaken = self.ledger.overtaken(LOOK_FOR_ANOTHER);
        tokio::pin!(overtaken);
        loop {
            let effects = tokio::select! {
                // Signs of life before the clock that judges them.
                biased;
                Some(command) = commands.recv() => self.take(command),
                _ = tick.tick() => self.service.tick(self.began.elapsed()),
                error = &mut overtaken => return Err(error),
            };
            for effect in effects {
                self.carry_out(effect).await?;
            }
            if let Some(since) = self.done_since
                && (self.service.group().members(0).next().is_none() || since.elapsed() > FAREWELL)
            {
                return self.summary().await;
            }
        }
    }

    fn take(&mut self, command: Command) -> Vec<Effect<Reply>> {
        let now = self.began.elapsed();
        match command {
            Command::Request(request, reply) => self.service.handle(now, reply, request),
            Command::Connect(member, sender, reply) => match self.service.connect(now, member) {
                Ok((connection, effects)) => {
                    // Whoever hung up meanwhile is reported as disconnected next.
                    let _ = reply.send(Ok(connection));
                    self.streams.insert(member, sender);
                    effects
                }
                Err(refused) => {
                    let _ = reply.send(Err(refused));
                    Vec::new()
                }
            },
            Command::Disconnect(member, connection) => self.service.disconnect(now, member, connection),
            Command::Published(outcome, reply) => {
                let outcome = outcome.map(|(manifest, published)| {
                    let state = Mark { step: manifest.position.step, generation: manifest.generation };
                    let sha256 = manifest.weights_sha256.clone();
                    self.last_manifest = Some(manifest);
                    (state, sha256, published)
                });
                self.service.published(now, reply, outcome)
            }
        }
    }

    async fn carry_out(&mut self, effect: Effect<Reply>) -> Result<()> {
        match effect {
            Effect::Answer(reply, answer) => {
                // Whoever hung up asks again, and gets the same answer.
                let _ = reply.send(answer);
            }
            Effect::Append(entry) => self.record(&entry).await?,
            Effect::Keys(generation) => self.keys.open(generation),
            Effect::Push(member, presence) => {
                let out = matches!(presence, Presence::Out { .. });
                if let Some(stream) = self.streams.get(&member) {
                    // One that does not read loses it, and the lease decides.
                    let _ = stream.try_send(presence);
                }
                if out {
                    self.streams.remove(&member);
                }
            }
            Effect::Publish(manifest, reply) => self.publish(*manifest, reply),
            Effect::Tell(what) => {
                let kept = matches!(what, What::CheckpointPublished { .. });
                self.tell(what);
                if kept {
                    self.keep_telemetry().await;
                }
            }
            Effect::Done => self.done_since = Some(Instant::now()),
            Effect::Stuck(reason) => return Err(Error::new(Kind::Unavailable, reason)),
        }
        Ok(())
    }

    /// Publishes on the side, so that the group goes on meanwhile.
    fn publish(&self, manifest: CheckpointManifest, reply: Reply) {
        let (checkpoints, commands, keep) = (self.checkpoints.clone(), self.commands.clone(), self.run.checkpoint.keep);
        tokio::spawn(async move {
            let outcome = publish(&checkpoints, manifest, keep as usize).await.map_err(|error| match error.kind() {
                forebay_store::Kind::Unavailable => Refused::Unavailable(error.to_string()),
                _ => Refused::Invalid(error.to_string()),
            });
            // The owner that is gone needs no word of it: what counts is in storage.
            let _ = commands.send(Command::Published(outcome, reply)).await;
        });
    }

    /// Appends to the journal, patiently if the store cannot be reached.
    async fn record(&mut self, entry: &JournalEntry) -> Result<()> {
        let mut wait = FIRST_WAIT;
        for _ in 1..ATTEMPTS {
            match self.ledger.append(entry).await {
                Err(error) if error.kind() == Kind::Unavailable => {
                    tracing::warn!(%error, "the journal cannot be written, trying again");
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                outcome => return outcome,
            }
        }
        self.ledger.append(entry).await
    }

    async fn keep_telemetry(&mut self) {
        if let Some((name, bytes)) = self.recorder.take()
            && let Err(error) = self.checkpoints.location().put(&name, bytes).await
        {
            tracing::warn!(%error, name, "events were not kept");
        }
    }

    async fn summary(&mut self) -> Result<RunSummary> {
        let seconds = self.began.elapsed().as_secs_f64();
        self.tell(What::RunFinished { step: self.service.group().state().step, seconds });
        self.keep_telemetry().await;
        let manifest = self.last_manifest.take();
        let manifest =
            manifest.ok_or_else(|| Error::new(Kind::Internal, format!("run `{}` is done without a checkpoint", self.run.name)))?;
        Ok(RunSummary {
            step: manifest.position.step,
            samples: manifest.samples,
            loss: manifest.loss,
            weights_sha256: manifest.weights_sha256,
            seconds,
            faults: std::mem::take(&mut self.faults),
        })
    }

    fn tell(&mut self, what: What) {
        let event = telemetry::Event { unix_ms: unix_ms(), generation: self.service.group().generation(), what };
        if let What::ReplicaLost { replica, cause, detail, step } = &event.what
            && *cause != Cause::Left
        {
            let (replica, detail) = (replica.clone(), detail.clone());
            let (unix_ms, generation) = (event.unix_ms, event.generation);
            self.faults.push(Fault { unix_ms, generation, step: *step, replica, cause: *cause, detail });
        }
        self.observer.event(&event);
        self.recorder.add(&event);
    }
}

/// The checkpoint of this step that is there afterwards, and whether it is this one.
async fn publish(
    checkpoints: &Checkpoints,
    manifest: CheckpointManifest,
    keep: usize,
) -> forebay_store::Result<(CheckpointManifest, bool)> {
    let step = manifest.position.step;
    if checkpoints.publish(&manifest).await? != Outcome::Committed {
        // One of this step was there before: it is the one that counts.
        return Ok((checkpoints.at(step).await?, false));
    }
    if let Err(error) = checkpoints.retain(keep).await {
        tracing::warn!(step, %error, "old checkpoints were not deleted");
    }
    Ok((manifest, true))
}
