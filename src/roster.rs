//! The open sessions of each account, and how to end them.
//!
//! A session checks its [`Ticket`] at each command; no command is interrupted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::account::Account;
use crate::id::SessionId;

/// Why a session has to end at its next command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// An operator ended it: 421 4.7.0.
    Kicked,
    /// The account's line in the users file changed or disappeared: 421 4.7.0, and a message under way is parked.
    CredentialsChanged,
}

// The higher value wins: a message parked for changed credentials is not relayed after all because the session is
// kicked too.
const STAY: u8 = 0;
const KICKED: u8 = 1;
const CREDENTIALS_CHANGED: u8 = 2;

/// The sessions of each account, with the reason to end, if any.
type Sessions = HashMap<Account, HashMap<SessionId, Arc<AtomicU8>>>;

/// The open sessions of all accounts. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    sessions: Arc<Mutex<Sessions>>,
}

/// The place of one session in the roster, which dropping it gives up.
#[derive(Debug)]
pub struct Ticket {
    roster: Roster,
    account: Account,
    session: SessionId,
    ending: Arc<AtomicU8>,
}

impl Roster {
    /// Adds a session of `account`.
    pub fn enter(&self, account: &Account, session: SessionId) -> Ticket {
        let ending = Arc::new(AtomicU8::new(STAY));
        self.lock().entry(account.clone()).or_default().insert(session, Arc::clone(&ending));
        Ticket { roster: self.clone(), account: account.clone(), session, ending }
    }

    /// The number of open sessions of an account.
    pub fn count(&self, account: &Account) -> usize {
        self.lock().get(account).map_or(0, HashMap::len)
    }

    /// Asks all sessions of an account to end; returns how many there are.
    pub fn end(&self, account: &Account, ending: Ending) -> usize {
        let sessions = self.lock();
        let Some(sessions) = sessions.get(account) else { return 0 };
        for session in sessions.values() {
            session.fetch_max(mark(ending), Ordering::AcqRel);
        }
        sessions.len()
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Asks only this session to end.
    pub fn end(&self, ending: Ending) {
        self.ending.fetch_max(mark(ending), Ordering::AcqRel);
    }

    /// Why the session has to end, if it has to.
    pub fn ending(&self) -> Option<Ending> {
        match self.ending.load(Ordering::Acquire) {
            KICKED => Some(Ending::Kicked),
            CREDENTIALS_CHANGED => Some(Ending::CredentialsChanged),
            _ => None,
        }
    }
}

const fn mark(ending: Ending) -> u8 {
    match ending {
        Ending::Kicked => KICKED,
        Ending::CredentialsChanged => CREDENTIALS_CHANGED,
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut sessions = self.roster.lock();
        if let Some(of_account) = sessions.get_mut(&self.account) {
            of_account.remove(&self.session);
            if of_account.is_empty() {
                sessions.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn sessions_come_go_and_are_ended() {
        let roster = Roster::default();
        let anna: Account = "anna".parse().unwrap();
        let first = roster.enter(&anna, SessionId::new(Timestamp::from_millis(1)));
        let second = roster.enter(&anna, SessionId::new(Timestamp::from_millis(2)));
        assert_eq!(roster.count(&anna), 2);
        second.end(Ending::CredentialsChanged);
        assert_eq!(second.ending(), Some(Ending::CredentialsChanged));
        // Its message under way is still parked.
        second.end(Ending::Kicked);
        assert_eq!(second.ending(), Some(Ending::CredentialsChanged));
        drop(second);
        assert_eq!((roster.count(&anna), first.ending()), (1, None));
        assert_eq!(roster.end(&anna, Ending::Kicked), 1);
        assert_eq!(first.ending(), Some(Ending::Kicked));
        drop(first);
        assert_eq!((roster.count(&anna), roster.end(&anna, Ending::Kicked)), (0, 0));
    }
}
