//! The group under random joins, deaths, freezes, lost answers and late messages, with replicas that are played here.

use std::collections::{BTreeMap, BTreeSet};

use forebay_schemas::Digest;
use forebay_schemas::wire::{MicroBatchReport, Restore, Timings};
use proptest::prelude::*;

use super::*;

const K: u32 = 5;
const STEPS: u64 = 12;
const LEASE_MS: u64 = 1_000;
const SETTINGS: Settings =
    Settings { micro_batches: K, steps: STEPS, every_steps: 4, min_replicas: 2, expected: 3, gather_ms: 500, lease_ms: LEASE_MS };

fn identity(name: &str) -> Identity {
    Identity { name: name.to_owned(), host: "h".to_owned(), pid: 1, device: "cpu".to_owned() }
}

/// A replica as the protocol sees it.
#[derive(Default, Debug)]
struct Replica {
    member: Option<u64>,
    have: Option<u64>,
    after: u64,
    place: Option<Assignment>,
    step: u64,
    frozen: bool,
    /// The next answer to it is lost.
    deaf: bool,
    /// Its last report, which may arrive again.
    last: Option<Finish>,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Join,
    Kill,
    Freeze,
    Thaw,
    /// Whatever comes next for it: ask for an assignment, or report its step.
    Work,
    Fail,
    Deafen,
    /// Its last report arrives once more.
    Echo,
    Sleep(u64),
}

struct World {
    group: Group,
    replicas: Vec<Replica>,
    now_ms: u64,
    committed: u64,
    formed: u64,
    formation: BTreeMap<u64, Assignment>,
    reported: BTreeSet<u64>,
    done: bool,
}

impl World {
    fn new(count: usize) -> Self {
        let replicas = (0..count).map(|_| Replica::default()).collect();
        let group = Group::new(SETTINGS, 1, None);
        Self { group, replicas, now_ms: 0, committed: 0, formed: 0, formation: BTreeMap::new(), reported: BTreeSet::new(), done: false }
    }

    fn act(&mut self, who: usize, act: Act) {
        let who = who % self.replicas.len();
        match act {
            Act::Join if self.replicas[who].member.is_none() => {
                let member = self.group.join(self.now_ms, identity(&format!("r{who}")));
                self.replicas[who] = Replica { member: Some(member), ..Replica::default() };
            }
            Act::Kill => {
                if let Some(member) = std::mem::take(&mut self.replicas[who]).member {
                    self.tell(Event::Disconnected { member });
                }
            }
            Act::Freeze => self.replicas[who].frozen = true,
            Act::Thaw => self.replicas[who].frozen = false,
            Act::Deafen => self.replicas[who].deaf = true,
            Act::Work if !self.replicas[who].frozen => self.work(who),
            Act::Fail if !self.replicas[who].frozen => {
                if let (Some(member), Some(place)) = (self.replicas[who].member, self.replicas[who].place.take()) {
                    self.tell(Event::Failed { member, generation: place.generation, reason: "reset".to_owned() });
                }
            }
            Act::Echo => {
                if let Some(finish) = self.replicas[who].last.clone() {
                    // Nobody waits for the answer to a copy.
                    let deaf = std::mem::replace(&mut self.replicas[who].deaf, true);
                    self.report(finish);
                    self.replicas[who].deaf = deaf;
                }
            }
            Act::Sleep(ms) => self.sleep(ms),
            _ => {}
        }
    }

    fn work(&mut self, who: usize) {
        let replica = &self.replicas[who];
        let Some(member) = replica.member else { return };
        if !self.group.is_member(member) {
            // Fenced: it starts over without state.
            self.replicas[who] = Replica::default();
            return;
        }
        match &replica.place {
            Some(place) if replica.step < STEPS => {
                let report = |&index: &u32| MicroBatchReport { index, loss: Some(f64::from(index)), samples: Digest::of(&[index as u8]) };
                let micro_batches = place.micro_batches.iter().map(report).collect();
                let (generation, step) = (place.generation, replica.step);
                let finish = Finish { member, generation, step, micro_batches, timings: Timings::default() };
                self.replicas[who].last = Some(finish.clone());
                self.report(finish);
            }
            _ => self.tell(Event::Ready { member, after: replica.after, have: replica.have }),
        }
    }

    fn report(&mut self, finish: Finish) {
        if self.group.running() == Some(finish.generation) && finish.step == self.committed {
            self.reported.insert(finish.member);
        }
        self.tell(Event::Finished(finish));
    }

    /// Time passes; whoever lives and is not frozen says so.
    fn sleep(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            self.now_ms = (self.now_ms + 100).min(until);
            let alive: Vec<u64> = self.replicas.iter().filter(|replica| !replica.frozen).filter_map(|replica| replica.member).collect();
            alive.into_iter().for_each(|member| self.tell(Event::Renewed { member }));
            self.tell(Event::Tick);
        }
    }

    fn tell(&mut self, event: Event) {
        for decision in self.group.apply(self.now_ms, event) {
            self.check(decision);
        }
    }

    fn replica(&mut self, member: u64) -> Option<&mut Replica> {
        self.replicas.iter_mut().find(|replica| replica.member == Some(member))
    }

    fn check(&mut self, decision: Decision) {
        match decision {
            Decision::Formed { generation, step, .. } => {
                assert!(generation > self.formed, "generation {generation} was used");
                assert!(step <= self.committed && self.group.committed() == step);
                (self.formed, self.committed) = (generation, step);
                self.formation.clear();
                self.reported.clear();
            }
            Decision::Committed(commit) => {
                assert_eq!(
                    (commit.generation, commit.step),
                    (self.formed, self.committed),
                    "a step commits once, in order, by the current generation"
                );
                assert_eq!(self.reported, self.formation.keys().copied().collect(), "all members have reported");
                assert_eq!(commit.loss, Some(2.0), "the mean over the micro-batches");
                let parts: Vec<Digest> = (0..K as u8).map(|index| Digest::of(&[index])).collect();
                assert_eq!(commit.samples, Digest::of_parts(parts.iter().map(|part| &part.as_bytes()[..])));
                self.committed += 1;
                self.reported.clear();
            }
            Decision::Next { member, next: Next::Train { assignment } } => self.assigned(member, assignment),
            Decision::Next { next: Next::Done, .. } => assert!(self.done),
            Decision::Answer { member, verdict } => self.answered(member, verdict),
            Decision::Done => {
                assert_eq!(self.committed, STEPS);
                self.done = true;
            }
            Decision::Over { generation, .. } => assert_eq!(generation, self.formed),
            Decision::Lost { member, detail, .. } => {
                let speaks = self.replica(member).is_some_and(|replica| !replica.frozen);
                assert!(!speaks || detail.contains("next generation"), "who lives and speaks is not put out: {detail}");
            }
            Decision::Stuck { reason } => panic!("stuck: {reason}"),
        }
    }

    fn assigned(&mut self, member: u64, assignment: Assignment) {
        assert_eq!(assignment.generation, self.formed);
        self.formation.insert(member, assignment.clone());
        if self.formation.len() == assignment.members.len() {
            let mut covered: Vec<u32> = self.formation.values().flat_map(|place| place.micro_batches.clone()).collect();
            covered.sort_unstable();
            assert_eq!(covered, (0..K).collect::<Vec<_>>());
            let ranks: BTreeSet<u32> = self.formation.values().map(|place| place.rank).collect();
            assert_eq!(ranks, (0..assignment.members.len() as u32).collect());
            let source = self.formation.values().find(|place| Some(place.rank) == place.source).map(|place| place.restore);
            assert!(source.is_none() || source == Some(Restore::Current));
        }
        let checkpoint = self.group.checkpoint();
        let Some(replica) = self.replica(member) else { return };
        if replica.deaf || replica.frozen {
            replica.deaf = false;
            return;
        }
        match assignment.restore {
            Restore::Current => assert_eq!(replica.have, Some(assignment.step)),
            Restore::Checkpoint { step } => assert_eq!((Some(step), step), (checkpoint, assignment.step)),
            Restore::Fresh => assert_eq!(assignment.step, 0),
            Restore::Peer { rank } => assert_eq!(Some(rank), assignment.source),
        }
        replica.have = Some(assignment.step);
        replica.step = assignment.step;
        replica.after = assignment.generation;
        let write = assignment.checkpoint.then_some(assignment.step);
        replica.place = Some(assignment);
        if let Some(step) = write {
            self.tell(Event::Published { step });
        }
    }

    fn answered(&mut self, member: u64, verdict: Verdict) {
        let Some(replica) = self.replica(member) else { return };
        if replica.deaf || replica.frozen {
            replica.deaf = false;
            return;
        }
        match verdict {
            Verdict::Committed { regroup, checkpoint } => {
                assert_eq!(replica.have, Some(replica.step), "a step is applied to the state before it");
                replica.step += 1;
                replica.have = Some(replica.step);
                let step = replica.step;
                if regroup {
                    replica.place = None;
                }
                if checkpoint {
                    self.tell(Event::Published { step });
                }
            }
            Verdict::Retry => replica.place = None,
        }
    }
}

fn acts() -> impl Strategy<Value = Vec<(usize, Act)>> {
    let act = prop_oneof![
        3 => Just(Act::Join),
        1 => Just(Act::Kill),
        1 => Just(Act::Freeze),
        2 => Just(Act::Thaw),
        30 => Just(Act::Work),
        1 => Just(Act::Fail),
        1 => Just(Act::Deafen),
        3 => Just(Act::Echo),
        2 => (1u64..1_500).prop_map(Act::Sleep),
    ];
    prop::collection::vec((0usize..5, act), 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// The checks are in `World::check`; afterwards everybody is well, and the run must come to its end.
    #[test]
    fn steps_commit_once_in_order_and_the_run_ends(acts in acts()) {
        let mut world = World::new(5);
        for (who, act) in acts {
            world.act(who, act);
        }
        for round in 0..400 {
            if world.done {
                break;
            }
            for who in 0..world.replicas.len() {
                world.act(who, Act::Thaw);
                world.act(who, Act::Work);
                world.act(who, Act::Join);
            }
            world.sleep(200);
            prop_assert!(round < 399, "no progress: {:?}", world.group);
        }
        prop_assert_eq!(world.group.committed(), STEPS);
    }
}

/// Two members in generation 1, both at step 0.
fn two() -> (Group, u64, u64) {
    let mut group = Group::new(Settings { expected: 2, ..SETTINGS }, 1, None);
    let (a, b) = (group.join(0, identity("a")), group.join(0, identity("b")));
    group.apply(0, Event::Ready { member: a, after: 0, have: None });
    group.apply(0, Event::Ready { member: b, after: 0, have: None });
    assert_eq!(group.running(), Some(1));
    (group, a, b)
}

fn report(member: u64, generation: u64, step: u64, indices: std::ops::Range<u32>) -> Event {
    let micro_batches = indices.map(|index| MicroBatchReport { index, loss: Some(1.0), samples: Digest::of(b"") }).collect();
    Event::Finished(Finish { member, generation, step, micro_batches, timings: Timings::default() })
}

#[test]
fn a_report_of_an_old_generation_commits_nothing() {
    let (mut group, a, b) = two();
    group.apply(1, report(a, 1, 0, 0..2));
    group.apply(2, Event::Disconnected { member: b });
    let late = group.apply(3, report(a, 1, 0, 0..2));
    assert!(matches!(late[..], [Decision::Answer { verdict: Verdict::Retry, .. }]), "{late:?}");
    assert!(group.apply(4, report(b, 1, 0, 2..5)).is_empty(), "who is out is not even answered here");
    assert_eq!(group.committed(), 0);
}

#[test]
fn a_repeated_report_gets_the_same_answer_and_commits_once() {
    let (mut group, a, b) = two();
    group.apply(1, report(a, 1, 0, 0..2));
    group.apply(2, report(b, 1, 0, 2..5));
    assert_eq!(group.committed(), 1);
    let again = group.apply(3, report(b, 1, 0, 2..5));
    assert!(matches!(again[..], [Decision::Answer { verdict: Verdict::Committed { regroup: false, .. }, .. }]), "{again:?}");
    assert_eq!(group.committed(), 1);
}

#[test]
fn a_report_over_the_wrong_micro_batches_ends_the_generation() {
    let (mut group, a, _) = two();
    let decisions = group.apply(1, report(a, 1, 0, 0..3));
    let Some(Decision::Over { reason, .. }) = decisions.first() else { panic!("{decisions:?}") };
    assert_eq!(reason, "replica a: reported micro-batches [0, 1, 2], expected [0, 1]");
}

#[test]
fn a_joiner_is_let_in_at_the_next_step_and_gets_the_state_from_a_peer() {
    let (mut group, a, b) = two();
    let c = group.join(1, identity("c"));
    group.apply(1, Event::Ready { member: c, after: 0, have: None });
    group.apply(2, report(a, 1, 0, 0..2));
    let committed = group.apply(3, report(b, 1, 0, 2..5));
    assert!(
        committed.iter().any(|decision| matches!(decision, Decision::Answer { verdict: Verdict::Committed { regroup: true, .. }, .. }))
    );
    group.apply(4, Event::Ready { member: a, after: 1, have: Some(1) });
    let formed = group.apply(5, Event::Ready { member: b, after: 1, have: Some(1) });
    let restores: Vec<Restore> = formed
        .iter()
        .filter_map(|decision| match decision {
            Decision::Next { next: Next::Train { assignment }, .. } => Some(assignment.restore),
            _ => None,
        })
        .collect();
    assert_eq!(restores, [Restore::Current, Restore::Current, Restore::Peer { rank: 0 }]);
}

#[test]
fn a_coordinator_that_was_frozen_itself_blames_nobody() {
    let (mut group, ..) = two();
    group.apply(20, Event::Tick);
    assert!(group.apply(60_000, Event::Tick).is_empty());
    assert_eq!(group.members(60_000).count(), 2);
}

#[test]
fn endless_failure_is_given_up_with_its_reason() {
    let (mut group, a, b) = two();
    let mut stuck = None;
    for generation in 1..=MAX_FRUITLESS_GENERATIONS as u64 {
        group.apply(1, Event::Failed { member: a, generation, reason: "no route to host".to_owned() });
        group.apply(1, Event::Ready { member: a, after: generation, have: None });
        stuck = group.apply(1, Event::Ready { member: b, after: generation, have: None }).pop();
    }
    let Some(Decision::Stuck { reason }) = stuck else { panic!("{stuck:?}") };
    assert!(reason.contains("no route to host"), "{reason}");
}

/// Commits all steps; the answer tells `a` to write the last checkpoint.
fn all_committed() -> (Group, u64, u64) {
    let (mut group, a, b) = two();
    for step in 0..STEPS {
        group.apply(1, report(a, 1, step, 0..2));
        group.apply(1, report(b, 1, step, 2..5));
    }
    assert_eq!(group.committed(), STEPS);
    (group, a, b)
}

fn writer(decisions: &[Decision]) -> Option<u64> {
    decisions.iter().find_map(|decision| match decision {
        Decision::Next { member, next: Next::Train { assignment } } if assignment.checkpoint => Some(*member),
        _ => None,
    })
}

#[test]
fn if_the_writer_of_the_last_checkpoint_dies_another_one_writes_it() {
    let (mut group, a, b) = all_committed();
    let c = group.join(2, identity("c"));
    group.apply(2, Event::Ready { member: c, after: 0, have: None });
    group.apply(2, Event::Ready { member: b, after: 1, have: Some(STEPS) });
    assert!(!group.is_done());
    let formed = group.apply(3, Event::Disconnected { member: a });
    assert_eq!(writer(&formed), Some(b), "{formed:?}");
    // Who waits does not end the generation of the one who writes.
    assert!(group.apply(4, Event::Ready { member: c, after: 2, have: Some(STEPS) }).is_empty());
    let done = group.apply(5, Event::Published { step: STEPS });
    assert!(matches!(done[0], Decision::Done) && group.is_done());
}

#[test]
fn a_writer_that_gives_up_is_asked_again() {
    let (mut group, a, b) = all_committed();
    group.apply(2, Event::Ready { member: b, after: 1, have: Some(STEPS) });
    let formed = group.apply(3, Event::Ready { member: a, after: 1, have: Some(STEPS) });
    assert_eq!((writer(&formed), group.running()), (Some(a), Some(2)));
    group.apply(4, Event::Ready { member: b, after: 2, have: Some(STEPS) });
    let again = group.apply(5, Event::Ready { member: a, after: 2, have: Some(STEPS) });
    assert_eq!((writer(&again), group.running()), (Some(a), Some(3)));
}
