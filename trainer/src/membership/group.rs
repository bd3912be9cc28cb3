//! The membership as a pure state machine: events in, decisions out; no I/O, time is an argument.
//!
//! Promises: a generation number is used once; step N commits once and after step N-1, only when every member of the
//! current generation has reported it, each micro-batch once; whoever is not in the current generation changes nothing.
//! One exception is inherent: when everybody who had the state is gone, the run falls back to the newest state that is
//! left (a survivor's or the published checkpoint's), and later steps are computed and committed anew.
//! Deliberately absent: any answer to a failure but "end the generation": what is repaired is repaired by the next one.

use std::collections::BTreeMap;

use forebay_schemas::Digest;
use forebay_schemas::journal::JournalEntry;
use forebay_schemas::wire::{Assignment, Finish, Identity, Mark, Next, Verdict};

pub use self::deal::deal;
pub use self::events::{Cause, Commit, Decision, Event};
pub use self::line::Line;

mod commit;
mod deal;
mod events;
mod form;
mod line;
mod reach;
mod ready;

/// So many generations in a row that commit nothing end the run: something is wrong that no regrouping mends.
const MAX_FRUITLESS_GENERATIONS: u32 = 20;

/// A survivor that does not come to the next generation within so many leases is put out, alive or not.
const REGROUP_LEASES: u64 = 60;

/// A new coordinator waits so long for somebody with a state, if the run had members before: those may still be with a
/// coordinator that has not noticed that it was overtaken.
const TAKE_OVER_MS: u64 = 5_000;

/// What a group is told at its beginning.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// K: micro-batches in a step.
    pub micro_batches: u32,
    /// Steps of the run.
    pub steps: u64,
    /// A checkpoint is due every so many steps, and after the last.
    pub every_steps: u64,
    /// A generation has at least so many members.
    pub min_replicas: usize,
    /// Where nobody was before, a generation begins at once with so many members,
    pub expected: usize,
    /// or after this time.
    pub gather_ms: u64,
    /// A member that was silent for so long is out.
    pub lease_ms: u64,
}

/// What storage says of a run when a coordinator takes it up.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The last generation that may have been used.
    pub generation: u64,
    /// From where its generations began.
    pub line: Line,
    /// Members of the last of them; none if there was none.
    pub world: Option<usize>,
    /// The newest published checkpoint.
    pub checkpoint: Option<Mark>,
    /// In which order the run is fed, once a replica has said it.
    pub order: Option<Digest>,
}

impl History {
    /// Takes in the next entry of the journal.
    pub fn take(&mut self, entry: &JournalEntry) {
        let used = match entry {
            JournalEntry::Run { .. } => 0,
            JournalEntry::Order { order } => {
                self.order = Some(*order);
                0
            }
            JournalEntry::Coordinator { generation, .. } | JournalEntry::Checkpoint { generation, .. } => *generation,
            JournalEntry::Generation { generation, members, step } => {
                self.line.begin(*generation, *step);
                self.world = Some(members.len());
                *generation
            }
        };
        self.generation = self.generation.max(used);
    }
}

#[derive(Debug)]
struct Member {
    identity: Identity,
    seen_ms: u64,
    turn: u64,
    ready: Option<Readiness>,
    /// Seconds a micro-batch, a moving average.
    pace: Option<f64>,
    /// Its state was not that of the others, and it has not got theirs yet.
    diverged: bool,
    /// Doors of those who did not reach it when it was left out, until it has knocked there.
    suspected: Vec<String>,
}

/// What a member can bring into the next generation.
#[derive(Clone, Debug)]
struct Readiness {
    since_ms: u64,
    have: Option<Mark>,
    held: Vec<u32>,
    /// Doors at which it knocked in vain.
    unreached: Vec<String>,
}

#[derive(Debug)]
struct Generation {
    // By rank.
    seats: Vec<Seat>,
    step: u64,
    reports: BTreeMap<u64, Finish>,
    redealt_at: u64,
}

/// A member in a generation.
#[derive(Debug)]
struct Seat {
    member: u64,
    /// The question that the assignment answers.
    turn: u64,
    assignment: Assignment,
    /// The micro-batches that its next report must name, and how many of them it computes itself.
    due: Vec<u32>,
    computes: usize,
}

#[derive(Debug)]
enum Phase {
    /// No generation: waiting for the members of the last one, and for whoever else is ready.
    Gathering {
        survivors: Vec<u64>,
        since_ms: u64,
    },
    Running(Generation),
    Done,
}

/// The answers to the last committed step, for those who ask again.
#[derive(Debug)]
struct Answered {
    generation: u64,
    step: u64,
    verdicts: BTreeMap<u64, Verdict>,
}

/// The state.
#[derive(Debug)]
pub struct Group {
    settings: Settings,
    members: BTreeMap<u64, Member>,
    next_member: u64,
    first_generation: u64,
    /// The run had members under an earlier coordinator, and has none under this one yet.
    takes_over: bool,
    generation: u64,
    line: Line,
    state: Mark,
    checkpoint: Option<Mark>,
    answered: Option<Answered>,
    phase: Phase,
    reason: String,
    fruitless: u32,
    ticked_ms: u64,
}

impl Group {
    /// A group that goes on where `history` ends; where nobody is there, it waits for as many members as were there before.
    pub fn new(settings: Settings, history: History) -> Self {
        let History { generation, line, world, checkpoint, order: _ } = history;
        let settings = Settings { expected: world.unwrap_or(settings.expected), ..settings };
        let done = checkpoint.is_some_and(|state| state.step >= settings.steps);
        Self {
            settings,
            members: BTreeMap::new(),
            // Members of an earlier coordinator must not be taken for ours.
            next_member: ((generation + 1) << 20) + 1,
            first_generation: generation + 1,
            takes_over: world.is_some(),
            generation,
            line,
            state: checkpoint.unwrap_or_default(),
            checkpoint,
            answered: None,
            phase: if done { Phase::Done } else { Phase::Gathering { survivors: Vec::new(), since_ms: 0 } },
            reason: if generation == 0 { "the run begins" } else { "a coordinator took over" }.to_owned(),
            fruitless: 0,
            ticked_ms: 0,
        }
    }

    /// Lets a replica in; it takes part from the next generation after it is ready.
    pub fn join(&mut self, now_ms: u64, identity: Identity) -> u64 {
        let member = self.next_member;
        self.next_member += 1;
        self.members
            .insert(member, Member { identity, seen_ms: now_ms, turn: 0, ready: None, pace: None, diverged: false, suspected: Vec::new() });
        member
    }

    /// Takes in what happened and says what to do, in order.
    pub fn apply(&mut self, now_ms: u64, event: Event) -> Vec<Decision> {
        let mut decisions = Vec::new();
        self.observe(now_ms, event, &mut decisions);
        self.form(now_ms, &mut decisions);
        decisions
    }

    /// Current or last generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The generation that runs now, if one does.
    pub fn running(&self) -> Option<u64> {
        matches!(self.phase, Phase::Running(_)).then_some(self.generation)
    }

    /// The committed state.
    pub fn state(&self) -> Mark {
        self.state
    }

    /// State of the newest published checkpoint.
    pub fn checkpoint(&self) -> Option<Mark> {
        self.checkpoint
    }

    /// Whether all steps are committed and the last checkpoint is published.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Who is in: number, identity, rank in the running generation, time since its last sign of life.
    pub fn members(&self, now_ms: u64) -> impl Iterator<Item = (u64, &Identity, Option<u32>, u64)> {
        self.members.iter().map(move |(&number, member)| {
            let rank = self.running_seat(number).map(|seat| seat.assignment.rank);
            (number, &member.identity, rank, now_ms.saturating_sub(member.seen_ms))
        })
    }

    /// Whether this stay goes on.
    pub fn is_member(&self, member: u64) -> bool {
        self.members.contains_key(&member)
    }

    fn observe(&mut self, now_ms: u64, event: Event, decisions: &mut Vec<Decision>) {
        let from = match &event {
            Event::Renewed { member } | Event::Failed { member, .. } => Some(*member),
            Event::Left { member } | Event::Disconnected { member } => Some(*member),
            Event::Ready(ready) => Some(ready.member),
            Event::Finished(finish) => Some(finish.member),
            Event::Published { .. } | Event::Tick => None,
        };
        if let Some(number) = from {
            // A message of an earlier stay changes nothing.
            let Some(member) = self.members.get_mut(&number) else { return };
            member.seen_ms = now_ms;
        }
        match event {
            Event::Renewed { .. } => {}
            Event::Ready(ready) => self.ready(now_ms, ready, decisions),
            Event::Finished(finish) => self.finished(now_ms, finish, decisions),
            Event::Failed { member, generation, reason } => {
                if self.running() == Some(generation) && self.running_seat(member).is_some() {
                    let reason = format!("replica {}: {reason}", self.name(member));
                    self.end_generation(now_ms, reason, decisions);
                }
            }
            Event::Left { member } => self.lose(now_ms, member, Cause::Left, "it left".to_owned(), decisions),
            Event::Disconnected { member } => {
                self.lose(now_ms, member, Cause::Disconnected, "its connection ended".to_owned(), decisions);
            }
            Event::Published { state } => {
                if self.checkpoint.is_none_or(|checkpoint| checkpoint.step < state.step) {
                    self.checkpoint = Some(state);
                }
                if state.step >= self.settings.steps && !self.is_done() {
                    self.phase = Phase::Done;
                    decisions.push(Decision::Done);
                    decisions.extend(self.members.keys().map(|&member| Decision::Next { member, next: Next::Done }));
                }
            }
            Event::Tick => self.tick(now_ms, decisions),
        }
    }

    fn tick(&mut self, now_ms: u64, decisions: &mut Vec<Decision>) {
        let gap = now_ms.saturating_sub(self.ticked_ms);
        self.ticked_ms = now_ms;
        if gap > self.settings.lease_ms / 2 {
            // We were away ourselves (frozen, starved): nobody's silence in that time counts.
            self.members.values_mut().for_each(|member| member.seen_ms = (member.seen_ms + gap).min(now_ms));
        }
        let lease_ms = self.settings.lease_ms;
        let silent: Vec<u64> =
            self.members.iter().filter(|(_, member)| now_ms.saturating_sub(member.seen_ms) > lease_ms).map(|(&number, _)| number).collect();
        for member in silent {
            self.lose(now_ms, member, Cause::Lease, format!("silent for more than {lease_ms} ms"), decisions);
        }
        if let Phase::Gathering { survivors, since_ms } = &self.phase
            && self.state.step < self.settings.steps
            && now_ms.saturating_sub(*since_ms) > REGROUP_LEASES * lease_ms
        {
            let absent = |number: &&u64| self.members.get(number).is_some_and(|member| member.ready.is_none());
            for member in survivors.iter().filter(absent).copied().collect::<Vec<_>>() {
                let detail = format!("did not come to the next generation within {} ms", REGROUP_LEASES * lease_ms);
                self.lose(now_ms, member, Cause::Lease, detail, decisions);
            }
        }
    }

    fn lose(&mut self, now_ms: u64, number: u64, cause: Cause, detail: String, decisions: &mut Vec<Decision>) {
        let current = self.running_seat(number).is_some();
        let Some(member) = self.members.remove(&number) else { return };
        let reason = format!("replica {}: {detail}", member.identity.name);
        decisions.push(Decision::Lost { member: number, identity: member.identity, cause, detail });
        if current {
            self.end_generation(now_ms, reason, decisions);
        }
    }

    fn end_generation(&mut self, now_ms: u64, reason: String, decisions: &mut Vec<Decision>) {
        let Phase::Running(running) = &self.phase else { return };
        let survivors: Vec<u64> = running.members().filter(|member| self.members.contains_key(member)).collect();
        // Reports that were waiting for the others are answered: nobody applies this step.
        let retry = |member: &u64| Decision::Answer { member: *member, verdict: Verdict::Retry };
        decisions.push(Decision::Over { generation: self.generation, members: survivors.clone(), reason: reason.clone() });
        decisions.extend(running.reports.keys().filter(|member| self.members.contains_key(member)).map(retry));
        self.reason = reason;
        self.phase = Phase::Gathering { survivors, since_ms: now_ms };
    }

    fn running_seat(&self, member: u64) -> Option<&Seat> {
        match &self.phase {
            Phase::Running(running) => running.seats.iter().find(|seat| seat.member == member),
            Phase::Gathering { .. } | Phase::Done => None,
        }
    }

    fn name(&self, member: u64) -> String {
        self.members.get(&member).map_or_else(|| member.to_string(), |member| member.identity.name.clone())
    }
}

impl Generation {
    fn members(&self) -> impl Iterator<Item = u64> {
        self.seats.iter().map(|seat| seat.member)
    }
}

#[cfg(test)]
mod tests;
