//! The coordinator's HTTP routes: they check the token, parse, and pass on; every decision is the service's.
//!
//! Promises: no answer without the token; a request that waits is answered within [`HOLD`], with `204` if nothing was
//! decided; the end of a presence stream is reported at once.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use forebay_schemas::wire::{Member, Presence, Publish, Refusal, RunInfo};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use super::owner::Command;
use super::rendezvous::{Keys, Over};
use super::service::{Refused, Request as Asked};

/// How long a request is held open while there is nothing to say.
const HOLD: Duration = Duration::from_secs(10);

/// A report holds one entry a micro-batch, of about 120 bytes.
const MAX_BODY_BYTES: usize = 32 << 20;

/// Events that a presence stream may lag behind before it is given up.
const PRESENCE_BACKLOG: usize = 64;

pub(crate) struct Served {
    pub(crate) info: RunInfo,
    pub(crate) token_digest: [u8; 32],
    pub(crate) beat: Duration,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) keys: Arc<Keys>,
}

/// What is compared instead of the token: comparing digests takes a time that says nothing about the token.
pub(crate) fn token_digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

pub(crate) fn routes(served: Arc<Served>) -> Router {
    Router::new()
        .route("/v1/run", get(run))
        .route("/v1/status", get(status))
        .route("/v1/presence", get(presence))
        .route("/v1/join", post(join))
        .route("/v1/renew", post(renew))
        .route("/v1/leave", post(leave))
        .route("/v1/assignment", post(assignment))
        .route("/v1/finish", post(finish))
        .route("/v1/fail", post(fail))
        .route("/v1/checkpoint", post(checkpoint))
        .route("/v1/key", get(get_key).put(set_key).post(add_key))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(Arc::clone(&served), authenticate))
        .with_state(served)
}

type Shared = State<Arc<Served>>;

async fn authenticate(State(served): Shared, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if token_digest(shown) != served.token_digest {
        let message = "the token is missing or not that of this run".to_owned();
        return refusal(StatusCode::UNAUTHORIZED, "unauthorized", message);
    }
    next.run(request).await
}

async fn run(State(served): Shared) -> Response {
    axum::Json(&served.info).into_response()
}

async fn status(State(served): Shared) -> Response {
    answer(&served, Asked::Status).await
}

async fn join(State(served): Shared, body: Bytes) -> Response {
    forward(&served, &body, Asked::Join).await
}

async fn renew(State(served): Shared, body: Bytes) -> Response {
    forward(&served, &body, |of: Member| Asked::Renew(of.member)).await
}

async fn leave(State(served): Shared, body: Bytes) -> Response {
    forward(&served, &body, |of: Member| Asked::Leave(of.member)).await
}

async fn assignment(State(served): Shared, body: Bytes) -> Response {
    forward(&served, &body, Asked::Ready).await
}

async fn finish(State(served): Shared, body: Bytes) -> Response {
    forward(&served, &body, Asked::Finish).await
}

async fn fail(State(served): Shared, body: Bytes) -> Response {
    forward(&served, &body, Asked::Fail).await
}

async fn checkpoint(State(served): Shared, body: Bytes) -> Response {
    forward(&served, &body, |publish: Publish| Asked::Publish(publish.member, Box::new(publish.manifest))).await
}

#[derive(serde::Deserialize)]
struct OfMember {
    member: u64,
}

/// Holds the connection open, with a line a beat and a line for everything that the member must know at once.
async fn presence(State(served): Shared, Query(of): Query<OfMember>) -> Response {
    let (sender, receiver) = mpsc::channel(PRESENCE_BACKLOG);
    let member = of.member;
    let (reply, connected) = oneshot::channel();
    let connection = match ask(&served, Command::Connect(member, sender, reply), connected).await {
        Ok(Some(connection)) => connection,
        Ok(None) => return StatusCode::NO_CONTENT.into_response(),
        Err(refused) => return refused.into_response(),
    };
    let farewell = Farewell { member, connection, commands: served.commands.clone() };
    let beat = tokio::time::interval(served.beat);
    let lines = futures::stream::unfold((receiver, beat, farewell), |(mut receiver, mut beat, farewell)| async {
        let line = tokio::select! {
            biased;
            event = receiver.recv() => event?,
            _ = beat.tick() => Presence::Beat,
        };
        let mut line = serde_json::to_vec(&line).ok()?;
        line.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(line)), (receiver, beat, farewell)))
    });
    Body::from_stream(lines).into_response()
}

/// Dropped with the stream, which is when the connection ends.
struct Farewell {
    member: u64,
    connection: u64,
    commands: mpsc::Sender<Command>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        // A full queue loses this; the lease still notices.
        let _ = self.commands.try_send(Command::Disconnect(self.member, self.connection));
    }
}

#[derive(serde::Deserialize)]
struct OfKey {
    generation: u64,
    key: String,
    #[serde(default)]
    wait_ms: u64,
}

async fn get_key(State(served): Shared, Query(of): Query<OfKey>) -> Response {
    let patience = Duration::from_millis(of.wait_ms).min(HOLD);
    match served.keys.wait(of.generation, &of.key, patience).await {
        Ok(Some(value)) => value.into_response(),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(Over) => over(of.generation),
    }
}

async fn set_key(State(served): Shared, Query(of): Query<OfKey>, value: Bytes) -> Response {
    match served.keys.set(of.generation, &of.key, value) {
        Ok(()) => axum::Json(()).into_response(),
        Err(Over) => over(of.generation),
    }
}

async fn add_key(State(served): Shared, Query(of): Query<OfKey>, body: Bytes) -> Response {
    let amount = match parse::<i64>(&body) {
        Ok(amount) => amount,
        Err(response) => return *response,
    };
    match served.keys.add(of.generation, &of.key, amount) {
        Ok(sum) => axum::Json(sum).into_response(),
        Err(Over) => over(of.generation),
    }
}

fn over(generation: u64) -> Response {
    refusal(StatusCode::GONE, "over", format!("generation {generation} is over"))
}

async fn forward<Q: DeserializeOwned>(served: &Served, body: &Bytes, request: impl FnOnce(Q) -> Asked) -> Response {
    match parse(body) {
        Ok(body) => answer(served, request(body)).await,
        Err(response) => *response,
    }
}

async fn answer(served: &Served, request: Asked) -> Response {
    let (reply, answer) = oneshot::channel();
    match ask(served, Command::Request(request, reply), answer).await {
        Ok(Some(answer)) => axum::Json(answer).into_response(),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(refused) => refused.into_response(),
    }
}

async fn ask<A>(served: &Served, command: Command, answer: oneshot::Receiver<Result<A, Refused>>) -> Result<Option<A>, Refused> {
    let gone = || Refused::Unavailable("the coordinator is stopping".to_owned());
    served.commands.send(command).await.map_err(|_| gone())?;
    match tokio::time::timeout(HOLD, answer).await {
        Ok(Ok(answer)) => answer.map(Some),
        // Replaced by a later request of the same member, or the owner ended.
        Ok(Err(_)) if served.commands.is_closed() => Err(gone()),
        Ok(Err(_)) | Err(_) => Ok(None),
    }
}

fn parse<Q: DeserializeOwned>(body: &Bytes) -> Result<Q, Box<Response>> {
    serde_json::from_slice(body).map_err(|error| Box::new(refusal(StatusCode::BAD_REQUEST, "invalid", format!("request body: {error}"))))
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Fenced(message) => refusal(StatusCode::CONFLICT, "fenced", message),
            Self::Invalid(message) => refusal(StatusCode::BAD_REQUEST, "invalid", message),
            Self::Unavailable(message) => refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message),
        }
    }
}

fn refusal(status: StatusCode, kind: &str, message: String) -> Response {
    (status, axum::Json(Refusal { kind: kind.to_owned(), message })).into_response()
}
