//! Each kind of list, and the ways to write one address.

use proptest::prelude::*;

use super::*;

fn blocked(lists: &[(&str, &str)]) -> Blocked {
    let named = |name: &str| lists.iter().filter(|(known, _)| *known == name).map(|(known, _)| (*known).to_owned()).collect();
    let settings = Blocklist {
        domains: named("domains"),
        urls: named("urls"),
        words: named("words"),
        soft_words: named("soft_words"),
        substrings: named("substrings"),
        ..Blocklist::default()
    };
    let read = |place: &str| Ok(lists.iter().find(|(known, _)| *known == place).expect("listed").1.as_bytes().to_vec());
    Blocked::load(&settings, &read).expect("lists")
}

fn check(blocked: &Blocked, url: &str, expected: Option<(&str, &str)>) {
    let verdict = blocked.check(url);
    assert_eq!(verdict.rejection().map(|rejection| (rejection.reason.as_ref(), rejection.detail.as_str())), expected, "{url}");
}

#[test]
fn a_domain_blocks_its_sub_domains() {
    let blocked = blocked(&[("domains", "Bad.example\n*.worse.co.uk\n192.0.2.7\ncom\n[2001:db8::1]\n")]);
    for url in ["http://bad.example", "https://a.b.BAD.example:8080/x", "bad.example./y?z", "//user:pw@bad.example/"] {
        check(&blocked, url, Some(("blocked_domain", "bad.example")));
    }
    check(&blocked, "http://www.worse.co.uk/", Some(("blocked_domain", "worse.co.uk")));
    check(&blocked, "http://192.0.2.7/", Some(("blocked_domain", "192.0.2.7")));
    check(&blocked, "http://[2001:db8::1]:80/", Some(("blocked_domain", "[2001:db8::1]")));
    for url in [
        "http://notbad.example",
        "http://bad.example.org",
        "http://good.com",
        "http://co.uk",
        "http://1.192.0.2.7/",
        "http://x/?u=bad.example",
        "",
    ] {
        check(&blocked, url, None);
    }
}

#[test]
fn an_address_matches_however_it_is_written() {
    let blocked = blocked(&[("urls", "example.org/Page\nhttps://www.example.net/?q=1#top\n")]);
    for url in ["http://example.org/Page", "https://www.example.org:443/Page/", "HTTP://EXAMPLE.ORG/Page#part"] {
        check(&blocked, url, Some(("blocked_url", "example.org/Page")));
    }
    check(&blocked, "http://example.net/?q=1", Some(("blocked_url", "example.net/?q=1")));
    for url in ["http://example.org/page", "http://example.org/Page/2", "http://example.org/", "http://sub.example.org/Page"] {
        check(&blocked, url, None);
    }
}

#[test]
fn words_are_whole_and_soft_ones_need_company() {
    let blocked = blocked(&[("words", "Foul\n"), ("soft_words", "meh\nbah\n"), ("substrings", "ev-il\n語\n")]);
    check(&blocked, "http://x.org/so/FOUL.html", Some(("blocked_word", "foul")));
    check(&blocked, "http://x.org/foulness", None);
    check(&blocked, "http://x.org/meh/meh", None);
    check(&blocked, "http://meh.org/bah", Some(("blocked_words", "bah, meh")));
    check(&blocked, "http://x.org/de-vilE/Vil", Some(("blocked_substring", "evil")));
    check(&blocked, "http://x.org/語", None);
}

#[test]
fn the_digest_is_of_the_entries() {
    let digest = |domains: &str, words: &str| blocked(&[("domains", domains), ("words", words)]).digest();
    assert_eq!(digest("a.org\nb.org\n", "x"), digest("b.org\nA.org\nb.org\n", "X"));
    assert_ne!(digest("a.org\n", "x"), digest("a.org\n", "y"));
    assert_ne!(digest("a.org\n", "x"), digest("b.org\n", "x"));
}

proptest! {
    #[test]
    fn any_address_gets_a_verdict(url in any::<String>()) {
        let blocked = blocked(&[("domains", "a.b\n"), ("urls", "a.b/c\n"), ("words", "w\n"), ("substrings", "ss\n")]);
        blocked.check(&url);
        blocked.check(&format!("http://{url}"));
    }

    #[test]
    fn every_listed_address_is_found(host in "[a-z]{1,5}(\\.[a-z]{2,4}){1,3}", path in "(/[a-zA-Z0-9._-]{1,6}){0,3}", query in "(\\?[a-z=]{1,5})?") {
        let url = format!("{host}{path}{query}");
        let blocked = blocked(&[("urls", &url)]);
        for scheme in ["", "http://", "https://"] {
            let verdict = blocked.check(&format!("{scheme}{url}"));
            prop_assert_eq!(verdict.rejection().map(|rejection| rejection.reason.as_ref()), Some("blocked_url"));
        }
    }
}
