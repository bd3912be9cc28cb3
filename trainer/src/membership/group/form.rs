//! How a generation is formed: who takes part, from which state, with which micro-batches.

use std::collections::{BTreeMap, BTreeSet};

use forebay_schemas::wire::{Assignment, Identity, Mark, Next, Restore, Salvage};

use super::deal::deal;
use super::{Decision, Generation, Group, MAX_FRUITLESS_GENERATIONS, Phase, Readiness, Seat, TAKE_OVER_MS};

impl Group {
    /// Forms a generation if all that it waits for are there.
    pub(super) fn form(&mut self, now_ms: u64, decisions: &mut Vec<Decision>) {
        let Phase::Gathering { survivors, .. } = &self.phase else { return };
        let waits = |(&number, member): (&u64, &super::Member)| Some((number, member.ready.clone()?));
        let mut ready: Vec<(u64, Readiness)> = self.members.iter().filter_map(waits).collect();
        let awaited: Vec<_> = survivors.iter().filter_map(|number| self.members.get(number)).collect();
        let gathered = if awaited.is_empty() {
            let first_ms = ready.iter().map(|(_, ready)| ready.since_ms).min();
            let without_state = self.takes_over && ready.iter().all(|(_, ready)| ready.have.is_none());
            let gather_ms = if without_state { self.settings.gather_ms.max(TAKE_OVER_MS) } else { self.settings.gather_ms };
            ready.len() >= self.settings.expected.max(1) || first_ms.is_some_and(|first| now_ms >= first + gather_ms)
        } else {
            awaited.iter().all(|member| member.ready.is_some())
        };
        if !gathered {
            return;
        }
        let states = ready.iter().filter_map(|(_, ready)| ready.have).chain(self.checkpoint);
        let base = states.max_by_key(|state| state.step).unwrap_or_default();
        // Those who have the state first: rank 0 sends it and writes checkpoints.
        ready.sort_by_key(|(number, ready)| (ready.have != Some(base), *number));
        let apart = self.set_apart(&mut ready);
        if ready.len() < self.settings.min_replicas.max(1) {
            return;
        }
        self.suspect(&apart, &ready, decisions);
        if self.fruitless >= MAX_FRUITLESS_GENERATIONS {
            let reason = format!("{} generations in a row committed no step; the last ended because: {}", self.fruitless, self.reason);
            decisions.push(Decision::Stuck { reason });
            return;
        }
        let mut reason = self.reason.clone();
        if !apart.is_empty() {
            let names: Vec<String> = apart.iter().map(|&number| self.name(number)).collect();
            reason = format!("{reason}; without {}: no connection to all of the others", names.join(", "));
        }
        if base.step < self.state.step {
            reason = format!("{reason}; the state after step {} is lost, back to step {}", self.state.step, base.step);
        }
        self.state = base;
        self.takes_over = false;
        self.generation += 1;
        self.line.begin(self.generation, base.step);
        self.fruitless += 1;
        let seats = self.seat(base, &ready);
        for (number, _) in &ready {
            if let Some(member) = self.members.get_mut(number) {
                (member.ready, member.diverged) = (None, false);
            }
        }
        let names = seats.first().map(|seat| seat.assignment.members.iter().map(|identity| identity.name.clone()).collect());
        decisions.push(Decision::Formed { generation: self.generation, members: names.unwrap_or_default(), step: base.step, reason });
        let train = |seat: &Seat| Decision::Next { member: seat.member, next: Next::Train { assignment: seat.assignment.clone() } };
        decisions.extend(seats.iter().map(train));
        self.phase = Phase::Running(Generation { seats, step: base.step, reports: BTreeMap::new(), redealt_at: base.step });
    }

    fn seat(&self, base: Mark, ready: &[(u64, Readiness)]) -> Vec<Seat> {
        let members: Vec<_> = ready.iter().filter_map(|(number, _)| self.members.get(number)).collect();
        let identities: Vec<Identity> = members.iter().map(|member| member.identity.clone()).collect();
        let paces: Vec<Option<f64>> = members.iter().map(|member| member.pace).collect();
        let has = |readiness: &Readiness| readiness.have == Some(base);
        let source = ready.iter().any(|(_, readiness)| has(readiness)).then_some(0);
        let transfer = source.is_some() && !ready.iter().all(|(_, readiness)| has(readiness));
        let due = self.checkpoint.is_none_or(|checkpoint| checkpoint.step < base.step)
            && base.step > 0
            && (base.step.is_multiple_of(self.settings.every_steps) || base.step == self.settings.steps);
        let all: Vec<u32> = (0..self.settings.micro_batches).collect();
        let split = deal(&all, &paces);
        let salvage = self.salvage(base, ready, &paces);
        let place = |(rank, (number, readiness)): (usize, &(u64, Readiness))| {
            let restore = match source {
                _ if has(readiness) => Restore::Current,
                Some(rank) => Restore::Peer { rank },
                None if base.step > 0 => Restore::Checkpoint { step: base.step },
                None => Restore::Fresh,
            };
            let salvage = salvage.as_ref().map(|salvage| salvage[rank].clone());
            let mut first = salvage.as_ref().map_or_else(|| split[rank].clone(), |first| [&first.keep[..], &first.compute].concat());
            first.sort_unstable();
            let computes = salvage.as_ref().map_or(first.len(), |first| first.compute.len());
            let assignment = Assignment {
                generation: self.generation,
                rank: rank as u32,
                members: identities.clone(),
                state: base,
                restore,
                source,
                transfer,
                micro_batches: split[rank].clone(),
                salvage,
                checkpoint: due && rank == 0,
            };
            Seat { member: *number, turn: members[rank].turn, assignment, due: first, computes }
        };
        ready.iter().enumerate().map(place).collect()
    }

    /// What each rank keeps of the next step and what it computes of the rest; none if nobody has any gradient of it.
    ///
    /// Gradients count if they were computed on the state that the generation begins with. The members' are disjoint, since
    /// a micro-batch is dealt again only when nobody who has it is left; where they are not, the lower rank's count.
    fn salvage(&self, base: Mark, ready: &[(u64, Readiness)], paces: &[Option<f64>]) -> Option<Vec<Salvage>> {
        let mut kept: BTreeSet<u32> = BTreeSet::new();
        let mut keep = |(_, readiness): &(u64, Readiness)| {
            let held: BTreeSet<u32> = readiness.held.iter().copied().collect();
            let counts = readiness.have == Some(base)
                && base.step < self.settings.steps
                && held.len() == readiness.held.len()
                && held.iter().all(|&index| index < self.settings.micro_batches && !kept.contains(&index));
            if counts {
                kept.extend(&held);
            }
            if counts { held.into_iter().collect() } else { Vec::new() }
        };
        let keeps: Vec<Vec<u32>> = ready.iter().map(&mut keep).collect();
        if kept.is_empty() {
            return None;
        }
        let missing: Vec<u32> = (0..self.settings.micro_batches).filter(|index| !kept.contains(index)).collect();
        let computes = deal(&missing, paces);
        Some(keeps.into_iter().zip(computes).map(|(keep, compute)| Salvage { keep, compute }).collect())
    }
}
