//! The accepted part of a transaction, said again on another connection.
//!
//! What is refused now was accepted before: it says nothing about anyone, and what was promised to the client can no
//! longer be kept. RFC 5321 3.3; RFC 2920 3.1.

use std::time::Duration;

use super::connection::{Connection, Loss, MAX_BATCH};
use crate::smtp::{MailCommand, RcptCommand, Reply};

/// How a repetition went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Repetition {
    /// The transaction stands as before.
    Whole,
    /// There is none, and why.
    MailRefused(String),
    /// A recipient is missing, and why.
    RecipientRefused(String),
}

enum Command<'a> {
    Mail(&'a MailCommand),
    Rcpt(&'a RcptCommand),
}

/// Repeats MAIL and RCPTs, in batches where the upstream has PIPELINING.
pub(super) async fn repeat(
    connection: &mut Connection,
    mail: &MailCommand,
    recipients: &[RcptCommand],
    limit: Duration,
) -> Result<Repetition, Loss> {
    connection.check_in_step()?;
    let window = if connection.extensions.pipelining { MAX_BATCH } else { 1 };
    let mut outcome = Repetition::Whole;
    let mut left = std::iter::once(Command::Mail(mail)).chain(recipients.iter().map(Command::Rcpt)).peekable();
    while left.peek().is_some() {
        let batch: Vec<_> = left.by_ref().take(window).collect();
        let mut asked = Vec::with_capacity(batch.len());
        for command in batch {
            match queue(connection, &command) {
                None => asked.push(command),
                Some(missing) => {
                    let why = format!("it does not offer {missing} any more");
                    match command {
                        Command::Mail(_) => return Ok(Repetition::MailRefused(why)),
                        Command::Rcpt(_) => outcome = Repetition::RecipientRefused(why),
                    }
                }
            }
        }
        for command in asked {
            let reply = connection.reply(limit).await?;
            if reply.code / 100 == 3 {
                return Err(Loss::Garbled(format!("a reply that answers neither MAIL nor RCPT: {reply}")));
            }
            if !reply.is_positive() {
                connection.refusals += 1;
                match command {
                    Command::Mail(_) => return Ok(Repetition::MailRefused(refusal(&reply))),
                    Command::Rcpt(_) => outcome = Repetition::RecipientRefused(refusal(&reply)),
                }
            }
        }
    }
    Ok(outcome)
}

fn queue(connection: &mut Connection, command: &Command<'_>) -> Option<&'static str> {
    let Connection { extensions, outbox, .. } = connection;
    match command {
        Command::Mail(mail) => {
            let missing = mail.missing_extension(extensions);
            if missing.is_none() {
                mail.encode(extensions, outbox);
            }
            missing
        }
        Command::Rcpt(rcpt) => {
            let missing = rcpt.missing_extension(extensions);
            if missing.is_none() {
                rcpt.encode(extensions, outbox);
            }
            missing
        }
    }
}

fn refusal(reply: &Reply) -> String {
    reply.to_string()
}
