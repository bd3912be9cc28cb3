//! Coordinators as processes: one command at a time, appends that take their time, crashes and freezes.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use forebay_schemas::Digest;
use forebay_schemas::checkpoint::CheckpointManifest;
use forebay_schemas::journal::JournalEntry;
use forebay_schemas::wire::{Mark, Presence};

use super::world::{Happening, Node, Question, World};
use crate::membership::group::History;
use crate::membership::service::{Effect, Request, Service};
use crate::telemetry::What;

const MS: u64 = 1_000;
const TICK: u64 = 20 * MS;

pub(super) struct Coordinator {
    pub(super) alive: bool,
    frozen: bool,
    began: u64,
    /// Thousandths by which its clock runs faster or slower.
    rate: u64,
    /// None until it has taken the run up.
    pub(super) service: Option<Service<Question>>,
    history: History,
    next: u64,
    /// Effects that wait for an append, and what came meanwhile.
    pending: VecDeque<Effect<Question>>,
    appending: bool,
    inbox: VecDeque<Incoming>,
    /// Member to replica, its incarnation, and the number of the connection.
    streams: HashMap<u64, (usize, u64, u64)>,
}

#[derive(Clone, Debug)]
pub(super) enum Incoming {
    Asked(Question, Request),
    StreamAsked { replica: usize, incarnation: u64, member: u64 },
    StreamBroke { member: u64, replica: usize, incarnation: u64 },
    Tick,
    Appended(bool),
    Published(Question, Mark, String, bool),
}

impl World {
    pub(super) fn start_coordinator(&mut self) {
        let rate = 900 + self.below(200);
        let mut history = History::default();
        self.journal.iter().for_each(|(_, entry)| history.take(entry));
        history.generation += 1;
        let next = self.journal.len() as u64;
        self.coordinators.push(Coordinator {
            alive: true,
            frozen: false,
            began: self.now,
            rate,
            service: None,
            history,
            next,
            pending: VecDeque::new(),
            appending: true,
            inbox: VecDeque::new(),
            streams: HashMap::new(),
        });
        self.audit.tally.coordinators += 1;
        let delay = 500 + self.below(60 * MS);
        self.schedule(delay, Happening::Claim(self.coordinators.len() - 1));
    }

    /// It has read the journal and now takes the run over, if nobody else wrote meanwhile.
    pub(super) fn claim(&mut self, number: usize) {
        if !self.coordinators[number].alive {
            return;
        }
        if self.cut(Node::Coordinator(number), Node::Storage) {
            return self.schedule(100 * MS, Happening::Claim(number));
        }
        let coordinator = &mut self.coordinators[number];
        let entry = JournalEntry::Coordinator { generation: coordinator.history.generation, unix_ms: 0, url: number.to_string() };
        if self.journal.len() as u64 != coordinator.next {
            coordinator.alive = false;
            return self.schedule(50 * MS, Happening::Start(usize::MAX));
        }
        self.audit.written(&entry);
        self.journal.push((number, entry));
        coordinator.next += 1;
        let newest = self.checkpoints.last_key_value().map(|(_, manifest)| mark(manifest));
        let history = History { checkpoint: newest, ..coordinator.history.clone() };
        coordinator.service = Some(Service::new(self.run.clone(), Digest::of(b""), history, 3));
        coordinator.appending = false;
        self.schedule(TICK, Happening::Coordinator(number, Incoming::Tick));
    }

    pub(super) fn kill_coordinators(&mut self, one: Option<usize>) {
        for number in 0..self.coordinators.len() {
            if self.coordinators[number].alive && one.is_none_or(|one| one == number) {
                self.coordinators[number].alive = false;
                self.end_streams(number);
            }
        }
    }

    pub(super) fn freeze_coordinator(&mut self, number: usize) {
        if self.coordinators[number].alive && !self.coordinators[number].frozen {
            self.audit.tally.freezes += 1;
            self.coordinators[number].frozen = true;
            let delay = 20 * MS + self.below(2_000 * MS);
            self.schedule(delay, Happening::Thaw(Node::Coordinator(number)));
        }
    }

    pub(super) fn thaw_coordinator(&mut self, number: usize) {
        self.coordinators[number].frozen = false;
        self.go_on(number);
    }

    fn end_streams(&mut self, number: usize) {
        let mut streams: Vec<_> = self.coordinators[number].streams.drain().collect();
        streams.sort_unstable();
        for (member, (replica, incarnation, _)) in streams {
            let delay = 200 + self.below(5 * MS);
            self.schedule(delay, Happening::StreamBroke { replica, incarnation, member });
        }
    }

    /// Something reaches a coordinator.
    pub(super) fn reach(&mut self, number: usize, incoming: Incoming) {
        let coordinator = &mut self.coordinators[number];
        if !coordinator.alive {
            return;
        }
        if matches!(incoming, Incoming::Appended(_)) {
            coordinator.inbox.push_front(incoming);
        } else {
            coordinator.inbox.push_back(incoming);
        }
        self.go_on(number);
    }

    fn go_on(&mut self, number: usize) {
        loop {
            let coordinator = &mut self.coordinators[number];
            if !coordinator.alive || coordinator.frozen {
                return;
            }
            if coordinator.appending && !matches!(coordinator.inbox.front(), Some(Incoming::Appended(_))) {
                return;
            }
            if coordinator.appending {
                if matches!(coordinator.inbox.pop_front(), Some(Incoming::Appended(false))) {
                    self.audit.tally.fenced += 1;
                    return self.kill_coordinators(Some(number));
                }
                coordinator.appending = false;
                coordinator.next += 1;
            } else if let Some(incoming) = coordinator.inbox.pop_front() {
                let effects = self.take(number, incoming);
                self.coordinators[number].pending.extend(effects);
            } else {
                return;
            }
            self.carry_out(number);
        }
    }

    fn take(&mut self, number: usize, incoming: Incoming) -> Vec<Effect<Question>> {
        let now = self.now;
        let coordinator = &mut self.coordinators[number];
        let clock = Duration::from_micros((now - coordinator.began) * coordinator.rate / 1000);
        let Some(service) = &mut coordinator.service else { return Vec::new() };
        match incoming {
            Incoming::Asked(question, request) => service.handle(clock, question, request),
            Incoming::StreamAsked { replica, incarnation, member } => match service.connect(clock, member) {
                Ok((connection, effects)) => {
                    coordinator.streams.insert(member, (replica, incarnation, connection));
                    effects
                }
                Err(_) => {
                    let out = Presence::Out { reason: "fenced".to_owned() };
                    self.send(
                        Node::Coordinator(number),
                        Node::Replica(replica),
                        Happening::Line { replica, incarnation, member, presence: out },
                    );
                    Vec::new()
                }
            },
            Incoming::StreamBroke { member, replica, incarnation } => match coordinator.streams.get(&member) {
                Some(&(of, in_life, connection)) if (of, in_life) == (replica, incarnation) => {
                    service.disconnect(clock, member, connection)
                }
                _ => Vec::new(),
            },
            Incoming::Tick => {
                let effects = service.tick(clock);
                self.schedule(TICK, Happening::Coordinator(number, Incoming::Tick));
                effects
            }
            Incoming::Published(question, state, bits, ours) => service.published(clock, question, Ok((state, bits, ours))),
            Incoming::Appended(_) => Vec::new(),
        }
    }

    fn carry_out(&mut self, number: usize) {
        while let Some(effect) = self.coordinators[number].pending.pop_front() {
            match effect {
                Effect::Answer(question, answer) => {
                    self.send(Node::Coordinator(number), Node::Replica(question.replica), Happening::Answered(question, answer));
                }
                Effect::Append(entry) => {
                    self.coordinators[number].appending = true;
                    let at = self.coordinators[number].next;
                    let delay = 500 + self.below(30 * MS);
                    return self.schedule(delay, Happening::Append { coordinator: number, number: at, entry });
                }
                Effect::Push(member, presence) => {
                    if let Some(&(replica, incarnation, _)) = self.coordinators[number].streams.get(&member) {
                        self.send(
                            Node::Coordinator(number),
                            Node::Replica(replica),
                            Happening::Line { replica, incarnation, member, presence },
                        );
                    }
                }
                Effect::Publish(manifest, question) => {
                    let delay = 500 + self.below(300 * MS);
                    self.schedule(delay, Happening::Publish { coordinator: number, manifest, question });
                }
                Effect::Tell(what) => self.told(number, &what),
                Effect::Stuck(reason) => {
                    // With so much harm it may be; a new coordinator goes on.
                    assert!(reason.contains("committed no step"), "{reason}");
                    self.schedule(50 * MS, Happening::Start(usize::MAX));
                    return self.kill_coordinators(Some(number));
                }
                Effect::Keys(_) | Effect::Done => {}
            }
        }
    }

    fn told(&mut self, number: usize, what: &What) {
        let Some(service) = &self.coordinators[number].service else { return };
        match what {
            What::StepCommitted { step, .. } => self.audit.committed(service.group().generation(), *step),
            What::ReplicaLost { cause: crate::membership::group::Cause::Diverged, .. } => self.audit.tally.healed += 1,
            What::GenerationFormed { step, .. } if self.audit.fell_back(service.group().generation(), *step) => {
                self.audit.tally.fallbacks += 1;
                let group = service.group();
                for replica in &self.replicas {
                    let in_it = replica.alive && replica.member.is_some_and(|member| group.is_member(member));
                    let further =
                        replica.weights.as_ref().is_some_and(|weights| weights.mark.step > *step && group.is_of_the_run(weights.mark));
                    assert!(
                        !in_it || !further || replica.weights.as_ref().is_some_and(|weights| weights.tainted),
                        "{replica:?} has more than {step}"
                    );
                }
            }
            _ => {}
        }
    }

    /// An append reaches storage. The answer may get lost on the way back, and then it is tried again.
    pub(super) fn append(&mut self, number: usize, at: u64, entry: JournalEntry) {
        if self.cut(Node::Coordinator(number), Node::Storage) {
            return self.schedule(150 * MS, Happening::Append { coordinator: number, number: at, entry });
        }
        if self.journal.len() as u64 == at {
            self.audit.written(&entry);
            self.journal.push((number, entry.clone()));
        }
        if self.chance(50) {
            return self.schedule(100 * MS, Happening::Append { coordinator: number, number: at, entry });
        }
        let won = self.journal.get(at as usize).is_some_and(|(writer, _)| *writer == number);
        let delay = 300 + self.below(3 * MS);
        self.schedule(delay, Happening::Coordinator(number, Incoming::Appended(won)));
    }

    /// A manifest reaches storage, even if its coordinator is no more.
    pub(super) fn publish(&mut self, number: usize, manifest: Box<CheckpointManifest>, question: Question) {
        if self.cut(Node::Coordinator(number), Node::Storage) {
            return self.schedule(150 * MS, Happening::Publish { coordinator: number, manifest, question });
        }
        let step = manifest.position.step;
        let ours = !self.checkpoints.contains_key(&step);
        let there = self.checkpoints.entry(step).or_insert(manifest);
        let published = Incoming::Published(question, mark(there), there.weights_sha256.clone(), ours);
        let delay = 300 + self.below(3 * MS);
        self.schedule(delay, Happening::Coordinator(number, published));
    }

    /// The coordinator that the journal names last.
    pub(super) fn newest_coordinator(&self) -> Option<usize> {
        self.journal.iter().rev().find_map(|(_, entry)| match entry {
            JournalEntry::Coordinator { url, .. } => url.parse().ok(),
            _ => None,
        })
    }
}

pub(super) fn mark(manifest: &CheckpointManifest) -> Mark {
    Mark { step: manifest.position.step, generation: manifest.generation }
}
