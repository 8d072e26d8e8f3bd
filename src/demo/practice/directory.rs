//! The domains that the practice MTA serves, and their mailboxes.

use std::collections::HashSet;

use crate::smtp::ForwardPath;

/// Domains and existing mailboxes, compared ignoring case.
#[derive(Debug, Default)]
pub struct Directory {
    domains: HashSet<String>,
    living: HashSet<String>,
}

/// What the directory says about a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// The mailbox exists.
    Living,
    /// The domain is served but has no such mailbox.
    Unknown,
    /// The domain is not served.
    Elsewhere,
}

impl Directory {
    /// Creates a directory with these domains and mailboxes.
    pub fn new(domains: &[&str], living: &[impl AsRef<str>]) -> Self {
        Self {
            domains: domains.iter().map(|domain| domain.to_lowercase()).collect(),
            living: living.iter().map(|mailbox| mailbox.as_ref().to_lowercase()).collect(),
        }
    }

    pub(super) fn find(&self, recipient: &ForwardPath) -> Finding {
        let Some(domain) = recipient.domain() else { return Finding::Living };
        let address = recipient.as_str().to_lowercase();
        // RFC 5321 4.5.1: every domain has a postmaster.
        if self.living.contains(&address) || self.is_postmaster(&address) {
            Finding::Living
        } else if self.domains.contains(&domain.to_lowercase()) {
            Finding::Unknown
        } else {
            Finding::Elsewhere
        }
    }

    fn is_postmaster(&self, address: &str) -> bool {
        address.strip_prefix("postmaster@").is_some_and(|domain| self.domains.contains(domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings() {
        let directory = Directory::new(&["Example.org"], &["Ada@example.org"]);
        for (address, finding) in [
            ("ada@example.org", Finding::Living),
            ("ADA@EXAMPLE.ORG", Finding::Living),
            ("adda@example.org", Finding::Unknown),
            ("ada@example.com", Finding::Elsewhere),
            ("ada@[192.0.2.1]", Finding::Elsewhere),
            ("postmaster", Finding::Living),
            ("PostMaster@example.org", Finding::Living),
            ("postmaster@example.com", Finding::Elsewhere),
        ] {
            assert_eq!(directory.find(&ForwardPath::parse(address).unwrap()), finding, "{address}");
        }
    }
}
