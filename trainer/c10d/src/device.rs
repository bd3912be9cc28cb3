//! The parts of libtorch for GPUs, and how exactly its kernels repeat themselves.

use crate::error::Result;
use crate::ffi::{self, outcome};

/// Loads libtorch's kernels for NVIDIA GPUs, where they are installed beside it. Call it before any other use of libtorch.
///
/// They are a library of 1.5 GB, which is why nothing is linked to it: one program serves hosts with and without a GPU.
pub fn load_cuda() -> Result<()> {
    // SAFETY: takes nothing; the library runs its initialisers, as it would if it were linked.
    outcome("libtorch for GPUs", unsafe { ffi::forebay_c10d_load_cuda() })
}

/// From now on the same inputs give the same bits on the same kind of device. An operation that has no such kernel is an error.
pub fn deterministic() -> Result<()> {
    // SAFETY: takes nothing, and sets switches of libtorch and one variable of the environment that only cuBLAS reads.
    outcome("deterministic kernels", unsafe { ffi::forebay_c10d_deterministic() })
}
