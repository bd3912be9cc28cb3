//! How the formats of raw objects are read: `[source.formats]`.
//!
//! Names of fields, and limits that keep a hostile archive from taking the machine. Deliberately absent: which format an
//! object has; its name and its first bytes say so.

use serde::{Deserialize, Serialize};

use crate::settings::{Invalid, check};
use crate::units::ByteSize;

/// Formats of raw objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Formats {
    /// JSON, CSV, Parquet, XML dumps: the field with the text, a dotted path such as `content.body`. `text` as in C4,
    /// FineWeb and Dolma.
    pub text_field: String,
    /// The field with the address that the text came from, a dotted path; it may be missing.
    pub url_field: String,
    /// Images in Parquet: the column with the picture, binary or a struct of `bytes` and `path` as Hugging Face writes it.
    pub image_field: String,
    /// Images in Parquet and in the `.json` of a WebDataset sample: the field with the class; it may be missing.
    pub class_field: String,
    /// CSV and TSV: the first row names the columns. Without one the columns are named `1`, `2`, and so on.
    pub header: bool,
    /// CSV and TSV: what separates fields, one ASCII character; none goes by the extension.
    pub delimiter: Option<char>,
    /// CSV and TSV: fields may stand in double quotes (RFC 4180). Many TSV dumps have none, and stray quotes as text.
    pub quoted: bool,
    /// A container that unpacks to more than this many times its packed bytes is a `bomb`, from 16 MiB on: a small file may
    /// well be that regular. 1,000 is about the limit of deflate, 1,032.
    pub max_ratio: u64,
    /// Containers within containers, compression counted too: `a.tar.gz` has two.
    pub max_nesting: u32,
    /// Members of one archive; what is beyond is one record, `too_many_members`.
    pub max_members: u64,
    /// Formats that are read from their end (zip, Parquet) are spooled to a temporary file, at most this large.
    pub max_spooled: ByteSize,
}

impl Default for Formats {
    fn default() -> Self {
        Self {
            text_field: "text".to_owned(),
            url_field: "url".to_owned(),
            image_field: "image".to_owned(),
            class_field: "label".to_owned(),
            header: true,
            delimiter: None,
            quoted: true,
            max_ratio: 1_000,
            max_nesting: 4,
            max_members: 10_000_000,
            max_spooled: ByteSize(8 << 30),
        }
    }
}

impl Formats {
    /// Checks every range; `key` is the table, such as `source.formats`.
    pub fn validate(&self, key: &str) -> Result<(), Invalid> {
        let key = |name: &str| format!("{key}.{name}");
        for (name, path) in [
            ("text_field", &self.text_field),
            ("url_field", &self.url_field),
            ("image_field", &self.image_field),
            ("class_field", &self.class_field),
        ] {
            check(&key(name), path, path.split('.').all(|part| !part.is_empty()), "a name, or names joined by dots")?;
        }
        let delimiter = self.delimiter.map(|delimiter| format!("{delimiter:?}")).unwrap_or_default();
        let separates = self.delimiter.is_none_or(|delimiter| delimiter.is_ascii() && !matches!(delimiter, '"' | '\r' | '\n'));
        check(&key("delimiter"), delimiter, separates, "one ASCII character other than a quote or a line end")?;
        check(&key("max_ratio"), self.max_ratio, self.max_ratio >= 2, "at least 2")?;
        check(&key("max_nesting"), self.max_nesting, (1..=16).contains(&self.max_nesting), "1 to 16")?;
        check(&key("max_members"), self.max_members, self.max_members > 0, "at least 1")?;
        check(&key("max_spooled"), self.max_spooled, self.max_spooled.0 >= 1 << 20, "at least 1MiB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Formats::default().validate("source.formats"), Ok(()));
    }

    #[test]
    fn a_setting_out_of_range_is_named() {
        let broken = |change: fn(&mut Formats)| {
            let mut formats = Formats::default();
            change(&mut formats);
            formats.validate("source.formats").expect_err("out of range").to_string()
        };
        let found = broken(|formats| formats.text_field = "a..b".to_owned());
        assert_eq!(found, "setting `source.formats.text_field`: found a..b, expected a name, or names joined by dots");
        assert!(broken(|formats| formats.delimiter = Some('\n')).contains("delimiter"));
        assert!(broken(|formats| formats.delimiter = Some('、')).contains("delimiter"));
        assert!(broken(|formats| formats.max_nesting = 0).contains("1 to 16"));
        assert!(broken(|formats| formats.max_ratio = 1).contains("at least 2"));
    }
}
