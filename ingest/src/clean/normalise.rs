//! One spelling for the same text: line ends, control characters, trailing blanks, Unicode NFC.
//!
//! Idempotent, so that cleaned text read again keeps its id. Deliberately absent: changing letters, case or spaces
//! inside a line; in code they mean something.

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// LF line ends, no control characters but tab, no blanks at the end of a line, one line end at the end, NFC.
pub(crate) fn normalise(text: &str) -> String {
    // A control character may stand between a letter and its accent, so NFC comes after.
    let text = lines(text);
    if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes { text } else { lines(&text.nfc().collect::<String>()) }
}

fn lines(text: &str) -> String {
    let mut clean = String::with_capacity(text.len() + 1);
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        // The split keeps a lone carriage return, an old line end, inside the line.
        for part in line.split('\r') {
            push_line(&mut clean, part);
        }
    }
    clean.truncate(clean.trim_end().len());
    if !clean.is_empty() {
        clean.push('\n');
    }
    clean
}

fn push_line(clean: &mut String, line: &str) {
    if line.bytes().any(is_suspect) {
        let start = clean.len();
        clean.extend(line.chars().filter(|c| *c == '\t' || !c.is_control()));
        clean.truncate(start + clean[start..].trim_end().len());
    } else {
        clean.push_str(line.trim_end());
    }
    clean.push('\n');
}

/// Whether a byte may belong to a control character: C0, delete, or the lead byte of C1.
fn is_suspect(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7F || byte == 0xC2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_the_same_text_become_one() {
        for (raw, expected) in [
            ("a\r\nb\rc \t\n\n\n", "a\nb\nc\n"),
            ("e\u{301} \0e\u{1}\u{301}", "é é\n"),
            ("\u{85}\u{7f}x\u{a0}\n", "x\n"),
            ("\tindent  ed", "\tindent  ed\n"),
            (" \n\t\n", ""),
        ] {
            assert_eq!(normalise(raw), expected, "{raw:?}");
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "(?s)[ -~\r\n\t\u{1}\u{85}e\u{301}\u{327}\u{2000}가-힣]{0,60}") {
            let once = normalise(&text);
            prop_assert_eq!(normalise(&once), once);
        }

        #[test]
        fn any_text_keeps_to_the_promise(text in any::<String>()) {
            let clean = normalise(&text);
            prop_assert!(clean.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
            prop_assert!(clean.lines().all(|line| line.trim_end() == line));
            prop_assert_eq!(normalise(&clean), clean);
        }
    }
}
