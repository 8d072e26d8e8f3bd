//! `[[classify]]`: the operator's own rules for what a reply to RCPT means.
//!
//! A rule that can never match, or that matches every reply, is a mistake.

use super::section::Section;
use crate::guard::classify::{Pattern, Rule};
use crate::smtp::Enhanced;

/// The one key that every rule must have.
const INVALID: &str = "invalid";

/// Reads one rule.
pub(super) fn read(table: &mut Section<'_>) -> Rule {
    let code = table.value("code", None, |value| {
        let written =
            value.as_integer().and_then(|number| u16::from_str_radix(number.as_str(), number.radix()).ok());
        written.filter(|code| (400..600).contains(code)).map(Some).ok_or_else(|| {
            "a reply code from 400 to 599, without quotes; what the upstream takes is never invalid"
                .to_owned()
        })
    });
    let enhanced = table.text("enhanced", None, |text| {
        let code = text.parse::<Enhanced>().ok().filter(|code| code.class != 2);
        code.map(Some).ok_or_else(|| "an enhanced status code such as 5.2.1, of class 4 or 5".to_owned())
    });
    let text = table.text("text", None, |text| match text {
        "" => Err("a regular expression such as disabled|no longer".to_owned()),
        pattern => Pattern::compile(pattern)
            .map(Some)
            .map_err(|why| format!("a regular expression such as disabled|no longer ({why})")),
    });
    let invalid = table.flag(INVALID, false);
    let whole = table.sound(&["code", "enhanced", "text"]);
    if !table.has(INVALID) {
        table.problem(
            INVALID,
            "missing: true where such a reply means that there is no such recipient, else false",
        );
    }
    if whole && code.is_none() && enhanced.is_none() && text.is_none() {
        table.problem(
            "code",
            "missing: at least one of code, enhanced and text, since this would match every reply",
        );
    }
    if let (Some(code), Some(enhanced)) = (code, enhanced)
        && u16::from(enhanced.class) != code / 100
    {
        table.problem(
            "enhanced",
            format!("one that begins with {}, as in every reply with code {code}", code / 100),
        );
    }
    Rule { code, enhanced, text, invalid }
}
