//! `gatepost replay`: on logs that real Postfix, real Exim and Gatepost itself wrote, and its command line.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::gatepost::{PASSWORD, Setup};
use crate::support::mta::{DOMAIN, FOREIGN, Foreign, Kind, Mta};
use crate::support::program::{self, Finished};
use crate::support::smtp::{Smtp, message};
use crate::support::wait_for;

/// The longest that a bounce takes to be in the log.
const DELIVERY: Duration = Duration::from_secs(60);

fn replay(arguments: &[&str], folder: &Path, input: &[u8]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    program::run(command.arg("replay").args(arguments).current_dir(folder), input)
}

/// A configuration by which each account with an invalid recipient is told of.
fn told_of_all(folder: &Path) -> String {
    let config = folder.join("replay.toml");
    fs::write(&config, "[limit]\ninvalid_recipients = 1\n").unwrap();
    config.to_str().unwrap().to_owned()
}

/// Of each account: accepted, invalid, refused for another reason; and the whole object.
fn attributed(log: &Path, more: &[&str]) -> (BTreeMap<String, [u64; 3]>, Value) {
    let folder = tempfile::tempdir().unwrap();
    let config = told_of_all(folder.path());
    let arguments = [&["--config", &config, "--json", log.to_str().unwrap()], more].concat();
    let report = replay(&arguments, folder.path(), b"").expect(0).json_lines().remove(0);
    let number = |value: &Value| value.as_u64().unwrap();
    let accounts = report["suspects"].as_array().unwrap().iter().map(|suspect| {
        let counts = ["accepted", "invalid", "refused_otherwise"].map(|key| number(&suspect[key]));
        (suspect["account"].as_str().unwrap().to_owned(), counts)
    });
    (accounts.collect(), report)
}

/// Waits until the log attributes this much, and not a recipient more; `inbound` recipients are strangers'.
fn expect_attributed(log: &Path, more: &[&str], expected: &[(&str, [u64; 3])], inbound: u64) -> Value {
    let expected: BTreeMap<String, [u64; 3]> =
        expected.iter().map(|(account, counts)| ((*account).to_owned(), *counts)).collect();
    let mut last = None;
    let found = wait_for(DELIVERY, || {
        let (accounts, report) = attributed(log, more);
        let whole = accounts == expected && report["left_out"]["inbound"] == inbound;
        last = Some((accounts, report["left_out"].clone()));
        whole.then_some(report)
    });
    found.unwrap_or_else(|| {
        panic!("{last:?}, not {expected:?} and {inbound}:\n{}", fs::read_to_string(log).unwrap())
    })
}

fn local(name: &str) -> String {
    format!("{name}@{DOMAIN}")
}

fn foreign(name: &str) -> String {
    format!("{name}@{FOREIGN}")
}

/// One message; of each recipient the reply code that is expected.
fn send(client: &mut Smtp, sender: &str, recipients: &[(String, u16)]) {
    client.expect(&format!("MAIL FROM:<{sender}>"), 250);
    for (recipient, code) in recipients {
        client.expect(&format!("RCPT TO:<{recipient}>"), *code);
    }
    if recipients.iter().any(|(_, code)| *code == 250) {
        client.data(&message("replay"), 250);
    } else {
        client.expect("RSET", 250);
    }
}

/// Issue and README: each accepted or refused recipient, and each later bounce, belongs to who authenticated.
#[test]
#[ignore = "needs tests/install: Postfix"]
fn what_postfix_logs_behind_gatepost() {
    let second = Mta::start(Kind::Postfix, FOREIGN, Foreign::Unrouted);
    let first = Mta::start(Kind::Postfix, DOMAIN, Foreign::Taken { by: second.address });
    let gatepost = Setup::new(first.address).relay().start();
    let mut alice = gatepost.login("alice");
    let list = [
        (local("nobody-1"), 550), // refused before any is accepted
        (local("bob"), 250),
        (local("nobody-2"), 550),
        (local("refused"), 550),
        (local("full"), 452),
        (local("carol"), 250),
    ];
    send(&mut alice, &local("alice"), &list);
    // Taken by the first, and bounced when the second refuses it, for two reasons.
    send(
        &mut alice,
        &local("alice"),
        &[(foreign("bob"), 250), (foreign("nobody-3"), 250), (foreign("listed"), 250)],
    );
    let mut bob = gatepost.login("bob");
    send(&mut bob, &local("bob"), &[(local("nobody-4"), 550), (local("dave"), 250)]);
    let mut printer = gatepost.relay();
    send(&mut printer, &local("printer"), &[(local("nobody-5"), 550), (local("dave"), 250)]);
    // Mail from elsewhere.
    let mut stranger = Smtp::connect(first.address);
    stranger.ehlo();
    send(&mut stranger, "x@else.example", &[(local("nobody-6"), 550), (local("dave"), 250)]);
    for client in [alice, bob, printer, stranger] {
        client.quit();
    }
    let host = "host:127.0.0.2";
    let expected = [("user:alice", [3, 3, 3]), ("user:bob", [1, 1, 0]), (host, [1, 1, 0])];
    let report = expect_attributed(&first.log_file(), &["--relay", "127.0.0.2/32"], &expected, 2);
    assert_eq!((&report["left_out"]["unnamed"], &report["unreadable"]), (&0.into(), &0.into()), "{report}");
    // Without --relay the printer is a stranger too.
    expect_attributed(&first.log_file(), &[], &expected[..2], 4);

    // Gatepost's own log says the same, but for what became of mail later.
    let own = gatepost.folder().join("gatepost.log");
    let expected = [("user:alice", [5, 2, 2]), ("user:bob", [1, 1, 0]), (host, [1, 1, 0])];
    let whole = wait_for(DELIVERY, || {
        fs::write(&own, gatepost.log_text()).unwrap();
        (attributed(&own, &[]).0.len() == 3).then_some(())
    });
    assert_eq!(whole, Some(()), "{}", gatepost.log_text());
    expect_attributed(&own, &[], &expected, 0);
}

#[test]
#[ignore = "needs tests/install: Exim"]
fn what_exim_logs_of_its_own_users() {
    let second = Mta::start(Kind::Exim, FOREIGN, Foreign::Unrouted);
    let first = Mta::start(Kind::Exim, DOMAIN, Foreign::Taken { by: second.address });
    let login = |user: &str| {
        let mut client = Smtp::connect(first.address);
        client.ehlo();
        client.auth_plain(user, PASSWORD, 235);
        client
    };
    let mut alice = login("alice");
    let list = [
        (local("nobody-1"), 550),
        (local("bob"), 250),
        (local("nobody-2"), 550),
        (local("refused"), 550),
        (local("full"), 452),
        (local("carol"), 250),
    ];
    send(&mut alice, &local("alice"), &list);
    send(
        &mut alice,
        &local("alice"),
        &[(foreign("bob"), 250), (foreign("nobody-3"), 250), (foreign("listed"), 250)],
    );
    // A name with an @, and one that is in capitals now and then.
    let mut bob = login(&local("Bob"));
    send(&mut bob, "", &[(local("nobody-4"), 550), (local("dave"), 250)]);
    let mut again = login(&local("bob"));
    send(
        &mut again,
        "\"a A=plain_server:alice S=1\"@mta.example",
        &[(local("nobody-7"), 550), (local("dave"), 250)],
    );
    let mut stranger = Smtp::connect(first.address);
    stranger.ehlo();
    send(&mut stranger, "x@else.example", &[(local("nobody-6"), 550), (local("dave"), 250)]);
    for client in [alice, bob, again, stranger] {
        client.quit();
    }
    let expected = [("user:alice", [3, 3, 3]), ("user:bob@mta.example", [2, 2, 0])];
    let report = expect_attributed(&first.log_file(), &[], &expected, 2);
    assert_eq!(report["unreadable"], 0, "{report}");
    let with_host = [&expected[..], &[("host:127.0.0.1", [1, 1, 0])]].concat();
    expect_attributed(&first.log_file(), &["--relay", "127.0.0.1"], &with_host, 0);
}

/// MTAs that verify foreign recipients say in their logs what the recipient's server told them.
#[test]
#[ignore = "needs tests/install: Postfix, Exim"]
fn what_verifying_mtas_log() {
    let second = Mta::start(Kind::Postfix, FOREIGN, Foreign::Unrouted);
    let asked = |client: &mut Smtp, refused: u16| {
        client.set_patience(DELIVERY);
        client.expect(&format!("MAIL FROM:<{}>", local("alice")), 250);
        client.expect(&format!("RCPT TO:<{}>", foreign("bob")), 250);
        for recipient in ["nobody-1", "gone", "listed", "disabled"] {
            client.expect(&format!("RCPT TO:<{}>", foreign(recipient)), refused);
        }
        client.data(&message("replay"), 250);
    };
    let expected = [("user:alice", [1, 2, 2])];

    let postfix =
        Mta::start(Kind::Postfix, DOMAIN, Foreign::Verified { by: second.address, reject_code: None });
    let gatepost = Setup::new(postfix.address).start();
    asked(&mut gatepost.login("alice"), 550);
    expect_attributed(&postfix.log_file(), &[], &expected, 0);

    let exim = Mta::start(Kind::Exim, DOMAIN, Foreign::Verified { by: second.address, reject_code: None });
    let mut alice = Smtp::connect(exim.address);
    alice.ehlo();
    alice.auth_plain("alice", PASSWORD, 235);
    asked(&mut alice, 550);
    expect_attributed(&exim.log_file(), &[], &expected, 0);
}

/// A thief's hour in a log of Postfix's, from 10:00 on: each third of `recipients` does not exist.
fn thiefs_hour(recipients: u64, day: &str) -> String {
    let mut log = format!(
        "{day}T10:00:00Z mx postfix/smtpd[7]: 4F9D1: client=x[198.51.100.9], sasl_method=PLAIN, sasl_username=<anna>\n"
    );
    for number in 0..recipients {
        let (minute, second) = (number / 60 % 60, number % 60);
        let fate = match number % 3 {
            0 => {
                "dsn=5.1.1, status=bounced (host mx said: 550 5.1.1 User unknown (in reply to RCPT TO command))"
            }
            _ => "dsn=2.0.0, status=sent (250 Ok)",
        };
        log.push_str(&format!(
            "{day}T10:{minute:02}:{second:02}Z mx postfix/smtp[9]: 4F9D1: to=<a{number}@d{number}.example>, relay=mx, delay=1, delays=1/0/0/0, {fate}\n"
        ));
    }
    log
}

/// README: files and standard input, plain and gzip, several in any order; no configuration is needed.
#[test]
fn logs_as_they_lie_around() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (thiefs_hour(300, "2026-11-23"), thiefs_hour(150, "2026-11-24"));
    let put = |name: &str, octets: &[u8]| fs::write(folder.path().join(name), octets).unwrap();
    put("mail.log", second.as_bytes());
    put("mail.log.1.gz", &gzip(first.as_bytes()));
    let accepted = |finished: Finished| finished.expect(0).json_lines()[0]["accepted"].as_u64();
    for (arguments, input, expected) in [
        (&["mail.log", "mail.log.1.gz", "--json"][..], &b""[..], 300),
        (&["mail.log.1.gz", "mail.log", "--json"], b"", 300),
        (&["--json"], first.as_bytes(), 200),
        (&["--json", "-"], &gzip(first.as_bytes()), 200),
        (&["--json", "-", "mail.log"], &gzip(first.as_bytes()), 300),
        (&["mail.log", "mail.log.1.gz", "--json", "--since", "2026-11-24T00:00:00Z"], b"", 100),
        (&["mail.log", "mail.log.1.gz", "--json", "--until", "2026-11-24T00:00:00Z"], b"", 200),
    ] {
        assert_eq!(accepted(replay(arguments, folder.path(), input)), Some(expected), "{arguments:?}");
    }
    // One that breaks off: what came before counts, and it is said.
    let whole = gzip(first.as_bytes());
    put("broken.gz", &whole[..whole.len() / 2]);
    let broken = replay(&["broken.gz", "--json"], folder.path(), b"").expect(0);
    assert!(
        broken.stderr.contains("warning: broken.gz: ") && broken.stderr.lines().count() == 1,
        "{}",
        broken.stderr
    );
    assert!(accepted(broken).is_some_and(|accepted| (1..200).contains(&accepted)));
}

/// What lies outside the time asked for is not taken for a log of something else.
#[test]
fn a_time_in_which_there_is_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let log = thiefs_hour(300, "2026-11-23");
    for more in [&["--since", "2026-11-24T00:00:00Z"][..], &["--until", "2026-11-22T00:00:00Z"]] {
        let said = replay(more, folder.path(), log.as_bytes()).expect(1).stderr;
        assert!(
            said.contains(
                "every line that can be read lies before --since or after --until (301 lines in all)"
            ),
            "{said}"
        );
    }
    // Within it, another program's alone.
    let more = "2026-11-25T00:00:00Z mx kernel: x\n";
    let said = replay(&["--since", "2026-11-24T00:00:00Z"], folder.path(), (log.clone() + more).as_bytes())
        .expect(1);
    assert!(said.stderr.contains("none of the 302 lines tells "), "{}", said.stderr);
    // The wrong way round is a mistake in the command.
    let said = replay(&["--since", "1h", "--until", "2h"], folder.path(), log.as_bytes()).expect(2).stderr;
    assert!(said.contains("--since is later than --until"), "{said}");
}

/// The table, the recommendation and the picture.
#[test]
fn what_people_see() {
    let folder = tempfile::tempdir().unwrap();
    let log = thiefs_hour(600, "2026-11-24");
    let finished = replay(&["-", "--plot", "a.svg"], folder.path(), log.as_bytes()).expect(0);
    for wanted in [
        "LIMIT",
        "user:<anna>",
        "a thief's",
        "Recommended: Set [limit] invalid_recipients = 100 and [detection] usual_share",
    ] {
        assert!(finished.stdout.contains(wanted), "{wanted} is not in\n{}", finished.stdout);
    }
    assert_eq!(finished.stderr, "");
    let svg = fs::read_to_string(folder.path().join("a.svg")).unwrap();
    assert!(
        svg.starts_with("<svg ") && svg.contains("user:&lt;anna&gt;") && svg.ends_with("</svg>\n"),
        "{svg}"
    );

    // A configuration that is there is heeded.
    fs::write(
        folder.path().join("config.toml"),
        "[limit]\ninvalid_recipients = 120\nexempt = [\"<anna>\"]\n",
    )
    .unwrap();
    let report = replay(&["--json"], folder.path(), log.as_bytes()).expect(0).json_lines().remove(0);
    let yours: Vec<_> =
        report["settings"].as_array().unwrap().iter().filter(|row| row["yours"] == true).cloned().collect();
    assert_eq!(
        (yours.len(), &yours[0]["invalid_recipients"], &yours[0]["blocked"]),
        (1, &120.into(), &0.into())
    );
    assert_eq!(report["suspects"][0]["exempt"], true);
    fs::write(folder.path().join("config.toml"), "[limit]\nsomething = 120\n").unwrap();
    replay(&["--json"], folder.path(), log.as_bytes()).expect(1);
}

/// A log of Postfix's, of so many messages in five lines each, two a second: three recipients, of which every fortieth bounces, from
/// a thousand accounts.
fn write_log(file: &Path, messages: u64) {
    let mut log = BufWriter::new(fs::File::create(file).unwrap());
    for number in 0..messages {
        let (day, second) = (1 + number / 2 / 86_400, number / 2 % 86_400);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let head = format!("2026-11-{day:02}T{hour:02}:{minute:02}:{second:02}Z mx postfix/");
        let (id, user) = (format!("{:X}", 0x4F_0000_0000 + number), number % 1_000);
        writeln!(log, "{head}smtpd[7]: {id}: client=x[198.51.100.9], sasl_method=PLAIN, sasl_username=u{user}@example.org").unwrap();
        for place in 3 * number..3 * number + 3 {
            let fate = match place % 40 {
                0 => {
                    "dsn=5.1.1, status=bounced (host mx said: 550 5.1.1 User unknown (in reply to RCPT TO command))"
                }
                _ => "dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 4FKZzs0lzqz1Z)",
            };
            writeln!(
                log,
                "{head}smtp[9]: {id}: to=<r{place}@d{}.example>, relay=mx.example[203.0.113.7]:25, delay=1, delays=1/0/0/0, {fate}",
                place % 3_000
            )
            .unwrap();
        }
        writeln!(log, "{head}qmgr[8]: {id}: removed").unwrap();
    }
    log.flush().unwrap();
}

/// A million lines in seconds, in bounded memory. The file is larger than what is allowed.
#[test]
#[ignore = "a million lines: half a minute in a debug build"]
fn a_million_lines_in_bounded_memory() {
    const MOST_KIB: u64 = 96 * 1024;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("mail.log");
    write_log(&log, 200_000);
    assert!(fs::metadata(&log).unwrap().len() > MOST_KIB * 1024);
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .args(["replay", "--json", "mail.log"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    // The peak stands there until the end; of one that is gone there is nothing more to read.
    let ended = wait_for(Duration::from_secs(900), || {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(peak);
        child.try_wait().unwrap()
    });
    assert!(ended.is_some_and(|status| status.success()), "{ended:?} after {:?}", begun.elapsed());
    let report: Value = serde_json::from_reader(child.stdout.take().unwrap()).unwrap();
    println!("{:?}, {peak} KiB at most", begun.elapsed());
    assert_eq!((&report["lines"], &report["unreadable"]), (&1_000_000.into(), &0.into()));
    assert_eq!(
        report["invalid"].as_u64().unwrap() + report["accepted"].as_u64().unwrap(),
        600_000 - report["no_room"].as_u64().unwrap()
    );
    assert!((1..=MOST_KIB).contains(&peak), "{peak} KiB");
}

/// On a terminal a bar, gone again at the end; elsewhere nothing.
#[test]
fn how_far_it_has_got() {
    let folder = tempfile::tempdir().unwrap();
    write_log(&folder.path().join("mail.log"), 10_000);
    let clean = replay(&["--json", "mail.log"], folder.path(), b"").expect(0);
    assert_eq!(clean.stderr, "");
    // util-linux's script gives it a terminal, and what it wrote there to us.
    let command = format!("{} replay --json mail.log >report", env!("CARGO_BIN_EXE_gatepost"));
    let mut script = Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).current_dir(folder.path());
    let shown = program::run(&mut script, b"").expect(0).stdout;
    assert!(
        shown.starts_with("\r[") && shown.contains(" %  ") && shown.contains("000 lines read\u{1b}[K"),
        "{shown:?}"
    );
    assert!(shown.trim_end_matches(['\r', '\n']).ends_with("\r\u{1b}[K"), "{shown:?}");
    assert_eq!(fs::read_to_string(folder.path().join("report")).unwrap(), clean.stdout);
}

/// CONTRACT, Commands: 1 it failed, one line says why and what to do; 2 usage.
#[test]
fn what_cannot_be_done() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, input, status, said) in [
        (&["missing.log"][..], &b""[..], 1, "missing.log cannot be read: "),
        (&["."], b"", 1, ". cannot be read: "),
        (&["-"], b"", 1, "none of the 0 lines tells of a message or a recipient"),
        (&["-"], b"hello\nworld\n", 1, "none of the 2 lines tells of a message or a recipient"),
        (&["-", "--relay", "printer"], b"", 2, "neither an address nor a network"),
    ] {
        let finished = replay(arguments, folder.path(), input).expect(status);
        assert!(finished.stderr.contains(said), "{arguments:?}: {}", finished.stderr);
        assert!(status == 2 || finished.stderr.lines().count() == 1, "{}", finished.stderr);
        assert_eq!(finished.stdout, "");
    }
}

fn gzip(octets: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap()
}
