//! One connection to the upstream: commands out, replies in, each with its time limit.
//!
//! It knows octets and replies, not transactions. What an upstream sends is read into a bounded buffer that is freed
//! while the connection is idle, and parsed by `smtp::Reply` alone. A 421 means the same as the end of the connection
//! (RFC 5321 3.8), wherever it comes. RFC 5321 4.2, 4.5.3.2; RFC 2920.

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

/// A connection is replaced after so many refusals: Postfix slows down after 10 errors (`smtpd_soft_error_limit`) and
/// hangs up after 20 (`smtpd_hard_error_limit`).
pub const MAX_REFUSALS: u32 = 8;
/// Commands in flight at once. So many replies fit the kernel's buffers, so that neither side waits for the other to
/// read (RFC 2920 3.1).
pub(super) const MAX_BATCH: usize = 64;
/// Transactions on one connection; Exim hangs up after 1000 (`smtp_accept_max_per_connection`), and Postfix counts 100
/// RSETs for errors (`smtpd_junk_command_limit`).
const MAX_TRANSACTIONS: u32 = 100;
/// Nor is a transaction begun on one that was made so long ago: what has changed behind a name or a balancer since is met
/// anew. Postfix's own client has 300 s (`smtp_connection_reuse_time_limit`).
const MAX_AGE: Duration = Duration::from_secs(600);
/// The service is closing (RFC 5321 3.8).
const CLOSING: u16 = 421;
/// For the reply to a RSET that nobody waited for: a few round trips, which is what a fresh connection costs.
const OWED_REPLY_PATIENCE: Duration = Duration::from_secs(3);
/// For the upstream to close after QUIT.
const QUIT_PATIENCE: Duration = Duration::from_secs(2);
/// For each further reply of a batch that has used up [`MAX_REFUSALS`]: less than the second by which Postfix puts each off
/// from its tenth error on (`smtpd_error_sleep_time`).
pub(super) const WORN_PATIENCE: Duration = Duration::from_millis(250);
/// Read at once; an EHLO reply, or those to a batch.
const READ_CHUNK: usize = 2048;

/// Why a connection is of no more use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loss {
    /// The upstream closed it, or is about to (421).
    Closed(String),
    /// No reply within this time.
    Silent(Duration),
    /// It sent what is no SMTP.
    Garbled(String),
    /// It gave more replies than it was asked for: which of them answers which command is not known.
    OutOfStep,
}

impl From<Loss> for Fault {
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
    fn from(loss: Loss) -> Self {
        Self::Fault(loss.into())
    }
}

pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) time_limit: TimeLimit,
    slot: Slot,
    pub(super) inbox: Vec<u8>,
    /// More has come since it was last compared with what is awaited.
    has_news: bool,
    pub(super) outbox: Vec<u8>,
    /// How much of `outbox` has gone out.
    pub(super) sent: usize,
    /// To which of the upstreams it goes.
    pub(super) endpoint: usize,
    /// What the last EHLO reply offered.
    pub(super) extensions: Extensions,
    /// Whom XCLIENT named: it serves this one alone.
    pub(super) identity: Option<Arc<ClientIdentity>>,
    /// 4yz and 5yz replies to commands of transactions.
    pub(super) refusals: u32,
    transactions: u32,
    made_at: Instant,
    rested: bool,
    /// Replies to come for which nobody waits.
    owed: u32,
    /// Since when no transaction uses it.
    pub(super) idle_since: Instant,
    /// When anything last went out whole.
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
            idle_since: now,
            written_at: now,
        }
    }

    /// From here on it holds its place itself.
    pub(super) fn occupy(&mut self, slot: Slot) {
        self.slot = slot;
    }

    /// Whether it was idle before: then it may have died meanwhile, through nobody's fault.
    pub(super) fn has_rested(&self) -> bool {
        self.rested
    }

    /// It has just answered: whatever ends it from here on is no matter of its having been idle.
    pub(super) fn wake(&mut self) {
        self.rested = false;
    }

    /// Whether no transaction used it yet, and no client was named.
    pub(super) fn is_unused(&self) -> bool {
        self.transactions == 0 && self.identity.is_none()
    }

    /// It goes out with the next wait for a reply.
    pub(super) fn queue(&mut self, octets: &[u8]) {
        self.outbox.extend_from_slice(octets);
    }

    /// A command, and the reply to it.
    pub(super) async fn command(&mut self, line: &[u8], limit: Duration) -> Result<Reply, Loss> {
        self.check_in_step()?;
        self.queue(line);
        self.reply(limit).await
    }

    /// The next reply but 421, which is a loss.
    pub(super) async fn reply(&mut self, limit: Duration) -> Result<Reply, Loss> {
        let reply = self.any_reply(limit).await?;
        if reply.code == CLOSING { Err(Loss::Closed(reply.to_string())) } else { Ok(reply) }
    }

    /// Sends what is queued and waits for the next reply, at most `limit` for each.
    pub(super) async fn any_reply(&mut self, limit: Duration) -> Result<Reply, Loss> {
        let sent = self.send_queued(limit).await;
        if let Err(Loss::Silent(limit)) = sent {
            return Err(Loss::Silent(limit));
        }
        match self.read_reply(limit).await {
            // Why it could not be written is seldom as telling as what the upstream said before it went.
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

    /// To be called before anything is asked while nothing is awaited: with octets that answer nothing in the way, each reply
    /// would be taken for that to another command.
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

    /// Whether no more replies have come than so many commands await, as far as can be known: what comes in time for the
    /// next command to be asked is taken for its reply. A 421 may come at any time.
    pub(super) fn check_awaiting(&mut self, awaited: usize) -> Result<(), Loss> {
        if awaited == 0 {
            // Its end is found out by whoever uses it next.
            let _ = self.poll_read(&mut no_waiting());
        } else if !std::mem::take(&mut self.has_news) {
            return Ok(());
        }
        let mut rest = self.inbox.as_slice();
        for _ in 0..awaited {
            match Reply::measure(rest) {
                Ok(Some((code, length))) if code != CLOSING => {
                    rest = rest.get(length..).unwrap_or_default();
                }
                // What is incomplete or none is found out when its turn comes.
                _ => return Ok(()),
            }
        }
        if rest.is_empty() || is_closing(rest) { Ok(()) } else { Err(Loss::OutOfStep) }
    }

    /// One attempt to read more into the inbox; 0 is the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.inbox.reserve(READ_CHUNK);
        let polled = pin!(self.stream.read_buf(&mut self.inbox)).poll(cx);
        self.has_news |= matches!(polled, Poll::Ready(Ok(1..)));
        polled
    }

    /// RSET, for the reply to which nobody waits: it is read before the next use.
    pub(super) fn reset(&mut self) {
        self.queue(b"RSET\r\n");
        self.owed += 1;
        self.send_without_waiting();
    }

    /// Before it is used again: takes the replies owed, and looks whether it is still there. Whatever can be read
    /// from an idle connection is its end.
    pub(super) async fn is_alive(&mut self) -> bool {
        while self.owed > 0 {
            match self.reply(OWED_REPLY_PATIENCE).await {
                Ok(reply) if reply.is_completion() => self.owed -= 1,
                _ => return false,
            }
        }
        self.inbox.is_empty() && self.poll_read(&mut no_waiting()).is_pending()
    }

    /// Whether a further transaction may use it.
    pub(super) fn is_reusable(&self, now: Instant) -> bool {
        // RFC 9422 4.1
        let allowed =
            self.extensions.further.limits.mail_max.unwrap_or(MAX_TRANSACTIONS).min(MAX_TRANSACTIONS);
        let is_young = now.saturating_duration_since(self.made_at) < MAX_AGE;
        self.inbox.is_empty() && self.refusals < MAX_REFUSALS && self.transactions < allowed && is_young
    }

    /// A transaction has used it.
    pub(super) fn count_transaction(&mut self) {
        self.transactions += 1;
    }

    /// Memory goes back, and the time that nobody uses it begins.
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

    /// QUIT, at once. The place becomes free once the upstream has closed too, or has not for [`QUIT_PATIENCE`]: it counts
    /// the connection until then, and refuses one too many.
    pub(super) fn quit(mut self) {
        self.say_quit();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { drop(self.gone().await) });
        }
    }

    /// The same, and waits for the place.
    pub(super) async fn leave(mut self) -> Slot {
        self.say_quit();
        self.gone().await
    }

    fn say_quit(&mut self) {
        self.queue(b"QUIT\r\n");
        self.send_without_waiting();
        let _ = Pin::new(&mut self.stream).poll_shutdown(&mut no_waiting());
    }

    async fn gone(self) -> Slot {
        let Self { mut stream, slot, .. } = self;
        let mut last_words = [0; 512];
        let closed = async { while matches!(stream.read(&mut last_words).await, Ok(1..)) {} };
        // Closed here as well, before somebody else has the place.
        let _ = timeout(QUIT_PATIENCE, closed).await;
        drop(stream);
        slot
    }

    /// To be made into another connection.
    pub(super) fn into_parts(self) -> (Stream, Slot) {
        (self.stream, self.slot)
    }

    /// Closes it as it stands.
    pub(super) fn discard(self) -> Slot {
        self.slot
    }

    /// As much of what is queued as the kernel takes now; errors show at the next reply.
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

/// Whether a 421 begins with this.
fn is_closing(octets: &[u8]) -> bool {
    octets.iter().zip(b"421").all(|(octet, code)| octet == code)
}

/// To poll once what is not going to be awaited.
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
