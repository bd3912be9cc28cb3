//! How settings are put together and refused: file < environment < flag.
//!
//! Pure: the caller reads the file and the environment. An unknown key is an error that names it, a value out of range
//! is [`Invalid`] with the key, the value and what was expected. Deliberately absent: silent defaults for misspellings.

use std::fmt::Display;

use serde::de::DeserializeOwned;

/// A setting out of range.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("setting `{key}`: found {found}, expected {expected}")]
pub struct Invalid {
    /// Dotted key.
    pub key: String,
    /// The value found.
    pub found: String,
    /// What was expected.
    pub expected: String,
}

/// `Ok` if `holds`, else the error that names the setting.
pub fn check(key: &str, found: impl Display, holds: bool, expected: &str) -> Result<(), Invalid> {
    if holds {
        return Ok(());
    }
    let found = found.to_string();
    Err(Invalid { key: key.to_owned(), found: if found.is_empty() { "nothing".to_owned() } else { found }, expected: expected.to_owned() })
}

/// Settings could not be read.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// The text is not TOML.
    #[error("{origin}, line {line}: {message}")]
    Syntax {
        /// The file.
        origin: String,
        /// Line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A key or value does not fit the settings.
    #[error("{origin}: {message}")]
    Shape {
        /// The file and what was laid over it.
        origin: String,
        /// What does not fit.
        message: String,
    },
    /// An override is not `key=value`.
    #[error("override `{found}`: expected key=value, for example train.steps=100")]
    Override {
        /// The override.
        found: String,
    },
}

/// Prefix of environment variables that override settings: `FOREBAY_SET_DEDUP__NEAR=false` is `dedup.near = false`.
pub const ENVIRONMENT_PREFIX: &str = "FOREBAY_SET_";

/// Reads settings from TOML text, then environment variables with [`ENVIRONMENT_PREFIX`], then `key=value` overrides.
///
/// `origin` names the text in errors. A value of an override is TOML where it parses as such, else a string.
pub fn layered<T: DeserializeOwned>(
    origin: &str,
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: &[String],
) -> Result<T, SettingsError> {
    let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        SettingsError::Syntax { origin: origin.to_owned(), line, message: one_line(error.message()) }
    })?;
    let mut variables: Vec<_> = environment
        .into_iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(ENVIRONMENT_PREFIX)?.to_lowercase().replace("__", "."), value)))
        .collect();
    variables.sort();
    for (key, value) in &variables {
        place(&mut table, key, value)?;
    }
    for item in overrides {
        let (key, value) = item.split_once('=').ok_or_else(|| SettingsError::Override { found: item.clone() })?;
        place(&mut table, key.trim(), value.trim())?;
    }
    let mut origin = origin.to_owned();
    if !variables.is_empty() || !overrides.is_empty() {
        origin.push_str(" with overrides");
    }
    table.try_into().map_err(|error: toml::de::Error| SettingsError::Shape { origin, message: one_line(&error.to_string()) })
}

fn place(table: &mut toml::Table, key: &str, value: &str) -> Result<(), SettingsError> {
    let bad = || SettingsError::Override { found: format!("{key}={value}") };
    let mut path: Vec<&str> = key.split('.').collect();
    let last = path.pop().filter(|last| !last.is_empty()).ok_or_else(bad)?;
    let mut here = table;
    for part in path {
        let next = here.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        here = next.as_table_mut().ok_or_else(bad)?;
    }
    let parsed = format!("value = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
    here.insert(last.to_owned(), parsed.unwrap_or_else(|| toml::Value::String(value.to_owned())));
    Ok(())
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Pipeline;

    const TEXT: &str = "dataset = 'lake/x'\n[source]\nmodality = 'text'\nurl = 'raw'\n";

    fn read(text: &str, environment: &[(&str, &str)], overrides: &[&str]) -> Result<Pipeline, String> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let overrides: Vec<String> = overrides.iter().map(|s| (*s).to_owned()).collect();
        layered("x.toml", text, environment, &overrides).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let environment = [("FOREBAY_SET_DEDUP__THRESHOLD", "0.5"), ("FOREBAY_SET_DEDUP__NEAR", "false"), ("OTHER", "1")];
        let pipeline = read(TEXT, &environment, &["dedup.threshold=0.9", "source.max_record=1MiB"]).expect("settings");
        assert_eq!((pipeline.dedup.threshold, pipeline.dedup.near), (0.9, false));
        assert_eq!(pipeline.source.max_record.0, 1 << 20);
    }

    #[test]
    fn a_misspelt_key_is_named() {
        let error = read(&format!("{TEXT}[dedup]\nthreshhold = 1.0\n"), &[], &[]).expect_err("misspelt");
        assert!(error.contains("threshhold") && error.contains("threshold") && !error.contains('\n'), "{error}");
        let error = read(TEXT, &[], &["dedup.neer=true"]).expect_err("misspelt");
        assert!(error.contains("neer"), "{error}");
    }

    #[test]
    fn bad_syntax_names_file_and_line() {
        let error = read("dataset = 'x'\n[source\n", &[], &[]).expect_err("syntax");
        assert!(error.starts_with("x.toml, line 2:"), "{error}");
        assert!(read(TEXT, &[], &["nonsense"]).expect_err("override").contains("key=value"));
    }

    #[test]
    fn a_value_out_of_range_names_key_value_and_range() {
        let pipeline = read(TEXT, &[], &["split.validation=0.9"]).expect("settings");
        let error = pipeline.validate().expect_err("range").to_string();
        assert_eq!(error, "setting `split.validation`: found 0.9, expected 0 to 0.5");
    }

    #[test]
    fn limits_and_place_do_not_change_the_digest() {
        let plain = read(TEXT, &[], &[]).expect("settings");
        let moved = read(TEXT, &[], &["limits.threads=1", "dataset=elsewhere", "format=parquet"]).expect("settings");
        let other = read(TEXT, &[], &["dedup.near=false"]).expect("settings");
        assert_eq!(plain.digest(), moved.digest());
        assert_ne!(plain.digest(), other.digest());
    }
}
