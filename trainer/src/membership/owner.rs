//! The one task that owns the group: it takes commands in order, applies them, and carries out what was decided.
//!
//! Promises: a generation is in the journal before anybody hears of it; a checkpoint is published only for a member that
//! is in, after the journal still accepted this coordinator. Deliberately absent: decisions, which are the group's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_schemas::checkpoint::CheckpointManifest;
use forebay_schemas::run::Run;
use forebay_schemas::wire::{
    Fail, Finish, Join, Joined, JournalEntry, MemberStatus, Next, PROTOCOL, Presence, Publish, Published, Ready, Status, Verdict,
};
use forebay_store::{Checkpoints, Outcome};
use tokio::sync::{mpsc, oneshot};

use super::coordinator::{Fault, RunSummary, unix_ms};
use super::group::{Cause, Decision, Event, Group};
use super::journal::Ledger;
use super::rendezvous::Keys;
use crate::error::{Error, Kind, Result};
use crate::telemetry::{self, Observer, Recorder, What};

/// How often time is looked at.
const TICK: Duration = Duration::from_millis(20);

/// Members get so long to hear that the run is done and to leave.
const FAREWELL: Duration = Duration::from_secs(3);

/// Attempts to write to storage before the run fails; the waits between them double from the first.
const ATTEMPTS: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Why a request is refused.
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    /// The member is out.
    Fenced(String),
    /// The request is wrong.
    Invalid(String),
    /// Try again.
    Unavailable(String),
}

pub(crate) type Reply<T> = oneshot::Sender<std::result::Result<T, Refused>>;

/// What the routes ask for.
pub(crate) enum Command {
    Join(Join, Reply<Joined>),
    Connect(u64, mpsc::Sender<Presence>, Reply<u64>),
    Disconnect(u64, u64),
    Renew(u64, Reply<()>),
    Leave(u64, Reply<()>),
    Ready(Ready, Reply<Next>),
    Finish(Finish, Reply<Verdict>),
    Fail(Fail, Reply<()>),
    Publish(Box<Publish>, Reply<Published>),
    PublishEnded(Box<CheckpointManifest>, std::result::Result<bool, Refused>, Reply<Published>),
    Status(Reply<Status>),
}

/// What waits for a member.
#[derive(Default)]
struct Waiting {
    next: Option<Reply<Next>>,
    verdict: Option<Reply<Verdict>>,
    presence: Option<(u64, mpsc::Sender<Presence>)>,
}

pub(crate) struct Owner {
    pub(crate) run: Run,
    pub(crate) dataset_identity: forebay_schemas::Digest,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) ledger: Ledger,
    pub(crate) group: Group,
    pub(crate) keys: Arc<Keys>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) recorder: Recorder,
    pub(crate) last_manifest: Option<CheckpointManifest>,
    pub(crate) commands: mpsc::Sender<Command>,
    began: Instant,
    waiting: HashMap<u64, Waiting>,
    connections: u64,
    faults: Vec<Fault>,
    loss: Option<f64>,
    stepped: Instant,
    done_since: Option<Instant>,
}

/// The parts of an [`Owner`] that its coordinator brings.
pub(crate) struct Parts {
    pub(crate) run: Run,
    pub(crate) dataset_identity: forebay_schemas::Digest,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) ledger: Ledger,
    pub(crate) group: Group,
    pub(crate) keys: Arc<Keys>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) recorder: Recorder,
    pub(crate) last_manifest: Option<CheckpointManifest>,
    pub(crate) commands: mpsc::Sender<Command>,
}

impl Owner {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { run, dataset_identity, checkpoints, ledger, group, keys, observer, recorder, last_manifest, commands } = parts;
        let now = Instant::now();
        let loss = last_manifest.as_ref().and_then(|manifest| manifest.loss);
        Self {
            run,
            dataset_identity,
            checkpoints,
            ledger,
            group,
            keys,
            observer,
            recorder,
            last_manifest,
            commands,
            began: now,
            waiting: HashMap::new(),
            connections: 0,
            faults: Vec::new(),
            loss,
            stepped: now,
            done_since: None,
        }
    }

    /// Works until the run is done and its members have heard of it.
    pub(crate) async fn work(mut self, mut commands: mpsc::Receiver<Command>) -> Result<RunSummary> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        if self.group.is_done() {
            self.done_since = Some(Instant::now());
        }
        loop {
            tokio::select! {
                // Signs of life before the clock that judges them.
                biased;
                Some(command) = commands.recv() => self.take(command).await?,
                _ = tick.tick() => {
                    let decisions = self.group.apply(self.now_ms(), Event::Tick);
                    self.carry_out(decisions).await?;
                }
            }
            if let Some(since) = self.done_since
                && (self.group.members(0).next().is_none() || since.elapsed() > FAREWELL)
            {
                return self.summary().await;
            }
        }
    }

    async fn take(&mut self, command: Command) -> Result<()> {
        let now_ms = self.now_ms();
        let decisions = match command {
            Command::Join(join, reply) => {
                let _ = reply.send(self.join(now_ms, join));
                return Ok(());
            }
            Command::Status(reply) => {
                let _ = reply.send(Ok(self.status(now_ms)));
                return Ok(());
            }
            Command::Connect(member, sender, reply) => {
                if let Some(reply) = self.admit(member, reply) {
                    self.connections += 1;
                    let _ = reply.send(Ok(self.connections));
                    // What ended before this stream was open is said first.
                    let over = self.group.running().map_or(self.group.generation(), |running| running - 1);
                    let _ = sender.try_send(Presence::Over { generation: over, reason: "the generation is over".to_owned() });
                    self.waiting.entry(member).or_default().presence = Some((self.connections, sender));
                    self.group.apply(now_ms, Event::Renewed { member })
                } else {
                    return Ok(());
                }
            }
            Command::Disconnect(member, connection) => {
                let current = self.waiting.get(&member).and_then(|waiting| waiting.presence.as_ref());
                if current.is_none_or(|(number, _)| *number != connection) {
                    return Ok(());
                }
                self.group.apply(now_ms, Event::Disconnected { member })
            }
            Command::Renew(member, reply) => match self.admit(member, reply) {
                Some(reply) => {
                    let _ = reply.send(Ok(()));
                    self.group.apply(now_ms, Event::Renewed { member })
                }
                None => return Ok(()),
            },
            Command::Leave(member, reply) => match self.admit(member, reply) {
                Some(reply) => {
                    let _ = reply.send(Ok(()));
                    self.group.apply(now_ms, Event::Left { member })
                }
                None => return Ok(()),
            },
            Command::Ready(ready, reply) => match self.admit(ready.member, reply) {
                Some(reply) => {
                    let Ready { member, after, have } = ready;
                    self.waiting.entry(member).or_default().next = Some(reply);
                    self.group.apply(now_ms, Event::Ready { member, after, have })
                }
                None => return Ok(()),
            },
            Command::Finish(finish, reply) => match self.admit(finish.member, reply) {
                Some(reply) => {
                    self.waiting.entry(finish.member).or_default().verdict = Some(reply);
                    self.group.apply(now_ms, Event::Finished(finish))
                }
                None => return Ok(()),
            },
            Command::Fail(fail, reply) => match self.admit(fail.member, reply) {
                Some(reply) => {
                    let _ = reply.send(Ok(()));
                    let Fail { member, generation, reason } = fail;
                    if self.group.running() == Some(generation) {
                        self.tell(What::GenerationFailed { reason: reason.clone(), step: self.group.committed() });
                    }
                    self.group.apply(now_ms, Event::Failed { member, generation, reason })
                }
                None => return Ok(()),
            },
            Command::Publish(publish, reply) => {
                if let Some(reply) = self.admit(publish.member, reply) {
                    self.publish(publish.manifest, reply).await?;
                }
                return Ok(());
            }
            Command::PublishEnded(manifest, outcome, reply) => return self.publish_ended(*manifest, outcome, reply).await,
        };
        self.carry_out(decisions).await
    }

    /// The reply if the member is in; else it is told that it is out.
    fn admit<T>(&self, member: u64, reply: Reply<T>) -> Option<Reply<T>> {
        if self.group.is_member(member) {
            return Some(reply);
        }
        let _ = reply.send(Err(Refused::Fenced(format!("member {member} is no longer in run `{}`: join again", self.run.name))));
        None
    }

    fn join(&mut self, now_ms: u64, join: Join) -> std::result::Result<Joined, Refused> {
        if join.protocol != PROTOCOL {
            return Err(Refused::Invalid(format!(
                "replica `{}` speaks protocol {}, expected {PROTOCOL}",
                join.identity.name, join.protocol
            )));
        }
        if join.config_digest != self.run.digest() {
            let (found, expected) = (join.config_digest.short(), self.run.digest().short());
            let name = &join.identity.name;
            return Err(Refused::Invalid(format!(
                "replica `{name}` has settings of digest {found}, expected {expected} of run `{}`",
                self.run.name
            )));
        }
        let identity = join.identity;
        self.tell(What::ReplicaJoined { replica: identity.name.clone(), host: identity.host.clone(), pid: identity.pid });
        let member = self.group.join(now_ms, identity);
        Ok(Joined { member, lease_ms: self.run.elastic.lease.0 })
    }

    fn status(&self, now_ms: u64) -> Status {
        let member = |(member, identity, rank, silent_ms): (u64, &forebay_schemas::wire::Identity, Option<u32>, u64)| MemberStatus {
            member,
            identity: identity.clone(),
            rank,
            silent_ms,
        };
        Status {
            run: self.run.name.clone(),
            generation: self.group.generation(),
            step: self.group.committed(),
            steps: self.run.batch.steps,
            checkpoint: self.group.checkpoint(),
            loss: self.loss,
            members: self.group.members(now_ms).map(member).collect(),
        }
    }

    async fn carry_out(&mut self, decisions: Vec<Decision>) -> Result<()> {
        for decision in decisions {
            match decision {
                Decision::Next { member, next } => {
                    if let Some(reply) = self.waiting.get_mut(&member).and_then(|waiting| waiting.next.take()) {
                        // A member that hung up asks again, and gets the same answer.
                        let _ = reply.send(Ok(next));
                    }
                }
                Decision::Answer { member, verdict } => {
                    if let Some(reply) = self.waiting.get_mut(&member).and_then(|waiting| waiting.verdict.take()) {
                        let _ = reply.send(Ok(verdict));
                    }
                }
                Decision::Committed(commit) => {
                    self.loss = commit.loss;
                    let seconds = self.stepped.elapsed().as_secs_f64();
                    self.stepped = Instant::now();
                    self.tell(What::StepCommitted {
                        step: commit.step,
                        loss: commit.loss,
                        samples: self.run.global_batch(),
                        samples_digest: commit.samples,
                        seconds,
                        world: commit.world,
                        timings: commit.timings,
                    });
                }
                Decision::Over { generation, members, reason } => {
                    self.keys.open(None);
                    for member in members {
                        self.push(member, Presence::Over { generation, reason: reason.clone() });
                    }
                }
                Decision::Lost { member, identity, cause, detail } => self.lost(member, identity.name, cause, detail),
                Decision::Formed { generation, members, step, reason } => {
                    self.record(&JournalEntry::Generation { generation, members: members.clone(), step }).await?;
                    self.keys.open(Some(generation));
                    self.stepped = Instant::now();
                    self.tell(What::GenerationFormed { members, reason, step });
                }
                Decision::Done => self.done_since = Some(Instant::now()),
                Decision::Stuck { reason } => return Err(Error::new(Kind::Unavailable, format!("run `{}`: {reason}", self.run.name))),
            }
        }
        Ok(())
    }

    fn lost(&mut self, member: u64, replica: String, cause: Cause, detail: String) {
        let step = self.group.committed();
        if self.done_since.is_none() {
            self.tell(What::ReplicaLost { replica: replica.clone(), cause, detail: detail.clone(), step });
            if cause != Cause::Left {
                let generation = self.group.generation();
                self.faults.push(Fault { unix_ms: unix_ms(), generation, step, replica, cause, detail: detail.clone() });
            }
        }
        self.push(member, Presence::Out { reason: detail.clone() });
        let Some(waiting) = self.waiting.remove(&member) else { return };
        let fenced = Refused::Fenced(format!("member {member} is out of run `{}`: {detail}", self.run.name));
        if let Some(reply) = waiting.next {
            let _ = reply.send(Err(fenced.clone()));
        }
        if let Some(reply) = waiting.verdict {
            let _ = reply.send(Err(fenced));
        }
    }

    /// Says something on a member's presence stream; one that does not read loses it, and the lease decides.
    fn push(&self, member: u64, event: Presence) {
        if let Some((_, sender)) = self.waiting.get(&member).and_then(|waiting| waiting.presence.as_ref()) {
            let _ = sender.try_send(event);
        }
    }

    /// Checks a manifest, notes the intent, and publishes on the side so that the group goes on meanwhile.
    async fn publish(&mut self, manifest: CheckpointManifest, reply: Reply<Published>) -> Result<()> {
        if let Err(refused) = self.check_manifest(&manifest) {
            let _ = reply.send(Err(refused));
            return Ok(());
        }
        let step = manifest.position.step;
        if self.group.checkpoint().is_some_and(|published| published >= step) {
            let _ = reply.send(Ok(Published { published: false }));
            return Ok(());
        }
        // Fails if another coordinator has taken over: nothing of ours becomes visible then.
        self.record(&JournalEntry::Checkpoint { generation: self.group.generation(), step }).await?;
        let (checkpoints, commands, keep) = (self.checkpoints.clone(), self.commands.clone(), self.run.checkpoint.keep);
        tokio::spawn(async move {
            let outcome = match checkpoints.publish(&manifest).await {
                Ok(outcome) => {
                    if let Err(error) = checkpoints.retain(keep as usize).await {
                        tracing::warn!(step, %error, "old checkpoints were not deleted");
                    }
                    Ok(outcome == Outcome::Committed)
                }
                Err(error) if error.kind() == forebay_store::Kind::Unavailable => Err(Refused::Unavailable(error.to_string())),
                Err(error) => Err(Refused::Invalid(error.to_string())),
            };
            let _ = commands.send(Command::PublishEnded(Box::new(manifest), outcome, reply)).await;
        });
        Ok(())
    }

    fn check_manifest(&self, manifest: &CheckpointManifest) -> std::result::Result<(), Refused> {
        let step = manifest.position.step;
        let wrong = |what: &str, found: String, expected: String| {
            Err(Refused::Invalid(format!("checkpoint of step {step}: {what} is {found}, expected {expected}")))
        };
        if manifest.run != self.run.name {
            return wrong("run", format!("`{}`", manifest.run), format!("`{}`", self.run.name));
        }
        if manifest.config_digest != self.run.digest() {
            return wrong("config digest", manifest.config_digest.short(), self.run.digest().short());
        }
        if manifest.dataset.identity != self.dataset_identity {
            return wrong("dataset identity", manifest.dataset.identity.short(), self.dataset_identity.short());
        }
        if step > self.group.committed() {
            return wrong("step", step.to_string(), format!("at most {}", self.group.committed()));
        }
        Ok(())
    }

    async fn publish_ended(
        &mut self,
        manifest: CheckpointManifest,
        outcome: std::result::Result<bool, Refused>,
        reply: Reply<Published>,
    ) -> Result<()> {
        let step = manifest.position.step;
        let published = match outcome {
            Ok(published) => published,
            Err(refused) => {
                let _ = reply.send(Err(refused));
                return Ok(());
            }
        };
        if published {
            self.tell(What::CheckpointPublished { step, weights_sha256: manifest.weights_sha256.clone() });
            self.last_manifest = Some(manifest);
        } else {
            // A checkpoint of this step was there before: it is the one that counts.
            self.last_manifest = Some(self.checkpoints.at(step).await?);
        }
        let _ = reply.send(Ok(Published { published }));
        let decisions = self.group.apply(self.now_ms(), Event::Published { step });
        self.keep_telemetry().await;
        self.carry_out(decisions).await
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
        self.tell(What::RunFinished { step: self.group.committed(), seconds });
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
        let event = telemetry::Event { unix_ms: unix_ms(), generation: self.group.generation(), what };
        self.observer.event(&event);
        self.recorder.add(&event);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
