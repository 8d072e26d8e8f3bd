//! Issue 3, Proof: killed with SIGKILL at random moments under load: every message acknowledged with 250 is at the upstream or in the
//! quarantine; blocks and counts that a reply depended on are there.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::gatepost::{PASSWORD, Setup, user_line};
use crate::support::random::Random;
use crate::support::scripted::Scripted;
use crate::support::smtp::{Heard, Smtp, stuffed};
use crate::support::{PATIENCE, wait_for};

const ROUNDS: usize = 50;
/// A round is over when at most so many messages more were acknowledged: however busy the machine is, some accounts get blocked.
const MESSAGES: u64 = 110;
const CLIENTS: usize = 4;
const LIMIT: i64 = 6;

/// What the clients were told, and hold Gatepost to.
#[derive(Default)]
struct Promises {
    /// Subjects of messages that were answered 250.
    acknowledged: HashSet<String>,
    /// Honest refusals of recipients that do not exist, per account.
    refused: HashMap<String, i64>,
    /// Accounts that got a 250 for one: the block came before the reply.
    blocked: HashSet<String>,
}

#[test]
fn nothing_acknowledged_is_lost_by_sigkill() {
    let upstream = Scripted::start();
    let mut setup = Setup::new(upstream.address).limit(LIMIT).set("session.max_connections_per_ip", 1000);
    for round in 0..ROUNDS {
        for client in 0..CLIENTS {
            setup = setup.user_line(&user_line(&format!("user-{round}-{client}"), PASSWORD));
        }
    }
    let mut gatepost = setup.write();
    let promises = Mutex::new(Promises::default());
    let mut random = Random::new(1);
    for round in 0..ROUNDS {
        if round % 5 == 4 {
            // sled#1533: a kill while the database is being opened must not leave it unopenable.
            gatepost.spawn();
            std::thread::sleep(Duration::from_millis(random.below(60)));
            gatepost.kill();
        }
        gatepost.start();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (promises, over, server) = (&promises, &over, gatepost.starttls);
                scope.spawn(move || {
                    let name = format!("user-{round}-{client}");
                    let mut number = 0;
                    while !over.load(Ordering::SeqCst) {
                        // The end of a session is the kill; anything else that is odd shows in what is missing.
                        drop(load(server, &name, &mut number, over, promises));
                    }
                });
            }
            let acknowledged = || promises.lock().unwrap().acknowledged.len() as u64;
            let enough = acknowledged() + random.below(MESSAGES);
            // Or what could be in that time.
            wait_for(PATIENCE, || (acknowledged() >= enough).then_some(()));
            std::thread::sleep(Duration::from_millis(random.below(10)));
            gatepost.kill();
            over.store(true, Ordering::SeqCst);
        });
    }
    gatepost.start();
    let promises = promises.into_inner().unwrap();
    let mut found: HashSet<String> =
        gatepost.parked().iter().map(|object| object["subject"].as_str().unwrap().to_owned()).collect();
    let parked = found.len();
    for taken in upstream.taken() {
        let text = String::from_utf8(taken.data).unwrap();
        found.insert(text.split("Subject: ").nth(1).unwrap().split("\r\n").next().unwrap().to_owned());
    }
    let lost: Vec<_> = promises.acknowledged.difference(&found).collect();
    println!(
        "{} messages acknowledged, {parked} of them parked, {} accounts blocked",
        promises.acknowledged.len(),
        promises.blocked.len()
    );
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(
        parked > 0 && promises.acknowledged.len() > parked && promises.blocked.len() > 10,
        "this proved little"
    );

    let status: HashMap<String, serde_json::Value> = gatepost
        .json_lines(&["status"])
        .into_iter()
        .map(|object| (object["account"].as_str().unwrap().to_owned(), object))
        .collect();
    for account in &promises.blocked {
        assert_eq!(status[&format!("user:{account}")]["state"], "blocked", "{account}");
    }
    for (account, count) in &promises.refused {
        let counted = status[&format!("user:{account}")]["invalid_recipients"].as_i64().unwrap();
        assert!(counted >= *count, "{account} was told of {count} invalid recipients, {counted} are counted");
    }
}

/// One session: messages to somebody, and now and then a recipient that does not exist.
fn load(
    server: std::net::SocketAddr,
    name: &str,
    number: &mut usize,
    over: &AtomicBool,
    promises: &Mutex<Promises>,
) -> io::Result<()> {
    let mut client = Smtp::try_login(server, name, PASSWORD)?;
    while !over.load(Ordering::SeqCst) {
        *number += 1;
        let subject = format!("{name}-{number}");
        client.tell("MAIL FROM:<alice@mta.example>")?;
        client.tell("RCPT TO:<bob@mta.example>")?;
        if number.is_multiple_of(2) {
            let code = client.tell(&format!("RCPT TO:<nobody-{subject}@mta.example>"))?;
            let mut promises = promises.lock().unwrap();
            if code == 250 {
                promises.blocked.insert(name.to_owned());
            } else if code == 550 {
                *promises.refused.entry(name.to_owned()).or_default() += 1;
            }
        }
        client.tell("DATA")?;
        client.try_send(&stuffed(format!("Subject: {subject}\r\n\r\nbody\r\n").as_bytes()))?;
        if client.code()? == 250 {
            promises.lock().unwrap().acknowledged.insert(subject);
        }
    }
    Ok(())
}

impl Smtp {
    pub(crate) fn try_login(server: std::net::SocketAddr, name: &str, password: &str) -> io::Result<Self> {
        let mut client = Self::try_open(server)?;
        client.code()?;
        client.tell("EHLO client.example")?;
        client.tell("STARTTLS")?;
        client.try_begin_tls()?;
        client.tell("EHLO client.example")?;
        use base64::Engine as _;
        let credentials = base64::engine::general_purpose::STANDARD.encode(format!("\0{name}\0{password}"));
        client.tell(&format!("AUTH PLAIN {credentials}"))?;
        Ok(client)
    }

    pub(crate) fn tell(&mut self, line: &str) -> io::Result<u16> {
        self.try_send(format!("{line}\r\n").as_bytes())?;
        self.code()
    }

    pub(crate) fn code(&mut self) -> io::Result<u16> {
        match self.try_hear()? {
            Heard::Reply(reply) => Ok(reply.code),
            Heard::Closed => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Issue 3, The notice: one mail for each block, also where the kill comes between the block and its mail: here the outbox takes
/// nothing until then.
#[test]
fn a_kill_between_block_and_notice() {
    let upstream = Scripted::start();
    let mut gatepost = Setup::new(upstream.address).limit(2).notify("abuse@mta.example").start();
    std::fs::remove_dir_all(gatepost.data_dir().join("outbox")).unwrap();
    let mut client = gatepost.login("alice");
    client.expect("MAIL FROM:<alice@mta.example>", 250);
    client.harvest(2, "mta.example");
    assert_eq!(gatepost.status("user:alice").unwrap()["state"], "blocked");
    gatepost.expect_log("that the notice waits", |line| line.to_string().contains("could not be written"));
    gatepost.kill();
    gatepost.start();
    let text = String::from_utf8_lossy(&upstream.expect_taken(1)[0].data).into_owned();
    for words in ["user:alice", "127.0.0.1", "nobody-"] {
        assert!(text.contains(words), "no {words} in the notice:\n{text}");
    }
    // Told once and for all: of two blocks only the second is news to the next start.
    gatepost.expect_log("that it is sent", |line| line.to_string().contains("mail of ours sent"));
    gatepost.terminate();
    gatepost.start();
    let mut client = gatepost.login("bob");
    client.expect("MAIL FROM:<bob@mta.example>", 250);
    client.harvest(2, "mta.example");
    let second = upstream.expect_taken(2);
    assert!(String::from_utf8_lossy(&second[1].data).contains("user:bob"));
    assert_eq!(upstream.taken().len(), 2);
}

/// SIGKILL between the claim of a release and its end: it may be sent twice, and may never be lost.
#[test]
fn a_release_survives_sigkill() {
    let upstream = Scripted::start();
    let mut gatepost = Setup::new(upstream.address).start();
    gatepost.run(&["block", "alice"]).expect(0);
    let mut client = gatepost.login("alice");
    let mut parked = HashSet::new();
    for number in 0..60 {
        let subject = format!("release-{number}");
        client.submit(
            "alice@mta.example",
            &["bob@mta.example"],
            format!("Subject: {subject}\r\n\r\nbody\r\n").as_bytes(),
        );
        parked.insert(subject);
    }
    let mut random = Random::new(2);
    for _ in 0..6 {
        let mut command = gatepost.command(&["quarantine", "release", "--all"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut release = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(random.below(80)));
        gatepost.kill();
        assert!(
            wait_for(PATIENCE, || release.try_wait().unwrap()).is_some(),
            "the command hangs without serve"
        );
        gatepost.start();
    }
    let subjects = || -> HashSet<String> {
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        let taken = upstream.taken().into_iter().map(|one| text(one.data));
        taken
            .map(|text| text.split("Subject: ").nth(1).unwrap().split("\r\n").next().unwrap().to_owned())
            .collect()
    };
    let still: HashSet<String> =
        gatepost.parked().iter().map(|object| object["subject"].as_str().unwrap().to_owned()).collect();
    let lost: Vec<_> =
        parked.iter().filter(|subject| !still.contains(*subject) && !subjects().contains(*subject)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    gatepost.run(&["quarantine", "release", "--all"]);
    let empty = wait_for(PATIENCE, || Some(()).filter(|()| gatepost.parked().is_empty()));
    assert!(empty.is_some(), "{:?}", gatepost.parked());
    assert_eq!(subjects(), parked);
}
