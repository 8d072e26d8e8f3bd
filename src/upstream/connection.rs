//! One connection to the upstream: commands out, replies in, each with its time limit.
//!
//! Knows octets and replies, not transactions. Input is read into a bounded buffer, which is freed while the connection
//! is idle, and parsed by `smtp::Reply` alone. A 421 counts as the end of the connection wherever it comes
//! (RFC 5321 3.8). RFC 5321 4.2, 4.5.3.2; RFC 2920.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use super::slot::Slot;
use super::{ClientIdentity, Fault, Stopped};
use crate::net::{Stream, TimeLimit};
use crate::smtp::reply::MAX_REPLY;
use crate::smtp::{Extensions, Reply};

/// Refusals after which a connection is replaced. After 10 errors (`smtpd_soft_error_limit`) Postfix delays every reply
/// by a second, also those to recipients that exist, and after 20 (`smtpd_hard_error_limit`) it hangs up. So more would
/// not pay even where much has to be repeated.
pub const MAX_REFUSALS: u32 = 8;
/// The most commands in flight. Their replies fit the kernel's buffers, so that neither side blocks until the other
/// reads (RFC 2920 3.1).
pub(super) const MAX_BATCH: usize = 64;
/// The most transactions on one connection: Exim hangs up after 1000 (`smtp_accept_max_per_connection`), and Postfix
/// counts RSETs beyond 100 as errors (`smtpd_junk_command_limit`).
const MAX_TRANSACTIONS: u32 = 100;
/// The age from which a connection takes no further transaction, so that changes behind a name or a load balancer are
/// noticed. Postfix's own client uses 300 s (`smtp_connection_reuse_time_limit`).
const MAX_AGE: Duration = Duration::from_secs(600);
/// Service not available, closing the channel (RFC 5321 3.8).
const CLOSING: u16 = 421;
/// How long to wait for the reply to an earlier RSET: a few round trips, the price of a fresh connection.
const OWED_REPLY_PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait for the upstream to close after QUIT.
const QUIT_PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait for each further reply of a batch that has used up [`MAX_REFUSALS`]: less than the second by which
/// Postfix delays every reply from the tenth error on (`smtpd_error_sleep_time`).
pub(super) const WORN_PATIENCE: Duration = Duration::from_millis(250);
/// RFC 5321 4.1.1.4
const DATA: &[u8] = b"DATA\r\n";
/// Octets per read: an EHLO reply, or the replies to a batch.
const READ_CHUNK: usize = 2048;

/// Why a connection can no longer be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loss {
    /// The upstream closed it, or is about to (421).
    Closed(String),
    /// No reply came within this time.
    Silent(Duration),
    /// The upstream sent something that is not SMTP.
    Garbled(String),
    /// The upstream gave more replies than it was asked for, so that they can no longer be matched to commands.
    OutOfStep,
}

/// A reply that says all is well with content of which the upstream cannot have seen the end.
pub(super) fn premature(reply: &Reply) -> Loss {
    Loss::Garbled(format!("a positive reply in mid-data: {reply}"))
}

impl From<Loss> for Fault {
    #[cold]
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Closed(why) => Self::Unavailable(why),
            Loss::Silent(limit) => Self::Unavailable(format!("the upstream was silent for {limit:?}")),
            Loss::Garbled(what) => Self::Protocol(what),
            Loss::OutOfStep => Self::out_of_step(),
        }
    }
}

impl From<Loss> for Stopped {
    #[cold]
    fn from(loss: Loss) -> Self {
        Self::Fault(loss.into())
    }
}

pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) time_limit: TimeLimit,
    slot: Slot,
    pub(super) inbox: Vec<u8>,
    /// Octets have arrived since the inbox was last compared with the replies awaited.
    has_news: bool,
    pub(super) outbox: Vec<u8>,
    /// How many octets of `outbox` have gone out.
    pub(super) sent: usize,
    /// The index of the upstream that this connects to.
    pub(super) endpoint: usize,
    /// What the last EHLO reply offered.
    pub(super) extensions: Extensions,
    /// The client named by XCLIENT; the connection serves nobody else.
    pub(super) identity: Option<Arc<ClientIdentity>>,
    /// 4yz and 5yz replies to commands of transactions.
    pub(super) refusals: u32,
    transactions: u32,
    made_at: Instant,
    rested: bool,
    /// Replies still to come for which nobody waits.
    owed: u32,
    /// DATA has been sent in a batch, and its reply is still to come. Until then nothing else can be said: it might be taken for
    /// content.
    data_ahead: bool,
    /// Since when no transaction has used it.
    pub(super) idle_since: Instant,
    /// When the outbox was last sent completely.
    pub(super) written_at: Instant,
}

impl Connection {
    pub(super) fn new(stream: Stream, slot: Slot) -> Self {
        let now = Instant::now();
        Self {
            stream,
            time_limit: TimeLimit::default(),
            slot,
            inbox: Vec::new(),
            has_news: false,
            outbox: Vec::new(),
            sent: 0,
            endpoint: 0,
            extensions: Extensions::default(),
            identity: None,
            refusals: 0,
            transactions: 0,
            made_at: now,
            rested: false,
            owed: 0,
            data_ahead: false,
            idle_since: now,
            written_at: now,
        }
    }

    /// Makes the connection hold its own place from now on.
    pub(super) fn occupy(&mut self, slot: Slot) {
        self.slot = slot;
    }

    /// Whether the connection has been idle, and so may have died meanwhile without anybody's fault.
    pub(super) fn has_rested(&self) -> bool {
        self.rested
    }

    /// Notes that the connection has just answered: if it ends now, idleness was not the cause.
    pub(super) fn wake(&mut self) {
        self.rested = false;
    }

    /// Whether no transaction has used it and no client has been named on it.
    pub(super) fn is_unused(&self) -> bool {
        self.transactions == 0 && self.identity.is_none()
    }

    /// Whether a client has been named on it, but no transaction has used it.
    pub(super) fn is_prepared(&self) -> bool {
        self.transactions == 0 && self.identity.is_some()
    }

    /// Queues octets; they go out with the next wait for a reply.
    pub(super) fn queue(&mut self, octets: &[u8]) {
        self.outbox.extend_from_slice(octets);
    }

    /// Queues DATA behind the commands of a batch.
    pub(super) fn queue_data_ahead(&mut self) {
        self.queue(DATA);
        self.data_ahead = true;
    }

    /// Returns the reply to DATA, which is sent unless it has gone out ahead.
    pub(super) async fn ask_for_data(&mut self, limit: Duration) -> Result<Reply, Loss> {
        if !self.data_ahead {
            return self.command(DATA, limit).await;
        }
        let reply = self.reply(limit).await?;
        match self.check_in_step() {
            // If it is somebody else's reply, 354 may still come: nothing more is said on this connection.
            Ok(()) | Err(Loss::Closed(_)) if reply.code >= 400 => Ok(reply),
            // The 354 may be old by now, and the connection gone.
            checked => {
                self.data_ahead = false;
                checked.map(|()| reply)
            }
        }
    }

    /// Whether DATA has gone out ahead, and its reply has not been looked at.
    pub(super) fn is_data_ahead(&self) -> bool {
        self.data_ahead
    }

    /// Makes sure that commands may be sent: not behind a DATA that has gone out ahead, unless its refusal is here.
    pub(super) fn take_data_back(&mut self) -> Result<(), Loss> {
        if !self.data_ahead {
            return Ok(());
        }
        let _ = self.poll_read(&mut no_waiting());
        match self.buffered_reply()? {
            None => Err(Loss::Closed("DATA has been sent, and no content follows".to_owned())),
            Some(reply) if reply.code == CLOSING => Err(Loss::Closed(reply.to_string())),
            Some(reply) if reply.code >= 400 => {
                self.data_ahead = false;
                self.refusals += 1;
                Ok(())
            }
            Some(reply) if reply.is_intermediate() && is_closing(&self.inbox) => {
                Err(Loss::Closed("DATA has been accepted, and no content follows".to_owned()))
            }
            Some(_) => Err(Loss::OutOfStep),
        }
    }

    /// Sends a command and returns the reply to it.
    pub(super) async fn command(&mut self, line: &[u8], limit: Duration) -> Result<Reply, Loss> {
        self.check_in_step()?;
        self.queue(line);
        self.reply(limit).await
    }

    /// Returns the next reply; a 421 is a loss.
    pub(super) async fn reply(&mut self, limit: Duration) -> Result<Reply, Loss> {
        let reply = self.any_reply(limit).await?;
        if reply.code == CLOSING { Err(Loss::Closed(reply.to_string())) } else { Ok(reply) }
    }

    /// Sends what is queued and waits for the next reply, `limit` at most for each.
    pub(super) async fn any_reply(&mut self, limit: Duration) -> Result<Reply, Loss> {
        let sent = self.send_queued(limit).await;
        self.reply_behind(sent, limit).await
    }

    /// The same for content: a positive reply to what did not go out whole is a loss.
    pub(super) async fn reply_to_content(&mut self, limit: Duration) -> Result<Reply, Loss> {
        let sent = self.send_queued(limit).await;
        let is_whole = sent.is_ok();
        match self.reply_behind(sent, limit).await {
            Ok(reply) if !is_whole && reply.code < 400 => Err(premature(&reply)),
            outcome => outcome,
        }
    }

    async fn reply_behind(&mut self, sent: Result<(), Loss>, limit: Duration) -> Result<Reply, Loss> {
        if let Err(Loss::Silent(limit)) = sent {
            return Err(Loss::Silent(limit));
        }
        match self.read_reply(limit).await {
            // A reply would tell more than a failed write, but there is none.
            Err(Loss::Closed(why)) => Err(sent.err().unwrap_or(Loss::Closed(why))),
            outcome => outcome,
        }
    }

    async fn send_queued(&mut self, limit: Duration) -> Result<(), Loss> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let Self { stream, outbox, sent, time_limit, .. } = self;
        let writing = async {
            while *sent < outbox.len() {
                match stream.write(&outbox[*sent..]).await? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    written => *sent += written,
                }
            }
            stream.flush().await
        };
        let outcome = time_limit.within(limit, writing).await;
        if outcome.is_some() {
            self.outbox.clear();
            self.sent = 0;
            self.written_at = Instant::now();
        }
        match outcome {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(Loss::Closed(format!("the connection to the upstream broke: {error}"))),
            None => Err(Loss::Silent(limit)),
        }
    }

    async fn read_reply(&mut self, limit: Duration) -> Result<Reply, Loss> {
        let mut deadline = None;
        loop {
            if let Some(reply) = self.buffered_reply()? {
                return Ok(reply);
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + limit);
            self.inbox.reserve(READ_CHUNK);
            let read = self.stream.read_buf(&mut self.inbox);
            match self.time_limit.until(deadline, read).await {
                Some(Ok(0)) => return Err(Loss::Closed("the upstream closed the connection".to_owned())),
                Some(Ok(_)) => self.has_news = true,
                Some(Err(error)) => {
                    return Err(Loss::Closed(format!("the connection to the upstream broke: {error}")));
                }
                None => return Err(Loss::Silent(limit)),
            }
        }
    }

    fn buffered_reply(&mut self) -> Result<Option<Reply>, Loss> {
        match Reply::parse(&self.inbox) {
            Ok(Some((reply, length))) => {
                self.inbox.drain(..length.min(self.inbox.len()));
                Ok(Some(reply))
            }
            Ok(None) if self.inbox.len() <= MAX_REPLY => Ok(None),
            Ok(None) => Err(Loss::Garbled(format!("a reply of more than {MAX_REPLY} octets"))),
            Err(error) => Err(Loss::Garbled(error.to_string())),
        }
    }

    /// Checks that no unexpected input is there. Call it before asking anything while no reply is awaited: stray octets
    /// would shift every later reply to the wrong command.
    pub(super) fn check_in_step(&mut self) -> Result<(), Loss> {
        match self.poll_read(&mut no_waiting()) {
            Poll::Pending | Poll::Ready(Ok(1..)) => {}
            Poll::Ready(Ok(0)) => return Err(Loss::Closed("the upstream closed the connection".to_owned())),
            Poll::Ready(Err(error)) => {
                return Err(Loss::Closed(format!("the connection to the upstream broke: {error}")));
            }
        }
        match self.inbox.as_slice() {
            [] => Ok(()),
            rest if is_closing(rest) => Err(Loss::Closed(match self.buffered_reply()? {
                Some(reply) => reply.to_string(),
                None => "the upstream is about to close the connection".to_owned(),
            })),
            _ => Err(Loss::OutOfStep),
        }
    }

    /// Checks, as far as possible, that no more than `awaited` replies have arrived. One that arrives in time for the
    /// next command is taken for the reply to it, but for DATA that went ahead: no 2xx answers that. A 421 may come at any time.
    pub(super) fn check_awaiting(&mut self, awaited: usize) -> Result<(), Loss> {
        let awaited = awaited + usize::from(self.data_ahead);
        if awaited == 0 {
            // If the connection has ended, its next user finds out.
            let _ = self.poll_read(&mut no_waiting());
        } else if !std::mem::take(&mut self.has_news) {
            return Ok(());
        }
        let mut rest = self.inbox.as_slice();
        let mut last = None;
        for _ in 0..awaited {
            match Reply::measure(rest) {
                Ok(Some((code, length))) if code != CLOSING => {
                    rest = rest.get(length..).unwrap_or_default();
                    last = Some(code);
                }
                // An incomplete or malformed reply is found out when its turn comes.
                _ => return Ok(()),
            }
        }
        let answers_no_data = self.data_ahead && last.is_some_and(|code| code / 100 == 2);
        if !answers_no_data && (rest.is_empty() || is_closing(rest)) { Ok(()) } else { Err(Loss::OutOfStep) }
    }

    /// Attempts one read into the inbox; 0 is the end of the stream.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.inbox.reserve(READ_CHUNK);
        let polled = pin!(self.stream.read_buf(&mut self.inbox)).poll(cx);
        self.has_news |= matches!(polled, Poll::Ready(Ok(1..)));
        polled
    }

    /// Sends RSET without waiting for the reply, which is read before the next use.
    pub(super) fn reset(&mut self) {
        self.queue(b"RSET\r\n");
        self.owed += 1;
        self.send_without_waiting();
    }

    /// Reads the replies still owed, and checks that the connection is alive. Any input on an idle connection means
    /// that it is at its end.
    pub(super) async fn is_alive(&mut self) -> bool {
        while self.owed > 0 {
            match self.reply(OWED_REPLY_PATIENCE).await {
                Ok(reply) if reply.is_completion() => self.owed -= 1,
                _ => return false,
            }
        }
        // Whatever comes is not looked at.
        let mut octet = [0];
        let polled = pin!(self.stream.read(&mut octet)).poll(&mut no_waiting());
        self.inbox.is_empty() && polled.is_pending()
    }

    /// Whether another transaction may use it. No DATA may have gone out ahead: see [`Self::take_data_back`].
    pub(super) fn is_reusable(&self, now: Instant) -> bool {
        // RFC 9422 4.1
        let allowed =
            self.extensions.further.limits.mail_max.unwrap_or(MAX_TRANSACTIONS).min(MAX_TRANSACTIONS);
        let is_young = now.saturating_duration_since(self.made_at) < MAX_AGE;
        self.inbox.is_empty() && self.refusals < MAX_REFUSALS && self.transactions < allowed && is_young
    }

    /// Counts a transaction that has used it.
    pub(super) fn count_transaction(&mut self) {
        self.transactions += 1;
    }

    /// Frees the buffers and starts the idle time.
    pub(super) fn rest(&mut self) {
        self.rested = true;
        self.idle_since = Instant::now();
        self.time_limit.rest();
        if self.inbox.is_empty() {
            self.inbox = Vec::new();
        }
        if self.outbox.is_empty() {
            self.outbox = Vec::new();
        }
    }

    /// Sends QUIT at once. The place becomes free once the upstream has closed as well, or after [`QUIT_PATIENCE`]:
    /// until then the upstream counts the connection, and would refuse one too many.
    pub(super) fn quit(mut self) {
        self.say_quit();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { drop(self.gone().await) });
        }
    }

    /// Sends QUIT and waits for the place.
    pub(super) async fn leave(mut self) -> Slot {
        self.say_quit();
        self.gone().await
    }

    fn say_quit(&mut self) {
        if !self.data_ahead {
            self.queue(b"QUIT\r\n");
            self.send_without_waiting();
        }
        let _ = Pin::new(&mut self.stream).poll_shutdown(&mut no_waiting());
    }

    async fn gone(self) -> Slot {
        let Self { mut stream, slot, .. } = self;
        let mut last_words = [0; 512];
        let closed = async { while matches!(stream.read(&mut last_words).await, Ok(1..)) {} };
        // Our side is closed as well before the place is passed on.
        let _ = timeout(QUIT_PATIENCE, closed).await;
        drop(stream);
        slot
    }

    /// Takes the connection apart, to be made into another one.
    pub(super) fn into_parts(self) -> (Stream, Slot) {
        (self.stream, self.slot)
    }

    /// Closes the connection without QUIT.
    pub(super) fn discard(self) -> Slot {
        self.slot
    }

    /// Writes as much of the outbox as the kernel takes now; errors show at the next reply.
    fn send_without_waiting(&mut self) {
        let cx = &mut no_waiting();
        while self.sent < self.outbox.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.outbox[self.sent..]) {
                Poll::Ready(Ok(written)) if written > 0 => self.sent += written,
                _ => return,
            }
        }
        if Pin::new(&mut self.stream).poll_flush(cx).is_ready() {
            self.outbox.clear();
            self.sent = 0;
        }
    }
}

/// Whether the octets are the beginning of a 421, or none.
fn is_closing(octets: &[u8]) -> bool {
    octets.iter().zip(b"421").all(|(octet, code)| octet == code)
}

/// A context for polling once without waiting.
fn no_waiting() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn it_grows_too_old() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let connection = Connection::new(Stream::Unix(ours), Slot::nowhere());
        let end = connection.made_at + MAX_AGE;
        for (now, expected) in [(end - Duration::from_millis(1), true), (end, false)] {
            assert_eq!(connection.is_reusable(now), expected);
        }
    }
}
