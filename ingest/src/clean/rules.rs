//! What the rules of text need beside their settings: lists, models, evaluation sets, loaded once a job.
//!
//! Deliberately absent: the rules, one file each; how an object is fetched, which the caller knows.

use forebay_schemas::id::Digest;
use forebay_schemas::pipeline::Clean;

use super::bad_words::WordLists;
use super::blocklist::Blocked;
use super::decontaminate::Evaluations;
use super::language::Identifier;
use super::lists::ReadObject;
use crate::error::Result;

/// What is not on is not loaded.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(super) blocked: Option<Blocked>,
    pub(super) language: Option<Identifier>,
    pub(super) bad_words: Option<WordLists>,
    pub(super) evaluations: Option<Evaluations>,
}

impl Rules {
    /// Loads what the settings name.
    pub(super) fn load(settings: &Clean, read: ReadObject<'_>) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let wants_language = settings.language.is_on() || settings.bad_words.needs_language();
        Ok(Self {
            blocked: settings.blocklist.is_on().then(|| Blocked::load(&settings.blocklist, read)).transpose()?,
            language: wants_language.then(|| Identifier::load(&settings.language, &variable, read)).transpose()?,
            bad_words: settings.bad_words.is_on().then(|| WordLists::load(&settings.bad_words, read)).transpose()?,
            evaluations: settings.decontaminate.is_on().then(|| Evaluations::load(&settings.decontaminate, read)).transpose()?,
        })
    }

    /// Digest of everything that was loaded.
    pub(super) fn digest(&self) -> Digest {
        let digests = [
            self.blocked.as_ref().map(Blocked::digest),
            self.language.as_ref().map(Identifier::digest),
            self.bad_words.as_ref().map(WordLists::digest),
            self.evaluations.as_ref().map(Evaluations::digest),
        ];
        Digest::of_parts(digests.iter().map(|digest| digest.as_ref().map_or(&[][..], |digest| digest.as_bytes().as_slice())))
    }
}
