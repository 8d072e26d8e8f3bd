//! `[detection]` and `[[account]]`: detection beside the limit, and exceptions for some accounts.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use super::file::{LIMITS, PERIODS};
use super::section::{Remedy, Section};
use super::value;
use crate::account::Account;
use crate::guard::ledger::{AccountRule, Detection, Match, OnAlarm};
use crate::units::{DAY, SECOND};

/// Below, a single typing error would raise an alarm; above, nothing ever would.
const SHARES: std::ops::RangeInclusive<f64> = 0.001..=0.999;
/// Below, two invalid recipients would raise an alarm; e^100 is more recipients than there will ever be.
const THRESHOLDS: std::ops::RangeInclusive<f64> = 2.0..=100.0;

/// Reads `[detection]`.
pub(super) fn detection(section: &mut Section<'_>) -> Detection {
    let detection = Detection {
        on_alarm: section.choice(
            "on_alarm",
            Detection::DEFAULT.on_alarm,
            &[
                ("probation", OnAlarm::Probation),
                ("block", OnAlarm::Block),
                ("notify", OnAlarm::Notify),
                ("off", OnAlarm::Off),
            ],
        ),
        delay: section.duration("delay", Detection::DEFAULT.delay, SECOND..=DAY),
        usual_share: section.number("usual_share", Detection::DEFAULT.usual_share, SHARES),
        thief_share: section.number("thief_share", Detection::DEFAULT.thief_share, SHARES),
        threshold: section.number("threshold", Detection::DEFAULT.threshold, THRESHOLDS),
    };
    if detection.usual_share >= detection.thief_share && section.sound(&["usual_share", "thief_share"]) {
        // Reports the key that is written.
        if section.has("thief_share") {
            section.problem("thief_share", format!("more than usual_share, {}", detection.usual_share));
        } else {
            section.problem("usual_share", below(detection.thief_share));
        }
    }
    detection
}

fn below(thief_share: f64) -> Remedy {
    format!("less than [detection] thief_share, {thief_share}")
}

/// Reads one `[[account]]`; `earlier` are those above it.
pub(super) fn account(
    section: &mut Section<'_>,
    detection: &Detection,
    earlier: &[AccountRule],
) -> AccountRule {
    let matches = section.text("match", None, |text| account_match(text).map(Some));
    let rule = AccountRule {
        matches: matches.clone().unwrap_or_else(|| Match::User(String::new())),
        invalid_recipients: optional(section, "invalid_recipients", |section, name| {
            section.whole(name, 1, LIMITS)
        }),
        period: optional(section, "period", |section, name| section.duration(name, SECOND, PERIODS)),
        usual_share: optional(section, "usual_share", |section, name| {
            section.number(name, Detection::DEFAULT.usual_share, SHARES)
        }),
        observe: optional(section, "observe", |section, name| section.flag(name, false)),
        exempt: optional(section, "exempt", |section, name| section.flag(name, false)),
    };
    if !section.has("match") {
        section.problem("match", format!("missing: {MATCH}"));
    } else if matches.is_some() && earlier.iter().any(|earlier| earlier.matches == rule.matches) {
        section.problem("match", "one that no [[account]] before has: the first that matches holds");
    }
    if rule.usual_share.is_some_and(|share| share >= detection.thief_share) && section.sound(&["usual_share"])
    {
        section.problem("usual_share", below(detection.thief_share));
    }
    rule
}

/// The value of an optional key.
fn optional<'a, T>(
    section: &mut Section<'a>,
    name: &'static str,
    read: impl FnOnce(&mut Section<'a>, &'static str) -> T,
) -> Option<T> {
    let written = section.has(name);
    // Read even if absent, since reading makes a key known.
    let value = read(section, name);
    written.then_some(value)
}

const MATCH: &str = "an account such as newsletter@example.org, all users of a domain such as *@example.org, or relay hosts \
                     such as 192.0.2.7 or 192.0.2.0/24";

/// Parses whom a rule is for: `NAME`, `*@DOMAIN`, an address or a network, preceded by `user:` or `host:` where it
/// would be ambiguous.
fn account_match(text: &str) -> Result<Match, Remedy> {
    let remedy = || MATCH.to_owned();
    if let Some(domain) = text.strip_prefix("user:").unwrap_or(text).strip_prefix("*@") {
        let sound = !domain.is_empty() && !domain.contains(['@', '*']) && Account::user(domain).is_ok();
        return if sound { Ok(Match::Domain(domain.to_owned())) } else { Err(remedy()) };
    }
    if let Some(name) = text.strip_prefix("user:") {
        return if Account::user(name).is_ok() { Ok(Match::User(name.to_owned())) } else { Err(remedy()) };
    }
    let hosts = text.strip_prefix("host:");
    let network = hosts.unwrap_or(text);
    let is_network = network.parse::<IpNet>().is_ok() || network.parse::<IpAddr>().is_ok();
    if is_network {
        return value::network(network).map(|network| Match::Network(at_least_a_host(network)));
    }
    if hosts.is_some() { Err(remedy()) } else { user(text).ok_or_else(remedy) }
}

fn user(name: &str) -> Option<Match> {
    // An asterisk in a name is probably meant as a pattern, and a slash as a network with a typing error.
    let sound = Account::user(name).is_ok() && !name.contains(['*', '/']);
    sound.then(|| Match::User(name.to_owned()))
}

/// Widens an IPv6 network to at least a /64, which is the account of an IPv6 host.
fn at_least_a_host(network: IpNet) -> IpNet {
    match network {
        IpNet::V6(v6) if v6.prefix_len() > 64 => {
            Ipv6Net::new(v6.addr(), 64).map_or(network, |host| IpNet::V6(host.trunc()))
        }
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches() {
        let network = |text: &str| Ok(Match::Network(text.parse().unwrap()));
        let user = |text: &str| Ok(Match::User(text.to_owned()));
        for (text, expected) in [
            ("anna", user("anna")),
            ("user:anna@example.org", user("anna@example.org")),
            ("user:192.0.2.1", user("192.0.2.1")),
            ("user:http/mail", user("http/mail")),
            ("*@example.org", Ok(Match::Domain("example.org".to_owned()))),
            ("user:*@example.org", Ok(Match::Domain("example.org".to_owned()))),
            ("192.0.2.1", network("192.0.2.1/32")),
            ("host:192.0.2.1", network("192.0.2.1/32")),
            ("host:192.0.2.0/24", network("192.0.2.0/24")),
            ("::ffff:192.0.2.1", network("192.0.2.1/32")),
            ("2001:db8::1", network("2001:db8::/64")),
            ("2001:db8::/32", network("2001:db8::/32")),
            (
                "192.0.2.1/24",
                Err("192.0.2.1 for that host alone, or 192.0.2.0/24 for the network".to_owned()),
            ),
            ("", Err(MATCH.to_owned())),
            ("*", Err(MATCH.to_owned())),
            ("*@", Err(MATCH.to_owned())),
            ("*@*.example.org", Err(MATCH.to_owned())),
            ("news*@example.org", Err(MATCH.to_owned())),
            ("host:anna", Err(MATCH.to_owned())),
            ("192.0.2.0/33", Err(MATCH.to_owned())),
            ("two words", Err(MATCH.to_owned())),
        ] {
            assert_eq!(account_match(text), expected, "{text}");
        }
    }
}
