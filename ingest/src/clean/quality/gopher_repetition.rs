//! Rule: not too much that was there before, by paragraphs, lines and word n-grams (Rae et al. 2021, table A1).
//!
//! Decided as in datatrove. N-grams are counted exactly and in one ascending pass: an n-gram can only come twice if both
//! n-grams of one word less do, so each length looks only at the places where the one before repeats. One difference:
//! datatrove takes duplicate n-grams for the same if their letters are, whatever the words; here the words must be.

use forebay_schemas::pipeline::quality::GopherRepetition;
use twox_hash::XxHash3_64;

use super::counter::Counter;
use super::words::Word;
use super::words::classes::CLASSES;
use super::{Rejection, Verdict, View, at_most, share, split, verdict};

/// `gopher_dup_para_frac`, `gopher_dup_para_char_frac`, `gopher_dup_line_frac`, `gopher_dup_line_char_frac`,
/// `gopher_top_2_gram` and other lengths, `gopher_duplicated_5_n_grams` and other lengths; the first that holds.
pub(crate) fn check(view: &View<'_>, settings: &GopherRepetition, counter: &mut Counter) -> Verdict {
    verdict(
        paragraphs(view, settings, counter).and_then(|()| lines(view, settings, counter)).and_then(|()| ngrams(view, settings, counter)),
    )
}

fn paragraphs(view: &View<'_>, settings: &GopherRepetition, counter: &mut Counter) -> Result<(), Rejection> {
    let [parts, repeated, chars] = repeats(split::at_line_feeds(CLASSES.trim(view.text), 2), view.text, counter);
    at_most("gopher_dup_para_frac", share(repeated, parts), settings.max_duplicate_paragraphs)?;
    at_most("gopher_dup_para_char_frac", share(chars, view.chars), settings.max_duplicate_paragraph_chars)
}

fn lines(view: &View<'_>, settings: &GopherRepetition, counter: &mut Counter) -> Result<(), Rejection> {
    let [parts, repeated, chars] = repeats(split::at_line_feeds(view.text, 1), view.text, counter);
    at_most("gopher_dup_line_frac", share(repeated, parts), settings.max_duplicate_lines)?;
    at_most("gopher_dup_line_char_frac", share(chars, view.chars), settings.max_duplicate_line_chars)
}

/// Parts of a text, those that were there before, and the characters of these.
pub(super) fn repeats<'t>(parts: impl Iterator<Item = &'t str>, text: &str, counter: &mut Counter) -> [u64; 3] {
    counter.reset(memchr::memchr_iter(b'\n', text.as_bytes()).count() + 1);
    let (mut count, mut repeated, mut chars) = (0, 0, 0);
    for part in parts {
        count += 1;
        if counter.repeats(XxHash3_64::oneshot(part.as_bytes())) {
            repeated += 1;
            chars += part.chars().count() as u64;
        }
    }
    [count, repeated, chars]
}

fn ngrams(view: &View<'_>, settings: &GopherRepetition, counter: &mut Counter) -> Result<(), Rejection> {
    let lengths = || settings.top_ngrams.iter().chain(&settings.duplicate_ngrams).map(|(words, _)| *words as usize);
    let longest = lengths().max().unwrap_or(0);
    counter.chars.clear();
    counter.chars.push(0);
    counter.chars.extend(view.words.iter().scan(0, |sum, word| {
        *sum += u64::from(word.chars);
        Some(*sum)
    }));
    let mut measured = vec![(0, 0); longest + 1];
    for (words, measured) in measured.iter_mut().enumerate().take(view.words.len() + 1).skip(1) {
        repeat(words, view.words, counter);
        let top = if settings.top_ngrams.iter().any(|(n, _)| *n as usize == words) { top(words, counter) } else { 0 };
        let duplicate = if settings.duplicate_ngrams.iter().any(|(n, _)| *n as usize == words) { duplicates(words, counter) } else { 0 };
        *measured = (top, duplicate);
    }
    for (words, limit) in &settings.top_ngrams {
        above(measured[*words as usize].0, view.chars, *limit, || format!("gopher_top_{words}_gram"))?;
    }
    for (words, limit) in &settings.duplicate_ngrams {
        above(measured[*words as usize].1, view.chars, *limit, || format!("gopher_duplicated_{words}_n_grams"))?;
    }
    Ok(())
}

fn above(found: u64, chars: u64, limit: f64, reason: impl Fn() -> String) -> Result<(), Rejection> {
    let found = share(found, chars);
    if found > limit { Err(Rejection::new(reason(), format!("{found:.4}, at most {limit}"))) } else { Ok(()) }
}

/// Counts the n-grams of so many words where those of one word less repeat, and keeps the places where they do.
fn repeat(length: usize, words: &[Word], counter: &mut Counter) {
    let mut places = std::mem::take(&mut counter.repeated);
    if length == 1 {
        places.clear();
        counter.reset(words.len());
        places.extend(words.iter().enumerate().map(|(at, word)| (at as u32, counter.count(word.hash))));
    } else {
        counter.reset(places.len());
        let mut kept = 0;
        for at in 1..places.len() {
            let ((left, first), (right, second)) = (places[at - 1], places[at]);
            if left + 1 == right {
                // Exact: numbers of the shorter n-grams, not hashes.
                places[kept] = (left, counter.count(u64::from(first) << 32 | u64::from(second)));
                kept += 1;
            }
        }
        places.truncate(kept);
    }
    places.retain(|(_, id)| counter.counts[*id as usize] > 1);
    counter.repeated = places;
}

/// Characters, blanks between words included, of the most frequent n-gram times its count; of several the first.
fn top(length: usize, counter: &Counter) -> u64 {
    let most = counter.repeated.iter().map(|(_, id)| counter.counts[*id as usize]).max().unwrap_or(1);
    // If none comes twice, the first of the text is the most frequent.
    let place = counter.repeated.iter().find(|(_, id)| counter.counts[*id as usize] == most).map_or(0, |(at, _)| *at as usize);
    (counter.chars[place + length] - counter.chars[place] + length as u64 - 1) * u64::from(most)
}

/// Characters in n-grams that were there before, reading on after each.
fn duplicates(length: usize, counter: &mut Counter) -> u64 {
    let (mut next, mut chars) = (0, 0);
    for (at, id) in &counter.repeated {
        let (at, id) = (*at as usize, *id as usize);
        if at < next {
            continue;
        }
        // A count of none marks an n-gram that was there; the counts are not needed any more.
        if std::mem::take(&mut counter.counts[id]) == 0 {
            chars += counter.chars[at + length] - counter.chars[at];
            next = at + length;
        }
    }
    chars
}
