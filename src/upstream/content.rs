//! Mail data on a connection: sent as it comes, while watching for what the upstream says meanwhile.
//!
//! Small pieces are gathered, so that a short message goes out in one write together with its end. A reply in mid-data
//! can only be a refusal (552, 421): it is reported at once, and the connection is not used again. RFC 5321 4.1.1.4,
//! 4.5.3.2.5.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::Stopped;
use super::connection::{Connection, Loss, premature};
use crate::rare::rare;
use crate::smtp::Reply;

/// The most octets that are gathered before they are written.
const GATHER: usize = 8 * 1024;
/// After this time without a write the next piece is written at once rather than gathered, so that the upstream does
/// not time out.
const GATHER_TIME: Duration = Duration::from_secs(1);
/// How long a reply that has begun in mid-data may take to arrive completely.
const EARLY_REPLY_PATIENCE: Duration = Duration::from_secs(5);

/// Why mail data did not go out.
enum Interruption {
    /// The upstream refused the message early.
    Refused(Reply),
    /// The upstream accepted a message whose end it cannot have seen.
    Accepted(Reply),
    /// The connection is gone.
    Lost(Loss),
}

/// Why the end of data got no reply of its own.
pub(super) enum Ending {
    /// The upstream refused the message before it had all of it.
    Refused(Reply),
    /// The upstream cannot have taken the message.
    Lost(Loss),
    /// The terminator may have gone out.
    Ambiguous(Loss),
}

impl Connection {
    /// Sends mail data, or gathers it for a moment. Gives up after `limit` without progress. What is left in `wire` is of no
    /// more use.
    pub(super) async fn put(&mut self, wire: &mut Vec<u8>, limit: Duration) -> Result<(), Stopped> {
        if self.outbox.len() + wire.len() <= GATHER && self.written_at.elapsed() < GATHER_TIME {
            // Most messages come in one piece, which need not be copied.
            if self.outbox.is_empty() {
                mem::swap(&mut self.outbox, wire);
            } else {
                self.outbox.extend_from_slice(wire);
            }
            return Ok(());
        }
        match self.push(wire, usize::MAX, limit).await {
            Ok(()) => Ok(()),
            Err(loss) => Err(match rare(self.early_reply(loss)).await {
                Interruption::Refused(reply) => Stopped::Refused(reply),
                Interruption::Accepted(reply) => premature(&reply).into(),
                Interruption::Lost(loss) => loss.into(),
            }),
        }
    }

    /// Sends the terminator and waits for the reply to the message, `patience` at most.
    pub(super) async fn end(
        &mut self,
        terminator: &[u8],
        limit: Duration,
        patience: Duration,
    ) -> Result<Reply, Ending> {
        let content = self.outbox.len();
        self.outbox.extend_from_slice(terminator);
        if let Err(loss) = self.push(&[], content, limit).await {
            let (begun, whole) = (self.sent > content, self.sent == self.outbox.len());
            return match rare(self.early_reply(loss)).await {
                Interruption::Refused(reply) => Err(Ending::Refused(reply)),
                Interruption::Accepted(reply) if whole && reply.is_completion() => Ok(reply),
                Interruption::Accepted(reply) if begun => Err(Ending::Ambiguous(premature(&reply))),
                Interruption::Accepted(reply) => Err(Ending::Lost(premature(&reply))),
                Interruption::Lost(loss) if begun => Err(Ending::Ambiguous(loss)),
                Interruption::Lost(loss) => Err(Ending::Lost(loss)),
            };
        }
        match self.any_reply(patience).await {
            Ok(reply) if reply.is_intermediate() => {
                Err(Ending::Ambiguous(Loss::Garbled(format!("a reply that answers no end of data: {reply}"))))
            }
            Ok(reply) => Ok(reply),
            Err(loss) => Err(Ending::Ambiguous(loss)),
        }
    }

    /// Writes the outbox and then `wire` until the kernel has all of it. Input from the upstream is an error until more
    /// than `content` octets of the outbox are out.
    async fn push(&mut self, mut wire: &[u8], content: usize, limit: Duration) -> Result<(), Loss> {
        loop {
            let mut time_limit = mem::take(&mut self.time_limit);
            let step = std::future::poll_fn(|cx| self.poll_push(cx, &mut wire, content));
            let step = time_limit.within(limit, step).await;
            self.time_limit = time_limit;
            match step {
                Some(Ok(Progress::Written)) => {}
                Some(Ok(Progress::Flushed)) => {
                    self.outbox.clear();
                    self.sent = 0;
                    self.written_at = Instant::now();
                    return Ok(());
                }
                Some(Err(error)) => {
                    return Err(Loss::Closed(format!("the connection to the upstream broke: {error}")));
                }
                None => return Err(Loss::Silent(limit)),
            }
        }
    }

    fn poll_push(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut &[u8],
        content: usize,
    ) -> Poll<io::Result<Progress>> {
        if self.sent <= content && (!self.inbox.is_empty() || self.poll_read(cx).is_ready()) {
            return Poll::Ready(Err(io::Error::other("the upstream did not wait for the end of data")));
        }
        let kept = &self.outbox[self.sent..];
        if kept.is_empty() && wire.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            return Poll::Ready(Ok(Progress::Flushed));
        }
        let pieces = [IoSlice::new(kept), IoSlice::new(wire)];
        let kept = kept.len();
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &pieces))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.sent += written.min(kept);
        *wire = wire.get(written.saturating_sub(kept)..).unwrap_or_default();
        Poll::Ready(Ok(Progress::Written))
    }

    /// Returns what the upstream said before it broke off, else the loss.
    async fn early_reply(&mut self, loss: Loss) -> Interruption {
        // The unsent rest must not go out now.
        self.outbox.clear();
        self.sent = 0;
        if matches!(loss, Loss::Silent(_)) {
            return Interruption::Lost(loss);
        }
        match self.any_reply(EARLY_REPLY_PATIENCE).await {
            Ok(reply) if reply.code < 400 => Interruption::Accepted(reply),
            Ok(reply) => Interruption::Refused(reply),
            Err(Loss::Garbled(what)) => Interruption::Lost(Loss::Garbled(what)),
            Err(_) => Interruption::Lost(loss),
        }
    }
}

enum Progress {
    Written,
    Flushed,
}
