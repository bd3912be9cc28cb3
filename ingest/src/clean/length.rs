//! Rule: enough text, and not too much of it.

use forebay_schemas::pipeline::Clean;

use super::{Rejection, Verdict};

/// `too_short` or `too_long`, by characters.
pub(crate) fn check(text: &str, settings: &Clean) -> Verdict {
    let chars = text.chars().count() as u64;
    if chars < settings.min_chars {
        return Verdict::Remove(Rejection::new("too_short", format!("{chars} characters")));
    }
    if chars > settings.max_chars {
        return Verdict::Remove(Rejection::new("too_long", format!("{chars} characters")));
    }
    Verdict::Keep
}
