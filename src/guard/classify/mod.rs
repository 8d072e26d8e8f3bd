//! Judges an upstream's reply to RCPT: does the recipient exist? (CONTRACT, Classification)
//!
//! Only an outcome that says *this mailbox does not exist* counts against anyone. A reply that quotes another is judged by the
//! innermost quoted one alone ([`quoted`]); the meaning of texts is in tables ([`phrases`]). An operator's own rules come first
//! ([`rules`]). In doubt a reply does not count: an honest user is never blocked for somebody else's policy.
//!
//! RFC 5321 4.2 and 4.3.2; enhanced status codes of RFC 3463 and 7505. Time and memory are linear in the text, of which only
//! the first [`MAX_TEXT`] octets are read.

mod phrases;
mod quoted;
mod rules;

use crate::smtp::{Enhanced, Reply};
use phrases::{Phrases, has_any};
use quoted::Quoted;
pub use rules::{Pattern, Rule, Rules};

/// The outcome of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 2yz: the upstream takes the recipient.
    Accepted,
    /// A permanent "no such recipient": the only outcome that counts.
    NoSuchRecipient,
    /// Refused for any other reason, for now or for good.
    OtherRefusal,
}

/// How many octets of a reply's text are judged: sixteen of RFC 5321's longest lines.
const MAX_TEXT: usize = 8 * 1024;

/// Judges one reply to RCPT, applying the operator's `rules` first.
pub fn classify(reply: &Reply, rules: &Rules) -> Outcome {
    if (200..300).contains(&reply.code) {
        return Outcome::Accepted;
    }
    // 3yz refuses nobody, whatever it quotes.
    if reply.code < 400 {
        return Outcome::OtherRefusal;
    }
    let text = phrases::without_names(&reply.text, MAX_TEXT);
    let quoted = quoted::innermost(reply, &text);
    // A phrase may span two lines.
    let [whole, said] = [&text, quoted.text].map(|text| text.replace('\n', " "));
    if let Some(outcome) = rules.judge(&quoted, &said) {
        outcome
    } else if says_no_such_recipient(&quoted, &whole, &said) {
        Outcome::NoSuchRecipient
    } else {
        Outcome::OtherRefusal
    }
}

/// Whether a reply denies relaying: the upstream takes no mail to that domain from us, whoever the recipient is.
pub fn denies_relaying(reply: &Reply) -> bool {
    let text = phrases::without_names(&reply.text, MAX_TEXT).replace('\n', " ");
    reply.code >= 400 && phrases::denies_relaying(&text)
}

/// Returns the host whose name Postfix could not find, in lower case: the domain of the recipient, its mail exchanger, or
/// a relayhost of the upstream's own.
pub fn missing_host(reply: &Reply) -> Option<String> {
    let text = phrases::without_names(&reply.text, MAX_TEXT);
    let (_, rest) = postfix_reason(&text)?.split_once("error for name=")?;
    rest.split_ascii_whitespace().next().map(str::to_owned)
}

/// `whole` is the entire text, `said` that of the innermost reply.
fn says_no_such_recipient(reply: &Quoted<'_>, whole: &str, said: &str) -> bool {
    let is_finding = reply.is_quoted() || postfix_reason(said).is_some();
    if !reply.answers_rcpt() || is_finding && has_any(whole, phrases::ABOUT_THE_SENDER) {
        return false;
    }
    if phrases::denies_relaying(said) {
        return false;
    }
    if let Some(reason) = postfix_reason(said) {
        return is_postfix_for_no_such_recipient(reason);
    }
    if !reply.is_permanent() || has_any(said, phrases::GIVES_NO_REASON) {
        return false;
    }
    if NAMED_EXCEPTIONS.iter().any(|named| named.matches(reply, said)) {
        return true;
    }
    match reply.enhanced.or_else(|| quoted::hashed(said)) {
        Some(Enhanced { class: 5, subject: 1, detail: 1 | 2 | 3 | 6 | 10 }) => {
            !has_any(said, phrases::OUTWEIGHS_THE_CODE)
        }
        None | Some(Enhanced { class: 5, subject: 0 | 1, detail: 0 }) => {
            matches!(reply.code, Some(550 | 551 | 553)) && !is_about_something_else(said)
        }
        Some(_) => false,
    }
}

/// The reason that Postfix gives: a quoted reply, or its own words.
fn postfix_reason(text: &str) -> Option<&str> {
    phrases::POSTFIX_REASONS
        .iter()
        .find_map(|marker| text.rfind(marker).and_then(|at| text.get(at + marker.len()..)))
}

fn is_postfix_for_no_such_recipient(reason: &str) -> bool {
    let reason = reason.trim_start();
    phrases::POSTFIX_UNKNOWN_USER.iter().any(|begin| reason.starts_with(begin))
        || (reason.contains("host not found") && !reason.contains("try again"))
}

/// Policy, reputation, authentication, the sender, trouble, or the state of a mailbox that does exist.
fn is_about_something_else(text: &str) -> bool {
    let mut text = text.to_owned();
    for phrase in phrases::INNOCENT {
        text = text.replace(phrase, "");
    }
    let tables: [Phrases; 6] = [
        phrases::SENDER,
        phrases::POLICY,
        phrases::REPUTATION,
        phrases::TROUBLE,
        phrases::AUTHENTICATION,
        phrases::MAILBOX_EXISTS,
    ];
    tables.into_iter().any(|table| has_any(&text, table))
}

/// A reply whose codes do not say what its sender means.
struct Named {
    code: u16,
    enhanced: Codes,
    begins: &'static str,
    /// All of these must occur, in this order.
    text: &'static [&'static str],
}

/// Its enhanced status code.
enum Codes {
    Any,
    None,
    This(Enhanced),
}

const NAMED_EXCEPTIONS: &[Named] = &[
    // Exchange Online, Directory Based Edge Blocking
    Named {
        code: 550,
        enhanced: Codes::This(Enhanced { class: 5, subject: 4, detail: 1 }),
        begins: "",
        text: &["recipient address rejected: access denied"],
    },
    // Outlook.com
    Named {
        code: 550,
        enhanced: Codes::This(Enhanced { class: 5, subject: 5, detail: 0 }),
        begins: "",
        text: &["mailbox unavailable", "s2017062302"],
    },
    // Yahoo since 2019
    Named { code: 552, enhanced: Codes::None, begins: "1 ", text: &["mailbox not found"] },
    // Yahoo before
    Named { code: 554, enhanced: Codes::Any, begins: "", text: &["doesn't have a", "account"] },
];

impl Named {
    fn matches(&self, reply: &Quoted<'_>, said: &str) -> bool {
        let has_code = match &self.enhanced {
            Codes::Any => true,
            Codes::None => reply.enhanced.is_none(),
            Codes::This(this) => reply.enhanced.as_ref() == Some(this),
        };
        let mut rest = said.trim_start();
        has_code
            && reply.code == Some(self.code)
            && rest.starts_with(self.begins)
            && !has_any(said, phrases::SENDER)
            && self.text.iter().all(|part| match rest.split_once(part) {
                Some((_, behind)) => {
                    rest = behind;
                    true
                }
                None => false,
            })
    }
}

#[cfg(test)]
mod tests;
