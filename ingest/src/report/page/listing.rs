//! A configuration as people wrote it: TOML, sections by their full names.
//!
//! For reading only: what has no TOML, such as null, is a comment. Bounded, so that a list of a million keys does not make
//! the page.

use serde_json::{Map, Value};

/// Lines shown.
const MAX_LINES: usize = 1_000;
/// Entries shown of a list.
const MAX_ENTRIES: usize = 100;
/// Characters of a line.
const MAX_LINE_CHARS: usize = 2_000;

/// The listing as plain text, to be escaped.
pub(super) fn toml(config: &Value) -> String {
    let mut lines = Vec::new();
    match config {
        Value::Object(settings) => section(&mut lines, "", settings),
        other => lines.push(inline(other)),
    }
    if lines.len() > MAX_LINES {
        let more = lines.len() - MAX_LINES;
        lines.truncate(MAX_LINES);
        lines.push(format!("# and {more} more lines"));
    }
    lines.iter().map(|line| super::markup::clip(line, MAX_LINE_CHARS) + "\n").collect()
}

fn section(lines: &mut Vec<String>, path: &str, settings: &Map<String, Value>) {
    if lines.len() > MAX_LINES {
        return;
    }
    let (tables, values): (Vec<_>, Vec<_>) = settings.iter().partition(|(_, value)| value.is_object());
    if !path.is_empty() && (!values.is_empty() || tables.is_empty()) {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(format!("[{path}]"));
    }
    for (name, value) in values {
        match value {
            Value::Null => lines.push(format!("# {} is not set", key(name))),
            value => lines.push(format!("{} = {}", key(name), inline(value))),
        }
    }
    for (name, value) in tables {
        let Value::Object(inner) = value else { continue };
        let path = if path.is_empty() { key(name) } else { format!("{path}.{}", key(name)) };
        section(lines, &path, inner);
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        // A JSON string is a basic string of TOML.
        Value::String(_) => value.to_string(),
        Value::Array(entries) => {
            let shown: Vec<String> = entries.iter().take(MAX_ENTRIES).map(inline).collect();
            let more = entries.len().saturating_sub(MAX_ENTRIES);
            let more = if more > 0 { format!(" # and {more} more") } else { String::new() };
            format!("[{}]{more}", shown.join(", "))
        }
        Value::Object(settings) => {
            let shown: Vec<String> = settings.iter().map(|(name, value)| format!("{} = {}", key(name), inline(value))).collect();
            format!("{{ {} }}", shown.join(", "))
        }
    }
}

fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { name.to_owned() } else { Value::String(name.to_owned()).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_come_before_sections_and_sections_have_full_names() {
        let config = json!({"source": {"url": "file:///a\"b", "include": ["*.rs", "*.py"], "formats": {"depth": 3}}, "dataset": "d",
            "dedup": {"near": true, "threshold": 0.75, "file": null}, "empty": {}, "a key": 1});
        let expected = "\
\"a key\" = 1
dataset = \"d\"

[dedup]
# file is not set
near = true
threshold = 0.75

[empty]

[source]
include = [\"*.rs\", \"*.py\"]
url = \"file:///a\\\"b\"

[source.formats]
depth = 3
";
        assert_eq!(toml(&config), expected);
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let config = json!({"keys": (0..1_000).collect::<Vec<u32>>(), "many": (0..2_000).map(|n| (format!("k{n}"), json!(n))).collect::<Map<_, _>>()});
        let text = toml(&config);
        assert!(text.contains("98, 99] # and 900 more\n") && text.ends_with("more lines\n"));
        assert_eq!(text.lines().count(), MAX_LINES + 1);
    }

    #[test]
    fn what_is_no_table_is_listed_as_it_is() {
        assert_eq!((toml(&json!(null)), toml(&json!([1, {"a": 2}]))), ("\"\"\n".to_owned(), "[1, { a = 2 }]\n".to_owned()));
    }
}
