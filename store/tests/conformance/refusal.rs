//! Stores that are not what they should be.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use forebay_store::commit::{put_if_absent, require_put_if_absent};
use forebay_store::{Kind, Location, Outcome};
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use url::Url;

/// What is wrong with a store.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It takes every put.
    Ignores,
    /// It knows no condition.
    Declines,
    /// It stores, and the answer is lost.
    LosesAnswers,
    /// It has no room.
    Full,
}

#[derive(Debug)]
struct Faulty {
    store: InMemory,
    fault: Fault,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let generic = |source: std::io::Error| Error::Generic { store: "faulty", source: source.into() };
        if matches!(options.mode, PutMode::Create) {
            match self.fault {
                Fault::Ignores => options.mode = PutMode::Overwrite,
                Fault::Declines => return Err(Error::NotImplemented { operation: "conditional put".into(), implementer: "faulty".into() }),
                Fault::Full => return Err(generic(std::io::ErrorKind::StorageFull.into())),
                Fault::LosesAnswers => {
                    self.store.put_opts(path, payload, options).await?;
                    return Err(generic(std::io::ErrorKind::ConnectionReset.into()));
                }
            }
        }
        self.store.put_opts(path, payload, options).await
    }
    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(path, options).await
    }
    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.store.get_opts(path, options).await
    }
    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(paths)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

fn faulty(fault: Fault) -> Location {
    let url = Url::parse("faulty://store/lake").expect("url");
    Location::from_store(url, Arc::new(Faulty { store: InMemory::new(), fault }), Path::from("lake"))
}

#[tokio::test]
async fn a_store_without_put_if_absent_is_refused() {
    for (fault, why) in [(Fault::Ignores, "a second put over the same object succeeded"), (Fault::Declines, "it says that it cannot")] {
        let error = require_put_if_absent(&faulty(fault)).await.expect_err("refused");
        assert_eq!(error.kind(), Kind::Invalid);
        let expected = format!("store `faulty://store/lake` does not honour put-if-absent: {why}; use ");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
    let error = put_if_absent(&faulty(Fault::Declines), "x", Bytes::from("x")).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Invalid);
}

#[tokio::test]
async fn a_lost_answer_is_read_back() {
    let location = faulty(Fault::LosesAnswers);
    assert_eq!(put_if_absent(&location, "x", Bytes::from("mine")).await.expect("put"), Outcome::Committed);
    assert_eq!(put_if_absent(&location, "x", Bytes::from("theirs")).await.expect("put"), Outcome::Lost);
}

#[tokio::test]
async fn a_full_store_says_so() {
    let error = put_if_absent(&faulty(Fault::Full), "x", Bytes::from("x")).await.expect_err("full");
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (Kind::Unavailable, "object `faulty://store/lake/x`: no space left on the store")
    );
}

/// Environment variables belong to the process, so what depends on them runs in one of its own.
fn child(name: &str, variables: &[(&str, &str)]) -> String {
    let mut command = std::process::Command::new(std::env::current_exe().expect("test binary"));
    command.args(["--exact", name, "--ignored", "--nocapture"]);
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("AWS_")) {
        command.env_remove(key);
    }
    let output = command.envs(variables.iter().copied()).output().expect("child");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text
}

#[tokio::test]
#[ignore = "run by the tests below, with variables of its own"]
async fn opens_s3() {
    let found = match Location::open("s3://bucket/prefix").await {
        Ok(location) => {
            assert!(!format!("{location:?}").contains("SECRET"));
            location.get("x").await.expect_err("nobody answers")
        }
        Err(error) => error,
    };
    println!("found {:?}: {found}", found.kind());
}

#[test]
fn s3_without_credentials_fails_at_once_and_names_the_variables() {
    let began = Instant::now();
    let text = child("refusal::opens_s3", &[("AWS_ACCESS_KEY_ID", "KEY")]);
    assert!(text.contains("found Invalid: url `s3://bucket/prefix`: no S3 credentials: AWS_SECRET_ACCESS_KEY not set"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_dead_endpoint_is_unavailable_within_fifteen_seconds() {
    let began = Instant::now();
    // A port that was free a moment ago: nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("port").port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let variables =
        [("AWS_ACCESS_KEY_ID", "KEY"), ("AWS_SECRET_ACCESS_KEY", "SECRET"), ("AWS_ENDPOINT_URL", &endpoint), ("AWS_REGION", "x")];
    let text = child("refusal::opens_s3", &variables);
    assert!(text.contains("found Invalid") && text.contains("AWS_ALLOW_HTTP"), "{text}");
    let text = child("refusal::opens_s3", &[variables.as_slice(), &[("AWS_ALLOW_HTTP", "true")]].concat());
    assert!(text.contains("found Unavailable: object `s3://bucket/prefix/x`: ") && !text.contains("SECRET"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}
