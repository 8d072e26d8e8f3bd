//! Limits the log lines that strangers can cause: some lines a minute of each kind, then only a count.
//!
//! Otherwise anyone who can connect could fill the log's disk at network speed. The first lines are written at once;
//! once a minute [`Bounds::turn`] returns what was left out and resets the counts. Memory is bounded too: beyond a
//! certain number of addresses, further ones share one allowance.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::account::Account;

/// How many addresses (IPv6: /64) have an allowance of their own.
const ADDRESSES: usize = 1_000;

/// The kinds of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A connection was turned away.
    TurnedAway,
    /// The system could not take a connection.
    AcceptFailed,
    /// A login failed.
    AuthenticationFailed,
    /// Credentials were sent in cleartext.
    CredentialsExposed,
    /// An account has too many sessions.
    AccountCrowded,
    /// The client did not speak SMTP.
    OtherProtocol,
}

impl Kind {
    /// The lines a minute, of all clients together or of each address.
    fn allowance(self) -> (u32, Of) {
        match self {
            Self::TurnedAway | Self::AcceptFailed => (1, Of::All),
            // A program that counts them (fail2ban) has seen enough by then.
            Self::AuthenticationFailed
            | Self::CredentialsExposed
            | Self::AccountCrowded
            | Self::OtherProtocol => (60, Of::Each),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    All,
    Each,
}

/// The lines that were left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) kind: Kind,
    /// The client; `None` for several clients.
    pub(super) origin: Option<Account>,
    pub(super) lines: u64,
}

/// The counts of the current minute.
pub(super) struct Bounds {
    lines: Mutex<BTreeMap<(Kind, Option<Account>), u64>>,
}

impl Bounds {
    pub(super) const fn new() -> Self {
        Self { lines: Mutex::new(BTreeMap::new()) }
    }

    /// Counts a line; returns whether it is to be written.
    pub(super) fn admit(&self, kind: Kind, client: IpAddr) -> bool {
        let (most, of) = kind.allowance();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let own = (kind, (of == Of::Each).then(|| Account::host(client)));
        let key = if lines.len() < ADDRESSES || lines.contains_key(&own) { own } else { (kind, None) };
        let line = lines.entry(key).or_default();
        *line += 1;
        *line <= u64::from(most)
    }

    /// Returns what was left out since the last call, and resets the counts.
    pub(super) fn turn(&self) -> Vec<LeftOut> {
        let lines = std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner));
        let left = lines.into_iter().filter_map(|((kind, origin), lines)| {
            let lines = lines.saturating_sub(u64::from(kind.allowance().0));
            (lines > 0).then_some(LeftOut { kind, origin, lines })
        });
        left.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(bounds: &Bounds, kind: Kind, client: &str, lines: usize) -> usize {
        (0..lines).filter(|_| bounds.admit(kind, client.parse().unwrap())).count()
    }

    #[test]
    fn the_first_at_once_and_the_rest_as_a_number() {
        let bounds = Bounds::new();
        for minute in 0..2 {
            assert_eq!(admitted(&bounds, Kind::TurnedAway, "192.0.2.1", 1), 1, "{minute}");
            assert_eq!(admitted(&bounds, Kind::TurnedAway, "192.0.2.2", 9), 0);
            assert_eq!(admitted(&bounds, Kind::AuthenticationFailed, "192.0.2.1", 100), 60);
            assert_eq!(admitted(&bounds, Kind::AuthenticationFailed, "::ffff:192.0.2.1", 5), 0);
            assert_eq!(admitted(&bounds, Kind::AuthenticationFailed, "2001:db8::1", 40), 40);
            assert_eq!(admitted(&bounds, Kind::AuthenticationFailed, "2001:db8::2", 40), 20, "the same /64");
            assert_eq!(admitted(&bounds, Kind::CredentialsExposed, "192.0.2.1", 60), 60);
            let left: Vec<_> = bounds
                .turn()
                .into_iter()
                .map(|left| (left.kind, left.origin.map(|host| host.to_string()), left.lines))
                .collect();
            let of = |host: &str| Some(host.to_owned());
            assert_eq!(left.len(), 3, "{left:?}");
            assert!(left.contains(&(Kind::TurnedAway, None, 9)), "{left:?}");
            assert!(left.contains(&(Kind::AuthenticationFailed, of("host:192.0.2.1"), 45)), "{left:?}");
            assert!(left.iter().any(|(kind, host, lines)| {
                (*kind, *lines) == (Kind::AuthenticationFailed, 20)
                    && host.as_ref().is_some_and(|host| host.contains("2001:db8:"))
            }));
        }
        assert_eq!(bounds.turn(), []);
    }

    #[test]
    fn very_many_addresses_share_one_allowance() {
        let bounds = Bounds::new();
        let client = |number: usize| format!("10.0.{}.{}", number / 256, number % 256);
        for number in 0..ADDRESSES {
            assert_eq!(admitted(&bounds, Kind::AuthenticationFailed, &client(number), 1), 1);
        }
        let others: usize = (ADDRESSES..2 * ADDRESSES)
            .map(|number| admitted(&bounds, Kind::AuthenticationFailed, &client(number), 1))
            .sum();
        assert_eq!(others, 60);
        assert_eq!(admitted(&bounds, Kind::AuthenticationFailed, &client(7), 100), 59, "known before");
        assert!(bounds.lines.lock().unwrap().len() <= ADDRESSES + 1);
    }
}
