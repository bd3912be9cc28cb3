//! Replicas as processes: one question at a time, sent again until it is answered; signs of life beside it. What they do
//! together is in [`collectives`].

mod collectives;

use std::collections::HashMap;

use forebay_schemas::Digest;
use forebay_schemas::wire::{
    Assignment, Fail, Finish, Identity, Join, Mark, MicroBatchReport, Next, PROTOCOL, Presence, Ready, Restore, Timings,
};

use super::coordinator::{Incoming, mark};
use super::world::{Happening, MICRO_BATCHES, Mesh, Node, Question, World};
use crate::membership::progress::{Outcome, Progress};
use crate::membership::service::{Refused, Request, Response};
pub(super) use collectives::Payload;

const MS: u64 = 1_000;
const RESEND: u64 = 250 * MS;
const RENEW: u64 = 100 * MS;

/// A state, and whether it comes from a bit that was flipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Weights {
    pub(super) mark: Mark,
    pub(super) bits: u64,
    pub(super) tainted: bool,
}

/// The gradient of a micro-batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contribution {
    pub(super) index: u32,
    /// Bits of the weights that it was computed on.
    pub(super) on: u64,
    pub(super) by: usize,
    tainted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Purpose {
    Join,
    Place,
    Verdict,
    Fail,
    Checkpoint { last: bool, regroup: bool },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Asking(Purpose),
    Connecting,
    Computing,
    Reducing,
    Done,
}

#[derive(Debug)]
pub(super) struct Replica {
    pub(super) alive: bool,
    pub(super) frozen: bool,
    incarnation: u64,
    phase: Phase,
    pub(super) member: Option<u64>,
    target: Option<usize>,
    connected: bool,
    asking: Option<(Question, Request, u64)>,
    questions: u64,
    turn: u64,
    over: u64,
    place: Option<Assignment>,
    progress: Progress,
    pub(super) weights: Option<Weights>,
    gradient: Vec<Contribution>,
    sum: Vec<Contribution>,
    pub(super) deferred: Vec<Happening>,
    /// Peers of a collective that failed by itself, and their lives.
    doubted: Vec<(usize, u64)>,
}

/// The other way round.
fn life(door: &str) -> Option<(usize, u64)> {
    door.split_once('/').and_then(|(number, life)| Some((number.parse().ok()?, life.parse().ok()?)))
}

/// The name of a replica's life, and where it answers.
fn door((number, incarnation): &(usize, u64)) -> String {
    format!("{number}/{incarnation}")
}

impl Replica {
    pub(super) fn new() -> Self {
        Self {
            alive: false,
            frozen: false,
            incarnation: 0,
            phase: Phase::Done,
            member: None,
            target: None,
            connected: false,
            asking: None,
            questions: 0,
            turn: 0,
            over: 0,
            place: None,
            progress: Progress::default(),
            weights: None,
            gradient: Vec::new(),
            sum: Vec::new(),
            deferred: Vec::new(),
            doubted: Vec::new(),
        }
    }

    fn generation(&self) -> u64 {
        self.place.as_ref().map_or(0, |place| place.generation)
    }
}

impl World {
    /// Starts a replica, or a coordinator where there is no such replica.
    pub(super) fn start_replica(&mut self, number: usize) {
        if number == usize::MAX {
            return self.start_coordinator();
        }
        if self.replicas[number].alive {
            return;
        }
        let incarnation = self.replicas[number].incarnation + 1;
        self.replicas[number] = Replica { alive: true, incarnation, target: self.newest_coordinator(), ..Replica::new() };
        self.join(number);
    }

    pub(super) fn kill_replica(&mut self, number: usize) {
        if !self.replicas[number].alive {
            return;
        }
        self.audit.tally.kills += 1;
        let replica = &mut self.replicas[number];
        (replica.alive, replica.frozen) = (false, false);
        replica.deferred.clear();
        let (incarnation, generation) = (replica.incarnation, replica.generation());
        if let (Some(member), Some(target), true) = (replica.member, replica.target, replica.connected) {
            let broke = Happening::Coordinator(target, Incoming::StreamBroke { member, replica: number, incarnation });
            self.send(Node::Replica(number), Node::Coordinator(target), broke);
        }
        self.break_mesh(generation);
    }

    fn join(&mut self, number: usize) {
        let replica = &mut self.replicas[number];
        (replica.member, replica.connected, replica.over, replica.place) = (None, false, 0, None);
        replica.doubted.clear();
        let name = door(&(number, replica.incarnation));
        let identity = Identity { door: name.clone(), name, host: String::new(), pid: 0, device: String::new() };
        let join = Join { protocol: PROTOCOL, identity, config_digest: self.run.digest(), order: Digest::of(b"") };
        self.ask(number, Purpose::Join, Request::Join(join));
    }

    fn ask(&mut self, number: usize, purpose: Purpose, request: Request) {
        self.replicas[number].phase = Phase::Asking(purpose);
        let since = self.now;
        self.pose(number, request, since);
    }

    fn pose(&mut self, number: usize, request: Request, since: u64) {
        let replica = &mut self.replicas[number];
        replica.questions += 1;
        let question = Question { replica: number, incarnation: replica.incarnation, number: replica.questions };
        replica.asking = Some((question, request.clone(), since));
        if let Some(target) = replica.target {
            self.send(Node::Replica(number), Node::Coordinator(target), Happening::Coordinator(target, Incoming::Asked(question, request)));
        }
        self.schedule(RESEND, Happening::Resend(question));
    }

    fn ask_for_place(&mut self, number: usize) {
        let replica = &mut self.replicas[number];
        replica.turn += 1;
        let turn = replica.turn;
        let (have, held) = (replica.progress.have(), replica.progress.indices());
        let Some(member) = replica.member else { return self.join(number) };
        let (reached, unreached) = self.knock(number);
        self.ask(number, Purpose::Place, Request::Ready(Ready { member, turn, have, held, reached, unreached }));
    }

    /// Doors of doubted peers that answer, and those behind a cut line.
    fn knock(&mut self, number: usize) -> (Vec<String>, Vec<String>) {
        let cut = |(other, _): &(usize, u64)| self.cut(Node::Replica(number), Node::Replica(*other));
        let (unreached, reached): (Vec<_>, Vec<_>) = self.replicas[number].doubted.iter().partition(|peer| cut(peer));
        self.audit.tally.unreached += unreached.len() as u64;
        (reached.iter().map(door).collect(), unreached.iter().map(door).collect())
    }

    /// What happens to a replica; a frozen one hears of it when it thaws.
    pub(super) fn replica_happens(&mut self, happening: Happening) {
        let (number, incarnation) = match &happening {
            Happening::Answered(question, _) | Happening::Resend(question) => (question.replica, question.incarnation),
            Happening::Line { replica, incarnation, .. }
            | Happening::StreamBroke { replica, incarnation, .. }
            | Happening::Renew { replica, incarnation, .. }
            | Happening::Computed { replica, incarnation }
            | Happening::Collective { replica, incarnation, .. }
            | Happening::MeshBroke { replica, incarnation, .. } => (*replica, *incarnation),
            other => panic!("{other:?} does not happen to a replica"),
        };
        let replica = &mut self.replicas[number];
        if !replica.alive || replica.incarnation != incarnation {
            return;
        }
        if replica.frozen && !matches!(happening, Happening::Collective { .. }) {
            return replica.deferred.push(happening);
        }
        match happening {
            Happening::Answered(question, answer) => self.answered(number, question, answer),
            Happening::Resend(question) => self.resend(number, question),
            Happening::Line { member, presence, .. } if replica.member == Some(member) => match presence {
                Presence::Beat => {}
                Presence::Over { generation, .. } => self.over(number, generation),
                Presence::Out { .. } => self.over(number, u64::MAX),
            },
            Happening::StreamBroke { member, .. } if replica.member == Some(member) => replica.connected = false,
            Happening::Renew { member, .. } if replica.member == Some(member) => self.renew(number, member),
            Happening::Computed { .. } => self.computed(number),
            Happening::Collective { generation, operation, .. } => self.collective(number, generation, operation),
            Happening::MeshBroke { generation, .. } => self.mesh_broke(number, generation),
            _ => {}
        }
    }

    fn resend(&mut self, number: usize, question: Question) {
        let Some((asked, request, since)) = self.replicas[number].asking.clone() else { return };
        if asked == question {
            if self.now - since > 2 * RESEND && !self.cut(Node::Replica(number), Node::Storage) {
                self.replicas[number].target = self.newest_coordinator();
            }
            let request = match request {
                Request::Ready(ready) => {
                    let (reached, unreached) = self.knock(number);
                    Request::Ready(Ready { reached, unreached, ..ready })
                }
                request => request,
            };
            self.pose(number, request, since);
        }
    }

    fn renew(&mut self, number: usize, member: u64) {
        let replica = &self.replicas[number];
        let (incarnation, connected) = (replica.incarnation, replica.connected);
        if let Some(target) = replica.target {
            // Its answer is not waited for; a refusal comes over the stream as well.
            let question = Question { replica: number, incarnation, number: 0 };
            self.send(
                Node::Replica(number),
                Node::Coordinator(target),
                Happening::Coordinator(target, Incoming::Asked(question, Request::Renew(member))),
            );
            if !connected {
                let stream = Incoming::StreamAsked { replica: number, incarnation, member };
                self.send(Node::Replica(number), Node::Coordinator(target), Happening::Coordinator(target, stream));
                self.replicas[number].connected = true;
            }
        }
        self.schedule(RENEW, Happening::Renew { replica: number, incarnation, member });
    }

    fn over(&mut self, number: usize, generation: u64) {
        let replica = &mut self.replicas[number];
        replica.over = replica.over.max(generation);
        let mine = replica.generation();
        if mine > 0 && mine <= generation && matches!(replica.phase, Phase::Connecting | Phase::Reducing) {
            self.break_mesh(mine);
            self.give_up(number);
        }
    }

    fn answered(&mut self, number: usize, question: Question, answer: Result<Response, Refused>) {
        let replica = &mut self.replicas[number];
        if question.number == 0 {
            if matches!(answer, Err(Refused::Fenced(_))) {
                self.over(number, u64::MAX);
            }
            return;
        }
        let Phase::Asking(purpose) = replica.phase else { return };
        if replica.asking.as_ref().is_none_or(|(asked, ..)| *asked != question) {
            return;
        }
        match (purpose, answer) {
            (Purpose::Checkpoint { regroup, last }, answer) => {
                let again = last && !matches!(answer, Ok(Response::Published(_)));
                if again { self.rejoin_or_place(number, answer) } else { self.after_checkpoint(number, regroup) }
            }
            (_, Err(Refused::Fenced(_))) => self.join(number),
            (_, Err(refused)) => panic!("{refused:?}"),
            (Purpose::Join, Ok(Response::Joined(joined))) => {
                replica.member = Some(joined.member);
                let renew = Happening::Renew { replica: number, incarnation: replica.incarnation, member: joined.member };
                self.schedule(1, renew);
                self.ask_for_place(number);
            }
            (Purpose::Place, Ok(Response::Next(next))) => match *next {
                Next::Knock { doors } => {
                    replica.doubted = doors.iter().filter_map(|door| life(door)).collect();
                    let Some((_, request, since)) = replica.asking.clone() else { return };
                    let Request::Ready(ready) = request else { return };
                    let (reached, unreached) = self.knock(number);
                    self.pose(number, Request::Ready(Ready { reached, unreached, ..ready }), since);
                }
                Next::Done => self.replicas[number].phase = Phase::Done,
                Next::Train { assignment } => {
                    replica.doubted.clear();
                    self.take_place(number, assignment);
                }
            },
            (Purpose::Verdict, Ok(Response::Verdict(verdict))) => {
                let outcome = replica.progress.hear(verdict);
                self.decided(number, outcome);
            }
            (Purpose::Fail, Ok(_)) => self.ask_for_place(number),
            (purpose, answer) => panic!("{purpose:?}: {answer:?}"),
        }
    }

    fn rejoin_or_place(&mut self, number: usize, answer: Result<Response, Refused>) {
        if matches!(answer, Err(Refused::Fenced(_))) { self.join(number) } else { self.ask_for_place(number) }
    }

    fn take_place(&mut self, number: usize, assignment: Assignment) {
        let newest = self.checkpoints.get(&match assignment.restore {
            Restore::Checkpoint { step } => step,
            _ => u64::MAX,
        });
        let loaded = newest.map(|manifest| Weights {
            mark: mark(manifest),
            bits: manifest.weights_sha256.parse().expect("bits"),
            tainted: manifest.program == "true",
        });
        let replica = &mut self.replicas[number];
        assert!(assignment.generation > replica.generation(), "a replica never goes back to an older generation");
        let held = replica.progress.indices();
        let keeps = replica.progress.take(&assignment).expect("the coordinator counts on what is there");
        if keeps {
            self.audit.tally.salvaged += held.len() as u64;
        } else {
            replica.gradient.clear();
        }
        replica.sum.clear();
        match assignment.restore {
            Restore::Fresh => replica.weights = Some(Weights { mark: Mark::default(), bits: 1, tainted: false }),
            Restore::Checkpoint { .. } => replica.weights = Some(loaded.expect("a checkpoint that is there")),
            Restore::Peer { .. } => replica.weights = None,
            Restore::Current => {}
        }
        let seats: Vec<(usize, u64)> = assignment.members.iter().filter_map(|identity| life(&identity.door)).collect();
        let (generation, rank, weights) = (assignment.generation, assignment.rank, replica.weights);
        replica.place = Some(assignment);
        replica.phase = Phase::Connecting;
        self.meshes.entry(generation).or_insert_with(|| Mesh { seats, broken: false, cut_since: None, operations: HashMap::new() });
        self.enter(number, generation, 0, rank, Payload::State(weights));
    }

    fn give_up(&mut self, number: usize) {
        let replica = &mut self.replicas[number];
        if replica.over < replica.generation() {
            replica.doubted = self.meshes.get(&replica.generation()).map_or(Vec::new(), |mesh| mesh.seats.clone());
        }
        let Some(member) = replica.member else { return self.join(number) };
        let fail = Fail { member, generation: replica.generation(), reason: "broken".to_owned() };
        self.ask(number, Purpose::Fail, Request::Fail(fail));
    }

    fn compute(&mut self, number: usize) {
        let replica = &mut self.replicas[number];
        let place = replica.place.as_ref().expect("a place");
        let (generation, rank) = (place.generation, place.rank);
        if replica.weights.is_none_or(|weights| weights.mark.step >= self.run.batch.steps) {
            return self.ask_for_place(number);
        }
        if replica.progress.due().is_empty() {
            replica.phase = Phase::Reducing;
            let operation = 1 + replica.weights.map_or(0, |weights| weights.mark.step);
            let parts = replica.gradient.clone();
            return self.enter(number, generation, operation, rank, Payload::Parts(parts));
        }
        if replica.over >= generation {
            return self.give_up(number);
        }
        replica.phase = Phase::Computing;
        let incarnation = replica.incarnation;
        let delay = (1 + number as u64 % 3) * (200 + self.below(2 * MS));
        self.schedule(delay, Happening::Computed { replica: number, incarnation });
    }

    fn computed(&mut self, number: usize) {
        let replica = &mut self.replicas[number];
        if replica.phase != Phase::Computing {
            return;
        }
        let (Some(weights), Some(&index)) = (replica.weights, replica.progress.due().first()) else { return };
        replica.gradient.push(Contribution { index, on: weights.bits, by: number, tainted: weights.tainted });
        replica.progress.computed(MicroBatchReport { index, loss: Some(1.0), samples: Digest::of(&index.to_le_bytes()) });
        self.compute(number);
    }

    fn report(&mut self, number: usize) {
        let replica = &self.replicas[number];
        let (Some(member), Some(weights)) = (replica.member, replica.weights) else { return self.join(number) };
        let sum: Vec<u8> = replica.sum.iter().flat_map(|part| part.on.to_le_bytes()).collect();
        let state = Digest::of_parts([&weights.bits.to_le_bytes()[..], &sum]);
        let timings = Timings { compute: (1 + number % 3) as f64 * replica.gradient.len() as f64, ..Timings::default() };
        let (generation, step) = (replica.generation(), weights.mark.step);
        let finish = Finish { member, generation, step, micro_batches: replica.progress.held().to_vec(), state, timings };
        self.ask(number, Purpose::Verdict, Request::Finish(finish));
    }

    fn decided(&mut self, number: usize, outcome: Outcome) {
        match outcome {
            Outcome::Keep => self.ask_for_place(number),
            Outcome::Drop => {
                let replica = &mut self.replicas[number];
                replica.weights = None;
                replica.gradient.clear();
                self.ask_for_place(number);
            }
            Outcome::Apply { regroup, checkpoint } => {
                let replica = &mut self.replicas[number];
                let place = replica.place.as_ref().expect("a place");
                let weights = replica.weights.as_mut().expect("weights");
                let members: Vec<usize> = self.meshes[&place.generation].seats.iter().map(|seat| seat.0).collect();
                self.audit.applies(weights, &replica.sum, &members, MICRO_BATCHES);
                assert!(weights.tainted || replica.sum.iter().all(|part| !part.tainted), "a wrong state has no part in a right one");
                let mark = Mark { step: weights.mark.step + 1, generation: place.generation };
                // Rounding differs from generation to generation, so that histories can be told apart.
                let bits = weights.bits.wrapping_mul(0x0100_0000_01B3).wrapping_add(mark.step * 31 + mark.generation);
                *weights = Weights { mark, bits, tainted: weights.tainted };
                assert_eq!(replica.progress.have(), Some(mark));
                let weights = *weights;
                (replica.gradient, replica.sum) = (Vec::new(), Vec::new());
                if !weights.tainted {
                    self.audit.has(&weights);
                }
                if checkpoint {
                    self.checkpoint(number, regroup);
                } else {
                    self.after_checkpoint(number, regroup);
                }
            }
        }
    }

    fn checkpoint(&mut self, number: usize, regroup: bool) {
        let replica = &self.replicas[number];
        let (Some(member), Some(weights)) = (replica.member, replica.weights) else { return self.join(number) };
        let last = weights.mark.step == self.run.batch.steps;
        let manifest = self.manifest(&weights);
        self.ask(number, Purpose::Checkpoint { last, regroup }, Request::Publish(member, manifest));
    }

    fn after_checkpoint(&mut self, number: usize, regroup: bool) {
        if regroup { self.ask_for_place(number) } else { self.compute(number) }
    }
}
