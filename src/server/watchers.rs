//! What runs beside the sessions: each task watches one thing and says when it changes.

use std::time::Duration;

use tokio::signal::unix::Signal;

use tokio::time::timeout;

use crate::account::Account;
use crate::auth::UsersEvent;
use crate::clock;
use crate::control::AuditLine;
use crate::guard::ledger::{BlockedBy, CauseChange};
use crate::maillog;
use crate::parts::Parts;
use crate::roster::Ending;
use crate::sender::SendersEvent;

/// How often blocks are looked for of which the abuse desk may not have been told.
const UNTOLD_TICK: Duration = Duration::from_secs(1);
/// How often common causes are looked for that have ended in silence.
const CAUSE_TICK: Duration = Duration::from_secs(10);
/// How often the quarantine's fill level is looked at.
const FILL_TICK: Duration = Duration::from_secs(10);
/// How often it is looked whether a digest is due.
const DIGEST_TICK: Duration = Duration::from_secs(1);
/// How often blocks are looked for whose time is over.
const LAPSE_TICK: Duration = Duration::from_secs(1);

/// So many of the users who cannot log in are named in the log.
const NAMED: usize = 10;

/// Says who cannot log in, so that nobody has to find out by an empty mailbox.
pub(super) fn shut_out(parts: &Parts) {
    let shut_out = parts.auth.shut_out();
    if !shut_out.is_empty() {
        maillog::users_shut_out(shut_out.len(), shut_out.get(..NAMED).unwrap_or(&shut_out));
    }
    if parts.auth.offered().is_empty() && parts.config.relay_hosts.is_empty() {
        maillog::nobody_can_log_in();
    }
}

/// Tells each minute what was left out of the log.
pub(super) async fn log() {
    loop {
        tokio::time::sleep(maillog::MINUTE).await;
        maillog::left_out();
    }
}

/// Reads the users file again when it has changed, and ends the sessions of those whose line did.
pub(super) async fn users(parts: Parts) {
    let changed = |event: UsersEvent| match event {
        UsersEvent::Reloaded { users, ended } => {
            for name in &ended {
                if let Ok(account) = Account::user(name) {
                    parts.roster.end(&account, Ending::CredentialsChanged);
                }
            }
            maillog::users_reloaded(users, &ended);
            shut_out(&parts);
        }
        UsersEvent::Refused(why) => maillog::users_refused(&why),
    };
    parts.auth.watch(changed).await;
}

/// Reads the senders file again when it has changed.
pub(super) async fn senders(parts: Parts) {
    let changed = |event: SendersEvent| match event {
        SendersEvent::Reloaded(accounts) => maillog::senders_reloaded(accounts),
        SendersEvent::Refused(why) => maillog::senders_refused(&why),
    };
    parts.senders.watch(changed).await;
}

/// Says when the ledger cannot be written, and when it can again.
pub(super) async fn ledger(parts: Parts) {
    let mut trouble = parts.ledger.trouble();
    while trouble.changed().await.is_ok() {
        let now = trouble.borrow_and_update().clone();
        match now {
            Some(why) => {
                maillog::ledger_trouble(&why);
                parts.desk.ledger_trouble(&why).await;
            }
            None => maillog::ledger_recovered(),
        }
    }
}

/// Lifts automatic blocks when their time is over; to be called before clients are let in, too.
pub(super) async fn lift(parts: &Parts) {
    let Some(age) = parts.config.unblock_after else { return };
    let now = clock::now();
    for account in parts.ledger.lapsed(age, now) {
        // CONTRACT: parked mail stays, that of a probation before the block too: nobody has looked at it.
        if let Err(error) = parts.spool.keep(&account, None).await {
            maillog::lapse_postponed(&account, &error.to_string());
            continue;
        }
        let Some(block) = parts.ledger.lapse(&account, age, now).await else { continue };
        let parked = parts.spool.usage(Some(&account)).messages;
        maillog::lapsed(&account, block.at, parked);
        maillog::audit(&AuditLine::of_gatepost(
            "unblock",
            account.as_str(),
            "done: by [limit] unblock_after",
            now,
        ));
    }
}

/// The same for as long as the service runs.
pub(super) async fn lapses(parts: Parts) {
    loop {
        tokio::time::sleep(LAPSE_TICK).await;
        lift(&parts).await;
    }
}

/// Tells the abuse desk, and the program if there is one, of each block and of each probation that began: once it is on the
/// disk, and that it was told after the mail is, so that a crash in between has it told twice, never not at all. The
/// program also of each unblock.
pub(super) async fn blocks(parts: Parts) {
    let mut failing = false;
    loop {
        let mut failed = None;
        for (account, at) in parts.ledger.untold_unblocks() {
            match parts.desk.unblocked(&account, at, parts.roster.count(&account)).await {
                Ok(()) => parts.ledger.told_unblocked(&account, at),
                Err(why) => failed = Some(why),
            }
        }
        for record in parts.ledger.untold(clock::now()).await {
            match parts.desk.blocked(&record, parts.roster.count(&record.account)).await {
                Ok(()) => {
                    parts.ledger.told(&record);
                    if record.block.is_some_and(|block| block.by != BlockedBy::Operator) {
                        maillog::block_told(&record.account, &parts.config.notify.to);
                    }
                }
                Err(why) => failed = Some(why),
            }
        }
        for record in parts.ledger.untold_probations(clock::now()).await {
            match parts.desk.probation(&record, parts.roster.count(&record.account)).await {
                Ok(()) => {
                    parts.ledger.told_probation(&record);
                    maillog::probation_told(&record.account, &parts.config.notify.to);
                }
                Err(why) => failed = Some(why),
            }
        }
        if let Some(why) = failed.as_ref().filter(|_| !failing) {
            maillog::notice_postponed(why);
        }
        failing = failed.is_some();
        if failing {
            tokio::time::sleep(UNTOLD_TICK).await;
        } else {
            let _ = timeout(UNTOLD_TICK, parts.ledger.crossed()).await;
        }
    }
}

/// Says which domains refuse everybody, and when they no more do.
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

/// Sends digests of what waits in the quarantine; each is noted once it is on the disk.
pub(super) async fn digests(parts: Parts) {
    let mut failing = false;
    loop {
        tokio::time::sleep(DIGEST_TICK).await;
        let now = clock::now();
        if !parts.spool.oldest_waiting().is_some_and(|oldest| parts.digests.is_due(oldest, now)) {
            continue;
        }
        let waiting = parts.spool.waiting(parts.digests.horizon(now));
        let written = match parts.desk.digest(&waiting, parts.spool.unreadable()).await {
            Ok(()) => parts.digests.sent(now).await,
            Err(why) => Err(why),
        };
        match &written {
            Ok(()) => {
                let messages = waiting.iter().map(|waiting| waiting.usage.messages).sum();
                let expiring = waiting.iter().map(|waiting| waiting.old).sum();
                maillog::digest_sent(messages, waiting.len(), expiring);
            }
            Err(why) if !failing => maillog::digest_failed(why),
            Err(_) => {}
        }
        failing = written.is_err();
    }
}

/// Says when the quarantine is nearly full.
pub(super) async fn quarantine(parts: Parts) {
    loop {
        if parts.spool.became_nearly_full() {
            let usage = parts.spool.usage(None);
            maillog::quarantine_nearly_full(usage.messages, usage.octets, parts.config.quarantine.max_size);
            parts.desk.quarantine_nearly_full(usage).await;
        }
        tokio::time::sleep(FILL_TICK).await;
    }
}

/// Reads the certificate anew at each SIGHUP, as those who renew it expect.
pub(super) async fn hangups(parts: Parts, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        let tls = &parts.config.tls;
        let (certificate, key) = (tls.certificate.clone(), tls.private_key.clone());
        let acceptor = parts.tls.clone();
        match tokio::task::spawn_blocking(move || acceptor.reload(&certificate, &key)).await {
            Ok(Ok(())) => maillog::certificate_reloaded(&tls.certificate),
            Ok(Err(error)) => maillog::certificate_refused(&error.to_string()),
            Err(error) => maillog::certificate_refused(&error.to_string()),
        }
    }
}
