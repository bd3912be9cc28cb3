//! What cleaning changed in a record, counted by kind.
//!
//! On the way to the manifest the counts are one column of text, `email=2 line_policy=1`: most records have none.

use std::fmt::Write;

/// Counts by kind; a kind that did not occur is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edits(Vec<(&'static str, u32)>);

impl Edits {
    /// Adds to the count of a kind that was not added before.
    pub(crate) fn add(&mut self, kind: &'static str, count: u32) {
        if count > 0 {
            self.0.push((kind, count));
        }
    }

    /// The column's value; none if nothing was changed.
    pub(crate) fn to_column(&self) -> Option<String> {
        let mut text = String::new();
        for (kind, count) in &self.0 {
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{kind}={count}", if text.is_empty() { "" } else { " " });
        }
        (!text.is_empty()).then_some(text)
    }

    /// The counts of a column's value.
    pub(crate) fn parse(column: &str) -> impl Iterator<Item = (&str, u64)> {
        column.split(' ').filter_map(|edit| edit.split_once('=')).filter_map(|(kind, count)| Some((kind, count.parse().ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_back_out_of_the_column() {
        let mut edits = Edits::default();
        assert_eq!(edits.to_column(), None);
        edits.add("email", 2);
        edits.add("ip", 0);
        edits.add("line_policy", 13);
        let column = edits.to_column().expect("edits");
        assert_eq!(column, "email=2 line_policy=13");
        assert_eq!(Edits::parse(&column).collect::<Vec<_>>(), [("email", 2), ("line_policy", 13)]);
    }
}
