//! Phone numbers: international ones (E.164, with `+`), and national ones whose form is telling.
//!
//! National forms are those of North America, China, Japan, the United Kingdom, France and Germany; anything else needs a
//! word such as `Tel.` before it. A bare row of digits is a number only in such company: most rows of digits are none.

use std::sync::LazyLock;

use forebay_schemas::pipeline::PersonalKind;
use regex::Regex;

use super::groups::Groups;
use super::{Found, is_free_after, is_free_before};

/// The phone number that begins with these digits, not before `floor`.
pub(super) fn find(text: &str, groups: &Groups<'_>, floor: usize) -> Option<Found> {
    let count = groups.count();
    // Most numbers of a text end here.
    if groups.total(count) < 7 {
        return None;
    }
    let start = groups.start();
    let found = |start: usize, used: usize| Found { kind: PersonalKind::Phone, start, end: groups.end(used - 1) };
    let before = &text.as_bytes()[floor..start];
    if before.ends_with(b"+") {
        let plus = if before.ends_with(b"(+") { start - 2 } else { start - 1 };
        let used = international(groups)?;
        return (is_free_before(text, plus) && ends_here(text, groups, used)).then(|| found(plus, used));
    }
    let opened = usize::from(before.ends_with(b"("));
    if !is_free_before(text, start - opened) {
        return None;
    }
    let used = national(text, groups, opened == 1).or_else(|| named(text, groups, start - opened))?;
    ends_here(text, groups, used).then(|| found(start - opened, used))
}

/// Whether the number does not go on after the groups it has; behind a blank something else may begin.
fn ends_here(text: &str, groups: &Groups<'_>, used: usize) -> bool {
    match groups.separator(used - 1) {
        0 => is_free_after(text, groups.end(used - 1)),
        b' ' | b'(' => true,
        _ => false,
    }
}

/// Groups of a number after `+`: a country code, and as many digits as that country has.
fn international(groups: &Groups<'_>) -> Option<usize> {
    let digits: Vec<u8> = groups.joined(groups.count()).take(16).collect();
    let (lengths, is_bare_allowed) = lengths(&digits)?;
    let used = (1..=groups.count()).rev().find(|used| lengths.contains(&groups.total(*used)))?;
    let subscriber = &digits[3..digits.len().min(groups.total(used))];
    let is_one_digit = subscriber.iter().all(|digit| *digit == subscriber[0]);
    (!is_one_digit && (used > 1 || is_bare_allowed)).then_some(used)
}

/// How many digits there are with the country code (E.164: 15 at most, and the 0 that some write in brackets); and whether
/// that is sure enough without any separator.
fn lengths(digits: &[u8]) -> Option<(std::ops::RangeInclusive<usize>, bool)> {
    let head = |count: usize| digits.iter().take(count).fold(0u32, |head, digit| head * 10 + u32::from(digit - b'0'));
    Some(match (head(1), head(2), head(3)) {
        (1, ..) => return is_north_american(digits.get(1..4)?, digits.get(4..7)?).then_some((11..=11, true)),
        (7, ..) => (11..=11, true),
        (_, 33 | 34, _) => (11..=12, true),
        (_, 44 | 91, _) => (11..=13, true),
        (_, 81, _) => (11..=13, true),
        (_, 86, _) => (12..=14, true),
        (_, 20 | 27 | 30..=32 | 36 | 39..=41 | 43 | 45..=49 | 51..=58 | 60..=66 | 82 | 84 | 90 | 92..=95 | 98, _) => (9..=14, true),
        (_, _, 211..=213 | 216 | 218 | 220..=269 | 290 | 291 | 297..=299 | 350..=359 | 370..=389 | 420 | 421 | 423) => (9..=15, true),
        (_, _, 500..=509 | 590..=599 | 670 | 672..=692 | 800 | 808 | 850 | 852 | 853 | 855 | 856 | 880 | 886) => (10..=15, false),
        (_, _, 960..=968 | 970..=977 | 992..=996 | 998) => (10..=15, true),
        _ => return None,
    })
}

/// Groups of a number in one of the national forms.
fn national(text: &str, groups: &Groups<'_>, is_opened: bool) -> Option<usize> {
    let closes = is_opened && groups.separator(0) == b')';
    if is_opened && !closes {
        return None;
    }
    if groups.digits(0) == b"1" && matches!(groups.separator(0), b'-' | b'.' | b' ' | b'(') {
        let rest = groups.rest()?;
        return north_american(&rest, rest.separator(0) == b')').map(|used| used + 1);
    }
    if groups.digits(0) == b"86" && matches!(groups.separator(0), b'-' | b' ' | b')') {
        return chinese_mobile(&groups.rest()?).map(|used| used + 1);
    }
    if groups.digits(0).first() == Some(&b'0') {
        return with_trunk_prefix(text, groups, closes);
    }
    let used = chinese_mobile(groups).or_else(|| north_american(groups, closes))?;
    (used > 1 || is_among_han(text, groups)).then_some(used)
}

/// `(212) 736-5000`, `212-736-5000`, `212.736.5000`, `212 736-5000`.
fn north_american(groups: &Groups<'_>, closes: bool) -> Option<usize> {
    let separators = (groups.separator(0), groups.separator(1));
    let is_written = matches!(separators, (b'-', b'-') | (b'.', b'.') | (b' ', b'-') | (b'/', b'-'));
    let is_written = is_written || closes && matches!(separators.1, b'-' | b'.' | b' ');
    let holds = groups.has_shape(&[3, 3, 4]) && is_written && is_north_american(groups.digits(0), groups.digits(1));
    holds.then_some(3)
}

/// The numbering plan: neither area nor exchange begin with 0 or 1 or are a service such as 911.
fn is_north_american(area: &[u8], exchange: &[u8]) -> bool {
    let fits = |digits: &[u8]| matches!(digits, [b'2'..=b'9', rest @ ..] if rest != b"11");
    fits(area) && fits(exchange)
}

/// `13812345678`, `138 1234 5678`, `138-1234-5678`.
fn chinese_mobile(groups: &Groups<'_>) -> Option<usize> {
    let is_mobile = matches!(groups.digits(0), [b'1', b'3'..=b'9', ..]);
    let used = if groups.len(0) == 11 {
        1
    } else if groups.has_shape(&[3, 4, 4]) && groups.has_same_separators(3, b" -") {
        3
    } else {
        return None;
    };
    is_mobile.then_some(used)
}

/// Numbers that begin with a 0, which is dialled within the country.
fn with_trunk_prefix(text: &str, groups: &Groups<'_>, closes: bool) -> Option<usize> {
    let area = groups.digits(0);
    if area.len() < 2 || area[1] == b'0' {
        return None;
    }
    // France: 01 44 27 43 21, and no more pairs around, which would be a dump of bytes.
    if groups.has_shape(&[2; 5]) && groups.has_same_separators(5, b" .-") {
        let is_dump = groups.count() > 5 || is_pair_before(text, groups.start()) || is_pair_after(text, groups.end(4));
        return (!is_dump).then_some(5);
    }
    let is_parted = closes || matches!(groups.separator(0), b'-' | b'/');
    // Japan: 03-3580-3311, 090-1234-5678.
    let is_japanese = (2..=4).contains(&area.len()) && (2..=4).contains(&groups.len(1)) && groups.len(2) == 4;
    if is_japanese && is_parted && groups.separator(1) == b'-' && matches!(groups.total(3), 10 | 11) {
        return Some(3);
    }
    // China, Germany: 010-62751234, 0571-87951234, 030/2060900.
    if is_parted && (3..=5).contains(&area.len()) && (6..=8).contains(&groups.len(1)) && (10..=12).contains(&groups.total(2)) {
        return Some(2);
    }
    // The United Kingdom: 020 7946 0958, 0161 496 0000, 01632 960001, 07700 900123.
    let shapes: [&[usize]; 4] = [&[3, 4, 4], &[4, 3, 4], &[5, 6], &[5, 3, 3]];
    let shape = shapes.into_iter().find(|shape| groups.has_shape(shape))?;
    let blanks = (usize::from(closes)..shape.len() - 1).all(|index| groups.separator(index) == b' ');
    (blanks && matches!(area[1], b'1' | b'2' | b'3' | b'7' | b'8')).then_some(shape.len())
}

fn is_pair_before(text: &str, start: usize) -> bool {
    let before = &text.as_bytes()[..start];
    matches!(before, [.., left, right, _] if left.is_ascii_alphanumeric() && right.is_ascii_alphanumeric())
        && !matches!(before, [.., letter, _, _, _] if letter.is_ascii_alphanumeric())
}

fn is_pair_after(text: &str, end: usize) -> bool {
    let after = &text.as_bytes()[end..];
    matches!(after, [b' ', left, right, ..] if left.is_ascii_hexdigit() && right.is_ascii_hexdigit())
        && !after.get(3).is_some_and(u8::is_ascii_alphanumeric)
}

/// Bytes around a number that say what it is.
const CONTEXT_BYTES: usize = 32;

/// Whether Chinese is written right before or after.
fn is_among_han(text: &str, groups: &Groups<'_>) -> bool {
    let before = &text[text.ceil_char_boundary(groups.start().saturating_sub(CONTEXT_BYTES))..groups.start()];
    let after = &text[groups.end(0)..text.floor_char_boundary((groups.end(0) + CONTEXT_BYTES).min(text.len()))];
    [before, after].iter().any(|around| around.chars().any(|c| ('\u{4E00}'..='\u{9FFF}').contains(&c))) || is_named(before)
}

/// Groups of a number that a word before it calls one.
fn named(text: &str, groups: &Groups<'_>, start: usize) -> Option<usize> {
    let before = &text[text.ceil_char_boundary(start.saturating_sub(CONTEXT_BYTES))..start];
    let used = (1..=groups.count()).rev().find(|used| (7..=15).contains(&groups.total(*used)))?;
    let is_date = groups.has_shape(&[4, 2, 2]) || groups.has_shape(&[2, 2, 4]);
    (!is_date && is_named(before)).then_some(used)
}

fn is_named(before: &str) -> bool {
    static NAMES: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let words = "tel|tél|telephone|téléphone|telefon|teléfono|telefono|telefone|phone|fax|mobile|whatsapp|hotline|телефон|тел";
        let han = "电话|電話|手机|手機|热线|熱線|传真|傳真|微信";
        Regex::new(&format!(
            r"(?i)(?:(?:^|[^\pL_])(?:{words})(?:[ _]?(?:number|no|nr|num))?|(?:{han})(?:号码|號碼|号|番号)?)[\s.:：#(]{{0,4}}$"
        ))
        .ok()
    });
    NAMES.as_ref().is_some_and(|names| names.is_match(before))
}
