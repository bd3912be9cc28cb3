//! What goes to standard output: text for people or one JSON object, never both.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::progress::console_is_terminal;

/// Log lines go to standard error; `FOREBAY_LOG=debug` shows more.
pub fn start_logging() {
    let filter = EnvFilter::try_from_env("FOREBAY_LOG").unwrap_or_else(|_| EnvFilter::new("error,forebay=warn"));
    // A second call would fail; there is none.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(console_is_terminal())
        .try_init();
}

/// Writes a line of text; a closed pipe is an error that the edge swallows.
pub fn line(text: impl AsRef<str>) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{}", text.as_ref())?;
    Ok(())
}

/// Writes one JSON object.
pub fn json(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// A table with aligned columns; numbers (by their first character) are aligned right.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let right = |cell: &str| cell.starts_with(|c: char| c.is_ascii_digit());
    let print = |row: Vec<&str>, rights: &[bool]| {
        let cells = row.iter().zip(&widths).zip(rights).map(
            |((cell, width), right)| {
                if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            },
        );
        line(cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let columns_right: Vec<bool> = (0..head.len())
        .map(|column| !rows.is_empty() && rows.iter().all(|row| row.get(column).is_some_and(|cell| cell.is_empty() || right(cell))))
        .collect();
    print(head.to_vec(), &columns_right)?;
    rows.iter().try_for_each(|row| print(row.iter().map(String::as_str).collect(), &columns_right))
}

/// A bar of `share` of so many characters, in steps of an eighth of one.
pub fn bar(share: f64, characters: usize) -> String {
    const PARTS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (share.clamp(0.0, 1.0) * 8.0 * characters as f64).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    bar.extend((eighths % 8).checked_sub(1).map(|part| PARTS[part]));
    bar
}

/// `12,345`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `2026-11-24 02:04:25` (UTC) of milliseconds since 1970; the civil-from-days method of H. Hinnant.
pub fn utc(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_civil() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(utc(1_795_485_865_000), "2026-11-24 02:04:25");
    }

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert_eq!([bar(0.0, 8), bar(0.5, 8), bar(0.515625, 8), bar(7.0, 2)], ["", "████", "████▏", "██"]);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([grouped(0), grouped(999), grouped(1_000), grouped(12_345_678)], ["0", "999", "1,000", "12,345,678"]);
    }
}
