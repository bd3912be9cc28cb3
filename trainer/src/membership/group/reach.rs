//! Who can be in one generation: members between which no line is cut, by what they found when they knocked at each other's
//! doors. The coordinator may reach two replicas that do not reach each other.
//!
//! Promises: of those who stay everybody reaches everybody; who brings the newest state goes last, so that no committed step
//! is lost to a cut line; who was left out comes back only after it has knocked at the doors in question itself.
//! Deliberately absent: the best choice; the largest set without a cut is a hard problem, and a few replicas in the way are
//! found as well one by one.

use forebay_schemas::wire::Next;

use super::{Decision, Group, Member, Readiness};

impl Group {
    /// Takes those out between whom and others a line is cut, and says who they are. `ready` is sorted by who stays rather.
    pub(super) fn set_apart(&self, ready: &mut Vec<(u64, Readiness)>) -> Vec<u64> {
        let mut apart = Vec::new();
        // As nearly always: then nobody has to be compared with everybody.
        if ready.iter().all(|(_, readiness)| readiness.unreached.is_empty()) {
            return apart;
        }
        loop {
            let cuts = |number: u64| ready.iter().filter(|(other, _)| self.is_cut(number, *other)).count();
            // The states are compared first: of those with a cut line, whoever lacks the newest goes, then who has most of them.
            let newest = ready.first().and_then(|(_, readiness)| readiness.have);
            let key = |place: usize| {
                let (number, readiness) = &ready[place];
                (readiness.have != newest, cuts(*number), place)
            };
            let Some(out) = (0..ready.len()).filter(|&place| cuts(ready[place].0) > 0).max_by_key(|&place| key(place)) else {
                return apart;
            };
            apart.push(ready.remove(out).0);
        }
    }

    /// Has those who are left out knock where a line may be cut, whichever side found it.
    pub(super) fn suspect(&mut self, apart: &[u64], ready: &[(u64, Readiness)], decisions: &mut Vec<Decision>) {
        for &number in apart {
            let cut = ready.iter().filter(|(other, _)| self.is_cut(number, *other));
            let doors: Vec<String> = cut.filter_map(|(other, _)| Some(self.members.get(other)?.identity.door.clone())).collect();
            let Some(member) = self.members.get_mut(&number) else { continue };
            member.ready = None;
            member.suspected.clone_from(&doors);
            decisions.push(Decision::Next { member: number, next: Next::Knock { doors } });
        }
    }

    /// Whether a member that asks has knocked where it is to; if not, it is told.
    pub(super) fn has_knocked(&mut self, number: u64, reached: &[String], unreached: &[String], decisions: &mut Vec<Decision>) -> bool {
        let present: Vec<String> = self.members.values().map(|member| member.identity.door.clone()).collect();
        let Some(member) = self.members.get_mut(&number) else { return false };
        // Who is gone is in nobody's way.
        member.suspected.retain(|door| present.contains(door) && !reached.contains(door));
        let doors = member.suspected.clone();
        if doors.iter().all(|door| unreached.contains(door)) {
            return true;
        }
        decisions.push(Decision::Next { member: number, next: Next::Knock { doors } });
        false
    }

    /// Whether a member that is not seated is ready, and nothing is between it and those who are.
    pub(super) fn can_join(&self, seated: &[u64], member: &Member) -> bool {
        let closed = |number: &u64| self.members.get(number).is_some_and(|other| finds_closed(member, other));
        member.ready.is_some() && !seated.iter().any(closed)
    }

    fn is_cut(&self, one: u64, other: u64) -> bool {
        // Whoever does not reach itself says nothing of the others by it.
        if one == other {
            return false;
        }
        let (Some(one), Some(other)) = (self.members.get(&one), self.members.get(&other)) else { return false };
        finds_closed(one, other) || finds_closed(other, one)
    }
}

fn finds_closed(one: &Member, other: &Member) -> bool {
    one.ready.as_ref().is_some_and(|ready| ready.unreached.contains(&other.identity.door))
}
