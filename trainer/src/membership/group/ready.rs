//! A member asks for its place: what of its claims is believed, and what its asking says of the present generation.

use forebay_schemas::wire::{Mark, Next, Ready};

use super::{Decision, Group, Phase, Readiness, Seat};

impl Group {
    pub(super) fn ready(&mut self, now_ms: u64, ready: Ready, decisions: &mut Vec<Decision>) {
        let Ready { member, turn, have, held, reached, unreached } = ready;
        let Some(asks) = self.members.get_mut(&member).filter(|member| member.turn <= turn) else { return };
        asks.turn = turn;
        if self.is_done() {
            decisions.push(Decision::Next { member, next: Next::Done });
            return;
        }
        match self.running_seat(member) {
            // The answer with its assignment was lost on the way.
            Some(seat) if seat.turn == turn => {
                decisions.push(Decision::Next { member, next: Next::Train { assignment: seat.assignment.clone() } });
                return;
            }
            Some(_) if self.state.step < self.settings.steps => {
                let reason = format!("replica {} has done with generation {}", self.name(member), self.generation);
                self.end_generation(now_ms, reason, decisions);
            }
            Some(_) | None => {}
        }
        if !self.has_knocked(member, &reached, &unreached, decisions) {
            return;
        }
        let have = have.filter(|&state| self.is_of_the_run(state));
        if let Some(member) = self.members.get_mut(&member) {
            let since_ms = member.ready.as_ref().map_or(now_ms, |ready| ready.since_ms);
            let have = have.filter(|_| !member.diverged);
            member.ready = Some(Readiness { since_ms, have, held, unreached });
        }
        self.give_up_last_checkpoint(now_ms);
    }

    /// Whether this state belongs to the history of the run, as far as it is known here.
    pub fn is_of_the_run(&self, state: Mark) -> bool {
        // What earlier coordinators committed after the last checkpoint is known to the members alone.
        let committed = state.generation < self.first_generation || state.step <= self.state.step;
        let formed = state.generation <= self.generation && state.step <= self.settings.steps;
        committed && formed && self.line.admits(state)
    }

    /// A generation with nothing left to compute has one member write the last checkpoint while the others wait. If it
    /// waits as well, it has failed, and another one tries.
    fn give_up_last_checkpoint(&mut self, now_ms: u64) {
        let Phase::Running(running) = &self.phase else { return };
        let waits = |seat: &Seat| self.members.get(&seat.member).is_some_and(|member| member.ready.is_some());
        if running.step == self.settings.steps && running.seats.iter().all(waits) {
            self.reason = "the last checkpoint was not published".to_owned();
            self.phase = Phase::Gathering { survivors: running.members().collect(), since_ms: now_ms };
        }
    }
}
