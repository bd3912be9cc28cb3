//! Who trains: joins, deaths, generations, and the one commit of every step.
//!
//! Promises: step N is committed once and in order, only when every member of the current generation has reported it;
//! a member that was put out can commit and publish nothing; with at least `min_replicas` alive the run goes on.
//! [`group`] decides and `service` says what to do about it, both without I/O; the coordinator and the [`Session`] of a
//! replica act. `simulation` runs the pure part for millions of events under every kind of fault.
//! Deliberately absent: torch. Gradients go between the replicas; only their outcome comes here.

mod client;
mod coordinator;
mod door;
pub mod group;
mod journal;
mod owner;
mod progress;
mod rendezvous;
mod routes;
mod service;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod transport;

pub use client::Session;
pub use coordinator::{Coordinator, CoordinatorOptions, Fault, RunSummary};
pub use group::deal;
pub use journal::began_with;
pub use progress::{Outcome, Progress};
pub use rendezvous::Rendezvous;
