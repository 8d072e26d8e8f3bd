//! The control API over HTTP: `POST /commands` takes a command and answers with JSON Lines, `GET /messages/ID` streams
//! a message's octets.
//!
//! The socket's mode decides who may connect. Who did connect is asked of the kernel, and goes into the audit line.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Json, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use bytes::Bytes;
use hyper::body::Frame;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;

use super::api::{Answer, Part, Purpose, Request};
use super::audit::Actor;
use super::operations::{Answers, Octets, Operations};
use super::socket::ControlSocket;

/// The path for commands.
pub(super) const COMMANDS: &str = "/commands";
/// The path of messages; an id follows.
pub(super) const MESSAGES: &str = "/messages/";

/// The longest command, in octets: some 500,000 ids.
const MAX_COMMAND: usize = 16 * 1024 * 1024;

/// Which part of a message is wanted, and what for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wish {
    pub(super) purpose: Purpose,
    #[serde(default)]
    pub(super) part: Part,
}

/// The user at the other end of a connection.
#[derive(Debug, Clone)]
struct Peer(Actor);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(match stream.io().peer_cred() {
            Ok(credentials) => Actor::from_uid(credentials.uid()),
            Err(_) => Actor { user: "unknown".to_owned() },
        })
    }
}

/// Serves the API until `shutdown` completes; requests under way then are finished.
///
/// # Errors
/// The socket fails.
pub async fn serve(
    socket: ControlSocket,
    operations: Operations,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let app = Router::new()
        .route(COMMANDS, post(command))
        .route(&format!("{MESSAGES}{{id}}"), get(message))
        .layer(DefaultBodyLimit::max(MAX_COMMAND))
        .with_state(operations);
    let (listener, _name) = socket.into_parts();
    axum::serve(listener, app.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(shutdown)
        .await
}

async fn command(
    State(operations): State<Operations>,
    ConnectInfo(Peer(actor)): ConnectInfo<Peer>,
    Json(request): Json<Request>,
) -> Response {
    let lines = Lines(operations.perform(request, actor));
    ([(header::CONTENT_TYPE, "application/jsonl")], Body::new(lines)).into_response()
}

async fn message(
    State(operations): State<Operations>,
    ConnectInfo(Peer(actor)): ConnectInfo<Peer>,
    Path(id): Path<String>,
    Query(wish): Query<Wish>,
) -> Response {
    match operations.message(&id, wish.part, wish.purpose, &actor).await {
        Ok(octets) => {
            ([(header::CONTENT_TYPE, "application/octet-stream")], Body::new(Pieces(octets))).into_response()
        }
        Err(failure) => (StatusCode::NOT_FOUND, failure).into_response(),
    }
}

/// Streams answers as they come, one JSON object a line. One that cannot be written breaks the connection off, so that it
/// is not missed.
struct Lines(Answers);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = serde_json::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, serde_json::Error>>> {
        self.0.poll_recv(cx).map(|answer| answer.map(|answer| line(&answer).map(Frame::data)))
    }
}

fn line(answer: &Answer) -> Result<Bytes, serde_json::Error> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    Ok(line.into())
}

/// Streams a message as it is read. A read error breaks the connection off, so that a part is never taken for the
/// whole.
struct Pieces(Octets);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
