//! Rule: lines that end, are not short and do not repeat (Penedo et al. 2024), decided as in datatrove.

use forebay_schemas::pipeline::quality::FineWeb;

use super::counter::Counter;
use super::gopher_repetition::repeats;
use super::words::classes::{CLASSES, SPACE, TERMINAL};
use super::{Rejection, Verdict, at_most, share, verdict};

/// `fineweb_empty`, `fineweb_line_punct_ratio`, `fineweb_short_line_ratio`, `fineweb_char_dup_ratio`, `fineweb_list_ratio`; the
/// first that holds. `words` is the number of words of the text.
pub(crate) fn check(text: &str, words: u64, settings: &FineWeb, counter: &mut Counter) -> Verdict {
    verdict(judge(text, words, settings, counter))
}

fn judge(text: &str, words: u64, settings: &FineWeb, counter: &mut Counter) -> Result<(), Rejection> {
    let (mut count, mut terminals, mut short) = (0, 0, 0);
    for line in lines(text) {
        count += 1;
        terminals += u64::from(CLASSES.is(line.chars().next_back(), TERMINAL));
        // Bytes bound characters from above, so most lines are never counted.
        let limit = settings.short_line_chars;
        short += u64::from(line.len() as u64 <= limit || (line.len() as u64 <= 4 * limit && line.chars().count() as u64 <= limit));
    }
    if count == 0 {
        return Err(Rejection::new("fineweb_empty", "no line"));
    }
    let terminal = share(terminals, count);
    if terminal < settings.min_terminal_lines && !(terminals == 0 && settings.accept_no_terminal_lines) {
        let detail = format!("{terminal:.4}, at least {}", settings.min_terminal_lines);
        return Err(Rejection::new("fineweb_line_punct_ratio", detail));
    }
    at_most("fineweb_short_line_ratio", share(short, count), settings.max_short_lines)?;
    let feeds = memchr::memchr_iter(b'\n', text.as_bytes()).count() as u64;
    let [_, _, repeated] = repeats(lines(text), text, counter);
    let chars = text.chars().count() as u64 - feeds;
    at_most("fineweb_char_dup_ratio", share(repeated, chars), settings.max_duplicate_line_chars)?;
    at_most("fineweb_list_ratio", share(feeds, words), settings.max_newlines_per_word)
}

/// Lines with more than blanks.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').filter(|line| line.chars().any(|c| CLASSES.of(c) & SPACE == 0))
}
