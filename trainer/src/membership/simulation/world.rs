//! The clock, the network, storage, and whoever does harm.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use forebay_schemas::checkpoint::{CheckpointManifest, DatasetVersionRef};
use forebay_schemas::dataset::ObjectRef;
use forebay_schemas::journal::JournalEntry;
use forebay_schemas::run::Run;
use forebay_schemas::wire::Presence;
use forebay_schemas::{Digest, Position};

use super::audit::{Audit, Tally};
use super::coordinator::{Coordinator, Incoming};
use super::replica::{Payload, Replica, Weights};
use crate::membership::service::{Refused, Response};

pub(super) const MICRO_BATCHES: u32 = 6;
const REPLICAS: usize = 5;
const LEASE_MS: u64 = 400;
const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;

/// From this time on nothing fails any more, and the run must end soon.
const PEACE: u64 = 25 * SECOND;
const DEADLINE: u64 = 200 * SECOND;

/// How an answer finds whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) replica: usize,
    pub(super) incarnation: u64,
    pub(super) number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Coordinator(usize),
    Replica(usize),
    Storage,
}

#[derive(Clone, Debug)]
pub(super) enum Happening {
    Coordinator(usize, Incoming),
    Answered(Question, Result<Response, Refused>),
    Line { replica: usize, incarnation: u64, member: u64, presence: Presence },
    StreamBroke { replica: usize, incarnation: u64, member: u64 },
    Renew { replica: usize, incarnation: u64, member: u64 },
    Resend(Question),
    Computed { replica: usize, incarnation: u64 },
    Collective { replica: usize, incarnation: u64, generation: u64, operation: u64 },
    MeshBroke { replica: usize, incarnation: u64, generation: u64 },
    Start(usize),
    Thaw(Node),
    Append { coordinator: usize, number: u64, entry: JournalEntry },
    Publish { coordinator: usize, manifest: Box<CheckpointManifest>, question: Question },
    Claim(usize),
    Harm,
}

struct Due(u64, u64, Happening);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Connected members of a generation, by rank, and what they brought to each operation.
pub(super) struct Mesh {
    pub(super) seats: Vec<(usize, u64)>,
    pub(super) broken: bool,
    /// A line between two of them is cut, as their operations have found.
    pub(super) cut_since: Option<u64>,
    pub(super) operations: HashMap<u64, BTreeMap<u32, Payload>>,
}

pub(super) struct World {
    pub(super) now: u64,
    state: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<Due>>,
    pub(super) run: Run,
    pub(super) replicas: Vec<Replica>,
    pub(super) coordinators: Vec<Coordinator>,
    /// Entries, and the coordinator that wrote each.
    pub(super) journal: Vec<(usize, JournalEntry)>,
    pub(super) checkpoints: BTreeMap<u64, Box<CheckpointManifest>>,
    pub(super) meshes: HashMap<u64, Mesh>,
    cuts: Vec<(Node, Node, u64)>,
    pub(super) audit: Audit,
    loss: u64,
    steps: u64,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let steps = 20 + seed % 60;
        let run = serde_json::json!({
            "name": "simulated", "dataset": "d", "checkpoints": "c", "model": {"kind": "gpt", "layers": 1, "heads": 1, "width": 2},
            "batch": {"steps": steps * 20, "micro_batches": MICRO_BATCHES, "micro_batch_size": 2},
            "checkpoint": {"every_steps": 10 + seed % 100},
            "elastic": {"lease": format!("{LEASE_MS}ms"), "gather": "300ms", "min_replicas": 1 + seed % 2},
        });
        let run: Run = serde_json::from_value(run).expect("settings");
        let mut world = Self {
            now: 0,
            state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            sequence: 0,
            queue: BinaryHeap::new(),
            steps: run.batch.steps,
            run,
            replicas: (0..REPLICAS).map(|_| Replica::new()).collect(),
            coordinators: Vec::new(),
            journal: Vec::new(),
            checkpoints: BTreeMap::new(),
            meshes: HashMap::new(),
            cuts: Vec::new(),
            audit: Audit::default(),
            loss: seed % 4 * 10,
        };
        world.start_coordinator();
        for replica in 0..REPLICAS {
            let delay = world.below(400 * MS);
            world.schedule(delay, Happening::Start(replica));
        }
        world.schedule(300 * MS, Happening::Harm);
        world
    }

    pub(super) fn run(mut self) -> Tally {
        while !self.is_over() {
            let Some(Reverse(Due(at, _, happening))) = self.queue.pop() else { panic!("nothing happens any more") };
            self.now = at;
            assert!(at < DEADLINE, "the run does not end: {:?}", self.coordinators.last().map(|coordinator| &coordinator.service));
            self.audit.tally.events += 1;
            self.happen(happening);
        }
        self.audit.tally
    }

    fn is_over(&self) -> bool {
        // A coordinator that took the run up after its end knows as well as one that saw it.
        self.now > PEACE && self.checkpoints.last_key_value().is_some_and(|(&step, _)| step == self.steps)
    }

    /// splitmix64.
    pub(super) fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.random() % bound.max(1)
    }

    pub(super) fn chance(&mut self, thousandths: u64) -> bool {
        self.below(1000) < thousandths
    }

    pub(super) fn schedule(&mut self, delay: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse(Due(self.now + delay.max(1), self.sequence, happening)));
    }

    /// A message on its way: it may be lost, late, or come twice.
    pub(super) fn send(&mut self, from: Node, to: Node, happening: Happening) {
        let peace = self.now >= PEACE;
        if self.cut(from, to) || (!peace && self.chance(self.loss)) {
            return;
        }
        if !peace && self.chance(20) {
            let late = self.below(900 * MS);
            self.schedule(late, happening.clone());
        }
        let delay = if !peace && self.chance(20) { self.below(600 * MS) } else { 100 + self.below(2 * MS) };
        self.schedule(delay, happening);
    }

    pub(super) fn cut(&self, a: Node, b: Node) -> bool {
        self.cuts.iter().any(|&(from, to, until)| self.now < until && ((from, to) == (a, b) || (from, to) == (b, a)))
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Coordinator(coordinator, incoming) => self.reach(coordinator, incoming),
            Happening::Append { coordinator, number, entry } => self.append(coordinator, number, entry),
            Happening::Publish { coordinator, manifest, question } => self.publish(coordinator, manifest, question),
            Happening::Claim(coordinator) => self.claim(coordinator),
            Happening::Start(replica) => self.start_replica(replica),
            Happening::Thaw(Node::Replica(replica)) => {
                self.replicas[replica].frozen = false;
                std::mem::take(&mut self.replicas[replica].deferred).into_iter().for_each(|happening| self.happen(happening));
            }
            Happening::Thaw(Node::Coordinator(coordinator)) => self.thaw_coordinator(coordinator),
            Happening::Thaw(Node::Storage) => {}
            Happening::Harm => self.harm(),
            other => self.replica_happens(other),
        }
    }

    /// Kills, freezes, cuts and flips until there is peace.
    fn harm(&mut self) {
        if self.now >= PEACE {
            self.cuts.clear();
            if !self.coordinators.iter().any(|coordinator| coordinator.alive) {
                self.start_coordinator();
            }
            self.schedule(SECOND, Happening::Harm);
            return;
        }
        let next = 20 * MS + self.below(600 * MS);
        self.schedule(next, Happening::Harm);
        let replica = self.below(REPLICAS as u64) as usize;
        let coordinator = self.below(self.coordinators.len() as u64) as usize;
        match self.below(100) {
            0..30 => {
                self.kill_replica(replica);
                let delay = 20 * MS + self.below(900 * MS);
                self.schedule(delay, Happening::Start(replica));
            }
            30..45 if self.replicas[replica].alive && !self.replicas[replica].frozen => {
                self.audit.tally.freezes += 1;
                self.replicas[replica].frozen = true;
                let delay = 20 * MS + self.below(3 * LEASE_MS * MS);
                self.schedule(delay, Happening::Thaw(Node::Replica(replica)));
            }
            45..55 => {
                self.kill_coordinators(None);
                let delay = self.below(800 * MS);
                self.schedule(delay, Happening::Start(usize::MAX));
            }
            55..60 => self.start_coordinator(),
            60..66 => self.freeze_coordinator(coordinator),
            66..90 => {
                let nodes = [Node::Replica(replica), Node::Coordinator(coordinator), Node::Storage];
                let other = self.below(REPLICAS as u64) as usize;
                let (a, b) = match self.below(4) {
                    0 => (nodes[0], nodes[1]),
                    1 => (nodes[1], nodes[2]),
                    2 => (nodes[0], nodes[2]),
                    _ => (nodes[0], Node::Replica(other)),
                };
                // The lease does not notice a line between two replicas, however long it is cut.
                let longest = if matches!(b, Node::Replica(_)) { 20 * LEASE_MS * MS } else { 3 * LEASE_MS * MS };
                let until = self.now + self.below(longest);
                self.audit.tally.cuts += 1;
                self.cuts.push((a, b, until));
                self.cuts.retain(|&(_, _, until)| until > self.now);
            }
            90..93 => self.flip(replica),
            _ => {}
        }
    }

    /// One bit of a replica's weights changes, where enough others have them for the truth to be known.
    fn flip(&mut self, replica: usize) {
        let whole = |replica: &Replica| replica.alive && replica.weights.as_ref().is_some_and(|weights| !weights.tainted);
        if self.replicas.iter().all(|replica| whole(replica) || replica.weights.is_none())
            && let Some(weights) = &mut self.replicas[replica].weights
        {
            (weights.bits, weights.tainted) = (weights.bits ^ 1, true);
            self.audit.tally.flips += 1;
        }
    }

    /// The manifest of a state. What is told of its bits is in the digest of its weights.
    pub(super) fn manifest(&self, weights: &Weights) -> Box<CheckpointManifest> {
        let object = || ObjectRef { path: String::new(), bytes: 0, digest: Digest::of(b"") };
        let zero = Digest::of(b"");
        Box::new(CheckpointManifest {
            format: 1,
            run: self.run.name.clone(),
            position: Position { dataset: zero, seed: 0, step: weights.mark.step, micro_batches: MICRO_BATCHES, micro_batch_size: 2 },
            generation: weights.mark.generation,
            created_unix_ms: 0,
            program: weights.tainted.to_string(),
            dataset: DatasetVersionRef { url: String::new(), version: 1, identity: zero, mixed: Vec::new() },
            config_digest: self.run.digest(),
            config: serde_json::Value::Null,
            order: Some(zero),
            samples: 0,
            loss: None,
            weights_sha256: weights.bits.to_string(),
            model: object(),
            optimizer: object(),
        })
    }
}
