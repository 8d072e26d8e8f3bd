//! Repeats the accepted part of a transaction on another connection.
//!
//! Everything refused here was accepted before: the refusal says nothing about anyone, but what the client was promised
//! can no longer be kept. RFC 5321 3.3; RFC 2920 3.1.

use super::Timeouts;
use super::connection::{Connection, Loss, MAX_BATCH};
use crate::smtp::{MailCommand, RcptCommand};

/// How the repetition went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Repetition {
    /// The transaction stands as before.
    Whole,
    /// MAIL was refused, with this reason.
    MailRefused(String),
    /// At least one recipient was refused, with this reason.
    RecipientRefused(String),
}

/// Repeats MAIL and RCPTs, in batches where the upstream offers PIPELINING.
pub(super) async fn repeat(
    connection: &mut Connection,
    mail: &MailCommand,
    recipients: &[RcptCommand],
    limits: &Timeouts,
) -> Result<Repetition, Loss> {
    connection.check_in_step()?;
    let extensions = connection.extensions.clone();
    if let Some(missing) = mail.missing_extension(&extensions) {
        return Ok(Repetition::MailRefused(no_longer(missing)));
    }
    let window = if extensions.pipelining { MAX_BATCH } else { 1 };
    let mut outcome = Repetition::Whole;
    mail.encode(&extensions, &mut connection.outbox);
    let mut mail_open = true;
    let mut in_flight = 1;
    let mut left = recipients;
    loop {
        while in_flight < window
            && let Some((rcpt, rest)) = left.split_first()
        {
            left = rest;
            if let Some(missing) = rcpt.missing_extension(&extensions) {
                outcome = Repetition::RecipientRefused(no_longer(missing));
            } else {
                rcpt.encode(&extensions, &mut connection.outbox);
                in_flight += 1;
            }
        }
        if in_flight == 0 {
            return Ok(outcome);
        }
        for _ in 0..std::mem::take(&mut in_flight) {
            let reply = connection.reply(if mail_open { limits.mail } else { limits.rcpt }).await?;
            match (reply.code / 100, std::mem::take(&mut mail_open)) {
                (2, _) => continue,
                (4 | 5, true) => return Ok(Repetition::MailRefused(reply.to_string())),
                (4 | 5, false) => outcome = Repetition::RecipientRefused(reply.to_string()),
                _ => {
                    return Err(Loss::Garbled(format!(
                        "a reply that answers neither MAIL nor RCPT: {reply}"
                    )));
                }
            }
            connection.refusals += 1;
        }
    }
}

fn no_longer(missing: &str) -> String {
    format!("it does not offer {missing} any more")
}
