//! What the configuration says about accounts, and what holds for a given one.

use std::time::Duration;

use ipnet::IpNet;

use crate::account::{Account, Kind};
use crate::guard::detector::{self, Test};
use crate::guard::window::{Count, MAX_LIMIT, Rule};

/// `[limit]`, `[detection]` and `[[account]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// How many invalid recipients within `period` block an account.
    pub invalid_recipients: u32,
    /// How long an attempt counts.
    pub period: Duration,
    /// Which attempts count.
    pub count: Count,
    /// Count, but never block automatically.
    pub observe: bool,
    /// Accounts that are never blocked automatically.
    pub exempt: Vec<Account>,
    /// The sequential test.
    pub detection: Detection,
    /// Exceptions for some accounts; the first that matches applies.
    pub rules: Vec<AccountRule>,
}

/// `[detection]`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// What an alarm of the sequential test does.
    pub on_alarm: OnAlarm,
    /// How long a probation lasts from the last alarm.
    pub delay: Duration,
    /// t0
    pub usual_share: f64,
    /// t1
    pub thief_share: f64,
    /// h
    pub threshold: f64,
}

impl Detection {
    /// The default of each key.
    pub const DEFAULT: Self = Self {
        on_alarm: OnAlarm::Probation,
        delay: Duration::from_secs(30 * 60),
        usual_share: detector::USUAL_SHARE,
        thief_share: detector::THIEF_SHARE,
        threshold: detector::THRESHOLD,
    };
}

/// `[detection] on_alarm`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnAlarm {
    /// The account's mail is delayed for a while.
    Probation,
    /// The account is blocked.
    Block,
    /// The abuse desk is told, nothing more.
    Notify,
    /// There is no test.
    Off,
}

/// One `[[account]]`. `None` means: as for everybody.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountRule {
    /// Which accounts it is for.
    pub matches: Match,
    /// `[limit] invalid_recipients`
    pub invalid_recipients: Option<u32>,
    /// `[limit] period`
    pub period: Option<Duration>,
    /// `[detection] usual_share`
    pub usual_share: Option<f64>,
    /// `[limit] observe`
    pub observe: Option<bool>,
    /// Whether it is in `[limit] exempt`.
    pub exempt: Option<bool>,
}

/// `[[account]] match`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The user of this name, without regard to ASCII case: no two names differ in case only.
    User(String),
    /// All users whose names end in `@` and this domain.
    Domain(String),
    /// All relay hosts in this network. The account of an IPv6 host is its /64, so no IPv6 network is smaller.
    Network(IpNet),
}

impl Match {
    /// Whether this matches `account`.
    pub fn covers(&self, account: &Account) -> bool {
        match (self, account.kind()) {
            (Self::User(name), Kind::User(user)) => name.eq_ignore_ascii_case(user),
            (Self::Domain(domain), Kind::User(user)) => {
                user.rsplit_once('@').is_some_and(|(_, own)| own.eq_ignore_ascii_case(domain))
            }
            (Self::Network(network), Kind::Host(address)) => network.contains(&address),
            _ => false,
        }
    }
}

/// Whether an account is spared automatic measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leniency {
    /// No.
    None,
    /// `observe`: the abuse desk is told what would have happened.
    Observed,
    /// `exempt`: counted, shown and logged, nothing more.
    Exempt,
}

/// The policy as it applies to one account.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// The limit.
    pub rule: Rule,
    /// Whether the limit, or an alarm, has consequences.
    pub leniency: Leniency,
    /// What an alarm does.
    pub on_alarm: OnAlarm,
    /// How long a probation lasts from the last alarm.
    pub delay: Duration,
    /// The sequential test.
    pub test: Test,
}

impl Policy {
    /// Returns what holds for `account`. Searches all rules; keep the result if it is needed often.
    pub fn terms(&self, account: &Account) -> Terms {
        let rule = self.rules.iter().find(|rule| rule.matches.covers(account));
        let limit = rule.and_then(|rule| rule.invalid_recipients).unwrap_or(self.invalid_recipients);
        let observe = rule.and_then(|rule| rule.observe).unwrap_or(self.observe);
        let exempt = rule.and_then(|rule| rule.exempt).unwrap_or_else(|| self.exempts(account));
        let Detection { on_alarm, delay, usual_share, thief_share, threshold } = self.detection;
        let usual_share = rule.and_then(|rule| rule.usual_share).unwrap_or(usual_share);
        Terms {
            rule: Rule {
                limit: limit.clamp(1, MAX_LIMIT),
                period: rule.and_then(|rule| rule.period).unwrap_or(self.period),
                count: self.count,
            },
            leniency: match (exempt, observe) {
                (true, _) => Leniency::Exempt,
                (false, true) => Leniency::Observed,
                (false, false) => Leniency::None,
            },
            on_alarm,
            delay,
            test: Test::new(usual_share, thief_share, threshold),
        }
    }

    /// Whether `[limit] exempt` names the account, without regard to ASCII case, as for [`Match::User`].
    fn exempts(&self, account: &Account) -> bool {
        self.exempt.iter().any(|exempt| exempt.as_str().eq_ignore_ascii_case(account.as_str()))
    }
}

impl Terms {
    /// The rule of the window: for an account that the limit does not block it also holds attempts beyond the limit, so that
    /// one can see how far it went.
    pub fn window(&self) -> Rule {
        Rule { limit: if self.blocks() { self.rule.limit } else { MAX_LIMIT }, ..self.rule }
    }

    /// Whether the limit blocks.
    pub fn blocks(&self) -> bool {
        self.leniency == Leniency::None
    }

    /// Whether an alarm leads to probation.
    pub fn delays(&self) -> bool {
        self.blocks() && self.on_alarm == OnAlarm::Probation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: Vec<AccountRule>) -> Policy {
        Policy {
            invalid_recipients: 100,
            period: Duration::from_secs(3600),
            count: Count::Distinct,
            observe: true,
            exempt: ["newsletter", "ben"].map(|name| name.parse().unwrap()).into(),
            detection: Detection {
                on_alarm: OnAlarm::Probation,
                delay: Duration::from_secs(1800),
                usual_share: 0.05,
                thief_share: 0.3,
                threshold: 12.0,
            },
            rules,
        }
    }

    fn rule(matches: Match) -> AccountRule {
        AccountRule {
            matches,
            invalid_recipients: None,
            period: None,
            usual_share: None,
            observe: None,
            exempt: None,
        }
    }

    #[test]
    fn who_is_covered() {
        let network = |text: &str| Match::Network(text.parse().unwrap());
        for (matches, account, expected) in [
            (Match::User("anna".into()), "anna", true),
            (Match::User("Anna".into()), "aNNA", true),
            (Match::User("anna".into()), "anna@example.org", false),
            (Match::User("192.0.2.1".into()), "host:192.0.2.1", false),
            (Match::Domain("example.org".into()), "anna@Example.ORG", true),
            (Match::Domain("example.org".into()), "anna@mail.example.org", false),
            (Match::Domain("example.org".into()), "example.org", false),
            (network("192.0.2.0/24"), "host:192.0.2.77", true),
            (network("192.0.2.0/24"), "host:192.0.3.77", false),
            (network("192.0.2.0/24"), "user:192.0.2.77", false),
            (network("2001:db8:1:2::/64"), "host:2001:db8:1:2:3::4", true),
            (network("0.0.0.0/0"), "host:2001:db8::1", false),
        ] {
            assert_eq!(matches.covers(&account.parse().unwrap()), expected, "{matches:?} {account}");
        }
    }

    #[test]
    fn the_first_that_matches_and_what_it_leaves_out() {
        let first = AccountRule {
            invalid_recipients: Some(500),
            exempt: Some(false),
            ..rule(Match::User("newsletter".into()))
        };
        let second = AccountRule {
            observe: Some(false),
            usual_share: Some(0.1),
            ..rule(Match::Domain("example.org".into()))
        };
        let third = AccountRule {
            period: Some(Duration::from_secs(60)),
            ..rule(Match::User("anna@example.org".into()))
        };
        let policy = policy(vec![first, second, third]);
        let terms = |name: &str| policy.terms(&name.parse().unwrap());
        let everybody = terms("carl");
        assert_eq!((everybody.rule.limit, everybody.rule.period), (100, Duration::from_secs(3600)));
        assert_eq!(everybody.leniency, Leniency::Observed);
        assert_eq!(terms("ben").leniency, Leniency::Exempt);
        assert_eq!(terms("Ben").leniency, Leniency::Exempt, "no two names differ in that alone");
        assert_eq!(terms("ben").window().limit, MAX_LIMIT);
        assert_eq!(terms("anna@example.org").window().limit, 100);
        // What a rule says outweighs the list.
        assert_eq!((terms("newsletter").rule.limit, terms("newsletter").leniency), (500, Leniency::Observed));
        let anna = terms("anna@example.org");
        assert_eq!((anna.leniency, anna.rule.period), (Leniency::None, Duration::from_secs(3600)));
        assert_eq!((anna.test, anna.test == everybody.test), (Test::new(0.1, 0.3, 12.0), false));
    }
}
