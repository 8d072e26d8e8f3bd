//! What the abuse desk and the senders are told: events of the guard and of releases become mail in the outbox.
//!
//! A method returns when its mail is durable. A notice that the disk does not take is kept in memory and written as soon as there is
//! room: it holds nobody's mail up. That of a block is kept by the ledger instead. With no `[notify] to` the log alone tells.

use std::sync::Arc;

use crate::clock::{self, Timestamp};
use crate::config::{Action, Config};
use crate::guard::ledger::{self, Blindness, Record};
use crate::id::OutboxId;
use crate::maillog;
use crate::notify::dsn::{Refused, Report};
use crate::notify::notice::{Incident, Letterhead, Notice, Relayed, Sample, Withheld};
use crate::notify::outbox::{Kind, Login, Mail, Outbox, Protection, Route};
use crate::quarantine::spool::Usage;
use crate::quarantine::{Envelope, Recipient, RecipientState};
use crate::upstream;

/// Writes to whom it concerns. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    config: Arc<Config>,
    outbox: Outbox,
}

impl Desk {
    /// Writes through this outbox.
    pub fn new(config: Arc<Config>, outbox: Outbox) -> Self {
        Self { config, outbox }
    }

    /// Sends what waits in the outbox, for as long as it is polled.
    pub async fn run(&self) {
        let settings = &self.config.upstream.settings;
        let route = Route {
            endpoints: settings.endpoints.clone(),
            protection: match settings.protection {
                upstream::Protection::Off => Protection::Off,
                upstream::Protection::StartTls => Protection::StartTls,
                upstream::Protection::Implicit => Protection::Implicit,
            },
            ca: settings.ca.clone(),
            identity: settings.identity.clone(),
            login: settings.credentials.as_ref().map(|credentials| Login {
                username: credentials.username.clone(),
                password_file: credentials.password_file.clone(),
            }),
            hostname: self.config.hostname.clone(),
            connect_timeout: settings.connect_timeout,
            timeout: settings.timeouts.end,
        };
        let Err(error) = self.outbox.run(&route, |event| maillog::outbox(&event)).await;
        maillog::outbox_failed(&error.to_string());
    }

    /// What an operator should know of mail of ours that nobody takes.
    pub fn warnings(&self) -> Vec<String> {
        let stuck = self.outbox.stuck();
        stuck
            .iter()
            .map(|stuck| format!("{}: {}", stuck.path.display(), maillog::clean(&stuck.why)))
            .collect()
    }

    /// An account was blocked by the limit; not to be taken for told before this returns.
    ///
    /// # Errors
    /// The notice could not be written, and is not kept.
    pub async fn blocked(&self, record: &Record, sessions: usize) -> Result<(), String> {
        let withheld = match self.config.action {
            Action::Park => Withheld::Parked,
            Action::Refuse => Withheld::Refused,
        };
        match self.mail(&Notice::Blocked(self.incident(record, sessions), withheld)) {
            Some((mail, now)) => {
                self.outbox.put(mail, now).await.map(drop).map_err(|error| error.to_string())
            }
            None => Ok(()),
        }
    }

    /// An account that is observed would have been blocked.
    pub async fn would_block(&self, record: &Record, sessions: usize) {
        self.notify(&Notice::WouldBlock(self.incident(record, sessions))).await;
    }

    /// The upstream seems to accept everybody.
    pub async fn blind(&self, blindness: Blindness) {
        maillog::blind(match blindness {
            Blindness::Everybody => "all",
            Blindness::Foreign => "those at foreign domains",
        });
        let foreign = blindness == Blindness::Foreign;
        self.notify(&Notice::Blind { foreign, recipients: ledger::BLIND_AFTER }).await;
    }

    /// Counts or blocks cannot be written.
    pub async fn ledger_trouble(&self, why: &str) {
        self.notify(&Notice::LedgerTrouble { why: why.to_owned() }).await;
    }

    /// 80 % of the quarantine are used.
    pub async fn quarantine_nearly_full(&self, usage: Usage) {
        let Usage { messages, octets } = usage;
        let max_size = self.config.quarantine.max_size;
        self.notify(&Notice::QuarantineNearlyFull { messages, octets, max_size }).await;
    }

    /// The sender of a released message is told who refused it. `header` is the message's, as it was sent.
    ///
    /// # Errors
    /// The DSN could not be written; the release must not be taken for done.
    pub async fn bounce(
        &self,
        envelope: &Envelope,
        header: &[u8],
        refused: &[&Recipient],
    ) -> Result<(), String> {
        let report = Report {
            hostname: &self.config.hostname,
            sender: envelope.reverse_path.as_str(),
            envid: envelope.parameters.envid.as_deref(),
            arrived: envelope.parked,
            subject: envelope.subject.as_deref(),
            header,
            refused: refused.iter().filter_map(|recipient| refusal(recipient)).collect(),
        };
        let now = clock::now();
        let message = report.write(OutboxId::new(now), now).map_err(|error| error.to_string())?;
        let to = vec![envelope.reverse_path.as_str().to_owned()];
        let mail = Mail { kind: Kind::Dsn, from: None, to, message };
        self.outbox.put(mail, now).await.map(|_| ()).map_err(|error| error.to_string())
    }

    fn incident(&self, record: &Record, sessions: usize) -> Incident {
        let sample = |sample: &ledger::Sample| Sample {
            at: sample.at,
            address: sample.address.clone(),
            client: sample.client,
        };
        let relayed = |message: &ledger::Relayed| Relayed {
            at: message.at,
            reply: message.reply.clone(),
            message_id: message.message_id.clone(),
        };
        Incident {
            account: record.account.clone(),
            invalid_recipients: record.invalid_recipients,
            period: record.period,
            first: record.first,
            last: record.last,
            samples: record.samples.iter().map(sample).collect(),
            sessions,
            relayed: record.relayed.iter().map(relayed).collect(),
        }
    }

    async fn notify(&self, notice: &Notice) {
        let Some((mail, now)) = self.mail(notice) else { return };
        if let Err(error) = self.outbox.put(mail.clone(), now).await {
            maillog::notice_postponed(&error.to_string());
            self.outbox.keep(mail, now);
        }
    }

    /// A notice as mail of now; `None` where nobody is to get any.
    fn mail(&self, notice: &Notice) -> Option<(Mail, Timestamp)> {
        let config = &self.config;
        if config.notify.to.is_empty() {
            return None;
        }
        let letterhead = Letterhead {
            from: config.notify.from.clone(),
            to: config.notify.to.clone(),
            hostname: config.hostname.clone(),
        };
        let now = clock::now();
        let message = notice.write(&letterhead, OutboxId::new(now), now);
        Some((Mail { kind: Kind::Notice, from: Some(letterhead.from), to: letterhead.to, message }, now))
    }
}

fn refusal(recipient: &Recipient) -> Option<Refused<'_>> {
    let RecipientState::Refused { reply, at } = &recipient.state else { return None };
    Some(Refused {
        address: recipient.forward_path.as_str(),
        orcpt: recipient.parameters.orcpt.as_deref(),
        reply,
        at: *at,
    })
}
