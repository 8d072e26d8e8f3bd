//! The client's octets: buffered lines in, whole replies out, every wait with a deadline.
//!
//! The buffers grow on demand and are freed when empty, since most connections are idle.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use memchr::memchr_iter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use zeroize::{Zeroize as _, Zeroizing};

use crate::net::tls::Acceptor;
use crate::net::{self, Stream, TimeLimit};
use crate::session::LineError;
use crate::smtp::command::{HTTP_METHOD, is_http_method};
use crate::smtp::line::{Frame, Framer};
use crate::smtp::{Command, CommandError};

/// The longest command line with its CRLF, in octets (CONTRACT; RFC 5321 4.5.3.1.4 asks for at least 512).
pub(super) const MAX_COMMAND_LINE: usize = 4_096;
/// How much memory for replies a client that is silent keeps, in octets: enough for those to a message with five recipients.
const KEPT_OUTBOUND: usize = 256;
/// The longest AUTH command or SASL response with its CRLF, in octets: 12,288 without the CRLF in RFC 4954 4.
pub(super) const MAX_SASL_LINE: usize = 12_288 + 2;
/// Octets per read while commands are expected; under TLS it is whole records.
const COMMAND_READ: usize = 1_024;
/// Octets per read when more of a batch may be available.
const BATCH_READ: usize = 8 * 1_024;
/// Octets per read while mail data is expected: the slower it comes, the fewer.
const DATA_READ: std::ops::RangeInclusive<usize> = 8 * 1_024..=32 * 1_024;
/// How many reads may be discarded before a handshake: whoever sends more than that behind STARTTLS wants none.
const DISCARDED_READS: usize = 16;
/// How long the client may take to accept all replies of one flush before it counts as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why nothing more comes.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// The client closed the connection, or it was given up before.
    #[error("the client closed the connection")]
    Closed,
    /// Nothing came in time, or not enough.
    #[error("timed out")]
    TimedOut,
    /// The service is shutting down.
    #[error("the service is shutting down")]
    Interrupted,
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// How a line begins: what must be known of it before it is whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beginning {
    /// A TLS record.
    Tls,
    /// An HTTP request.
    Http,
    /// AUTH, whose line may be longer.
    Auth,
    /// BDAT, which a chunk follows.
    Chunk,
    /// RCPT, whose errors do not count.
    Rcpt,
    /// Anything else, or too little to tell.
    Other,
}

impl Beginning {
    fn of(octets: &[u8]) -> Self {
        if begins_as(b"RCPT", octets) {
            Self::Rcpt
        } else if begins_as(b"BDAT", octets) {
            Self::Chunk
        } else if begins_as_auth(octets) {
            Self::Auth
        } else if begins_as_tls(octets) {
            Self::Tls
        } else if begins_as_http(octets) {
            Self::Http
        } else {
            Self::Other
        }
    }
}

/// What happens to a line's octets in the buffer once it has been taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    AsItIs,
    /// They may contain a password, and are overwritten.
    Wiped,
}

/// One client connection.
pub(super) struct Client {
    stream: Option<Stream>,
    time_limit: TimeLimit,
    inbound: BytesMut,
    framer: Framer,
    /// Replies not yet sent.
    pub outbound: Vec<u8>,
    /// How the current line begins.
    beginning: Beginning,
    /// Octets of mail data per read, within [`DATA_READ`].
    data_read: usize,
    /// Why the last [`Self::pass_on`] could not.
    loss: Option<Lost>,
}

impl Client {
    /// Takes over a connection.
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream: Some(stream),
            time_limit: TimeLimit::default(),
            inbound: BytesMut::new(),
            framer: Framer::default(),
            outbound: Vec::new(),
            beginning: Beginning::Other,
            data_read: *DATA_READ.start(),
            loss: None,
        }
    }

    /// Returns the underlying stream.
    pub(super) fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }

    /// Takes the next command, if a whole line is buffered.
    pub(super) fn buffered_command(&mut self) -> Option<Result<Command, LineError>> {
        // Commands may follow mail data in its last TLS record.
        self.gather();
        if !self.framer.is_overflowing() {
            self.beginning = Beginning::of(&self.inbound);
        }
        let (limit, too_long, kept) = match self.beginning {
            // Whatever else is wrong with the line, and however long it is.
            Beginning::Tls => return Some(Err(self.another(LineError::TlsHello))),
            Beginning::Http => return Some(Err(self.another(LineError::Command(CommandError::Http)))),
            Beginning::Auth => (MAX_SASL_LINE, LineError::AuthTooLong, Kept::Wiped),
            Beginning::Rcpt => (MAX_COMMAND_LINE, LineError::RcptTooLong, Kept::AsItIs),
            Beginning::Chunk | Beginning::Other => (MAX_COMMAND_LINE, LineError::TooLong, Kept::AsItIs),
        };
        let found =
            self.frame(limit, too_long, kept, |line| Command::parse(line).map_err(LineError::Command))?;
        Some(found.map_err(|error| match (error, self.beginning) {
            // Where the chunk ends is unknown, and its octets must not be taken for commands.
            (
                LineError::TooLong | LineError::Fault | LineError::Command(CommandError::Character),
                Beginning::Chunk,
            ) => LineError::Command(CommandError::ChunkSize),
            (LineError::Fault, Beginning::Rcpt) => LineError::RcptFault,
            (error, _) => error,
        }))
    }

    /// Drops what another protocol's client has sent.
    fn another(&mut self, protocol: LineError) -> LineError {
        self.inbound = BytesMut::new();
        protocol
    }

    /// Takes the next response of a SASL exchange, if a whole line is buffered.
    pub(super) fn buffered_response(&mut self) -> Option<Result<Zeroizing<Vec<u8>>, LineError>> {
        let take = |line: &[u8]| Ok(Zeroizing::new(line.to_vec()));
        self.frame(MAX_SASL_LINE, LineError::AuthTooLong, Kept::Wiped, take)
    }

    fn frame<T>(
        &mut self,
        limit: usize,
        too_long: LineError,
        kept: Kept,
        take: impl FnOnce(&[u8]) -> Result<T, LineError>,
    ) -> Option<Result<T, LineError>> {
        let (found, consumed) = match self.framer.frame(&self.inbound, limit) {
            Frame::Incomplete { consumed } => (None, consumed),
            Frame::Line { line, consumed } => (Some(take(line)), consumed),
            Frame::TooLong { consumed } => (Some(Err(too_long)), consumed),
            Frame::Faulty { consumed } => (Some(Err(LineError::Fault)), consumed),
        };
        if kept == Kept::Wiped
            && let Some(octets) = self.inbound.get_mut(..consumed)
        {
            octets.zeroize();
        }
        self.drop_front(consumed);
        found
    }

    /// An upper bound for the number of buffered RCPT commands.
    pub(super) fn rcpts_at_most(&self) -> usize {
        let begins = |at: usize| self.inbound.get(at).is_some_and(|octet| octet.eq_ignore_ascii_case(&b'r'));
        usize::from(begins(0)) + memchr_iter(b'\n', &self.inbound).filter(|end| begins(end + 1)).count()
    }

    /// Returns unconsumed mail data, or the beginning of it. A record decrypted by TLS is not copied for this.
    pub(super) fn buffered(&mut self) -> &[u8] {
        match &mut self.stream {
            Some(stream) if self.inbound.is_empty() => stream.decrypted(),
            _ => &self.inbound,
        }
    }

    /// Drops octets from the front of what [`Self::buffered`] returned.
    pub(super) fn consume(&mut self, octets: usize) {
        match &mut self.stream {
            Some(stream) if self.inbound.is_empty() => stream.used(octets),
            _ => self.drop_front(octets),
        }
    }

    fn drop_front(&mut self, octets: usize) {
        self.inbound.advance(octets.min(self.inbound.len()));
        if self.inbound.is_empty() && self.inbound.capacity() > 0 {
            self.inbound = BytesMut::new();
        }
    }

    /// Waits for more octets of a command. If given, `shutdown` turning true ends the wait.
    ///
    /// # Errors
    /// See [`Lost`].
    pub(super) async fn read_command(
        &mut self,
        deadline: Option<Instant>,
        shutdown: Option<&mut watch::Receiver<bool>>,
    ) -> Result<(), Lost> {
        let read = self.read(COMMAND_READ, deadline);
        match shutdown {
            None => read.await.map(drop),
            Some(shutdown) => tokio::select! {
                biased;
                read = read => read.map(drop),
                _ = shutdown.wait_for(|down| *down) => Err(Lost::Interrupted),
            },
        }
    }

    /// Takes more octets of commands if they are already there; returns whether there were any.
    ///
    /// # Errors
    /// See [`Lost`].
    pub(super) async fn read_ready(&mut self) -> Result<bool, Lost> {
        let mut read = pin!(self.read(BATCH_READ, None));
        match poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
            Poll::Ready(read) => read.map(|_| true),
            Poll::Pending => Ok(false),
        }
    }

    /// Flushes the replies (RFC 2920 3.2: chunks in a batch), then waits for more octets of mail data; returns how many
    /// came.
    ///
    /// # Errors
    /// See [`Lost`].
    pub(super) async fn read_data(&mut self, deadline: Instant) -> Result<usize, Lost> {
        self.flush().await?;
        if matches!(self.stream, Some(Stream::Server(_))) {
            return self.decrypt(deadline).await;
        }
        let octets = self.read(self.data_read, Some(deadline)).await?;
        self.data_read = (2 * octets).clamp(*DATA_READ.start(), *DATA_READ.end());
        Ok(octets)
    }

    /// Waits for mail data that TLS decrypts, and returns how much came. A single record stays where it is, unless
    /// undecided octets are buffered before it.
    async fn decrypt(&mut self, deadline: Instant) -> Result<usize, Lost> {
        // Decrypted octets that are still here have been examined and left, since they need more: they go first.
        self.gather();
        let stream = self.stream.as_mut().ok_or(Lost::Closed)?;
        self.time_limit.until(deadline, stream.readable()).await.ok_or(Lost::TimedOut)??;
        let octets = stream.decrypted().len();
        let in_place = self.inbound.is_empty() && octets == stream.decrypted_in_all();
        let octets = if in_place { octets } else { self.gather() };
        if octets == 0 { Err(Lost::Closed) } else { Ok(octets) }
    }

    /// Takes over everything that TLS has decrypted, from any number of records, and returns how much it was.
    fn gather(&mut self) -> usize {
        let Some(stream) = &mut self.stream else { return 0 };
        let mut octets = 0;
        loop {
            let record = stream.decrypted();
            if record.is_empty() {
                return octets;
            }
            let taken = record.len();
            self.inbound.extend_from_slice(record);
            stream.used(taken);
            octets += taken;
        }
    }

    /// Reads octets and returns how many came.
    async fn read(&mut self, at_once: usize, deadline: Option<Instant>) -> Result<usize, Lost> {
        let stream = self.stream.as_mut().ok_or(Lost::Closed)?;
        let inbound = &mut self.inbound;
        let read = async {
            // A connection that only waits holds no buffer.
            stream.readable().await?;
            if matches!(stream, Stream::Server(_)) {
                return Ok(None);
            }
            inbound.reserve(at_once);
            stream.read_buf(inbound).await.map(Some)
        };
        let read = match deadline {
            Some(deadline) => self.time_limit.until(deadline, read).await.ok_or(Lost::TimedOut)??,
            None => read.await?,
        };
        // Not by `read_buf`: if it meets an error after some octets it keeps it for its next call, and `readable` does
        // not know of it.
        let octets = read.unwrap_or_else(|| self.gather());
        if octets == 0 { Err(Lost::Closed) } else { Ok(octets) }
    }

    /// Sends all replies that are ready, in one write. Dropping the future in the middle of it ends the connection.
    ///
    /// # Errors
    /// See [`Lost`].
    pub(super) fn flush(&mut self) -> impl Future<Output = Result<(), Lost>> + Send {
        self.flush_within(WRITE_TIMEOUT)
    }

    /// The same where what was asked must be judged whether or not the client is there to read of it: [`Self::take_loss`] tells.
    pub(super) async fn pass_on(&mut self) {
        if let Err(lost) = self.flush().await {
            self.loss.get_or_insert(lost);
        }
    }

    /// Returns why the client takes no more replies, if [`Self::pass_on`] found that out.
    pub(super) fn take_loss(&mut self) -> Option<Lost> {
        self.loss.take()
    }

    async fn flush_within(&mut self, limit: Duration) -> Result<(), Lost> {
        if self.outbound.is_empty() {
            return Ok(());
        }
        // If this fails, or the future is dropped, part of it may be out: nothing can be said after it.
        let mut stream = self.stream.take().ok_or(Lost::Closed)?;
        let send = async {
            stream.write_all(&self.outbound).await?;
            stream.flush().await
        };
        self.time_limit.within(limit, send).await.ok_or(Lost::TimedOut)??;
        self.stream = Some(stream);
        self.outbound.clear();
        if self.outbound.capacity() > KEPT_OUTBOUND {
            self.outbound = Vec::new();
        }
        Ok(())
    }

    /// Drops the cleartext that has come behind STARTTLS, as far as it is here. Call it before the client is told to begin:
    /// what is read afterwards is taken for its handshake.
    pub(super) async fn discard_cleartext(&mut self) {
        for _ in 0..DISCARDED_READS {
            // It may hold a password.
            self.inbound.as_mut().zeroize();
            self.inbound = BytesMut::new();
            if !matches!(self.read_ready().await, Ok(true)) {
                return;
            }
        }
    }

    /// Does the TLS handshake as the server, after STARTTLS. Cleartext that came after STARTTLS is discarded: it was
    /// never protected, and may be an attacker's (RFC 3207 5; CVE-2011-0411).
    ///
    /// # Errors
    /// See [`Lost`]; the connection can no longer be used.
    pub(super) async fn start_tls(&mut self, tls: &Acceptor, deadline: Option<Instant>) -> Result<(), Lost> {
        self.inbound = BytesMut::new();
        self.framer = Framer::default();
        let Some(Stream::Plain(tcp)) = self.stream.take() else { return Err(Lost::Closed) };
        let handshake = tls.accept(tcp);
        let stream = match deadline {
            Some(deadline) => timeout_at(deadline, handshake).await.map_err(|_| Lost::TimedOut)??,
            None => handshake.await?,
        };
        self.stream = Some(stream);
        Ok(())
    }

    /// Closes the connection so that the last reply arrives.
    pub(super) async fn close(mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        net::linger(&mut stream, &[]).await;
    }
}

/// Whether a TLS handshake record begins here (RFC 8446 5.1; every version begins with 3). No command begins like this,
/// and a CRLF may never come.
fn begins_as_tls(octets: &[u8]) -> bool {
    octets.starts_with(&[0x16, 0x03])
}

fn begins_as_http(octets: &[u8]) -> bool {
    let word = octets.iter().take(HTTP_METHOD + 1).position(|octet| *octet == b' ');
    word.and_then(|end| octets.get(..end)).is_some_and(is_http_method)
}

fn begins_as(verb: &[u8; 4], octets: &[u8]) -> bool {
    octets.get(..4).is_some_and(|front| front.eq_ignore_ascii_case(verb))
        && octets.get(4).is_some_and(|octet| !octet.is_ascii_alphanumeric())
}

fn begins_as_auth(octets: &[u8]) -> bool {
    octets.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::pki_types::pem::PemObject as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;
    use crate::net::self_signed::generate;
    use crate::net::tls::server_config;

    /// A client in cleartext, and its own end.
    async fn connected() -> (Client, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let end = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Client::new(Stream::Plain(listener.accept().await.unwrap().0)), end)
    }

    /// DATA behind them would take the leave of one that another session could ask about.
    #[tokio::test]
    async fn only_recipients_want_leave() {
        let (mut client, _other) = connected().await;
        for (lines, expected) in [
            ("", 0),
            ("RCPT TO:<a@b.c>\r\nrcpt TO:<b@b.c>\r\nDATA\r\n", 2),
            ("DATA\r\n", 0),
            ("NOOP\r\nRCPT TO:<a@b.c>\r\nRC", 2), // half a line may become one
        ] {
            client.inbound = lines.as_bytes().into();
            assert_eq!(client.rcpts_at_most(), expected, "{lines}");
        }
    }

    #[tokio::test]
    async fn a_silent_client_keeps_little_memory_for_replies() {
        let (mut client, _other) = connected().await;
        for (length, kept) in [(KEPT_OUTBOUND, KEPT_OUTBOUND), (KEPT_OUTBOUND + 1, 0)] {
            client.outbound = vec![b'x'; length];
            client.flush().await.unwrap();
            assert_eq!(client.outbound.capacity(), kept);
        }
    }

    /// A client that does not read is gone: a partly sent reply is not repeated, and nothing is said after it, whether
    /// the time for the flush or the caller's patience is over.
    #[tokio::test]
    async fn half_a_reply_is_the_last() {
        for is_dropped in [false, true] {
            let (mut client, mut reader) = connected().await;
            client.outbound = vec![b'x'; 64 << 20];
            let limit = Duration::from_millis(50);
            if is_dropped {
                assert!(timeout(limit, client.pass_on()).await.is_err());
            } else {
                assert!(matches!(client.flush_within(limit).await, Err(Lost::TimedOut)));
            }
            client.outbound.extend_from_slice(b"421 4.4.2 too slow\r\n");
            assert!(matches!(client.flush_within(limit).await, Err(Lost::Closed)), "{is_dropped}");
            drop(client);
            let (mut came, mut octets) = (0, vec![0; 1 << 20]);
            // A reset is an end too.
            while let Ok(read @ 1..) = reader.read(&mut octets).await {
                assert!(octets[..read].iter().all(|octet| *octet == b'x'));
                came += read;
            }
            assert!(came < 64 << 20);
        }
    }

    /// In whatever records mail data comes, `min_rate` counts each octet, and each arrives once.
    #[tokio::test]
    async fn all_records_count() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = generate(&["mail.example.org"]).unwrap();
        let paths = (folder.path().join("crt"), folder.path().join("key"));
        std::fs::write(&paths.0, &certificate).unwrap();
        std::fs::write(&paths.1, key).unwrap();
        let server = tokio_rustls::TlsAcceptor::from(server_config(&paths.0, &paths.1).unwrap());
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let name = ServerName::try_from("mail.example.org").unwrap();
        let sender = tokio_rustls::TlsConnector::from(Arc::new(client));
        let accepted = async { server.accept(listener.accept().await.unwrap().0).await.unwrap() };
        let (sender, accepted) = tokio::join!(sender.connect(name, tcp), accepted);
        let (mut sender, mut client) = (sender.unwrap(), Client::new(Stream::Server(Box::new(accepted))));

        let records: [&[usize]; 4] = [&[78; 40], &[9_000, 78, 78, 1], &[16_000], &[1, 16_384, 3]];
        for lengths in records {
            let mut expected = Vec::new();
            for (number, length) in lengths.iter().enumerate() {
                let record = vec![u8::try_from(number).unwrap(); *length];
                sender.get_mut().1.writer().write_all(&record).unwrap();
                expected.extend_from_slice(&record);
            }
            sender.flush().await.unwrap();
            let (mut counted, mut came) = (0, Vec::new());
            while came.len() < expected.len() {
                if client.buffered().is_empty() {
                    let deadline = Instant::now() + Duration::from_secs(30);
                    counted += client.read_data(deadline).await.unwrap();
                }
                let taken = client.buffered().len();
                came.extend_from_slice(client.buffered());
                client.consume(taken);
            }
            assert_eq!(counted, expected.len(), "{lengths:?}");
            assert!(came == expected, "{lengths:?}");
        }
    }
}
