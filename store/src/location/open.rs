//! What a URL or path means: which store, which folder of it.
//!
//! Reads no object and reaches no network. An S3 URL without credentials fails here, at once, because the library's
//! last resort is to wait half a minute for the metadata service of a cloud machine.

use std::collections::HashMap;
use std::path::{Component, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use url::Url;

use super::Location;
use crate::cause::{from_io, from_object_store};
use crate::error::{Error, Kind, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// No retry starts later than this after the first attempt.
const RETRY_TIMEOUT: Duration = Duration::from_secs(8);
const RETRIES: usize = 6;

/// Variables from which the library takes the address of an S3 server.
const ENDPOINTS: [&str; 3] = ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"];

static MEMORY: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

pub(super) fn open(text: &str) -> Result<Location> {
    let Some((scheme, rest)) = text.split_once("://") else { return local(text, &expand(text)?) };
    match scheme.to_ascii_lowercase().as_str() {
        "file" => {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(invalid(text, "expected an absolute path: file:///folder"));
            }
            local(text, path)
        }
        "memory" => memory(text, rest),
        "s3" => s3(text, rest),
        _ => Err(invalid(text, &format!("unknown scheme `{scheme}`, expected file, s3, memory or a local path"))),
    }
}

fn invalid(text: &str, problem: &str) -> Error {
    // Nothing before an `@` of the authority is repeated: it may be a secret.
    let shown = match text.split_once("://") {
        Some((scheme, rest)) => match rest.split('/').next().and_then(|authority| authority.rfind('@')) {
            Some(at) => format!("{scheme}://…{}", &rest[at..]),
            None => text.to_owned(),
        },
        None => text.to_owned(),
    };
    Error::new(Kind::Invalid, format!("url `{shown}`: {problem}"))
}

fn local(text: &str, path: &str) -> Result<Location> {
    if path.is_empty() {
        return Err(invalid(text, "is empty, expected a URL or a local path"));
    }
    let absolute = std::path::absolute(path).map_err(|error| from_io(&format!("path `{text}`"), &error))?;
    let absolute = without_dots(absolute);
    let bad = || invalid(text, "is not a path that can be stored");
    let url = Url::from_file_path(&absolute).map_err(|()| bad())?;
    let root = Path::from_absolute_path(&absolute).map_err(|_| bad())?;
    Ok(Location { url, store: Arc::new(LocalFileSystem::new()), root })
}

// Textual, because the folder need not exist yet.
fn without_dots(path: PathBuf) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

/// Replaces a leading `~` and every `${NAME}` or `${NAME:-default}`.
fn expand(text: &str) -> Result<String> {
    let mut rest = text;
    let mut out = String::with_capacity(text.len());
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let inner = &rest[start + 2..];
        let end = inner.find('}').ok_or_else(|| invalid(text, "`${` without `}`"))?;
        let (name, default) = match inner[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inner[..end], None),
        };
        let set = std::env::var(name).ok().filter(|value| !value.is_empty());
        let value = set.or_else(|| default.map(str::to_owned));
        out.push_str(&value.ok_or_else(|| invalid(text, &format!("the variable {name} is not set and has no default")))?);
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    // Last, so that a default may begin with it: `${CARGO_HOME:-~/.cargo}`.
    if out == "~" || out.starts_with("~/") {
        let home = std::env::var("HOME").map_err(|_| invalid(text, "`~` needs the variable HOME, which is not set"))?;
        out.replace_range(..1, home.trim_end_matches('/'));
    }
    Ok(out)
}

fn memory(text: &str, rest: &str) -> Result<Location> {
    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
    if name.is_empty() {
        return Err(invalid(text, "expected memory://NAME"));
    }
    let url = Url::parse(&format!("memory://{rest}")).map_err(|error| invalid(text, &error.to_string()))?;
    let root = Path::parse(path).map_err(|error| invalid(text, &error.to_string()))?;
    let store = MEMORY.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default().clone();
    Ok(Location { url, store, root })
}

fn s3(text: &str, rest: &str) -> Result<Location> {
    let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.contains('@') || bucket.contains(':') {
        return Err(invalid(text, "credentials and endpoints do not belong in a URL, set the AWS_* variables"));
    }
    if bucket.is_empty() {
        return Err(invalid(text, "expected s3://bucket/prefix"));
    }
    let url = Url::parse(&format!("s3://{bucket}/{path}")).map_err(|error| invalid(text, &error.to_string()))?;
    let root = Path::parse(path).map_err(|error| invalid(text, &error.to_string()))?;
    require_credentials(text)?;
    let allow_http = std::env::var("AWS_ALLOW_HTTP").is_ok_and(|value| value == "1" || value.eq_ignore_ascii_case("true"));
    for name in ENDPOINTS {
        if let Some(problem) = std::env::var(name).ok().and_then(|value| endpoint_problem(&value, allow_http)) {
            return Err(invalid(text, &format!("{name} {problem}")));
        }
    }

    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(RetryConfig {
        backoff: BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(2), base: 2.0 },
        max_retries: RETRIES,
        retry_timeout: RETRY_TIMEOUT,
    });
    let client = ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_timeout(REQUEST_TIMEOUT).with_allow_http(allow_http);
    builder = builder.with_client_options(client);
    let store = builder.build().map_err(|error| from_object_store(&format!("store `s3://{bucket}`"), error))?;
    Ok(Location { url, store: Arc::new(store), root })
}

/// What is wrong with the address of an S3 server. The library takes an empty one for an address too, and panics.
fn endpoint_problem(value: &str, allow_http: bool) -> Option<&'static str> {
    match value.split_once("://") {
        _ if value.is_empty() => Some("is set but empty: unset it for Amazon S3, or set it to the URL of a server"),
        Some(("http", _)) if !allow_http => Some("is plain http: set AWS_ALLOW_HTTP=true to allow it"),
        Some(("http" | "https", _)) if Url::parse(value).is_ok_and(|url| url.has_host()) => None,
        _ => Some("is no URL of a server, expected http://HOST:PORT or https://HOST"),
    }
}

/// Refuses where no source of credentials is configured.
fn require_credentials(text: &str) -> Result<()> {
    let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let other = set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        || set("AWS_CONTAINER_CREDENTIALS_FULL_URI")
        || (set("AWS_WEB_IDENTITY_TOKEN_FILE") && set("AWS_ROLE_ARN"))
        || set("AWS_METADATA_ENDPOINT")
        || std::env::var("AWS_SKIP_SIGNATURE").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    let missing: Vec<&str> = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].into_iter().filter(|name| !set(name)).collect();
    if other || missing.is_empty() {
        return Ok(());
    }
    Err(invalid(
        text,
        &format!(
            "no S3 credentials: {} not set (on a cloud machine with a role, set AWS_METADATA_ENDPOINT=http://169.254.169.254)",
            missing.join(" and ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(url: &str) -> String {
        open(url).expect_err("refused").to_string()
    }

    #[test]
    fn an_unknown_scheme_is_refused_with_the_known_ones() {
        assert_eq!(message("hdfs://a/b"), "url `hdfs://a/b`: unknown scheme `hdfs`, expected file, s3, memory or a local path");
    }

    #[test]
    fn a_secret_in_a_url_is_refused_and_not_repeated() {
        let error = message("s3://key:hunter2@bucket/x");
        assert!(error.contains("do not belong in a URL") && !error.contains("hunter2"), "{error}");
        assert!(!message("ftp://user:hunter2@host/x").contains("hunter2"));
    }

    #[test]
    fn paths_are_expanded_and_made_absolute() {
        let home = std::env::var("HOME").expect("HOME");
        assert_eq!(open("~/lake").expect("home").url().path(), format!("{}/lake", home.trim_end_matches('/')));
        assert_eq!(open("${FOREBAY_NO_SUCH:-/tmp}/x/../y").expect("default").url().as_str(), "file:///tmp/y");
        assert!(message("${FOREBAY_NO_SUCH}/x").contains("FOREBAY_NO_SUCH is not set"));
        assert!(message("${FOREBAY").contains("without `}`"));
        let here = std::env::current_dir().expect("working directory");
        assert_eq!(open("a/./b").expect("relative").url().path(), here.join("a/b").to_str().expect("text"));
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for (value, expected) in
            [("", "is set but empty"), ("http://", "is no URL"), ("ftp://host", "is no URL"), ("host:9000", "is no URL")]
        {
            let problem = endpoint_problem(value, true);
            assert!(problem.is_some_and(|problem| problem.starts_with(expected)), "{value}: {problem:?}");
        }
        assert!(endpoint_problem("http://host:9000", false).is_some_and(|problem| problem.contains("AWS_ALLOW_HTTP=true")));
        assert_eq!((endpoint_problem("http://host:9000", true), endpoint_problem("https://host", false)), (None, None));
    }

    #[test]
    fn half_a_url_is_refused() {
        assert!(message("file://relative").contains("file:///folder"));
        assert!(message("memory://").contains("memory://NAME"));
        assert!(message("s3:///x").contains("s3://bucket/prefix"));
        assert!(message("").contains("is empty"));
    }
}
