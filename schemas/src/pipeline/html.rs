//! The main content of pages: `[clean.html]`.
//!
//! The limits are on the page and not on the clock, so that a verdict does not depend on the machine.

use serde::{Deserialize, Serialize};

use crate::settings::{Invalid, check};
use crate::units::ByteSize;

/// Extraction of the main content of pages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Html {
    /// A larger page is `html_too_large`.
    pub max_page: ByteSize,
    /// A page with more tags, start and end, is `html_too_complex`; pages in the wild have 2,000, long encyclopedia
    /// articles 20,000.
    pub max_tags: u32,
    /// A page whose elements are nested deeper is `html_too_complex`; Blink flattens from 512 on.
    pub max_depth: u32,
    /// What to favour where it is doubtful whether a part is content; `precision` scored best on ScrapingHub's benchmark.
    pub favour: Favour,
    /// Whether tables are content.
    pub tables: bool,
    /// Whether the comments of readers are content.
    pub comments: bool,
}

/// What to favour in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Favour {
    /// Leave out.
    Precision,
    /// Neither.
    Balance,
    /// Keep.
    Recall,
}

impl Default for Html {
    fn default() -> Self {
        Self { max_page: ByteSize(4 << 20), max_tags: 32_000, max_depth: 256, favour: Favour::Precision, tables: true, comments: false }
    }
}

impl Html {
    /// Checks every range; `key` is where these settings are.
    pub(crate) fn validate(&self, key: &str) -> Result<(), Invalid> {
        check(&format!("{key}.max_page"), self.max_page, (1 << 10..=64 << 20).contains(&self.max_page.0), "1KiB to 64MiB")?;
        check(&format!("{key}.max_tags"), self.max_tags, (1..=1_000_000).contains(&self.max_tags), "1 to 1000000")?;
        check(&format!("{key}.max_depth"), self.max_depth, (16..=512).contains(&self.max_depth), "16 to 512")
    }
}
