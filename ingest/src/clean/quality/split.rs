//! Lines and paragraphs in the senses of the published rules, which are those of Python.

/// Lines as `str.splitlines` cuts them: at every line end of Unicode, the two of Windows as one, none after the last.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (end, length) = line_end(rest).unwrap_or((rest.len(), 0));
        let line = &rest[..end];
        rest = &rest[end + length..];
        Some(line)
    })
}

/// Where the first line end is, and its bytes.
fn line_end(text: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        at += bytes[at..].iter().position(|byte| matches!(byte, b'\n'..=b'\r' | 0x1C..=0x1E | 0xC2 | 0xE2))?;
        match bytes[at..] {
            [b'\r', b'\n', ..] | [0xC2, 0x85, ..] => return Some((at, 2)),
            [0xE2, 0x80, 0xA8 | 0xA9, ..] => return Some((at, 3)),
            [0xC2 | 0xE2, ..] => at += 1,
            _ => return Some((at, 1)),
        }
    }
}

/// What stands between runs of at least `least` line feeds, the empty ends too.
pub(super) fn at_line_feeds(text: &str, least: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (end, length) = feeds(text, least).unwrap_or((text.len(), 0));
        rest = (length > 0).then(|| &text[end + length..]);
        Some(&text[..end])
    })
}

fn feeds(text: &str, least: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        at += memchr::memchr(b'\n', &bytes[at..])?;
        let length = bytes[at..].iter().take_while(|byte| **byte == b'\n').count();
        if length >= least {
            return Some((at, length));
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_end_where_python_ends_them() {
        // Golden: str.splitlines of Python 3.11.
        let text = "a\nb\r\nc\rd\u{b}e\u{c}f\u{1c}g\u{1d}h\u{1e}i\u{85}j\u{2028}k\u{2029}\n\u{1f}â\u{a0}";
        assert_eq!(lines(text).collect::<Vec<_>>(), ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "", "\u{1f}â\u{a0}"]);
        assert_eq!(lines("").count(), 0);
        assert_eq!(lines("\n\n").collect::<Vec<_>>(), ["", ""]);
    }

    #[test]
    fn runs_of_line_feeds_are_one_cut() {
        assert_eq!(at_line_feeds("a\nb\n\n\nc\n\n", 2).collect::<Vec<_>>(), ["a\nb", "c", ""]);
        assert_eq!(at_line_feeds("\na\n\nb", 1).collect::<Vec<_>>(), ["", "a", "b"]);
        assert_eq!(at_line_feeds("", 1).collect::<Vec<_>>(), [""]);
    }

    proptest! {
        #[test]
        fn nothing_but_line_ends_is_lost(text in any::<String>(), crafted in "[a\n\r\u{85}\u{2028}â]{0,20}") {
            for text in [text, crafted] {
                let is_end = |c: char| matches!(c, '\n'..='\r' | '\u{1C}'..='\u{1E}' | '\u{85}' | '\u{2028}' | '\u{2029}');
                let bare: String = text.chars().filter(|c| !is_end(*c)).collect();
                prop_assert_eq!(lines(&text).collect::<String>(), bare);
                prop_assert_eq!(at_line_feeds(&text, 1).collect::<String>(), text.replace('\n', ""));
            }
        }
    }
}
