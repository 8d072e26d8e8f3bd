//! Puts attempts into chronological order, as far as a bounded look-ahead allows.
//!
//! A log shows the fate of a recipient when it is known, perhaps minutes after the message arrived, while an account's
//! window and test need attempts in the order in which they were made. One that is late by more than [`AHEAD`] counts
//! when it is found.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::attribution::Attempt;
use crate::clock::Timestamp;

/// How long an attempt is held back.
pub const AHEAD: Duration = Duration::from_secs(60 * 60);
/// The most attempts held back.
const MOST: usize = 200_000;

/// Attempts that wait for their turn.
#[derive(Debug, Default)]
pub struct Order {
    waiting: BinaryHeap<Reverse<Waiting>>,
    came: u64,
    /// No later result is earlier than this.
    reached: Timestamp,
}

#[derive(Debug)]
struct Waiting {
    came: u64,
    attempt: Attempt,
}

impl Order {
    /// Adds an attempt.
    pub fn put(&mut self, attempt: Attempt) {
        self.came += 1;
        self.waiting.push(Reverse(Waiting { came: self.came, attempt }));
    }

    /// The next attempt whose turn has come, with the log at `now`; `None` means that the log has ended.
    pub fn take(&mut self, now: Option<Timestamp>) -> Option<Attempt> {
        let due = now.map(|now| now.before(AHEAD));
        let first = &self.waiting.peek()?.0.attempt;
        if due.is_some_and(|due| first.at > due) && self.waiting.len() <= MOST {
            return None;
        }
        let Reverse(Waiting { mut attempt, .. }) = self.waiting.pop()?;
        self.reached = self.reached.max(attempt.at);
        attempt.at = self.reached;
        Some(attempt)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// By time, then by order of arrival.
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.attempt.at, self.came).cmp(&(other.attempt.at, other.came))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Account;
    use crate::guard::classify::Outcome;
    use crate::guard::window::Key;

    fn attempt(seconds: u64, name: &str) -> Attempt {
        let key = Key::of(name.as_bytes());
        let at = Timestamp::from_millis(seconds * 1_000);
        Attempt { at, account: Account::user(name).unwrap(), key, domain: None, outcome: Outcome::Accepted }
    }

    fn taken(order: &mut Order, now: Option<u64>) -> Vec<(u64, String)> {
        let now = now.map(|seconds| Timestamp::from_millis(seconds * 1_000));
        std::iter::from_fn(|| order.take(now))
            .map(|attempt| (attempt.at.as_millis() / 1_000, attempt.account.as_str().to_owned()))
            .collect()
    }

    #[test]
    fn in_the_order_of_asking() {
        let mut order = Order::default();
        for (seconds, name) in [(50, "c"), (10, "a"), (50, "d"), (20, "b"), (5_000, "e")] {
            order.put(attempt(seconds, name));
        }
        let expected = [(10, "a"), (20, "b")].map(|(at, name)| (at, format!("user:{name}")));
        assert_eq!(taken(&mut order, Some(3_620)), expected, "an hour later");
        // Too late: it counts at the time already reached, never earlier.
        order.put(attempt(15, "late"));
        let expected =
            [(20, "late"), (50, "c"), (50, "d"), (5_000, "e")].map(|(at, name)| (at, format!("user:{name}")));
        assert_eq!(taken(&mut order, None), expected);
    }

    #[test]
    fn is_bounded() {
        let mut order = Order::default();
        for _ in 0..=MOST {
            order.put(attempt(1, "a"));
        }
        assert!(order.take(Some(Timestamp::from_millis(1_000))).is_some());
        assert!(order.take(Some(Timestamp::from_millis(1_000))).is_none());
    }
}
