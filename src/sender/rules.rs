//! The rules of who may send as whom. Pure.
//!
//! Comparison ignores the case of addresses, and how local parts are quoted. Whoever has `name@` also has `name+x@` (RFC
//! 5233). A U-label and its A-label are two different domains: list both.

use std::collections::HashMap;

use crate::account::{Account, Kind};
use crate::smtp::{Mailbox, ReversePath};

/// `[sender] policy`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// Everybody may send as anybody.
    #[default]
    Any,
    /// Users may send as their own name; relay hosts as anybody.
    Own,
    /// The map decides; relay hosts that it does not name may send as anybody.
    Map,
}

/// What the map allows an account to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// This address and its subaddresses.
    Address(Mailbox),
    /// Any address at this domain.
    Domain(String),
}

/// The rules in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// The policy.
    pub policy: Policy,
    /// The upstream's own domains, to which a name without an `@` belongs.
    pub domains: Vec<String>,
    /// The map; its keys are made by [`key`].
    pub map: HashMap<String, Vec<Allowed>>,
}

/// Returns the key of an account in the map: its written form, in lower case (ASCII).
pub fn key(account: &Account) -> String {
    account.as_str().to_ascii_lowercase()
}

/// Returns the addresses that belong to an account's name: the name itself, or, if it has no `@`, the name at each of the
/// domains. Empty if that is not a valid address, and for relay hosts.
pub fn own_addresses(account: &Account, domains: &[String]) -> Vec<Mailbox> {
    let Kind::User(name) = account.kind() else { return Vec::new() };
    if name.contains('@') {
        return Mailbox::parse(name).into_iter().collect();
    }
    domains.iter().filter_map(|domain| Mailbox::parse(&format!("{name}@{domain}")).ok()).collect()
}

impl Rules {
    /// Whether the rules restrict this account at all.
    pub fn bind(&self, account: &Account) -> bool {
        match self.policy {
            Policy::Any => false,
            Policy::Own => matches!(account.kind(), Kind::User(_)),
            Policy::Map => matches!(account.kind(), Kind::User(_)) || self.map.contains_key(&key(account)),
        }
    }

    /// Whether the account may use this reverse-path; the null one is always allowed.
    pub fn allow(&self, account: &Account, path: &ReversePath) -> bool {
        match path {
            ReversePath::Null => true,
            ReversePath::Mailbox(mailbox) => self.allow_mailbox(account, mailbox),
        }
    }

    /// Whether the account may use this address.
    pub fn allow_mailbox(&self, account: &Account, mailbox: &Mailbox) -> bool {
        if !self.bind(account) {
            return true;
        }
        match self.policy {
            Policy::Any => true,
            Policy::Own => own_addresses(account, &self.domains).iter().any(|own| covers(own, mailbox)),
            Policy::Map => {
                let allowed = self.map.get(&key(account)).map_or(&[][..], Vec::as_slice);
                allowed.iter().any(|allowed| match allowed {
                    Allowed::Address(own) => covers(own, mailbox),
                    Allowed::Domain(domain) => domain.eq_ignore_ascii_case(mailbox.domain()),
                })
            }
        }
    }
}

/// Whether two addresses are the same.
pub fn same(one: &Mailbox, other: &Mailbox) -> bool {
    one.domain().eq_ignore_ascii_case(other.domain()) && local(one) == local(other)
}

fn covers(own: &Mailbox, asked: &Mailbox) -> bool {
    let (own_local, asked_local) = (local(own), local(asked));
    own.domain().eq_ignore_ascii_case(asked.domain())
        && asked_local
            .strip_prefix(own_local.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
}

/// Returns the local part for comparison: without quotes and backslashes, in lower case.
fn local(mailbox: &Mailbox) -> String {
    let text = mailbox.local_part();
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return text.to_lowercase();
    };
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(text: &str) -> Account {
        text.parse().unwrap()
    }

    fn path(text: &str) -> ReversePath {
        ReversePath::parse(text).unwrap()
    }

    #[test]
    fn own_name() {
        let domains = vec!["example.org".to_owned(), "example.net".to_owned()];
        let rules = Rules { policy: Policy::Own, domains, map: HashMap::new() };
        for (name, sender, allowed) in [
            ("anna", "anna@example.org", true),
            ("anna", "anna@example.net", true),
            ("anna", "Anna+lists@Example.ORG", true),
            ("anna", r#""anna"@example.org"#, true),
            ("anna", r#""an\na+x"@example.org"#, true),
            ("anna", "", true), // DSNs and read receipts
            ("anna", "annas@example.org", false),
            ("anna", "ann@example.org", false),
            ("anna", "anna@example.com", false),
            ("anna", "anna@sub.example.org", false),
            ("anna", "+anna@example.org", false),
            ("anna@example.com", "anna@example.com", true),
            ("anna@example.com", "anna+x@EXAMPLE.com", true),
            ("anna@example.com", "anna@example.org", false),
            ("\u{d6}rs@example.com", "\u{f6}RS@example.com", true),
            // A name that is not a valid local part has no address.
            ("an..na", "an..na@example.org", false),
            ("host:192.0.2.1", "root@printer.example", true),
        ] {
            let Ok(path) = ReversePath::parse(sender) else {
                assert!(!allowed, "{sender}");
                continue;
            };
            assert_eq!(rules.allow(&account(name), &path), allowed, "{name} {sender}");
        }
    }

    #[test]
    fn by_map() {
        let address = |text: &str| Allowed::Address(Mailbox::parse(text).unwrap());
        let map = HashMap::from([
            (
                "user:anna".to_owned(),
                vec![address("info@example.org"), Allowed::Domain("shop.example".to_owned())],
            ),
            ("host:192.0.2.1".to_owned(), vec![address("printer@example.org")]),
            ("user:nobody".to_owned(), vec![]),
        ]);
        let rules = Rules { policy: Policy::Map, domains: vec!["example.org".to_owned()], map };
        for (name, sender, allowed) in [
            ("anna", "info@example.org", true),
            ("ANNA", "info+x@example.org", true),
            ("anna", "any.body@Shop.Example", true),
            ("anna", "x@sub.shop.example", false),
            ("anna", "anna@example.org", false), // not in the map
            ("anna", "", true),
            ("nobody", "a@b", false),
            ("bob", "bob@example.org", false), // a user who is not in the map may send nothing
            ("bob", "", true),
            ("host:192.0.2.1", "printer@example.org", true),
            ("host:192.0.2.1", "boss@example.org", false),
            ("host:192.0.2.2", "boss@example.org", true), // not named
        ] {
            assert_eq!(rules.allow(&account(name), &path(sender)), allowed, "{name} {sender}");
        }
        let any = Rules::default();
        assert!(any.allow(&account("bob"), &path("a@b")) && !any.bind(&account("bob")));
    }
}
