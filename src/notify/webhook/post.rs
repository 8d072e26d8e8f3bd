//! One POST: one connection, one request; only the status of the answer matters.
//!
//! TLS uses the system's trust anchors and verifies names. A redirect is treated like any other answer that is not 2xx:
//! whoever moves the receiver has to change the configuration.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Hook, Secrets};
use crate::clock::Timestamp;
use crate::id::OutboxId;
use crate::net::{Stream, trust};

/// The time to connect, including TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The time for the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Sends events to their receiver.
pub struct Messenger {
    way: ArcSwap<Way>,
}

struct Way {
    hook: Option<Hook>,
    /// `None`: unencrypted. The error says why TLS cannot be set up.
    tls: Result<Option<Arc<ClientConfig>>, String>,
}

impl Messenger {
    /// Sends to `hook`; without one every event fails.
    pub fn new(hook: Option<Hook>) -> Self {
        Self { way: ArcSwap::from_pointee(Way::new(hook)) }
    }

    /// Changes the hook.
    pub fn adopt(&self, hook: Option<Hook>) {
        self.way.store(Arc::new(Way::new(hook)));
    }

    /// Posts one event; returns the answer, or why there was none.
    pub(in crate::notify) async fn post(
        &self,
        id: OutboxId,
        body: &[u8],
        now: Timestamp,
    ) -> Result<String, String> {
        self.way.load_full().post(id, body, now).await
    }
}

impl Way {
    fn new(hook: Option<Hook>) -> Self {
        let encrypted = hook.as_ref().is_some_and(|hook| hook.target.tls);
        let tls = if encrypted { trust::client_config(None, None).map(Some) } else { Ok(None) };
        Self { hook, tls: tls.map_err(|error| error.to_string()) }
    }

    async fn post(&self, id: OutboxId, body: &[u8], now: Timestamp) -> Result<String, String> {
        let hook = self.hook.as_ref().ok_or("[notify] webhook is not set any more")?;
        let request = request(hook, id, body, now)?;
        let stream = timeout(CONNECT_TIMEOUT, self.connect(hook));
        let stream = stream.await.map_err(|_| "it could not be reached in time".to_owned())??;
        match timeout(ANSWER_TIMEOUT, exchange(stream, request)).await {
            Ok(Ok(status)) if status.is_success() => Ok(status.to_string()),
            Ok(Ok(status)) => Err(format!("it answered {status}")),
            Ok(Err(error)) => Err(format!("it did not answer: {error}")),
            Err(_) => Err("it did not answer in time".to_owned()),
        }
    }

    async fn connect(&self, hook: &Hook) -> Result<Stream, String> {
        let target = &hook.target;
        let stream = TcpStream::connect((target.host.as_str(), target.port));
        let stream = stream.await.map_err(|error| format!("it cannot be reached: {error}"))?;
        let Some(config) = self.tls.clone()? else {
            let local = stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
            return if local {
                Ok(Stream::Plain(stream))
            } else {
                Err("it is not on this machine".to_owned())
            };
        };
        let name = ServerName::try_from(target.host.clone()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        stream.map(|stream| Stream::Client(Box::new(stream))).map_err(|error| format!("TLS: {error}"))
    }
}

fn request(hook: &Hook, id: OutboxId, body: &[u8], now: Timestamp) -> Result<Request<Full<Bytes>>, String> {
    let (id, seconds) = (format!("msg_{id}"), now.as_millis() / 1000);
    let secrets = Secrets::read(&hook.secret_file).map_err(|error| error.to_string())?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(&hook.target.path)
        .header(header::HOST, &hook.target.authority)
        .header(header::USER_AGENT, concat!("Gatepost/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .header("webhook-id", &id)
        .header("webhook-timestamp", seconds)
        .header("webhook-signature", secrets.sign(&id, seconds, body));
    request.body(Full::new(Bytes::copy_from_slice(body))).map_err(|error| error.to_string())
}

async fn exchange(stream: Stream, request: Request<Full<Bytes>>) -> Result<hyper::StatusCode, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with this function, even if the other side goes on sending.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    sender.send_request(request).await.map(|response| response.status())
}
