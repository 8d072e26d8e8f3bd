//! Tells the abuse desk, senders and programs: events of the guard and of releases become mail and JSON in the outbox.
//!
//! A method returns when its mail is durable. A notice that cannot be written is kept in memory and written as soon as there is
//! room, so that it holds up nobody's mail; notices of blocks and probations are kept by the ledger instead. Without `[notify]
//! to` and `webhook` only the log tells.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;

use crate::account::Account;
use crate::auth::Guessed;
use crate::clock::{self, Timestamp};
use crate::config::{Action, Config};
use crate::control::api::AccountStatus;
use crate::digest::HORIZON;
use crate::guard::ledger::{self, Blindness, BlockedBy, OnAlarm, Record};
use crate::id::OutboxId;
use crate::maillog;
use crate::notify::digest::{Digest, Waiting};
use crate::notify::dsn::{Original, Refused, Report, ReportError};
use crate::notify::notice::{Fate, Incident, Letterhead, Notice, Withheld};
use crate::notify::outbox::{Kind, Mail, Outbox, OutboxError, Route};
use crate::notify::suspicion::{Delay, Spared};
use crate::notify::template::Template;
use crate::notify::webhook::{self, Messenger, SecretError, Secrets};
use crate::quarantine::spool::Usage;
use crate::quarantine::{self, Envelope, Recipient, RecipientState, Spool};

/// What a program is told about a blind upstream.
#[derive(Serialize)]
struct Blind {
    /// How many of the day's first recipients met no refusal.
    recipients: u64,
    /// `all` recipients, or those at `foreign` domains.
    domains: &'static str,
}

/// Why a sender cannot be sent a DSN.
#[derive(Debug, thiserror::Error)]
pub enum DsnError {
    /// The report cannot be written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The disk does not take it.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// Writes notices, DSNs and events to those they concern. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    terms: Arc<ArcSwap<Terms>>,
    messenger: Arc<Messenger>,
    outbox: Outbox,
    /// For the number of parked messages.
    spool: Spool,
}

/// What a desk works by: a configuration, and what was read from the files it names.
pub struct Terms {
    config: Arc<Config>,
    template: Option<Template>,
}

impl Terms {
    /// Reads those files; makes the webhook's secret if it is ours to make and missing.
    ///
    /// # Errors
    /// The template, or the file with the webhook's secret, cannot be used.
    pub fn read(config: Arc<Config>) -> Result<Self, String> {
        let template = config.notify.template.as_deref().map(Template::read).transpose();
        let template = template.map_err(|error| config.files.located(&error))?;
        if let Some(hook) = &config.notify.webhook {
            let file = &hook.secret_file;
            let of_secret = |error: SecretError| match hook.own_secret {
                true => format!("[notify] webhook_secret_file: {error}"),
                false => config.files.located(&error),
            };
            let made = hook.own_secret && Secrets::make_if_missing(file).map_err(of_secret)?;
            drop(Secrets::read(file).map_err(of_secret)?);
            if made {
                maillog::webhook_secret_made(file);
            }
        }
        Ok(Self { config, template })
    }
}

/// The types of events that programs get.
mod events {
    pub(super) const BLOCKED: &str = "account.blocked";
    pub(super) const UNBLOCKED: &str = "account.unblocked";
    pub(super) const PROBATION: &str = "account.probation";
    pub(super) const WOULD_BLOCK: &str = "account.would_block";
    pub(super) const BLIND: &str = "upstream.blind";
}

impl Desk {
    /// Creates a desk that writes to `outbox`.
    pub fn new(terms: Terms, outbox: Outbox, spool: Spool) -> Self {
        let messenger = Arc::new(Messenger::new(terms.config.notify.webhook.clone()));
        Self { terms: Arc::new(ArcSwap::from_pointee(terms)), messenger, outbox, spool }
    }

    /// Works by these terms from now on, also for what waits to be sent. The route to the upstream stays.
    pub fn adopt(&self, terms: Terms) {
        self.messenger.adopt(terms.config.notify.webhook.clone());
        self.terms.store(Arc::new(terms));
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.terms.load().config)
    }

    /// Sends what waits in the outbox, for as long as it is polled.
    pub async fn run(&self) {
        let config = self.config();
        let settings = &config.upstream.settings;
        let route = Route {
            endpoints: settings.endpoints.clone(),
            protection: settings.protection,
            ca: settings.ca.clone(),
            identity: settings.identity.clone(),
            login: settings.credentials.clone(),
            hostname: config.hostname.clone(),
            connect_timeout: settings.connect_timeout,
            timeout: settings.timeouts.end,
        };
        let mail = async {
            let Err(error) = self.outbox.run(&route, |event| maillog::outbox(&event)).await;
            maillog::outbox_failed(&error.to_string());
        };
        tokio::join!(mail, self.outbox.run_events(&self.messenger, |event| maillog::outbox(&event)));
    }

    /// Lets what is on its way arrive; from then on nothing is sent.
    pub async fn finish(&self) {
        self.outbox.finish().await;
    }

    /// Returns what an operator should know about mail of ours that cannot be delivered.
    pub fn warnings(&self) -> Vec<String> {
        let stuck = self.outbox.stuck();
        stuck
            .iter()
            .map(|stuck| format!("{}: {}", stuck.path.display(), maillog::clean(&stuck.why)))
            .collect()
    }

    /// Reports that an account was blocked, by whomever; it counts as told only once this returns `Ok`. A block by hand
    /// sends no mail.
    ///
    /// # Errors
    /// The notice could not be written, and is not kept.
    pub async fn blocked(&self, record: &Record, sessions: usize) -> Result<(), OutboxError> {
        let config = self.config();
        let withheld = match config.action {
            Action::Park => Withheld::Parked,
            Action::Refuse => Withheld::Refused,
        };
        let fate = Fate { withheld, unblock_after: config.unblock_after };
        let now = clock::now();
        let by_hand = record.block.as_ref().is_some_and(|block| block.by == BlockedBy::Operator);
        let notice = (!by_hand).then(|| Notice::Blocked(self.incident(record, sessions), fate));
        let mail = notice.and_then(|notice| self.mail(&notice, now));
        let since = record.block.as_ref().map_or(now, |block| block.at);
        let event = self.account_event(events::BLOCKED, since, record, sessions);
        self.put(mail.into_iter().chain(event), now).await
    }

    /// Reports to programs that an account was unblocked at `at`; it counts as told only once this returns `Ok`.
    ///
    /// # Errors
    /// As [`Self::blocked`].
    pub async fn unblocked(
        &self,
        account: &Account,
        at: Timestamp,
        sessions: usize,
    ) -> Result<(), OutboxError> {
        // As it was then: the account may have been blocked again meanwhile.
        let rule = self.config().policy.terms(account).rule;
        let record = Record::blank(account.clone(), rule.limit, rule.period);
        let event = self.account_event(events::UNBLOCKED, at, &record, sessions);
        self.put(event, clock::now()).await
    }

    /// Reports that an account's mail is delayed; it counts as told only once this returns `Ok`.
    ///
    /// # Errors
    /// The notice could not be written, and is not kept.
    pub async fn probation(&self, record: &Record, sessions: usize) -> Result<(), OutboxError> {
        let Some(probation) = record.probation else { return Ok(()) };
        let now = clock::now();
        let delay = Delay { each: self.config().policy.terms(&record.account).delay, until: probation.until };
        let mail = self.mail(&Notice::Delayed(self.incident(record, sessions), delay), now);
        let event = self.account_event(events::PROBATION, probation.since, record, sessions);
        self.put(mail.into_iter().chain(event), now).await
    }

    /// Reports that the sequential test alarmed, without consequences.
    pub async fn suspected(&self, record: &Record, sessions: usize) {
        self.notify(&Notice::Suspected(self.incident(record, sessions)), None).await;
    }

    /// Reports that the sequential test alarmed for an observed account.
    pub async fn would_alarm(&self, record: &Record, sessions: usize) {
        let at = record.last.unwrap_or_else(clock::now);
        let (spared, event) = match self.config().policy.terms(&record.account).on_alarm {
            OnAlarm::Block => (Spared::Block, self.account_event(events::WOULD_BLOCK, at, record, sessions)),
            OnAlarm::Probation | OnAlarm::Notify | OnAlarm::Off => (Spared::Probation, None),
        };
        self.notify(&Notice::WouldAlarm(self.incident(record, sessions), spared), event).await;
    }

    /// Reports that an observed account would have been blocked.
    pub async fn would_block(&self, record: &Record, sessions: usize) {
        let at = record.last.unwrap_or_else(clock::now);
        let event = self.account_event(events::WOULD_BLOCK, at, record, sessions);
        self.notify(&Notice::WouldBlock(self.incident(record, sessions)), event).await;
    }

    /// Reports that the upstream seems to accept everybody.
    pub async fn blind(&self, blindness: Blindness) {
        let foreign = blindness == Blindness::Foreign;
        maillog::blind(blindness);
        let facts =
            Blind { recipients: ledger::BLIND_AFTER, domains: if foreign { "foreign" } else { "all" } };
        let event = self.event(events::BLIND, "the upstream", clock::now(), &facts);
        self.notify(&Notice::Blind { foreign, recipients: ledger::BLIND_AFTER }, event).await;
    }

    /// Reports that a password may have been guessed.
    pub async fn guessed(&self, account: &Account, client: IpAddr, guessed: Guessed) {
        let Guessed { guesses, addresses } = guessed;
        let period = self.config().auth.guesses.period;
        let notice = Notice::Guessed { account: account.clone(), client, guesses, addresses, period };
        self.notify(&notice, None).await;
    }

    /// Reports that a new certificate cannot be used.
    pub async fn certificate_refused(&self, why: &str) {
        self.notify(&Notice::CertificateRefused { why: why.to_owned() }, None).await;
    }

    /// Reports that a certificate expires soon.
    pub async fn certificate_expires(&self, certificate: &Path, not_after: Timestamp) {
        let certificate = certificate.display().to_string();
        self.notify(&Notice::CertificateExpires { certificate, not_after }, None).await;
    }

    /// Reports that counts or blocks cannot be written.
    pub async fn ledger_trouble(&self, why: &str) {
        self.notify(&Notice::LedgerTrouble { why: why.to_owned() }, None).await;
    }

    /// Reports that the ledger had to be mended; it counts as told only once this returns `Ok`.
    ///
    /// # Errors
    /// The notice could not be written, and is not kept.
    pub async fn ledger_mended(&self, what: &str) -> Result<(), OutboxError> {
        let now = clock::now();
        self.put(self.mail(&Notice::LedgerMended { what: what.to_owned() }, now), now).await
    }

    /// Tells what waits in the quarantine; it counts as told only once this returns `Ok`.
    ///
    /// # Errors
    /// The digest could not be written, and is not kept.
    pub async fn digest(&self, waiting: &[quarantine::Waiting], unreadable: u64) -> Result<(), OutboxError> {
        let expire_after = self.config().quarantine.expire_after;
        let part = |waiting: &quarantine::Waiting| Waiting {
            account: waiting.account.clone(),
            messages: waiting.usage.messages,
            octets: waiting.usage.octets,
            failed: waiting.failed,
            awaited: waiting.awaited,
            oldest: waiting.oldest,
            expiring: waiting.old,
            first_expiry: waiting.first.zip(expire_after).map(|(parked, age)| parked.after(age)),
        };
        let accounts = waiting.iter().map(part).collect();
        let notice = Notice::Digest(Digest { accounts, unreadable, expire_after, horizon: HORIZON });
        let now = clock::now();
        self.put(self.mail(&notice, now), now).await
    }

    /// Reports that 80 % of the quarantine is used.
    pub async fn quarantine_nearly_full(&self, usage: Usage) {
        let Usage { messages, octets } = usage;
        let max_size = self.config().quarantine.max_size;
        self.notify(&Notice::QuarantineNearlyFull { messages, octets, max_size }, None).await;
    }

    /// Tells the sender of a released message which recipients were refused.
    ///
    /// # Errors
    /// The DSN could not be written; the release must not be taken for done.
    pub async fn dsn(
        &self,
        envelope: &Envelope,
        original: Original<'_>,
        refused: &[&Recipient],
    ) -> Result<(), DsnError> {
        let config = self.config();
        let report = Report {
            hostname: &config.hostname,
            sender: envelope.reverse_path.as_str(),
            envid: envelope.parameters.envid.as_deref(),
            arrived: envelope.parked,
            subject: envelope.subject.as_deref(),
            original,
            refused: refused.iter().filter_map(|recipient| refusal(recipient)).collect(),
        };
        let now = clock::now();
        let message = report.write(OutboxId::new(now), now)?;
        let to = vec![envelope.reverse_path.as_str().to_owned()];
        // RFC 8689 5: a DSN about a message is protected as the message was.
        let require_tls = envelope.parameters.require_tls;
        let mail = Mail { kind: Kind::Dsn, from: None, to, message, require_tls };
        Ok(self.put([mail], now).await?)
    }

    /// Stores mails, all or none; they are durable when this returns `Ok`.
    async fn put(&self, mails: impl IntoIterator<Item = Mail>, now: Timestamp) -> Result<(), OutboxError> {
        self.outbox.put_all(mails.into_iter().collect(), now).await.map(drop)
    }

    fn incident(&self, record: &Record, sessions: usize) -> Incident {
        Incident {
            account: record.account.clone(),
            invalid_recipients: record.invalid_recipients,
            limit: record.limit,
            reason: record.block.as_ref().and_then(|block| block.reason.clone()),
            period: record.period,
            first: record.first,
            last: record.last,
            samples: record.samples.clone(),
            sessions,
            relayed: record.relayed.clone(),
            uncounted: record.uncounted.clone(),
        }
    }

    async fn notify(&self, notice: &Notice, event: Option<Mail>) {
        let now = clock::now();
        let all: Vec<Mail> = self.mail(notice, now).into_iter().chain(event).collect();
        if let Err(error) = self.outbox.put_all(all.clone(), now).await {
            maillog::notice_postponed(&error.to_string());
            self.outbox.keep(all, now);
        }
    }

    /// Makes an event about an account, with what `status` says of it; `None` if no program gets events.
    fn account_event(&self, kind: &str, at: Timestamp, record: &Record, sessions: usize) -> Option<Mail> {
        self.config().notify.webhook.as_ref()?;
        let parked = self.spool.usage(Some(&record.account)).messages;
        let awaited = self.spool.awaited(&record.account);
        let status = AccountStatus::new(record.clone(), parked, awaited, sessions, clock::now());
        self.event(kind, record.account.as_str(), at, &status)
    }

    /// Makes an event; `None` if no program gets events.
    fn event(&self, kind: &str, about: &str, at: Timestamp, data: &impl Serialize) -> Option<Mail> {
        self.config().notify.webhook.as_ref()?;
        let event = webhook::event(kind, about, at, data);
        // The mail about the same must not wait for it.
        event.inspect_err(|error| maillog::event_lost(kind, about, &error.to_string())).ok()
    }

    /// Makes a notice's mail; `None` if nobody gets notices.
    fn mail(&self, notice: &Notice, now: Timestamp) -> Option<Mail> {
        let terms = self.terms.load();
        let config = &terms.config;
        if config.notify.to.is_empty() {
            return None;
        }
        let letterhead = Letterhead {
            from: config.notify.from.clone(),
            to: config.notify.to.clone(),
            hostname: config.hostname.clone(),
        };
        let message = notice.write(&letterhead, terms.template.as_ref(), OutboxId::new(now), now);
        Some(Mail {
            kind: Kind::Notice,
            from: Some(letterhead.from),
            to: letterhead.to,
            message,
            require_tls: false,
        })
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
