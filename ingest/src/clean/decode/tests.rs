//! Small cases of every step, and collections of real files with a known encoding.

use std::io::Read;

use encoding_rs::{BIG5, GBK, KOI8_R, SHIFT_JIS, WINDOWS_1252};
use proptest::prelude::*;

use super::*;

const PLAIN: Claim<'_> = Claim { charset: None, markup: false };

fn plain(bytes: &[u8]) -> Result<Cow<'_, str>, Rejection> {
    decode(bytes, PLAIN, false)
}

#[test]
fn a_byte_order_mark_is_dropped_and_obeyed() {
    assert_eq!(plain(b"\xEF\xBB\xBFab").as_deref(), Ok("ab"));
    assert_eq!(plain(b"\xFF\xFEa\0\xE4\0").as_deref(), Ok("aä"));
    assert_eq!(plain(b"\xFE\xFF\0a\0\xE4").as_deref(), Ok("aä"));
    assert_eq!(plain(b"\xFF\xFE\0\0a\0\0\0\xE4\0\0\0").as_deref(), Ok("aä"));
    assert_eq!(plain(b"\0\0\xFE\xFF\0\0\0a\0\x01\xF6\0").as_deref(), Ok("a😀"));
    let claim = Claim { charset: Some("gbk"), markup: false };
    assert_eq!(decode(b"\xEF\xBB\xBF\xC3\xA4", claim, true).as_deref(), Ok("ä"));
}

#[test]
fn what_is_not_text_is_rejected_with_the_place() {
    for (bytes, detail) in [
        (&b"ab\xFFcd"[..], "not UTF-8 at byte 2"),
        (b"\xEF\xBB\xBFa\xC3", "not UTF-8 at byte 4"),
        (b"\xFF\xFEa", "UTF-16 of an odd number of bytes, 1"),
        (b"\xFF\xFE\x00\xD8", "unpaired surrogate 0xd800 in UTF-16"),
        (b"\0\0\xFE\xFF\0\x11\0\0", "0x00110000 in UTF-32"),
        (b"ELF\0\0\0\0", "4 NUL bytes in 7"),
    ] {
        assert_eq!(plain(bytes), Err(bad(detail.to_owned())));
        assert_eq!(decode(bytes, PLAIN, true), Err(bad(detail.to_owned())));
    }
}

#[test]
fn valid_utf_8_wins_over_any_claim() {
    let claim = Claim { charset: Some("windows-1252"), markup: true };
    assert_eq!(decode("<meta charset=gbk>für".as_bytes(), claim, true).as_deref(), Ok("<meta charset=gbk>für"));
}

#[test]
fn a_claim_decides_and_a_false_one_does_not() {
    let (text, _, _) = BIG5.encode("<meta charset=big5>中文網頁的內容");
    for (charset, markup) in [(Some("big5"), false), (None, true), (Some("utf-8"), true), (Some("nonsense"), true)] {
        let found = decode(&text, Claim { charset, markup }, false);
        assert_eq!(found.as_deref(), Ok("<meta charset=big5>中文網頁的內容"), "{charset:?}");
    }
    assert!(decode(&text, PLAIN, false).is_err());
    let (text, _, _) = SHIFT_JIS.encode("日本語のページ、ひらがなとカタカナ");
    let claim = Claim { charset: Some("euc-kr"), markup: false };
    assert!(decode(&text, claim, false).is_err());
    assert_eq!(decode(&text, claim, true).as_deref(), Ok("日本語のページ、ひらがなとカタカナ"));
}

#[test]
fn damaged_utf_8_is_not_taken_for_another_encoding() {
    let mut bytes = "这是一个网页的内容，".repeat(10).into_bytes();
    bytes[40] = 0xFF;
    assert_eq!(decode(&bytes, PLAIN, true), Err(bad("not UTF-8 at byte 39".to_owned())));
    let mut bytes = "这是一个网页的内容，".repeat(200).into_bytes();
    bytes.pop();
    let text = decode(&bytes, PLAIN, true).expect("one character in 2,000 is cut off");
    assert!(text.ends_with("内容\u{FFFD}"), "{text}");
}

#[test]
fn encodings_that_look_like_ascii_are_seen() {
    let (text, _, _) = ISO_2022_JP.encode("日本語のページ");
    assert_eq!(decode(&text, PLAIN, true).as_deref(), Ok("日本語のページ"));
    assert!(decode(&text, PLAIN, false).is_ok_and(|found| found.contains('\u{1B}')));
    let wide: Vec<u8> = "plain words\n".encode_utf16().flat_map(u16::to_be_bytes).collect();
    assert_eq!(decode(&wide, PLAIN, true).as_deref(), Ok("plain words\n"));
    assert_eq!(decode(&wide, Claim { charset: Some("utf-16be"), markup: false }, false).as_deref(), Ok("plain words\n"));
    assert!(decode(&wide, PLAIN, false).is_err());
}

#[test]
fn a_guess_needs_some_text_and_leave() {
    for (encoding, text) in [
        (WINDOWS_1252, "Die Straße führt über die Brücke, schöne Grüße"),
        (KOI8_R, "Съешь же ещё этих мягких французских булок, да выпей чаю"),
        (GBK, "这是一个网页的内容，没有声明编码"),
    ] {
        let (bytes, _, _) = encoding.encode(text);
        assert_eq!(decode(&bytes, PLAIN, true).as_deref(), Ok(text));
        assert!(decode(&bytes, PLAIN, false).is_err());
    }
    assert!(decode(b"f\xFCr", PLAIN, true).is_err());
}

proptest! {
    #[test]
    fn utf_8_is_decoded_as_itself(text in "[^\0\u{1B}\u{FEFF}]{0,50}", charset in prop::option::of("gbk|utf-16|latin1"), detect: bool) {
        let claim = Claim { charset: charset.as_deref(), markup: true };
        let found = decode(text.as_bytes(), claim, detect);
        prop_assert_eq!(found.as_deref(), Ok(text.as_str()));
    }

    #[test]
    fn any_bytes_are_text_or_rejected(bytes in prop::collection::vec(any::<u8>(), 0..200), markup: bool, detect: bool) {
        let claim = Claim { charset: Some("iso-2022-jp"), markup };
        if let Err(rejection) = decode(&bytes, claim, detect) {
            prop_assert_eq!(rejection.reason, "bad_encoding");
        }
    }
}

/// The files of an item of real data; none without the data.
fn item(name: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let Ok(folder) = std::env::var("FOREBAY_TEST_DATA") else {
        println!("skipped: no test data");
        return None;
    };
    let file = std::fs::File::open(std::path::Path::new(&folder).join(format!("{name}.tar.zst"))).expect("the item");
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).expect("zstd"));
    let mut files = Vec::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("read");
        files.push((path, bytes));
    }
    Some(files)
}

#[test]
fn utf_16_files_equal_their_utf_8_twins() {
    let Some(files) = item("wiki_mars_multiling") else { return };
    let mut pairs = 0;
    for (path, wide) in files.iter().filter(|(path, _)| path.contains(".utf16.")) {
        let twin = path.replace(".utf16.", ".utf8.");
        let Some((_, narrow)) = files.iter().find(|(path, _)| *path == twin) else { continue };
        assert_eq!(plain(wide), plain(narrow), "{path}");
        pairs += 1;
    }
    assert!(pairs >= 18, "{pairs} pairs");
}

#[test]
fn the_verdicts_on_utf_8_are_those_of_the_suite() {
    let Some(files) = item("bad_utf8_flenniken") else { return };
    let (_, cases) = files.iter().find(|(path, _)| path.ends_with("utf8tests.txt")).expect("the suite");
    let (mut good, mut broken) = (0, 0);
    for line in String::from_utf8_lossy(cases).lines().filter(|line| !line.starts_with('#')) {
        let parts: Vec<&str> = line.split(':').collect();
        let hex = |text: &str| -> Vec<u8> {
            let digits: String = text.chars().filter(|c| c.is_ascii_hexdigit()).collect();
            (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("hex")).collect()
        };
        match parts[..] {
            [_, "valid hex", digits, ..] if hex(digits).iter().all(|byte| *byte != 0) => {
                let bytes = hex(digits);
                assert_eq!(
                    plain(&bytes).ok().map(Cow::into_owned),
                    String::from_utf8(bytes.clone()).ok().map(|text| text.trim_start_matches('\u{FEFF}').to_owned()),
                    "{line}"
                );
                good += 1;
            }
            [_, "invalid hex", digits, ..] => {
                let bytes = hex(digits);
                let mark = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]);
                assert!(mark || plain(&bytes).is_err(), "{line}");
                assert!(mark || bytes.len() >= 16 || decode(&bytes, PLAIN, true).is_err(), "{line}");
                broken += 1;
            }
            _ => {}
        }
    }
    assert!(good > 20 && broken > 100, "{good} good and {broken} broken");
}

#[test]
fn most_files_are_decoded_as_they_are_labelled() {
    let Some(files) = item("encodings_chardet") else { return };
    let (mut plain, mut markup, mut all) = (0, 0, 0);
    for (path, bytes) in files.iter().filter(|(path, bytes)| !path.ends_with('/') && !bytes.is_empty()) {
        let folder = path.rsplit('/').nth(1).unwrap_or_default().to_ascii_lowercase();
        let label = match folder.as_str() {
            "cp932" => "shift_jis",
            "maccyrillic" => "x-mac-cyrillic",
            "utf-8-sig" => "utf-8",
            other => other.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end_matches('-'),
        };
        let label = if label.is_empty() || Encoding::for_label(label.as_bytes()).is_none() { folder.as_str() } else { label };
        let Some(encoding) = Encoding::for_label(label.as_bytes()).filter(|encoding| *encoding != REPLACEMENT) else { continue };
        let (expected, _, _) = encoding.decode(bytes);
        all += 1;
        plain += usize::from(decode(bytes, PLAIN, true).is_ok_and(|text| text == expected));
        let claim = Claim { charset: None, markup: true };
        markup += usize::from(decode(bytes, claim, true).is_ok_and(|text| text == expected));
    }
    // What is left is MacCyrillic for the most part, which browsers do not guess.
    println!("{plain} of {all} by their letters, {markup} with their own claim");
    assert!(plain * 100 >= all * 94 && markup * 100 >= all * 94, "{plain} and {markup} of {all}");
}
