//! The S3 server of the tests, and a proxy in front of it that fails on purpose.
//!
//! The proxy speaks plain HTTP/1.1 with the bytes as they come: the signature covers the `Host` that the client sent, so
//! nothing is rewritten. Deliberately absent: TLS, and requests of unknown length, which the client never sends.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::corpus::Corpus;

pub(crate) mod http;
pub(crate) mod proxy;

/// A prefix that no other test or run uses.
pub(crate) struct Bucket {
    pub(crate) url: String,
    pub(crate) endpoint: String,
}

/// A fresh folder on the server of the tests; none without one.
pub(crate) fn folder(name: &str) -> Option<Bucket> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(url), Some(endpoint)) = (variable("FOREBAY_TEST_S3"), variable("AWS_ENDPOINT_URL")) else {
        eprintln!("skipped: no S3 server (FOREBAY_TEST_S3 unset)");
        return None;
    };
    if !endpoint.starts_with("http://") {
        eprintln!("skipped: {endpoint} is not plain http, which the proxy needs");
        return None;
    }
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("clock").as_nanos();
    Some(Bucket { url: format!("{}/chaos-{name}-{nanos}", url.trim_end_matches('/')), endpoint })
}

impl Bucket {
    /// Puts raw files below `raw/`, past any proxy. By `curl`, which can sign and which the server's start needs as well.
    pub(crate) fn put(&self, corpus: &Corpus) {
        let place = tempfile::tempdir().expect("folder");
        let secret = |name: &str| std::env::var(name).expect("credentials");
        let user = format!("{}:{}", secret("AWS_ACCESS_KEY_ID"), secret("AWS_SECRET_ACCESS_KEY"));
        let region = std::env::var("AWS_REGION").unwrap_or_else(|_| "us-east-1".to_owned());
        let base = format!("{}/{}/raw", self.endpoint.trim_end_matches('/'), self.url.trim_start_matches("s3://"));
        let mut settings = String::new();
        for (at, (name, bytes)) in corpus.files.iter().enumerate() {
            let file = place.path().join(at.to_string());
            std::fs::write(&file, bytes).expect("file");
            settings += &format!(
                "{}url = \"{base}/{name}\"\nupload-file = \"{}\"\nuser = \"{user}\"\naws-sigv4 = \"aws:amz:{region}:s3\"\n\
                 header = \"x-amz-content-sha256: UNSIGNED-PAYLOAD\"\nnoproxy = \"*\"\nfail\nsilent\nshow-error\n",
                if at == 0 { "" } else { "next\n" },
                file.display()
            );
        }
        let mut curl = Command::new("curl").args(["-K", "-"]).stdin(Stdio::piped()).spawn().expect("curl");
        curl.stdin.take().expect("input").write_all(settings.as_bytes()).expect("settings");
        assert!(curl.wait().expect("curl").success(), "the raw files could not be put");
    }
}
