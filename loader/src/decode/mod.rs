//! Stored rows to samples: token ids, documents, and encoded images to upright RGB pixels.
//!
//! Promises: what cannot be decoded is an error that says why, never a panic and never a made-up sample. Ingest has
//! quarantined what does not decode, so an error here means that stored bytes changed or that decoders differ.
//! Deliberately absent: which row it was; the caller knows.

mod image;
mod jpeg;
mod text;
mod tokens;

pub(crate) use image::{Images, Picture};
pub(crate) use text::{check_documents, document};
pub(crate) use tokens::{Sequences, Starts, sequence_width};
