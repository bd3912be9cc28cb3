//! A proxy in front of the S3 server that fails some requests, each in a way in which networks and stores really fail.
//!
//! Which request fails is drawn from a seed. Promises: what it does not fail it passes on unchanged, and a failure is one
//! that an honest store may show; it never answers for a put that it did not pass on. Deliberately absent: delays.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use super::http::Message;
use crate::chance::Chance;

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// 500, and the server never sees the request.
    Internal,
    /// 503, as a store answers to too many requests.
    SlowDown,
    /// 409 to a put-if-absent that the server never sees: another one is under way.
    Conflict,
    /// 409 to a put-if-absent that the server has carried out.
    ConflictAfterwards,
    /// 412 to a put-if-absent that the server has carried out: a retry of a gateway met the first attempt.
    RefusedAfterwards,
    /// The connection breaks before the server sees the request.
    LostRequest,
    /// The server carries it out, and the connection breaks before the answer.
    LostAnswer,
    /// Half of the body of a GET, then the connection breaks.
    Truncated,
}

use Fault::{Conflict, ConflictAfterwards, Internal, LostAnswer, LostRequest, RefusedAfterwards, SlowDown, Truncated};

/// A proxy at work. It ends with the process.
pub(crate) struct Proxy {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
}

struct State {
    chance: Chance,
    share: f64,
    /// How the next put of a manifest of a version fails.
    commit: Option<Fault>,
    requests: u64,
    faults: BTreeMap<Fault, u64>,
}

impl Proxy {
    /// Starts a proxy in front of `endpoint` that fails this share of the requests.
    pub(crate) fn start(endpoint: &str, share: f64, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let address = listener.local_addr().expect("address");
        let server = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let state = Arc::new(Mutex::new(State { chance: Chance::new(seed), share, commit: None, requests: 0, faults: BTreeMap::new() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (server, state) = (server.clone(), Arc::clone(&shared));
                // A connection that breaks is what this is about.
                std::thread::spawn(move || drop(serve(client, &server, &state)));
            }
        });
        Self { endpoint: format!("http://{address}"), state }
    }

    /// Fails another share of the requests from now on.
    pub(crate) fn set_share(&self, share: f64) {
        lock(&self.state).share = share;
    }

    /// Fails the next put of the manifest of a version, once.
    pub(crate) fn fail_commits(&self, fault: Fault) {
        lock(&self.state).commit = Some(fault);
    }

    /// Requests so far, and the faults among them.
    pub(crate) fn counts(&self) -> (u64, BTreeMap<Fault, u64>) {
        let state = lock(&self.state);
        (state.requests, state.faults.clone())
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Whether and how a request fails.
    fn draw(&mut self, request: &Message) -> Option<Fault> {
        self.requests += 1;
        if request.is_commit()
            && let Some(fault) = self.commit.take()
        {
            *self.faults.entry(fault).or_default() += 1;
            return Some(fault);
        }
        if self.chance.share() >= self.share {
            return None;
        }
        let faults: &[Fault] = match request.method().as_str() {
            "PUT" if request.header("if-none-match").is_some() => {
                &[Internal, SlowDown, LostRequest, LostAnswer, LostAnswer, Conflict, ConflictAfterwards, RefusedAfterwards]
            }
            "GET" => &[Internal, SlowDown, LostRequest, LostAnswer, Truncated, Truncated],
            _ => &[Internal, SlowDown, LostRequest, LostAnswer],
        };
        let fault = faults[self.chance.below(faults.len())];
        *self.faults.entry(fault).or_default() += 1;
        Some(fault)
    }
}

/// Serves the requests of a connection until a fault breaks it.
fn serve(client: TcpStream, server: &str, state: &Mutex<State>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let server = TcpStream::connect(server)?;
    server.set_nodelay(true)?;
    let (mut client, mut server) = (BufReader::new(client), BufReader::new(server));
    while let Some(request) = Message::request(&mut client)? {
        let fault = lock(state).draw(&request);
        match fault {
            Some(LostRequest) => return Ok(()),
            Some(Internal) => refuse(&mut client, 500, "InternalError")?,
            Some(SlowDown) => refuse(&mut client, 503, "SlowDown")?,
            Some(Conflict) => refuse(&mut client, 409, "ConditionalRequestConflict")?,
            _ => {
                let answer = forward(&request, &mut server)?;
                match fault {
                    Some(LostAnswer) => return Ok(()),
                    Some(ConflictAfterwards) => refuse(&mut client, 409, "ConditionalRequestConflict")?,
                    Some(RefusedAfterwards) => refuse(&mut client, 412, "PreconditionFailed")?,
                    Some(Truncated) => {
                        let half = &answer.body[..answer.body.len() / 2];
                        return client.get_mut().write_all(&[&answer.head, half].concat());
                    }
                    _ => client.get_mut().write_all(&[&answer.head[..], &answer.body].concat())?,
                }
            }
        }
    }
    Ok(())
}

fn forward(request: &Message, server: &mut BufReader<TcpStream>) -> io::Result<Message> {
    server.get_mut().write_all(&[&request.head[..], &request.body].concat())?;
    Message::answer(server, &request.method())
}

/// An answer of the proxy's own.
fn refuse(client: &mut BufReader<TcpStream>, status: u16, code: &str) -> io::Result<()> {
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code></Error>");
    let head = format!("HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n", body.len());
    client.get_mut().write_all(&[head.as_bytes(), body.as_bytes()].concat())
}
