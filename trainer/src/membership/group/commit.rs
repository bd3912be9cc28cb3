//! How a step is committed: all reports are in, each micro-batch is there once, and all members agree on the state.

use std::collections::BTreeMap;

use forebay_schemas::Digest;
use forebay_schemas::wire::{Finish, Mark, Verdict};

use super::deal::redeal;
use super::{Answered, Commit, Decision, Group, Phase, Seat};

/// Weight of the newest step in the average pace of a member.
const NEWEST: f64 = 0.3;

/// A new split must prove itself for so many steps before the next one.
const STEPS_BETWEEN_SPLITS: u64 = 5;

impl Group {
    pub(super) fn finished(&mut self, now_ms: u64, finish: Finish, decisions: &mut Vec<Decision>) {
        let member = finish.member;
        if let Some(answered) = &self.answered
            && (answered.generation, answered.step) == (finish.generation, finish.step)
            && let Some(verdict) = answered.verdicts.get(&member)
        {
            decisions.push(Decision::Answer { member, verdict: verdict.clone() });
            return;
        }
        let expected = match &self.phase {
            Phase::Running(running) if self.generation == finish.generation && running.step == finish.step => {
                self.running_seat(member).map(|seat| seat.due.clone())
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
            if running.reports.len() == running.seats.len() && self.agree(now_ms, decisions) {
                self.commit(now_ms, decisions);
            }
        }
    }

    /// Whether all reports are of the same state. If not, whoever is not of the majority loses its state; where there is no
    /// majority nobody's can be trusted.
    fn agree(&mut self, now_ms: u64, decisions: &mut Vec<Decision>) -> bool {
        let Phase::Running(running) = &self.phase else { return false };
        let mut votes: BTreeMap<Digest, usize> = BTreeMap::new();
        running.reports.values().for_each(|report| *votes.entry(report.state).or_default() += 1);
        if votes.len() < 2 {
            return true;
        }
        let world = running.reports.len();
        let majority = votes.into_iter().find(|(_, count)| 2 * count > world).map(|(digest, _)| digest);
        let wrong = |report: &&Finish| majority.is_none_or(|digest| digest != report.state);
        let diverged: Vec<(u64, Digest)> = running.reports.values().filter(wrong).map(|report| (report.member, report.state)).collect();
        for &(number, state) in &diverged {
            if let Phase::Running(running) = &mut self.phase {
                running.reports.remove(&number);
            }
            let Some(member) = self.members.get_mut(&number) else { continue };
            member.diverged = true;
            let detail = match majority {
                Some(digest) => format!("its state has digest {}, that of the others {}", state.short(), digest.short()),
                None => format!("its state has digest {}, and no majority has the same", state.short()),
            };
            decisions.push(Decision::Diverged { member: number, identity: member.identity.clone(), detail });
            decisions.push(Decision::Answer { member: number, verdict: Verdict::Diverged });
        }
        let names: Vec<String> = diverged.iter().map(|(number, _)| self.name(*number)).collect();
        self.end_generation(now_ms, format!("replica {}: another state than the others", names.join(", ")), decisions);
        false
    }

    fn commit(&mut self, now_ms: u64, decisions: &mut Vec<Decision>) {
        let Phase::Running(running) = &mut self.phase else { return };
        let reports = std::mem::take(&mut running.reports);
        let commit = Commit::of(self.generation, running.step, &reports);
        running.step += 1;
        self.state = Mark { step: running.step, generation: self.generation };
        self.fruitless = 0;
        let seated: Vec<u64> = running.members().collect();
        let last = self.state.step == self.settings.steps;
        let joiner = self.members.iter().find(|(number, member)| !seated.contains(number) && self.can_join(&seated, member));
        let regroup = last || joiner.is_some();
        let reason = joiner.map_or("all steps are committed".to_owned(), |(_, member)| format!("replica {} joins", member.identity.name));
        let due = last || self.state.step.is_multiple_of(self.settings.every_steps);
        self.measure(&reports);
        let split = if regroup { None } else { self.next_split() };
        let Phase::Running(running) = &self.phase else { return };
        let verdict = |(rank, seat): (usize, &Seat)| {
            let micro_batches = split.as_ref().map(|split| split[rank].clone());
            (seat.member, Verdict::Committed { regroup, checkpoint: due && rank == 0, micro_batches })
        };
        let verdicts: BTreeMap<u64, Verdict> = running.seats.iter().enumerate().map(verdict).collect();
        // The members wait for nothing but their answers.
        decisions.extend(verdicts.iter().map(|(&member, verdict)| Decision::Answer { member, verdict: verdict.clone() }));
        decisions.push(Decision::Committed(commit));
        self.answered = Some(Answered { generation: self.generation, step: self.state.step - 1, verdicts });
        if regroup {
            self.reason = reason;
            self.phase = Phase::Gathering { survivors: seated, since_ms: now_ms };
        }
    }

    /// Takes the pace of every member from its report.
    fn measure(&mut self, reports: &BTreeMap<u64, Finish>) {
        let Phase::Running(running) = &self.phase else { return };
        for seat in &running.seats {
            let (Some(report), Some(member)) = (reports.get(&seat.member), self.members.get_mut(&seat.member)) else { continue };
            let seconds = (report.timings.data + report.timings.compute) / seat.computes.max(1) as f64;
            if seat.computes > 0 && seconds.is_finite() && seconds > 0.0 {
                member.pace = Some(member.pace.map_or(seconds, |pace| pace + NEWEST * (seconds - pace)));
            }
        }
    }

    /// The micro-batches of each rank from the next step on, if a change is worthwhile. The first step of a generation may have
    /// had a split of its own; afterwards the seats hold what their assignments say.
    fn next_split(&mut self) -> Option<Vec<Vec<u32>>> {
        let Phase::Running(running) = &mut self.phase else { return None };
        for seat in &mut running.seats {
            if seat.assignment.salvage.take().is_some() {
                seat.due = seat.assignment.micro_batches.clone();
                seat.computes = seat.due.len();
            }
        }
        if running.step < running.redealt_at + STEPS_BETWEEN_SPLITS {
            return None;
        }
        let pace = |seat: &Seat| self.members.get(&seat.member).and_then(|member| member.pace);
        let paces: Vec<Option<f64>> = running.seats.iter().map(pace).collect();
        let present: Vec<usize> = running.seats.iter().map(|seat| seat.due.len()).collect();
        let all: Vec<u32> = (0..self.settings.micro_batches).collect();
        let split = redeal(&all, &paces, &present)?;
        for (seat, micro_batches) in running.seats.iter_mut().zip(&split) {
            seat.due.clone_from(micro_batches);
            seat.computes = micro_batches.len();
        }
        running.redealt_at = running.step;
        Some(split)
    }
}
