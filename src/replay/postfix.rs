//! Postfix's log lines, after `postfix/smtpd[123]: `.
//!
//! The forms are those of smtpd.c (`client=`), smtpd_check.c (`log_whatsup`) and log_adhoc.c, 2.x to 3.12. The
//! authenticated user is only in `client=` and, since 3.10, in refusals. Text that strangers choose (HELO, addresses)
//! comes before it in angle brackets and must not be taken for it.

use std::borrow::Cow;
use std::net::IpAddr;

use super::record::{Broken, Record, Said, Sender, reply};
use crate::guard::classify::{Outcome, Rules, classify};
use crate::smtp::{Enhanced, Reply};

/// Reads a line of smtpd.
pub(super) fn smtpd<'a>(process: u32, text: &'a str, rules: &Rules) -> Said<'a> {
    if text.starts_with("connect from ") {
        return Ok(Some(Record::Connected { process }));
    }
    if text.starts_with("disconnect from ") {
        return Ok(Some(Record::Disconnected { process, authenticated: has_authenticated(text) }));
    }
    let Some((id, rest)) = text.split_once(": ") else { return Ok(None) };
    let id = match id {
        "NOQUEUE" => None,
        id if is_queue_id(id) => Some(id),
        _ => return Ok(None),
    };
    if let Some(rest) = rest.strip_prefix("client=") {
        return begun(id, process, rest).map(Some);
    }
    let refused =
        ["reject: RCPT from ", "milter-reject: RCPT from "].iter().find_map(|begin| rest.strip_prefix(begin));
    refused.map(|rest| refusal(id, process, rest, rules).ok_or(Broken)).transpose()
}

/// Reads a line of another program.
pub(super) fn other<'a>(text: &'a str, rules: &Rules) -> Said<'a> {
    let Some((id, rest)) = text.split_once(": ") else { return Ok(None) };
    if !is_queue_id(id) {
        return Ok(None);
    }
    if rest == "removed" {
        return Ok(Some(Record::Gone { id }));
    }
    match rest.strip_prefix("to=<") {
        Some(rest) => settled(id, rest, rules),
        None => Ok(None),
    }
}

/// Reads `ehlo=2 starttls=1 auth=1 mail=1 rcpt=0/5 quit=1`, written since 3.0: successful commands, of all of them. XCLIENT
/// says nothing: with or without a login it is written as `xclient=0/1`.
fn has_authenticated(text: &str) -> bool {
    let succeeded = |word: &str| word.strip_prefix("auth=").is_some_and(|n| !n.starts_with('0'));
    text.split(' ').any(succeeded)
}

/// Hexadecimal, or with enable_long_queue_ids nearly all letters and digits.
fn is_queue_id(text: &str) -> bool {
    (5..=32).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_alphanumeric())
}

/// Reads `host[192.0.2.1], sasl_method=PLAIN, sasl_username=anna, orig_queue_id=..., orig_client=...`.
fn begun<'a>(id: Option<&'a str>, process: u32, text: &'a str) -> Result<Record<'a>, Broken> {
    let (client, more) = text.split_once(", ").unwrap_or((text, ""));
    let field = |name: &str| {
        let value = more
            .strip_prefix(name)
            .or_else(|| more.split_once(&format!(", {name}")).map(|(_, value)| value))?;
        let ends = [", sasl_sender=", ", orig_queue_id=", ", orig_client="];
        let end = ends.iter().filter_map(|end| value.find(end)).min().unwrap_or(value.len());
        value.get(..end)
    };
    let sender = match field("sasl_username=") {
        Some(name) => Sender::User(name),
        None if more.starts_with("sasl_method=") => Sender::User(""),
        None => host(client).ok_or(Broken)?,
    };
    Ok(Record::Begun {
        id,
        process: Some(process),
        sender,
        before: field("orig_queue_id=").filter(|id| is_queue_id(id)),
    })
}

/// Reads `name[192.0.2.1]` or `name[192.0.2.1]:4711`; it may be `unknown[unknown]`.
fn host(client: &str) -> Option<Sender<'_>> {
    let (_, address) = client.split_once('[')?;
    let (address, _) = address.split_once(']')?;
    let address = address.strip_prefix("IPv6:").unwrap_or(address);
    Some(address.parse::<IpAddr>().map_or(Sender::Untold, |address| Sender::Host(address.to_canonical())))
}

/// Reads `host[192.0.2.1]: 550 5.1.1 <x@y>: text; from=<a@b> to=<x@y> proto=ESMTP helo=<c> sasl_method=PLAIN
/// sasl_username=anna`.
fn refusal<'a>(id: Option<&'a str>, process: u32, text: &'a str, rules: &Rules) -> Option<Record<'a>> {
    // A HELO ends with a bracket, and the authenticated user comes after it.
    let mut sender = None;
    let mut text = text;
    if !text.ends_with('>')
        && let Some((before, sasl)) = text.rsplit_once(" sasl_method=")
    {
        let name = sasl.split_once(" sasl_username=").map(|(_, name)| name);
        sender =
            Some(Sender::User(name.map_or("", |name| name.split(" sasl_sender=").next().unwrap_or(name))));
        text = before;
    }
    let client_end = text.find(']')? + 1;
    let (client, rest) = text.split_at(client_end);
    let (_port, rest) = rest.split_once(": ")?;
    let (said, envelope) = rest.split_once("; from=<")?;
    let (_, recipient) = envelope.split_once("> to=<")?;
    let end = recipient.find("> proto=").or_else(|| recipient.find("> helo=")).or(recipient.rfind('>'))?;
    Some(Record::Refused {
        id,
        process: Some(process),
        sender: sender.or_else(|| host(client))?,
        recipient: &recipient[..end],
        outcome: classify(&reply(said)?, rules),
    })
}

/// Reads `x@y>, orig_to=<z>, relay=mx[192.0.2.1]:25, delay=1, delays=1/0/0/0, dsn=5.1.1, status=bounced (host ... said:
/// ...)`.
fn settled<'a>(id: &'a str, text: &'a str, rules: &Rules) -> Said<'a> {
    let (to, rest) = text.split_once(">, ").ok_or(Broken)?;
    let (orig_to, rest) = match rest.strip_prefix("orig_to=<") {
        Some(rest) => rest.split_once(">, ").map(|(orig_to, rest)| (Some(orig_to), rest)).ok_or(Broken)?,
        None => (None, rest),
    };
    let (fields, status) = rest.split_once(", status=").ok_or(Broken)?;
    let (status, said) = status.split_once(' ').unwrap_or((status, ""));
    let said = said.strip_prefix('(').unwrap_or(said);
    let said = said.strip_suffix(')').unwrap_or(said);
    let outcome = match status {
        "sent" => Outcome::Accepted,
        "bounced" => bounced(fields, said, rules),
        // Undecided, or a probe of address verification, which no client sent.
        "deferred" | "deliverable" | "undeliverable" | "expired" => return Ok(None),
        _ => return Err(Broken),
    };
    let relay = fields.strip_prefix("relay=").unwrap_or_default();
    let within = ["127.", "::1]"]
        .iter()
        .any(|local| relay.split_once('[').is_some_and(|(_, at)| at.starts_with(local)));
    let passed_on = said.rsplit_once("queued as ").map(|(_, id)| id).filter(|id| within && is_queue_id(id));
    let (recipient, outcome) = match orig_to {
        // The client named an alias, which exists, whatever happened to its targets.
        Some(alias) if !same_local_part(alias, to) => (alias, Outcome::Accepted),
        _ => (to, outcome),
    };
    Ok(Some(Record::Settled { id, recipient, outcome, passed_on }))
}

fn same_local_part(one: &str, other: &str) -> bool {
    let local_part = |address: &str| address.rsplit_once('@').map_or(address.len(), |(local, _)| local.len());
    one[..local_part(one)].eq_ignore_ascii_case(&other[..local_part(other)])
}

/// What the reply to RCPT would have been, had Postfix verified the recipient.
fn bounced(fields: &str, said: &str, rules: &Rules) -> Outcome {
    let enhanced = fields.rsplit_once("dsn=").and_then(|(_, dsn)| dsn.parse::<Enhanced>().ok());
    let judge = |text: String| classify(&Reply { code: 550, enhanced, text: Cow::Owned(text) }, rules);
    // The form in which smtpd reports a finding of verify.
    let verified = judge(format!("Recipient address rejected: undeliverable address: {said}"));
    if verified == Outcome::NoSuchRecipient || said.contains(" said: ") {
        return verified;
    }
    judge(format!("Recipient address rejected: {said}"))
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
        for (text, id, sender, before) in [
            ("4F9D195432C: client=localhost[127.0.0.1]", Some("4F9D195432C"), address("127.0.0.1"), None),
            (
                "4F9D195432C: client=mail.example[2001:db8::1]:4711",
                Some("4F9D195432C"),
                address("2001:db8::1"),
                None,
            ),
            ("4F9D195432C: client=a[::ffff:192.0.2.1]", Some("4F9D195432C"), address("192.0.2.1"), None),
            ("4F9D195432C: client=unknown[unknown]", Some("4F9D195432C"), Sender::Untold, None),
            (
                "4dwmTV0Zj2z1xyz: client=c[192.0.2.1], sasl_method=PLAIN, sasl_username=anna@example.org",
                Some("4dwmTV0Zj2z1xyz"),
                Sender::User("anna@example.org"),
                None,
            ),
            (
                "4F9D195432C: client=c[192.0.2.1], sasl_method=LOGIN, sasl_username=anna, sasl_sender=b@example.org",
                Some("4F9D195432C"),
                Sender::User("anna"),
                None,
            ),
            (
                "4F9D195432C: client=localhost[127.0.0.1], orig_queue_id=B9D195432C, orig_client=c[192.0.2.1]",
                Some("4F9D195432C"),
                address("127.0.0.1"),
                Some("B9D195432C"),
            ),
            (
                "4F9D195432C: client=c[192.0.2.1], sasl_method=EXTERNAL",
                Some("4F9D195432C"),
                Sender::User(""),
                None,
            ),
            (
                "NOQUEUE: client=c[192.0.2.1], sasl_method=PLAIN, sasl_username=anna",
                None,
                Sender::User("anna"),
                None,
            ),
        ] {
            let expected = Record::Begun { id, process: Some(7), sender, before };
            assert_eq!(smtpd(7, text, &Rules::default()), Ok(Some(expected)), "{text}");
        }
    }

    #[test]
    fn refusals() {
        for (text, id, sender, recipient, outcome) in [
            (
                "NOQUEUE: reject: RCPT from c.example[192.0.2.1]: 550 5.1.1 <x@example.org>: Recipient address rejected: User unknown in local \
                 recipient table; from=<a@example.org> to=<x@example.org> proto=ESMTP helo=<c.example>",
                None,
                address("192.0.2.1"),
                "x@example.org",
                YES,
            ),
            (
                "4F9D195432C: reject: RCPT from c[2001:db8::1]:4711: 550 5.1.1 <x@example.org>: Recipient address rejected: undeliverable \
                 address: host mx.example.org[192.0.2.25] said: 550 5.7.1 blocked using bl.example (in reply to RCPT TO command); \
                 from=<a@example.org> to=<x@example.org> proto=ESMTP helo=<c>",
                Some("4F9D195432C"),
                address("2001:db8::1"),
                "x@example.org",
                NO,
            ),
            // Since 3.10.
            (
                "NOQUEUE: reject: RCPT from c[192.0.2.1]: 450 4.1.1 <x@example.org>: Recipient address rejected: unverified address: host \
                 mx[192.0.2.25] said: 550 5.1.1 User unknown (in reply to RCPT TO command); from=<> to=<x@example.org> proto=ESMTP \
                 helo=<c> sasl_method=PLAIN sasl_username=anna",
                None,
                Sender::User("anna"),
                "x@example.org",
                YES,
            ),
            (
                "NOQUEUE: reject: RCPT from c[192.0.2.1]: 450 4.2.0 <x@example.org>: Recipient address rejected: Greylisted; from=<a@b.example> \
                 to=<x@example.org> proto=ESMTP helo=<c> sasl_method=PLAIN sasl_username=anna sasl_sender=b",
                None,
                Sender::User("anna"),
                "x@example.org",
                NO,
            ),
            // A stranger who pretends to be authenticated.
            (
                "NOQUEUE: reject: RCPT from c[192.0.2.1]: 550 5.1.1 <x@example.org>: Recipient address rejected: User unknown in local \
                 recipient table; from=<a@b.example> to=<x@example.org> proto=ESMTP helo=<c> sasl_method=PLAIN sasl_username=anna>",
                None,
                address("192.0.2.1"),
                "x@example.org",
                YES,
            ),
            (
                "4F9D195432C: milter-reject: RCPT from c[192.0.2.1]: 550 5.7.1 Command rejected; from=<a@b.example> to=<x@example.org> \
                 proto=SMTP",
                Some("4F9D195432C"),
                address("192.0.2.1"),
                "x@example.org",
                NO,
            ),
        ] {
            let expected = Record::Refused { id, process: Some(7), sender, recipient, outcome };
            assert_eq!(smtpd(7, text, &Rules::default()), Ok(Some(expected)), "{text}");
        }
    }

    #[test]
    fn fates() {
        let at_a_server = "delay=1.2, delays=0.1/0/0.5/0.6";
        for (text, recipient, outcome, passed_on) in [
            (
                format!(
                    "4F9D195432C: to=<x@example.org>, relay=mx[192.0.2.25]:25, {at_a_server}, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as \
                     B9D195432C)"
                ),
                "x@example.org",
                Outcome::Accepted,
                None,
            ),
            (
                format!(
                    "4F9D195432C: to=<x@example.org>, relay=127.0.0.1[127.0.0.1]:10024, conn_use=2, {at_a_server}, dsn=2.0.0, status=sent \
                     (250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as B9D195432C)"
                ),
                "x@example.org",
                Outcome::Accepted,
                Some("B9D195432C"),
            ),
            (
                format!(
                    "4F9D195432C: to=<x@example.org>, relay=mx[192.0.2.25]:25, {at_a_server}, dsn=5.1.1, status=bounced (host \
                     mx[192.0.2.25] said: 550 5.1.1 <x@example.org>: Recipient address rejected: User unknown (in reply to RCPT TO command))"
                ),
                "x@example.org",
                YES,
                None,
            ),
            (
                format!(
                    "4F9D195432C: to=<x@gmail.example>, relay=mx[192.0.2.25]:25, {at_a_server}, dsn=5.1.1, status=bounced (host mx[192.0.2.25] \
                     said: 550-5.1.1 The email account that you tried to reach does not exist. Please try 550-5.1.1 double-checking the \
                     address 550 5.1.1 https://support.example/ d2si1 - gsmtp (in reply to RCPT TO command))"
                ),
                "x@gmail.example",
                YES,
                None,
            ),
            (
                format!(
                    "4F9D195432C: to=<x@example.org>, relay=mx[192.0.2.25]:25, {at_a_server}, dsn=5.1.1, status=bounced (host mx[192.0.2.25] \
                     said: 550 5.1.1 no (in reply to end of DATA command))"
                ),
                "x@example.org",
                NO,
                None,
            ),
            (
                format!(
                    "4F9D195432C: to=<x@example.org>, relay=mx[192.0.2.25]:25, {at_a_server}, dsn=5.7.1, status=bounced (host mx[192.0.2.25] \
                     said: 554 5.7.1 Service unavailable; Client host blocked (in reply to RCPT TO command))"
                ),
                "x@example.org",
                NO,
                None,
            ),
            (
                format!(
                    "4F9D195432C: to=<x@mta.example>, relay=local, {at_a_server}, dsn=5.1.1, status=bounced (unknown user: \"x\")"
                ),
                "x@mta.example",
                YES,
                None,
            ),
            (
                format!(
                    "4F9D195432C: to=<x@example.org>, relay=none, {at_a_server}, dsn=5.1.1, status=bounced (User unknown in virtual mailbox \
                     table)"
                ),
                "x@example.org",
                YES,
                None,
            ),
            (
                format!(
                    "4F9D195432C: to=<x@example.org>, relay=dovecot, {at_a_server}, dsn=5.1.1, status=bounced (user unknown)"
                ),
                "x@example.org",
                YES,
                None,
            ),
            (
                format!(
                    "4F9D195432C: to=<x@nowhere.example>, relay=none, {at_a_server}, dsn=5.4.4, status=bounced (Host or domain name not \
                     found. Name service error for name=nowhere.example type=AAAA: Host not found)"
                ),
                "x@nowhere.example",
                YES,
                None,
            ),
            (
                format!(
                    "4F9D195432C: to=<x@here.example>, relay=none, {at_a_server}, dsn=5.4.6, status=bounced (mail for here.example loops back \
                     to myself)"
                ),
                "x@here.example",
                NO,
                None,
            ),
            // An alias, and the same one with its domain.
            (
                format!(
                    "4F9D195432C: to=<x@else.example>, orig_to=<all@example.org>, relay=mx[192.0.2.25]:25, {at_a_server}, dsn=5.1.1, \
                     status=bounced (host mx[192.0.2.25] said: 550 5.1.1 no (in reply to RCPT TO command))"
                ),
                "all@example.org",
                Outcome::Accepted,
                None,
            ),
            (
                format!(
                    "4F9D195432C: to=<x@mta.example>, orig_to=<x>, relay=local, {at_a_server}, dsn=5.1.1, status=bounced (unknown user: \"x\")"
                ),
                "x@mta.example",
                YES,
                None,
            ),
        ] {
            let expected = Record::Settled { id: "4F9D195432C", recipient, outcome, passed_on };
            assert_eq!(other(&text, &Rules::default()), Ok(Some(expected)), "{text}");
        }
    }

    #[test]
    fn the_rest() {
        assert_eq!(
            smtpd(7, "connect from c[192.0.2.1]", &Rules::default()),
            Ok(Some(Record::Connected { process: 7 }))
        );
        for (counts, authenticated) in [
            ("ehlo=1 quit=1", false),
            ("ehlo=2 auth=1 rcpt=0/1", true),
            ("ehlo=2 auth=0/3", false),
            ("ehlo=2 xclient=0/1 mail=1 rcpt=0/2", false),
        ] {
            let expected = Record::Disconnected { process: 7, authenticated };
            assert_eq!(
                smtpd(7, &format!("disconnect from c[192.0.2.1] {counts}"), &Rules::default()),
                Ok(Some(expected)),
                "{counts}"
            );
        }
        assert_eq!(
            other("4F9D195432C: removed", &Rules::default()),
            Ok(Some(Record::Gone { id: "4F9D195432C" }))
        );
        for text in [
            "warning: c[192.0.2.1]: SASL PLAIN authentication failed: ",
            "NOQUEUE: reject: MAIL from c[192.0.2.1]: 550 5.1.1 x; from=<a@b.example> to=<x@example.org>",
            "NOQUEUE: reject_warning: RCPT from c[192.0.2.1]: 550 5.1.1 x; from=<a@b.example> to=<x@example.org>",
            "NOQUEUE: reject: CONNECT from c[192.0.2.1]: 554 5.7.1 x; proto=SMTP",
            "lost connection after RCPT from c[192.0.2.1]",
        ] {
            assert_eq!(smtpd(7, text, &Rules::default()), Ok(None), "{text}");
        }
        for text in [
            "4F9D195432C: from=<a@b.example>, size=1, nrcpt=1 (queue active)",
            "4F9D195432C: message-id=<x>",
            "4F9D195432C: to=<x@y.example>, relay=none, delay=1, delays=1, dsn=4.4.1, status=deferred (connect to mx[192.0.2.25]:25: timed out)",
            "4F9D195432C: to=<x@y.example>, relay=none, delay=1, delays=1, dsn=5.1.1, status=undeliverable (unknown user: \"x\")",
            "statistics: max connection rate 1/60s",
        ] {
            assert_eq!(other(text, &Rules::default()), Ok(None), "{text}");
        }
        for text in [
            "4F9D195432C: to=<x@y.example>, relay=mx[192.0.2.25]:25, delay=1",
            "4F9D195432C: to=<x@y.ex",
            "4F9D195432C: to=<x@y.example>, orig_to=<z",
        ] {
            assert_eq!(other(text, &Rules::default()), Err(Broken), "{text}");
        }
        for text in [
            "4F9D195432C: client=c[192.0.",
            "NOQUEUE: reject: RCPT from c[192.0.2.1]: 550 5.1.1 x; from=<a@b.example> to=<x",
        ] {
            assert_eq!(smtpd(7, text, &Rules::default()), Err(Broken), "{text}");
        }
    }
}
