//! Requests of a replica to its coordinator: the token, patience while the coordinator is away, the way to one that was
//! started elsewhere, refusals as errors.
//!
//! Promises: every request may be sent again, because the coordinator treats a repeated one like the first; an
//! unreachable coordinator is an error after [`PATIENCE`], not before and not never.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_schemas::wire::Refusal;
use forebay_store::Checkpoints;
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::journal;
use crate::error::{Error, Kind, Result};

/// How long a coordinator may be away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const CONNECT: Duration = Duration::from_secs(2);

/// Longer than the coordinator holds a request open.
const ANSWER: Duration = Duration::from_secs(15);

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A coordinator that is away for so long may have been started elsewhere.
const LOOK_ELSEWHERE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub(crate) struct Transport {
    http: reqwest::Client,
    // Shared by all clones, so that all go where one of them found the coordinator.
    base: Arc<RwLock<Url>>,
    elsewhere: Arc<OnceLock<Checkpoints>>,
    token: String,
}

/// Why one attempt gave no answer.
enum Failure {
    Away(String),
    Refused(Error),
}

impl Transport {
    pub(crate) fn new(url: &str, token: &str) -> Result<Self> {
        let base = Arc::new(RwLock::new(parse(url)?));
        Ok(Self { http: client()?, base, elsewhere: Arc::default(), token: token.to_owned() })
    }

    /// The same with connections of its own. A connection lives on the runtime that opened it, so another runtime needs others.
    pub(crate) fn apart(&self) -> Result<Self> {
        Ok(Self { http: client()?, ..self.clone() })
    }

    /// From now on the journal beside these checkpoints says where the coordinator is, when it is not where it was.
    pub(crate) fn follow(&self, checkpoints: Checkpoints) {
        // A second call changes nothing: a session belongs to one run.
        let _ = self.elsewhere.set(checkpoints);
    }

    async fn look_elsewhere(&self) {
        let Some(checkpoints) = self.elsewhere.get() else { return };
        match journal::newest_url(checkpoints).await.and_then(|url| url.map(|url| parse(&url)).transpose()) {
            Ok(Some(url)) => *self.base.write().unwrap_or_else(PoisonError::into_inner) = url,
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the run's journal does not say where its coordinator is"),
        }
    }

    pub(crate) async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A> {
        self.decode(self.send(Method::GET, path, &[], Bytes::new()).await?)
    }

    /// The answer; none if the coordinator has nothing to say yet.
    pub(crate) async fn post<A: DeserializeOwned>(&self, path: &str, request: &impl Serialize) -> Result<Option<A>> {
        let body = serde_json::to_vec(request).map_err(|error| Error::with_source(Kind::Internal, format!("request to {path}"), error))?;
        self.send(Method::POST, path, &[], Bytes::from(body)).await?.map(|bytes| self.decode(Some(bytes))).transpose()
    }

    /// Asks again until there is an answer.
    pub(crate) async fn ask<A: DeserializeOwned>(&self, path: &str, request: &impl Serialize) -> Result<A> {
        loop {
            if let Some(answer) = self.post(path, request).await? {
                return Ok(answer);
            }
        }
    }

    /// Sends until it arrives; the body of the answer, none for `204`.
    pub(crate) async fn send(&self, method: Method, path: &str, query: &[(&str, &str)], body: Bytes) -> Result<Option<Bytes>> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            match self.attempt(method.clone(), path, query, body.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Away(why)) if began.elapsed() > PATIENCE => {
                    let message = format!("coordinator {}: not reached for {} s: {why}", self.base(), PATIENCE.as_secs());
                    return Err(Error::new(Kind::Unavailable, message));
                }
                Err(Failure::Away(_)) => {
                    tokio::time::sleep(pause).await;
                    if began.elapsed() > LOOK_ELSEWHERE {
                        self.look_elsewhere().await;
                    }
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Bytes,
    ) -> std::result::Result<Option<Bytes>, Failure> {
        let away = |error: reqwest::Error| Failure::Away(cause(&error));
        let request = self.http.request(method, self.url(path, query)).bearer_auth(&self.token).timeout(ANSWER).body(body);
        let response = request.send().await.map_err(away)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(away)?;
        match status {
            StatusCode::NO_CONTENT => Ok(None),
            status if status.is_success() => Ok(Some(bytes)),
            StatusCode::SERVICE_UNAVAILABLE => Err(Failure::Away(self.refusal(status, &bytes).to_string())),
            status => Err(Failure::Refused(self.refusal(status, &bytes))),
        }
    }

    /// Opens the presence stream of a member; no retry and no time limit.
    pub(crate) async fn presence(&self, member: u64) -> Result<reqwest::Response> {
        let url = self.url("v1/presence", &[("member", &member.to_string())]);
        let unreached = |error: reqwest::Error| Error::new(Kind::Unavailable, format!("coordinator {}: {}", self.base(), cause(&error)));
        let response = self.http.get(url).bearer_auth(&self.token).send().await.map_err(unreached)?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let bytes = response.bytes().await.map_err(unreached)?;
        Err(self.refusal(status, &bytes))
    }

    fn base(&self) -> Url {
        self.base.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.base();
        url.set_path(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> Error {
        let kind = match status {
            StatusCode::CONFLICT => Kind::Fenced,
            StatusCode::GONE | StatusCode::SERVICE_UNAVAILABLE => Kind::Unavailable,
            _ => Kind::Invalid,
        };
        match serde_json::from_slice::<Refusal>(body) {
            Ok(refusal) => Error::new(kind, format!("coordinator {}: {}", self.base(), refusal.message)),
            Err(_) => Error::new(Kind::Invalid, format!("{} answered {status}, expected a coordinator of this version", self.base())),
        }
    }

    fn decode<A: DeserializeOwned>(&self, bytes: Option<Bytes>) -> Result<A> {
        let bytes = bytes.unwrap_or_default();
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::with_source(Kind::Invalid, format!("coordinator {}: an answer that this version does not know", self.base()), error)
        })
    }
}

fn client() -> Result<reqwest::Client> {
    // Proxies are for the outside world; a coordinator is asked directly.
    let http = reqwest::Client::builder().connect_timeout(CONNECT).no_proxy().tcp_nodelay(true).build();
    http.map_err(|error| Error::with_source(Kind::Internal, "HTTP client", error))
}

fn parse(url: &str) -> Result<Url> {
    let wrong = |why: String| Error::new(Kind::Invalid, format!("coordinator `{url}`: {why}, expected http://HOST:PORT"));
    let parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
    if parsed.scheme() != "http" || parsed.host_str().is_none() {
        return Err(wrong("found another kind of URL".to_owned()));
    }
    Ok(parsed)
}

/// The innermost cause: reqwest's own text names only the URL.
fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
