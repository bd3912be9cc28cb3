//! Rule: no line so long that it must be generated or minified (the maximum-line-length filter of StarCoder, Li et al. 2023).

use forebay_schemas::pipeline::Clean;

use super::{Rejection, Verdict};

/// `long_line`, by the characters of the longest line.
pub(crate) fn check(text: &str, settings: &Clean) -> Verdict {
    // Bytes bound characters from above, so most lines are never counted.
    let suspects = text.split('\n').filter(|line| line.len() as u64 > settings.max_line_chars);
    let longest = suspects.map(|line| line.chars().count() as u64).max().unwrap_or(0);
    if longest > settings.max_line_chars {
        return Verdict::Remove(Rejection::new("long_line", format!("{longest} characters")));
    }
    Verdict::Keep
}
