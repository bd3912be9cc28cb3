//! Extracted markup to lines of text: blocks begin a line, blanks become one, preformatted text stays as it is.
//!
//! Reads only markup that a serialiser has written, so every `<` begins a tag and only five entities occur.

/// The text of `html`; every line ends with LF.
pub(super) fn lines(html: &str) -> String {
    let mut text = Text { lines: String::with_capacity(html.len() / 2), blank: false, preformatted: 0 };
    let mut rest = html;
    while let Some(start) = memchr::memchr(b'<', rest.as_bytes()) {
        text.push(&rest[..start]);
        let end = memchr::memchr(b'>', &rest.as_bytes()[start..]).map_or(rest.len(), |end| start + end);
        text.tag(&rest[start + 1..end]);
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    text.push(rest);
    text.end_line();
    text.lines
}

struct Text {
    lines: String,
    /// Whether a blank is due before the next word.
    blank: bool,
    /// How many preformatted elements are open.
    preformatted: usize,
}

impl Text {
    fn push(&mut self, mut raw: &str) {
        while let Some(at) = memchr::memchr(b'&', raw.as_bytes()) {
            self.words(&raw[..at]);
            let entity = ENTITIES.iter().find(|(name, _)| raw[at..].starts_with(name));
            let (name, value) = entity.copied().unwrap_or(("&", "&"));
            self.words(value);
            raw = &raw[at + name.len()..];
        }
        self.words(raw);
    }

    fn words(&mut self, raw: &str) {
        if self.preformatted > 0 {
            return self.lines.push_str(raw);
        }
        for c in raw.chars() {
            if c.is_whitespace() {
                self.blank = true;
            } else {
                if self.blank && !self.lines.is_empty() && !self.lines.ends_with('\n') {
                    self.lines.push(' ');
                }
                self.blank = false;
                self.lines.push(c);
            }
        }
    }

    fn tag(&mut self, tag: &str) {
        let close = tag.starts_with('/');
        let name = tag.trim_start_matches('/');
        let name = &name[..name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len())];
        match name {
            "td" | "th" => self.blank = true,
            name if BLOCKS.contains(&name) => self.end_line(),
            _ => {}
        }
        if name == "pre" {
            self.preformatted = if close { self.preformatted.saturating_sub(1) } else { self.preformatted + 1 };
        }
    }

    fn end_line(&mut self) {
        self.lines.truncate(self.lines.trim_end_matches([' ', '\t']).len());
        if !self.lines.is_empty() && !self.lines.ends_with('\n') {
            self.lines.push('\n');
        }
        self.blank = false;
    }
}

const ENTITIES: [(&str, &str); 5] = [("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&nbsp;", "\u{A0}")];

const BLOCKS: [&str; 38] = [
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "br",
    "caption",
    "dd",
    "details",
    "div",
    "dl",
    "dt",
    "figcaption",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "html",
    "item",
    "lb",
    "li",
    "list",
    "main",
    "ol",
    "p",
    "pre",
    "row",
    "section",
    "table",
    "tr",
    "ul",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_are_lines_and_blanks_are_one() {
        for (html, expected) in [
            ("<div><p>One <b>bold</b>\n word.</p><p> Two&nbsp;three </p></div>", "One bold word.\nTwo three\n"),
            ("<ul><li>a</li><li>b<br>c</li></ul>", "a\nb\nc\n"),
            ("<table><tr><td>x</td><td>y</td></tr><tr><th>z</th></tr></table>", "x y\nz\n"),
            ("<pre>fn main() {\n    1 &lt; 2 &amp;&amp; x\n}</pre><p>after", "fn main() {\n    1 < 2 && x\n}\nafter\n"),
            ("AT&T <a href=\"x\">R&amp;D</a>", "AT&T R&D\n"),
            ("", ""),
            ("<p> </p>", ""),
        ] {
            assert_eq!(lines(html), expected, "{html}");
        }
    }

    proptest! {
        #[test]
        fn every_word_comes_out_once(words in prop::collection::vec("[a-z]{1,5}", 0..20), tags in prop::collection::vec("<(p|b|li|/div|td|br)>", 20)) {
            let html: String = words.iter().zip(&tags).map(|(word, tag)| format!("{tag} {word} ")).collect();
            let text = lines(&html);
            prop_assert_eq!(text.split_whitespace().collect::<Vec<_>>(), words);
            prop_assert!(text.is_empty() || text.ends_with('\n'));
        }
    }
}
