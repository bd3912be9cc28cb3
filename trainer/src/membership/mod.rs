//! Who trains: joins, deaths, generations, and the one commit of every step.
//!
//! Promises: step N is committed once and in order, only when every member of the current generation has reported it;
//! a member that was put out can commit and publish nothing; with at least `min_replicas` alive the run goes on.
//! [`group`] decides and does no I/O; the coordinator and the [`Session`] of a replica act.
//! Deliberately absent: torch. Gradients go between the replicas; only their outcome comes here.

mod client;
mod coordinator;
pub mod group;
mod journal;
mod owner;
mod rendezvous;
mod routes;
mod share;
#[cfg(test)]
mod tests;
mod transport;

pub use client::{Rendezvous, Session};
pub use coordinator::{Coordinator, CoordinatorOptions, Fault, RunSummary};
pub use share::{owner, share};
