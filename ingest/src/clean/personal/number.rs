//! Numbers that check themselves: payment cards, bank accounts, Chinese resident identity numbers.

use forebay_schemas::pipeline::PersonalKind;

use super::groups::Groups;
use super::{Found, is_free_after, is_free_before, joins};

/// How cards are printed, beside in one.
const CARD_SHAPES: [&[usize]; 5] = [&[4, 4, 4, 4, 3], &[4, 4, 4, 4], &[4, 6, 5], &[4, 6, 4], &[6, 13]];

/// The payment card that begins with these digits: ISO/IEC 7812, known issuers only.
pub(super) fn card(text: &str, groups: &Groups<'_>) -> Option<Found> {
    let start = groups.start();
    let count = match groups.len(0) {
        13..=19 => 1,
        4 | 6 => CARD_SHAPES
            .iter()
            .find(|shape| groups.has_shape(shape) && groups.has_same_separators(shape.len(), b" -"))
            .map(|shape| shape.len())?,
        _ => return None,
    };
    let end = groups.end(count - 1);
    let mut digits = [0; 19];
    let mut length = 0;
    for (digit, place) in groups.joined(count).zip(&mut digits) {
        *place = digit - b'0';
        length += 1;
    }
    let digits = &digits[..length];
    // A table has columns of four digits to the left and right.
    let is_table = count > 1 && (is_group_before(text, start) || groups.len(count) == 4);
    let holds = !is_table && is_issued(digits) && luhn(digits) && is_free_before(text, start) && is_free_after(text, end);
    holds.then_some(Found { kind: PersonalKind::Card, start, end })
}

fn is_group_before(text: &str, start: usize) -> bool {
    let bytes = &text.as_bytes()[..start];
    bytes.len() >= 2 && matches!(bytes[bytes.len() - 1], b' ' | b'-') && bytes[bytes.len() - 2].is_ascii_digit()
}

/// Issuers by the first digits and how many there are.
fn is_issued(digits: &[u8]) -> bool {
    let head = |count: usize| digits.iter().take(count).fold(0u32, |head, digit| head * 10 + u32::from(*digit));
    let length = digits.len();
    match (head(1), head(2), head(3), head(4)) {
        (4, ..) => matches!(length, 13 | 16 | 19),
        (_, 51..=55, ..) | (_, _, _, 2221..=2720) => length == 16,
        (_, 34 | 37, ..) => length == 15,
        (_, 36 | 38 | 39, ..) | (_, _, 300..=305 | 309, _) => (14..=19).contains(&length),
        (_, 62 | 65, ..) | (_, _, 644..=649, _) | (_, _, _, 6011 | 3528..=3589) => (16..=19).contains(&length),
        _ => false,
    }
}

/// Luhn's check digit. Nobody has a card of one digit throughout.
fn luhn(digits: &[u8]) -> bool {
    let doubled = |digit: u8| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let sum: u32 =
        digits.iter().rev().enumerate().map(|(place, digit)| u32::from(if place % 2 == 1 { doubled(*digit) } else { *digit })).sum();
    sum.is_multiple_of(10) && digits.iter().any(|digit| *digit != digits[0])
}

/// Lengths of bank account numbers by country (the registry of ISO 13616).
const IBAN_LENGTHS: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 \
    EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 \
    LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 \
    SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30";

/// The bank account whose check digits are at `at`: in one, or in fours.
pub(super) fn iban(text: &str, at: usize, floor: usize) -> Option<Found> {
    let bytes = text.as_bytes();
    let start = at.checked_sub(2).filter(|start| *start >= floor)?;
    if !bytes[start..at].iter().all(u8::is_ascii_uppercase) {
        return None;
    }
    let country = &text[start..at];
    let length: usize = IBAN_LENGTHS.split_whitespace().find_map(|known| known.strip_prefix(country)?.parse().ok())?;
    let mut remainder = Remainder::default();
    let (mut end, mut taken) = (start, 0);
    let mut number = Vec::with_capacity(length);
    while taken < length {
        // Blanks stand behind every fourth character, or nowhere.
        if taken > 0 && taken % 4 == 0 && bytes.get(end) == Some(&b' ') {
            end += 1;
        }
        let character = bytes.get(end).filter(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())?;
        number.push(*character);
        end += 1;
        taken += 1;
    }
    // The country and the check digits go to the end.
    number.rotate_left(4);
    number.iter().for_each(|character| remainder.push(*character));
    let is_free = !text[..start].ends_with(|c| joins(c) || c == '_') && !text[end..].starts_with(|c| joins(c) || c == '_');
    (remainder.0 == 1 && is_free).then_some(Found { kind: PersonalKind::Iban, start, end })
}

/// Of a division by 97; letters count 10 to 35.
#[derive(Default)]
struct Remainder(u32);

impl Remainder {
    fn push(&mut self, character: u8) {
        self.0 = match character {
            b'0'..=b'9' => self.0 * 10 + u32::from(character - b'0'),
            _ => self.0 * 100 + u32::from(character - b'A') + 10,
        } % 97;
    }
}

/// The Chinese resident identity number of these digits (GB 11643): province, date of birth, check digit, which may be X.
pub(super) fn identity(text: &str, groups: &Groups<'_>) -> Option<Found> {
    let start = groups.start();
    let digits = groups.digits(0);
    let has_x = digits.len() == 17 && matches!(text.as_bytes().get(groups.end(0)), Some(b'X' | b'x'));
    let end = groups.end(0) + usize::from(has_x);
    if end - start != 18 {
        return None;
    }
    let number = |from: usize, to: usize| digits[from..to].iter().fold(0u32, |number, digit| number * 10 + u32::from(digit - b'0'));
    let is_province = matches!(number(0, 2), 11..=15 | 21..=23 | 31..=37 | 41..=46 | 50..=54 | 61..=65 | 71 | 81..=83 | 91);
    let is_date = is_date(number(6, 10), number(10, 12), number(12, 14));
    // The weights are 2 to the power of the place, modulo 11 (ISO 7064 MOD 11-2).
    let sum = digits[..17].iter().fold(0u32, |sum, digit| (sum + u32::from(digit - b'0')) * 2 % 11);
    let check = if has_x { 10 } else { u32::from(digits[17] - b'0') };
    let holds = is_province && is_date && (sum + check) % 11 == 1 && is_free_before(text, start) && is_free_after(text, end);
    holds.then_some(Found { kind: PersonalKind::Identity, start, end })
}

fn is_date(year: u32, month: u32, day: u32) -> bool {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(is_leap),
        1..=12 => 31,
        _ => 0,
    };
    (1900..2100).contains(&year) && (1..=days).contains(&day)
}
