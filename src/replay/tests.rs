//! Whole logs: to which account each recipient is attributed, and what happens to invalid lines.

use std::collections::BTreeMap;
use std::time::Duration;

use super::attribution::{Attribution, LeftOut};
use super::calendar::Calendar;
use super::log::{Log, Replay};
use super::report::{Reading, Report};
use super::trial::{Grid, Trial};
use super::{head, say};
use crate::clock::Timestamp;
use crate::guard::classify::{Outcome, Rules};
use crate::guard::window::{Count, Key};

fn latest() -> Timestamp {
    Timestamp::parse_rfc3339("2026-11-28T00:00:00Z").unwrap()
}

/// To which accounts the recipients `a@x.example` to `z@x.example` are attributed: `anna: a+ b-`, in the order in which
/// that becomes known.
fn attributed(log: &str, relay_hosts: &[&str]) -> (Vec<String>, LeftOut) {
    let mut attribution =
        Attribution::new(relay_hosts.iter().map(|network| network.parse().unwrap()).collect());
    let mut calendar = Calendar::new(latest());
    let mut found: Vec<(String, String)> = Vec::new();
    for line in log.lines() {
        let head = head::read(line, &mut calendar).unwrap_or_else(|| panic!("{line}"));
        let Some(record) =
            say(head.program, &line[head.rest..], &Rules::default()).unwrap_or_else(|_| panic!("{line}"))
        else {
            continue;
        };
        attribution.take(head.at, &line[head.host.clone()], record, |attempt| {
            let name = ('a'..='z')
                .find(|c| Key::of(format!("{c}@x.example").as_bytes()) == attempt.key)
                .unwrap_or('?');
            assert!(attempt.domain == Some(Key::of_domain("x.example")) || name == '?');
            let sign = match attempt.outcome {
                Outcome::Accepted => '+',
                Outcome::NoSuchRecipient => '-',
                Outcome::OtherRefusal => '.',
            };
            let account = attempt.account.to_string();
            match found.last_mut() {
                Some((last, list)) if *last == account => list.push_str(&format!(" {name}{sign}")),
                _ => found.push((account, format!("{name}{sign}"))),
            }
        });
    }
    let lines = found.into_iter().map(|(account, list)| format!("{account}: {list}")).collect();
    (lines, attribution.left_out())
}

/// Postfix's part of a line.
fn postfix(lines: &str) -> String {
    lines.lines().map(|line| format!("Nov 24 16:05:28 mx postfix/{}\n", line.trim())).collect()
}

const SENT: &str =
    "relay=mx.x.example[198.51.100.7]:25, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 Ok)";
const BOUNCED: &str = "relay=mx.x.example[198.51.100.7]:25, delay=1, delays=1/0/0/0, dsn=5.1.1, status=bounced (host \
                       mx.x.example[198.51.100.7] said: 550 5.1.1 User unknown (in reply to RCPT TO command))";

#[test]
fn by_queue_id() {
    let log = postfix(&format!(
        "smtpd[1]: 4F9D1: client=c[192.0.2.1], sasl_method=PLAIN, sasl_username=Anna
         smtpd[2]: 4F9D2: client=d[192.0.2.2], sasl_method=PLAIN, sasl_username=bob
         smtp[9]: 4F9D2: to=<a@x.example>, {SENT}
         smtp[9]: 4F9D1: to=<b@x.example>, {BOUNCED}
         smtp[9]: 4F9D1: to=<C@X.example>, {SENT}
         qmgr[8]: 4F9D1: removed
         smtp[9]: 4F9D2: to=<d@x.example>, {BOUNCED}
         smtp[9]: 4F9D1: to=<e@x.example>, {BOUNCED}
         smtpd[3]: 4F9D1: client=mx.else.example[203.0.113.9]
         smtp[9]: 4F9D1: to=<f@x.example>, {BOUNCED}
         smtpd[3]: 4F9D3: client=printer[192.168.7.20]
         smtp[9]: 4F9D3: to=<g@x.example>, {BOUNCED}"
    ));
    let (lines, left_out) = attributed(&log, &["192.168.0.0/16"]);
    assert_eq!(lines, ["user:bob: a+", "user:anna: b- c+", "user:bob: d-", "host:192.168.7.20: g-"]);
    assert_eq!(left_out, LeftOut { inbound: 1, unknown_message: 1, ..LeftOut::default() });
    // The same id on another machine is another message.
    let two = postfix("smtpd[1]: 4F9D1: client=c[192.0.2.1], sasl_method=PLAIN, sasl_username=anna")
        + &postfix(&format!("smtp[9]: 4F9D1: to=<b@x.example>, {BOUNCED}")).replace(" mx ", " my ");
    assert_eq!(attributed(&two, &[]).0, Vec::<String>::new());
}

/// They are nobody's attempts.
#[test]
fn what_check_asked_about_is_left_out() {
    let nobody = format!("gatepost-check-{}@x.example", "0f".repeat(16));
    let log = postfix(&format!(
        "smtpd[1]: NOQUEUE: reject: RCPT from h[192.168.7.20]: 550 5.1.1 <{nobody}>: Recipient address rejected: User unknown in \
         local recipient table; from=<> to=<{nobody}> proto=ESMTP helo=<c>
         smtpd[1]: NOQUEUE: reject: RCPT from h[192.168.7.20]: 550 5.1.1 <a@x.example>: Recipient address rejected: User unknown \
         in local recipient table; from=<> to=<a@x.example> proto=ESMTP helo=<c>"
    ));
    assert_eq!(attributed(&log, &["192.168.0.0/16"]).0, ["host:192.168.7.20: a-"]);
}

#[test]
fn by_session() {
    let refused = |recipient: char, id: &str| {
        let client = if recipient == 'b' { "d[192.0.2.2]" } else { "c[192.0.2.1]" };
        format!(
            "{id}: reject: RCPT from {client}: 550 5.1.1 <{recipient}@x.example>: Recipient address rejected: User unknown in local \
             recipient table; from=<a@b.example> to=<{recipient}@x.example> proto=ESMTP helo=<c>"
        )
    };
    // Refusals before the first accepted recipient are logged without the name.
    let log = postfix(&format!(
        "smtpd[1]: connect from c[192.0.2.1]
         smtpd[2]: connect from d[192.0.2.2]
         smtpd[1]: {}
         smtpd[2]: {}
         smtpd[1]: 4F9D1: client=c[192.0.2.1], sasl_method=PLAIN, sasl_username=anna
         smtpd[1]: {}
         smtpd[1]: {}
         smtpd[1]: disconnect from c[192.0.2.1] ehlo=2 auth=1
         smtpd[2]: disconnect from d[192.0.2.2] ehlo=1
         smtpd[1]: connect from c[192.0.2.1]
         smtpd[1]: {}
         smtpd[1]: disconnect from c[192.0.2.1] ehlo=2 auth=1 rcpt=0/1",
        refused('a', "NOQUEUE"),
        refused('b', "NOQUEUE"),
        refused('c', "4F9D1"),
        refused('d', "NOQUEUE"),
        refused('e', "NOQUEUE"),
    ));
    let (lines, left_out) = attributed(&log, &[]);
    assert_eq!(lines, ["user:anna: a- c- d-"]);
    assert_eq!(left_out, LeftOut { inbound: 1, unnamed: 1, ..LeftOut::default() });
    // A relay host is identified by its address, unless it authenticates.
    let (lines, left_out) = attributed(&log, &["192.0.2.0/24"]);
    assert_eq!(lines, ["user:anna: a- c- d-", "host:192.0.2.2: b-"]);
    assert_eq!(left_out, LeftOut { unnamed: 1, ..LeftOut::default() });
}

#[test]
fn through_a_filter() {
    let into = "relay=127.0.0.1[127.0.0.1]:10024, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 from \
                MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 4F9D2)";
    for announced in ["", ", orig_queue_id=4F9D1, orig_client=c[192.0.2.1]"] {
        let log = postfix(&format!(
            "smtpd[1]: 4F9D1: client=c[192.0.2.1], sasl_method=PLAIN, sasl_username=anna
             smtpd[2]: 4F9D2: client=localhost[127.0.0.1]{announced}
             smtp[9]: 4F9D1: to=<a@x.example>, {into}
             smtp[9]: 4F9D1: to=<b@x.example>, {into}
             qmgr[8]: 4F9D1: removed
             smtp[9]: 4F9D2: to=<a@x.example>, {SENT}
             smtp[9]: 4F9D2: to=<b@x.example>, {BOUNCED}"
        ));
        let (lines, left_out) = attributed(&log, &[]);
        assert_eq!(
            (lines, left_out),
            (vec!["user:anna: a+ b-".to_owned()], LeftOut::default()),
            "{announced}"
        );
    }
}

#[test]
fn exims() {
    let log = "\
        2026-11-24 16:05:28 1vNabc-000aBc-De <= anna@b.example H=(c) [192.0.2.1] P=esmtpsa A=plain_server:anna S=1234\n\
        2026-11-24 16:05:28 1vNabd-000aBc-De <= x@else.example H=mx.else.example [203.0.113.9] P=esmtps S=1234\n\
        2026-11-24 16:05:28 1vNabe-000aBc-De <= root@b.example U=root P=local S=1234\n\
        2026-11-24 16:05:29 H=(c) [192.0.2.1] F=<anna@b.example> A=plain_server:anna rejected RCPT <a@x.example>: Unrouteable address\n\
        2026-11-24 16:05:29 H=mx.else.example [203.0.113.9] F=<x@else.example> rejected RCPT <b@x.example>: Unrouteable address\n\
        2026-11-24 16:05:29 1vNabc-000aBc-De => c@x.example R=dnslookup T=remote_smtp H=mx [198.51.100.7] C=\"250 OK\"\n\
        2026-11-24 16:05:29 1vNabc-000aBc-De -> d@x.example R=dnslookup T=remote_smtp H=mx [198.51.100.7] C=\"250 OK\"\n\
        2026-11-24 16:05:29 1vNabc-000aBc-De ** e@x.example R=dnslookup T=remote_smtp H=mx [198.51.100.7]: SMTP error from remote mail \
        server after RCPT TO:<e@x.example>: 550 5.1.1 User unknown\n\
        2026-11-24 16:05:29 1vNabd-000aBc-De => f@x.example R=local T=maildir\n\
        2026-11-24 16:05:29 1vNabe-000aBc-De ** g@x.example: Unrouteable address\n\
        2026-11-24 16:05:30 1vNabc-000aBc-De Completed\n\
        2026-11-24 16:05:30 1vNabc-000aBc-De => h@x.example R=local T=maildir\n";
    let (lines, left_out) = attributed(log, &[]);
    assert_eq!(lines, ["user:anna: a- c+ d+ e-"]);
    assert_eq!(left_out, LeftOut { inbound: 2, local: 1, unknown_message: 1, unnamed: 0 });
}

#[test]
fn gateposts() {
    let line = |message: &str, rest: &str| {
        format!("2026-11-24T16:05:28.123456Z  INFO {message} session=01ABC account=user:anna {rest}\n")
    };
    let blocked = "account blocked: it reached the limit of invalid recipients";
    let log = [
        line("recipient refused", "recipient=\"a@x.example\" reply=550 5.1.1 no"),
        line("invalid recipient", "recipient=\"a@x.example\" count=1 limit=3"),
        // One that the upstream was not asked about, and one that [[classify]] made invalid.
        line("invalid recipient", "recipient=\"b@x.example\" count=2 limit=3"),
        line("recipient refused", "recipient=\"c@x.example\" reply=550 5.2.1 disabled"),
        line("invalid recipient", "recipient=\"c@x.example\" count=3 limit=3"),
        line(
            "message relayed",
            "sender=\"anna@b.example\" accepted=\"d@x.example,e@x.example\" refused=\"a@x.example\" size=1 reply=250 Ok",
        ),
        line("recipient refused", "recipient=\"f@x.example\" reply=550 5.1.1 no"),
        line(blocked, "recipient=\"f@x.example\" limit=4"),
        line("message parked", "accepted=\"g@x.example\" size=1 why=\"the account is blocked\""),
    ];
    let (lines, _) = attributed(&log.concat(), &[]);
    assert_eq!(lines, ["user:anna: a- b- c. c- d+ e+ f-"]);
    // At level debug each accepted recipient has a line, and is not counted twice.
    let detailed = line("recipient accepted", "recipient=\"d@x.example\" reply=250 2.1.5 Ok") + &log[5];
    assert_eq!(attributed(&detailed, &[]).0, ["user:anna: d+"]);
}

fn trial() -> Trial {
    Trial::new(
        Grid {
            limits: vec![1],
            period: Duration::from_secs(3_600),
            count: Count::Distinct,
            usual_shares: vec![0.05],
            thief_share: 0.30,
            threshold: 12.0,
            delay: Duration::from_secs(1_800),
        },
        None,
    )
}

fn replay(
    logs: &[&[u8]],
    since: Option<&str>,
    until: Option<&str>,
) -> (BTreeMap<String, (u64, u64)>, Reading) {
    let time = |text: Option<&str>| text.map(|text| Timestamp::parse_rfc3339(text).unwrap());
    let mut replay =
        Replay::new(Rules::default(), Attribution::new(Vec::new()), trial(), time(since), time(until));
    let mut logs: Vec<_> = logs.iter().map(|log| Log::new(*log, latest())).collect();
    replay.read(&mut logs, |place, error| panic!("{place}: {error}"), |_| ());
    let (trial, reading, _) = replay.finish();
    let accounts = trial
        .tallies()
        .map(|(account, tally)| (account.to_string(), (tally.accepted, tally.invalid)))
        .collect();
    let report = Report::of(&trial, reading.clone(), LeftOut::default(), None);
    assert!(serde_json::to_string(&report).unwrap().starts_with("{\"lines\":"));
    (accounts, reading)
}

/// Invalid lines are counted and skipped, wherever they are.
#[test]
fn dirty_lines() {
    let begun = postfix("smtpd[1]: 4F9D1: client=c[192.0.2.1], sasl_method=PLAIN, sasl_username=anna");
    let sent = postfix(&format!("smtp[9]: 4F9D1: to=<a@x.example>, {SENT}"));
    let bounced = postfix(&format!("smtp[9]: 4F9D1: to=<b@x.example>, {BOUNCED}"));
    let dirt: &[&[u8]] = &[
        b"Nov 24 16:05:28 mx postfix/smtp[9]: 4F9D1: to=<\xff@x.example>, relay=none\n",
        b"\x00\x01\x02\n",
        b"Nov 24 16:05:28 mx postfix/smtp[9]: 4F9D1: to=<b@x.exam\n",
        b"no time at all\n",
    ];
    let long = [&b"Nov 24 16:05:28 mx postfix/smtp[9]: "[..], &vec![b'x'; 300_000], b"\n"].concat();
    let mut log = begun.clone().into_bytes();
    for dirt in dirt {
        log.extend_from_slice(dirt);
        log.extend_from_slice(sent.as_bytes());
    }
    log.extend_from_slice(&long);
    log.extend_from_slice(b"\n-- Boot 123 --\nNov 24 16:05:28 mx kernel: hello\n");
    // The last line is truncated in the middle of the reason.
    log.extend_from_slice(&bounced.as_bytes()[..bounced.len() - 20]);
    let (accounts, reading) = replay(&[&log], None, None);
    assert_eq!(accounts["user:anna"], (4, 1));
    assert_eq!((reading.lines, reading.used, reading.unreadable), (14, 6, 5));
}

/// Rotated logs in any order, and those of two machines, are read as one.
#[test]
fn several_logs() {
    let at = |time: &str, text: &str| text.replace("16:05:28", time);
    let begun = postfix("smtpd[1]: 4F9D1: client=c[192.0.2.1], sasl_method=PLAIN, sasl_username=anna");
    let sent = postfix(&format!("smtp[9]: 4F9D1: to=<a@x.example>, {SENT}"));
    let first = at("10:00:00", &begun) + &at("10:00:02", &sent);
    let second = at("10:00:04", &sent) + &at("10:00:06", &sent);
    let other =
        (at("10:00:01", &begun) + &at("10:00:05", &sent)).replace(" mx ", " my ").replace("=anna", "=bob");
    let (accounts, reading) =
        replay(&[second.as_bytes(), other.as_bytes(), first.as_bytes(), b""], None, None);
    assert_eq!(accounts["user:anna"], (3, 0));
    assert_eq!(accounts["user:bob"], (1, 0));
    assert_eq!(reading.until.unwrap().since(reading.from.unwrap()), Duration::from_secs(6));
    let (accounts, reading) = replay(
        &[first.as_bytes(), second.as_bytes()],
        Some("2026-11-24T10:00:00Z"),
        Some("2026-11-24T10:00:04Z"),
    );
    assert_eq!((accounts["user:anna"], reading.out_of_time), ((2, 0), 1));
}
