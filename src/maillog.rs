//! The mail log: one function per event, one line per call, never a password.
//!
//! The lines of a session are [`SessionLog`]'s; those here are the service's. Text from clients or the upstream appears
//! only in fields, never in the message, and is cleaned of control characters by the formatter (JSON) or here (text).
//! [`replay`](crate::replay) parses some of the lines; a test of its own fails if their wording changes.

pub mod batches;
mod bounds;
pub mod json;
pub mod patient;
mod session;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tracing::field::display;
use tracing::{debug, error, info, warn};

use bounds::{Bounds, Kind, LeftOut};

pub use session::{Alarm, MessageFacts, SessionLog};

use crate::account::Account;
use crate::clock::Timestamp;
use crate::control::AuditLine;
use crate::guard::ledger::{Blindness, Cause};
use crate::id::QuarantineId;
use crate::notify::outbox::{Event, Kind as MailKind};
use crate::quarantine::Envelope;
use crate::quarantine::spool::Swept;
use crate::release::Report;
use crate::smtp::Reply;
use crate::visible::{is_printable_ascii, masked};

/// How often [`left_out`] is to be called.
pub const MINUTE: Duration = Duration::from_secs(60);

/// Limits the lines that strangers can cause.
static BOUNDS: Bounds = Bounds::new();

/// Text from outside for a log line: characters that are unsafe to show become `?`.
pub fn clean(text: &str) -> String {
    if is_printable_ascii(text.as_bytes()) {
        return text.to_owned();
    }
    text.chars().map(masked).collect()
}

/// A reply of the upstream, which may quote a stranger.
fn said(reply: &Reply) -> String {
    let text = reply.one_line();
    if is_printable_ascii(text.as_bytes()) { text } else { clean(&text) }
}

fn list(addresses: &[&str]) -> String {
    let mut list = String::with_capacity(addresses.iter().map(|address| address.len() + 1).sum());
    for address in addresses {
        if !list.is_empty() {
            list.push(',');
        }
        if is_printable_ascii(address.as_bytes()) {
            list.push_str(address);
        } else {
            list.push_str(&clean(address));
        }
    }
    list
}

/// A parked message was released, or that was tried. `session` and `client` are those with which it arrived.
pub fn released(report: &Report, envelope: &Envelope) {
    let addresses = |list: &[(String, Reply)]| {
        list.iter()
            .map(|(address, reply)| format!("{} ({})", clean(address), said(reply)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    info!(session = %envelope.session.id, client = %envelope.session.client, account = %envelope.account,
        sender = clean(envelope.reverse_path.as_str()), message_id = report.message_id.as_deref().map(clean), size = envelope.size,
        quarantine_id = %report.id, outcome = report.outcome.as_str(), delivered = addresses(&report.delivered), refused = addresses(&report.refused), deferred = addresses(&report.deferred), "release tried");
}

/// A delayed message of an account on probation has become due.
pub fn delay_over(envelope: &Envelope) {
    info!(quarantine_id = %envelope.id, account = %envelope.account, arrived = %envelope.parked,
        "the delay of a parked message is over: it goes out by itself");
}

/// A delayed message was kept because its account had been blocked.
pub fn kept_by_block(envelope: &Envelope) {
    info!(quarantine_id = %envelope.id, account = %envelope.account,
        "a message that was about to go out by itself waits for an operator: its account was blocked meanwhile");
}

/// A message that was to be released is not what arrived.
pub fn altered(envelope: &Envelope, why: &str) {
    error!(quarantine_id = %envelope.id, account = %envelope.account, why = clean(why),
        "a parked message was altered on its disk: it is not sent");
}

/// The upstream's reply to a release could not be written to disk.
pub fn release_not_noted(id: QuarantineId, why: &str) {
    error!(quarantine_id = %id, why = clean(why),
        "what the upstream answered to a release cannot be written down; it is tried again each second, and the message is held meanwhile");
}

/// Such a reply has been written to disk.
pub fn release_noted(id: QuarantineId) {
    info!(quarantine_id = %id, "what the upstream answered to a release is written down");
}

/// The service ends before such a reply could be written.
pub fn release_forgotten(id: QuarantineId, why: &str) {
    error!(quarantine_id = %id, why = clean(why),
        "what the upstream answered to a release could not be written down before the end: who took the message may get it again");
}

/// A due release could not be tried or not be completed.
pub fn release_failed(id: QuarantineId, why: &str) {
    warn!(quarantine_id = %id, why = clean(why), "release did not succeed");
}

/// A digest is in the outbox.
pub fn digest_sent(messages: u64, accounts: usize, expiring: u64) {
    info!(messages, accounts, expiring, "digest of the quarantine written");
}

/// A digest could not be written or noted.
pub fn digest_failed(why: &str) {
    error!(
        why = clean(why),
        "the digest could not be written; it is tried again, and nothing expires meanwhile"
    );
}

/// The record of earlier digests cannot be read.
pub fn digests_unreadable(why: &str) {
    error!(why = clean(why), "it is not known which digests went out");
}

/// It could not be noted which digests went out and count.
pub fn digests_not_noted(why: &str) {
    error!(
        why = clean(why),
        "it cannot be noted which digests of the quarantine went out and still count; it is tried again, and a restart before that sends the last one again"
    );
}

/// A block is due to be lifted, but what the account has parked could not be kept from being sent.
pub fn lapse_postponed(account: &Account, why: &str) {
    error!(%account, why = clean(why), "account stays blocked although unblock_after is over: its parked mail could not be held back");
}

/// A message that became due while its account is blocked could not be kept permanently.
pub fn not_kept(account: &Account, why: &str) {
    error!(%account, why = clean(why), "mail that fell due while its account is blocked could not be held back for good; it is tried again");
}

/// An automatic block was lifted because its time was over.
pub fn lapsed(account: &Account, blocked_at: Timestamp, parked: u64) {
    warn!(%account, %blocked_at, parked, "account unblocked: [limit] unblock_after is over; what is parked stays so");
}

/// A parked message expired.
pub fn expired(id: QuarantineId) {
    info!(quarantine_id = %id, "parked message expired and was removed");
}

/// So many lines of the log are lost, since the start.
pub fn lines_lost(count: u64) {
    error!(
        count,
        "lines of the log were lost so far: its reader did not read for too long, or writing failed"
    );
}

/// The log's lines cannot be written together.
pub fn not_batched(why: &std::io::Error) {
    warn!(%why, "each line of the log is written by itself, which takes more processor time");
}

/// The service has started.
pub fn serving(version: &str, hostname: &str, config: Option<&Path>) {
    let config = config.map(|file| display(file.display()));
    info!(version, hostname, config, "gatepost is serving");
}

/// A socket was bound.
pub fn listening(address: SocketAddr, tls: &str) {
    info!(%address, tls, "listening");
}

/// `[::]` is configured, but the machine has no IPv6.
pub fn no_ipv6(address: SocketAddr) {
    warn!(%address, "this machine has no IPv6: listening on 0.0.0.0 instead");
}

/// The system could not accept a connection.
pub fn accept_failed(address: SocketAddr, why: &str) {
    if BOUNDS.admit(Kind::AcceptFailed, address.ip()) {
        error!(%address, why, "a connection could not be taken; raise the limit of file descriptors if they ran out");
    }
}

/// A client was turned away.
pub fn too_many_connections(client: SocketAddr) {
    if BOUNDS.admit(Kind::TurnedAway, client.ip()) {
        warn!(%client, "too many connections: client turned away");
    }
}

/// Logs how many lines were left out, so that strangers do not fill the log. To be called each [`MINUTE`].
pub fn left_out() {
    for LeftOut { kind, origin, lines } in BOUNDS.turn() {
        let client = origin.as_ref().map(Account::as_str);
        match kind {
            Kind::TurnedAway => {
                warn!(clients = lines, "too many connections: more clients were turned away within a minute");
            }
            Kind::AcceptFailed => {
                error!(failures = lines, "more connections could not be taken within a minute");
            }
            Kind::AuthenticationFailed => {
                warn!(
                    client,
                    failures = lines,
                    "more log-ins failed within a minute and were not logged one by one"
                );
            }
            Kind::AccountCrowded => {
                warn!(
                    client,
                    times = lines,
                    "too many sessions of one account: more log-ins were turned away within a minute"
                );
            }
            Kind::OtherProtocol => {
                info!(client, times = lines, "more connections spoke another protocol within a minute");
            }
            Kind::CredentialsExposed => {
                warn!(
                    client,
                    times = lines,
                    "credentials exposed: more AUTH commands came on unencrypted connections within a minute"
                );
            }
        }
    }
}

/// A client's TLS handshake failed.
pub fn handshake_failed(client: SocketAddr, why: &str) {
    debug!(%client, why = clean(why), "TLS handshake failed");
}

/// A self-signed certificate was generated.
pub fn self_signed(certificate: &Path) {
    warn!(certificate = %certificate.display(),
        "NO CERTIFICATE WAS FOUND: a self-signed one was made; clients will not trust it. Put your own there, or set [tls]");
}

/// The upstream's offers could not be queried.
pub fn upstream_unreachable(address: &str, fault: &str) {
    warn!(
        upstream = address,
        fault = clean(fault),
        "the upstream does not answer; clients get 451 4.4.1 until it does"
    );
}

/// The offers of one of several upstreams could not be queried.
pub fn upstream_left_out(address: &str, fault: &str) {
    warn!(upstream = address, fault = clean(fault), "an upstream does not answer; the others take its mail");
}

/// An upstream answers again.
pub fn upstream_answers(address: &str) {
    info!(upstream = address, "the upstream answers again");
}

/// The upstream does not offer XCLIENT, so that it cannot learn who the client is.
pub fn no_xclient(address: &str) {
    warn!(
        upstream = address,
        "the upstream offers no XCLIENT: it will see every client as this machine; see `gatepost check`"
    );
}

/// The users file was read anew.
pub fn users_reloaded(users: usize, ended: &[String]) {
    info!(users, ended = ended.join(","), "users file read anew; the sessions of changed users end");
}

/// Some users cannot log in; `some` names some of them and why.
pub fn users_shut_out(users: usize, some: &[(String, String)]) {
    // Users of another scheme have one reason, which is long.
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, why) in some {
        match reasons.iter_mut().find(|(reason, _)| reason == why) {
            Some((_, names)) => names.push(name),
            None => reasons.push((why, vec![name])),
        }
    }
    let named = reasons.iter().map(|(why, names)| clean(&format!("{}: {why}", names.join(", "))));
    warn!(
        users,
        named = named.collect::<Vec<_>>().join("; "),
        "users cannot log in; see `gatepost check`, and give them a password by `gatepost user passwd NAME`"
    );
}

/// There are users, but no mechanism that all of them can use.
pub fn nobody_can_log_in() {
    error!(
        "NOBODY CAN LOG IN: AUTH is not offered, since no mechanism would do for the users of the file; see `gatepost check`"
    );
}

/// A new users file was refused.
pub fn users_refused(why: &str) {
    error!(why = clean(why), "the new users file is refused; the old one stays in force");
}

/// The notice of a block by the limit is in the outbox; without a recipient for it, this line is the notice.
pub fn block_told(account: &Account, to: &[String]) {
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    if to.is_empty() {
        warn!(%account, "an account is blocked by the limit; nobody gets a mail, since [notify] to is empty");
    } else {
        info!(%account, to = list(&to), "the notice of a block is on its way");
    }
}

/// The notice of a probation is in the outbox; without a recipient for it, this line is the notice.
pub fn probation_told(account: &Account, to: &[String]) {
    if !to.is_empty() {
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        info!(%account, to = list(&to), "the notice of a probation is on its way");
    }
}

/// The senders file was read anew.
pub fn senders_reloaded(accounts: usize) {
    info!(accounts, "senders file read anew");
}

/// A new senders file was refused.
pub fn senders_refused(why: &str) {
    error!(why = clean(why), "the new senders file is refused; the old one stays in force");
}

/// A connection from a proxy's network did not begin with a PROXY header.
pub fn no_proxy_header(peer: SocketAddr, why: &str) {
    warn!(%peer, why = clean(why),
        "connection closed: it came from a network in [[listen]] proxy_protocol and had no PROXY header to go by");
}

/// Counts or blocks cannot be written.
pub fn ledger_trouble(why: &str) {
    error!(
        why = clean(why),
        "the ledger cannot be written; counts and blocks hold in memory, and writing is tried again each second"
    );
}

/// The database was damaged or missing; says what was done.
pub fn ledger_mended(sentence: &str) {
    error!(what = clean(sentence), "the ledger had to be mended");
}

/// Counts and blocks can be written again.
pub fn ledger_recovered() {
    info!("the ledger is written again");
}

/// Unreadable messages were found in the quarantine at start-up.
pub fn quarantine_unreadable(messages: u64) {
    warn!(
        messages,
        "messages in the quarantine cannot be read; `gatepost quarantine list` says which and why"
    );
}

/// Messages that could not be read before now can.
pub fn quarantine_readable(messages: usize) {
    info!(messages, "messages in the quarantine that could not be read can be read again");
}

/// A message without an envelope was removed at start-up.
pub fn quarantine_swept(swept: &Swept) {
    warn!(id = %swept.id, size = swept.size, "{swept}");
}

/// This many more messages were removed.
pub fn quarantine_swept_more(messages: usize) {
    warn!(messages, "further messages without an envelope were removed");
}

/// The clock is behind what it has said before.
pub fn clock_behind(floor: Timestamp, now: Timestamp, file: &Path) {
    warn!(%now, %floor, file = clean(&file.display().to_string()),
        "the clock is behind what it has said before; until it is past that, what is parked expires, and a block lapses, as if it had come then. If the clock is right now, remove this file and start Gatepost again");
}

/// A domain refuses everyone.
pub fn common_cause(cause: &Cause) {
    warn!(domain = clean(&cause.domain), since = %cause.since,
        "common cause: this domain refused the recipients of several accounts and accepted none, so its answers do not count; is it down, or are we not welcome there?");
}

/// A domain no longer refuses everyone, or was not asked for a while.
pub fn common_cause_over(cause: &Cause) {
    info!(domain = clean(&cause.domain), since = %cause.since, uncounted = cause.answers,
        "common cause over: the answers of this domain count again");
}

/// 80 % of the quarantine is used.
pub fn quarantine_nearly_full(messages: u64, octets: u64, max: u64) {
    warn!(
        messages,
        octets, max, "the quarantine is nearly full: release or delete, or raise [quarantine] max_size"
    );
}

/// The upstream seems to accept every recipient.
pub fn blind(blindness: Blindness) {
    let (whose, whom) = match blindness {
        Blindness::Everybody => ("", "everybody"),
        Blindness::Foreign => (" at foreign domains", "everybody there"),
    };
    error!(
        "BLIND: today's first 1,000 recipients{whose} met no refusal; the upstream seems to accept {whom}. See `gatepost check`"
    );
}

/// A defect, ours or a library's; whether it was caught is logged elsewhere.
pub fn panicked(at: &str, why: &str) {
    error!(at, why = clean(why), "panic: this is a defect of Gatepost's, please report it");
}

/// The service is shutting down and accepts no more clients.
pub fn shutting_down(sessions: usize) {
    info!(sessions, "shutting down: what is under way is finished first");
}

/// The service has ended.
pub fn stopped(left: usize) {
    if left == 0 {
        info!("stopped");
    } else {
        warn!(sessions = left, "stopped; these sessions did not finish within shutdown_timeout");
    }
}

/// The target of audit lines, which are logged at any `[log] level`.
pub const AUDIT: &str = "gatepost_audit";

/// An operator gave a command.
pub fn audit(line: &AuditLine) {
    info!(target: AUDIT, time = %line.time, user = line.user, command = line.command, object = line.object, outcome = line.outcome,
        "audit");
}

/// Lines of commands that were given while the service was down could not be read.
pub fn audit_lines_left(why: &str) {
    error!(why = clean(why), "audit lines of commands given while gatepost was down could not be logged");
}

/// The control socket failed.
pub fn control_failed(why: &str) {
    error!(why = clean(why), "the control socket failed; commands cannot reach this process any more");
}

/// Something happened to a mail of our own.
pub fn outbox(event: &Event) {
    match event {
        Event::Sent { id, kind: MailKind::Event, to, reply } => {
            info!(outbox_id = %id, about = clean(to), reply = clean(reply), "event sent");
        }
        Event::Deferred { id, kind: MailKind::Event, to, reply, next } => {
            warn!(outbox_id = %id, about = clean(to), reply = clean(reply), %next, "event put off");
        }
        Event::GivenUp { id, kind: MailKind::Event, to, reply } => {
            error!(outbox_id = %id, about = clean(to), reply = clean(reply),
                "event given up after five days; it is kept, and `gatepost status` shows it");
        }
        Event::Sent { id, kind, to, reply } => {
            info!(outbox_id = %id, kind = kind.as_str(), to = clean(to), reply = clean(reply), "mail of ours sent");
        }
        Event::Deferred { id, kind, to, reply, next } => {
            warn!(outbox_id = %id, kind = kind.as_str(), to = clean(to), reply = clean(reply), %next, "mail of ours put off");
        }
        Event::GivenUp { id, kind, to, reply } => {
            error!(outbox_id = %id, kind = kind.as_str(), to = clean(to), reply = clean(reply),
                "mail of ours given up, refused for good or after five days; it is kept, and `gatepost status` shows it");
        }
        Event::Trouble(why) => error!(why = clean(why), "the outbox is in trouble"),
    }
}

/// An event could not be written as JSON.
pub fn event_lost(kind: &str, about: &str, why: &str) {
    error!(
        kind,
        about = clean(about),
        why = clean(why),
        "an event cannot be written as JSON, and is not sent"
    );
}

/// The outbox sends nothing.
pub fn outbox_failed(why: &str) {
    error!(why = clean(why), "the outbox cannot send: notices and DSNs wait");
}

/// A secret for signing events was generated.
pub fn webhook_secret_made(file: &Path) {
    info!(file = %file.display(), "[notify] webhook_secret_file is empty: events are signed with the secret in this new file");
}

/// A notice could not be written.
pub fn notice_postponed(why: &str) {
    error!(why = clean(why), "a notice could not be written; it is tried again until it can");
}

/// A task of ours ended although it must not.
pub fn task_failed(task: &str, why: &str) {
    error!(task, why = clean(why), "a task failed; this is a fault in gatepost, please report it");
}

/// A certificate was read anew.
pub fn certificate_reloaded(certificate: &Path) {
    info!(certificate = %certificate.display(), "certificate read anew");
}

/// A certificate expires soon, or has expired.
pub fn certificate_expires(certificate: &Path, not_after: Timestamp, now: Timestamp) {
    let certificate = certificate.display();
    if not_after <= now {
        error!(%certificate, %not_after, "THE CERTIFICATE HAS EXPIRED: mail programs refuse it; renew it");
    } else {
        let days = not_after.since(now).as_secs() / 86_400;
        warn!(%certificate, %not_after, days, "the certificate expires soon; renew it");
    }
}

/// A new certificate cannot be used.
pub fn certificate_refused(why: &str) {
    error!(why = clean(why), "the new certificate is refused; the old one stays in force");
}

/// SIGHUP: the new configuration is in force, except for these tables.
pub fn reloaded(waiting: &[&str]) {
    if waiting.is_empty() {
        info!("configuration and certificates read anew");
    } else {
        warn!(
            waiting = waiting.join(", "),
            "configuration and certificates read anew; some of what changed takes a restart"
        );
    }
}

/// SIGHUP: the new configuration cannot be used.
pub fn reload_refused(why: &str) {
    error!(why = clean(why), "the new configuration is refused as a whole; the old one stays in force");
}

/// Access to files is not restricted.
pub fn no_sandbox(why: &str) {
    warn!(why = clean(why), "no sandbox: the process sees every file that its user may see");
}

/// No user to run as is configured.
pub fn runs_as_root() {
    warn!("running as root; set [process] user, or start it as a user of its own");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_not_logged() {
        for (text, expected) in [
            ("größe 漢字", "größe 漢字"),
            ("a\r\nb\u{1b}[2J", "a??b?[2J"),
            ("a\u{61c}b\u{200b}c\u{2028}d\u{2029}e\u{feff}f\u{202e}g", "a?b?c?d?e?f?g"),
        ] {
            assert_eq!(clean(text), expected);
            assert_eq!(list(&[text, "x"]), format!("{expected},x"));
        }
    }
}
