//! The parts of libtorch that tch has no words for: c10d's Gloo process group and its Reducer, kernels over lists of tensors,
//! tensors over memory of others, and what GPUs need.
//!
//! Promises: a [`ProcessGroup`] can be aborted from any thread and its rendezvous can be cancelled, so that nobody waits
//! for a dead or frozen peer; an error of libtorch is a value, nothing unwinds across the border; `unsafe` stays in here.
//! Deliberately absent: membership. Who is in a group, and what happens after a failure, is decided by the caller, which
//! makes a new group under a new prefix.

#![expect(unsafe_code, reason = "the one crate that calls into C++")]

mod device;
mod dlpack;
mod error;
mod ffi;
mod group;
mod memory;
mod reducer;
mod self_test;
mod store;
mod update;

pub use device::{deterministic, load_cuda};
pub use dlpack::DlPack;
pub use error::{Error, Result};
pub use group::{AbortHandle, Leaving, Patience, ProcessGroup};
pub use memory::{Pinned, Transfer, over, read};
pub use reducer::{Reducer, clear_gradients, set_gradients};
pub use self_test::self_test;
pub use store::{MemoryStore, Store};
pub use update::{Adamw, adamw, norm, scale};
