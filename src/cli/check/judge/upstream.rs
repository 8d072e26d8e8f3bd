//! Findings about the upstreams.

use super::super::Severity;
use super::super::upstream::{Asked, Facts, Place, Said, Sender, Talk, Unwelcome};
use super::{Finding, error, warning};
use crate::config::Config;
use crate::guard::{Outcome, Rules, classify, denies_relaying};
use crate::smtp::Reply;
use crate::upstream::Address;

/// A login or, before it, TLS is wanted (RFC 4954 6, RFC 3207 4).
const UNAUTHENTICATED: u16 = 530;

/// Findings about all upstreams.
pub(super) fn findings(all: &[(Address, Facts)], config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let anybody = all.iter().any(|(_, facts)| matches!(facts, Facts::Answers { .. }));
    for (address, facts) in all {
        for mut finding in upstream(address, facts, config) {
            if anybody && matches!(facts, Facts::Unreachable(_)) {
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

fn upstream(address: &Address, facts: &Facts, config: &Config) -> Vec<Finding> {
    let (offers_xclient, talks, notices) = match facts {
        Facts::Unusable(why) => {
            return vec![error("upstream", why.clone(), "Mend that file, or the key that names it")];
        }
        Facts::Unreachable(why) => {
            let finding = format!("the upstream {address} cannot be used: {why}");
            return vec![error(
                "upstream",
                finding,
                "Start it, or correct [upstream]: address, tls, tls_name and ca, username and password_file",
            )];
        }
        Facts::Answers { offers_xclient, talks, notices } => (*offers_xclient, talks, notices),
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
            match is_about_sender(reply) {
                true => "Set [notify] from to a sender that it accepts from Gatepost's address",
                false => "Correct [notify] to, or let the upstream take mail for it from Gatepost's address",
            },
        ),
    }
}

/// Whether a reply to RCPT is about the address given with MAIL: bad syntax or system (RFC 3463 3.2), or in Postfix' words;
/// Postfix says it only at RCPT.
fn is_about_sender(reply: &Reply) -> bool {
    reply.enhanced.is_some_and(|code| code.subject == 1 && matches!(code.detail, 7 | 8))
        || reply.text.contains("Sender address rejected")
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
            match (reply.code, &talk.sender) {
                (UNAUTHENTICATED, _) if reply.text.contains("STARTTLS") => {
                    "It wants an encrypted connection: set [upstream] tls to \"starttls\""
                }
                (UNAUTHENTICATED, Sender::Gatepost) => {
                    "It wants a login of Gatepost's own: set [upstream] username and password_file"
                }
                _ => permit(&talk.sender),
            },
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
            "Let the upstream take mail from Gatepost's address; in Postfix: put it in mynetworks, in Exim: in the list that the \
             ACL for RCPT lets relay (relay_from_hosts)"
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
            "Let the upstream verify foreign recipients; in Postfix: reject_unverified_recipient, in Exim: verify = \
             recipient/callout. If it does, and hands mail to a smart host, the README's \"smart host\" says how it asks the \
             recipients' own servers all the same",
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

    use super::super::sample::config;
    use super::*;

    fn address(port: u16) -> Address {
        Address::Tcp { host: "192.0.2.1".to_owned(), port }
    }

    #[test]
    fn several_upstreams() {
        use Severity::{Error, Warning};
        let down = || Facts::Unreachable("connection refused".to_owned());
        let blind = || {
            let asked =
                Asked { domain: "a.example".to_owned(), place: Place::Own, reply: reply("250 2.1.5 Ok") };
            let talk = Talk { sender: Sender::Gatepost, said: Said::Recipients(vec![asked]) };
            Facts::Answers { offers_xclient: true, talks: vec![talk], notices: Vec::new() }
        };
        let text = "[upstream]\ncanary = [\"example.net\"]\n";
        for (all, expected) in [
            (vec![down(), down()], &[(Error, "upstream", 25), (Error, "upstream", 26)][..]),
            // The other upstream takes its mail.
            (vec![down(), blind()], &[(Warning, "upstream", 25), (Error, "blind", 26)]),
        ] {
            let all: Vec<_> = (25..).map(address).zip(all).collect();
            let found = findings(&all, &config(text));
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
        let facts = Facts::Answers { offers_xclient: true, talks, notices: Vec::new() };
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
    fn who_is_to_log_in_or_to_encrypt() {
        let login = "530 5.7.0 Authentication required";
        for (sender, text, cure) in [
            (Sender::Gatepost, login, "[upstream] username"),
            (Sender::Gatepost, "530 5.7.0 Must issue a STARTTLS command first", "[upstream] tls"),
            (Sender::Login("anna".to_owned()), login, "permit_sasl_authenticated"),
        ] {
            let talk = Talk { sender, said: Said::MailRefused(reply(text)) };
            let facts = Facts::Answers { offers_xclient: true, talks: vec![talk], notices: Vec::new() };
            let found = upstream(&address(25), &facts, &config("[upstream]\ncanary = [\"example.net\"]\n"));
            assert!(found.len() == 1 && found[0].cure.contains(cure), "{text}: {}", found[0].cure);
        }
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
            // Postfix says this at RCPT, about the sender.
            (
                Unwelcome::To("abuse@example.org".to_owned(), reply("450 4.1.8 Sender address rejected")),
                "puts off mail to abuse@example.org",
            ),
            (
                Unwelcome::To(
                    "abuse@example.org".to_owned(),
                    reply("550 5.1.0 <x>: Sender address rejected"),
                ),
                "refuses mail to abuse@example.org",
            ),
        ] {
            let facts = Facts::Answers { offers_xclient: true, talks: Vec::new(), notices: vec![unwelcome] };
            let found = upstream(&address(25), &facts, &config(text));
            assert_eq!((found.len(), found[0].severity, found[0].about), (1, Severity::Warning, "notify"));
            assert!(found[0].finding.contains(part), "{}", found[0].finding);
            let names_sender = found[0].cure.contains("[notify] from");
            assert_eq!(names_sender, part.contains("from") || found[0].finding.contains("Sender"));
        }
    }

    #[test]
    fn whether_the_upstream_is_there() {
        let down = Facts::Unreachable("connection refused".to_owned());
        let found = upstream(&address(25), &down, &config(""));
        assert_eq!(found.iter().map(|finding| finding.severity).collect::<Vec<_>>(), [Severity::Error]);
        let plain = || Facts::Answers { offers_xclient: false, talks: Vec::new(), notices: Vec::new() };
        for (text, expected) in [
            ("[upstream]\ncanary = [\"example.net\"]\n", &["xclient"][..]),
            ("[upstream]\ncanary = [\"example.net\"]\nxclient = false\n", &[]),
        ] {
            let found = upstream(&address(25), &plain(), &config(text));
            assert_eq!(found.iter().map(|finding| finding.about).collect::<Vec<_>>(), expected, "{text}");
        }
    }
}
