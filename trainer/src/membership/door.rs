//! Doors: each replica keeps one open, at which the others knock when a collective has failed by itself. So it is known which
//! line is cut where the coordinator reaches everybody.
//!
//! Promises: a process that is dead or frozen counts as reached as long as its host answers; these are noticed by other
//! means. Deliberately absent: anything said through a door.

use std::time::Duration;

use futures::future::join_all;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::error::{Error, Kind, Result};

/// A host that has not answered by then is not reached.
const PATIENCE: Duration = Duration::from_millis(1_000);

/// A pause after a connection could not be accepted, for want of file descriptors for example.
const PAUSE: Duration = Duration::from_millis(100);

/// A door of this process under `host`, and where it is. Open until the task is aborted or its runtime ends.
pub(crate) async fn open(host: &str) -> Result<(String, JoinHandle<()>)> {
    let cannot = |error| {
        Error::with_source(Kind::Invalid, format!("host `{host}`: cannot listen there, expected an address of this machine"), error)
    };
    let listener = TcpListener::bind((host, 0)).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?.to_string();
    let accept = async move {
        loop {
            if listener.accept().await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    };
    Ok((address, tokio::spawn(accept)))
}

/// Those of `doors` whose hosts answer, and those that do not.
pub(crate) async fn knock(doors: &[String]) -> (Vec<String>, Vec<String>) {
    let answers = join_all(doors.iter().map(|door| async move { (door.clone(), answers(door).await) })).await;
    let (reached, unreached): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, answered)| *answered);
    let doors = |answers: Vec<(String, bool)>| answers.into_iter().map(|(door, _)| door).collect();
    (doors(reached), doors(unreached))
}

async fn answers(door: &str) -> bool {
    match tokio::time::timeout(PATIENCE, TcpStream::connect(door)).await {
        Ok(Ok(_)) => true,
        // Nobody is at home, but the host is there.
        Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_is_there_answers_even_if_the_process_is_gone() {
        let (open, task) = open("127.0.0.1").await.unwrap();
        let (closed, gone) = super::open("127.0.0.1").await.unwrap();
        gone.abort();
        assert!(gone.await.is_err());
        // No host has this name (RFC 2606).
        let nowhere = "nowhere.invalid:9".to_owned();
        assert_eq!(knock(&[open.clone(), nowhere.clone(), closed.clone()]).await, (vec![open, closed], vec![nowhere]));
        task.abort();
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_an_error() {
        let error = open("192.0.2.1").await.unwrap_err();
        assert!(error.to_string().contains("192.0.2.1"), "{error}");
    }
}
