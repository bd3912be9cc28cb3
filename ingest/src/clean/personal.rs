//! Personal data that has a form: e-mail and IP addresses, phone numbers, cards, bank accounts, Chinese identity numbers.
//!
//! Promises: what has check digits is replaced only if they are right; replacing twice changes nothing; text without a
//! digit or an `@` costs one vectorised scan. Where a form is not telling (a bare row of digits), words around it must
//! say what it is: missing some is preferred to tearing holes in code, tables and versions. Deliberately absent: names,
//! addresses of people, keys.

use std::borrow::Cow;

use forebay_schemas::pipeline::{Personal, PersonalKind};

mod email;
mod groups;
mod ip;
mod number;
mod phone;

use super::edits::Edits;
use groups::Groups;

/// How many of each kind were replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) email: u32,
    pub(crate) ip: u32,
    pub(crate) phone: u32,
    pub(crate) card: u32,
    pub(crate) iban: u32,
    pub(crate) identity: u32,
}

impl Counts {
    /// Counts them as edits.
    pub(crate) fn note(&self, edits: &mut Edits) {
        let Self { email, ip, phone, card, iban, identity } = *self;
        for (kind, count) in [("email", email), ("ip", ip), ("phone", phone), ("card", card), ("iban", iban), ("identity", identity)] {
            edits.add(kind, count);
        }
    }

    #[cfg(test)]
    fn total(&self) -> u32 {
        self.email + self.ip + self.phone + self.card + self.iban + self.identity
    }

    fn of(&mut self, kind: PersonalKind) -> &mut u32 {
        match kind {
            PersonalKind::Email => &mut self.email,
            PersonalKind::Ip => &mut self.ip,
            PersonalKind::Phone => &mut self.phone,
            PersonalKind::Card => &mut self.card,
            PersonalKind::Iban => &mut self.iban,
            PersonalKind::Identity => &mut self.identity,
        }
    }
}

/// A replacement may free what stood next to it, so the text is gone through until nothing is left; this often at most.
const MAX_ROUNDS: usize = 8;

/// The text with placeholders for personal data of the kinds that the settings name, and how many there were.
pub(crate) fn scrub<'a>(text: &'a str, settings: &Personal) -> (Cow<'a, str>, Counts) {
    let mut counts = Counts::default();
    if settings.replace.is_empty() {
        return (Cow::Borrowed(text), counts);
    }
    let mut clean = Cow::Borrowed(text);
    for _ in 0..MAX_ROUNDS {
        match round(&clean, settings, &mut counts) {
            Some(cleaner) => clean = Cow::Owned(cleaner),
            None => break,
        }
    }
    (clean, counts)
}

/// Where personal data was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    kind: PersonalKind,
    start: usize,
    end: usize,
}

/// Replaces from left to right; none if there is nothing to replace.
fn round(text: &str, settings: &Personal, counts: &mut Counts) -> Option<String> {
    let mut clean = String::new();
    // What was found before `floor` is not looked at again, so that placeholders stay whole.
    let (mut copied, mut floor, mut at) = (0, 0, 0);
    while let Some(candidate) = next_candidate(text.as_bytes(), at) {
        let found = if text.as_bytes()[candidate] == b'@' {
            email::find(text, candidate, floor).filter(|_| settings.replace.contains(&PersonalKind::Email))
        } else {
            at_number(text, candidate, floor, settings)
        };
        let Some(Found { kind, start, end }) = found else {
            at = skip(text.as_bytes(), candidate);
            continue;
        };
        let placeholder = settings.placeholder(kind);
        if &text[start..end] != placeholder {
            clean.push_str(&text[copied..start]);
            clean.push_str(placeholder);
            copied = end;
            *counts.of(kind) += 1;
        }
        (floor, at) = (end, end);
    }
    if copied == 0 {
        return None;
    }
    clean.push_str(&text[copied..]);
    Some(clean)
}

/// What begins with the digits at `at`, not before `floor`; kinds with check digits first.
fn at_number(text: &str, at: usize, floor: usize, settings: &Personal) -> Option<Found> {
    let groups = Groups::parse(text.as_bytes(), at);
    let wants = |kind| settings.replace.contains(&kind);
    let is_address = wants(PersonalKind::Ip).then(|| ip::find(text, &groups)).flatten();
    is_address
        .or_else(|| wants(PersonalKind::Identity).then(|| number::identity(text, &groups)).flatten())
        .or_else(|| wants(PersonalKind::Iban).then(|| number::iban(text, at, floor)).flatten())
        .or_else(|| wants(PersonalKind::Card).then(|| number::card(text, &groups)).flatten())
        .or_else(|| wants(PersonalKind::Phone).then(|| phone::find(text, &groups, floor)).flatten())
}

const BLOCK: usize = 32;

/// The next digit or `@`. Whole blocks without one are passed over in vector registers.
fn next_candidate(bytes: &[u8], from: usize) -> Option<usize> {
    let is_candidate = |byte: &u8| byte.is_ascii_digit() | (*byte == b'@');
    let rest = bytes.get(from..)?;
    let mut at = from;
    for block in rest.as_chunks::<BLOCK>().0 {
        if block.iter().fold(false, |any, byte| any | is_candidate(byte)) {
            break;
        }
        at += BLOCK;
    }
    bytes[at..].iter().position(is_candidate).map(|offset| at + offset)
}

/// Behind the digits, or the sign, at `at`.
fn skip(bytes: &[u8], at: usize) -> usize {
    let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    at + digits.max(1)
}

/// Whether what begins at `start` is not the tail of something longer: a word, a decimal, a path, an amount.
fn is_free_before(text: &str, start: usize) -> bool {
    let mut before = text[..start].chars().rev();
    match before.next() {
        None => true,
        Some('.') => before.next().is_some_and(char::is_alphabetic),
        Some(',' | ':') => !before.next().is_some_and(|c| c.is_ascii_digit()),
        Some('_' | '-' | '/' | '\\' | '#' | '@' | '$' | '€' | '£' | '¥' | '%' | '+' | '~' | '^') => false,
        Some(c) => !joins(c),
    }
}

/// Whether what ends at `end` does not go on.
fn is_free_after(text: &str, end: usize) -> bool {
    let mut after = text[end..].chars();
    match after.next() {
        None => true,
        Some('-' | '.' | '/' | ',' | ':' | '\\') => !after.next().is_some_and(|c| c.is_ascii_alphanumeric()),
        Some('_' | '@' | '%' | '$' | '€' | '£' | '^') => false,
        Some(c) => !joins(c),
    }
}

/// Whether a letter or digit makes one word with digits next to it.
fn joins(c: char) -> bool {
    c.is_alphanumeric() && !super::scripts::is_unspaced(c)
}

#[cfg(test)]
mod tests;
