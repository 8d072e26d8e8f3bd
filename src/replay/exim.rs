//! Exim's main log, after the time.
//!
//! The forms are those of receive.c (`<=`), deliver.c (`=>`, `->`, `**`) and smtp_in.c (`rejected RCPT`), with any
//! `log_selector`; ids have 16 or, since 4.97, 23 characters. Text that strangers choose (addresses, HELO,
//! certificates, subjects) may contain quotes and blanks, and must not be taken for the `A=` of an authenticated user.

use std::borrow::Cow;
use std::net::IpAddr;

use super::record::{Broken, Record, Said, Sender};
use crate::guard::classify::{Outcome, Rules, classify};
use crate::smtp::Reply;

/// Reads one line.
pub(super) fn read<'a>(text: &'a str, rules: &Rules) -> Said<'a> {
    // log_selector = +pid
    let text = match text.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((process, rest)) if process.bytes().all(|octet| octet.is_ascii_digit()) => rest,
        _ => text,
    };
    let Some((id, rest)) = text.split_once(' ').filter(|(first, _)| is_id(first)) else {
        return refusal(text, rules);
    };
    let Some((flag, rest)) = rest.split_once(' ') else {
        return Ok((rest == "Completed").then_some(Record::Gone { id }));
    };
    match flag {
        "<=" => begun(id, rest).map(Some),
        "=>" | "->" | ">>" => settled(id, rest, Fate::Delivered, rules),
        "**" => settled(id, rest, Fate::Failed, rules),
        // log_selector = +queue_time_overall
        "Completed" => Ok(Some(Record::Gone { id })),
        _ => Ok(None),
    }
}

/// `1uABcd-000aBc-De`, `1uABcd-00000000aBc-0DeF`
fn is_id(text: &str) -> bool {
    let mut parts = text.split('-').map(str::len);
    let lengths = (parts.next(), parts.next(), parts.next(), parts.next());
    matches!(lengths, (Some(6), Some(6), Some(2), None) | (Some(6), Some(11), Some(4), None))
        && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
}

/// The words of a line. A quoted word may contain blanks: `"a b"@example.org`, `F=<"a b"@example.org>`, `DN="C=UK,
/// O=x"`.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.0 = self.0.trim_start_matches(' ');
        let mut quoted = false;
        let mut escaped = false;
        let mut before = '=';
        let end = self.0.char_indices().find_map(|(at, c)| {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                // Anywhere else a quotation mark is an ordinary character.
                '"' if quoted || matches!(before, '=' | '<' | '(') => quoted = !quoted,
                ' ' if !quoted => return Some(at),
                _ => {}
            }
            before = c;
            None
        });
        let (word, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }
}

/// The client, gathered word by word.
#[derive(Default)]
struct Client<'a> {
    user: Option<&'a str>,
    address: Option<IpAddr>,
    named: bool,
}

impl<'a> Client<'a> {
    fn word(&mut self, word: &'a str) {
        if let Some(authenticated) = word.strip_prefix("A=") {
            // `driver:user`, and with `+smtp_mailauth` also `:address`.
            self.user = Some(authenticated.split(':').nth(1).unwrap_or_default());
        }
        let own = word.strip_prefix("H=");
        self.named |= own.is_some();
        // `H=name (helo) [192.0.2.1]:4711`; an `I=[...]` after it is our own address.
        let bracket = own.unwrap_or(word).strip_prefix('[').and_then(|rest| rest.split_once(']'));
        if let (None, Some((address, _))) = (self.address, bracket) {
            self.address = address.parse().ok().map(|address: IpAddr| address.to_canonical());
        }
    }

    fn sender(&self) -> Sender<'a> {
        match (self.user, self.address) {
            (Some(user), _) => Sender::User(user),
            (None, Some(address)) => Sender::Host(address),
            (None, None) if self.named => Sender::Untold,
            (None, None) => Sender::Local,
        }
    }
}

/// Reads `a@example.org H=c.example (helo) [192.0.2.1] P=esmtpsa X=... A=plain:anna S=1234 id=... T="..." from <...>
/// for ...`.
fn begun<'a>(id: &'a str, text: &'a str) -> Result<Record<'a>, Broken> {
    let mut words = Words(text);
    words.next().ok_or(Broken)?;
    let mut client = Client::default();
    for word in words {
        // The sender chooses everything after the size.
        if word.starts_with("S=") {
            return Ok(Record::Begun { id: Some(id), process: None, sender: client.sender(), before: None });
        }
        client.word(word);
    }
    Err(Broken)
}

/// Reads `H=c.example [192.0.2.1] X=... F=<a@example.org> A=plain:anna rejected RCPT <x@example.org>: text`.
fn refusal<'a>(text: &'a str, rules: &Rules) -> Said<'a> {
    // Rules out nearly all other lines quickly.
    if !text.contains("rejected RCPT ") {
        return Ok(None);
    }
    let mut client = Client::default();
    let mut words = Words(text);
    let mut temporarily = false;
    loop {
        match words.next() {
            Some("temporarily") => temporarily = true,
            Some("rejected") => break,
            Some(word) => client.word(word),
            None => return Ok(None),
        }
    }
    if words.next() != Some("RCPT") {
        return Ok(None);
    }
    let word = words.next().ok_or(Broken)?;
    let (recipient, reason) = match word.strip_suffix(':') {
        Some(recipient) => (recipient, words.0.trim_start()),
        None => (word, ""),
    };
    let recipient = recipient.strip_prefix('<').unwrap_or(recipient);
    let recipient = recipient.strip_suffix('>').unwrap_or(recipient);
    // A `deny` without a reason is answered with `Administrative prohibition`.
    let outcome = if temporarily || reason.is_empty() { Outcome::OtherRefusal } else { judge(reason, rules) };
    Ok(Some(Record::Refused { id: None, process: None, sender: client.sender(), recipient, outcome }))
}

/// Judges `550 REASON`, the reply to the client.
fn judge(reason: &str, rules: &Rules) -> Outcome {
    // Exim writes the line ends of a reply like this.
    let text = reason.replace("\\n", "\n");
    classify(&Reply { code: 550, enhanced: None, text: Cow::Owned(text) }, rules)
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Delivered,
    Failed,
}

/// Reads `x <x@example.org> R=... T=... H=mx [192.0.2.25] C="250 ..."` or `x@example.org R=... T=...: reason`.
fn settled<'a>(id: &'a str, text: &'a str, fate: Fate, rules: &Rules) -> Said<'a> {
    let mut words = Words(text);
    let target = words.next().ok_or(Broken)?;
    let mut ended = target.ends_with(':') && fate == Fate::Failed;
    let target = if ended { &target[..target.len() - 1] } else { target };
    let mut top = None;
    let mut within = false;
    let mut confirmation = "";
    while !ended {
        let Some(word) = words.next() else { break };
        ended = fate == Fate::Failed && word.ends_with(':');
        let word = if ended { &word[..word.len() - 1] } else { word };
        if let Some(address) = word.strip_prefix('<') {
            top = top.or(address.strip_suffix('>'));
        }
        within |= word.starts_with("[127.") || word.starts_with("[::1]");
        confirmation = word.strip_prefix("C=").unwrap_or(confirmation);
    }
    if fate == Fate::Failed && !ended {
        return Err(Broken);
    }
    let reason = words.0.trim_start();
    let outcome = if fate == Fate::Delivered { Outcome::Accepted } else { failed(reason, rules) };
    let (recipient, outcome) = match top {
        // The client named an alias, which exists, whatever happened to its targets.
        Some(alias) if !is_same(alias, target) => (alias, Outcome::Accepted),
        Some(address) => (address, outcome),
        None if target.contains('@') => (target, outcome),
        // A file, a pipe or `:blackhole:`: without an address there is nothing to count.
        None => return Ok(None),
    };
    let queued = confirmation.trim_matches('"').rsplit_once("id=").map(|(_, id)| id);
    let passed_on = queued.filter(|id| within && is_id(id));
    Ok(Some(Record::Settled { id, recipient, outcome, passed_on }))
}

/// Whether both are the same address: local deliveries show only the local-part first.
fn is_same(address: &str, target: &str) -> bool {
    let local_part = address.rsplit_once('@').map_or(address, |(local, _)| local);
    target.eq_ignore_ascii_case(local_part) || target.eq_ignore_ascii_case(address)
}

/// What Exim itself says, in lower case, if a recipient does not exist. Its other texts without a reply (`retry timeout
/// exceeded`) are about something else.
const NO_SUCH_RECIPIENT: [&str; 6] =
    ["unrouteable ", "unroutable ", "unknown user", "user unknown", "no such user", "unknown local"];

/// What the reply to RCPT would have been, had Exim verified the recipient.
fn failed(reason: &str, rules: &Rules) -> Outcome {
    // `SMTP error from remote mail server after RCPT TO:<x>: 550 ...`, `LMTP error after RCPT TO:<x>: 550 ...`
    if let Some((_, command)) = reason.split_once(" error ").and_then(|(_, rest)| rest.split_once("after ")) {
        let command = command.strip_prefix("pipelined ").unwrap_or(command);
        return if command.starts_with("RCPT TO:") { judge(reason, rules) } else { Outcome::OtherRefusal };
    }
    let lower = reason.to_ascii_lowercase();
    if NO_SUCH_RECIPIENT.iter().any(|phrase| lower.contains(phrase)) {
        return judge(reason, rules);
    }
    Outcome::OtherRefusal
}

#[cfg(test)]
mod tests {
    use super::*;

    const YES: Outcome = Outcome::NoSuchRecipient;
    const NO: Outcome = Outcome::OtherRefusal;

    fn address(text: &str) -> Sender<'static> {
        Sender::Host(text.parse().unwrap())
    }

    #[test]
    fn who_sends() {
        for (text, sender) in [
            (
                "1vNabc-000aBc-De <= anna@example.org H=c.example (laptop) [192.0.2.1] P=esmtpsa X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=no \
                 A=plain_server:anna@example.org S=1234 id=x@example.org",
                Sender::User("anna@example.org"),
            ),
            (
                "1vNabc-00000000aBc-0DeF <= anna@example.org H=(laptop) [192.0.2.1]:4711 I=[192.0.2.9]:587 P=esmtpsa A=login:anna S=1 \
                 T=\"A=plain:bob\" from <anna@example.org> for x@example.org",
                Sender::User("anna"),
            ),
            ("[12] 1vNabc-000aBc-De <= a@b.example H=[2001:db8::1] P=esmtp S=1", address("2001:db8::1")),
            ("1vNabc-000aBc-De <= <> R=1vNabb-000aBc-De U=Debian-exim P=local S=1", Sender::Local),
            ("1vNabc-000aBc-De <= root@example.org U=root P=local S=1", Sender::Local),
            ("1vNabc-000aBc-De <= a@b.example H=c [192.0.2.1] P=esmtpa A=plain S=1", Sender::User("")),
            (
                "1vNabc-000aBc-De <= CALLER@myhost.test.ex H=hostname [5.6.7.8] U=ident P=protocol A=authname:authid:authsender S=1",
                Sender::User("authid"),
            ),
            // Strangers who pretend to be authenticated.
            (
                "1vNabc-000aBc-De <= \"x A=plain:anna S=1\"@b.example H=c [192.0.2.1] P=esmtp S=1",
                address("192.0.2.1"),
            ),
            (
                "1vNabc-000aBc-De <= \"x\\\" A=plain:anna S=1\"@b.example H=c [192.0.2.1] X=TLS1.3:x DN=\"CN=x A=plain:anna\" S=1",
                address("192.0.2.1"),
            ),
            (
                "1vNabc-000aBc-De <= a@b.example H=c [192.0.2.1] P=esmtp S=1 id=x A=plain:anna",
                address("192.0.2.1"),
            ),
        ] {
            let Ok(Some(Record::Begun { sender: found, .. })) = read(text, &Rules::default()) else {
                panic!("{text}: {:?}", read(text, &Rules::default()))
            };
            assert_eq!(found, sender, "{text}");
        }
    }

    #[test]
    fn refusals() {
        for (text, sender, recipient, outcome) in [
            (
                "H=(laptop) [192.0.2.1] X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=no F=<anna@example.org> A=plain_server:anna rejected RCPT \
                 <x@example.org>: Unrouteable address",
                Sender::User("anna"),
                "x@example.org",
                YES,
            ),
            (
                "[77] H=c.example (c) [192.0.2.1]:4711 I=[192.0.2.9]:25 F=<> rejected RCPT <x@example.org>: response to \"RCPT \
                 TO:<x@example.org>\" from mx.example.org [192.0.2.25] was: 550 5.1.1 <x@example.org>: User unknown",
                address("192.0.2.1"),
                "x@example.org",
                YES,
            ),
            (
                "H=c [192.0.2.1] F=<a@b.example> A=login:anna rejected RCPT <x@example.org>: response to \"RCPT TO:<x@example.org>\" from \
                 mx.example.org [192.0.2.25] was: 550-5.7.1 blocked\\n550 5.7.1 by bl.example",
                Sender::User("anna"),
                "x@example.org",
                NO,
            ),
            (
                "H=c [192.0.2.1] F=<a@b.example> rejected RCPT <x@example.org>: relay not permitted",
                address("192.0.2.1"),
                "x@example.org",
                NO,
            ),
            (
                "H=c [192.0.2.1] F=<a@b.example> A=login:anna temporarily rejected RCPT <x@example.org>: Unrouteable address",
                Sender::User("anna"),
                "x@example.org",
                NO,
            ),
            (
                "H=c [192.0.2.1] F=<a@b.example> A=login:anna rejected RCPT <x@example.org>",
                Sender::User("anna"),
                "x@example.org",
                NO,
            ),
            (
                "H=c [192.0.2.1] F=<\" A=plain:anna rejected RCPT <x@y.example>: x\"@b.example> rejected RCPT <\"z z\"@example.org>: Unknown \
                 user",
                address("192.0.2.1"),
                "\"z z\"@example.org",
                YES,
            ),
        ] {
            let expected = Record::Refused { id: None, process: None, sender, recipient, outcome };
            assert_eq!(read(text, &Rules::default()), Ok(Some(expected)), "{text}");
        }
    }

    #[test]
    fn fates() {
        for (text, recipient, outcome, passed_on) in [
            ("=> x <x@example.org> R=localuser T=maildir", "x@example.org", Outcome::Accepted, None),
            (
                "=> x@example.org F=<a@b.example> R=dnslookup T=remote_smtp S=1 H=mx [192.0.2.25] X=TLS1.3:x CV=yes C=\"250 OK id=1vNabd-000aBc-De\" \
                 QT=1s",
                "x@example.org",
                Outcome::Accepted,
                None,
            ),
            (
                "-> y@example.org R=dnslookup T=remote_smtp H=mx [192.0.2.25] C=\"250 OK\"",
                "y@example.org",
                Outcome::Accepted,
                None,
            ),
            (
                "=> x@example.org R=amavis T=amavis H=127.0.0.1 [127.0.0.1]:10024 C=\"250 2.0.0 from MTA: 250 OK id=1vNabd-000aBc-De\"",
                "x@example.org",
                Outcome::Accepted,
                Some("1vNabd-000aBc-De"),
            ),
            (
                "** x@example.org R=dnslookup T=remote_smtp H=mx [192.0.2.25] X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=yes: SMTP error from remote \
                 mail server after RCPT TO:<x@example.org>: 550 5.1.1 <x@example.org>: User unknown",
                "x@example.org",
                YES,
                None,
            ),
            (
                "** x@example.org R=all T=smtp H=127.0.0.1 [127.0.0.1]:PORT_S I=[127.0.0.1]:10001 : SMTP error from remote mail server after \
                 pipelined RCPT TO:<x@example.org>: 550-5.1.1 No\\n550 5.1.1 more",
                "x@example.org",
                YES,
                None,
            ),
            (
                "** x@example.org R=dnslookup T=remote_smtp: SMTP error from remote mail server after RCPT TO:<x@example.org>: host mx \
                 [192.0.2.25]: 550 5.1.1 unknown",
                "x@example.org",
                YES,
                None,
            ),
            (
                "** x@example.org R=all T=smtp H=mx [192.0.2.25]: SMTP error from remote mail server after end of data: 550 5.1.1 User unknown",
                "x@example.org",
                NO,
                None,
            ),
            (
                "** x@example.org R=all T=smtp H=mx [192.0.2.25]: SMTP error from remote mail server after MAIL FROM:<a@b.example>: 550 Don't \
                 like that sender",
                "x@example.org",
                NO,
                None,
            ),
            (
                "** x@example.org R=all T=smtp H=mx [192.0.2.25]: SMTP error from remote mail server after RCPT TO:<x@example.org>: 550 5.7.1 \
                 Blocked",
                "x@example.org",
                NO,
                None,
            ),
            (
                "** x <x@example.org> R=local T=lmtp: LMTP error after RCPT TO:<x@example.org>: 550 5.1.1 <x@example.org> User doesn't exist",
                "x@example.org",
                YES,
                None,
            ),
            ("** x@example.org: Unrouteable address", "x@example.org", YES, None),
            ("** x@example.org : Unrouteable address", "x@example.org", YES, None),
            (
                "** x@example.org R=fail : unrouteable mail domain \"example.org\" (:fail:)",
                "x@example.org",
                YES,
                None,
            ),
            ("** x@example.org: retry timeout exceeded", "x@example.org", NO, None),
            (
                "** x@example.org R=all T=local: message is too big (transport limit = 50)",
                "x@example.org",
                NO,
                None,
            ),
            // An alias.
            (
                "** y@else.example <x@example.org> R=dnslookup T=smtp: Unrouteable address",
                "x@example.org",
                Outcome::Accepted,
                None,
            ),
            (
                "=> |/bin/x (y@example.org) <x@example.org> R=aliases T=pipe",
                "x@example.org",
                Outcome::Accepted,
                None,
            ),
            ("=> \"a b\"@example.org R=dnslookup T=smtp", "\"a b\"@example.org", Outcome::Accepted, None),
        ] {
            let line = format!("1vNabc-000aBc-De {text}");
            let expected = Record::Settled { id: "1vNabc-000aBc-De", recipient, outcome, passed_on };
            assert_eq!(read(&line, &Rules::default()), Ok(Some(expected)), "{text}");
        }
    }

    #[test]
    fn the_rest() {
        let id = "1vNabc-000aBc-De";
        for text in ["1vNabc-000aBc-De Completed", "1vNabc-000aBc-De Completed QT=1s"] {
            assert_eq!(read(text, &Rules::default()), Ok(Some(Record::Gone { id })), "{text}");
        }
        for text in [
            "",
            "exim 4.96 daemon started: pid=1, -q30m, listening for SMTP on port 25",
            "1vNabc-000aBc-De == x@example.org R=dnslookup T=smtp defer (-44): SMTP error after RCPT TO:<x@example.org>: 450 later",
            "1vNabc-000aBc-De => :blackhole: R=x",
            "1vNabc-000aBc-De",
            "1vNabc-000aBc-De Message is frozen",
            "H=c [192.0.2.1] F=<a@b.example> rejected MAIL <a@b.example>: no",
            "H=c [192.0.2.1] F=<\"rejected RCPT <x@y.example>\"@b.example> incomplete transaction",
            "no MAIL in SMTP connection from (c) [127.0.0.1] D=1s A=plain:anna",
        ] {
            assert_eq!(read(text, &Rules::default()), Ok(None), "{text}");
        }
        for text in [
            "1vNabc-000aBc-De <= a@b.example H=c [192.0.2.1] P=es",
            "1vNabc-000aBc-De ** x@example.org R=dnslookup T=smtp",
            "1vNabc-000aBc-De =>  ",
            "H=c [192.0.2.1] F=<a@b.example> rejected RCPT ",
        ] {
            assert_eq!(read(text, &Rules::default()), Err(Broken), "{text}");
        }
    }
}
