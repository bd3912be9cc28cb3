//! Rule: words, symbols, bullets and stop words of prose (Rae et al. 2021), decided as in datatrove.
//!
//! `gopher_enough_stop_words` says that there are *not* enough; it keeps the name that reports of datatrove have.

use forebay_schemas::pipeline::quality::GopherQuality;
use twox_hash::XxHash3_64;

use super::words::Word;
use super::words::classes::CLASSES;
use super::{Rejection, Verdict, View, at_most, share, split, verdict};

/// `gopher_short_doc`, `gopher_long_doc`, `gopher_below_avg_threshold`, `gopher_above_avg_threshold`, `gopher_too_many_hashes`,
/// `gopher_too_many_ellipsis`, `gopher_too_many_bullets`, `gopher_too_many_end_ellipsis`, `gopher_below_alpha_threshold`,
/// `gopher_enough_stop_words`; the first that holds.
pub(crate) fn check(view: &View<'_>, settings: &GopherQuality) -> Verdict {
    verdict(
        length(view.words, settings)
            .and_then(|()| symbols(view, settings))
            .and_then(|()| lines(view.text, settings))
            .and_then(|()| letters(view.words, settings))
            .and_then(|()| stop_words(view.words, settings)),
    )
}

fn length(words: &[Word], settings: &GopherQuality) -> Result<(), Rejection> {
    let real = words.iter().filter(|word| !word.is_symbol());
    let (count, chars) = real.fold((0u64, 0u64), |(count, chars), word| (count + 1, chars + u64::from(word.chars)));
    if count < settings.min_words {
        return Err(Rejection::new("gopher_short_doc", format!("{count} words, at least {}", settings.min_words)));
    }
    if count > settings.max_words {
        return Err(Rejection::new("gopher_long_doc", format!("{count} words, at most {}", settings.max_words)));
    }
    let mean = share(chars, count);
    if mean < settings.min_mean_word_chars {
        let detail = format!("{mean:.3} characters a word, at least {}", settings.min_mean_word_chars);
        return Err(Rejection::new("gopher_below_avg_threshold", detail));
    }
    if mean > settings.max_mean_word_chars {
        let detail = format!("{mean:.3} characters a word, at most {}", settings.max_mean_word_chars);
        return Err(Rejection::new("gopher_above_avg_threshold", detail));
    }
    Ok(())
}

fn symbols(view: &View<'_>, settings: &GopherQuality) -> Result<(), Rejection> {
    let (text, words) = (view.text, view.words.len() as u64);
    let hashes = memchr::memchr_iter(b'#', text.as_bytes()).count() as u64;
    at_most("gopher_too_many_hashes", share(hashes, words), settings.max_symbols_per_word)?;
    let ellipses = (text.matches("...").count() + text.matches('…').count()) as u64;
    at_most("gopher_too_many_ellipsis", share(ellipses, words), settings.max_symbols_per_word)
}

fn lines(text: &str, settings: &GopherQuality) -> Result<(), Rejection> {
    let (mut count, mut bullets, mut ellipses) = (0, 0, 0);
    for line in split::lines(text) {
        let line = CLASSES.trim(line);
        count += 1;
        bullets += u64::from(line.starts_with(['•', '-']));
        ellipses += u64::from(line.ends_with("...") || line.ends_with('…'));
    }
    at_most("gopher_too_many_bullets", share(bullets, count), settings.max_bullet_lines)?;
    at_most("gopher_too_many_end_ellipsis", share(ellipses, count), settings.max_ellipsis_lines)
}

fn letters(words: &[Word], settings: &GopherQuality) -> Result<(), Rejection> {
    let share = share(words.iter().filter(|word| word.has_letter()).count() as u64, words.len() as u64);
    if share < settings.min_alphabetic_words {
        let detail = format!("{share:.4}, at least {}", settings.min_alphabetic_words);
        return Err(Rejection::new("gopher_below_alpha_threshold", detail));
    }
    Ok(())
}

fn stop_words(words: &[Word], settings: &GopherQuality) -> Result<(), Rejection> {
    let hashes: Vec<u64> = settings.stop_words.iter().map(|word| XxHash3_64::oneshot(word.as_bytes())).collect();
    let mut found = 0u64;
    for word in words {
        if u64::from(found.count_ones()) >= settings.min_stop_words {
            return Ok(());
        }
        if let Some(place) = hashes.iter().position(|hash| *hash == word.hash) {
            found |= 1u64.checked_shl(place as u32).unwrap_or(0);
        }
    }
    if u64::from(found.count_ones()) >= settings.min_stop_words {
        return Ok(());
    }
    let detail = format!("{} stop words, at least {}", found.count_ones(), settings.min_stop_words);
    Err(Rejection::new("gopher_enough_stop_words", detail))
}
