//! The client of the control API: asks a running `serve` over its socket.
//!
//! Answers are read line by line as they arrive; neither a list nor a message is ever in memory as a whole.

use std::path::Path;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::api::{Answer, Part, Purpose, Request};
use super::operations::{Answers, Octets};
use super::routes::{COMMANDS, MESSAGES};
use super::socket;

/// How many answers, or pieces of a message, wait for a slow reader.
const WAITING: usize = 16;
/// The longest line of an answer, in octets: an envelope of 1,000 recipients, with room to spare.
const MAX_LINE: usize = 64 * 1024 * 1024;

/// How long `serve` may take to begin its answer. It begins at once, so the duration of the command does not count.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a running `serve`.
#[derive(Debug)]
pub struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects to the `serve` that runs on `data_dir`; `None` if none runs.
    ///
    /// # Errors
    /// One runs but cannot be reached; the text says why, and what to do.
    pub async fn connect(data_dir: &Path) -> Result<Option<Self>, String> {
        let at = data_dir.join(socket::NAME);
        let stream = match socket::connect(data_dir).await {
            Ok(Some(stream)) => stream,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(format!("{}: {error}; use the user that `serve` runs as, or root", at.display()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                return Err(format!("{}: {error}; data_dir should be a folder", at.display()));
            }
            Err(error) => return Err(format!("{}: {error}", at.display())),
        };
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        tokio::spawn(async move {
            // Its errors show up in the answers.
            let _ = connection.await;
        });
        Ok(Some(Self { sender }))
    }

    /// Sends a command, and returns its answers as they arrive.
    ///
    /// # Errors
    /// `serve` does not understand it, or is gone.
    pub async fn perform(&mut self, request: &Request) -> Result<Answers, String> {
        let body = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        let response = self.send(Method::POST, COMMANDS, body.into()).await?;
        let (answers, reader) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            if let Err(failure) = read_lines(response.into_body(), &answers).await {
                let _ = answers.send(Answer::Failure(failure)).await;
            }
        });
        Ok(reader)
    }

    /// Returns a message octet for octet as it arrived, or its envelope as it is on disk.
    ///
    /// # Errors
    /// There is no such message, or `serve` is gone.
    pub async fn message(&mut self, id: &str, part: Part, purpose: Purpose) -> Result<Octets, String> {
        let purpose = match purpose {
            Purpose::Show => "show",
            Purpose::Raw => "raw",
            Purpose::Export => "export",
        };
        let part = match part {
            Part::Message => "message",
            Part::Envelope => "envelope",
        };
        let path = format!("{MESSAGES}{}?purpose={purpose}&part={part}", percent_encoded(id));
        let response = self.send(Method::GET, &path, Bytes::new()).await?;
        let (octets, reader) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let mut body = response.into_body();
            while let Some(frame) = body.frame().await {
                let piece = frame.map_err(|error| broken(&error));
                let end = piece.is_err();
                let Some(piece) = piece.map(|frame| frame.into_data().ok()).transpose() else { continue };
                if octets.send(piece).await.is_err() || end {
                    return;
                }
            }
        });
        Ok(reader)
    }

    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, String> {
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "gatepost")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let response = timeout(PATIENCE, async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        });
        let response = response.await.map_err(|_| silent())?.map_err(|error| broken(&error))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let text = response.into_body().collect().await.map_err(|error| broken(&error))?.to_bytes();
        let text = String::from_utf8_lossy(&text);
        Err(match status {
            StatusCode::NOT_FOUND if !text.is_empty() => text.into_owned(),
            _ => format!(
                "`serve` does not understand the command ({status}: {text}); restart it after an update"
            ),
        })
    }
}

async fn read_lines(mut body: Incoming, answers: &mpsc::Sender<Answer>) -> Result<(), String> {
    let mut buffer = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        let mut searched = buffer.len();
        buffer.extend_from_slice(&piece);
        while let Some(end) = memchr::memchr(b'\n', buffer.get(searched..).unwrap_or_default()) {
            let line = buffer.split_to(searched + end);
            buffer.advance(1);
            searched = 0;
            let answer = serde_json::from_slice(&line).map_err(|error| {
                format!("the answer of `serve` is not understood ({error}); restart it after an update")
            })?;
            if answers.send(answer).await.is_err() {
                return Ok(());
            }
        }
        if buffer.len() > MAX_LINE {
            return Err("the answer of `serve` is too long".to_owned());
        }
    }
    Ok(())
}

fn silent() -> String {
    format!(
        "`serve` has not answered within {} s: it is stopped, hangs, or the machine is overloaded; see its log and restart it if need be. Once it goes on it may yet do what was asked",
        PATIENCE.as_secs()
    )
}

fn broken(error: &hyper::Error) -> String {
    format!("the connection to `serve` broke: {error}; see its log, then try again")
}

/// Encodes an id as a path segment: every octet that is not a letter or digit is percent-encoded (RFC 3986 2.1).
fn percent_encoded(id: &str) -> String {
    let mut encoded = String::new();
    for octet in id.bytes() {
        if octet.is_ascii_alphanumeric() {
            encoded.push(char::from(octet));
        } else {
            encoded.push_str(&format!("%{octet:02X}"));
        }
    }
    encoded
}
