//! What the two programs of the command share: settings, failures, output, progress, and where the other program lies.
//!
//! `forebay` parses every verb. Those that compute on tensors it hands to `forebay-torch`, which lies beside it: loading
//! libtorch takes a quarter of a second and a hundred megabytes, which the other verbs do without.

pub mod config;
pub mod failure;
pub mod output;
pub mod progress;
pub mod runs;
pub mod torch;
