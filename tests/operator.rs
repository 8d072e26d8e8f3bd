//! The commands, as an operator gives them: the real binary, with and without a running `serve`, in front of the
//! practice MTA.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use gatepost::demo::practice::{Directory, Practice};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

const MESSAGE: &str = "From: thief@example.org\r\nTo: anna@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\
    Message-ID: <1@example.org>\r\n\r\nHello \u{1b}[31mthere\r\n.a dot\r\n";

/// An installation: a folder, its configuration, the MTA behind it.
struct Site {
    folder: TempDir,
    _runtime: tokio::runtime::Runtime,
    practice: Practice,
}

impl Site {
    fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let directory =
            Directory::new(&["example.org", "example.com"], &["anna@example.org", "bert@example.org"]);
        let practice = runtime.block_on(Practice::start(directory)).unwrap();
        let config = format!(
            "hostname = \"gatepost.example.org\"\ndata_dir = \"data\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
             [upstream]\naddress = \"{}\"\ndomains = [\"example.org\"]\n[relay]\nhosts = [\"127.0.0.0/8\"]\n\
             [limit]\ninvalid_recipients = 3\n[session]\nmax_connections = 50\n{more}",
            practice.address()
        );
        fs::write(folder.path().join("config.toml"), config).unwrap();
        Self { folder, _runtime: runtime, practice }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command.current_dir(self.path()).args(line.split_whitespace());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.run_with(line, "")
    }

    fn run_with(&self, line: &str, input: &str) -> Output {
        let mut child = self
            .command(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let id = child.id();
        let (done, wait) = mpsc::channel();
        let waiter = std::thread::spawn(move || done.send(child.wait_with_output()).unwrap());
        let output = wait.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            kill(id, rustix::process::Signal::KILL);
            panic!("`{line}` does not end")
        });
        waiter.join().unwrap();
        output.unwrap()
    }

    /// Runs a command that must be done; says what it printed.
    fn done(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(0), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The objects that a command prints.
    fn objects(&self, line: &str) -> Vec<Value> {
        let printed = self.done(&format!("{line} --json"));
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Runs a command that must fail, with one line; says which.
    fn fails(&self, line: &str) -> String {
        let output = self.run(line);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "`{line}`: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "`{line}`: {complaint}");
        complaint
    }
}

fn kill(id: u32, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
    let _ = rustix::process::kill_process(id, signal);
}

/// A running `serve`.
struct Serve {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
    address: SocketAddr,
}

impl Serve {
    fn start(site: &Site) -> Self {
        let mut child = site.command("serve").stderr(Stdio::piped()).spawn().unwrap();
        let (line, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
        let mut serve = Self { child, lines, seen: Vec::new(), address: ([127, 0, 0, 1], 0).into() };
        let listening = serve.wait_for("\"listening\"");
        let listening: Value = serde_json::from_str(&listening).unwrap();
        serve.address = listening["address"].as_str().unwrap().parse().unwrap();
        serve.wait_for("gatepost is serving");
        serve
    }

    /// The first line of the log, from the beginning on, that has all these parts.
    fn wait_for(&mut self, parts: &str) -> String {
        let parts: Vec<&str> = parts.split('&').collect();
        let matches = |line: &String| parts.iter().all(|part| line.contains(part));
        if let Some(line) = self.seen.iter().find(|line| matches(line)) {
            return line.clone();
        }
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("no line with {parts:?} in {:#?}", self.seen)
            };
            self.seen.push(line.clone());
            if matches(&line) {
                return line;
            }
        }
    }

    fn stop(mut self) {
        kill(self.child.id(), rustix::process::Signal::TERM);
        self.wait_for("stopped");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client.
struct Smtp {
    stream: BufReader<TcpStream>,
}

impl Smtp {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self { stream: BufReader::new(stream) };
        assert!(client.reply().starts_with("220"));
        client.say("EHLO client.example.org", "250");
        client
    }

    fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let begin = reply.len();
            assert!(self.stream.read_line(&mut reply).unwrap() > 0, "closed after {reply:?}");
            if reply.get(begin + 3..begin + 4) != Some("-") {
                return reply;
            }
        }
    }

    fn say(&mut self, line: &str, expected: &str) -> String {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
        let reply = self.reply();
        assert!(reply.starts_with(expected), "{line}: {reply}");
        reply
    }

    /// Sends the message; says what the client was told at its end.
    fn send(&mut self, recipients: &[&str]) -> String {
        self.say("MAIL FROM:<thief@example.org>", "250");
        for recipient in recipients {
            self.say(&format!("RCPT TO:<{recipient}>"), "250");
        }
        self.say("DATA", "354");
        self.say(&format!("{}.", MESSAGE.replace("\r\n.", "\r\n..")), "250")
    }

    /// Gets the account blocked.
    fn dirt(&mut self) {
        self.say("MAIL FROM:<thief@example.org>", "250");
        for n in 0..3 {
            let expected = if n < 2 { "550" } else { "250" };
            self.say(&format!("RCPT TO:<nobody{n}@example.org>"), expected);
        }
        self.say("RSET", "250");
    }
}

const ACCOUNT: &str = "host:127.0.0.1";

#[test]
fn an_operators_day() {
    let site = Site::new("");
    let mut serve = Serve::start(&site);
    assert_eq!(site.objects("status"), Vec::<Value>::new());
    assert!(site.done("quarantine list").contains("The quarantine is empty"));

    let mut thief = Smtp::connect(serve.address);
    thief.dirt();
    let told = thief.send(&["anna@example.org", "nobody@example.org"]);

    let status = site.objects("status");
    let [account] = status.as_slice() else { panic!("{status:?}") };
    for (key, expected) in [
        ("account", Value::from(ACCOUNT)),
        ("state", "blocked".into()),
        ("invalid_recipients", 3.into()),
        ("limit", 3.into()),
        ("period_seconds", 3600.into()),
        ("blocked_by", "limit".into()),
        ("parked", 1.into()),
        ("sessions", 1.into()),
        ("probation_until", Value::Null),
        ("awaited", 0.into()),
        ("next_due", Value::Null),
    ] {
        assert_eq!(account[key], expected, "{key}: {account}");
    }
    for key in ["first", "last", "blocked_at"] {
        assert!(account[key].as_str().unwrap().ends_with('Z'), "{key}: {account}");
    }
    assert!(account.as_object().unwrap().contains_key("reason"));
    assert!(site.done("status").contains("3 of 3 in 1h"));

    let listed = site.objects("quarantine list");
    let [entry] = listed.as_slice() else { panic!("{listed:?}") };
    for (key, expected) in [
        ("account", Value::from(ACCOUNT)),
        ("sender", "thief@example.org".into()),
        ("recipients", vec!["anna@example.org", "nobody@example.org"].into()),
        ("size", MESSAGE.len().into()),
        ("subject", "Grüße".into()),
        ("state", "parked".into()),
        ("due", Value::Null),
    ] {
        assert_eq!(entry[key], expected, "{key}: {entry}");
    }
    let id = entry["id"].as_str().unwrap();
    for (filter, found) in [
        ("--account host:127.0.0.1", 1),
        ("--account anna", 0),
        ("--sender THIEF", 1),
        ("--sender honest", 0),
        ("--subject grüß", 1),
        ("--since 1h", 1),
        ("--since 2100-01-01T00:00:00Z", 0),
        ("--limit 1", 1),
        ("--limit 0", 0),
    ] {
        assert_eq!(site.objects(&format!("quarantine list {filter}")).len(), found, "{filter}");
    }

    let shown = site.done(&format!("quarantine show {id}"));
    assert!(shown.contains("Grüße") && shown.contains("not asked"), "{shown}");
    assert!(shown.contains("Hello \u{fffd}[31mthere") && !shown.contains('\u{1b}'), "{shown:?}");
    let shown = site.objects(&format!("quarantine show {id}"));
    assert_eq!(shown[0]["envelope"]["id"], id);
    let queue_id = told.split_whitespace().last().unwrap();
    assert_eq!(site.objects(&format!("quarantine show {queue_id}"))[0]["id"], id, "{told}");
    assert_eq!(site.done(&format!("quarantine show --raw {id}")), MESSAGE);

    let exported = site.objects(&format!("quarantine export {id} --output evidence"));
    assert_eq!(exported[0]["size"], MESSAGE.len());
    let evidence = site.path().join("evidence");
    assert_eq!(fs::read(evidence.join(format!("{id}.eml"))).unwrap(), MESSAGE.as_bytes());
    let checked =
        Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(&evidence).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    site.done(&format!("quarantine export {id} --output evidence"));
    fs::write(evidence.join(format!("{id}.eml")), "tampered").unwrap();
    assert!(site.fails(&format!("quarantine export {id} --output evidence")).contains("other content"));

    // The first of its recipients exists, the second does not.
    let released = site.run(&format!("quarantine release {id} --json --quiet"));
    assert_eq!(released.status.code(), Some(0), "{}", String::from_utf8_lossy(&released.stderr));
    let released: Value = serde_json::from_slice(&released.stdout).unwrap();
    assert_eq!(released["outcome"], "released");
    assert_eq!(released["delivered"][0]["recipient"], "anna@example.org");
    assert_eq!(released["refused"][0]["recipient"], "nobody@example.org");
    assert!(released["refused"][0]["reply"].as_str().unwrap().starts_with("550 5.1.1"), "{released}");
    assert_eq!(released["deferred"], Value::Array(Vec::new()));
    assert_eq!(site.practice.letters().count(|letter| letter.is_to("anna@example.org")), 1);
    assert!(site.fails(&format!("quarantine release {id}")).contains("no message"));

    thief.send(&["nobody@example.org"]);
    thief.send(&["bert@example.org"]);
    let parked = site.objects("quarantine list");
    let first = parked[0]["id"].as_str().unwrap();
    let failed = site.run(&format!("quarantine release {first} --json"));
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(serde_json::from_slice::<Value>(&failed.stdout).unwrap()["outcome"], "failed");
    assert_eq!(site.objects("quarantine list")[0]["state"], "failed");
    assert_eq!(site.objects(&format!("quarantine delete {first}"))[0]["outcome"], "deleted");
    assert!(site.fails(&format!("quarantine delete {first}")).contains("no message"));

    let unblocked = site.objects(&format!("unblock {ACCOUNT} --release --kick"));
    assert_eq!((&unblocked[0]["sessions"], &unblocked[0]["released"]), (&1.into(), &1.into()));
    assert!(thief.say("NOOP", "421").contains("4.7.0"));
    assert_eq!(site.practice.letters().count(|letter| letter.is_to("bert@example.org")), 1);
    assert_eq!(site.objects("status"), Vec::<Value>::new());
    // What is so already is done.
    site.done(&format!("unblock {ACCOUNT}"));
    site.done("kick anna");

    for (command, object) in [
        ("status", "all accounts"),
        ("quarantine list", "all"),
        ("quarantine list", "--sender THIEF"),
        ("quarantine show", id),
        ("quarantine show --raw", id),
        ("quarantine export", id),
        ("quarantine release --quiet", id),
        ("quarantine delete", first),
        ("unblock", ACCOUNT),
        ("kick", ACCOUNT),
    ] {
        let line = serve.wait_for(&format!("\"audit\"&\"command\":\"{command}\"&\"object\":\"{object}\""));
        let line: Value = serde_json::from_str(&line).unwrap();
        assert!(!line["user"].as_str().unwrap().is_empty(), "{line}");
    }
    serve.stop();
}

/// How many audit lines wait for the next start.
fn waiting(site: &Site) -> usize {
    let names = fs::read_dir(site.path().join("data")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("audit-pending")).count()
}

/// `serve` ran: an account is blocked, and has a message in the quarantine.
fn a_thief_was_here(site: &Site) {
    let serve = Serve::start(site);
    let mut thief = Smtp::connect(serve.address);
    thief.dirt();
    thief.send(&["anna@example.org"]);
    drop(thief);
    serve.stop();
}

#[test]
fn while_serve_does_not_run() {
    let site = Site::new("");
    assert!(site.fails("status").contains("is it the right --config FILE"));
    a_thief_was_here(&site);

    site.done("block anna --reason stolen");
    site.done("block anna");
    let status = site.objects("status");
    let accounts: Vec<&Value> = status.iter().map(|account| &account["account"]).collect();
    assert_eq!(accounts, [ACCOUNT, "user:anna"]);
    assert_eq!((&status[1]["blocked_by"], &status[1]["reason"]), (&"operator".into(), &"stolen".into()));
    site.done("kick anna");
    let id = site.objects("quarantine list")[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(site.done(&format!("quarantine show {id} --raw")), MESSAGE);
    let unblocked = site.objects(&format!("unblock {ACCOUNT} --release"));
    assert_eq!(unblocked[0]["released"], 1, "{unblocked:?}");
    assert_eq!(site.practice.letters().count(|letter| letter.is_to("anna@example.org")), 1);

    // The next start logs who did that, and finds it done.
    assert!(waiting(&site) >= 3);
    let mut serve = Serve::start(&site);
    for parts in
        ["\"command\":\"block\"&user:anna&done: stolen", "\"command\":\"unblock\"", "\"command\":\"kick\""]
    {
        serve.wait_for(parts);
    }
    assert_eq!(waiting(&site), 0);
    assert_eq!(site.objects("status")[0]["account"], "user:anna");
    Smtp::connect(serve.address).send(&["anna@example.org"]);
    assert_eq!(site.objects("quarantine list").len(), 0);
    serve.stop();
}

/// A pipe that takes not an octet more, and whose reader does not read: a pager that was left open.
fn stalled() -> (std::io::PipeReader, std::io::PipeWriter) {
    use rustix::fs::{OFlags, fcntl_setfl};
    let (reader, mut writer) = std::io::pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'.'; 4096]).is_ok() {}
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    (reader, writer)
}

#[test]
fn who_only_looks_keeps_nothing_from_starting() {
    let site = Site::new("");
    a_thief_was_here(&site);
    let id = site.objects("quarantine list")[0]["id"].as_str().unwrap().to_owned();
    let mut open = Vec::new();
    for line in [
        "quarantine list".to_owned(),
        "status".to_owned(),
        "status --metrics".to_owned(),
        format!("quarantine show {id}"),
        format!("quarantine show {id} --raw"),
        format!("quarantine export {id} --output evidence"),
    ] {
        let (reader, writer) = stalled();
        let command = site.command(&line).stdout(writer).spawn().unwrap();
        open.push((line, command, reader));
        // Waits for that one, which prints to nobody.
        assert_eq!(site.objects("quarantine list").len(), 1);
    }
    let serve = Serve::start(&site);
    for (line, mut command, mut reader) in open {
        let mut printed = String::new();
        let status = command.try_wait().unwrap();
        assert!(status.is_none(), "{line}: is to wait for its reader: {status:?}");
        reader.read_to_string(&mut printed).unwrap();
        assert!(command.wait().unwrap().success(), "{line}");
        assert!(!printed.trim_matches('.').is_empty(), "{line}");
    }
    serve.stop();
}

/// Readers that were left open: of a message, which delays no stop, and of a release, which goes on to its end all the same.
#[test]
fn who_does_not_read_holds_up_nothing() {
    let site = Site::new("shutdown_timeout = \"60s\"\n");
    let mut serve = Serve::start(&site);
    let mut thief = Smtp::connect(serve.address);
    thief.dirt();
    // More answers than wait in both processes and the socket between them: some 10 KB each.
    let nobody: Vec<String> = (0..80).map(|n| format!("nobody-{n}@example.org")).collect();
    let recipients: Vec<&str> =
        std::iter::once("anna@example.org").chain(nobody.iter().map(String::as_str)).collect();
    for _ in 0..150 {
        thief.send(&recipients);
    }
    drop(thief);
    let (_pager, writer) = stalled();
    let mut release = site.command("quarantine release --all --quiet --json").stdout(writer).spawn().unwrap();
    let (mut left, mut moved) = (usize::MAX, std::time::Instant::now());
    while left > 0 {
        let now = site.objects("quarantine list").len();
        if now < left {
            (left, moved) = (now, std::time::Instant::now());
        }
        assert!(moved.elapsed() < PATIENCE, "stopped midway, with {left} left");
    }
    // Longer than what waits on the way.
    let mut thief = Smtp::connect(serve.address);
    for (line, expected) in
        [("MAIL FROM:<thief@example.org>", "250"), ("RCPT TO:<anna@example.org>", "250"), ("DATA", "354")]
    {
        thief.say(line, expected);
    }
    let octets = "x".repeat(998) + "\r\n";
    thief.say(&format!("Subject: long\r\n\r\n{}.", octets.repeat(8000)), "250");
    drop(thief);
    let id = site.objects("quarantine list")[0]["id"].as_str().unwrap().to_owned();
    let (_other_pager, writer) = stalled();
    let mut list = site.command(&format!("quarantine show {id} --raw")).stdout(writer).spawn().unwrap();
    serve.wait_for("quarantine show --raw");
    let began = std::time::Instant::now();
    kill(serve.child.id(), rustix::process::Signal::TERM);
    serve.wait_for("stopped");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert!(serve.child.wait().unwrap().success());
    for child in [&mut release, &mut list] {
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[test]
fn the_users_file() {
    let site = Site::new("");
    let add = |name: &str| site.run_with(&format!("user add {name} --password-stdin"), "correct horse\n");
    assert_eq!(add("Anna").status.code(), Some(0));
    assert_eq!(add("anna").status.code(), Some(1), "but for its case it is there");
    assert_eq!(site.run_with("user add bert --password-stdin", "").status.code(), Some(1), "no password");
    let listed = site.objects("user list");
    assert_eq!((&listed[0]["name"], &listed[0]["scheme"]), (&"Anna".into(), &"SCRAM-SHA-256".into()));
    assert_eq!(listed[0]["mechanisms"], Value::from(vec!["PLAIN", "LOGIN", "SCRAM-SHA-256"]));
    assert_eq!(site.run_with("user passwd Anna --password-stdin", "battery staple\n").status.code(), Some(0));
    site.fails("user remove bert");

    let mut serve = Serve::start(&site);
    serve.wait_for("\"command\":\"user add\"&\"object\":\"Anna\"&\"outcome\":\"done\"");
    // A host as it is explained to people.
    assert_eq!(site.objects("block host:2001:db8:1:2::7/64")[0]["account"], "host:2001:db8:1:2::");
    assert_eq!(site.run("block host:2001:db8:1:2::/48").status.code(), Some(2));
    // An account is the name as the file spells it.
    assert_eq!(site.objects("block ANNA")[0]["account"], "user:Anna");
    // Nobody is taken for somebody else without a word.
    let warned = |line: &str| {
        let output = site.run(line);
        assert_eq!(output.status.code(), Some(0), "{line}");
        String::from_utf8(output.stderr).unwrap()
    };
    let users = site.path().join("users");
    let text = fs::read_to_string(&users).unwrap();
    fs::write(&users, "no hash, no colon\n").unwrap();
    assert!(warned("block ANNA").contains("users:1: "));
    fs::write(&users, text).unwrap();
    assert!(warned("block 192.0.2.7").contains("the relay host is host:192.0.2.7"));
    assert!(warned("user remove Anna").contains("nobody can log in"));
    serve.wait_for("\"command\":\"user remove\"");
    // Although it was the last one, and a file that is empty by accident is refused.
    serve.wait_for("\"ended\":\"Anna\"");
    serve.stop();
}

#[test]
fn what_check_finds() {
    let site = Site::new("");
    let output = site.run("check --json");
    let found: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let about: Vec<&str> = found.iter().map(|finding| finding["about"].as_str().unwrap()).collect();
    assert_eq!(output.status.code(), Some(0), "{found:#?}");
    assert_eq!(about, ["canary", "certificate", "notify"], "{found:#?}");
    assert!(found.iter().all(|finding| finding["severity"] == "warning" && finding["cure"].is_string()));

    // An upstream that is not there, and one that takes everybody.
    let text = fs::read_to_string(site.path().join("config.toml")).unwrap();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fs::write(
        site.path().join("config.toml"),
        text.replace(&site.practice.address().to_string(), &gone.to_string()),
    )
    .unwrap();
    let output = site.run("check");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("error: the upstream"));
}

#[test]
fn a_reader_that_goes_away_and_usage() {
    let site = Site::new("");
    let serve = Serve::start(&site);
    site.done("block anna");
    let mut child = site.command("status").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut complaint = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    assert_eq!((child.wait().unwrap().code(), complaint.as_str()), (Some(0), ""));
    for line in ["", "frobnicate", "block", "quarantine release"] {
        assert_eq!(site.run(line).status.code(), Some(2), "{line}");
    }
    fs::write(site.path().join("bad.toml"), "[limit]\nperod = \"1h\"\n").unwrap();
    assert!(site.fails("--config bad.toml status").contains("bad.toml:2: [limit] perod: unknown key"));
    assert!(site.fails("--config missing.toml status").contains("missing.toml: cannot be read"));
    serve.stop();
}

/// A start that fails says what to do, and leaves nothing beside the configuration; `check` has said so before.
#[test]
fn a_start_that_cannot_be() {
    let site = Site::new("");
    let alone = "data_dir = \"lone\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n";
    fs::write(site.path().join("lone.toml"), alone).unwrap();
    let complaint = site.fails("--config lone.toml serve");
    assert!(
        complaint
            .contains("lone.toml: [auth] users (not set there; this is the default): users: No such file")
    );
    assert_eq!(complaint.matches("gatepost user add NAME").count(), 1, "{complaint}");
    assert!(!site.path().join("certs").exists(), "no certificate was made");
    // Whatever file is named and is not there: the start says where it is named, and what would be right.
    let tls = "[upstream]\naddress = \"mx.example.org:25\"\ntls = \"starttls\"\n";
    for (place, text) in [
        ("5: [tls] certificate = \"nope\"", "[tls]\ncertificate = \"nope\"\n".to_owned()),
        ("5: [tls] client_ca = \"nope\"", "[tls]\nclient_ca = \"nope\"\n".to_owned()),
        (
            "5: [[certificate]] certificate = \"nope\"",
            "[[certificate]]\ncertificate = \"nope\"\nprivate_key = \"no\"\n".to_owned(),
        ),
        ("5: [sender] map = \"nope\"", "[sender]\nmap = \"nope\"\npolicy = \"map\"\n".to_owned()),
        ("7: [upstream] ca = \"nope\"", format!("{tls}ca = \"nope\"\n")),
        (
            "8: [upstream] password_file = \"nope\"",
            format!("{tls}username = \"gate\"\npassword_file = \"nope\"\n"),
        ),
        (
            "7: [upstream] client_certificate = \"nope\"",
            format!("{tls}client_certificate = \"nope\"\nclient_key = \"no\"\n"),
        ),
        ("5: [notify] template = \"nope\"", "[notify]\ntemplate = \"nope\"\n".to_owned()),
        (
            "6: [notify] webhook_secret_file = \"nope\"",
            "[notify]\nwebhook = \"https://hook.example/\"\nwebhook_secret_file = \"nope\"\n".to_owned(),
        ),
    ] {
        fs::write(site.path().join("users"), "anna:!\n").unwrap();
        fs::write(site.path().join("named.toml"), format!("{alone}{text}")).unwrap();
        let complaint = site.fails("--config named.toml serve");
        let (found, wrong) = complaint.split_once(": No such file or directory (os error 2); ").unwrap();
        assert!(found.starts_with(&format!("gatepost: named.toml:{place}: ")), "{complaint}");
        assert!(found.ends_with("nope") && !wrong.is_empty(), "{complaint}");
        assert!(!site.path().join("certs").exists(), "{place}: a certificate was made");
    }
    // The first [[certificate]] is no default because there is none yet.
    let key = rcgen::KeyPair::generate().unwrap();
    let nameless = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    fs::write(site.path().join("both.pem"), nameless.pem() + &key.serialize_pem()).unwrap();
    let both = "[[certificate]]\ncertificate = \"both.pem\"\nprivate_key = \"both.pem\"\n";
    fs::write(site.path().join("named.toml"), format!("{alone}{both}")).unwrap();
    let place = "named.toml:5: [[certificate]] certificate = \"both.pem\" and [[certificate]] private_key = ";
    let complaint = site.fails("--config named.toml serve");
    assert!(complaint.starts_with(&format!("gatepost: {place}")), "{complaint}");
    let found = String::from_utf8(site.run("--config named.toml check").stdout).unwrap();
    assert!(found.contains(&format!("error: {place}")) && found.contains("names no host"), "{found}");
    assert!(!site.path().join("certs").exists(), "a certificate was made");
    fs::remove_file(site.path().join("users")).unwrap();
    let nowhere = "data_dir = \"/proc/gatepost\"\n[relay]\nhosts = [\"127.0.0.1\"]\n";
    fs::write(site.path().join("nowhere.toml"), nowhere).unwrap();
    assert!(site.fails("--config nowhere.toml serve").contains("set data_dir"));
    let found = site.run("--config nowhere.toml check");
    let found = String::from_utf8(found.stdout).unwrap();
    assert!(
        found.contains("error: data_dir cannot be used: cannot create the folder /proc/gatepost"),
        "{found}"
    );
    assert!(!site.path().join("certs").exists());
}

/// What is damaged is found, told of and saved, and leads nowhere else on the disk.
#[test]
fn messages_that_cannot_be_read() {
    let site = Site::new("");
    let (broken, led_away) = ("01M879BW10Z3Q1P1DM6RH09KF3", "01M879BW3Z96692P4ET16AQH83");
    let quarantine = site.path().join("data/quarantine");
    fs::create_dir_all(&quarantine).unwrap();
    fs::write(quarantine.join(format!("{broken}.message")), MESSAGE).unwrap();
    fs::write(quarantine.join(format!("{broken}.envelope")), "{\"version\": 1, \"acc").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", quarantine.join(format!("{led_away}.message"))).unwrap();
    fs::write(quarantine.join(format!("{led_away}.envelope")), "{").unwrap();
    let alone = "01M879BW7Z96692P4ET16AQH83";
    fs::write(quarantine.join(format!("{alone}.message")), MESSAGE).unwrap();
    fs::write(site.path().join("users"), "anna:{UNKNOWN}x\nbert:!\n").unwrap();
    let mut serve = Serve::start(&site);
    serve.wait_for(&format!(
        "WARN&\"id\":\"{alone}\"&\"size\":{}&had no envelope and was removed",
        MESSAGE.len()
    ));
    assert!(!quarantine.join(format!("{alone}.message")).exists());
    serve.wait_for("WARN&messages in the quarantine cannot be read&\"messages\":2");
    serve.wait_for("WARN&users cannot log in&\"users\":2&anna, bert: its scheme");
    for command in ["status", "unblock anna --release", "quarantine delete --account anna"] {
        let warned = String::from_utf8(site.run(command).stderr).unwrap();
        assert!(warned.contains("2 messages in the quarantine cannot be read"), "`{command}`: {warned}");
    }
    let complaint = site.fails(&format!("quarantine export {broken} --output evidence"));
    assert!(complaint.contains("does not parse") && complaint.contains("as they are"), "{complaint}");
    let evidence = site.path().join("evidence");
    assert_eq!(fs::read_to_string(evidence.join(format!("{broken}.eml"))).unwrap(), MESSAGE);
    assert_eq!(fs::read(evidence.join(format!("{broken}.envelope"))).unwrap(), b"{\"version\": 1, \"acc");
    assert_eq!(fs::read_to_string(evidence.join("SHA256SUMS")).unwrap().lines().count(), 2);
    assert!(site.fails(&format!("quarantine show {led_away} --raw")).contains("symbolic links"));
    assert_eq!(
        site.run(&format!("quarantine show {broken} --raw")).stdout,
        MESSAGE.as_bytes(),
        "what there is"
    );
    let output = site.run(&format!("quarantine export {led_away} --output evidence"));
    assert_eq!(output.status.code(), Some(1));
    assert!(!evidence.join(format!("{led_away}.eml")).exists());
    serve.stop();
    fs::write(quarantine.join(format!("{alone}.message")), MESSAGE).unwrap();
    let warned = String::from_utf8(site.run("status").stderr).unwrap();
    assert!(
        warned.contains(&format!("message {alone} of {} octets had no envelope", MESSAGE.len())),
        "{warned}"
    );
    assert!(warned.contains("2 messages in the quarantine cannot be read"), "{warned}");
}

/// A disk that alters a message, or somebody who does: what is told and released is what arrived, or nothing.
#[test]
fn a_message_that_is_not_what_arrived() {
    let site = Site::new("");
    a_thief_was_here(&site);
    let id = site.objects("quarantine list")[0]["id"].as_str().unwrap().to_owned();
    let file = site.path().join(format!("data/quarantine/{id}.message"));
    let altered = MESSAGE.replace("Hello", "Jello");
    let cut_short = &MESSAGE[..MESSAGE.len() - 9];
    for (content, how, state) in [
        (altered.as_str(), "is not what arrived", "failed"),
        (cut_short, "has 133 octets, and should have 142", "unreadable"),
    ] {
        fs::write(&file, content).unwrap();
        for serves in [false, true] {
            let serve = serves.then(|| Serve::start(&site));
            for command in [
                "quarantine release",
                "quarantine show",
                "quarantine show --raw",
                "quarantine export --output evidence",
            ] {
                let output = site.run(&format!("{command} {id}"));
                let told = String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap();
                assert_eq!(output.status.code(), Some(1), "{command}: {told}");
                assert!(told.contains(how), "{command}: {told}");
                if command.contains("--raw") {
                    assert_eq!(output.stdout, content.as_bytes(), "{how}: all that there is");
                }
            }
            assert_eq!(site.practice.letters().count(|letter| letter.is_to("anna@example.org")), 0, "{how}");
            let listed = site.objects("quarantine list");
            assert_eq!((listed.len(), &listed[0]["state"]), (1, &state.into()), "{how}: {listed:?}");
            if let Some(serve) = serve {
                serve.stop();
            }
        }
    }
    fs::write(&file, MESSAGE).unwrap();
    site.done(&format!("quarantine release {id}"));
    assert_eq!(site.practice.letters().count(|letter| letter.is_to("anna@example.org")), 1);
}

/// Strangers do not fill the log.
#[test]
fn clients_that_are_turned_away_are_told_of_once() {
    let site = Site::new("");
    let mut serve = Serve::start(&site);
    let _all: Vec<Smtp> = (0..50).map(|_| Smtp::connect(serve.address)).collect();
    for _ in 0..20 {
        let mut stream = BufReader::new(TcpStream::connect(serve.address).unwrap());
        stream.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        let mut reply = String::new();
        stream.read_line(&mut reply).unwrap();
        assert!(reply.starts_with("421"), "{reply}");
    }
    kill(serve.child.id(), rustix::process::Signal::TERM);
    serve.wait_for("stopped");
    let told = serve.seen.iter().filter(|line| line.contains("too many connections")).count();
    assert_eq!(told, 1, "{:#?}", serve.seen);
}
