//! The documented default configuration and the code agree; every bad configuration is refused with the exact words
//! that its folder in `bad_configs` expects.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use gatepost::config::{Config, NamedFiles, keys};
use gatepost::guard::detector::Test;
use gatepost::guard::ledger::{Leniency, OnAlarm};

const MACHINE: &str = "mail.example.org";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("/etc/gatepost/config.toml"), MACHINE)
        .unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_documented_defaults_are_those_of_an_empty_file() {
    let documented = fs::read_to_string(root().join("config.toml")).unwrap();
    // Where a key stands is another matter.
    let values = |text: &str| format!("{:#?}", Config { files: NamedFiles::default(), ..parse(text) });
    assert_eq!(values(&documented), values(""));
}

/// The documented file with its examples: lines in which `#` stands before a key or a table, without a blank.
fn with_examples() -> String {
    let documented = fs::read_to_string(root().join("config.toml")).unwrap();
    let line = |line: &str| match line.strip_prefix('#') {
        Some(example) if example.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
            format!("{example}\n")
        }
        _ => format!("{line}\n"),
    };
    documented.lines().map(line).collect()
}

#[test]
fn the_examples_are_valid() {
    let examples = parse(&with_examples()).policy.rules;
    assert_eq!(examples.len(), 1);
    assert_eq!(examples[0].invalid_recipients, Some(500));
}

#[test]
fn every_key_is_documented_and_no_other() {
    let documented: toml::Table = with_examples().parse().unwrap();
    let mut written = BTreeSet::new();
    for (name, value) in &documented {
        match value {
            toml::Value::Table(table) => {
                written.extend(table.keys().map(|key| format!("[{name}] {key}")));
                for (inner, value) in table {
                    let keys = value.as_table().into_iter().flat_map(toml::Table::keys);
                    written.extend(keys.map(|key| format!("[{name}.{inner}] {key}")));
                }
            }
            toml::Value::Array(tables) if tables.iter().any(toml::Value::is_table) => {
                for table in tables.iter().filter_map(toml::Value::as_table) {
                    written.extend(table.keys().map(|key| format!("[[{name}]] {key}")));
                }
            }
            _ => {
                written.insert(name.clone());
            }
        }
    }
    let is_table = |value: &toml::Value| {
        value.is_table() || value.as_array().is_some_and(|a| a.iter().any(toml::Value::is_table))
    };
    let tables: Vec<&String> = documented.iter().filter(|(_, v)| is_table(v)).map(|(name, _)| name).collect();
    let known: BTreeSet<String> = keys().into_iter().filter(|key| !tables.contains(&key)).collect();
    assert_eq!(written, known);
}

#[test]
fn a_comment_stands_above_every_key() {
    let documented = with_examples();
    let mut listeners = 0;
    let mut above = "";
    for line in documented.lines() {
        listeners += usize::from(line == "[[listen]]");
        // The second listener repeats the keys of the first.
        if line.contains(" = ") && !line.starts_with('#') && listeners != 2 {
            assert!(above.starts_with('#'), "nothing says why one would change `{line}`");
        }
        if line.starts_with("[tls]") {
            listeners = 0;
        }
        above = line;
    }
}

#[test]
fn bad_configurations() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for folder in fs::read_dir(root().join("tests/bad_configs")).unwrap() {
        let folder = folder.unwrap().path();
        let text = fs::read_to_string(folder.join("config.toml")).unwrap();
        let expected = fs::read_to_string(folder.join("expected")).unwrap_or_default();
        let machine = if folder.ends_with("machine_without_a_name") { "my_machine" } else { MACHINE };
        let found = match Config::parse(&text, Path::new("config.toml"), machine) {
            Ok(_) => "no problem".to_owned(),
            Err(problems) => problems.to_string(),
        };
        if found.trim_end() != expected.trim_end() {
            wrong.push(format!("{}\nexpected:\n{expected}\nfound:\n{found}\n", folder.display()));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 25, "{count} bad configurations");
}

#[test]
fn what_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("config.toml");
    let problem = Config::load(&missing, MACHINE).unwrap_err().to_string();
    assert!(
        problem.starts_with(&format!("{}: cannot be read: No such file", missing.display())),
        "{problem}"
    );
    fs::write(&missing, b"# one\nhostname = \"\xff\"\n").unwrap();
    let problem = Config::load(&missing, MACHINE).unwrap_err().to_string();
    assert_eq!(problem, format!("{}:2: is not UTF-8 from this line on", missing.display()));
}

#[test]
fn paths_are_relative_to_the_file() {
    let config = parse("data_dir = \"data\"\n[auth]\nusers = \"/srv/users\"\n[upstream]\nca = \"own.pem\"\n");
    assert_eq!(config.data_dir, Path::new("/etc/gatepost/data"));
    assert_eq!(config.auth.users, Path::new("/srv/users"));
    assert_eq!(config.upstream.settings.ca.as_deref(), Some(Path::new("/etc/gatepost/own.pem")));
    assert_eq!(config.tls.certificate, Path::new("/etc/gatepost/certs/server.crt"));
}

#[test]
fn a_pair_is_made_at_the_two_default_paths_alone() {
    for (tls, expected) in [
        ("", true),
        ("certificate = \"certs/server.crt\"\nprivate_key = \"./certs/server.key\"", true),
        ("certificate = \"/etc/gatepost/certs/server.crt\"", true),
        ("certificate = \"mine.crt\"", false),
        ("private_key = \"mine.key\"", false),
    ] {
        assert_eq!(parse(&format!("[tls]\n{tls}\n")).tls.may_generate, expected, "{tls}");
    }
}

#[test]
fn what_follows_from_the_host_name() {
    for (hostname, domains, from) in [
        ("", &["mail.example.org", "example.org"][..], "gatepost@mail.example.org"),
        ("MX.Example.com", &["mx.example.com", "example.com"], "gatepost@MX.Example.com"),
        // One label would be a top-level domain.
        ("example.org", &["example.org"], "gatepost@example.org"),
        ("localhost", &["localhost"], "gatepost@localhost"),
    ] {
        let config = parse(&format!("hostname = \"{hostname}\"\n"));
        assert_eq!(config.upstream.domains, domains, "{hostname}");
        assert_eq!(config.notify.from, from);
    }
    let config = parse("[upstream]\ndomains = [\"Example.NET\"]\n[notify]\nfrom = \"abuse@example.net\"\n");
    assert_eq!(config.upstream.domains, ["example.net"]);
    assert_eq!(config.notify.from, "abuse@example.net");
}

#[test]
fn the_name_in_the_upstreams_certificate() {
    for (upstream, name) in [
        ("address = [\"mx.example.org:25\", \"my.example.org:26\"]\ntls = \"starttls\"", "mx.example.org"),
        ("address = \"mx.example.org:25\"\ntls = \"starttls\"", "mx.example.org"),
        ("address = \"192.0.2.1:25\"\ntls = \"implicit\"\ntls_name = \"mx.example.org\"", "mx.example.org"),
        ("address = \"[2001:db8::1]:25\"", "2001:db8::1"),
    ] {
        assert_eq!(
            parse(&format!("[upstream]\n{upstream}\n")).upstream.settings.endpoints[0].tls_name,
            name,
            "{upstream}"
        );
    }
}

#[test]
fn listeners_that_are_written_replace_the_defaults() {
    let config = parse("[[listen]]\naddress = \"127.0.0.1:0\"\n");
    let addresses: Vec<String> = config.listen.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(addresses, ["127.0.0.1:0"]);
    assert_eq!(parse("").listen.len(), 2);
}

#[test]
fn relay_hosts_alone_are_enough() {
    let config =
        parse("[auth]\nmechanisms = []\n[relay]\nhosts = [\"::ffff:192.0.2.0/120\", \"2001:db8::1\"]\n");
    let hosts: Vec<String> = config.relay_hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["192.0.2.0/24", "2001:db8::1/128"]);
}

#[test]
fn what_is_different_for_some_accounts() {
    let policy = parse(
        "[limit]\ninvalid_recipients = 50\nexempt = [\"ben\"]\n[detection]\non_alarm = \"block\"\nthreshold = 10\n\
         [[account]]\nmatch = \"newsletter@example.org\"\ninvalid_recipients = 500\nusual_share = 0.1\n\
         [[account]]\nmatch = \"*@example.org\"\nperiod = \"2h\"\nobserve = true\n\
         [[account]]\nmatch = \"2001:db8::1\"\nexempt = true\n",
    )
    .policy;
    for (name, limit, hours, leniency) in [
        ("newsletter@example.org", 500, 1, Leniency::None),
        ("anna@example.org", 50, 2, Leniency::Observed),
        ("host:2001:db8::7", 50, 1, Leniency::Exempt),
        ("ben", 50, 1, Leniency::Exempt),
        ("carl", 50, 1, Leniency::None),
    ] {
        let terms = policy.terms(&name.parse().unwrap());
        let found = (terms.rule.limit, terms.rule.period.as_secs() / 3600, terms.leniency, terms.on_alarm);
        assert_eq!(found, (limit, hours, leniency, OnAlarm::Block), "{name}");
        assert_eq!(terms.test, Test::new(if limit == 500 { 0.1 } else { 0.05 }, 0.3, 10.0), "{name}");
    }
}

#[test]
fn several_upstreams() {
    let own_names = "address = [\"a.example:25\", \"b.example:26\"]\ntls = \"implicit\"";
    let one_name =
        "address = [\"192.0.2.1:25\", \"b.example:26\"]\ntls = \"implicit\"\ntls_name = \"mx.example\"";
    let mixed = "address = [\"unix:run/mta\", \"[2001:db8::1]:25\"]";
    for (upstream, expected) in [
        (own_names, [("a.example:25", "a.example"), ("b.example:26", "b.example")]),
        (one_name, [("192.0.2.1:25", "mx.example"), ("b.example:26", "mx.example")]),
        (mixed, [("unix:/etc/gatepost/run/mta", ""), ("[2001:db8::1]:25", "2001:db8::1")]),
    ] {
        let settings = parse(&format!("[upstream]\n{upstream}\n")).upstream.settings;
        let found: Vec<_> = settings
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.address.to_string(), endpoint.tls_name.as_str()))
            .collect();
        assert_eq!(found, expected.map(|(address, name)| (address.to_owned(), name)));
    }
}

#[test]
fn who_we_are_at_the_upstream() {
    let settings = |text: &str| parse(&format!("[upstream]\n{text}\n")).upstream.settings;
    let login = "username = \"gate@example.org\"\npassword_file = \"secret\"";
    for place in [
        "address = \"mx.example.org:587\"\ntls = \"starttls\"",
        "address = \"mx.example.org:465\"\ntls = \"implicit\"",
        "address = \"[::1]:2587\"",
        "address = [\"localhost:587\", \"unix:mta\"]",
    ] {
        let settings = settings(&format!("{place}\n{login}"));
        let credentials = settings.credentials.as_ref().unwrap();
        assert_eq!(credentials.username, "gate@example.org");
        assert_eq!(credentials.password_file, Path::new("/etc/gatepost/secret"));
        assert!(settings.xclient && !settings.names_clients(), "one login for all, or a name for each");
    }
    let pair = "client_certificate = \"gate.crt\"\nclient_key = \"gate.key\"";
    let settings = settings(&format!("address = \"mx.example.org:465\"\ntls = \"implicit\"\n{pair}"));
    assert_eq!(settings.identity.unwrap().private_key, Path::new("/etc/gatepost/gate.key"));
}

#[test]
fn timeouts_by_verb_and_what_stands_in_for_them() {
    for (text, expected) in [
        ("", [150, 150, 150, 150, 600]),
        ("timeout = \"5m\"\ndata_timeout = \"20m\"", [300, 300, 300, 300, 1200]),
        ("[upstream.timeouts]\nmail = \"1m\"\nrcpt = \"2m\"", [60, 120, 150, 150, 600]),
        ("timeout = \"5m\"\n[upstream.timeouts]\ndata = \"15m\"\nmail = \"\"", [300, 300, 900, 300, 900]),
    ] {
        let timeouts = parse(&format!("[upstream]\n{text}\n")).upstream.settings.timeouts;
        let found = [timeouts.mail, timeouts.rcpt, timeouts.data, timeouts.block, timeouts.end];
        assert_eq!(found.map(|duration| duration.as_secs()), expected, "{text}");
    }
}
