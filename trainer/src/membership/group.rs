//! The membership as a pure state machine: events in, decisions out; no I/O, time is an argument.
//!
//! Promises: a generation number is used once; step N commits once and after step N-1, only when every member of the
//! current generation has reported it; whoever is not in the current generation changes nothing.
//! One exception is inherent: when everybody who had the state is gone, the run falls back to the newest state that is
//! left (a survivor's or the published checkpoint's), and later steps are computed and committed anew.
//! Deliberately absent: any answer to a failure but "end the generation": no step is repaired.

use std::collections::BTreeMap;

use forebay_schemas::wire::{Assignment, Finish, Identity, Next, Verdict};

pub use self::events::{Cause, Commit, Decision, Event};

mod events;
mod form;

/// So many generations in a row that commit nothing end the run: something is wrong that no regrouping mends.
const MAX_FRUITLESS_GENERATIONS: u32 = 20;

/// A survivor that does not come to the next generation within so many leases is put out, alive or not.
const REGROUP_LEASES: u64 = 60;

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

#[derive(Debug)]
struct Member {
    identity: Identity,
    seen_ms: u64,
    ready: Option<Readiness>,
}

#[derive(Clone, Copy, Debug)]
struct Readiness {
    since_ms: u64,
    have: Option<u64>,
}

#[derive(Debug)]
struct Generation {
    // By rank.
    members: Vec<(u64, Assignment)>,
    step: u64,
    reports: BTreeMap<u64, Finish>,
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

/// The state.
#[derive(Debug)]
pub struct Group {
    settings: Settings,
    members: BTreeMap<u64, Member>,
    next_member: u64,
    generation: u64,
    committed: u64,
    checkpoint: Option<u64>,
    last_commit: Option<(u64, u64, BTreeMap<u64, Verdict>)>,
    phase: Phase,
    reason: String,
    fruitless: u32,
    ticked_ms: u64,
}

impl Group {
    /// A group whose first generation is `first_generation`, over a run whose newest checkpoint is that of step `checkpoint`.
    pub fn new(settings: Settings, first_generation: u64, checkpoint: Option<u64>) -> Self {
        let done = checkpoint.is_some_and(|step| step >= settings.steps);
        Self {
            settings,
            members: BTreeMap::new(),
            // Members of an earlier coordinator must not be taken for ours.
            next_member: (first_generation << 20) + 1,
            generation: first_generation.saturating_sub(1),
            committed: checkpoint.unwrap_or(0),
            checkpoint,
            last_commit: None,
            phase: if done { Phase::Done } else { Phase::Gathering { survivors: Vec::new(), since_ms: 0 } },
            reason: "the run begins".to_owned(),
            fruitless: 0,
            ticked_ms: 0,
        }
    }

    /// Lets a replica in; it takes part from the next generation after it is ready.
    pub fn join(&mut self, now_ms: u64, identity: Identity) -> u64 {
        let member = self.next_member;
        self.next_member += 1;
        self.members.insert(member, Member { identity, seen_ms: now_ms, ready: None });
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

    /// Committed steps.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Step of the newest published checkpoint.
    pub fn checkpoint(&self) -> Option<u64> {
        self.checkpoint
    }

    /// Whether all steps are committed and the last checkpoint is published.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Who is in: number, identity, rank in the running generation, time since its last sign of life.
    pub fn members(&self, now_ms: u64) -> impl Iterator<Item = (u64, &Identity, Option<u32>, u64)> {
        self.members.iter().map(move |(&number, member)| {
            let rank = match &self.phase {
                Phase::Running(generation) => generation.rank(number),
                _ => None,
            };
            (number, &member.identity, rank, now_ms.saturating_sub(member.seen_ms))
        })
    }

    /// Whether this stay goes on.
    pub fn is_member(&self, member: u64) -> bool {
        self.members.contains_key(&member)
    }

    fn observe(&mut self, now_ms: u64, event: Event, decisions: &mut Vec<Decision>) {
        let from = match &event {
            Event::Renewed { member } | Event::Ready { member, .. } | Event::Failed { member, .. } => Some(*member),
            Event::Left { member } | Event::Disconnected { member } => Some(*member),
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
            Event::Ready { member, after, have } => self.ready(now_ms, member, after, have, decisions),
            Event::Finished(finish) => self.finished(now_ms, finish, decisions),
            Event::Failed { member, generation, reason } => {
                if self.running() == Some(generation) && self.is_current(member) {
                    let reason = format!("replica {}: {reason}", self.name(member));
                    self.end_generation(now_ms, reason, decisions);
                }
            }
            Event::Left { member } => self.lose(now_ms, member, Cause::Left, "it left".to_owned(), decisions),
            Event::Disconnected { member } => {
                self.lose(now_ms, member, Cause::Disconnected, "its connection ended".to_owned(), decisions);
            }
            Event::Published { step } => {
                self.checkpoint = self.checkpoint.max(Some(step));
                if step >= self.settings.steps && !self.is_done() {
                    self.phase = Phase::Done;
                    decisions.push(Decision::Done);
                    decisions.extend(self.members.keys().map(|&member| Decision::Next { member, next: Next::Done }));
                }
            }
            Event::Tick => self.tick(now_ms, decisions),
        }
    }

    fn ready(&mut self, now_ms: u64, member: u64, after: u64, have: Option<u64>, decisions: &mut Vec<Decision>) {
        let current = match &self.phase {
            Phase::Done => {
                decisions.push(Decision::Next { member, next: Next::Done });
                return;
            }
            Phase::Gathering { .. } => None,
            Phase::Running(generation) => generation.rank(member).map(|rank| generation.members[rank as usize].1.clone()),
        };
        match current {
            // The answer with its assignment was lost on the way.
            Some(assignment) if assignment.generation > after => {
                decisions.push(Decision::Next { member, next: Next::Train { assignment } });
                return;
            }
            Some(_) if self.committed < self.settings.steps => {
                let reason = format!("replica {} has done with generation {}", self.name(member), self.generation);
                self.end_generation(now_ms, reason, decisions);
            }
            Some(_) | None => {}
        }
        // More than was committed is no state of this run.
        let have = have.filter(|&steps| steps <= self.committed);
        if let Some(member) = self.members.get_mut(&member) {
            let since_ms = member.ready.map_or(now_ms, |ready| ready.since_ms);
            member.ready = Some(Readiness { since_ms, have });
        }
        self.give_up_last_checkpoint(now_ms);
    }

    /// A generation with nothing left to compute has one member write the last checkpoint while the others wait. If it
    /// waits as well, it has failed, and another one tries.
    fn give_up_last_checkpoint(&mut self, now_ms: u64) {
        let Phase::Running(running) = &self.phase else { return };
        let waits = |number: &u64| self.members.get(number).is_some_and(|member| member.ready.is_some());
        if running.step == self.settings.steps && running.members.iter().all(|(number, _)| waits(number)) {
            self.reason = "the last checkpoint was not published".to_owned();
            let survivors = running.members.iter().map(|(member, _)| *member).collect();
            self.phase = Phase::Gathering { survivors, since_ms: now_ms };
        }
    }

    fn finished(&mut self, now_ms: u64, finish: Finish, decisions: &mut Vec<Decision>) {
        let member = finish.member;
        if let Some((generation, step, verdicts)) = &self.last_commit
            && (*generation, *step) == (finish.generation, finish.step)
            && let Some(&verdict) = verdicts.get(&member)
        {
            decisions.push(Decision::Answer { member, verdict });
            return;
        }
        let expected = match &self.phase {
            Phase::Running(running) if self.generation == finish.generation && running.step == finish.step => {
                running.rank(member).map(|rank| running.members[rank as usize].1.micro_batches.clone())
            }
            _ => None,
        };
        let Some(expected) = expected else {
            decisions.push(Decision::Answer { member, verdict: Verdict::Retry });
            return;
        };
        let found: Vec<u32> = finish.micro_batches.iter().map(|report| report.index).collect();
        if found != expected {
            let reason = format!("replica {}: reported micro-batches {found:?}, expected {expected:?}", self.name(member));
            self.end_generation(now_ms, reason, decisions);
            decisions.push(Decision::Answer { member, verdict: Verdict::Retry });
            return;
        }
        if let Phase::Running(running) = &mut self.phase {
            running.reports.insert(member, finish);
            if running.reports.len() == running.members.len() {
                self.commit(now_ms, decisions);
            }
        }
    }

    fn commit(&mut self, now_ms: u64, decisions: &mut Vec<Decision>) {
        let Phase::Running(running) = &mut self.phase else { return };
        let reports = std::mem::take(&mut running.reports);
        let commit = Commit::of(self.generation, running.step, &reports);
        running.step += 1;
        self.committed = running.step;
        self.fruitless = 0;
        let last = self.committed == self.settings.steps;
        let joiner = self.members.iter().find(|(number, member)| member.ready.is_some() && running.rank(**number).is_none());
        let regroup = last || joiner.is_some();
        let due = last || self.committed.is_multiple_of(self.settings.every_steps);
        let verdicts: BTreeMap<u64, Verdict> = running
            .members
            .iter()
            .map(|(member, assignment)| (*member, Verdict::Committed { regroup, checkpoint: due && assignment.rank == 0 }))
            .collect();
        decisions.push(Decision::Committed(commit));
        decisions.extend(verdicts.iter().map(|(&member, &verdict)| Decision::Answer { member, verdict }));
        self.last_commit = Some((self.generation, self.committed - 1, verdicts));
        if regroup {
            self.reason =
                joiner.map_or("all steps are committed".to_owned(), |(_, member)| format!("replica {} joins", member.identity.name));
            let survivors = running.members.iter().map(|(member, _)| *member).collect();
            self.phase = Phase::Gathering { survivors, since_ms: now_ms };
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
            && self.committed < self.settings.steps
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
        let current = self.is_current(number);
        let Some(member) = self.members.remove(&number) else { return };
        let reason = format!("replica {}: {detail}", member.identity.name);
        decisions.push(Decision::Lost { member: number, identity: member.identity, cause, detail });
        if current {
            self.end_generation(now_ms, reason, decisions);
        }
    }

    fn end_generation(&mut self, now_ms: u64, reason: String, decisions: &mut Vec<Decision>) {
        let Phase::Running(running) = &self.phase else { return };
        let survivors: Vec<u64> =
            running.members.iter().map(|(member, _)| *member).filter(|member| self.members.contains_key(member)).collect();
        // Reports that were waiting for the others are answered: nobody applies this step.
        let retry = |member: &u64| Decision::Answer { member: *member, verdict: Verdict::Retry };
        decisions.push(Decision::Over { generation: self.generation, members: survivors.clone(), reason: reason.clone() });
        decisions.extend(running.reports.keys().filter(|member| self.members.contains_key(member)).map(retry));
        self.reason = reason;
        self.phase = Phase::Gathering { survivors, since_ms: now_ms };
    }

    fn is_current(&self, member: u64) -> bool {
        matches!(&self.phase, Phase::Running(running) if running.rank(member).is_some())
    }

    fn name(&self, member: u64) -> String {
        self.members.get(&member).map_or_else(|| member.to_string(), |member| member.identity.name.clone())
    }
}

impl Generation {
    fn rank(&self, member: u64) -> Option<u32> {
        self.members.iter().find(|(number, _)| *number == member).map(|(_, assignment)| assignment.rank)
    }
}

#[cfg(test)]
mod tests;
