//! Turns the facts into findings, each with its cure. Pure.
//!
//! Errors are what would keep Gatepost from working: being blind at the upstream's own or a canary domain, XCLIENT
//! offered but refused, mail refused to those who may send, files that cannot be used. Everything else is a warning.

use std::time::Duration;

use super::folder::Foreign;
use super::local::{self, Certificate, OpenSecret, UsersFile};
use super::upstream::{self, Asked, Place, Said, Sender, Talk, Unwelcome};
use super::{Finding, Severity};
use crate::config::{Action, Config, ListenTls};
use crate::guard::ledger::OnAlarm;
use crate::guard::{Outcome, Rules, classify, denies_relaying};
use crate::net::tls::Expiring;
use crate::smtp::Reply;
use crate::units;
use crate::upstream::Address;

/// The longest wait for a digest once one has announced a message.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// File descriptors needed beside those of the connections: listeners, the database, files being written.
const RESERVE: u64 = 200;

/// The size of a message that every server must take, in octets (RFC 5321 4.5.3.1.7).
const LEAST_SIZE: u64 = 64 * 1024;

const RENEW: &str = "Renew it; a running `serve` reads the new one by itself";

fn error(about: &'static str, finding: impl Into<String>, cure: impl Into<String>) -> Finding {
    Finding { severity: Severity::Error, about, finding: finding.into(), cure: cure.into() }
}

fn warning(about: &'static str, finding: impl Into<String>, cure: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, about, finding: finding.into(), cure: cure.into() }
}

/// Findings about this machine.
pub(super) fn local(facts: &local::Facts, config: &Config) -> Vec<Finding> {
    let checks: [fn(&local::Facts, &Config) -> Vec<Finding>; 12] = [
        process,
        data_dir,
        certificates,
        open_secrets,
        users,
        senders,
        descriptors,
        notify,
        withheld,
        relay_hosts,
        listeners,
        sizes,
    ];
    checks.iter().flat_map(|check| check(facts, config)).collect()
}

fn process(facts: &local::Facts, _config: &Config) -> Vec<Finding> {
    let why = facts.read_as.as_ref().err();
    why.map(|why| error("process", why.clone(), "Make that user, or set another [process] user"))
        .into_iter()
        .collect()
}

/// Why a file cannot be used, and by which user.
fn read(facts: &local::Facts, why: &str) -> String {
    match &facts.read_as {
        Ok(Some(user)) => format!("{why} (read as `{user}`, [process] user)"),
        _ => why.to_owned(),
    }
}

fn data_dir(facts: &local::Facts, config: &Config) -> Vec<Finding> {
    if let Some(why) = &facts.unusable {
        let cure = match facts.stranger {
            None => {
                "Give data_dir to the user that Gatepost runs as, and check as that user; or set another data_dir"
            }
            Some(_) => "Set data_dir to a folder of its own",
        };
        return vec![error("data_dir", format!("data_dir cannot be used: {why}"), cure)];
    }
    // Who changed the owner or the modes there would harm another program.
    if let Some(name) = &facts.stranger {
        let finding = format!("data_dir {} is not Gatepost's: it holds `{name}`", config.data_dir.display());
        return vec![warning("data_dir", finding, "Set data_dir to a folder of its own")];
    }
    let mut findings = Vec::new();
    if let Some(Foreign { path, owner, expected }) = &facts.foreign {
        let finding = format!(
            "{} is `{owner}`'s, and data_dir is `{expected}`'s: `serve` could not use it as that user",
            path.display()
        );
        let cure = format!("Run: chown -R {expected} {}", config.data_dir.display());
        findings.push(warning("data_dir", finding, cure));
    }
    for path in &facts.exposed {
        let finding = format!(
            "{} can be read by other users, and parked mail is nobody else's business",
            path.display()
        );
        findings.push(warning("data_dir", finding, format!("Run: chmod go= {}", path.display())));
    }
    findings
}

fn certificates(facts: &local::Facts, _config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &facts.certificate {
        Certificate::Usable => {}
        Certificate::ToBeMade => findings.push(warning(
            "certificate",
            "there is no certificate yet: `serve` will make a self-signed one, of which mail programs complain",
            "Set [tls] certificate and private_key to those of your host name",
        )),
        Certificate::Unusable(why) => {
            let cure = "Mend that file, or name another in [tls] or [[certificate]]";
            findings.push(error("certificate", read(facts, why), cure));
        }
    }
    for (Expiring { certificate, not_after }, expired) in &facts.expiring {
        let certificate = certificate.display();
        findings.push(if *expired {
            let finding =
                format!("the certificate in {certificate} expired at {not_after}: mail programs refuse it");
            error("certificate", finding, RENEW)
        } else {
            warning("certificate", format!("the certificate in {certificate} expires at {not_after}"), RENEW)
        });
    }
    findings
}

fn open_secrets(facts: &local::Facts, _config: &Config) -> Vec<Finding> {
    // What cannot be used may be the wrong file, and another program's.
    let is_wrong = |about| match about {
        "users" => !matches!(facts.users, UsersFile::Usable { offered: 1.., .. }),
        "certificate" => matches!(facts.certificate, Certificate::Unusable(_)),
        "webhook" => !facts.notify.is_empty(),
        _ => false,
    };
    let finding = |OpenSecret { about, path, mode }: &OpenSecret| {
        let path = path.display();
        let may = match (mode & 0o004 != 0, mode & 0o002 != 0) {
            (true, true) => "read and change",
            (false, true) => "change",
            (_, false) => "read",
        };
        let finding = format!(
            "{path} has mode {mode:04o}, which lets everybody on this machine {may} it, and it holds a secret"
        );
        warning(about, finding, format!("Run: chmod 600 {path} (640 where Gatepost reads it by its group)"))
    };
    facts.open_secrets.iter().filter(|secret| !is_wrong(secret.about)).map(finding).collect()
}

fn senders(facts: &local::Facts, _config: &Config) -> Vec<Finding> {
    let why = facts.senders.as_ref();
    why.map(|why| error("senders", read(facts, why), "Mend that file, or [sender] map")).into_iter().collect()
}

fn notify(facts: &local::Facts, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for why in &facts.notify {
        let cure = "Mend that file, or [notify] template and webhook_secret_file";
        findings.push(error("notify", read(facts, why), cure));
    }
    if facts.weak_secret {
        findings.push(warning(
            "webhook",
            "the secret in webhook_secret_file is short; Standard Webhooks wants 24 octets or more",
            "Make another: (printf whsec_; openssl rand -base64 32) > FILE",
        ));
    }
    if config.notify.to.is_empty() {
        let finding = match config.notify.webhook {
            None => "nobody is told of blocks, the log alone",
            Some(_) => "no mail is sent about blocks: the webhook and the log alone tell of them",
        };
        findings.push(warning("notify", finding, "Set [notify] to = [\"abuse@example.org\"]"));
    }
    findings
}

/// Findings about how long messages are kept.
fn withheld(_facts: &local::Facts, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.action == Action::Refuse && config.policy.detection.on_alarm == OnAlarm::Probation {
        findings.push(warning(
            "limit",
            "action = \"refuse\" withholds no mail in silence, but a delay after an alarm does, and a block that follows keeps it",
            "Set [detection] on_alarm = \"notify\" where the law forbids that",
        ));
    }
    // A message is announced by one digest and gone after the next, a day later at most.
    if !config.notify.to.is_empty()
        && let (Some(kept), Some(digest)) = (config.quarantine.expire_after, config.notify.digest)
        && kept < digest + digest.min(A_DAY)
    {
        let (kept, digest) = (units::show_duration(kept), units::show_duration(digest));
        let finding = format!(
            "[quarantine] expire_after is {kept}, and [notify] digest {digest}: nothing expires before a digest has announced it, \
             so mail is kept for longer"
        );
        findings.push(warning(
            "quarantine",
            finding,
            "Set [notify] digest to at most half of expire_after, or to \"off\"",
        ));
    }
    findings
}

fn relay_hosts(_facts: &local::Facts, config: &Config) -> Vec<Finding> {
    let open = config.relay_hosts.iter().filter(|network| network.prefix_len() == 0);
    open.map(|network| {
        warning(
            "relay",
            format!("[relay] hosts has {network}: everybody in the world can send without logging in"),
            "Name your own networks alone",
        )
    })
    .collect()
}

/// What mail programs expect at a port (RFC 8314 7.3, RFC 6409 3.1): one that waits for TLS where Gatepost waits for a command
/// hangs, and so the other way round.
fn listeners(_facts: &local::Facts, config: &Config) -> Vec<Finding> {
    let usual = [(465, ListenTls::Implicit, "implicit"), (587, ListenTls::StartTls, "starttls")];
    let unusual = config.listen.iter().filter_map(|listen| {
        let (.., name) =
            usual.iter().find(|(port, tls, _)| listen.address.port() == *port && listen.tls != *tls)?;
        Some(warning(
            "listen",
            format!("[[listen]] {} has another tls than mail programs expect at this port", listen.address),
            format!("Set tls = \"{name}\" there, or another port"),
        ))
    });
    unusual.collect()
}

fn sizes(_facts: &local::Facts, config: &Config) -> Vec<Finding> {
    let small = (config.session.max_message_size < LEAST_SIZE).then(|| {
        let finding =
            "[session] max_message_size is less than the 64KiB that every server must take (RFC 5321)";
        warning(
            "session",
            finding,
            "Set it to 64KiB or more, unless all of your users' messages are that small",
        )
    });
    small.into_iter().collect()
}

fn users(facts: &local::Facts, config: &Config) -> Vec<Finding> {
    let path = config.auth.users.display();
    let relay_hosts = !config.relay_hosts.is_empty();
    let mut findings = Vec::new();
    match &facts.users {
        UsersFile::Missing if relay_hosts => {}
        UsersFile::Missing => {
            findings.push(error(
                "users",
                format!("there is no users file {path}"),
                "Run: gatepost user add NAME",
            ));
        }
        UsersFile::Unusable { why, cure } => findings.push(error("users", read(facts, why), *cure)),
        UsersFile::Usable { shut_out, barred, offered, unknown } => {
            for (key, name) in unknown {
                let finding = format!("{key} names {name}, and there is no such user in {path}");
                let cure = "Write the name as it stands in the users file, or take it out";
                findings.push(warning("users", finding, cure));
            }
            for (name, why) in shut_out {
                let cure = format!("Run: gatepost user passwd {name}");
                findings.push(warning("users", format!("user {name} cannot log in: {why}"), cure));
            }
            for (mechanism, name) in barred {
                let finding = format!(
                    "{mechanism} is not offered, since user {name} (the first such) could not use it"
                );
                let cure =
                    format!("Run: gatepost user passwd {name}; or take {mechanism} out of [auth] mechanisms");
                findings.push(warning("users", finding, cure));
            }
            if *offered == 0 && !relay_hosts {
                let finding =
                    format!("nobody can log in: no mechanism can be offered with the users of {path}");
                findings.push(error("users", finding, "Run: gatepost user add NAME"));
            }
        }
    }
    findings
}

fn descriptors(facts: &local::Facts, config: &Config) -> Vec<Finding> {
    let connections = config.session.max_connections.saturating_add(config.upstream.settings.max_connections);
    let needed = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(RESERVE);
    let few = facts.descriptors.filter(|limit| *limit < needed);
    few.map(|limit| {
        warning(
            "descriptors",
            format!("a process may have {limit} files open here, and max_connections may need {needed}"),
            format!("Start `serve` with more (LimitNOFILE={needed} in its unit, or ulimit -n {needed}), or lower [session] max_connections"),
        )
    })
    .into_iter()
    .collect()
}

/// Findings about all upstreams.
pub(super) fn upstreams(all: &[(Address, upstream::Facts)], config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let anybody = all.iter().any(|(_, facts)| matches!(facts, upstream::Facts::Answers { .. }));
    for (address, facts) in all {
        for mut finding in upstream(address, facts, config) {
            if anybody && matches!(facts, upstream::Facts::Unreachable(_)) {
                // The other upstreams take its mail.
                finding.severity = Severity::Warning;
            }
            let named = finding.about == "canary" || finding.finding.contains(&address.to_string());
            if all.len() > 1 && !named {
                finding.finding = format!("{address}: {}", finding.finding);
            }
            findings.push(finding);
        }
    }
    findings
}

fn upstream(address: &Address, facts: &upstream::Facts, config: &Config) -> Vec<Finding> {
    let (offers_xclient, talks, notices) = match facts {
        upstream::Facts::Unusable(why) => {
            return vec![error("upstream", why.clone(), "Mend that file, or the key that names it")];
        }
        upstream::Facts::Unreachable(why) => {
            let finding = format!("the upstream {address} cannot be used: {why}");
            return vec![error("upstream", finding, "Start it, or correct [upstream] address and tls")];
        }
        upstream::Facts::Answers { offers_xclient, talks, notices } => (*offers_xclient, talks, notices),
    };
    let mut findings = Vec::new();
    if !offers_xclient && config.upstream.settings.names_clients() {
        findings.push(warning(
            "xclient",
            format!("the upstream {address} does not offer XCLIENT to us: it sees all mail come from Gatepost"),
            "In Postfix set smtpd_authorized_xclient_hosts; with an MTA that has no XCLIENT set [upstream] xclient = false",
        ));
    }
    if config.upstream.foreign_canaries().next().is_none() {
        let why = match config.upstream.canary.first() {
            None => "",
            Some(_) => ", since [upstream] canary names none but its own domains",
        };
        findings.push(warning(
            "canary",
            format!("foreign recipients were not tested{why}"),
            "Set [upstream] canary to domains that refuse unknown recipients, and check again",
        ));
    }
    for talk in talks {
        judge_talk(talk, &config.classify, &mut findings);
    }
    findings.extend(notices.iter().map(|notice| judge_notice(notice, config)));
    findings
}

fn judge_notice(unwelcome: &Unwelcome, config: &Config) -> Finding {
    let refuses = |reply: &Reply| if reply.is_transient() { "puts off" } else { "refuses" };
    match unwelcome {
        Unwelcome::From(reply) => warning(
            "notify",
            format!(
                "the upstream {} mail from {}, so that no notice arrives: {reply}",
                refuses(reply),
                config.notify.from
            ),
            "Set [notify] from to a sender that it accepts from Gatepost's address",
        ),
        Unwelcome::To(to, reply) => warning(
            "notify",
            format!(
                "the upstream {} mail to {to}, so that notices do not arrive there: {reply}",
                refuses(reply)
            ),
            "Correct [notify] to, or let the upstream take mail for it from Gatepost's address",
        ),
    }
}

fn judge_talk(talk: &Talk, rules: &Rules, findings: &mut Vec<Finding>) {
    let sender = match &talk.sender {
        Sender::Login(name) => format!("a LOGIN ({name})"),
        Sender::RelayHost(address) => format!("a relay host ({address})"),
        Sender::Gatepost => "Gatepost".to_owned(),
    };
    match &talk.said {
        Said::XclientRefused(why) => findings.push(error(
            "xclient",
            format!("the upstream offers XCLIENT, and refuses it for {sender}: {why}"),
            "Permit it (the README has the recipe for Postfix), or set [upstream] xclient = false",
        )),
        Said::MailRefused(reply) if reply.is_transient() => findings.push(warning(
            "inconclusive",
            format!("the upstream puts off MAIL from {sender}: {reply}"),
            "Check again in a while; if that is all that it ever says, let it take mail from those who may send",
        )),
        Said::MailRefused(reply) => findings.push(error(
            "upstream",
            format!("the upstream refuses MAIL from {sender}: {reply}"),
            permit(&talk.sender),
        )),
        Said::BrokeOff(why) => findings.push(error(
            "upstream",
            format!("the upstream broke off when asked on behalf of {sender}: {why}"),
            "See its log",
        )),
        Said::Recipients(asked) => {
            for asked in asked {
                findings.extend(judge_recipient(asked, &talk.sender, &sender, rules));
            }
        }
    }
}

/// How to allow a sender at the upstream.
fn permit(sender: &Sender) -> &'static str {
    match sender {
        Sender::Login(_) => {
            "Let the upstream take mail from those who logged in, on the listener that Gatepost uses; in Postfix: \
             smtpd_sasl_auth_enable = yes, permit_sasl_authenticated, and no client or HELO restrictions"
        }
        Sender::RelayHost(_) => {
            "Let the upstream take mail from the networks of [relay] hosts too; in Postfix: the same ones in mynetworks"
        }
        Sender::Gatepost => {
            "Let the upstream take mail from Gatepost's address; in Postfix: put it in mynetworks"
        }
    }
}

fn judge_recipient(asked: &Asked, sender: &Sender, who: &str, rules: &Rules) -> Option<Finding> {
    let Asked { domain, place, reply } = asked;
    let denies = denies_relaying(reply);
    match (place, classify(reply, rules)) {
        (Place::Foreign, _) if !denies => None,
        (_, Outcome::NoSuchRecipient) => None,
        (Place::Own, Outcome::Accepted) => Some(error(
            "blind",
            format!(
                "the upstream takes a recipient at {domain} that cannot exist: Gatepost would be blind there"
            ),
            "Let the upstream verify its own recipients, or set [upstream] domains to its mail domains",
        )),
        (_, Outcome::Accepted) => Some(error(
            "blind",
            format!(
                "the upstream takes a recipient at {domain} that cannot exist: Gatepost is blind to foreign recipients"
            ),
            "Let the upstream verify foreign recipients; in Postfix: reject_unverified_recipient, in Exim: verify = recipient/callout",
        )),
        (Place::Own, Outcome::OtherRefusal) if denies => Some(warning(
            "domains",
            format!("the upstream is not home to {domain}: {reply}"),
            "Set [upstream] domains to its mail domains",
        )),
        (_, Outcome::OtherRefusal) if denies => Some(error(
            "relaying",
            format!("the upstream refuses {who} mail to foreign domains: {reply}"),
            permit(sender),
        )),
        (_, Outcome::OtherRefusal) if reply.is_transient() => Some(warning(
            "inconclusive",
            format!("the upstream puts off a recipient at {domain} that cannot exist: {reply}"),
            "Check again in a while; a recipient that is put off does not count",
        )),
        (Place::Own, Outcome::OtherRefusal) if reply.enhanced.is_some_and(|code| code.subject == 7) => {
            Some(error("upstream", format!("the upstream refuses mail from {who}: {reply}"), permit(sender)))
        }
        (_, Outcome::OtherRefusal) => Some(warning(
            "inconclusive",
            format!(
                "the upstream refuses a recipient at {domain} that cannot exist, but not for that reason: {reply}"
            ),
            "Such a refusal does not count; if it is all that the upstream ever says of unknown recipients, Gatepost is blind there",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::path::Path;

    use super::*;
    use crate::clock::Timestamp;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("config.toml"), "mail.example.org").unwrap()
    }

    fn address(port: u16) -> Address {
        Address::Tcp { host: "192.0.2.1".to_owned(), port }
    }

    #[test]
    fn several_upstreams() {
        use Severity::{Error, Warning};
        let down = || upstream::Facts::Unreachable("connection refused".to_owned());
        let blind = || {
            let asked =
                Asked { domain: "a.example".to_owned(), place: Place::Own, reply: reply("250 2.1.5 Ok") };
            let talk = Talk { sender: Sender::Gatepost, said: Said::Recipients(vec![asked]) };
            upstream::Facts::Answers { offers_xclient: true, talks: vec![talk], notices: Vec::new() }
        };
        let text = "[upstream]\ncanary = [\"example.net\"]\n";
        for (all, expected) in [
            (vec![down(), down()], &[(Error, "upstream", 25), (Error, "upstream", 26)][..]),
            // The other upstream takes its mail.
            (vec![down(), blind()], &[(Warning, "upstream", 25), (Error, "blind", 26)]),
        ] {
            let all: Vec<_> = (25..).map(address).zip(all).collect();
            let found = upstreams(&all, &config(text));
            assert_eq!(found.len(), expected.len());
            for (finding, (severity, about, port)) in found.iter().zip(expected) {
                assert_eq!((finding.severity, finding.about), (*severity, *about));
                assert!(finding.finding.contains(&format!("192.0.2.1:{port}")), "{}", finding.finding);
            }
        }
    }

    fn reply(text: &'static str) -> Reply {
        let (code, text) = text.split_once(' ').unwrap();
        let (enhanced, rest) = text.split_once(' ').unwrap();
        let (enhanced, text) = match enhanced.parse() {
            Ok(enhanced) => (Some(enhanced), rest),
            Err(_) => (None, text),
        };
        Reply { code: code.parse().unwrap(), enhanced, text: Cow::Borrowed(text) }
    }

    /// The findings about one recipient.
    fn about(sender: Sender, place: Place, text: &'static str) -> Vec<(Severity, &'static str)> {
        let asked = Asked { domain: "example.net".to_owned(), place, reply: reply(text) };
        let talk = Talk { sender, said: Said::Recipients(vec![asked]) };
        summary(vec![talk], "[upstream]\ncanary = [\"example.net\"]\n")
    }

    fn summary(talks: Vec<Talk>, text: &str) -> Vec<(Severity, &'static str)> {
        let facts = upstream::Facts::Answers { offers_xclient: true, talks, notices: Vec::new() };
        upstream(&address(25), &facts, &config(text))
            .iter()
            .map(|finding| (finding.severity, finding.about))
            .collect()
    }

    #[test]
    fn replies_about_recipients_that_cannot_exist() {
        use Severity::{Error, Warning};
        for (place, text, expected) in [
            (Place::Own, "250 2.1.5 Ok", &[(Error, "blind")][..]),
            (Place::Canary, "250 2.1.5 Ok", &[(Error, "blind")]),
            // At a foreign domain that is not a canary, only a denial of relaying is a finding.
            (Place::Foreign, "250 2.1.5 Ok", &[]),
            (Place::Foreign, "550 5.1.1 User unknown", &[]),
            (Place::Foreign, "550 5.7.1 blocked", &[]),
            (Place::Foreign, "450 4.1.2 Domain not found", &[]),
            (Place::Foreign, "554 5.7.1 <x@example.net>: Relay access denied", &[(Error, "relaying")]),
            (Place::Canary, "550 Relay not permitted", &[(Error, "relaying")]),
            (Place::Own, "550 5.1.1 User unknown", &[]),
            (Place::Canary, "550 5.1.1 undeliverable address: host a[1.2.3.4] said: 550 5.1.1 unknown", &[]),
            (Place::Own, "554 5.7.1 <x@example.net>: Relay access denied", &[(Warning, "domains")]),
            (
                Place::Own,
                "554 5.7.1 <unknown[192.0.2.1]>: Client host rejected: Access denied",
                &[(Error, "upstream")],
            ),
            (
                Place::Canary,
                "450 4.1.1 unverified address: Address verification in progress",
                &[(Warning, "inconclusive")],
            ),
            (Place::Canary, "550 5.7.1 blocked by policy", &[(Warning, "inconclusive")]),
            (Place::Own, "552 5.2.2 Mailbox full", &[(Warning, "inconclusive")]),
        ] {
            assert_eq!(about(Sender::Login("anna".to_owned()), place, text), expected, "{place:?} {text}");
        }
    }

    #[test]
    fn what_is_said_to_each_kind_of_sender() {
        use Severity::{Error, Warning};
        let talk = |said| Talk { sender: Sender::RelayHost("192.0.2.7".parse().unwrap()), said };
        let refused = || "550 5.7.0 no".to_owned();
        for (said, expected) in [
            (Said::XclientRefused(refused()), (Error, "xclient")),
            (Said::MailRefused(reply("550 5.7.0 no")), (Error, "upstream")),
            (Said::MailRefused(reply("451 4.3.0 later")), (Warning, "inconclusive")),
            (Said::BrokeOff("closed".to_owned()), (Error, "upstream")),
        ] {
            assert_eq!(summary(vec![talk(said)], "[upstream]\ncanary = [\"example.net\"]\n"), [expected]);
        }
        assert_eq!(summary(Vec::new(), ""), [(Warning, "canary")]);
    }

    #[test]
    fn a_canary_of_its_own_tests_no_foreign_recipient() {
        for (text, expected) in [
            ("[upstream]\ndomains = [\"example.org\"]\ncanary = [\"Example.org\"]\n", &["canary"][..]),
            ("[upstream]\ncanary = [\"example.org\"]\n", &["canary"]),
            ("[upstream]\ndomains = [\"example.org\"]\ncanary = [\"example.org\", \"example.net\"]\n", &[]),
        ] {
            let found = summary(Vec::new(), text);
            assert_eq!(found.iter().map(|(_, about)| *about).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn where_notices_do_not_arrive() {
        let text = "[upstream]\ncanary = [\"example.net\"]\n[notify]\nto = [\"abuse@example.org\"]\n";
        for (unwelcome, part) in [
            (
                Unwelcome::To("abuse@example.org".to_owned(), reply("550 5.1.1 User unknown")),
                "refuses mail to abuse@example.org, so that notices do not arrive there: 550 5.1.1 User unknown",
            ),
            (
                Unwelcome::To("abuse@example.org".to_owned(), reply("450 4.1.1 later")),
                "puts off mail to abuse@example.org",
            ),
            (Unwelcome::From(reply("550 5.7.1 no")), "refuses mail from gatepost@mail.example.org"),
        ] {
            let facts = upstream::Facts::Answers {
                offers_xclient: true,
                talks: Vec::new(),
                notices: vec![unwelcome],
            };
            let found = upstream(&address(25), &facts, &config(text));
            assert_eq!((found.len(), found[0].severity, found[0].about), (1, Severity::Warning, "notify"));
            assert!(found[0].finding.contains(part), "{}", found[0].finding);
        }
    }

    #[test]
    fn whether_the_upstream_is_there() {
        let down = upstream::Facts::Unreachable("connection refused".to_owned());
        let found = upstream(&address(25), &down, &config(""));
        assert_eq!(found.iter().map(|finding| finding.severity).collect::<Vec<_>>(), [Severity::Error]);
        let plain =
            || upstream::Facts::Answers { offers_xclient: false, talks: Vec::new(), notices: Vec::new() };
        for (text, expected) in [
            ("[upstream]\ncanary = [\"example.net\"]\n", &["xclient"][..]),
            ("[upstream]\ncanary = [\"example.net\"]\nxclient = false\n", &[]),
        ] {
            let found = upstream(&address(25), &plain(), &config(text));
            assert_eq!(found.iter().map(|finding| finding.about).collect::<Vec<_>>(), expected, "{text}");
        }
    }

    fn well() -> local::Facts {
        local::Facts {
            read_as: Ok(None),
            descriptors: None,
            certificate: Certificate::Usable,
            expiring: Vec::new(),
            users: usable(Vec::new(), Vec::new(), 3),
            senders: None,
            exposed: Vec::new(),
            notify: Vec::new(),
            weak_secret: false,
            open_secrets: Vec::new(),
            unusable: None,
            stranger: None,
            foreign: None,
        }
    }

    fn usable(
        shut_out: Vec<(String, String)>,
        barred: Vec<(&'static str, String)>,
        offered: usize,
    ) -> UsersFile {
        UsersFile::Usable { shut_out, barred, offered, unknown: Vec::new() }
    }

    fn expiring() -> Expiring {
        Expiring { not_after: Timestamp::from_millis(0), certificate: "/etc/a.crt".into() }
    }

    fn foreign() -> Foreign {
        Foreign { path: "/data/secret".into(), owner: "root".to_owned(), expected: "gatepost".to_owned() }
    }

    fn open_secret() -> OpenSecret {
        secret_of("upstream")
    }

    fn secret_of(about: &'static str) -> OpenSecret {
        OpenSecret { about, path: "/etc/password".into(), mode: 0o644 }
    }

    #[test]
    fn who_is_told_of_blocks() {
        for (text, part) in [
            ("", "nobody is told of blocks, the log alone"),
            (
                "[notify]\nwebhook = \"https://hook.example/\"\n",
                "no mail is sent about blocks: the webhook and the log",
            ),
        ] {
            let found = local(&well(), &config(text));
            assert!(
                found.iter().any(|finding| finding.about == "notify" && finding.finding.starts_with(part)),
                "{text}"
            );
        }
    }

    #[test]
    fn an_open_secret_is_named_with_its_mode() {
        for (mode, part) in [
            (0o644, "/etc/password has mode 0644, which lets everybody on this machine read it"),
            (0o666, "/etc/password has mode 0666, which lets everybody on this machine read and change it"),
            (0o602, "/etc/password has mode 0602, which lets everybody on this machine change it"),
        ] {
            let facts = local::Facts { open_secrets: vec![OpenSecret { mode, ..open_secret() }], ..well() };
            let found = local(&facts, &config("[notify]\nto = [\"abuse@example.org\"]\n"));
            assert!(found[0].finding.starts_with(part), "{}", found[0].finding);
            assert!(found[0].cure.starts_with("Run: chmod 600 /etc/password"), "{}", found[0].cure);
        }
    }

    #[test]
    fn this_machine() {
        use Severity::{Error, Warning};
        const QUIET: &str = "[notify]\nto = [\"abuse@example.org\"]\n";
        const RELAY: &str = "[notify]\nto = [\"abuse@example.org\"]\n[relay]\nhosts = [\"192.0.2.0/24\"]\n";
        const OPEN: &str = "[notify]\nto = [\"abuse@example.org\"]\n[relay]\nhosts = [\"0.0.0.0/0\"]\n";
        let one = |name: &str| vec![(name.to_owned(), "unknown scheme".to_owned())];
        for (facts, text, expected) in [
            (well(), QUIET, &[][..]),
            (well(), "", &[(Warning, "notify")]),
            (well(), RELAY, &[]),
            (well(), OPEN, &[(Warning, "relay")]),
            (
                local::Facts {
                    users: UsersFile::Usable {
                        shut_out: vec![],
                        barred: vec![],
                        offered: 3,
                        unknown: vec![("[limit] exempt", "newsletter".to_owned())],
                    },
                    ..well()
                },
                QUIET,
                &[(Warning, "users")],
            ),
            (well(), &format!("{QUIET}[[listen]]\naddress = \"127.0.0.1:465\"\n"), &[(Warning, "listen")]),
            (
                well(),
                &format!("{QUIET}[[listen]]\naddress = \"127.0.0.1:587\"\ntls = \"implicit\"\n"),
                &[(Warning, "listen")],
            ),
            (well(), &format!("{QUIET}[[listen]]\naddress = \"127.0.0.1:2465\"\n"), &[]),
            (well(), &format!("{QUIET}[session]\nmax_message_size = \"63KiB\"\n"), &[(Warning, "session")]),
            (well(), &format!("{QUIET}[session]\nmax_message_size = \"64KiB\"\n"), &[]),
            (
                local::Facts { read_as: Err("there is no such user".to_owned()), ..well() },
                QUIET,
                &[(Error, "process")],
            ),
            (local::Facts { descriptors: Some(10_290), ..well() }, QUIET, &[]),
            (local::Facts { descriptors: Some(10_289), ..well() }, QUIET, &[(Warning, "descriptors")]),
            (
                local::Facts { certificate: Certificate::ToBeMade, ..well() },
                QUIET,
                &[(Warning, "certificate")],
            ),
            (
                local::Facts { certificate: Certificate::Unusable("no key".to_owned()), ..well() },
                QUIET,
                &[(Error, "certificate")],
            ),
            (
                local::Facts { expiring: vec![(expiring(), false)], ..well() },
                QUIET,
                &[(Warning, "certificate")],
            ),
            (local::Facts { expiring: vec![(expiring(), true)], ..well() }, QUIET, &[(Error, "certificate")]),
            (local::Facts { users: UsersFile::Missing, ..well() }, QUIET, &[(Error, "users")]),
            (local::Facts { users: UsersFile::Missing, ..well() }, RELAY, &[]),
            (local::Facts { senders: Some("line 3".to_owned()), ..well() }, QUIET, &[(Error, "senders")]),
            (
                local::Facts { users: UsersFile::Unusable { why: "line 3".to_owned(), cure: "" }, ..well() },
                RELAY,
                &[(Error, "users")],
            ),
            (local::Facts { users: usable(one("anna"), vec![], 3), ..well() }, QUIET, &[(Warning, "users")]),
            (
                local::Facts {
                    users: usable(vec![], vec![("SCRAM-SHA-256", "bob".to_owned())], 2),
                    ..well()
                },
                QUIET,
                &[(Warning, "users")],
            ),
            (local::Facts { users: usable(vec![], vec![], 0), ..well() }, QUIET, &[(Error, "users")]),
            (local::Facts { users: usable(vec![], vec![], 0), ..well() }, RELAY, &[]),
            (
                local::Facts { unusable: Some("read-only".to_owned()), ..well() },
                QUIET,
                &[(Error, "data_dir")],
            ),
            (local::Facts { open_secrets: vec![open_secret()], ..well() }, QUIET, &[(Warning, "upstream")]),
            (local::Facts { foreign: Some(foreign()), ..well() }, QUIET, &[(Warning, "data_dir")]),
            (
                local::Facts { foreign: Some(foreign()), unusable: Some("root's".to_owned()), ..well() },
                QUIET,
                &[(Error, "data_dir")],
            ),
            (local::Facts { exposed: vec!["/data".into()], ..well() }, QUIET, &[(Warning, "data_dir")]),
            // No cure for the modes or the owner of what is not ours.
            (
                local::Facts {
                    exposed: vec!["/proc".into()],
                    unusable: Some("not writable".to_owned()),
                    ..well()
                },
                QUIET,
                &[(Error, "data_dir")],
            ),
            (
                local::Facts {
                    exposed: vec!["/etc".into()],
                    foreign: Some(foreign()),
                    stranger: Some("passwd".to_owned()),
                    ..well()
                },
                QUIET,
                &[(Warning, "data_dir")],
            ),
            (
                local::Facts {
                    open_secrets: vec![secret_of("users")],
                    users: usable(vec![], vec![], 0),
                    ..well()
                },
                QUIET,
                &[(Error, "users")],
            ),
            (
                local::Facts {
                    open_secrets: vec![secret_of("certificate")],
                    certificate: Certificate::Unusable("no key".to_owned()),
                    ..well()
                },
                QUIET,
                &[(Error, "certificate")],
            ),
            (
                local::Facts {
                    open_secrets: vec![secret_of("webhook")],
                    notify: vec!["no secret".to_owned()],
                    ..well()
                },
                QUIET,
                &[(Error, "notify")],
            ),
            // Nothing expires before a digest has announced it; without digests, expiry waits for nothing.
            (
                well(),
                "[notify]\nto = [\"abuse@example.org\"]\n[quarantine]\nexpire_after = \"1h\"\n",
                &[(Warning, "quarantine")],
            ),
            (
                well(),
                "[notify]\nto = [\"abuse@example.org\"]\ndigest = \"1h\"\n[quarantine]\nexpire_after = \"2h\"\n",
                &[],
            ),
            (
                well(),
                "[notify]\nto = [\"abuse@example.org\"]\ndigest = \"off\"\n[quarantine]\nexpire_after = \"1h\"\n",
                &[],
            ),
            (well(), "[quarantine]\nexpire_after = \"1h\"\n", &[(Warning, "notify")]),
            (
                well(),
                "[notify]\nto = [\"abuse@example.org\"]\n[limit]\naction = \"refuse\"\n",
                &[(Warning, "limit")],
            ),
            (
                well(),
                "[notify]\nto = [\"abuse@example.org\"]\n[limit]\naction = \"refuse\"\n[detection]\non_alarm = \"notify\"\n",
                &[],
            ),
        ] {
            let found = local(&facts, &config(text));
            let found: Vec<_> = found.iter().map(|finding| (finding.severity, finding.about)).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
