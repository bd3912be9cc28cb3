//! Which pages cost more than they are worth, told before the extractor sees them.
//!
//! Time is bounded by what it was measured to grow with: in the parser with tags, character references and the square of
//! the attributes of a tag; in the extractor with elements times their depth. Pages at every limit at once were not
//! found; pages at one of them take up to a second.

use forebay_schemas::pipeline::html::Html;
use trafilatura::dom::Document;

/// Sum over all tags of the square of their attributes: each is compared with all before it, 10 ns a pair. What looks
/// like a tag in a script counts too; pages in the wild have up to 7 million, a tenth of a million in the mean.
const MAX_ATTRIBUTE_PAIRS: usize = 20_000_000;
/// Character references for each tag allowed.
const REFERENCES_PER_TAG: usize = 10;
/// Mean depth of elements if there are as many as allowed; it is 15 on large pages.
const MEAN_DEPTH: usize = 16;
/// Bytes that looking at tags may read again: text that is no tag can open quotes that never close. In the wild they read 3 times as many as the page has.
const REREADS: usize = 16;

/// Why a page is too complex to be parsed; none if it is not.
pub(super) fn before_parsing(html: &str, settings: &Html) -> Option<String> {
    let bytes = html.as_bytes();
    let max_tags = settings.max_tags as usize;
    let tags = memchr::memchr_iter(b'<', bytes).count();
    if tags > max_tags {
        return Some(format!("{tags} tags"));
    }
    let references = memchr::memchr_iter(b'&', bytes).count();
    if references > max_tags.saturating_mul(REFERENCES_PER_TAG) {
        return Some(format!("{references} character references"));
    }
    let (mut pairs, mut budget) = (0, bytes.len() * REREADS);
    for start in memchr::memchr_iter(b'<', bytes) {
        let tag = &bytes[start + 1..];
        if tag.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'/') {
            let (attributes, read) = attributes(&tag[..tag.len().min(budget)]);
            pairs += attributes * attributes;
            budget -= read;
            if pairs > MAX_ATTRIBUTE_PAIRS || budget == 0 {
                return Some(format!("attributes without end, to the tag at byte {start}"));
            }
        }
    }
    None
}

/// How many attributes a tag has, read as the HTML standard reads them, and how many bytes.
fn attributes(tag: &[u8]) -> (usize, usize) {
    let is_end_of_name = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>' | b'=');
    let mut at = tag.iter().position(is_end_of_name).unwrap_or(tag.len());
    let mut attributes = 0;
    loop {
        at += tag[at..].iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == b'/').count();
        if tag.get(at).is_none_or(|byte| *byte == b'>') {
            return (attributes, at);
        }
        attributes += 1;
        // A name may begin with an equals sign.
        at += 1 + tag[at + 1..].iter().position(is_end_of_name).unwrap_or(tag.len() - at - 1);
        let blanks = tag[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        if tag.get(at + blanks) == Some(&b'=') {
            at += blanks + 1;
            at += tag[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            at += value(&tag[at..]);
        }
    }
}

/// Length of the value at the start of `tag`.
fn value(tag: &[u8]) -> usize {
    match tag.first() {
        Some(quote @ (b'"' | b'\'')) => memchr::memchr(*quote, &tag[1..]).map_or(tag.len(), |end| end + 2),
        _ => tag.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'>').unwrap_or(tag.len()),
    }
}

/// Why a parsed page is too complex; none if it is not.
pub(super) fn after_parsing(page: &Document, settings: &Html) -> Option<String> {
    let max_sum = (settings.max_tags as usize / 2).saturating_mul(MEAN_DEPTH).max(1 << 10);
    let (mut open, mut sum) = (vec![(page.root(), 0usize)], 0);
    while let Some((node, depth)) = open.pop() {
        sum += depth;
        if depth > settings.max_depth as usize {
            return Some(format!("nested deeper than {}", settings.max_depth));
        }
        if sum > max_sum {
            return Some(format!("the depths of its elements add up to more than {max_sum}"));
        }
        open.extend(page.children(node).into_iter().map(|child| (child, depth + 1)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_counted_as_browsers_do() {
        for (tag, count) in [
            (">", 0),
            ("b>", 1),
            ("b=1 c='x y z' d=\"q=1 r=2\">e f g", 3),
            ("b='1'c='2'/d/>", 3),
            ("b = 1 = c>", 3),
            ("b=1/2/3>", 1),
            ("b='never closed c d e", 1),
        ] {
            assert_eq!(attributes(format!("a {tag}").as_bytes()).0, count, "{tag}");
        }
    }

    #[test]
    fn limits_hold_whatever_stands_around() {
        let settings = Html::default();
        // Each opens a quote that only the next one closes, so that looking at all of them reads the page over and over.
        let quotes = format!("{}{}", "<a b=\"".repeat(1001), "x".repeat(1 << 20));
        assert!(before_parsing(&quotes, &settings).is_some());
        let many = "<p a b c d=1 e ".to_owned() + &"f='x'".repeat(5_000);
        for html in [many.clone(), format!("<script><a href='</script>{many}"), format!("<!-- <a b=\" -->{many}")] {
            assert!(before_parsing(&html, &settings).is_some(), "{html:.40}");
        }
        assert_eq!(before_parsing("<p class=x>a &amp; b</p>", &settings), None);
    }
}
