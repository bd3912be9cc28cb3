//! IPv4 and IPv6 addresses that are reachable from everywhere (as datatrove: the others tell of nobody).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use forebay_schemas::pipeline::PersonalKind;
use regex::Regex;

use super::groups::Groups;
use super::{Found, joins};

/// The address that begins with these digits.
pub(super) fn find(text: &str, groups: &Groups<'_>) -> Option<Found> {
    let start = groups.start();
    let end = v4(text, groups).or_else(|| v6(text, start))?;
    Some(Found { kind: PersonalKind::Ip, start, end })
}

fn v4(text: &str, groups: &Groups<'_>) -> Option<usize> {
    let is_dotted = groups.count() >= 4 && (0..3).all(|index| groups.separator(index) == b'.');
    if !is_dotted {
        return None;
    }
    let (start, end) = (groups.start(), groups.end(3));
    // The parser refuses numbers above 255 and leading zeros.
    let address: Ipv4Addr = text[start..end].parse().ok()?;
    let is_alone = is_free_before(text, start) && !text[end..].starts_with('_') && is_free_after(text, end);
    (is_alone && is_public_v4(address) && !is_version(&text[..start])).then_some(end)
}

fn is_free_before(text: &str, start: usize) -> bool {
    let mut before = text[..start].chars().rev();
    match before.next() {
        Some('.' | '-' | '_' | '+') => false,
        // Of `//1.2.3.4/` and `/1.2.3.4` it is, of `Browser/1.2.3.4` not.
        Some('/') => !before.next().is_some_and(char::is_alphanumeric),
        Some(c) => !joins(c),
        None => true,
    }
}

fn is_free_after(text: &str, end: usize) -> bool {
    let mut after = text[end..].chars();
    match after.next() {
        Some('.') => !after.next().is_some_and(|c| c.is_ascii_digit()),
        Some('-' | '+') => !after.next().is_some_and(|c| c.is_ascii_alphabetic()),
        Some(c) => !joins(c),
        None => true,
    }
}

/// IANA's special-purpose registry, and multicast.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match a {
        0 | 10 | 127 | 224.. => true,
        100 => (64..128).contains(&b),
        169 => b == 254,
        172 => (16..32).contains(&b),
        192 => b == 168 || (b == 0 && matches!(c, 0 | 2)) || (b == 88 && c == 99),
        198 => matches!(b, 18 | 19) || (b == 51 && c == 100),
        203 => b == 0 && c == 113,
        _ => false,
    };
    !is_special
}

/// Bytes before a number in which a word says what it is.
const CONTEXT_BYTES: usize = 24;

/// Whether the words before call the number a version or a place in a document.
fn is_version(before: &str) -> bool {
    static VERSION: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let words = "v|ver|version|versions|release|build|revision|firmware|driver|section|sections|sec|chapter|clause|article|appendix|figure|table|oid";
        Regex::new(&format!(r#"(?i)(?:(?:^|[^\pL])(?:{words})|§|版本|第)[\s.:="'(#]{{0,3}}$"#)).ok()
    });
    let before = &before[before.ceil_char_boundary(before.len().saturating_sub(CONTEXT_BYTES))..];
    VERSION.as_ref().is_some_and(|version| version.is_match(before))
}

/// All that is assigned to networks begins with a digit, 2 or 3: 2000::/3.
fn v6(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    if !matches!(bytes[start], b'2' | b'3') {
        return None;
    }
    let length = bytes[start..].iter().take(40).take_while(|byte| byte.is_ascii_hexdigit() || **byte == b':').count();
    let found = &text[start..start + length];
    let found = if found.ends_with("::") { found } else { found.trim_end_matches(':') };
    let end = start + found.len();
    let before = text[..start].chars().next_back();
    let is_alone = !before.is_some_and(|c| joins(c) || matches!(c, ':' | '.' | '_')) && !text[end..].starts_with(|c| joins(c) || c == '_');
    let address: Ipv6Addr = Some(found).filter(|found| is_alone && found.contains(':'))?.parse().ok()?;
    let [a, b, ..] = address.segments();
    let is_special = match a {
        // Protocol assignments, documentation, 6to4.
        0x2001 => b < 0x200 || b == 0xDB8,
        0x2002 => true,
        0x3FFF => b < 0x1000,
        _ => false,
    };
    ((0x2000..0x4000).contains(&a) && !is_special).then_some(end)
}
