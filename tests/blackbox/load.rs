//! Issue 3, Speed and memory: relaying in constant memory; 1,000 concurrent authenticated sessions on two cores.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::support::gatepost::{Gatepost, Setup};
use crate::support::scripted::Scripted;
use crate::support::smtp::{Smtp, message};

/// What the memory of `serve` may grow by while it carries a big message, in KiB. The message has 50 MiB.
const GROWTH: u64 = 12 * 1024;

const MIB: usize = 1024 * 1024;

fn big_message() -> Vec<u8> {
    let mut message = b"Subject: big\r\n\r\n".to_vec();
    let line = [&[b'x'; 76][..], b"\r\n"].concat();
    while message.len() + line.len() <= 50 * MIB {
        message.extend_from_slice(&line);
    }
    message
}

fn grown(gatepost: &Gatepost, what: &str, action: impl FnOnce()) {
    // The peak so far is forgotten, so that the next one is this action's.
    std::fs::OpenOptions::new()
        .write(true)
        .open(format!("/proc/{}/clear_refs", gatepost.pid()))
        .unwrap()
        .write_all(b"5")
        .unwrap();
    let before = gatepost.memory().1;
    let began = Instant::now();
    action();
    let peak = gatepost.memory().0;
    println!("{what}: {} KiB at rest, {peak} KiB at the peak, {:?}", before, began.elapsed());
    assert!(peak.saturating_sub(before) < GROWTH, "{what}: {before} KiB at rest, {peak} KiB at the peak");
}

/// Issue 3, The quarantine: a 50 MiB message costs no more memory than a small one, in either direction.
#[test]
fn a_big_message_costs_no_more_memory_than_a_small_one() {
    let upstream = Scripted::forgetful();
    let gatepost = Setup::new(upstream.address).start();
    let big = big_message();
    let small = message("small");
    // What stays once everything has been used for the first time is no matter here.
    gatepost.login("bob").submit("bob@mta.example", &["carol@mta.example"], &small);
    gatepost.run(&["block", "alice"]).expect(0);
    gatepost.login("alice").submit("alice@mta.example", &["carol@mta.example"], &small);
    gatepost.run(&["quarantine", "release", "--all"]).expect(0);
    let before = upstream.data_octets();
    grown(&gatepost, "relayed", || {
        let mut bob = gatepost.login("bob");
        bob.set_patience(Duration::from_secs(120));
        bob.submit("bob@mta.example", &["carol@mta.example"], &big);
    });
    assert!(upstream.data_octets() - before >= big.len());
    grown(&gatepost, "parked", || {
        let mut alice = gatepost.login("alice");
        alice.set_patience(Duration::from_secs(120));
        alice.submit("alice@mta.example", &["carol@mta.example"], &big);
    });
    let id = gatepost.parked()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(gatepost.parked()[0]["size"], big.len());
    let before = upstream.data_octets();
    grown(&gatepost, "released", || {
        gatepost.run(&["quarantine", "release", &id]).expect(0);
    });
    assert!(upstream.data_octets() - before >= big.len());
}

/// Issue 3, Speed and memory: all of them served, none of them slow.
#[test]
fn a_thousand_sessions_at_once() {
    const SESSIONS: usize = 1000;
    const THREADS: usize = 10;
    // Client and server ends are both of this machine: the test's own descriptors, and those that serve inherits.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(8192).min(8192);
    let raised = rustix::process::Rlimit { current: Some(wanted), maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();

    let upstream = Scripted::start();
    let gatepost =
        Setup::new(upstream.address).set("session.max_connections_per_ip", 2 * SESSIONS as i64).start();
    let began = Instant::now();
    let mut sessions: Vec<Vec<Smtp>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| (0..SESSIONS / THREADS).map(|_| gatepost.login("alice")).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    println!("{SESSIONS} logged in after {:?}, {} KiB", began.elapsed(), gatepost.memory().1);
    assert!(gatepost.run(&["unblock", "alice"]).expect(0).stdout.contains("1000"), "1,000 sessions are open");
    let began = Instant::now();
    std::thread::scope(|scope| {
        for (thread, sessions) in sessions.iter_mut().enumerate() {
            scope.spawn(move || {
                for (number, client) in sessions.iter_mut().enumerate() {
                    client.submit(
                        "alice@mta.example",
                        &["bob@mta.example"],
                        &message(&format!("{thread} {number}")),
                    );
                }
            });
        }
    });
    println!("{SESSIONS} messages after {:?}, {} KiB", began.elapsed(), gatepost.memory().1);
    assert_eq!(upstream.taken().len(), SESSIONS);
    assert!(gatepost.memory().0 < 256 * 1024, "{} KiB for {SESSIONS} sessions", gatepost.memory().0);
    // Every session still answers.
    for client in sessions.iter_mut().flatten() {
        client.expect("NOOP", 250);
    }
}
