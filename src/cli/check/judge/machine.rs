//! Findings about this machine.

use std::time::Duration;

use super::super::folder::Foreign;
use super::super::local::{Certificate, Facts, UsersFile};
use super::{Finding, error, path_word, warning};
use crate::config::{Action, Config, ListenTls};
use crate::guard::ledger::OnAlarm;
use crate::net::tls::Expiring;
use crate::units;
use crate::visible::shell_word;

/// The longest wait for a digest once one has announced a message.
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// File descriptors needed beside those of the connections: listeners, the database, files being written.
const RESERVE: u64 = 200;

/// The size of a message that every server must take, in octets (RFC 5321 4.5.3.1.7).
const LEAST_SIZE: u64 = 64 * 1024;

const RENEW: &str = "Renew it; a running `serve` reads the new one by itself";

/// Findings about this machine.
pub(super) fn findings(facts: &Facts, config: &Config) -> Vec<Finding> {
    let checks: [fn(&Facts, &Config) -> Vec<Finding>; 11] = [
        process,
        data_dir,
        certificates,
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

fn process(facts: &Facts, _config: &Config) -> Vec<Finding> {
    let why = facts.read_as.as_ref().err();
    why.map(|why| error("process", why.clone(), "Make that user, or set another [process] user"))
        .into_iter()
        .collect()
}

/// Why a file cannot be used, and by which user.
fn read(facts: &Facts, why: &str) -> String {
    match &facts.read_as {
        Ok(Some(user)) => format!("{why} (read as `{user}`, [process] user)"),
        _ => why.to_owned(),
    }
}

fn data_dir(facts: &Facts, config: &Config) -> Vec<Finding> {
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
        let cure = format!("Run: chown -R {expected} {}", path_word(&config.data_dir));
        findings.push(warning("data_dir", finding, cure));
    }
    for path in &facts.exposed {
        let finding = format!(
            "{} can be read by other users, and parked mail is nobody else's business",
            path.display()
        );
        findings.push(warning("data_dir", finding, format!("Run: chmod go= {}", path_word(path))));
    }
    findings
}

fn certificates(facts: &Facts, _config: &Config) -> Vec<Finding> {
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

fn senders(facts: &Facts, _config: &Config) -> Vec<Finding> {
    let why = facts.senders.as_ref();
    why.map(|why| error("senders", read(facts, why), "Mend that file, or [sender] map")).into_iter().collect()
}

fn notify(facts: &Facts, config: &Config) -> Vec<Finding> {
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
fn withheld(_facts: &Facts, config: &Config) -> Vec<Finding> {
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

fn relay_hosts(_facts: &Facts, config: &Config) -> Vec<Finding> {
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
fn listeners(_facts: &Facts, config: &Config) -> Vec<Finding> {
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

fn sizes(_facts: &Facts, config: &Config) -> Vec<Finding> {
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

fn users(facts: &Facts, config: &Config) -> Vec<Finding> {
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
                let cure = format!("Run: gatepost user passwd {}", shell_word(name));
                findings.push(warning("users", format!("user {name} cannot log in: {why}"), cure));
            }
            for (mechanism, name) in barred {
                let finding = format!(
                    "{mechanism} is not offered, since user {name} (the first such) could not use it"
                );
                let cure = format!(
                    "Run: gatepost user passwd {}; or take {mechanism} out of [auth] mechanisms",
                    shell_word(name)
                );
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

fn descriptors(facts: &Facts, config: &Config) -> Vec<Finding> {
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

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::super::sample::{config, usable, well};
    use super::*;
    use crate::clock::Timestamp;

    fn expiring() -> Expiring {
        Expiring { not_after: Timestamp::from_millis(0), certificate: "/etc/a.crt".into() }
    }

    fn foreign() -> Foreign {
        Foreign { path: "/data/secret".into(), owner: "root".to_owned(), expected: "gatepost".to_owned() }
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
            let found = findings(&well(), &config(text));
            assert!(
                found.iter().any(|finding| finding.about == "notify" && finding.finding.starts_with(part)),
                "{text}"
            );
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
                Facts {
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
                Facts { read_as: Err("there is no such user".to_owned()), ..well() },
                QUIET,
                &[(Error, "process")],
            ),
            (Facts { descriptors: Some(10_290), ..well() }, QUIET, &[]),
            (Facts { descriptors: Some(10_289), ..well() }, QUIET, &[(Warning, "descriptors")]),
            (Facts { certificate: Certificate::ToBeMade, ..well() }, QUIET, &[(Warning, "certificate")]),
            (
                Facts { certificate: Certificate::Unusable("no key".to_owned()), ..well() },
                QUIET,
                &[(Error, "certificate")],
            ),
            (Facts { expiring: vec![(expiring(), false)], ..well() }, QUIET, &[(Warning, "certificate")]),
            (Facts { expiring: vec![(expiring(), true)], ..well() }, QUIET, &[(Error, "certificate")]),
            (Facts { users: UsersFile::Missing, ..well() }, QUIET, &[(Error, "users")]),
            (Facts { users: UsersFile::Missing, ..well() }, RELAY, &[]),
            (Facts { senders: Some("line 3".to_owned()), ..well() }, QUIET, &[(Error, "senders")]),
            (
                Facts { users: UsersFile::Unusable { why: "line 3".to_owned(), cure: "" }, ..well() },
                RELAY,
                &[(Error, "users")],
            ),
            (Facts { users: usable(one("anna"), vec![], 3), ..well() }, QUIET, &[(Warning, "users")]),
            (
                Facts { users: usable(vec![], vec![("SCRAM-SHA-256", "bob".to_owned())], 2), ..well() },
                QUIET,
                &[(Warning, "users")],
            ),
            (Facts { users: usable(vec![], vec![], 0), ..well() }, QUIET, &[(Error, "users")]),
            (Facts { users: usable(vec![], vec![], 0), ..well() }, RELAY, &[]),
            (Facts { unusable: Some("read-only".to_owned()), ..well() }, QUIET, &[(Error, "data_dir")]),
            (Facts { foreign: Some(foreign()), ..well() }, QUIET, &[(Warning, "data_dir")]),
            (
                Facts { foreign: Some(foreign()), unusable: Some("root's".to_owned()), ..well() },
                QUIET,
                &[(Error, "data_dir")],
            ),
            (Facts { exposed: vec!["/data".into()], ..well() }, QUIET, &[(Warning, "data_dir")]),
            // No cure for the modes or the owner of what is not ours.
            (
                Facts { exposed: vec!["/proc".into()], unusable: Some("not writable".to_owned()), ..well() },
                QUIET,
                &[(Error, "data_dir")],
            ),
            (
                Facts {
                    exposed: vec!["/etc".into()],
                    foreign: Some(foreign()),
                    stranger: Some("passwd".to_owned()),
                    ..well()
                },
                QUIET,
                &[(Warning, "data_dir")],
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
            let found = findings(&facts, &config(text));
            let found: Vec<_> = found.iter().map(|finding| (finding.severity, finding.about)).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
    #[test]
    fn cures_to_copy_hold_each_name_as_one_word() {
        let name = "an'na$(reboot)".to_owned();
        let users =
            usable(vec![(name.clone(), "no hash".to_owned())], vec![("SCRAM-SHA-256", name.clone())], 1);
        let exposed = vec!["/srv/our mail".into()];
        let found = findings(&Facts { users, exposed, ..well() }, &config(""));
        let cures: Vec<_> = found.iter().map(|finding| finding.cure.as_str()).collect();
        for expected in [
            r"Run: gatepost user passwd 'an'\''na$(reboot)'",
            r"Run: gatepost user passwd 'an'\''na$(reboot)'; or take SCRAM-SHA-256 out",
            "Run: chmod go= '/srv/our mail'",
        ] {
            assert!(cures.iter().any(|cure| cure.starts_with(expected)), "{expected}: {cures:?}");
        }
    }
}
