//! E-mail addresses: the dot-atoms of RFC 5322 in the letters that are in use, a domain of two labels or more.

use forebay_schemas::pipeline::PersonalKind;

use super::Found;

/// RFC 5321.
const MAX_LOCAL_BYTES: usize = 64;
const MAX_DOMAIN_BYTES: usize = 255;

/// Ends of file names that come after an `@`, as in `icon@2x.png`; none is a top-level domain.
const FILE_EXTENSIONS: [&str; 16] =
    ["png", "jpg", "jpeg", "gif", "svg", "webp", "bmp", "ico", "js", "jsx", "ts", "tsx", "css", "html", "json", "pdf"];

/// The address around the `@` at `at`, not before `floor`.
pub(super) fn find(text: &str, at: usize, floor: usize) -> Option<Found> {
    let bytes = text.as_bytes();
    let is_local = |byte: &&u8| byte.is_ascii_alphanumeric() || b"._%+&'-".contains(byte);
    let length = bytes[floor..at].iter().rev().take(MAX_LOCAL_BYTES + 1).take_while(is_local).count();
    let local = &bytes[at - length..at];
    // Quotes and bullets before the address are not of it.
    let trimmed = local.iter().position(u8::is_ascii_alphanumeric)?;
    if length > MAX_LOCAL_BYTES || local.ends_with(b".") {
        return None;
    }
    let domain = domain(&text[at + 1..])?;
    Some(Found { kind: PersonalKind::Email, start: at - length + trimmed, end: at + 1 + domain })
}

/// The length of the domain at the head.
fn domain(text: &str) -> Option<usize> {
    let is_domain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let length = text.bytes().take(MAX_DOMAIN_BYTES + 1).take_while(is_domain).count();
    let name = text[..length].trim_end_matches(['.', '-']);
    let (host, top) = name.rsplit_once('.')?;
    let is_label = |label: &str| !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-');
    let is_top = (2..=24).contains(&top.len()) && top.bytes().all(|byte| byte.is_ascii_alphabetic()) || top.starts_with("xn--");
    let is_file = FILE_EXTENSIONS.iter().any(|extension| top.eq_ignore_ascii_case(extension));
    (length <= MAX_DOMAIN_BYTES && is_top && !is_file && host.split('.').all(is_label)).then_some(name.len())
}
