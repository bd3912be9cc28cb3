//! Every kind as it is and is not written; what must not be touched; twice is once.

use proptest::prelude::*;

use super::*;

fn every_kind() -> Personal {
    use PersonalKind::{Card, Email, Iban, Identity, Ip, Phone};
    Personal { replace: vec![Email, Ip, Phone, Card, Iban, Identity], ..Personal::default() }
}

fn check(kind: PersonalKind, text: &str, expected: Option<&str>) {
    let settings = every_kind();
    let (clean, mut counts) = scrub(text, &settings);
    let expected = expected.map_or_else(|| text.to_owned(), |found| text.replacen(found, settings.placeholder(kind), 1));
    assert_eq!(clean, expected, "{kind:?} in {text:?}");
    assert_eq!(*counts.of(kind), u32::from(clean != text), "{kind:?} in {text:?}");
    assert_eq!(counts.total(), u32::from(clean != text), "{text:?}");
}

#[test]
fn email_addresses_go_and_what_looks_like_them_stays() {
    for (text, found) in [
        ("Write to jane.doe+list@mail.example.org.", Some("jane.doe+list@mail.example.org")),
        ("<j@x.co>", Some("j@x.co")),
        ("'o'neil@example.com'", Some("o'neil@example.com")),
        ("联系13812345678@qq.com谢谢", Some("13812345678@qq.com")),
        ("a@xn--bcher-kva.xn--p1ai", Some("a@xn--bcher-kva.xn--p1ai")),
        ("icon@2x.png", None),
        ("lodash@4.17.21 and @types/node", None),
        ("a @ b.com, a@b, @b.com, a.@b.com, a@-b.com, a@b..com", None),
    ] {
        check(PersonalKind::Email, text, found);
    }
    check(PersonalKind::Email, &format!("{}@b.com", "a".repeat(65)), None);
    check(PersonalKind::Email, &format!("{}@b.com", "a".repeat(64)), Some(&format!("{}@b.com", "a".repeat(64))));
}

#[test]
fn public_addresses_go_and_versions_stay() {
    for (text, found) in [
        ("from 93.184.216.34:80", Some("93.184.216.34")),
        ("http://93.184.216.34/x", Some("93.184.216.34")),
        ("93.184.216.0/24.", Some("93.184.216.0")),
        ("at 2606:2800:220:1:248:1893:25c8:1946, he", Some("2606:2800:220:1:248:1893:25c8:1946")),
        ("[2a00:1450:4001:81b::200e]:443", Some("2a00:1450:4001:81b::200e")),
        ("10.0.0.1 127.0.0.1 192.168.1.1 172.16.0.1 169.254.1.1 100.64.0.1 224.0.0.1 192.0.2.1 0.0.0.0", None),
        ("version 4.0.30.1, v2.3.4.5, Chrome/91.0.44.124, section 3.2.1.1", None),
        ("1.2.3 1.2.3.4.5 256.1.1.1 93.184.216.034 1.2.3.4-beta x1.2.3.4", None),
        ("2001:db8::1 fe80::1 ::1 12:30:45 std::vec 2024:01 2::3 dead::beef", None),
    ] {
        check(PersonalKind::Ip, text, found);
    }
}

#[test]
fn phone_numbers_go_where_their_form_tells() {
    for (text, found) in [
        ("call +1 (212) 736-5000 now", Some("+1 (212) 736-5000")),
        ("+12127365000", Some("+12127365000")),
        ("+44 20 7946 0958.", Some("+44 20 7946 0958")),
        ("(+44) 20 7946 0958", Some("(+44) 20 7946 0958")),
        ("+44 (0)20 7946 0958", Some("+44 (0)20 7946 0958")),
        ("+86 138 1234 5678", Some("+86 138 1234 5678")),
        ("tel:+49-30-2060900", Some("+49-30-2060900")),
        ("(212) 736-5000", Some("(212) 736-5000")),
        ("ask 212-736-5000, or", Some("212-736-5000")),
        ("1-800-736-5000", Some("1-800-736-5000")),
        ("212.736.5000", Some("212.736.5000")),
        ("我的手机号13812345678。", Some("13812345678")),
        ("010-62751234", Some("010-62751234")),
        ("03-3580-3311", Some("03-3580-3311")),
        ("01 44 27 43 21", Some("01 44 27 43 21")),
        ("030/20609001", Some("030/20609001")),
        ("on 020 7946 0958 or", Some("020 7946 0958")),
        ("Phone no. 736 5000", Some("736 5000")),
        ("Fax: 0221 1234567", Some("0221 1234567")),
    ] {
        check(PersonalKind::Phone, text, found);
    }
}

#[test]
fn rows_of_digits_are_mostly_no_phone_numbers() {
    for text in [
        "1985-1990, 2024-01-31, 01-02-2003, 12/31/1999, 20240131T120000",
        "13812345678 + 1",
        "0x13812345678",
        "1.3812345678",
        "id-212-736-5000",
        "212-736-5000-1",
        "912-011-5000",
        "01 44 27 43 21 ff 00",
        "de 01 44 27 43 21",
        "01 44 27 43 21 65",
        "ISBN 978-0-306-40615-7, ISBN 0-306-40615-2",
        "x+12127365000",
        "+10000000000",
        "1e+12127365000",
        "$212-736-5000",
        "1,000,000,000 3.14159265358979",
        "2024-01-31 12:30:45.123456+00:00",
        "call 10000000 times",
        "telling 7365000",
        "Figure 1.2.3 4567890",
        "1234567 7654321",
    ] {
        check(PersonalKind::Phone, text, None);
    }
}

#[test]
fn cards_have_an_issuer_and_a_check_digit() {
    for (text, found) in [
        ("4111 1111 1111 1111 12/27", Some("4111 1111 1111 1111")),
        ("Visa 4012888888881881", Some("4012888888881881")),
        ("3782-822463-10005", Some("3782-822463-10005")),
        ("5555-5555-5555-4444", Some("5555-5555-5555-4444")),
        ("6200000000000005", Some("6200000000000005")),
        ("4111 1111 1111 1112, 4111-1111 1111-1111, 9111111111111111, 4444444444444444", None),
        ("0.4111111111111111 a4111111111111111 4111111111111111f 41111111111111110", None),
        ("1000 4111 1111 1111 1111 2000", None),
        ("4503599627370496 9007199254740993 18446744073709551615", None),
    ] {
        check(PersonalKind::Card, text, found);
    }
}

#[test]
fn bank_accounts_have_check_digits_and_the_length_of_their_country() {
    for (text, found) in [
        ("IBAN: DE89 3704 0044 0532 0130 00.", Some("DE89 3704 0044 0532 0130 00")),
        ("GB29NWBK60161331926819", Some("GB29NWBK60161331926819")),
        ("(NO9386011117947)", Some("NO9386011117947")),
        ("DE88 3704 0044 0532 0130 00", None),
        ("XX89370400440532013000, de89370400440532013000, DE8937040044053201300", None),
        ("ADE89370400440532013000", None),
    ] {
        check(PersonalKind::Iban, text, found);
    }
}

#[test]
fn identity_numbers_have_a_province_a_date_and_a_check_digit() {
    for (text, found) in [
        ("身份证11010519491231002X。", Some("11010519491231002X")),
        ("440524188001010014", None),
        ("440308199901101512", Some("440308199901101512")),
        ("440308199901101513", None),
        ("110105194902310026", None),
        ("110105194912310021", None),
        ("990105194912310022", None),
        ("a440308199901101512", None),
    ] {
        check(PersonalKind::Identity, text, found);
    }
}

#[test]
fn only_the_kinds_that_are_named_are_replaced() {
    let text = "j@x.co 93.184.216.34 +12127365000";
    let settings = Personal { replace: vec![PersonalKind::Ip], ip: "<IP>".to_owned(), ..Personal::default() };
    let (clean, counts) = scrub(text, &settings);
    assert_eq!((&*clean, counts), ("j@x.co <IP> +12127365000", Counts { ip: 1, ..Counts::default() }));
    assert!(matches!(scrub(text, &Personal::default()), (Cow::Borrowed(_), Counts { email: 0, .. })));
    assert!(matches!(scrub("nothing in 1985", &every_kind()), (Cow::Borrowed(_), _)));
}

/// Text in which candidates touch each other.
const PIECES: &str = "(j@x\\.co|@|93\\.184\\.216\\.34|\\+12127365000|212-736-5000|4111 1111 1111 1111|DE89370400440532013000|440308199901101512|Tel\\. |13812345678|手机|[ .,:+()/a1é-]){0,12}";

proptest! {
    #[test]
    fn scrubbing_twice_changes_nothing(text in PIECES) {
        let fineweb = Personal { email: "email@example.com".to_owned(), ip: "22.214.171.124".to_owned(), ..every_kind() };
        for settings in [every_kind(), fineweb] {
            let (once, _) = scrub(&text, &settings);
            let (twice, counts) = scrub(&once, &settings);
            prop_assert_eq!(&twice, &once);
            prop_assert_eq!(counts.total(), 0);
        }
    }

    #[test]
    fn any_text_is_only_changed_where_something_was_counted(text: String) {
        let (clean, counts) = scrub(&text, &every_kind());
        prop_assert_eq!(clean == text, counts.total() == 0);
    }

    #[test]
    fn the_scan_stops_at_every_candidate(text in "[a-z@0-9]{0,100}", from in 0usize..100) {
        let expected = text.bytes().enumerate().skip(from).find(|(_, byte)| byte.is_ascii_digit() || *byte == b'@').map(|(at, _)| at);
        prop_assert_eq!(next_candidate(text.as_bytes(), from), expected.filter(|_| from < text.len()));
    }
}
