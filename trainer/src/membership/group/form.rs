//! How a generation is formed: who takes part, from which state, with which micro-batches.

use std::collections::BTreeMap;

use forebay_schemas::wire::{Assignment, Identity, Next, Restore};

use super::{Decision, Generation, Group, MAX_FRUITLESS_GENERATIONS, Phase, Readiness};
use crate::membership::share::share;

impl Group {
    /// Forms a generation if all that it waits for are there.
    pub(super) fn form(&mut self, now_ms: u64, decisions: &mut Vec<Decision>) {
        let Phase::Gathering { survivors, .. } = &self.phase else { return };
        let mut ready: Vec<(u64, Readiness)> = self.members.iter().filter_map(|(&number, member)| Some((number, member.ready?))).collect();
        let awaited: Vec<_> = survivors.iter().filter_map(|number| self.members.get(number)).collect();
        let gathered = if awaited.is_empty() {
            let first_ms = ready.iter().map(|(_, ready)| ready.since_ms).min();
            ready.len() >= self.settings.expected.max(1) || first_ms.is_some_and(|first| now_ms >= first + self.settings.gather_ms)
        } else {
            awaited.iter().all(|member| member.ready.is_some())
        };
        if !gathered || ready.len() < self.settings.min_replicas.max(1) {
            return;
        }
        if self.fruitless >= MAX_FRUITLESS_GENERATIONS {
            let reason = format!("{} generations in a row committed no step; the last ended because: {}", self.fruitless, self.reason);
            decisions.push(Decision::Stuck { reason });
            return;
        }
        let base = ready.iter().filter_map(|(_, ready)| ready.have).chain([self.checkpoint.unwrap_or(0)]).max().unwrap_or(0);
        let mut reason = self.reason.clone();
        if base < self.committed {
            reason = format!("{reason}; the state after step {} is lost, back to step {base}", self.committed);
        }
        self.committed = base;
        self.generation += 1;
        self.fruitless += 1;
        // Those who have the state first: rank 0 sends it and writes checkpoints.
        ready.sort_by_key(|(number, ready)| (ready.have != Some(base), *number));
        let members = self.assign(base, &ready);
        for (number, _) in &ready {
            if let Some(member) = self.members.get_mut(number) {
                member.ready = None;
            }
        }
        let names = members.first().map(|(_, assignment)| assignment.members.iter().map(|identity| identity.name.clone()).collect());
        decisions.push(Decision::Formed { generation: self.generation, members: names.unwrap_or_default(), step: base, reason });
        let train = |(member, assignment): &(u64, Assignment)| {
            let next = Next::Train { assignment: assignment.clone() };
            Decision::Next { member: *member, next }
        };
        decisions.extend(members.iter().map(train));
        self.phase = Phase::Running(Generation { members, step: base, reports: BTreeMap::new() });
    }

    fn assign(&self, base: u64, ready: &[(u64, Readiness)]) -> Vec<(u64, Assignment)> {
        let world = ready.len() as u32;
        let identities: Vec<Identity> =
            ready.iter().filter_map(|(number, _)| self.members.get(number)).map(|member| member.identity.clone()).collect();
        let has = |readiness: &Readiness| readiness.have == Some(base);
        let source = ready.iter().any(|(_, readiness)| has(readiness)).then_some(0);
        let transfer = source.is_some() && !ready.iter().all(|(_, readiness)| has(readiness));
        let due = base > 0
            && self.checkpoint.is_none_or(|checkpoint| checkpoint < base)
            && (base.is_multiple_of(self.settings.every_steps) || base == self.settings.steps);
        let place = |(rank, (number, readiness)): (u32, &(u64, Readiness))| {
            let restore = match source {
                _ if has(readiness) => Restore::Current,
                Some(rank) => Restore::Peer { rank },
                None if base > 0 => Restore::Checkpoint { step: base },
                None => Restore::Fresh,
            };
            let assignment = Assignment {
                generation: self.generation,
                rank,
                members: identities.clone(),
                step: base,
                restore,
                source,
                transfer,
                micro_batches: share(rank, world, self.settings.micro_batches).collect(),
                checkpoint: due && rank == 0,
            };
            (*number, assignment)
        };
        (0..world).zip(ready).map(place).collect()
    }
}
