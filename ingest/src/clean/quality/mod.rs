//! Rules of quality: Gopher's repetition and quality (Rae et al. 2021), C4's lines (Raffel et al. 2020), FineWeb's own
//! (Penedo et al. 2024).
//!
//! They decide as datatrove 0.10 does for English, with its reasons; words are found once and all rules share them. A rule
//! is a pure function of text, words and settings; its buffers change nothing. Deliberately absent: C4's bad words (a rule
//! of its own) and anything that looks at two documents.

use std::borrow::Cow;

use forebay_schemas::pipeline::quality::Quality;

use self::c4::Lines;
use self::counter::Counter;
use self::words::{Segmenter, Word};
use super::{Rejection, Verdict};

pub(crate) mod c4;
mod counter;
pub(crate) mod fineweb;
pub(crate) mod gopher_quality;
pub(crate) mod gopher_repetition;
mod split;
pub(crate) mod words;

/// A text and what every rule asks of it.
pub(crate) struct View<'t> {
    pub(crate) text: &'t str,
    /// Unicode scalar values of the text.
    pub(crate) chars: u64,
    pub(crate) words: &'t [Word],
}

impl<'t> View<'t> {
    pub(crate) fn new(text: &'t str, segmenter: &'t mut Segmenter) -> Self {
        Self { text, chars: text.chars().count() as u64, words: segmenter.segment(text) }
    }
}

/// Judges texts; reuses its buffers, so keep one a thread.
#[derive(Default)]
pub(crate) struct Judge {
    segmenter: Segmenter,
    lines: Segmenter,
    counter: Counter,
}

/// What the rules say and leave of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Judged<'t> {
    pub(crate) verdict: Verdict,
    /// Without the lines that C4 drops; the text itself where C4 is off or the document is left out.
    pub(crate) text: Cow<'t, str>,
    /// Of the lines that C4 saw.
    pub(crate) lines: Lines,
}

impl Judge {
    /// The verdict of the rules that are on, in the order of the settings; the first that objects decides.
    pub(crate) fn judge<'t>(&mut self, text: &'t str, settings: &Quality) -> Judged<'t> {
        let mut judged = Judged { verdict: Verdict::Keep, text: Cow::Borrowed(text), lines: Lines::default() };
        if settings.is_on() {
            judged.verdict = verdict(self.check(text, settings, &mut judged));
        }
        judged
    }

    fn check<'t>(&mut self, text: &'t str, settings: &Quality, judged: &mut Judged<'t>) -> Result<(), Rejection> {
        let view = View::new(text, &mut self.segmenter);
        let mut words = view.words.len() as u64;
        if let Some(settings) = &settings.gopher_repetition {
            objection(gopher_repetition::check(&view, settings, &mut self.counter))?;
        }
        if let Some(settings) = &settings.gopher_quality {
            objection(gopher_quality::check(&view, settings))?;
        }
        if let Some(settings) = &settings.c4 {
            let edited = c4::apply(text, view.words, settings, &mut self.lines);
            judged.lines = edited.lines;
            objection(edited.verdict)?;
            (judged.text, words) = (edited.text, edited.words);
        }
        if let Some(settings) = &settings.fineweb {
            objection(fineweb::check(&judged.text, words, settings, &mut self.counter))?;
        }
        Ok(())
    }
}

fn objection(verdict: Verdict) -> Result<(), Rejection> {
    match verdict {
        Verdict::Keep => Ok(()),
        Verdict::Remove(rejection) | Verdict::Quarantine(rejection) => Err(rejection),
    }
}

/// `part` of `whole`, nothing of nothing.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Removes for `reason` if a share is above its limit.
fn at_most(reason: &'static str, found: f64, limit: f64) -> Result<(), Rejection> {
    if found > limit { Err(Rejection::new(reason, format!("{found:.4}, at most {limit}"))) } else { Ok(()) }
}

fn verdict(result: Result<(), Rejection>) -> Verdict {
    result.map_or_else(Verdict::Remove, |()| Verdict::Keep)
}

#[cfg(test)]
mod tests;
