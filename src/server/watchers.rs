//! What runs beside the sessions: each task watches one thing and says when it changes.

use std::time::Duration;

use crate::account::Account;
use crate::auth::UsersEvent;
use crate::maillog;
use crate::parts::Parts;
use crate::roster::Ending;

/// How often the quarantine's fill level is looked at.
const FILL_TICK: Duration = Duration::from_secs(10);

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
        }
        UsersEvent::Refused(why) => maillog::users_refused(&why),
    };
    parts.auth.watch(changed).await;
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
