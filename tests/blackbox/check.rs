//! CONTRACT, Commands: what `check` finds, and its exit status.

use std::process::Stdio;

use crate::support::free_address;
use crate::support::gatepost::{Gatepost, Setup};
use crate::support::mta::{DOMAIN, FOREIGN, Foreign, Kind, Mta};
use crate::support::program::run;
use crate::support::scripted::{Answer, EXTENSIONS, Scripted};
use crate::support::smtp::Smtp;

/// Exit status and everything that was said.
fn check(gatepost: &Gatepost) -> (i32, String) {
    let finished = gatepost.run(&["check"]);
    (finished.status.code().unwrap(), format!("{}{}", finished.stdout, finished.stderr).to_lowercase())
}

fn expect(gatepost: &Gatepost, status: i32, words: &[&str]) {
    let (found, text) = check(gatepost);
    assert_eq!(found, status, "exit status of check:\n{text}");
    for word in words {
        assert!(text.contains(word), "no `{word}` in\n{text}");
    }
}

/// Exit 0 with a warning: no canary, no `[notify] to`.
#[test]
#[ignore = "needs tests/install: Postfix"]
fn a_good_postfix_passes_with_warnings() {
    let mta = Mta::postfix();
    expect(&Setup::new(mta.address).write(), 0, &["canary", "notify"]);
    expect(&Setup::new(mta.address).relay().write(), 0, &["canary", "notify"]);
}

/// A file that is not there is named with the line that names it, and is no matter of the MTA's.
#[test]
fn a_file_for_the_upstream_is_named_with_its_line() {
    let upstream = Scripted::start();
    let setup =
        Setup::new(upstream.address).set("upstream.username", "gate").set("upstream.password_file", "nope");
    expect(&setup.write(), 1, &[".toml:", "[upstream] password_file = \"nope\": ", "mend that file"]);
}

/// Exit 0 with a warning: no XCLIENT offered.
#[test]
#[ignore = "needs tests/install: Exim"]
fn a_good_exim_passes_with_warnings() {
    let mta = Mta::exim();
    expect(&Setup::new(mta.address).write(), 0, &["xclient"]);
}

/// Exit 1: blind at a canary domain: a Postfix that takes foreign mail from its users without asking.
#[test]
#[ignore = "needs tests/install: Postfix"]
fn a_postfix_that_does_not_verify_is_blind_at_foreign_domains() {
    let mta = Mta::postfix();
    expect(
        &Setup::new(mta.address).set("upstream.canary", vec!["canary.example"]).write(),
        1,
        &["canary.example"],
    );
    let behind = Mta::start(Kind::Postfix, FOREIGN, Foreign::Unrouted);
    let verifying =
        Mta::start(Kind::Postfix, DOMAIN, Foreign::Verified { by: behind.address, reject_code: None });
    expect(
        &Setup::new(verifying.address)
            .set("upstream.canary", vec![FOREIGN])
            .notify("abuse@mta.example")
            .write(),
        0,
        &[],
    );
}

/// Exit 1: mail refused to relay hosts: they are not in the Postfix's `mynetworks`.
#[test]
#[ignore = "needs tests/install: Postfix"]
fn a_relay_network_that_postfix_does_not_know_is_found() {
    let mta = Mta::postfix();
    expect(&Setup::new(mta.address).set("relay.hosts", vec!["192.0.2.0/24"]).write(), 1, &["relay"]);
}

#[test]
fn findings_that_would_keep_it_from_working() {
    // The upstream is not there.
    expect(&Setup::new(free_address()).write(), 1, &["upstream"]);

    // It says 250 to everybody.
    let blind =
        Scripted::with(|asked| if asked.verb == "RCPT" { Answer::reply("250 2.1.5 Ok") } else { None });
    expect(&Setup::new(blind.address).write(), 1, &["mta.example"]);

    // It refuses XCLIENT though it offers it.
    let mut extensions = EXTENSIONS.to_vec();
    extensions.push("XCLIENT NAME ADDR PORT PROTO HELO LOGIN");
    let refusing = Scripted::offering(extensions.clone(), |asked| {
        if asked.verb == "XCLIENT" { Answer::reply("550 5.7.0 not you") } else { None }
    });
    expect(&Setup::new(refusing.address).write(), 1, &["xclient"]);

    // It denies relaying.
    let denying = Scripted::with(|asked| match asked.verb {
        "RCPT" if !asked.path().ends_with("@mta.example") => Answer::reply("554 5.7.1 Relay access denied"),
        _ => None,
    });
    expect(&Setup::new(denying.address).write(), 1, &["relay"]);

    // It denies relaying only where it has verified the recipient, as an Exim may.
    let verifying = Scripted::with(|asked| match (asked.verb, asked.path()) {
        ("RCPT", path) if path.starts_with("gatepost-check-") => Answer::reply("550 5.1.1 Unknown"),
        ("RCPT", "postmaster@foreign.example") => Answer::reply("550 relay not permitted"),
        _ => None,
    });
    let setup = Setup::new(verifying.address).set("upstream.canary", vec!["foreign.example"]);
    expect(&setup.write(), 1, &["mail to foreign domains: 550 relay not permitted"]);

    // It refuses one of the networks.
    let one = Scripted::offering(extensions, |asked| {
        let is_refused = asked.verb == "XCLIENT" && asked.line.contains("198.51.100.1");
        is_refused.then(|| Answer::Reply("550 5.7.0 not you".to_owned()))
    });
    let setup = Setup::new(one.address).set("relay.hosts", vec!["192.0.2.0/24", "198.51.100.0/24"]);
    expect(&setup.write(), 1, &["xclient", "198.51.100.1"]);

    // It wants a login.
    let wants = Scripted::with(|asked| match asked.verb {
        "MAIL" => Answer::reply("530 5.7.0 Authentication required"),
        _ => None,
    });
    expect(&Setup::new(wants.address).write(), 1, &["[upstream] username and password_file"]);

    // It puts all mail off: that is inconclusive, as it is of a recipient.
    let busy =
        Scripted::with(|asked| if asked.verb == "MAIL" { Answer::reply("451 4.3.0 later") } else { None });
    expect(&Setup::new(busy.address).write(), 0, &["warning: the upstream puts off mail from"]);

    // No certificate where one is named.
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("tls.certificate", "not-there.pem").write();
    expect(&gatepost, 1, &["not-there.pem"]);
}

/// A hash of an unknown scheme shuts out that user alone; `check` names it. And: a mechanism that some user could not use is not
/// offered, and `check` says which user.
#[test]
fn users_with_hashes_that_do_not_serve_are_named() {
    let upstream = Scripted::with(|asked| match asked.verb {
        "RCPT" if asked.path().contains("example.com") => Answer::reply("250 2.1.5 Ok"),
        "RCPT" => Answer::reply("550 5.1.1 unknown"),
        _ => None,
    });
    let gatepost = Setup::new(upstream.address).user_line("odd:{NO-SUCH-SCHEME}xyz\nlocked:\n").write();
    expect(&gatepost, 0, &["user odd cannot log in", "user locked cannot log in: the line has no hash"]);
    // What `check` says does it.
    let passwd = ["user", "passwd", "locked", "--password-stdin"];
    run(&mut gatepost.command(&passwd), b"secret\n").expect(0);
    assert!(!check(&gatepost).1.contains("locked"));
    let bcrypt = "crypted:{BLF-CRYPT}$2y$05$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe\n";
    let mut gatepost = Setup::new(upstream.address).user_line(bcrypt).write();
    expect(&gatepost, 0, &["crypted", "scram"]);
    gatepost.start();
    let ehlo = Smtp::secured(gatepost.starttls).ehlo();
    assert!(ehlo.text().contains("PLAIN") && !ehlo.text().contains("SCRAM"), "{}", ehlo.text());
}

/// An upstream that says 250 to everybody makes all of this blind: `serve` and `status` say so loudly, over restarts too.
#[test]
fn serve_and_status_say_that_the_upstream_is_blind() {
    let upstream = Scripted::start();
    let mut gatepost = Setup::new(upstream.address).start();
    let mut client = gatepost.login("alice");
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    let ask = |client: &mut Smtp, count: usize| {
        let commands = "RCPT TO:<bob@mta.example>\r\n".repeat(count);
        client.send(commands.as_bytes());
        (0..count).for_each(|_| drop(client.expect_reply(250)));
    };
    for _ in 0..9 {
        ask(&mut client, 111);
    }
    let status = gatepost.run(&["status"]).expect(0);
    assert_eq!(status.stderr, "");
    assert!(status.stdout.contains("none of 999; at foreign domains: none asked."), "{}", status.stdout);
    ask(&mut client, 1);
    gatepost.expect_log("that it is blind", |line| line.to_string().contains("BLIND"));
    let status = gatepost.run(&["status", "--json"]).expect(0);
    assert!(
        status.stderr.contains("BLIND") && status.stdout.is_empty(),
        "{}{}",
        status.stdout,
        status.stderr
    );
    assert!(
        gatepost
            .run(&["status"])
            .expect(0)
            .stdout
            .contains("none of 1000; at foreign domains: none asked. It seems to be BLIND")
    );
    client.quit();
    gatepost.terminate();
    assert!(gatepost.run(&["status"]).expect(0).stderr.contains("BLIND"), "while `serve` is down");
    gatepost.start();
    assert!(gatepost.run(&["status"]).expect(0).stderr.contains("BLIND"));
}

/// What everybody can read or change is no secret.
#[test]
fn files_that_are_open_to_everybody_are_named() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).write();
    let allow = |name: &str, mode| {
        let path = gatepost.folder().join(name);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    for (users, key, expected) in [
        (0o600, 0o640, &[][..]),
        (0o666, 0o600, &["users has mode 0666"]),
        (0o602, 0o644, &["users has mode 0602", "server.key has mode 0644"]),
    ] {
        allow("users", users);
        allow("server.key", key);
        let (_, text) = check(&gatepost);
        assert_eq!(text.matches(" has mode ").count(), expected.len(), "{text}");
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
        assert_eq!(text.matches("run: chmod 600 ").count(), expected.len(), "{text}");
    }
}

/// A notice that the upstream does not take tells nobody; what the configuration names and nobody knows does nothing. None of it
/// keeps Gatepost from working.
#[test]
fn what_would_have_no_effect_is_a_warning() {
    let upstream = Scripted::with(|asked| match asked.verb {
        "RCPT" if asked.path().contains("example.com") || asked.path().contains("desk@") => None,
        "RCPT" => Answer::reply("550 5.1.1 User unknown"),
        _ => None,
    });
    let setup =
        || Setup::new(upstream.address).set("notify.to", vec!["desk@mta.example", "gone@mta.example"]);
    let gatepost = setup()
        .set("limit.exempt", vec!["alice", "news@mta.example"])
        .set("upstream.domains", vec!["mta.example"])
        .set("upstream.canary", vec!["mta.example"])
        .set("session.max_message_size", "1KiB")
        .write();
    expect(
        &gatepost,
        0,
        &[
            "warning: the upstream refuses mail to gone@mta.example, so that notices do not arrive there: 550 5.1.1",
            "warning: [limit] exempt names news@mta.example, and there is no such user",
            "warning: foreign recipients were not tested, since",
            "warning: [session] max_message_size is less than",
        ],
    );
    let (_, text) = check(&gatepost);
    assert!(!text.contains("desk@") && !text.contains("names alice"), "{text}");
}

/// Nobody is told to change the modes or the owner of what another program needs.
#[test]
fn what_is_not_gateposts_is_left_as_it_is() {
    let upstream = Scripted::start();
    let shared = tempfile::tempdir().unwrap();
    std::fs::write(shared.path().join("top.txt"), "").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(shared.path(), mode).unwrap();
    let folder = shared.path().to_str().unwrap();
    for (key, value, part) in [
        ("data_dir", folder, "it holds `top.txt`. set data_dir to a folder of its own"),
        ("data_dir", "/etc/passwd", "data_dir cannot be used"),
        ("data_dir", "/proc", "data_dir cannot be used"),
        ("auth.users", "/etc/passwd", "nobody can log in"),
        ("auth.users", folder, "is a directory"),
        ("tls.private_key", "/etc/passwd", "no private key"),
        ("tls.private_key", "/etc", "is a directory"),
    ] {
        let (_, text) = check(&Setup::new(upstream.address).set(key, value).write());
        assert!(text.contains(part), "{key} = {value}: {text}");
        // The other files of this configuration are Gatepost's.
        let about_it = |line: &&str| line.contains(&value.to_lowercase());
        let harmful = |line: &str| line.contains("chmod") || line.contains("chown");
        assert!(!text.lines().filter(about_it).any(harmful), "{key} = {value}: {text}");
    }
}

/// `serve` raises the soft limit by itself; the hard one is what counts.
#[test]
fn few_descriptors_are_those_that_serve_cannot_have() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("session.max_connections", 100).write();
    for (soft, hard, expected) in [(64, 400, false), (64, 350, true)] {
        let command = gatepost.command(&["check"]);
        let mut limited = std::process::Command::new("sh");
        limited.args(["-c", &format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$@\""), "sh"]);
        limited.arg(command.get_program()).args(command.get_args()).current_dir(gatepost.folder());
        let said = run(&mut limited, b"").stdout;
        assert!(said.contains("canary"), "it ran: {said}");
        assert_eq!(said.contains("files open here"), expected, "{soft} of {hard}: {said}");
    }
}

/// `check | head -1`: the exit status tells of all that was found.
#[test]
fn whoever_stops_reading_is_told_the_verdict_all_the_same() {
    let gatepost = Setup::new(free_address()).write();
    let mut command =
        gatepost.command(&["check"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(command.stdout.take());
    assert_eq!(command.wait().unwrap().code(), Some(1));
}

/// Root sees everything; `serve` will be another user by the time it reads its files.
#[test]
#[ignore = "needs root: tests/run runs it"]
fn files_are_read_as_the_user_that_serve_will_be() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).set("process.user", "nobody").write();
    let allow = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    allow(gatepost.folder(), 0o755);
    let readable = |name: &str, mode| allow(&gatepost.folder().join(name), mode);
    ["users", "server.key", "server.pem"].into_iter().for_each(|name| readable(name, 0o644));
    let read_as = "(read as `nobody`, [process] user)";
    let (_, text) = check(&gatepost);
    assert!(!text.contains(read_as) && !text.contains("data_dir"), "{text}");
    for name in ["users", "server.key"] {
        readable(name, 0o600);
        let (status, text) = check(&gatepost);
        let finding = text.lines().find(|line| line.contains(name) && line.contains(read_as));
        assert!(status == 1 && finding.is_some_and(|line| line.starts_with("error: ")), "{name}: {text}");
        readable(name, 0o644);
    }
    // A pair that is there, in a folder that this user may not enter, is none that is yet to be made.
    let certs = gatepost.folder().join("certs");
    std::fs::create_dir(&certs).unwrap();
    for (name, default) in [("server.pem", "server.crt"), ("server.key", "server.key")] {
        std::fs::copy(gatepost.folder().join(name), certs.join(default)).unwrap();
    }
    allow(&certs, 0o700);
    let file = gatepost.folder().join("config.toml");
    let mut table: toml::Table = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    table.remove("tls");
    std::fs::write(&file, table.to_string()).unwrap();
    let (status, text) = check(&gatepost);
    let finding = text.lines().find(|line| line.starts_with("error: ") && line.contains("certs/server"));
    assert!(status == 1 && finding.is_some_and(|line| line.contains(read_as)), "{text}");
    expect(
        &Setup::new(upstream.address).set("process.user", "no-such-user").write(),
        1,
        &["there is no such user"],
    );
}
