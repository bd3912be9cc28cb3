//! As much of HTTP/1.1 as a proxy needs: where a message ends.
//!
//! Deliberately absent: meaning; heads and bodies are passed on byte by byte.

use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpStream;

/// A request or an answer as it came.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// First line and headers, with the empty line.
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// The next request of a connection; none if the peer has closed it.
    pub(super) fn request(from: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let head = head(from)?;
        if head.is_empty() {
            return Ok(None);
        }
        let mut message = Self { head, body: Vec::new() };
        message.read_body(from)?;
        Ok(Some(message))
    }

    /// The answer to a request with this method.
    pub(super) fn answer(from: &mut BufReader<TcpStream>, method: &str) -> io::Result<Self> {
        let head = head(from)?;
        if head.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut message = Self { head, body: Vec::new() };
        if method != "HEAD" && !matches!(message.status(), 100..=199 | 204 | 304) {
            message.read_body(from)?;
        }
        Ok(message)
    }

    /// The method of a request.
    pub(super) fn method(&self) -> String {
        self.first_line().split(' ').next().unwrap_or_default().to_owned()
    }

    /// Whether it puts the manifest of a version.
    pub(super) fn is_commit(&self) -> bool {
        self.method() == "PUT" && self.first_line().contains("/_forebay/versions/")
    }

    /// The status of an answer.
    pub(super) fn status(&self) -> u16 {
        self.first_line().split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub(super) fn header(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head).into_owned();
        let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    }

    fn first_line(&self) -> String {
        String::from_utf8_lossy(&self.head).lines().next().unwrap_or_default().to_owned()
    }

    fn read_body(&mut self, from: &mut BufReader<TcpStream>) -> io::Result<()> {
        if self.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return self.read_chunks(from);
        }
        let length = self.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        self.body = vec![0; length];
        from.read_exact(&mut self.body)
    }

    fn read_chunks(&mut self, from: &mut BufReader<TcpStream>) -> io::Result<()> {
        loop {
            let start = self.body.len();
            from.read_until(b'\n', &mut self.body)?;
            let line = String::from_utf8_lossy(&self.body[start..]).into_owned();
            let size = line.split(';').next().and_then(|size| u64::from_str_radix(size.trim(), 16).ok());
            let size = size.ok_or_else(|| io::Error::other(format!("chunk size {line}")))?;
            // With the line end after the chunk.
            from.take(size + 2).read_to_end(&mut self.body)?;
            if size == 0 {
                return Ok(());
            }
        }
    }
}

fn head(from: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while from.read_until(b'\n', &mut head)? > 0 {
        if head.ends_with(b"\r\n\r\n") {
            return Ok(head);
        }
    }
    match head.is_empty() {
        true => Ok(head),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
