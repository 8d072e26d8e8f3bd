//! The senders file: `ACCOUNT: ADDRESS, @DOMAIN, ...`, one account per line.
//!
//! Pure. `#` begins a comment, at the beginning of a line or after a blank. The first line that is wrong is reported; a file
//! with such a line is refused as a whole.

use std::collections::HashMap;

use super::rules::{Allowed, key};
use crate::account::Account;
use crate::smtp::Mailbox;

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// The line's number, from 1.
    pub(super) line: usize,
    /// What is wrong, and what would be right.
    pub(super) text: String,
}

/// Parses the whole text.
///
/// # Errors
/// The first problem.
pub(super) fn parse(text: &str) -> Result<HashMap<String, Vec<Allowed>>, Problem> {
    let mut map = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let problem = |text: String| Problem { line: number + 1, text };
        let line = without_comment(line).trim();
        if line.is_empty() {
            continue;
        }
        let (account, list) = split(line)
            .ok_or_else(|| problem("no `:`; right is ACCOUNT: ADDRESS, @DOMAIN, ...".to_owned()))?;
        let account: Account = account.parse().map_err(|error| {
            problem(format!("an account such as anna, user:anna or host:192.0.2.1 ({error})"))
        })?;
        let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
        let allowed = items.map(allowed).collect::<Result<Vec<_>, String>>().map_err(problem)?;
        if map.insert(key(&account), allowed).is_some() {
            return Err(problem(format!("{account} has a line already; each account has one")));
        }
    }
    Ok(map)
}

fn without_comment(line: &str) -> &str {
    let begins = |(at, _): &(usize, &str)| *at == 0 || line[..*at].ends_with([' ', '\t']);
    line.match_indices('#').find(begins).map_or(line, |(at, _)| &line[..at])
}

/// Returns the account and what follows its colon. That is the first colon with a blank (or nothing) after it, since IPv6
/// addresses contain colons too; if there is none, it is the first colon at all, except the one of `user:` or `host:`.
fn split(line: &str) -> Option<(&str, &str)> {
    let spaced =
        |(at, _): &(usize, &str)| line[at + 1..].is_empty() || line[at + 1..].starts_with([' ', '\t']);
    let spaced = line.match_indices(':').find(spaced);
    let kind = ["user:", "host:"].into_iter().find(|kind| line.starts_with(kind)).map_or(0, str::len);
    let at = spaced.map(|(at, _)| at).or_else(|| line[kind..].find(':').map(|at| kind + at))?;
    Some((line[..at].trim_end(), &line[at + 1..]))
}

fn allowed(item: &str) -> Result<Allowed, String> {
    if let Some(domain) = item.strip_prefix('@') {
        // A domain is valid if an address at it is.
        let mailbox = Mailbox::parse(&format!("x@{domain}"));
        return mailbox
            .map(|mailbox| Allowed::Domain(mailbox.domain().to_owned()))
            .map_err(|_| format!("`{item}` is no domain; right is @example.org"));
    }
    Mailbox::parse(item).map(Allowed::Address).map_err(|_| {
        format!("`{item}` is no address; right is anna@example.org, or @example.org for all of a domain")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Result<Vec<String>, (usize, String)> {
        let map = parse(text).map_err(|problem| (problem.line, problem.text))?;
        let mut lines: Vec<String> = map
            .iter()
            .map(|(account, allowed)| {
                let items: Vec<String> = allowed
                    .iter()
                    .map(|allowed| match allowed {
                        Allowed::Address(mailbox) => mailbox.as_str().to_owned(),
                        Allowed::Domain(domain) => format!("@{domain}"),
                    })
                    .collect();
                format!("{account} {}", items.join(" "))
            })
            .collect();
        lines.sort();
        Ok(lines)
    }

    #[test]
    fn maps() {
        for (text, lines) in [
            ("anna: anna@example.org, @shop.example\n", &["user:anna anna@example.org @shop.example"][..]),
            ("anna:a@b,c@d", &["user:anna a@b c@d"]),
            ("user:Anna: a@b ,, @c,", &["user:anna a@b @c"]),
            ("anna@example.org: a@b", &["user:anna@example.org a@b"]),
            ("host:192.0.2.1: a@b", &["host:192.0.2.1 a@b"]),
            ("host:2001:db8::: a@b", &["host:2001:db8:: a@b"]),
            ("anna:", &["user:anna "]), // anna may send nothing
            ("# all\n\n  anna: a#b@c # as ever\r\n\tbob:\tb@c\n", &["user:anna a#b@c", "user:bob b@c"]),
            ("", &[]),
        ] {
            assert_eq!(written(text).unwrap(), lines, "{text:?}");
        }
    }

    #[test]
    fn what_is_none() {
        for (text, line, part) in [
            ("anna: a@b\nbob\n", 2, "no `:`"),
            ("anna: a@b\n: c@d\n", 2, "an account such as"),
            ("host:here: a@b", 1, "an account such as"),
            ("anna: a@b c@d", 1, "`a@b c@d` is no address"),
            ("anna: anna", 1, "`anna` is no address"),
            ("anna: @", 1, "`@` is no domain"),
            ("anna: @a..b", 1, "`@a..b` is no domain"),
            ("anna: a@b\n\nuser:ANNA: c@d", 3, "user:ANNA has a line already"),
        ] {
            let (found, told) = written(text).unwrap_err();
            assert_eq!(found, line, "{text:?}");
            assert!(told.contains(part), "{told} / {part}");
        }
    }
}
