//! What waits for an operator, account by account; pure.

use std::collections::BTreeMap;

use super::envelope::State;
use super::terms::Usage;
use crate::account::Account;
use crate::clock::Timestamp;

/// What one account has in the quarantine that stays there until somebody decides, or its time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Whose.
    pub account: Account,
    /// Parked and failed.
    pub usage: Usage,
    /// Of these, nobody took them when they were released.
    pub failed: u64,
    /// Of these, they go out by themselves.
    pub awaited: u64,
    /// Since when the oldest is there.
    pub oldest: Timestamp,
    /// Of the parked ones, those that came before the moment that was asked for,
    pub old: u64,
    /// and when the first of these came.
    pub first: Option<Timestamp>,
}

/// What of one account goes out by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Awaited {
    /// How many messages.
    pub messages: u64,
    /// When the next of them does.
    pub next: Option<Timestamp>,
    /// When the last of them does.
    pub last: Option<Timestamp>,
}

impl Awaited {
    /// One more, due then.
    pub(super) fn add(&mut self, due: Timestamp) {
        self.messages += 1;
        self.next = Some(self.next.map_or(due, |next| next.min(due)));
        self.last = self.last.max(Some(due));
    }
}

/// Sums up messages.
#[derive(Debug, Default)]
pub(super) struct Sum(BTreeMap<Account, Waiting>);

/// One message, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) account: &'a Account,
    pub(super) size: u64,
    pub(super) parked: Timestamp,
    pub(super) state: State,
    /// It goes out by itself.
    pub(super) awaited: bool,
}

impl Sum {
    /// One more; those parked before `before` count as old.
    pub(super) fn add(&mut self, message: Message<'_>, before: Option<Timestamp>) {
        let Message { account, size, parked, state, awaited } = message;
        if !matches!(state, State::Parked | State::Failed) {
            return;
        }
        let waiting = self.0.entry(account.clone()).or_insert_with(|| Waiting {
            account: account.clone(),
            usage: Usage::default(),
            failed: 0,
            awaited: 0,
            oldest: parked,
            old: 0,
            first: None,
        });
        waiting.usage.messages += 1;
        waiting.usage.octets = waiting.usage.octets.saturating_add(size);
        waiting.oldest = waiting.oldest.min(parked);
        waiting.failed += u64::from(state == State::Failed);
        waiting.awaited += u64::from(awaited);
        if state == State::Parked && before.is_some_and(|before| parked < before) {
            waiting.old += 1;
            waiting.first = Some(waiting.first.map_or(parked, |first| first.min(parked)));
        }
    }

    /// By account.
    pub(super) fn done(self) -> Vec<Waiting> {
        self.0.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn what_waits_by_account() {
        let (anna, ben): (Account, Account) = ("anna".parse().unwrap(), "ben".parse().unwrap());
        let mut sum = Sum::default();
        for (account, size, parked, state, awaited) in [
            (&ben, 7, 5, State::Failed, false),
            (&anna, 1, 20, State::Parked, false),
            (&anna, 2, 10, State::Parked, false),
            (&anna, 3, 30, State::Parked, true),
            (&anna, 4, 1, State::Releasing, false),
            (&ben, 5, 2, State::Unreadable, false),
        ] {
            sum.add(Message { account, size, parked: at(parked), state, awaited }, Some(at(21)));
        }
        let expected = [
            Waiting {
                account: anna,
                usage: Usage { messages: 3, octets: 6 },
                failed: 0,
                awaited: 1,
                oldest: at(10),
                old: 2,
                first: Some(at(10)),
            },
            Waiting {
                account: ben,
                usage: Usage { messages: 1, octets: 7 },
                failed: 1,
                awaited: 0,
                oldest: at(5),
                old: 0,
                first: None,
            },
        ];
        assert_eq!(sum.done(), expected);
    }
}
