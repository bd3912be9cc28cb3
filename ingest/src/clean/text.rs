//! Text records: decode, normalise, judge, identify, sign.
//!
//! The id is the blake3 digest of the cleaned text, so two spellings of one text are one record.

use std::sync::Arc;

use arrow::array::{ArrayRef, LargeStringBuilder};
use arrow::datatypes::{DataType, Field};
use forebay_schemas::id::Digest;
use forebay_schemas::pipeline::{Clean, Pipeline};

use super::{Cleaner, Judged, Raw, Verdict, Verdicts, alphanumerics, decode, length, lines, normalise};
use crate::dedup::minhash::Signer;
use crate::error::Result;

/// Columns that only text has.
pub(super) fn payload() -> Vec<Field> {
    vec![Field::new("text", DataType::LargeUtf8, true)]
}

/// The rules in order; the first that objects decides.
const RULES: [fn(&str, &Clean) -> Verdict; 3] = [length::check, lines::check, alphanumerics::check];

/// What the rules need beside their settings.
pub(crate) struct Rules {}

impl Rules {
    pub(super) fn load(_pipeline: &Pipeline) -> Result<Self> {
        Ok(Self {})
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::of(b"")
    }
}

/// What one thread needs to clean texts; reused from batch to batch.
pub(crate) struct Worker {
    signer: Option<Signer>,
}

impl Worker {
    pub(super) fn new(pipeline: &Pipeline) -> Self {
        Self { signer: pipeline.dedup.near.then(|| Signer::new(&pipeline.dedup)) }
    }
}

/// One cleaned record.
#[derive(Debug)]
pub(crate) struct Cleaned {
    pub(crate) verdict: Verdict,
    /// Absent where the bytes are not text.
    pub(crate) text: Option<String>,
}

/// Cleans and judges one record.
pub(crate) fn clean(raw: &Raw<'_>, settings: &Clean) -> Cleaned {
    let decoded = match raw.content.clone().and_then(decode::decode) {
        Ok(decoded) => decoded,
        Err(rejection) => return Cleaned { verdict: Verdict::Quarantine(rejection), text: None },
    };
    let text = normalise::normalise(&decoded);
    let verdict = RULES.iter().map(|rule| rule(&text, settings)).find(|verdict| *verdict != Verdict::Keep).unwrap_or(Verdict::Keep);
    Cleaned { verdict, text: Some(text) }
}

/// The columns of the verdict and of [`payload`] for raw records.
pub(super) fn columns<'a>(raw: impl Iterator<Item = Raw<'a>>, cleaner: &Cleaner, worker: &mut Worker) -> Result<Vec<ArrayRef>> {
    let (mut verdicts, mut texts) = (Verdicts::default(), LargeStringBuilder::new());
    for raw in raw {
        let Cleaned { verdict, text } = clean(&raw, &cleaner.pipeline.clean);
        let id = text.as_ref().map(|text| Digest::of(text.as_bytes()));
        let kept = text.filter(|_| verdict == Verdict::Keep);
        let signed = kept.as_ref().and_then(|text| Some(worker.signer.as_mut()?.sign(text)));
        let judged = Judged {
            id,
            size: kept.as_ref().map_or(0, |text| text.chars().count() as u32),
            rank: signed.as_ref().map_or(0, |signed| signed.rank),
            sketch: signed.as_ref().map_or(&[], |signed| &signed.sketch),
            class: None,
        };
        verdicts.push(&verdict, judged)?;
        // Text that is left out is needed no more; its raw bytes are still where they were.
        texts.append_option(kept);
    }
    let mut columns = verdicts.finish();
    columns.push(Arc::new(texts.finish()));
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(raw: &[u8]) -> Option<String> {
        let settings = Clean { min_chars: 4, max_chars: 40, max_line_chars: 20, ..Clean::default() };
        let raw = Raw { kind: crate::source::read::kind::PLAIN, content: Ok(raw), charset: None, url: None, class: None };
        clean(&raw, &settings).verdict.rejection().map(|rejection| rejection.reason.to_string())
    }

    #[test]
    fn every_rule_names_its_reason() {
        assert_eq!(reason(b"fn main() {}"), None);
        assert_eq!(reason(b"a  \n\n").as_deref(), Some("too_short"));
        assert_eq!(reason("abc\n".repeat(11).as_bytes()).as_deref(), Some("too_long"));
        assert_eq!(reason("a".repeat(21).as_bytes()).as_deref(), Some("long_line"));
        assert_eq!(reason(b"{}[]();;;; a").as_deref(), Some("few_alphanumerics"));
        assert_eq!(reason(b"\xFFabc").as_deref(), Some("bad_encoding"));
    }

    #[test]
    fn limits_are_inclusive_and_count_characters() {
        assert_eq!(reason("äöü".as_bytes()), None);
        assert_eq!(reason("ä".repeat(20).as_bytes()), None);
    }
}
