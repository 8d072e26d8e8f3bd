//! The text of the digest: which messages in the quarantine await a decision, and which expire soon. Pure.

use std::time::Duration;

use super::letter::{duration, moment, shown};
use crate::account::Account;
use crate::clock::Timestamp;
use crate::visible::shell_word;

/// The state of the quarantine.
#[derive(Debug, Clone)]
pub struct Digest {
    /// One entry per account.
    pub accounts: Vec<Waiting>,
    /// Messages that cannot be read, so that their account is unknown.
    pub unreadable: u64,
    /// `[quarantine] expire_after`
    pub expire_after: Option<Duration>,
    /// How far ahead expiries are reported.
    pub horizon: Duration,
}

/// The messages of one account.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The account.
    pub account: Account,
    /// Parked and failed messages.
    pub messages: u64,
    /// Their size in octets.
    pub octets: u64,
    /// How many of them failed to be delivered when they were released.
    pub failed: u64,
    /// How many of them will be released automatically.
    pub awaited: u64,
    /// When the oldest was parked.
    pub oldest: Timestamp,
    /// How many expire within the horizon.
    pub expiring: u64,
    /// When the first of them expires.
    pub first_expiry: Option<Timestamp>,
}

/// How many accounts are listed individually; the others are summed up.
const MAX_ACCOUNTS: usize = 200;

impl Digest {
    pub(super) fn subject(&self) -> String {
        let messages: u64 = self.accounts.iter().map(|waiting| waiting.messages).sum();
        let waits = format!(
            "{} of {} {} in the quarantine",
            count(messages, "message"),
            count(self.accounts.len() as u64, "account"),
            if messages == 1 { "waits" } else { "wait" }
        );
        match (self.expiring(), self.first_expiry()) {
            (expiring @ 1.., Some(first)) => {
                format!(
                    "{waits}, {expiring} {}, first at {}",
                    if expiring == 1 { "expires" } else { "expire" },
                    moment(first)
                )
            }
            _ => waits,
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::from(
            "This mail waits in the quarantine until somebody decides: it was honest, and is released; or it was not, and is deleted.\n\n",
        );
        for waiting in self.soonest_first().iter().take(MAX_ACCOUNTS) {
            text += &self.part(waiting);
        }
        let others = self.soonest_first().split_off(MAX_ACCOUNTS.min(self.accounts.len()));
        if !others.is_empty() {
            text += &format!(
                "{} more accounts: {}, of which {} within {}\n\x20      gatepost quarantine list\n\n",
                others.len(),
                count(others.iter().map(|waiting| waiting.messages).sum(), "message"),
                expire(others.iter().map(|waiting| waiting.expiring).sum()),
                duration(self.horizon),
            );
        }
        if self.unreadable > 0 {
            let whose = match self.unreadable {
                1 => "its account is unknown, and it stays",
                _ => "their accounts are unknown, and they stay",
            };
            text += &format!(
                "{} cannot be read; {whose}.\n\x20      gatepost quarantine list\n\n",
                count(self.unreadable, "message")
            );
        }
        text += "To look, to send, or to delete what an account has:\n\
            \x20      gatepost quarantine show ID\n\
            \x20      gatepost quarantine release --account ACCOUNT      (or: gatepost unblock ACCOUNT --release)\n\
            \x20      gatepost quarantine delete --account ACCOUNT\n\n";
        text += &match self.expire_after {
            Some(age) => format!(
                "Parked messages expire after {}: they are deleted, and nobody is told, but none that such a mail as this one has not\n\
                 announced. Those that nobody took stay. `[quarantine] expire_after` and `[notify] digest` set this.\n",
                duration(age)
            ),
            None => "Nothing expires by itself: `[quarantine] expire_after` is \"never\".\n".to_owned(),
        };
        text
    }

    fn part(&self, waiting: &Waiting) -> String {
        let Waiting { account, messages, octets, failed, awaited, oldest, expiring, first_expiry } = waiting;
        let mut text = format!(
            "{}\n    {}, {}, the oldest since {}\n",
            shown(account.as_str()),
            count(*messages, "message"),
            size(*octets),
            moment(*oldest)
        );
        if let Some(first) = first_expiry {
            text += &format!(
                "    {} within {}, the first at {}\n",
                expire(*expiring),
                duration(self.horizon),
                moment(*first)
            );
        }
        if *failed > 0 {
            text += &format!("    {failed} failed: nobody took them when they were released\n");
        }
        if *awaited > 0 {
            text += &format!(
                "    {awaited} of a probation, which go out by themselves unless the account is blocked\n"
            );
        }
        text + &format!("       gatepost quarantine list --account {}\n\n", shell_word(account.as_str()))
    }

    fn soonest_first(&self) -> Vec<&Waiting> {
        let mut accounts: Vec<&Waiting> = self.accounts.iter().collect();
        accounts
            .sort_by_key(|waiting| (waiting.first_expiry.is_none(), waiting.first_expiry, waiting.oldest));
        accounts
    }

    fn expiring(&self) -> u64 {
        self.accounts.iter().map(|waiting| waiting.expiring).sum()
    }

    fn first_expiry(&self) -> Option<Timestamp> {
        self.accounts.iter().filter_map(|waiting| waiting.first_expiry).min()
    }
}

fn count(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn expire(count: u64) -> String {
    if count == 1 { "1 expires".to_owned() } else { format!("{count} expire") }
}

fn size(octets: u64) -> String {
    if octets < 1 << 20 {
        format!("{} KiB", octets.div_ceil(1 << 10))
    } else {
        format!("{} MiB", octets.div_ceil(1 << 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(days: u32) -> Timestamp {
        Timestamp::from_millis(1_795_536_328_123).after(days * DAY)
    }

    fn waiting(account: &str, expiring: u64, first_expiry: Option<Timestamp>) -> Waiting {
        Waiting {
            account: account.parse().unwrap(),
            messages: 12,
            octets: 3 << 20,
            failed: 0,
            awaited: 0,
            oldest: at(0),
            expiring,
            first_expiry,
        }
    }

    #[test]
    fn who_what_since_when_and_until_when() {
        let accounts = vec![
            Waiting { failed: 2, awaited: 1, ..waiting("anna", 0, None) },
            waiting("host:192.0.2.1", 3, Some(at(2))),
            Waiting { messages: 1, octets: 100, ..waiting("$(reboot)", 1, Some(at(1))) },
        ];
        let digest = Digest { accounts, unreadable: 1, expire_after: Some(30 * DAY), horizon: 3 * DAY };
        assert_eq!(
            digest.subject(),
            "25 messages of 3 accounts wait in the quarantine, 4 expire, first at 2026-11-25 16:05:28 UTC"
        );
        let text = digest.text();
        let mut rest = text.as_str();
        for part in [
            "user:$(reboot)\n    1 message, 1 KiB, the oldest since 2026-11-24 16:05:28 UTC\n",
            "    1 expires within 3 days, the first at 2026-11-25 16:05:28 UTC\n",
            "       gatepost quarantine list --account 'user:$(reboot)'\n",
            "host:192.0.2.1\n    12 messages, 3 MiB, the oldest since",
            "    3 expire within 3 days, the first at 2026-11-26",
            "user:anna\n    12 messages",
            "    2 failed: nobody took them",
            "    1 of a probation",
            "1 message cannot be read; its account is unknown, and it stays.\n",
            "Parked messages expire after 30 days",
        ] {
            rest = rest.split_once(part).unwrap_or_else(|| panic!("no {part} behind the others in {text}")).1;
        }
        let one = Digest {
            accounts: vec![Waiting { messages: 1, ..waiting("anna", 0, None) }],
            expire_after: None,
            ..digest
        };
        assert_eq!(one.subject(), "1 message of 1 account waits in the quarantine");
        assert!(one.text().contains("Nothing expires by itself"));
    }

    #[test]
    fn of_many_accounts_the_rest_is_summed_up() {
        let accounts =
            (0..MAX_ACCOUNTS + 5).map(|n| waiting(&format!("user-{n:03}"), 1, Some(at(1)))).collect();
        let digest = Digest { accounts, unreadable: 0, expire_after: Some(DAY), horizon: 3 * DAY };
        let text = digest.text();
        assert_eq!(text.matches("--account user:user-").count(), MAX_ACCOUNTS);
        assert!(text.contains("5 more accounts: 60 messages, of which 5 expire within 3 days"), "{text}");
    }
}
