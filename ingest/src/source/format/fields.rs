//! The few fields of a JSON value that a record is made of, by their dotted paths.
//!
//! One pass over the value, borrowing from it; everything else is passed over unparsed, without recursion, so that deep
//! nesting costs no stack. Of a name given twice the last one counts. Deliberately absent: lists within a path.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Fields that can be asked for at once.
pub(super) const FIELDS: usize = 2;

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    Number(String),
    /// Something else, named for people.
    Other(&'static str),
}

impl<'a> Value<'a> {
    /// A label: a text or a number.
    pub(super) fn label(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(number) => Some(Cow::Owned(number)),
            Self::Other(_) => None,
        }
    }
}

/// Paths of the fields asked for. The first is also where a value that is nothing but a string belongs.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    paths: [Vec<String>; FIELDS],
}

impl Fields {
    pub(super) fn new(paths: [&str; FIELDS]) -> Self {
        Self { paths: paths.map(|path| path.split('.').map(str::to_owned).collect()) }
    }

    /// What `json`, one value and nothing else, has in the fields.
    pub(super) fn find<'a>(&self, json: &'a str) -> serde_json::Result<[Option<Value<'a>>; FIELDS]> {
        let mut found = [const { None }; FIELDS];
        let mut parser = serde_json::Deserializer::from_str(json);
        let at = At { paths: &self.paths, depth: 0, open: [true; FIELDS], found: &mut found };
        at.deserialize(&mut parser)?;
        parser.end()?;
        Ok(found)
    }
}

/// Whether `json` is one value and nothing else, whatever its strings mean.
pub(super) fn check(json: &str) -> serde_json::Result<()> {
    let mut parser = serde_json::Deserializer::from_str(json);
    IgnoredAny::deserialize(&mut parser)?;
    parser.end()
}

/// A value below `depth` names; `open` are the paths that lead through it.
struct At<'p, 'f, 'de> {
    paths: &'p [Vec<String>; FIELDS],
    depth: usize,
    open: [bool; FIELDS],
    found: &'f mut [Option<Value<'de>>; FIELDS],
}

impl<'de> At<'_, '_, 'de> {
    /// Puts a value where a path ends here.
    fn put(&mut self, value: Value<'de>) {
        let mut last = None;
        for field in 0..FIELDS {
            // A string without any object around it is the first field.
            let bare = self.depth == 0 && field == 0 && matches!(value, Value::Text(_));
            if self.open[field] && (bare || self.paths[field].len() == self.depth) {
                // Only two paths that are the same cost a copy.
                if let Some(earlier) = last.replace(field) {
                    self.found[earlier] = Some(value.clone());
                }
            }
        }
        if let Some(field) = last {
            self.found[field] = Some(value);
        }
    }
}

impl<'de> DeserializeSeed<'de> for At<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_borrowed_str<E>(mut self, text: &'de str) -> Result<(), E> {
        self.put(Value::Text(Cow::Borrowed(text)));
        Ok(())
    }

    fn visit_str<E>(mut self, text: &str) -> Result<(), E> {
        self.put(Value::Text(Cow::Owned(text.to_owned())));
        Ok(())
    }

    fn visit_bool<E>(mut self, _: bool) -> Result<(), E> {
        self.put(Value::Other("a truth value"));
        Ok(())
    }

    fn visit_i64<E>(mut self, number: i64) -> Result<(), E> {
        self.put(Value::Number(number.to_string()));
        Ok(())
    }

    fn visit_u64<E>(mut self, number: u64) -> Result<(), E> {
        self.put(Value::Number(number.to_string()));
        Ok(())
    }

    fn visit_f64<E>(mut self, number: f64) -> Result<(), E> {
        self.put(Value::Number(number.to_string()));
        Ok(())
    }

    fn visit_unit<E>(mut self) -> Result<(), E> {
        self.put(Value::Other("null"));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        self.put(Value::Other("a list"));
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.put(Value::Other("an object"));
        let name = Name { paths: self.paths, depth: self.depth, open: self.open };
        while let Some(open) = map.next_key_seed(name)? {
            if open.contains(&true) {
                map.next_value_seed(At { paths: self.paths, depth: self.depth + 1, open, found: self.found })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// A name in an object: the paths that go on with it.
#[derive(Clone, Copy)]
struct Name<'p> {
    paths: &'p [Vec<String>; FIELDS],
    depth: usize,
    open: [bool; FIELDS],
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = [bool; FIELDS];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name<'_> {
    type Value = [bool; FIELDS];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(std::array::from_fn(|field| self.open[field] && self.paths[field].get(self.depth).is_some_and(|part| part == name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(json: &str) -> [Option<Value<'_>>; FIELDS] {
        Fields::new(["text", "meta.url"]).find(json).expect("json")
    }

    fn text(text: &str) -> Option<Value<'_>> {
        Some(Value::Text(Cow::Borrowed(text)))
    }

    #[test]
    fn fields_are_found_by_their_paths() {
        assert_eq!(find(r#"{"id":1,"text":"a","meta":{"x":[{"text":"no"}],"url":"u"}}"#), [text("a"), text("u")]);
        assert_eq!(find(r#"{"meta":"m","text":null}"#), [Some(Value::Other("null")), None]);
        assert_eq!(find(r#"{"text":"a","text":"b"}"#), [text("b"), None]);
        assert_eq!(find(r#""bare""#), [text("bare"), None]);
        assert_eq!(find(r#"{"text":{"text":"a"}}"#), [Some(Value::Other("an object")), None]);
        assert_eq!(find(r#"{"text":12}"#), [Some(Value::Number("12".to_owned())), None]);
    }

    #[test]
    fn a_text_without_escapes_is_borrowed() {
        let [Some(Value::Text(Cow::Borrowed(text))), None] = find(r#"{"text":"plain"}"#) else { panic!("copied") };
        assert_eq!(text, "plain");
    }

    #[test]
    fn deep_nesting_in_other_fields_costs_no_stack() {
        let deep = format!("{{\"x\":{}{},\"text\":\"a\"}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert_eq!(find(&deep), [text("a"), None]);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(written in ".*", url in ".*") {
            let json = serde_json::json!({"a": [1, {"text": 2}], "meta": {"url": url}, "text": written}).to_string();
            prop_assert_eq!(find(&json), [text(&written), text(&url)]);
        }
    }
}
