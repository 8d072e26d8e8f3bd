//! An operator's own rules, `[[classify]]`: which replies mean an invalid recipient, and which do not (CONTRACT, Detection).
//!
//! Tried in order before all built-in rules, on the innermost reply: its codes, and its text as one line without addresses,
//! since a client chooses those. The first match decides; `code = 450` makes replies with that code count. No rule can make a
//! recipient invalid that was accepted, or that the reply is not about.
//!
//! Patterns take time linear in the text (crate `regex`), and their size is bounded.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

use super::Outcome;
use super::quoted::{self, Quoted};
use crate::smtp::Enhanced;

/// The largest size of a compiled pattern, in octets: room for a thousand words, or `\w{1,20}` (Unicode).
const MAX_PATTERN: usize = 1 << 20;

/// All rules, in order.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

/// One rule: all of its conditions must hold.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The reply code.
    pub code: Option<u16>,
    /// The enhanced status code.
    pub enhanced: Option<Enhanced>,
    /// A pattern to find in the text.
    pub text: Option<Pattern>,
    /// Whether such a reply means that the recipient does not exist.
    pub invalid: bool,
}

/// A regular expression, without regard to case.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Rules {
    /// Rules to be tried in this order.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// Returns what the first matching rule says; `said` is the text of the reply as one line.
    pub(super) fn judge(&self, reply: &Quoted<'_>, said: &str) -> Option<Outcome> {
        if self.0.is_empty() || !reply.answers_rcpt() {
            return None;
        }
        let enhanced = reply.enhanced.or_else(|| quoted::hashed(said));
        let matching = self.0.iter().find(|rule| {
            rule.code.is_none_or(|code| reply.code == Some(code))
                && rule.enhanced.is_none_or(|code| enhanced == Some(code))
                && rule.text.as_ref().is_none_or(|Pattern(text)| text.is_match(said.trim()))
        })?;
        Some(if matching.invalid { Outcome::NoSuchRecipient } else { Outcome::OtherRefusal })
    }
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with the pattern, in a few words.
    pub fn compile(pattern: &str) -> Result<Self, Cow<'static, str>> {
        if pattern.contains('@') {
            return Err(
                "addresses are taken out of the text before it is compared, so no @ is ever found".into()
            );
        }
        let compiled = RegexBuilder::new(pattern).case_insensitive(true).size_limit(MAX_PATTERN).build();
        let regex = compiled.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => Cow::from("it is too large; write several rules"),
            error => why(&error.to_string()).to_owned().into(),
        })?;
        // `disabled|` is a slip of the pen, and would match every reply.
        if regex.is_match("") && regex.is_match("-") {
            return Err("it matches every text; leave `text` out if that is meant".into());
        }
        Ok(Self(regex))
    }
}

/// The last line of an error, which says what is wrong; the lines before show the pattern and a caret.
fn why(error: &str) -> &str {
    let last = error.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::super::{Reply, classify};
    use super::*;

    fn rule(code: Option<u16>, enhanced: &str, text: &str, invalid: bool) -> Rule {
        let written = |text: &str| if text.is_empty() { None } else { Some(text.to_owned()) };
        let enhanced = written(enhanced).map(|code| code.parse().unwrap());
        let text = written(text).map(|text| Pattern::compile(&text).unwrap());
        Rule { code, enhanced, text, invalid }
    }

    fn judge(rules: &Rules, line: &str) -> Outcome {
        let (reply, _) = Reply::parse(format!("{line}\r\n").as_bytes()).unwrap().unwrap();
        classify(&reply, rules)
    }

    #[test]
    fn each_condition_is_one_of_the_innermost_reply() {
        use Outcome::{Accepted, NoSuchRecipient, OtherRefusal};
        let gone = |code, enhanced, text| Rules::new(vec![rule(code, enhanced, text, true)]);
        for (rules, line, expected) in [
            (gone(Some(550), "5.2.1", "disabled|no longer"), "550 5.2.1 Account DISABLED", NoSuchRecipient),
            (gone(Some(550), "5.2.1", "disabled|no longer"), "550 5.2.1 Mailbox full", OtherRefusal),
            (gone(Some(550), "5.2.1", "disabled|no longer"), "554 5.2.1 Account disabled", OtherRefusal),
            (gone(Some(550), "5.2.1", "disabled|no longer"), "550 5.2.2 Account disabled", OtherRefusal),
            (gone(None, "5.2.1", ""), "554 5.2.1 x", NoSuchRecipient),
            (gone(None, "5.2.1", ""), "550 account is gone (#5.2.1)", NoSuchRecipient),
            (gone(Some(552), "", ""), "552 5.2.2 full", NoSuchRecipient),
            (
                gone(None, "", "^account .* is disabled$"),
                "550-5.2.1 account\r\n550 5.2.1 so is disabled",
                NoSuchRecipient,
            ),
            // Only the innermost reply, whatever precedes it.
            (
                gone(None, "5.2.1", ""),
                "450 4.1.1 <a@b.example>: unverified address: host c said: 550 5.2.1 d",
                NoSuchRecipient,
            ),
            (
                gone(Some(450), "", ""),
                "450 4.1.1 <a@b.example>: unverified address: host c said: 550 5.2.1 d",
                OtherRefusal,
            ),
            (gone(None, "", "greylist"), "450 4.1.1 greylist host said: 550 5.2.2 full", OtherRefusal),
            // A rule with 450 means it; it also covers a reply without a reason.
            (gone(Some(450), "", ""), "450 4.2.0 later", NoSuchRecipient),
            (
                gone(None, "4.1.1", "verification in progress"),
                "450 4.1.1 Address verification in progress",
                NoSuchRecipient,
            ),
            (gone(None, "", "relay access denied"), "554 5.7.1 Relay access denied", NoSuchRecipient),
            // A recipient that was taken, another command, an address.
            (gone(None, "", "ok"), "250 2.1.5 Ok", Accepted),
            (gone(None, "", "ok"), "354 ok", OtherRefusal),
            (
                gone(None, "", "gone"),
                "450 4.1.1 host a said: 550 5.7.1 gone (in reply to MAIL FROM command)",
                OtherRefusal,
            ),
            (gone(None, "", "gone"), "550 5.7.1 <gone@example.com>: no", OtherRefusal),
        ] {
            assert_eq!(judge(&rules, line), expected, "{rules:?} {line}");
        }
    }

    #[test]
    fn the_first_that_matches_decides_before_the_built_in_rules() {
        let rules = Rules::new(vec![
            rule(None, "", "try the new server", false),
            rule(None, "5.1.1", "", false),
            rule(Some(550), "", "", true),
        ]);
        for (line, expected) in [
            ("550 5.1.1 User unknown", Outcome::OtherRefusal),
            ("550 5.2.0 Try the new server", Outcome::OtherRefusal),
            ("550 5.2.0 x", Outcome::NoSuchRecipient),
            // None of them: as built in.
            ("553 5.1.3 x", Outcome::NoSuchRecipient),
            ("553 5.7.1 x", Outcome::OtherRefusal),
        ] {
            assert_eq!(judge(&rules, line), expected, "{line}");
        }
    }

    #[test]
    fn patterns_that_cannot_be_meant() {
        for (pattern, expected) in [
            ("(disabled", "unclosed group"),
            ("disabled|", "it matches every text; leave `text` out if that is meant"),
            (".*", "it matches every text; leave `text` out if that is meant"),
            ("(?=x)", "look-around, including look-ahead and look-behind, is not supported"),
            (r"(a)\1", "backreferences are not supported"),
            (r"\w{1000}", "it is too large; write several rules"),
            ("<.*@", "addresses are taken out of the text before it is compared, so no @ is ever found"),
        ] {
            assert_eq!(Pattern::compile(pattern).unwrap_err(), expected, "{pattern}");
        }
        assert!(Pattern::compile("^$").is_ok(), "a reply without a text");
        assert!(Pattern::compile(&["word"; 1000].join("|")).is_ok());
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        let rules = Rules::new(vec![rule(None, "", "(a+)+$", true), rule(None, "", "(.*a){12}b", true)]);
        let reply = Reply { code: 550, enhanced: None, text: "a".repeat(100_000).into() };
        let begin = std::time::Instant::now();
        (0..20).for_each(|_| _ = classify(&reply, &rules));
        assert!(begin.elapsed() < std::time::Duration::from_secs(20));
    }
}
