//! Rule: mostly letters and digits (the alphanumeric-fraction filter of StarCoder, Li et al. 2023).

use forebay_schemas::pipeline::Clean;

use super::{Rejection, Verdict};
use crate::letters::is_alphanumeric;

/// `few_alphanumerics`, by the share of letters and digits among all characters.
pub(crate) fn check(text: &str, settings: &Clean) -> Verdict {
    let (alphanumerics, chars) = if text.is_ascii() {
        (text.bytes().filter(u8::is_ascii_alphanumeric).count(), text.len())
    } else {
        text.chars().fold((0, 0), |(good, all), c| (good + usize::from(is_alphanumeric(c)), all + 1))
    };
    let share = if chars == 0 { 0.0 } else { alphanumerics as f64 / chars as f64 };
    if share < settings.min_alphanumeric {
        return Verdict::Remove(Rejection::new("few_alphanumerics", format!("share {share:.3}")));
    }
    Verdict::Keep
}
