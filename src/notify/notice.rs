//! Notices to the abuse desk: which account, how much, since when, from where, how to look closer, how to undo.
//!
//! Pure: facts to octets. Plain text in words that can be followed at three in the morning. Addresses and replies come
//! from outside and are made safe to print; commands are safe to copy. The text of notices about an account may be the
//! operator's own ([`Template`]).

use std::net::IpAddr;
use std::time::Duration;

use lettre::message::header::{ContentTransferEncoding, ContentType};
use lettre::message::{Body, SinglePart};

use super::digest::Digest;
pub use super::incident::Incident;
use super::incident::{clients, facts, relayed, relayed_lines, sample_lines, samples, time};
use super::letter::{AutoSubmitted, Head, duration, moment, shown};
use super::suspicion::{self, Delay, Spared};
use super::template::{Field, Template};
use crate::account::{Account, Kind};
use crate::clock::Timestamp;
use crate::id::OutboxId;
use crate::visible::shell_word;

/// Sender and recipients of notices.
#[derive(Debug, Clone)]
pub struct Letterhead {
    /// `[notify] from`
    pub from: String,
    /// `[notify] to`
    pub to: Vec<String>,
    /// Our host name.
    pub hostname: String,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Notice {
    /// An account reached its limit and is blocked.
    Blocked(Incident, Fate),
    /// An observed account reached its limit.
    WouldBlock(Incident),
    /// The sequential test raised an alarm, and the account's messages are delayed.
    Delayed(Incident, Delay),
    /// The sequential test raised an alarm, without further consequence.
    Suspected(Incident),
    /// The sequential test raised an alarm for an observed account.
    WouldAlarm(Incident, Spared),
    /// The state of the quarantine.
    Digest(Digest),
    /// 80 % of the quarantine is used.
    QuarantineNearlyFull {
        /// Parked messages.
        messages: u64,
        /// What of them counts towards `max_size`, in octets.
        octets: u64,
        /// `[quarantine] max_size`, in octets.
        max_size: u64,
    },
    /// A login from a new address succeeded after many wrong passwords.
    Guessed {
        /// The account.
        account: Account,
        /// The client's address.
        client: IpAddr,
        /// The number of wrong passwords.
        guesses: usize,
        /// The number of addresses they came from.
        addresses: usize,
        /// The period in which they were counted.
        period: Duration,
    },
    /// A new certificate cannot be used.
    CertificateRefused {
        /// The reason.
        why: String,
    },
    /// A certificate expires soon.
    CertificateExpires {
        /// The certificate file.
        certificate: String,
        /// When it expires.
        not_after: Timestamp,
    },
    /// Counts or blocks cannot be written.
    LedgerTrouble {
        /// The error of the database.
        why: String,
    },
    /// The database was damaged or missing, and has been repaired or replaced.
    LedgerMended {
        /// What was found and done, one sentence per line.
        what: String,
    },
    /// None of the day's first recipients was refused.
    Blind {
        /// Whether these are recipients at foreign domains only, not at the upstream's own.
        foreign: bool,
        /// The number of recipients.
        recipients: u64,
    },
}

/// What a block entails, as configured at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    /// What happens to the account's mail.
    pub withheld: Withheld,
    /// When the block is lifted automatically, if at all.
    pub unblock_after: Option<Duration>,
}

/// `[limit] action`: what happens to a blocked account's mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// Parked silently.
    Parked,
    /// Refused openly.
    Refused,
}

/// The longest line allowed in mail, in octets without CRLF (RFC 5322 2.1.1).
const MAX_LINE: usize = 998;

/// Text without an encoding if possible, since somebody may have to read or search the source.
fn plain(text: String) -> SinglePart {
    if text.is_ascii() && text.lines().all(|line| line.len() <= MAX_LINE) {
        // lettre on its own breaks lines after 76 octets.
        let octets = text.replace('\n', "\r\n").into_bytes();
        let body = Body::dangerous_pre_encoded(octets, ContentTransferEncoding::SevenBit);
        return SinglePart::builder().header(ContentType::TEXT_PLAIN).body(body);
    }
    SinglePart::plain(text)
}

impl Notice {
    /// Writes the whole mail.
    pub fn write(
        &self,
        letterhead: &Letterhead,
        template: Option<&Template>,
        id: OutboxId,
        now: Timestamp,
    ) -> Vec<u8> {
        let own = template.zip(self.incident());
        let value = |incident| move |field| self.value(field, incident, letterhead, now);
        let subject = own.and_then(|(template, incident)| template.subject(value(incident)));
        let text = own.map_or_else(
            || {
                format!(
                    "{}\n-- \nGatepost on {}, {}\n",
                    self.text(),
                    shown(&letterhead.hostname),
                    moment(now)
                )
            },
            |(template, incident)| template.body(value(incident)),
        );
        let head = Head {
            from: &letterhead.from,
            to: &letterhead.to,
            subject: &subject.unwrap_or_else(|| self.subject()),
            id,
            hostname: &letterhead.hostname,
            now,
            auto_submitted: AutoSubmitted::Generated,
        };
        let mut mail = head.fields().to_string().into_bytes();
        mail.extend(plain(text).formatted());
        mail
    }

    /// The incident, if the notice is about an account.
    fn incident(&self) -> Option<&Incident> {
        match self {
            Self::Blocked(incident, _)
            | Self::WouldBlock(incident)
            | Self::Delayed(incident, _)
            | Self::Suspected(incident)
            | Self::WouldAlarm(incident, _) => Some(incident),
            Self::Digest(_)
            | Self::QuarantineNearlyFull { .. }
            | Self::Guessed { .. }
            | Self::CertificateRefused { .. }
            | Self::CertificateExpires { .. }
            | Self::LedgerTrouble { .. }
            | Self::LedgerMended { .. }
            | Self::Blind { .. } => None,
        }
    }

    /// The value of a template's field.
    fn value(&self, field: Field, incident: &Incident, letterhead: &Letterhead, now: Timestamp) -> String {
        match field {
            Field::Event => match self {
                Self::WouldBlock(_) | Self::WouldAlarm(_, Spared::Block) => "would_block",
                Self::WouldAlarm(_, Spared::Probation) => "would_delay",
                Self::Delayed(..) => "probation",
                Self::Suspected(_) => "suspected",
                _ => "blocked",
            }
            .to_owned(),
            Field::Account => shell_word(incident.account.as_str()),
            Field::Count => incident.invalid_recipients.to_string(),
            Field::Limit => incident.limit.to_string(),
            Field::Period => duration(incident.period),
            Field::Reason => shown(incident.reason.as_deref().unwrap_or_default()),
            Field::First => time(incident.first),
            Field::Last => time(incident.last),
            Field::Clients => clients(incident),
            Field::Sessions => incident.sessions.to_string(),
            Field::Samples => sample_lines(incident),
            Field::Relayed => relayed_lines(incident),
            Field::Hostname => shown(&letterhead.hostname),
            Field::Time => moment(now),
            Field::Subject => self.subject(),
            Field::Text => self.text(),
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::Blocked(incident, _) => format!(
                "Blocked: {}, {} invalid recipients within {}",
                incident.account,
                incident.invalid_recipients,
                duration(incident.period)
            ),
            Self::WouldBlock(incident) => {
                format!(
                    "Would have blocked: {}, {} invalid recipients",
                    incident.account, incident.invalid_recipients
                )
            }
            Self::Delayed(incident, _) => format!(
                "On probation: {}, {} invalid recipients within {}",
                incident.account,
                incident.invalid_recipients,
                duration(incident.period)
            ),
            Self::Suspected(incident) => {
                format!("Suspected: {}, {} invalid recipients", incident.account, incident.invalid_recipients)
            }
            Self::WouldAlarm(incident, spared) => format!(
                "Would have {}: {}, {} invalid recipients",
                match spared {
                    Spared::Probation => "delayed",
                    Spared::Block => "blocked",
                },
                incident.account,
                incident.invalid_recipients
            ),
            Self::Digest(digest) => digest.subject(),
            Self::QuarantineNearlyFull { .. } => "The quarantine is nearly full".to_owned(),
            Self::Guessed { account, .. } => format!("A password may have been guessed: {account}"),
            Self::CertificateRefused { .. } => "A new certificate cannot be used".to_owned(),
            Self::CertificateExpires { .. } => "A certificate expires soon".to_owned(),
            Self::LedgerTrouble { .. } => "Counts and blocks cannot be written".to_owned(),
            Self::LedgerMended { .. } => "The database was damaged, and is mended".to_owned(),
            Self::Blind { .. } => "The mail server seems to accept every recipient".to_owned(),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Blocked(incident, fate) => blocked(incident, *fate),
            Self::WouldBlock(incident) => would_block(incident),
            Self::Delayed(incident, delay) => suspicion::delayed(incident, *delay),
            Self::Suspected(incident) => suspicion::suspected(incident),
            Self::WouldAlarm(incident, spared) => suspicion::would_alarm(incident, *spared),
            Self::Digest(digest) => digest.text(),
            Self::QuarantineNearlyFull { messages, octets, max_size } => {
                nearly_full(*messages, *octets, *max_size)
            }
            Self::Guessed { account, client, guesses, addresses, period } => {
                guessed(account, *client, (*guesses, *addresses), *period)
            }
            Self::CertificateRefused { why } => certificate_refused(why),
            Self::CertificateExpires { certificate, not_after } => {
                certificate_expires(certificate, *not_after)
            }
            Self::LedgerTrouble { why } => ledger_trouble(why),
            Self::LedgerMended { what } => ledger_mended(what),
            Self::Blind { foreign, recipients } => blind(*foreign, *recipients),
        }
    }
}

fn blocked(incident: &Incident, fate: Fate) -> String {
    let account = &incident.account;
    let word = shell_word(account.as_str());
    let name = shown(account.as_str());
    let now = match fate.withheld {
        Withheld::Parked => {
            "All that it sends from now on is parked in the quarantine. The sender is not told, and nothing is lost."
        }
        Withheld::Refused => "All that it sends from now on is refused, and the sender sees that.",
    };
    let lasts = match fate.unblock_after {
        None => "The block lasts until you undo it.".to_owned(),
        Some(age) => {
            format!("The block lasts until you undo it, or for {}; what is parked stays so.", duration(age))
        }
    };
    let thief = match account.kind() {
        Kind::User(_) => "the password is in wrong hands: change it, and only then unblock the account.",
        Kind::Host(_) => "the machine or the form on it is abused: mend that, and only then unblock it.",
    };
    format!(
        "The account {name} is blocked. It tried to send to {} recipients that do not exist within {},\n\
         as somebody does who sends to a harvested list, most often with a stolen password.\n\
         {now}\n\
         {lasts}\n\n\
         {}\n\
         WHAT TO DO\n\n\
         1. Look at what it sends:\n\
         \x20      gatepost quarantine list --account {word}\n\
         \x20      gatepost quarantine show ID\n\
         2. If it is spam, {thief}\n\
         \x20      gatepost kick {word}\n\
         \x20      gatepost quarantine delete --account {word}\n\
         \x20      gatepost unblock {word}\n\
         \x20  Also clear the messages at the end of this mail from the mail server's queue.\n\
         3. If it is not, let it go on and send what is parked:\n\
         \x20      gatepost unblock {word} --release\n\n\
         {}{}",
        incident.invalid_recipients,
        duration(incident.period),
        facts(incident),
        samples(incident),
        relayed(incident),
    )
}

fn would_block(incident: &Incident) -> String {
    let word = shell_word(incident.account.as_str());
    format!(
        "The account {} tried to send to {} recipients that do not exist within {}.\n\
         That is its limit. It would be blocked now, if `observe` did not say otherwise:\n\
         nothing was done. There is at most one such mail a day for an account.\n\n\
         {}\n\
         To block it by hand, and to undo that:\n\
         \x20      gatepost block {word}\n\
         \x20      gatepost unblock {word} --release\n\n\
         {}{}",
        shown(incident.account.as_str()),
        incident.invalid_recipients,
        duration(incident.period),
        facts(incident),
        samples(incident),
        relayed(incident),
    )
}

fn nearly_full(messages: u64, octets: u64, max_size: u64) -> String {
    let mebibytes = |octets: u64| octets.div_ceil(1 << 20);
    format!(
        "{messages} messages with {} MiB are parked, envelopes and files included; the quarantine takes {} MiB. When it\n\
         is full, blocked accounts get a temporary refusal (452), and see that something is wrong; other accounts are not\n\
         concerned.\n\n\
         To see whose they are, and to remove or release them:\n\
         \x20      gatepost status\n\
         \x20      gatepost quarantine list --account ACCOUNT\n\
         \x20      gatepost quarantine delete --account ACCOUNT\n\
         \x20      gatepost quarantine release --account ACCOUNT\n\n\
         `[quarantine] max_size` and `expire_after` set how much is kept, and for how long.\n",
        mebibytes(octets),
        mebibytes(max_size),
    )
}

fn guessed(
    account: &Account,
    client: IpAddr,
    (guesses, addresses): (usize, usize),
    period: Duration,
) -> String {
    let word = shell_word(account.as_str());
    format!(
        "Somebody logged in to the account {} from {client},\n\
         an address that was not known for it, after {guesses} wrong passwords from {addresses} address(es) within {}.\n\
         Either the password has been guessed, or its owner is on the road while others guess. Nothing was done: mail of\n\
         this account goes on. There is at most one such mail a day for an account.\n\n\
         WHAT TO DO\n\n\
         1. Ask the owner whether they logged in. The log has all tries: search it for `authentication failed`.\n\
         2. If not, change the password and end the open sessions:\n\
         \x20      gatepost user passwd {}\n\
         \x20      gatepost kick {word}\n",
        shown(account.as_str()),
        duration(period),
        shell_word(account.as_str().strip_prefix("user:").unwrap_or(account.as_str())),
    )
}

fn certificate_refused(why: &str) -> String {
    format!(
        "The files of a certificate have changed, and what is in them now cannot be used:\n\
         \x20      {}\n\n\
         The old certificate stays in force until Gatepost is started again: then it would not start. Mend the files;\n\
         they are read anew by themselves, and the log says when the new one is in force.\n",
        shown(why)
    )
}

fn certificate_expires(certificate: &str, not_after: Timestamp) -> String {
    format!(
        "The certificate in\n\
         \x20      {}\n\
         expires at {}. Mail programs refuse it from then on, and nobody can send.\n\n\
         Renew it. The new one is read by itself; nothing has to be started again.\n",
        shown(certificate),
        moment(not_after)
    )
}

fn ledger_trouble(why: &str) -> String {
    format!(
        "Gatepost cannot write its counts and blocks:\n\
         \x20      {}\n\n\
         Mail goes on, and all counts and blocks hold in memory; a restart now would lose the latest of them. Writing is\n\
         tried again each second. Most often the disk is full, or a file is not Gatepost's own: look at `data_dir`.\n\
         The log says when it works again.\n",
        shown(why)
    )
}

fn ledger_mended(what: &str) -> String {
    let what: String = what.lines().map(|line| format!("\x20      {}\n", shown(line))).collect();
    format!(
        "Gatepost found its database damaged or missing as it started, and went on without it:\n\n{what}\n\
         Mail goes on, and nothing of it is lost: what is parked does not depend on the database. Invalid recipients that were\n\
         counted are forgotten, so that an account may have to begin anew before it reaches its limit.\n\n\
         WHAT TO DO\n\n\
         1. See whether all accounts are blocked that should be, and no other:\n\
         \x20      gatepost status\n\
         2. Look at the disk: databases seldom break by themselves. What is set aside may be removed.\n"
    )
}

fn blind(foreign: bool, recipients: u64) -> String {
    let (which, cure) = if foreign {
        (
            "at domains other than its own",
            "for foreign recipients (Postfix: reject_unverified_recipient; Exim: verify = recipient/callout)",
        )
    } else {
        ("that it was asked about", "for its own and for foreign recipients")
    };
    format!(
        "The mail server behind Gatepost accepted each of the first {recipients} recipients today {which}.\n\
         A server that says yes to everybody makes Gatepost blind: it cannot tell who sends to recipients that do not exist.\n\n\
         Turn recipient verification on {cure};\n\
         the README tells how. Then see whether it helped:\n\
         \x20      gatepost check\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Relayed, Sample, Uncounted};

    fn at(minute: u64) -> Timestamp {
        Timestamp::from_millis(1_795_536_328_123).after(Duration::from_secs(60 * minute))
    }

    fn incident(account: &str) -> Incident {
        Incident {
            account: account.parse().unwrap(),
            invalid_recipients: 100,
            limit: 100,
            reason: Some("100 invalid recipients within 1h".into()),
            period: Duration::from_secs(3_600),
            first: Some(at(0)),
            last: Some(at(7)),
            samples: vec![
                Sample { at: at(6), address: "a\r\nBcc: b@c.d".into(), client: "192.0.2.7".parse().unwrap() },
                Sample {
                    at: at(7),
                    address: "\u{1b}[2Jx@y.z".into(),
                    client: "2001:db8::1".parse().unwrap(),
                },
                Sample { at: at(7), address: "grün@y.z".into(), client: "192.0.2.7".parse().unwrap() },
            ],
            sessions: 3,
            relayed: vec![Relayed {
                at: at(1),
                reply: "250 2.0.0 Ok: queued as 4D489100508D".into(),
                message_id: Some("<1@x>".into()),
            }],
            uncounted: vec![Uncounted { domain: "down.example".into(), answers: 12 }],
        }
    }

    /// Header and decoded body.
    fn written(notice: &Notice) -> (String, String) {
        written_by(notice, None)
    }

    fn written_by(notice: &Notice, template: Option<&str>) -> (String, String) {
        let letterhead = Letterhead {
            from: "gatepost@mx.example.org".into(),
            to: vec!["abuse@example.org".into(), "noc@example.org".into()],
            hostname: "mx.example.org".into(),
        };
        let folder = tempfile::tempdir().unwrap();
        let template = template.map(|text| {
            std::fs::write(folder.path().join("template"), text).unwrap();
            Template::read(&folder.path().join("template")).unwrap()
        });
        let mail = notice.write(&letterhead, template.as_ref(), OutboxId::new(at(7)), at(7));
        assert!(mail.is_ascii(), "an upstream without 8BITMIME takes it too");
        let text = String::from_utf8(mail.clone()).unwrap();
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{text}");
        let body = mailparse::parse_mail(&mail).unwrap().get_body().unwrap().replace("\r\n", "\n");
        let header = text.split_once("\r\n\r\n").unwrap().0;
        (header.replace("\r\n ", " "), body)
    }

    const PARKED: Fate = Fate { withheld: Withheld::Parked, unblock_after: None };

    #[test]
    fn a_block_tells_all_that_the_desk_asks() {
        let (header, body) = written(&Notice::Blocked(incident("anna@example.org"), PARKED));
        for line in [
            "From: gatepost@mx.example.org",
            "To: abuse@example.org, noc@example.org",
            "Subject: Blocked: user:anna@example.org, 100 invalid recipients within 1 hour",
            "Auto-Submitted: auto-generated",
            "MIME-Version: 1.0",
            "Message-ID: <",
        ] {
            assert!(header.contains(line), "{line} in {header}");
        }
        for part in [
            "100 recipients that do not exist within 1 hour",
            "First invalid recipient:  2026-11-24 16:05:28 UTC",
            "Last invalid recipient:   2026-11-24 16:12:28 UTC",
            "Client addresses:         192.0.2.7, 2001:db8::1\n",
            "Open sessions now:        3",
            "gatepost quarantine list --account user:anna@example.org\n",
            "gatepost unblock user:anna@example.org --release\n",
            "grün@y.z  from 192.0.2.7",
            "250 2.0.0 Ok: queued as 4D489100508D  <1@x>",
            "parked in the quarantine",
            "The block lasts until you undo it.\n",
            "the password is in wrong hands",
        ] {
            assert!(body.contains(part), "{part} in {body}");
        }
        let fate = Fate { unblock_after: Some(Duration::from_secs(7 * 86_400)), ..PARKED };
        let (_, body) = written(&Notice::Blocked(incident("anna@example.org"), fate));
        assert!(
            body.contains("lasts until you undo it, or for 7 days; what is parked stays so.\n"),
            "{body}"
        );
    }

    #[test]
    fn a_probation_asks_for_nothing_unless_it_is_spam() {
        let delay = Delay { each: Duration::from_secs(1_800), until: at(37) };
        let incident = |account| Incident { invalid_recipients: 8, ..incident(account) };
        let (header, body) = written(&Notice::Delayed(incident("anna@example.org"), delay));
        let subject = "Subject: On probation: user:anna@example.org, 8 invalid recipients within 1 hour";
        assert!(header.contains(subject), "{header}");
        for part in [
            "user:anna@example.org is on probation",
            "held back for 30 minutes, and then GOES OUT BY ITSELF",
            "Nothing need be done unless the mail is spam.",
            "goes out at 2026-11-24 16:42:28 UTC, what comes later 30 minutes after it came",
            "for 24 hours at the most; at 100 such recipients within 1 hour it is blocked",
            "gatepost quarantine list --account user:anna@example.org\n",
            "gatepost unblock user:anna@example.org --release\n",
            "gatepost block user:anna@example.org\n",
            "change the password",
            "a\\u{d}\\u{a}Bcc: b@c.d  from 192.0.2.7",
            "250 2.0.0 Ok: queued as 4D489100508D  <1@x>",
        ] {
            assert!(body.contains(part), "{part} in {body}");
        }
        let (_, body) = written(&Notice::Delayed(incident("$(reboot)"), delay));
        assert!(body.contains("gatepost block 'user:$(reboot)'\n") && !body.contains("is parked"), "{body}");
    }

    #[test]
    fn hostile_text_stays_text() {
        let (header, body) = written(&Notice::Blocked(
            incident("$(reboot);'"),
            Fate { withheld: Withheld::Refused, ..PARKED },
        ));
        assert!(!header.contains("Bcc"), "{header}");
        assert!(body.contains("a\\u{d}\\u{a}Bcc: b@c.d") && body.contains("\\u{1b}[2Jx@y.z"), "{body}");
        assert!(body.contains(r"gatepost kick 'user:$(reboot);'\'''"), "{body}");
        assert!(body.contains("is refused") && !body.contains("is parked in"), "{body}");
    }

    #[test]
    fn a_template_of_ones_own() {
        let template = [
            "Subject: {event} {account} grün\n",
            "{count}/{limit} in {period}: {reason}\n{first} {last} {clients}",
            "{samples}\n{relayed}",
            "{sessions} {hostname} {time} {subject}\ngatepost unblock {account}",
        ]
        .join("\n");
        let notice = Notice::Blocked(incident("$(reboot)"), PARKED);
        let (header, body) = written_by(&notice, Some(&template));
        let subject = &header.as_bytes()[header.find("Subject").unwrap()..];
        let subject = mailparse::parse_header(subject).unwrap().0;
        assert_eq!(subject.get_value(), "blocked 'user:$(reboot)' grün");
        let expected = [
            "100/100 in 1 hour: 100 invalid recipients within 1h",
            "2026-11-24 16:05:28 UTC 2026-11-24 16:12:28 UTC 192.0.2.7, 2001:db8::1",
            "2026-11-24 16:11:28 UTC  a\\u{d}\\u{a}Bcc: b@c.d  from 192.0.2.7",
            "2026-11-24 16:12:28 UTC  \\u{1b}[2Jx@y.z  from 2001:db8::1",
            "2026-11-24 16:12:28 UTC  grün@y.z  from 192.0.2.7",
            "2026-11-24 16:06:28 UTC  250 2.0.0 Ok: queued as 4D489100508D  <1@x>",
            "3 mx.example.org 2026-11-24 16:12:28 UTC Blocked: user:$(reboot), 100 invalid recipients within 1 hour",
            "gatepost unblock 'user:$(reboot)'",
        ]
        .join("\n");
        assert_eq!(body.trim_end(), expected);

        // A template may include the built-in text; notices that are not about an account stay as they are.
        let (header, body) =
            written_by(&Notice::WouldBlock(incident("anna")), Some("HALLO\n\n{text}\nTSCHÜSS"));
        assert!(header.contains("Subject: Would have blocked: user:anna"), "{header}");
        assert!(
            body.starts_with("HALLO\n\nThe account user:anna tried") && body.trim_end().ends_with("TSCHÜSS"),
            "{body}"
        );
        let (_, body) = written_by(&Notice::Blind { foreign: true, recipients: 1 }, Some(&template));
        assert!(body.contains("makes Gatepost blind"), "{body}");
    }

    #[test]
    fn the_other_notices() {
        for (notice, subject, part) in [
            (
                Notice::WouldBlock(incident("host:192.0.2.1")),
                "Would have blocked: host:192.0.2.1",
                "nothing was done",
            ),
            (
                Notice::Suspected(incident("anna")),
                "Suspected: user:anna, 100 invalid recipients",
                "nothing was done, and its mail goes out as ever",
            ),
            (
                Notice::WouldAlarm(incident("anna"), Spared::Probation),
                "Would have delayed: user:anna, 100 invalid recipients",
                "What it sends would be held back for a while now, if `observe` did not say otherwise",
            ),
            (
                Notice::WouldAlarm(incident("anna"), Spared::Block),
                "Would have blocked: user:anna, 100 invalid recipients",
                "It would be blocked now, if `observe` did not say otherwise",
            ),
            (
                Notice::QuarantineNearlyFull { messages: 12, octets: 1 << 33, max_size: 10 << 30 },
                "nearly full",
                "12 messages with 8192 MiB are parked, envelopes and files included; the quarantine takes 10240 MiB",
            ),
            (
                Notice::Guessed {
                    account: "anna;reboot".parse().unwrap(),
                    client: "192.0.2.1".parse().unwrap(),
                    guesses: 21,
                    addresses: 3,
                    period: Duration::from_secs(3_600),
                },
                "A password may have been guessed: user:anna;reboot",
                "from 192.0.2.1,\nan address that was not known for it, after 21 wrong passwords from 3 address(es) within 1 hour",
            ),
            (
                Notice::CertificateRefused { why: "a.key: damaged\u{1b}[2J".into() },
                "new certificate cannot be used",
                "a.key: damaged\\u{1b}[2J\n",
            ),
            (
                Notice::CertificateExpires { certificate: "/etc/a.crt".into(), not_after: at(0) },
                "certificate expires soon",
                "/etc/a.crt\nexpires at 2026-11-24 16:05:28 UTC.",
            ),
            (
                Notice::LedgerTrouble { why: "No space left\non device".into() },
                "cannot be written",
                "No space left\\u{a}on device",
            ),
            (
                Notice::LedgerMended { what: "the database was broken\nand \u{1b}[2J".into() },
                "The database was damaged",
                "       the database was broken\n       and \\u{1b}[2J\n",
            ),
            (
                Notice::Blind { foreign: false, recipients: 1_000 },
                "accept every recipient",
                "the first 1000 recipients",
            ),
            (
                Notice::Blind { foreign: true, recipients: 1_000 },
                "accept every recipient",
                "reject_unverified_recipient",
            ),
        ] {
            let (header, body) = written(&notice);
            assert!(header.contains(subject), "{header}");
            assert!(body.contains(part), "{body}");
        }
        let (_, body) =
            written(&Notice::Blocked(Incident { relayed: vec![], ..incident("host:192.0.2.1") }, PARKED));
        assert!(
            body.contains("knows of no message of this account")
                && body.contains("not over a restart")
                && body.contains("the machine or the form"),
            "{body}"
        );
    }
}
