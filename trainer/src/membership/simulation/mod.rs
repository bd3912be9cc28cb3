//! The membership under deterministic simulation: coordinators, replicas, storage and the network between them in one thread,
//! on a clock of its own, from one seed.
//!
//! The [`Service`], the group, the line and a replica's [`Progress`] are the real ones; played are what surrounds them: HTTP
//! (messages are lost, delayed, sent again), presence streams, collectives (which may succeed for some members and fail for
//! others), the journal (one winner a number, slow, with answers that get lost), processes (killed, frozen, started anew,
//! coordinators too, also while the one before still runs), clocks of different speed, links that are cut, flipped bits.
//!
//! Invariants, checked at every event by [`audit`]:
//! 1. Generations only grow and none is used twice, whichever coordinator forms them; a replica never goes back to an older one.
//! 2. In a generation steps commit once and in order. A later generation begins before a committed step only if no member
//!    that is in has the state after it.
//! 3. What a member applies holds each of the K micro-batches once, computed on the very state that it has, by members of that
//!    generation.
//! 4. All that have a state of the same mark have the same bits, through checkpoints and transfers too.
//! 5. Nothing of an old generation is written: journal entries never go back, and a coordinator that was overtaken writes none.
//! 6. Gradients of survivors count: a micro-batch is computed again only if nobody who takes part has it.
//! 7. When the faults stop, the run ends, at its last step.

use super::*;

mod audit;
mod coordinator;
mod replica;
mod world;

use world::World;

/// Events that `cargo test` simulates; more with `FOREBAY_SIMULATION_EVENTS`, elsewhere with `FOREBAY_SIMULATION_SEED`.
const EVENTS: u64 = 4_000_000;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.replace('_', "").parse().ok()).unwrap_or(otherwise)
}

#[test]
fn whatever_fails_every_step_is_committed_once_from_the_same_state() {
    let (wanted, first) = (number("FOREBAY_SIMULATION_EVENTS", EVENTS), number("FOREBAY_SIMULATION_SEED", 1));
    let mut tally = audit::Tally::default();
    let mut seed = first;
    while tally.events < wanted {
        let world = World::new(seed);
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run())) {
            Ok(ran) => tally += ran,
            Err(panic) => {
                eprintln!("again with FOREBAY_SIMULATION_SEED={seed} FOREBAY_SIMULATION_EVENTS=1");
                std::panic::resume_unwind(panic);
            }
        }
        seed += 1;
    }
    println!("seeds {first} to {}: {tally:?}", seed - 1);
    // A simulation in which nothing happens proves nothing.
    if wanted >= EVENTS {
        assert!(tally.kills > 0 && tally.freezes > 0 && tally.coordinators > 0 && tally.cuts > 0 && tally.flips > 0, "{tally:?}");
        assert!(tally.salvaged > 0 && tally.healed > 0 && tally.fenced > 0 && tally.fallbacks > 0, "{tally:?}");
        assert!(tally.unreached > 0, "{tally:?}");
    }
}
