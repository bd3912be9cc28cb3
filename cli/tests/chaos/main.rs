//! Ingest under kills, failing stores, rivals and hostile input, with real processes of the command.
//!
//! Each test compares with an undisturbed run of the same input: same conservation table, same digest, same bytes of the
//! tables, one version an input state. Chance comes from one seed, printed and set by `FOREBAY_CHAOS_SEED`;
//! `FOREBAY_CHAOS_KILLS` is the number of kills. Deliberately absent: timings, and the trainer, whose kills are in `train.rs`.

mod chance;
mod corpus;
#[path = "../support/folder.rs"]
mod folder;
mod lake;
mod s3;
mod version;

mod bombs;
mod faults;
mod kills;
mod order;
mod suites;
mod writers;
