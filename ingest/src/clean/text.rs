//! Text records: decode, normalise, judge, identify, sign.
//!
//! The id is the blake3 digest of the cleaned text, so two spellings of one text are one record.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, FixedSizeBinaryBuilder, LargeStringBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field};
use forebay_schemas::id::Digest;
use forebay_schemas::pipeline::{Clean, Pipeline};

use super::{Raw, Verdict, alphanumerics, decode, length, lines, normalise};
use crate::dedup::minhash::Signer;
use crate::error::Result;

/// Columns that only text has.
pub(super) fn payload() -> Vec<Field> {
    vec![Field::new("text", DataType::LargeUtf8, true), Field::new("signature", DataType::Binary, true)]
}

/// The rules in order; the first that objects decides.
const RULES: [fn(&str, &Clean) -> Verdict; 3] = [length::check, lines::check, alphanumerics::check];

/// One cleaned record.
#[derive(Debug)]
pub(crate) struct Cleaned {
    pub(crate) verdict: Verdict,
    /// Absent where the bytes are not text.
    pub(crate) text: Option<String>,
}

/// Cleans and judges one record.
pub(crate) fn clean(raw: Raw<'_>, settings: &Clean) -> Cleaned {
    let decoded = match raw.and_then(decode::decode) {
        Ok(decoded) => decoded,
        Err(rejection) => return Cleaned { verdict: Verdict::Quarantine(rejection), text: None },
    };
    let text = normalise::normalise(&decoded);
    let verdict = RULES.iter().map(|rule| rule(&text, settings)).find(|verdict| *verdict != Verdict::Keep).unwrap_or(Verdict::Keep);
    Cleaned { verdict, text: Some(text) }
}

/// The columns of the verdict and of [`payload`] for raw records.
pub(super) fn columns<'a>(raw: impl Iterator<Item = (&'a str, Raw<'a>)>, pipeline: &Pipeline) -> Result<Vec<ArrayRef>> {
    let mut signer = pipeline.dedup.near.then(|| Signer::new(&pipeline.dedup));
    let mut ids = FixedSizeBinaryBuilder::new(32);
    let (mut verdicts, mut reasons, mut details) = (StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
    let (mut texts, mut signatures) = (LargeStringBuilder::new(), BinaryBuilder::new());
    for (_, content) in raw {
        let Cleaned { verdict, text } = clean(content, &pipeline.clean);
        match &text {
            Some(text) => ids.append_value(Digest::of(text.as_bytes()).as_bytes())?,
            None => ids.append_null(),
        }
        verdicts.append_value(verdict.name());
        reasons.append_option(verdict.rejection().map(|rejection| rejection.reason));
        details.append_option(verdict.rejection().map(|rejection| rejection.detail.as_str()));
        let kept = text.filter(|_| verdict == Verdict::Keep);
        match (&kept, &mut signer) {
            (Some(text), Some(signer)) => signatures.append_value(signer.sign(text)),
            _ => signatures.append_null(),
        }
        // Text that is left out is needed no more; its raw bytes are still where they were.
        texts.append_option(kept);
    }
    Ok(vec![
        Arc::new(ids.finish()),
        Arc::new(verdicts.finish()),
        Arc::new(reasons.finish()),
        Arc::new(details.finish()),
        Arc::new(texts.finish()),
        Arc::new(signatures.finish()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(raw: &[u8]) -> Option<&'static str> {
        let settings = Clean { min_chars: 4, max_chars: 40, max_line_chars: 20, ..Clean::default() };
        clean(Ok(raw), &settings).verdict.rejection().map(|rejection| rejection.reason)
    }

    #[test]
    fn every_rule_names_its_reason() {
        assert_eq!(reason(b"fn main() {}"), None);
        assert_eq!(reason(b"a  \n\n"), Some("too_short"));
        assert_eq!(reason("abc\n".repeat(11).as_bytes()), Some("too_long"));
        assert_eq!(reason("a".repeat(21).as_bytes()), Some("long_line"));
        assert_eq!(reason(b"{}[]();;;; a"), Some("few_alphanumerics"));
        assert_eq!(reason(b"\xFFabc"), Some("bad_encoding"));
    }

    #[test]
    fn limits_are_inclusive_and_count_characters() {
        assert_eq!(reason("äöü".as_bytes()), None);
        assert_eq!(reason("ä".repeat(20).as_bytes()), None);
    }
}
