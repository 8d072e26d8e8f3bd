//! What waits for an operator, by account; pure.

use std::collections::BTreeMap;

use super::envelope::State;
use super::terms::Usage;
use crate::account::Account;
use crate::clock::Timestamp;

/// The messages of one account that stay in the quarantine until an operator decides, they are due, or they expire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Whose.
    pub account: Account,
    /// Parked and failed messages.
    pub usage: Usage,
    /// How many of these failed: released, but accepted for nobody.
    pub failed: u64,
    /// How many of these go out by themselves.
    pub awaited: u64,
    /// When the oldest was parked.
    pub oldest: Timestamp,
    /// How many of the parked ones arrived before the time asked for.
    pub old: u64,
    /// When the first of these arrived.
    pub first: Option<Timestamp>,
}

/// The messages of one account that go out by themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Awaited {
    /// How many messages.
    pub messages: u64,
    /// When the next of them goes out.
    pub next: Option<Timestamp>,
    /// When the last of them goes out.
    pub last: Option<Timestamp>,
}

/// Sums up messages.
#[derive(Debug, Default)]
pub(super) struct Sum(BTreeMap<Account, Waiting>);

/// The relevant facts of one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) account: &'a Account,
    pub(super) size: u64,
    pub(super) parked: Timestamp,
    pub(super) state: State,
    /// Whether it goes out by itself.
    pub(super) awaited: bool,
}

impl Sum {
    /// Adds a message; one parked before `before` counts as old.
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

    /// Returns the sums by account.
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
