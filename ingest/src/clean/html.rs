//! The main content of a page, without navigation, advertisements and boilerplate: the algorithm of trafilatura
//! (Barbaresi 2021) with its fallbacks, from the crate of that name.
//!
//! Promises: bounded time without a clock. The crate cannot be interrupted, so pages beyond what its work was measured to
//! grow with are rejected before it sees them; the same page has the same verdict on every machine. A panic inside it
//! condemns the page.
//! Deliberately absent: running scripts, and metadata other than the title.

use std::panic::{AssertUnwindSafe, catch_unwind};

use forebay_schemas::pipeline::html::{Favour, Html};
use trafilatura::dom::Document;
use trafilatura::{ExtractionFocus, Options, TrafilaturaError};

use super::Rejection;

mod limits;
mod lines;
#[cfg(test)]
mod tests;

/// The reason of a page that has nothing but boilerplate.
pub(crate) const NO_CONTENT: &str = "html_no_content";

/// The content of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extracted {
    /// A paragraph, list item or row of a table is a line.
    pub(crate) text: String,
    /// None if the page has none.
    pub(crate) title: Option<String>,
}

/// The content of a page; a page without any is [`NO_CONTENT`].
pub(crate) fn extract(html: &str, settings: &Html) -> Result<Extracted, Rejection> {
    if html.len() as u64 > settings.max_page.0 {
        return Err(Rejection::new("html_too_large", format!("{} bytes", html.len())));
    }
    if let Some(detail) = limits::before_parsing(html, settings) {
        return Err(Rejection::new("html_too_complex", detail));
    }
    // Nothing outlives the closure, so nothing can be seen half changed.
    catch_unwind(AssertUnwindSafe(|| content(html, settings)))
        .unwrap_or_else(|_| Err(Rejection::new("html_failed", "the extractor panicked")))
}

fn content(html: &str, settings: &Html) -> Result<Extracted, Rejection> {
    let page = Document::parse(html);
    if let Some(detail) = limits::after_parsing(&page, settings) {
        return Err(Rejection::new("html_too_complex", detail));
    }
    let focus = match settings.favour {
        Favour::Precision => ExtractionFocus::FavorPrecision,
        Favour::Balance => ExtractionFocus::Balanced,
        Favour::Recall => ExtractionFocus::FavorRecall,
    };
    let options = Options::default()
        .with_fallback(true)
        .with_focus(focus)
        .with_exclude_tables(!settings.tables)
        .with_exclude_comments(!settings.comments);
    let none = |detail: &str| Rejection::new(NO_CONTENT, detail);
    let found = trafilatura::extract_document(page, &options).map_err(|error: TrafilaturaError| none(&error.to_string()))?;
    let mut text = lines::lines(&found.content_html);
    if settings.comments && !found.comments_html.is_empty() {
        text.push_str(&lines::lines(&found.comments_html));
    }
    if text.is_empty() {
        return Err(none("nothing but boilerplate"));
    }
    let title = found.metadata.title.trim();
    Ok(Extracted { text, title: (!title.is_empty()).then(|| title.to_owned()) })
}
