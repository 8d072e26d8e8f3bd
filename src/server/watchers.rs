//! Tasks that run beside the sessions: each watches one thing and reports when it changes.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::account::Account;
use crate::auth::UsersEvent;
use crate::clock::{self, Settled};
use crate::control::AuditLine;
use crate::fail;
use crate::guard::ledger::{BlockedBy, CauseChange, Moment, News, Record};
use crate::maillog;
use crate::net::tls::EXPIRY_WARNING;
use crate::notify::outbox::OutboxError;
use crate::parts::Parts;
use crate::rested::{PACE, Rested};
use crate::roster::Ending;
use crate::sender::SendersEvent;

/// How often news is looked for that the abuse desk may not have been told.
const UNTOLD_TICK: Duration = Duration::from_secs(1);
/// How often to look for common causes that ended in silence.
const CAUSE_TICK: Duration = Duration::from_secs(10);
/// How often the quarantine's fill level is checked.
const FILL_TICK: Duration = Duration::from_secs(10);
/// How often to read again what could not be read.
const READ_AGAIN_TICK: Duration = Duration::from_secs(60);
/// How often to check whether a digest is due.
const DIGEST_TICK: Duration = Duration::from_secs(1);
/// How often to look for blocks whose time is over.
const LAPSE_TICK: Duration = Duration::from_secs(1);

/// How long to wait if a certificate does not fit its key, since one is written after the other.
const PAIR_PATIENCE: Duration = Duration::from_secs(3);
/// How long the process must be up before an expiry is mailed, so that one that restarts again and again fills no mailbox.
const EXPIRY_FIRST: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How many of the users who cannot log in are named in the log.
const NAMED: usize = 10;

/// Logs who cannot log in, so that nobody has to find out from an empty mailbox.
pub(super) fn shut_out(parts: &Parts) {
    let shut_out = parts.auth.shut_out();
    if !shut_out.is_empty() {
        maillog::users_shut_out(shut_out.len(), shut_out.get(..NAMED).unwrap_or(&shut_out));
    }
    if parts.auth.offered(false).is_empty() && parts.in_force.load().relay_hosts.is_empty() {
        maillog::nobody_can_log_in();
    }
}

/// Logs every minute what was left out of the log.
pub(super) async fn log() {
    loop {
        tokio::time::sleep(maillog::MINUTE).await;
        maillog::left_out();
    }
}

/// Reloads the users file when it changes, and ends the sessions of users whose line changed.
pub(super) async fn users(parts: Parts) {
    parts.auth.watch(|event| users_changed(&parts, event)).await;
}

pub(super) fn users_changed(parts: &Parts, event: UsersEvent) {
    match event {
        UsersEvent::Reloaded { users, ended } => {
            for name in &ended {
                if let Ok(account) = Account::user(name) {
                    parts.roster.end(&account, Ending::CredentialsChanged);
                }
            }
            maillog::users_reloaded(users, &ended);
            shut_out(parts);
        }
        UsersEvent::Refused(why) => maillog::users_refused(&why),
    }
}

/// Reloads the senders file when it changes.
pub(super) async fn senders(parts: Parts) {
    let changed = |event: SendersEvent| match event {
        SendersEvent::Reloaded(accounts) => maillog::senders_reloaded(accounts),
        SendersEvent::Refused(why) => maillog::senders_refused(&why),
    };
    parts.senders.watch(changed).await;
}

/// The shortest time between two notices that the ledger cannot be written: a nearly full disk fails and recovers every second.
const BETWEEN_NOTICES: Duration = Duration::from_secs(60 * 60);

/// Reports when the ledger cannot be written, and when it can again.
pub(super) async fn ledger(parts: Parts) {
    let mut trouble = parts.ledger.trouble();
    let mut next_notice = Instant::now();
    // The desk is told of each trouble once: when it begins, or as soon as possible after that.
    let (mut is_trouble, mut is_untold) = (false, false);
    loop {
        tokio::select! {
            changed = trouble.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = trouble.borrow_and_update().clone();
                match &now {
                    Some(why) => maillog::ledger_trouble(why),
                    None => maillog::ledger_recovered(),
                }
                is_untold = now.is_some() && (is_untold || !is_trouble);
                is_trouble = now.is_some();
            }
            () = tokio::time::sleep(next_notice.saturating_duration_since(Instant::now())), if is_untold => {
                is_untold = false;
                let why = trouble.borrow().clone();
                if let Some(why) = why {
                    next_notice = Instant::now() + BETWEEN_NOTICES;
                    parts.desk.ledger_trouble(&why).await;
                }
            }
        }
    }
}

/// Reports the first of consecutive failures, and the next only after a success.
#[derive(Debug, Default)]
struct Once {
    failing: bool,
}

impl Once {
    fn note(&mut self, outcome: &Result<(), impl Display>, say: impl FnOnce(&str)) {
        let was_failing = std::mem::replace(&mut self.failing, outcome.is_err());
        if let Err(why) = outcome
            && !was_failing
        {
            say(&why.to_string());
        }
    }
}

/// Reports that the ledger had to be mended, in the log and to the abuse desk; again at the next start if the desk was not
/// told.
pub(super) async fn recovery(parts: Parts) {
    let Some(text) = parts.ledger.recovery() else { return };
    text.lines().for_each(maillog::ledger_mended);
    let (mut failures, mut is_sent) = (Once::default(), false);
    loop {
        let sent = if is_sent { Ok(()) } else { parts.desk.ledger_mended(&text).await };
        is_sent = sent.is_ok();
        let told = match sent {
            Ok(()) => parts.ledger.told_recovery().map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        failures.note(&told, maillog::notice_postponed);
        if told.is_ok() {
            return;
        }
        tokio::time::sleep(UNTOLD_TICK).await;
    }
}

/// Lifts automatic blocks when their time is over.
pub(super) async fn lapses(parts: Parts) {
    let mut settled = Settled::default();
    // Accounts whose block could not be lifted, as the log says.
    let mut postponed: BTreeMap<Account, Once> = BTreeMap::new();
    loop {
        if let Some((age, lapsed)) = lapsed(&parts, &mut settled) {
            postponed.retain(|account, _| lapsed.contains(account));
            for account in lapsed {
                let lifted = lift(&parts, &account, age).await;
                let failures = postponed.entry(account.clone()).or_default();
                failures.note(&lifted, |why| maillog::lapse_postponed(&account, why));
            }
        }
        tokio::time::sleep(LAPSE_TICK).await;
    }
}

/// `unblock_after`, and the accounts whose automatic block has lasted as long; `None` while that is not known.
fn lapsed(parts: &Parts, settled: &mut Settled) -> Option<(Duration, Vec<Account>)> {
    let age = parts.in_force.load().unblock_after?;
    let instant = Instant::now();
    let at = settled.look(instant, clock::now(), age)?;
    Some((age, parts.ledger.lapsed(age, Moment { at, instant })))
}

/// Lifts a block that is `age` old. CONTRACT: parked mail stays, also that of a probation before the block: nobody has looked
/// at it.
async fn lift(parts: &Parts, account: &Account, age: Duration) -> Result<(), String> {
    let now = clock::now();
    parts.spool.keep(account, None).await.map_err(|error| error.to_string())?;
    if let Some(block) = parts.ledger.watch(account, now).await.block() {
        let marked = parts.spool.mark_unblocked(account, block.at, now).await;
        marked.map_err(|error| error.to_string())?;
    }
    let moment = Moment { at: now, instant: Instant::now() };
    let Some(block) = parts.ledger.lapse(account, age, moment).await else { return Ok(()) };
    maillog::lapsed(account, block.at, parts.spool.usage(Some(account)).messages);
    maillog::audit(&AuditLine::of_gatepost(
        "unblock",
        account.as_str(),
        "done: by [limit] unblock_after",
        now,
    ));
    Ok(())
}

/// Tells the abuse desk, and the program if there is one, of each block and probation once it is on the disk; the program also
/// of each unblock. That it was told is noted after the mail is durable, so that a crash in between has it told twice, never
/// lost.
pub(super) async fn blocks(parts: Parts) {
    let mut failures = Once::default();
    loop {
        let mut told = Ok(());
        for news in parts.ledger.untold(clock::now()).await {
            if let Err(why) = tell(&parts, &news).await {
                told = Err(why);
            }
        }
        failures.note(&told, maillog::notice_postponed);
        if told.is_err() {
            tokio::time::sleep(UNTOLD_TICK).await;
        } else {
            let _ = timeout(UNTOLD_TICK, parts.ledger.crossed()).await;
        }
    }
}

async fn tell(parts: &Parts, news: &News) -> Result<(), OutboxError> {
    let sessions = parts.roster.count(news.account());
    match news {
        News::Unblocked { account, at } => parts.desk.unblocked(account, *at, sessions).await?,
        News::Blocked(record) => {
            parts.desk.blocked(record, sessions).await?;
            fail::point("notice.written");
        }
        News::Probation(record) => parts.desk.probation(record, sessions).await?,
    }
    parts.ledger.told(news);
    let in_force = parts.in_force.load();
    let to = &in_force.notify.to;
    match news {
        News::Unblocked { .. } => {}
        News::Blocked(Record { account, block, .. }) => {
            fail::point("notice.noted");
            if block.as_ref().is_some_and(|block| block.by != BlockedBy::Operator) {
                maillog::block_told(account, to);
            }
        }
        News::Probation(record) => maillog::probation_told(&record.account, to),
    }
    Ok(())
}

/// Logs which domains refuse everybody, and when they no longer do.
pub(super) async fn causes(parts: Parts) {
    loop {
        for change in parts.ledger.cause_changes(clock::now()) {
            match change {
                CauseChange::Began(cause) => maillog::common_cause(&cause),
                CauseChange::Ended(cause) => maillog::common_cause_over(&cause),
            }
        }
        let _ = timeout(CAUSE_TICK, parts.ledger.caused()).await;
    }
}

/// Sends digests of what waits in the quarantine; each is noted as sent once it is on the disk.
pub(super) async fn digests(parts: Parts) {
    let (mut failures, mut unnoted) = (Once::default(), Once::default());
    loop {
        parts.digests.forget(clock::now());
        unnoted.note(&parts.digests.write().await, maillog::digests_not_noted);
        tokio::time::sleep(DIGEST_TICK).await;
        let now = clock::now();
        if !parts.spool.oldest_waiting().is_some_and(|oldest| parts.digests.is_due(oldest, now)) {
            continue;
        }
        let digest = parts.digests.digest(now);
        let waiting = parts.spool.waiting(digest.announced);
        let sent = parts.desk.digest(&waiting, parts.spool.unreadable()).await;
        if sent.is_ok() {
            parts.digests.sent(digest);
            let messages = waiting.iter().map(|waiting| waiting.usage.messages).sum();
            let expiring = waiting.iter().map(|waiting| waiting.old).sum();
            maillog::digest_sent(messages, waiting.len(), expiring);
        }
        failures.note(&sent, maillog::digest_failed);
    }
}

/// Reports when the quarantine is nearly full.
pub(super) async fn quarantine(parts: Parts) {
    loop {
        if let Some(usage) = parts.spool.became_nearly_full() {
            maillog::quarantine_nearly_full(
                usage.messages,
                usage.octets,
                parts.in_force.load().quarantine.max_size,
            );
            parts.desk.quarantine_nearly_full(usage).await;
        }
        tokio::time::sleep(FILL_TICK).await;
    }
}

/// Reads again what could not be read: mail that is to go out must not stand still until somebody lists it. As long as that
/// helps it goes on at once.
pub(super) async fn unreadable(parts: Parts) {
    let mut after = None;
    loop {
        tokio::time::sleep(READ_AGAIN_TICK).await;
        loop {
            let (messages, last) = parts.spool.read_again(after).await;
            after = last;
            if messages == 0 {
                break;
            }
            maillog::quarantine_readable(messages);
        }
    }
}

/// Reloads one of the certificates when its files have changed and rested.
pub(super) async fn certificate(parts: Parts, index: usize) {
    let Some(pair) = parts.tls.served().pairs().get(index).cloned() else { return };
    let mut certificate = Rested::new(&pair.certificate, PACE);
    let mut key = Rested::new(&pair.private_key, PACE);
    loop {
        tokio::select! {
            () = certificate.read(|_| ()) => {}
            () = key.read(|_| ()) => {}
        }
        let mut reloaded = reload(&parts, index).await;
        if reloaded.is_err() {
            // The other file may still be on its way.
            tokio::time::sleep(PAIR_PATIENCE).await;
            reloaded = reload(&parts, index).await;
        }
        match reloaded {
            Ok(true) => maillog::certificate_reloaded(&pair.certificate),
            Ok(false) => {}
            Err(why) => certificate_refused(&parts, &why).await,
        }
    }
}

async fn reload(parts: &Parts, index: usize) -> Result<bool, String> {
    let served = Arc::clone(parts.tls.served());
    match tokio::task::spawn_blocking(move || served.reload(index)).await {
        Ok(reloaded) => reloaded.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

async fn certificate_refused(parts: &Parts, why: &str) {
    maillog::certificate_refused(why);
    parts.desk.certificate_refused(why).await;
}

/// Reports once a day which certificates expire soon, in the log and by mail.
pub(super) async fn expiry(parts: Parts) {
    loop {
        let now = clock::now();
        let expiring = parts.tls.served().expiring(now.after(EXPIRY_WARNING));
        for one in expiring {
            maillog::certificate_expires(&one.certificate, one.not_after, now);
        }
        tokio::time::sleep(EXPIRY_FIRST).await;
        for one in parts.tls.served().expiring(now.after(EXPIRY_WARNING)) {
            parts.desk.certificate_expires(&one.certificate, one.not_after).await;
        }
        tokio::time::sleep(DAY.saturating_sub(EXPIRY_FIRST)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_consecutive_failures_the_first_is_said() {
        let (mut once, mut said) = (Once::default(), Vec::new());
        let failed = |why: &str| Err(why.to_owned());
        for outcome in [Ok(()), failed("one"), failed("two"), Ok(()), Ok(()), failed("three")] {
            once.note(&outcome, |why| said.push(why.to_owned()));
        }
        assert_eq!(said, ["one", "three"]);
    }
}
