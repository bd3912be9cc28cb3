//! What the coordinator does, without doing it: requests in, effects out, in the order in which they must be carried out.
//!
//! Promises: a generation is in the journal before anybody hears of it; a checkpoint is published only for a member that
//! is in, after the journal still accepted this coordinator; every request is answered or replaced by a later one of the
//! same member. Deliberately absent: I/O and the clock. `T` is how an answer finds whoever asked: a channel in the
//! coordinator, a number in the simulation.

use std::collections::HashMap;
use std::time::Duration;

use forebay_schemas::Digest;
use forebay_schemas::checkpoint::CheckpointManifest;
use forebay_schemas::journal::JournalEntry;
use forebay_schemas::run::Run;
use forebay_schemas::wire::{
    Fail, Finish, Identity, Join, Joined, Mark, MemberStatus, Next, PROTOCOL, Presence, Published, Ready, Status, Verdict,
};
use serde::Serialize;

use super::group::{Cause, Decision, Event, Group, History, Settings};
use crate::telemetry::What;

/// What the routes ask for.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Join(Join),
    Renew(u64),
    Leave(u64),
    Ready(Ready),
    Finish(Finish),
    Fail(Fail),
    Publish(u64, Box<CheckpointManifest>),
    Status,
}

/// The body of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Response {
    Done(()),
    Joined(Joined),
    Next(Box<Next>),
    Verdict(Verdict),
    Published(Published),
    Status(Status),
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refused {
    /// The member is out.
    Fenced(String),
    /// The request is wrong.
    Invalid(String),
    /// Try again.
    Unavailable(String),
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Effect<T> {
    Answer(T, Result<Response, Refused>),
    /// Write to the journal; what follows must wait until it is there.
    Append(JournalEntry),
    /// From now on rendezvous keys belong to this generation, and those before are gone.
    Keys(Option<u64>),
    /// Say something on the presence stream of a member.
    Push(u64, Presence),
    /// Publish, and bring the outcome to [`Service::published`].
    Publish(Box<CheckpointManifest>, T),
    /// Tell people.
    Tell(What),
    /// All steps are committed and the last checkpoint is published.
    Done,
    /// The run cannot go on.
    Stuck(String),
}

/// What waits for a member.
#[derive(Debug)]
struct Waiting<T> {
    next: Option<T>,
    verdict: Option<T>,
    connection: Option<u64>,
}

/// The coordinator of one run.
#[derive(Debug)]
pub(crate) struct Service<T> {
    run: Run,
    dataset_identity: Digest,
    /// In which order the run is fed; none before the first replica has said it.
    order: Option<Digest>,
    group: Group,
    waiting: HashMap<u64, Waiting<T>>,
    connections: u64,
    loss: Option<f64>,
    stepped: Duration,
}

impl<T> Service<T> {
    /// Goes on where `history` ends; where nobody is there, the first generation waits for `expected` replicas.
    pub(crate) fn new(run: Run, dataset_identity: Digest, history: History, expected: usize) -> Self {
        let settings = Settings {
            micro_batches: run.batch.micro_batches,
            steps: run.batch.steps,
            every_steps: run.checkpoint.every_steps,
            min_replicas: run.elastic.min_replicas as usize,
            expected,
            gather_ms: run.elastic.gather.0,
            lease_ms: run.elastic.lease.0,
        };
        let order = history.order;
        let group = Group::new(settings, history);
        Self { run, dataset_identity, order, group, waiting: HashMap::new(), connections: 0, loss: None, stepped: Duration::ZERO }
    }

    /// The membership.
    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    /// Takes in a request; `now` is the time since the coordinator began.
    pub(crate) fn handle(&mut self, now: Duration, ticket: T, request: Request) -> Vec<Effect<T>> {
        let member = match &request {
            Request::Join(_) | Request::Status => None,
            Request::Renew(member) | Request::Leave(member) | Request::Publish(member, _) => Some(*member),
            Request::Ready(ready) => Some(ready.member),
            Request::Finish(finish) => Some(finish.member),
            Request::Fail(fail) => Some(fail.member),
        };
        if let Some(member) = member.filter(|&member| !self.group.is_member(member)) {
            return vec![Effect::Answer(ticket, Err(self.fenced(member)))];
        }
        let done = |ticket| Effect::Answer(ticket, Ok(Response::Done(())));
        match request {
            Request::Join(join) => self.join(now, ticket, join),
            Request::Status => vec![Effect::Answer(ticket, Ok(Response::Status(self.status(now))))],
            Request::Renew(member) => self.after(done(ticket), now, Event::Renewed { member }),
            Request::Leave(member) => self.after(done(ticket), now, Event::Left { member }),
            Request::Ready(ready) => {
                self.waiting(ready.member).next = Some(ticket);
                self.apply(now, Event::Ready(ready))
            }
            Request::Finish(finish) => {
                self.waiting(finish.member).verdict = Some(ticket);
                self.apply(now, Event::Finished(finish))
            }
            Request::Fail(Fail { member, generation, reason }) => {
                let mut effects = vec![done(ticket)];
                if self.group.running() == Some(generation) {
                    effects.push(Effect::Tell(What::GenerationFailed { reason: reason.clone(), step: self.group.state().step }));
                }
                effects.extend(self.apply(now, Event::Failed { member, generation, reason }));
                effects
            }
            Request::Publish(_, manifest) => self.publish(ticket, manifest),
        }
    }

    /// A member opens its presence stream: the number of the connection, which replaces the one before.
    pub(crate) fn connect(&mut self, now: Duration, member: u64) -> Result<(u64, Vec<Effect<T>>), Refused> {
        if !self.group.is_member(member) {
            return Err(self.fenced(member));
        }
        self.connections += 1;
        let connection = self.connections;
        self.waiting(member).connection = Some(connection);
        // What ended before this stream was open is said first.
        let generation = self.group.running().map_or(self.group.generation(), |running| running - 1);
        let over = Effect::Push(member, Presence::Over { generation, reason: "the generation is over".to_owned() });
        Ok((connection, self.after(over, now, Event::Renewed { member })))
    }

    /// A presence stream ended.
    pub(crate) fn disconnect(&mut self, now: Duration, member: u64, connection: u64) -> Vec<Effect<T>> {
        match self.waiting.get(&member) {
            Some(waiting) if waiting.connection == Some(connection) => self.apply(now, Event::Disconnected { member }),
            _ => Vec::new(),
        }
    }

    /// Time went by.
    pub(crate) fn tick(&mut self, now: Duration) -> Vec<Effect<T>> {
        self.apply(now, Event::Tick)
    }

    /// An [`Effect::Publish`] has ended: the state of the checkpoint that is there now, and whether it was ours.
    pub(crate) fn published(&mut self, now: Duration, ticket: T, outcome: Result<(Mark, String, bool), Refused>) -> Vec<Effect<T>> {
        let (state, weights_sha256, published) = match outcome {
            Ok(outcome) => outcome,
            Err(refused) => return vec![Effect::Answer(ticket, Err(refused))],
        };
        let mut effects = Vec::new();
        if published {
            effects.push(Effect::Tell(What::CheckpointPublished { step: state.step, weights_sha256 }));
        }
        effects.push(Effect::Answer(ticket, Ok(Response::Published(Published { published }))));
        effects.extend(self.apply(now, Event::Published { state }));
        effects
    }

    fn join(&mut self, now: Duration, ticket: T, join: Join) -> Vec<Effect<T>> {
        let Join { protocol, identity, config_digest, order } = join;
        let name = &identity.name;
        let refused = if protocol != PROTOCOL {
            Some(format!("replica `{name}` speaks protocol {protocol}, expected {PROTOCOL}"))
        } else if config_digest != self.run.digest() {
            let (found, expected) = (config_digest.short(), self.run.digest().short());
            Some(format!("replica `{name}` has settings of digest {found}, expected {expected} of run `{}`", self.run.name))
        } else if let Some(expected) = self.order.filter(|expected| *expected != order) {
            Some(format!(
                "replica `{name}` would be fed in order {}, expected {}, in which run `{}` began: \
                 another version of the program may shuffle in another way",
                order.short(),
                expected.short(),
                self.run.name
            ))
        } else {
            self.other_device(now, &identity)
        };
        if let Some(refused) = refused {
            return vec![Effect::Answer(ticket, Err(Refused::Invalid(refused)))];
        }
        let joined = What::ReplicaJoined { replica: identity.name.clone(), host: identity.host.clone(), pid: identity.pid };
        let member = self.group.join(milliseconds(now), identity);
        let answer = Response::Joined(Joined { member, lease_ms: self.run.elastic.lease.0 });
        // For good, before anything is computed in it.
        let first = self.order.replace(order).is_none().then_some(Effect::Append(JournalEntry::Order { order }));
        first.into_iter().chain([Effect::Tell(joined), Effect::Answer(ticket, Ok(answer))]).collect()
    }

    /// Why a replica cannot compute beside the present ones: another kind of device rounds in another way, so its state would
    /// differ from theirs at the first step.
    fn other_device(&self, now: Duration, identity: &Identity) -> Option<String> {
        let kind = |device: &str| device.split(':').next().map(str::to_owned);
        let (_, other, ..) = self.group.members(milliseconds(now)).find(|(_, other, ..)| kind(&other.device) != kind(&identity.device))?;
        let Identity { name, device, .. } = identity;
        Some(format!("replica `{name}` computes on {device}, expected {} as replica `{}` does: see --device", other.device, other.name))
    }

    fn status(&self, now: Duration) -> Status {
        let member = |(member, identity, rank, silent_ms): (u64, &Identity, Option<u32>, u64)| MemberStatus {
            member,
            identity: identity.clone(),
            rank,
            silent_ms,
        };
        Status {
            run: self.run.name.clone(),
            generation: self.group.generation(),
            step: self.group.state().step,
            steps: self.run.batch.steps,
            checkpoint: self.group.checkpoint().map(|state| state.step),
            loss: self.loss,
            members: self.group.members(milliseconds(now)).map(member).collect(),
        }
    }

    /// Checks a manifest and notes the intent in the journal, which fails if another coordinator has taken over.
    fn publish(&mut self, ticket: T, manifest: Box<CheckpointManifest>) -> Vec<Effect<T>> {
        if let Err(refused) = self.check_manifest(&manifest) {
            return vec![Effect::Answer(ticket, Err(refused))];
        }
        let step = manifest.position.step;
        if self.group.checkpoint().is_some_and(|published| published.step >= step) {
            return vec![Effect::Answer(ticket, Ok(Response::Published(Published { published: false })))];
        }
        let intent = JournalEntry::Checkpoint { generation: self.group.generation(), step };
        vec![Effect::Append(intent), Effect::Publish(manifest, ticket)]
    }

    fn check_manifest(&self, manifest: &CheckpointManifest) -> Result<(), Refused> {
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
        if manifest.order != self.order {
            let shown = |order: Option<Digest>| order.map_or_else(|| "none".to_owned(), |order| order.short());
            return wrong("order", shown(manifest.order), shown(self.order));
        }
        let state = Mark { step, generation: manifest.generation };
        if !self.group.is_of_the_run(state) {
            return wrong("state", format!("of generation {}", state.generation), format!("one of the run's, at {:?}", self.group.state()));
        }
        Ok(())
    }

    fn waiting(&mut self, member: u64) -> &mut Waiting<T> {
        self.waiting.entry(member).or_insert_with(|| Waiting { next: None, verdict: None, connection: None })
    }

    fn fenced(&self, member: u64) -> Refused {
        Refused::Fenced(format!("member {member} is no longer in run `{}`: join again", self.run.name))
    }

    fn after(&mut self, first: Effect<T>, now: Duration, event: Event) -> Vec<Effect<T>> {
        let mut effects = vec![first];
        effects.extend(self.apply(now, event));
        effects
    }

    fn apply(&mut self, now: Duration, event: Event) -> Vec<Effect<T>> {
        let mut effects = Vec::new();
        for decision in self.group.apply(milliseconds(now), event) {
            self.carry_out(now, decision, &mut effects);
        }
        effects
    }

    fn carry_out(&mut self, now: Duration, decision: Decision, effects: &mut Vec<Effect<T>>) {
        match decision {
            Decision::Next { member, next } => {
                // A member that hung up asks again, and gets the same answer.
                let ticket = self.waiting.get_mut(&member).and_then(|waiting| waiting.next.take());
                effects.extend(ticket.map(|ticket| Effect::Answer(ticket, Ok(Response::Next(Box::new(next))))));
            }
            Decision::Answer { member, verdict } => {
                let ticket = self.waiting.get_mut(&member).and_then(|waiting| waiting.verdict.take());
                effects.extend(ticket.map(|ticket| Effect::Answer(ticket, Ok(Response::Verdict(verdict)))));
            }
            Decision::Committed(commit) => {
                self.loss = commit.loss;
                let seconds = now.saturating_sub(self.stepped).as_secs_f64();
                self.stepped = now;
                effects.push(Effect::Tell(What::StepCommitted {
                    step: commit.step,
                    loss: commit.loss,
                    samples: self.run.global_batch(),
                    samples_digest: commit.samples,
                    seconds,
                    world: commit.world,
                    timings: commit.timings,
                }));
            }
            Decision::Over { generation, members, reason } => {
                effects.push(Effect::Keys(None));
                let over = |member| Effect::Push(member, Presence::Over { generation, reason: reason.clone() });
                effects.extend(members.into_iter().map(over));
            }
            Decision::Lost { member, identity, cause, detail } => self.lost(member, identity, cause, detail, effects),
            Decision::Diverged { identity, detail, .. } => {
                let step = self.group.state().step;
                effects.push(Effect::Tell(What::ReplicaLost { replica: identity.name, cause: Cause::Diverged, detail, step }));
            }
            Decision::Formed { generation, members, step, reason } => {
                self.stepped = now;
                effects.push(Effect::Append(JournalEntry::Generation { generation, members: members.clone(), step }));
                effects.push(Effect::Keys(Some(generation)));
                effects.push(Effect::Tell(What::GenerationFormed { members, reason, step }));
            }
            Decision::Done => effects.push(Effect::Done),
            Decision::Stuck { reason } => effects.push(Effect::Stuck(format!("run `{}`: {reason}", self.run.name))),
        }
    }

    fn lost(&mut self, member: u64, identity: Identity, cause: Cause, detail: String, effects: &mut Vec<Effect<T>>) {
        if !self.group.is_done() {
            let step = self.group.state().step;
            effects.push(Effect::Tell(What::ReplicaLost { replica: identity.name, cause, detail: detail.clone(), step }));
        }
        effects.push(Effect::Push(member, Presence::Out { reason: detail.clone() }));
        let Some(waiting) = self.waiting.remove(&member) else { return };
        let fenced = Refused::Fenced(format!("member {member} is out of run `{}`: {detail}", self.run.name));
        effects.extend([waiting.next, waiting.verdict].into_iter().flatten().map(|ticket| Effect::Answer(ticket, Err(fenced.clone()))));
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
