//! Text to token ids, by a tokenizer of Hugging Face's format: ingest encodes by it, and the loader on the way to a batch.
//!
//! [`Tokenizer`] is a `tokenizer.json` with what is asked of it here: the tokens that end a document and hide a token, and its
//! SHA-256; [`train`] makes one; [`Encoder`] is one thread's way through it. Promises: ids are those of the library; text that spells
//! a special token is text, so a document cannot forge its own end. Deliberately absent: files.

mod encode;
mod tokenizer;
mod train;
mod words;

pub use encode::Encoder;
pub use tokenizer::{END_OF_DOCUMENT, Error, MASK, Result, Tokenizer};
pub use train::train;
