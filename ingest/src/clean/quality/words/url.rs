//! Whether a chunk is a web address, which is one word whatever stands in it.
//!
//! Decides as the expression that spaCy builds on Diego Perini's: optional scheme, user, host with a lower-case top level
//! or a public IPv4 address, port, path. Every alternative is tried, each in one pass without going back.

use super::classes::{CLASSES, LOWER};

/// A whole chunk.
pub(super) fn is_url(chunk: &str) -> bool {
    // Every host has a dot.
    if !chunk.contains('.') {
        return false;
    }
    if after_user(chunk) {
        return true;
    }
    chunk.split_once("://").is_some_and(|(scheme, rest)| is_scheme(scheme) && after_user(rest))
}

fn is_scheme(text: &str) -> bool {
    text.chars().count() >= 2 && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '+' | '-' | '.'))
}

/// `(user@)?host(:port)?(path)?`, where the user may hold anything.
fn after_user(text: &str) -> bool {
    let users = text.match_indices('@').filter(|(at, _)| *at > 0).map(|(at, _)| at + 1);
    std::iter::once(0).chain(users).any(|start| after_host(&text[start..]).is_some_and(is_tail))
}

/// What follows the host.
fn after_host(text: &str) -> Option<&str> {
    after_address(text).or_else(|| after_domain(text))
}

/// Four octets, not of a private or local network.
fn after_address(text: &str) -> Option<&str> {
    let mut octets = [0u32; 4];
    let mut rest = text;
    for (place, octet) in octets.iter_mut().enumerate() {
        if place > 0 {
            rest = rest.strip_prefix('.')?;
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).take(4).count();
        // Leading zeros are allowed in the inner octets only.
        if !(1..=3).contains(&digits) || ((place == 0 || place == 3) && rest.starts_with('0')) {
            return None;
        }
        *octet = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
    }
    let private = matches!(octets, [10 | 127, ..] | [169, 254, ..] | [192, 168, ..] | [172, 16..=31, ..]);
    (!private && octets[0] <= 223 && octets[1] <= 255 && octets[2] <= 255 && octets[3] <= 254).then_some(rest)
}

/// Labels with a dot after each, then the top level.
fn after_domain(text: &str) -> Option<&str> {
    let mut rest = text;
    let mut labels = 0;
    while let Some(end) = label(rest) {
        rest = &rest[end..];
        labels += 1;
    }
    let letters = rest.char_indices().find(|(_, c)| CLASSES.of(*c) & LOWER == 0).map_or(rest.len(), |(at, _)| at);
    let length = rest[..letters].chars().count();
    (labels > 0 && (2..=63).contains(&length)).then(|| &rest[letters..])
}

/// Bytes of a label with its dot.
fn label(text: &str) -> Option<usize> {
    let end = text.char_indices().take(65).find(|(_, c)| !is_host(*c) && !matches!(c, '_' | '-')).map(|(at, _)| at)?;
    let edges = text[..end].chars().next().is_some_and(is_host) && text[..end].chars().next_back().is_some_and(is_host);
    (edges && text[end..].starts_with('.')).then_some(end + 1)
}

fn is_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '\u{A1}'..='\u{FFFF}')
}

fn is_tail(text: &str) -> bool {
    let is_path = |text: &str| text.is_empty() || text.starts_with(['/', '?', '#']);
    is_path(text)
        || text.strip_prefix(':').is_some_and(|port| {
            let digits = port.bytes().take_while(u8::is_ascii_digit).take(6).count();
            (2..=5).contains(&digits) && is_path(&port[digits..])
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_told_from_words_with_dots() {
        for url in
            ["example.com", "http://a.example.org:8080/x?y", "me@host.org", "ftp://u:p@h.io", "8.8.8.8", "a_b.example.de#x", "münchen.de"]
        {
            assert!(is_url(url), "{url}");
        }
        for other in
            ["word", "a.B", "10.0.0.1", "192.168.0.1/x", "3.14", "example.c", "-a.com", "x.com:1", "h://a", "a..com", "@", "x.com,"]
        {
            assert!(!is_url(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in any::<String>(), crafted in "[a1.:/@_é中-]{0,30}") {
            is_url(&text);
            is_url(&crafted);
        }
    }
}
