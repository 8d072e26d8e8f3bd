//! A scripted upstream for tests: what it says and what it must hear, in order, one script per connection.
//!
//! Each step is a line: `> text` is sent (adjacent ones in one write), `< text` must be heard next, `<+ text` must have
//! come in the same segment as what was heard before, `pause 100` waits that many milliseconds, `close` hangs up, `tls`
//! takes over as the TLS server, `drip` sends what follows octet by octet. A script at its end reads until the client
//! hangs up. Every wait has a deadline, and all octets heard are kept.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::net::Stream;

/// The longest that any step may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// What one connection heard, or where the client left the script.
type Heard = Result<Vec<u8>, String>;

pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    playing: JoinHandle<Vec<JoinHandle<Heard>>>,
    accepted: Arc<AtomicUsize>,
}

impl Scripted {
    pub(super) async fn start(scripts: &[&str]) -> Self {
        Self::start_with_tls(scripts, None).await
    }

    pub(super) async fn start_with_tls(scripts: &[&str], tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scripts: Vec<String> = scripts.iter().map(|&script| script.to_owned()).collect();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        let playing = tokio::spawn(async move {
            let mut playing = Vec::new();
            for script in scripts {
                let Ok(Ok((stream, _))) = timeout(DEADLINE, listener.accept()).await else {
                    break;
                };
                stream.set_nodelay(true).unwrap();
                counter.fetch_add(1, Ordering::Relaxed);
                let tls = tls.clone();
                playing.push(tokio::spawn(async move {
                    let mut player = Player {
                        stream: Some(Stream::Plain(stream)),
                        tls,
                        heard: Vec::new(),
                        read: 0,
                        drip: false,
                    };
                    player.play(&script).await.map(|()| player.heard)
                }));
            }
            playing
        });
        Self { address, playing, accepted }
    }

    /// Counts the connections so far.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Returns what each connection heard. Panics if a script was not played to its end.
    pub(super) async fn finish(self, connections: usize) -> Vec<String> {
        let playing = timeout(DEADLINE * 2, self.playing).await.unwrap().unwrap();
        assert_eq!(playing.len(), connections, "connections");
        let mut all = Vec::new();
        for (number, one) in playing.into_iter().enumerate() {
            match timeout(DEADLINE, one).await.unwrap().unwrap() {
                Ok(heard) => all.push(String::from_utf8_lossy(&heard).into_owned()),
                Err(why) => panic!("connection {}: {why}", number + 1),
            }
        }
        all
    }
}

impl Scripted {
    /// Returns what the only connection heard, or why it left the script.
    pub(super) async fn playing(self) -> String {
        let mut playing = self.playing.await.unwrap();
        match playing.remove(0).await.unwrap() {
            Ok(heard) => String::from_utf8_lossy(&heard).into_owned(),
            Err(why) => why,
        }
    }
}

struct Player {
    stream: Option<Stream>,
    tls: Option<Arc<rustls::ServerConfig>>,
    heard: Vec<u8>,
    /// How much of `heard` the script has consumed.
    read: usize,
    drip: bool,
}

impl Player {
    async fn play(&mut self, script: &str) -> Result<(), String> {
        let mut said = String::new();
        for step in script.lines().map(str::trim).filter(|step| !step.is_empty()) {
            if let Some(text) = step.strip_prefix("> ") {
                said.push_str(text);
                said.push_str("\r\n");
                continue;
            }
            self.say(&mut said).await?;
            if let Some(text) = step.strip_prefix("<+").map(str::trim_start) {
                if !self.heard[self.read..].contains(&b'\n') {
                    return Err(format!("`{text}` did not come in the same segment"));
                }
                self.hear(text).await?;
            } else if let Some(text) = step.strip_prefix("< ") {
                self.hear(text).await?;
            } else if step == "tls" {
                let Some(Stream::Plain(stream)) = self.stream.take() else { return Err("TLS twice".into()) };
                self.stream = Some(self.accept(stream).await?);
            } else if let Some(millis) = step.strip_prefix("pause ") {
                let millis = millis.parse().map_err(|_| format!("no time: {millis}"))?;
                sleep(Duration::from_millis(millis)).await;
            } else if step == "drip" {
                self.drip = true;
            } else if step == "close" {
                return Ok(());
            } else {
                return Err(format!("no step: {step}"));
            }
        }
        self.say(&mut said).await?;
        while self.listen().await? > 0 {}
        Ok(())
    }

    async fn accept(&self, stream: TcpStream) -> Result<Stream, String> {
        let config = self.tls.clone().ok_or("no TLS configuration")?;
        let accepting = TlsAcceptor::from(config).accept(stream);
        let stream = timeout(DEADLINE, accepting).await.map_err(|_| "no TLS handshake")?;
        Ok(Stream::Server(Box::new(stream.map_err(|error| error.to_string())?)))
    }

    async fn say(&mut self, said: &mut String) -> Result<(), String> {
        let stream = self.stream.as_mut().ok_or("no stream")?;
        for piece in said.as_bytes().chunks(if self.drip { 1 } else { said.len().max(1) }) {
            stream.write_all(piece).await.map_err(|error| error.to_string())?;
            stream.flush().await.map_err(|error| error.to_string())?;
            tokio::task::yield_now().await;
        }
        said.clear();
        Ok(())
    }

    async fn hear(&mut self, expected: &str) -> Result<(), String> {
        loop {
            let unread = &self.heard[self.read..];
            if let Some(end) = unread.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&unread[..end]).into_owned();
                self.read += end + 2;
                return if line == expected {
                    Ok(())
                } else {
                    Err(format!("heard `{line}` instead of `{expected}`"))
                };
            }
            if self.listen().await? == 0 {
                return Err(format!("the client hung up instead of `{expected}`"));
            }
        }
    }

    /// Reads once. A reset counts as the end too.
    async fn listen(&mut self) -> Result<usize, String> {
        let stream = self.stream.as_mut().ok_or("no stream")?;
        let mut chunk = vec![0; 64 * 1024];
        let count = timeout(DEADLINE, stream.read(&mut chunk))
            .await
            .map_err(|_| "the client neither spoke nor hung up".to_owned())?
            .unwrap_or(0);
        self.heard.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}
