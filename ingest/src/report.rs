//! What came of an ingest, for people: the conservation table as text, and a version as a page.

mod page;
mod version;

pub use version::page_of;

use std::fmt::Write;

use forebay_schemas::dataset::Tally;

/// `read = kept + removed by reason + quarantined by reason`, one line each, numbers aligned.
pub fn conservation(tally: &Tally) -> String {
    let mut lines: Vec<(String, u64)> = vec![("read".to_owned(), tally.read), ("= kept".to_owned(), tally.kept)];
    lines.extend(tally.removed.iter().map(|(reason, count)| (format!("+ removed: {reason}"), *count)));
    lines.extend(tally.quarantined.iter().map(|(reason, count)| (format!("+ quarantined: {reason}"), *count)));
    let label = lines.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    let number = lines.iter().map(|(_, count)| grouped(*count).len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, count) in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<label$}  {:>number$}", grouped(count));
    }
    text
}

/// A number with a comma every three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_reason_and_aligns_numbers() {
        let tally = Tally {
            read: 25_664,
            kept: 20_000,
            removed: [("exact_duplicate".to_owned(), 5_000), ("too_short".to_owned(), 600)].into(),
            quarantined: [("bad_encoding".to_owned(), 64)].into(),
        };
        let expected = "\
read                         25,664
= kept                       20,000
+ removed: exact_duplicate    5,000
+ removed: too_short            600
+ quarantined: bad_encoding      64
";
        assert_eq!(conservation(&tally), expected);
    }

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), expected);
        }
    }
}
