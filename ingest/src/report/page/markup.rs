//! Text, numbers and tables as HTML.
//!
//! Promises: whatever a key, a reason or a setting holds, what comes out is shown as text: markup is escaped, and control
//! characters and those that turn the direction of writing are spelt out, since they can make a key look like another.

use std::fmt::Write;

use arrow::temporal_conversions::timestamp_ms_to_datetime;

/// Text made safe for an element or a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            character if is_deceptive(character) => {
                // Writing to a string cannot fail.
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(character));
            }
            character => safe.push(character),
        }
    }
    safe
}

/// Text as it is, in the typeface of code.
pub(super) fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

/// At most `limit` characters, the middle left out: both ends of a key say something.
pub(super) fn clip(text: &str, limit: usize) -> String {
    let count = text.chars().count();
    if count <= limit {
        return text.to_owned();
    }
    let tail = limit / 2;
    let head = limit.saturating_sub(tail + 1);
    text.chars().take(head).chain(['…']).chain(text.chars().skip(count - tail)).collect()
}

/// A share with as many digits as it needs; a share that is not zero never reads as zero, nor one that is not all as all.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 || part == 0 {
        return "0 %".to_owned();
    }
    let share = 100.0 * part as f64 / whole as f64;
    match share {
        _ if part == whole => "100 %".to_owned(),
        share if part < whole && share >= 99.95 => "&gt; 99.9 %".to_owned(),
        share if share >= 0.1 => format!("{share:.1} %"),
        share if share >= 0.001 => format!("{share:.3} %"),
        _ => "&lt; 0.001 %".to_owned(),
    }
}

/// An amount of bytes for people.
pub(super) fn size(bytes: u64) -> String {
    let unit = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)].into_iter().find(|(_, shift)| bytes >> shift > 0);
    match unit {
        None => format!("{bytes} B"),
        Some((name, shift)) if bytes.is_multiple_of(1 << shift) => format!("{} {name}", bytes >> shift),
        Some((name, shift)) => format!("{:.1} {name}", bytes as f64 / (1u64 << shift) as f64),
    }
}

/// A time in milliseconds since 1970 as a date in UTC.
pub(super) fn date(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(timestamp_ms_to_datetime);
    time.map_or_else(|| format!("{unix_ms} ms after 1970"), |time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// A table that scrolls by itself where the page is narrow. The cells are markup already.
pub(super) fn table(caption: &str, columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let mut html = format!(
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{caption}\"><table><caption>{caption}</caption><thead><tr>"
    );
    for (name, align) in columns {
        let _ = write!(html, "<th scope=\"col\"{}>{name}</th>", align.class());
    }
    html.push_str("</tr></thead><tbody>");
    for row in rows {
        html.push_str("<tr>");
        for (cell, (_, align)) in row.iter().zip(columns) {
            let _ = write!(html, "<td{}>{cell}</td>", align.class());
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}

/// A table of names and values, for what is not a series. The values are markup already.
pub(super) fn properties(caption: &str, rows: &[(&str, String)]) -> String {
    let mut html = format!("<table class=\"properties\"><caption>{caption}</caption><tbody>");
    for (name, value) in rows {
        let _ = write!(html, "<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>");
    }
    html.push_str("</tbody></table>");
    html
}

/// How the cells of a column stand.
#[derive(Clone, Copy)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

impl Align {
    fn class(self) -> &'static str {
        match self {
            Self::Left => "",
            Self::Right => " class=\"n\"",
        }
    }
}

// Controls, marks of direction (Unicode bidirectional algorithm, UAX 9) and characters without width.
fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{61c}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_escaped_is_markup(text in any::<String>()) {
            let safe = escape(&text);
            prop_assert!(!safe.contains(['<', '>', '"', '\'']) && !safe.chars().any(is_deceptive));
        }

        #[test]
        fn a_clipped_text_keeps_its_ends_and_its_limit(text in any::<String>(), limit in 3usize..40) {
            let clipped = clip(&text, limit);
            prop_assert!(clipped.chars().count() <= limit.max(text.chars().count().min(limit)));
            prop_assert_eq!(clipped.chars().next(), text.chars().next());
            prop_assert_eq!(clipped.chars().last(), text.chars().last());
        }

        #[test]
        fn only_nothing_is_zero_and_only_all_is_everything(part in 0u64..1_000_000_000_000, more in 1u64..1_000_000_000_000) {
            let text = percent(part, part + more);
            prop_assert_eq!(text == "0 %", part == 0);
            prop_assert!(!text.starts_with("100"), "{} of {}", part, part + more);
            prop_assert_eq!(percent(more, more), "100 %");
        }
    }

    #[test]
    fn a_key_cannot_hide_behind_controls() {
        assert_eq!(escape("a\u{202e}gpj.exe\0"), "a\\u{202e}gpj.exe\\u{0}");
    }

    #[test]
    fn sizes_shares_and_dates_are_for_people() {
        assert_eq!([size(0), size(1023), size(4096), size(1_500_000)], ["0 B", "1023 B", "4 KiB", "1.4 MiB"]);
        assert_eq!([percent(1, 3), percent(1, 20_000), percent(3, 3)], ["33.3 %", "0.005 %", "100 %"]);
        assert_eq!(date(1_790_000_000_000), "2026-09-21 14:13:20 UTC");
        assert_eq!(date(u64::MAX), "18446744073709551615 ms after 1970");
    }
}
