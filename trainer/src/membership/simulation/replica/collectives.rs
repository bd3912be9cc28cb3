//! What the members of a generation do together: the transfer of a state, sums of gradients, and a mesh that breaks.
//!
//! Operation 0 of a generation is the transfer, those after it are sums. Each ends for its members when all of them have
//! brought their part, later where one is frozen or cut off; one that is dead, or cut off for long, breaks the mesh for all.

use forebay_schemas::wire::Restore;

use super::{Contribution, MS, Phase, Weights};
use crate::membership::simulation::world::{Happening, Node, World};

/// A connection breaks when nothing was acknowledged for so long.
const SILENCE: u64 = 1_600 * MS;

/// What a rank brings to a collective: its weights to the transfer, its gradients to a sum.
#[derive(Clone, Debug)]
pub(in crate::membership::simulation) enum Payload {
    State(Option<Weights>),
    Parts(Vec<Contribution>),
}

impl World {
    pub(super) fn enter(&mut self, number: usize, generation: u64, operation: u64, rank: u32, payload: Payload) {
        if self.replicas[number].over >= generation {
            self.break_mesh(generation);
            return self.give_up(number);
        }
        let Some(mesh) = self.meshes.get_mut(&generation) else { return };
        let entered = mesh.operations.entry(operation).or_default();
        entered.insert(rank, payload);
        let seats = mesh.seats.clone();
        if mesh.broken {
            return self.give_up(number);
        }
        if entered.len() == seats.len() {
            for (replica, incarnation) in seats {
                let delay = 200 + self.below(6 * MS);
                self.schedule(delay, Happening::Collective { replica, incarnation, generation, operation });
            }
        }
    }

    /// A collective ends for one of its members: well, unless the mesh broke before; not at all while a member is frozen or cut off.
    pub(super) fn collective(&mut self, number: usize, generation: u64, operation: u64) {
        let replica = &self.replicas[number];
        let reducing = operation > 0;
        if replica.generation() != generation || replica.phase != (if reducing { Phase::Reducing } else { Phase::Connecting }) {
            return;
        }
        let mesh = &self.meshes[&generation];
        if mesh.broken {
            return;
        }
        let seats = mesh.seats.clone();
        let dead = |&(other, life): &(usize, u64)| !self.replicas[other].alive || self.replicas[other].incarnation != life;
        let hangs =
            seats.iter().any(|&(a, _)| self.replicas[a].frozen || seats.iter().any(|&(b, _)| self.cut(Node::Replica(a), Node::Replica(b))));
        if seats.iter().any(dead) {
            return self.break_mesh(generation);
        }
        let cut = |&(a, _): &(usize, u64)| seats.iter().any(|&(b, _)| self.cut(Node::Replica(a), Node::Replica(b)));
        let cut = seats.iter().any(cut);
        if hangs {
            let (incarnation, now) = (replica.incarnation, self.now);
            let mesh = self.meshes.get_mut(&generation).expect("a mesh");
            if !cut {
                mesh.cut_since = None;
            } else if now - *mesh.cut_since.get_or_insert(now) > SILENCE {
                return self.break_mesh(generation);
            }
            return self.schedule(20 * MS, Happening::Collective { replica: number, incarnation, generation, operation });
        }
        let payloads: Vec<Payload> = mesh.operations[&operation].values().cloned().collect();
        if reducing {
            let parts = payloads.into_iter().flat_map(|payload| match payload {
                Payload::Parts(parts) => parts,
                Payload::State(_) => Vec::new(),
            });
            self.replicas[number].sum = parts.collect();
            return self.report(number);
        }
        let place = self.replicas[number].place.clone().expect("a place");
        if let (Some(source), Restore::Peer { .. }) = (place.source, place.restore) {
            let Payload::State(weights) = payloads[source as usize] else { panic!("a state") };
            self.replicas[number].weights = Some(weights.expect("the source has the state"));
        }
        let replica = &mut self.replicas[number];
        replica.progress.restored(&place);
        let weights = replica.weights.expect("weights");
        assert_eq!(weights.mark, place.state, "the state is the one that the generation begins with");
        if !weights.tainted {
            self.audit.has(&weights);
        }
        if place.checkpoint { self.checkpoint(number, false) } else { self.compute(number) }
    }

    pub(super) fn mesh_broke(&mut self, number: usize, generation: u64) {
        let replica = &self.replicas[number];
        if replica.generation() == generation && matches!(replica.phase, Phase::Connecting | Phase::Reducing) {
            self.give_up(number);
        }
    }

    pub(super) fn break_mesh(&mut self, generation: u64) {
        let Some(mesh) = self.meshes.get_mut(&generation).filter(|mesh| !mesh.broken) else { return };
        mesh.broken = true;
        for (replica, incarnation) in mesh.seats.clone() {
            // A closed socket is heard of at once, or not at all where the link is cut.
            let delay = 100 + self.below(20 * MS);
            self.schedule(delay, Happening::MeshBroke { replica, incarnation, generation });
        }
    }
}
