//! Who sends while things break: an honest host, a thief, one who is soon on probation, one whom an operator blocks and unblocks.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::gatepost::Gatepost;
use crate::support::smtp::{Heard, Smtp, stuffed};

/// `[limit] invalid_recipients`
pub(crate) const LIMIT: usize = 6;
/// The longest wait for a reply: longer than any of Gatepost's own.
const PATIENCE: Duration = Duration::from_secs(12);

/// What was said to whom.
#[derive(Default)]
pub(crate) struct Promises {
    /// Message-IDs that were answered 250, and whose they are.
    pub(crate) acknowledged: HashMap<String, String>,
    /// Accounts that must be blocked.
    pub(crate) blocked: HashSet<String>,
    /// Of those, whom the limit blocked: the abuse desk hears of them.
    pub(crate) by_limit: HashSet<String>,
    /// How many replies came to commands.
    pub(crate) replies: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Honest,
    Thief,
    Doubtful,
    Watched,
}

pub(crate) const ROLES: [Role; 4] = [Role::Honest, Role::Thief, Role::Doubtful, Role::Watched];

/// A relay host of this round alone.
pub(crate) fn address(round: usize, role: Role) -> IpAddr {
    let number = round * ROLES.len() + role as usize;
    let octet = |n: usize| u8::try_from(n % 250 + 1).unwrap();
    Ipv4Addr::new(127, 1, octet(number / 250), octet(number)).into()
}

pub(crate) fn account(address: IpAddr) -> String {
    format!("host:{address}")
}

/// Sessions, one after the other, until it is over.
pub(crate) fn send(
    server: SocketAddr,
    round: usize,
    role: Role,
    over: &AtomicBool,
    promises: &Mutex<Promises>,
) {
    let mut number = 0;
    while !over.load(Ordering::SeqCst) {
        if session(server, round, role, &mut number, over, promises).is_err() {
            // Nobody there, or gone: what was not answered was not promised.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn session(
    server: SocketAddr,
    round: usize,
    role: Role,
    number: &mut usize,
    over: &AtomicBool,
    promises: &Mutex<Promises>,
) -> io::Result<()> {
    let address = address(round, role);
    let account = account(address);
    let mut client = Smtp::try_open_from(address, server)?;
    client.set_patience(PATIENCE);
    code(&mut client)?;
    tell(&mut client, "EHLO client.example", promises)?;
    while !over.load(Ordering::SeqCst) {
        *number += 1;
        let id = format!("{round}-{role:?}-{number}");
        if tell(&mut client, "MAIL FROM:<alice@mta.example>", promises)? != 250 {
            tell(&mut client, "RSET", promises)?;
            continue;
        }
        let misses = match role {
            Role::Thief => LIMIT,
            Role::Doubtful if *number == 1 => 3,
            _ => 0,
        };
        tell(&mut client, "RCPT TO:<bob@mta.example>", promises)?;
        for miss in 0..misses {
            if tell(&mut client, &format!("RCPT TO:<nobody-{id}-{miss}@mta.example>"), promises)? == 250 {
                let mut promises = promises.lock().unwrap();
                promises.blocked.insert(account.clone());
                promises.by_limit.insert(account.clone());
            }
        }
        if tell(&mut client, "DATA", promises)? != 354 {
            tell(&mut client, "RSET", promises)?;
            continue;
        }
        // Some are bigger than what is held in memory.
        let lines = if *number % 30 == 7 { 7_000 } else { 1 };
        let body = "a line of the body of a message of the load\r\n".repeat(lines);
        let text = format!("Message-ID: <{id}@client.example>\r\nSubject: {id}\r\n\r\n{body}");
        client.try_send(&stuffed(text.as_bytes()))?;
        if code(&mut client)? == 250 {
            promises.lock().unwrap().acknowledged.insert(id, account.clone());
        }
    }
    Ok(())
}

fn tell(client: &mut Smtp, line: &str, promises: &Mutex<Promises>) -> io::Result<u16> {
    client.try_send(format!("{line}\r\n").as_bytes())?;
    let code = code(client)?;
    promises.lock().unwrap().replies += 1;
    Ok(code)
}

fn code(client: &mut Smtp) -> io::Result<u16> {
    match client.try_hear()? {
        Heard::Reply(reply) => Ok(reply.code),
        Heard::Closed => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// An operator who blocks and unblocks the watched host, and releases what is parked; a `patient` one leaves alone what goes by itself.
pub(crate) fn operate(
    gatepost: &Gatepost,
    round: usize,
    patient: bool,
    over: &AtomicBool,
    promises: &Mutex<Promises>,
) {
    let watched = account(address(round, Role::Watched));
    let doubtful = account(address(round, Role::Doubtful));
    let thief = account(address(round, Role::Thief));
    let commands: [&[&str]; 6] = [
        &["block", &watched],
        &["quarantine", "release", "--account", &doubtful],
        &["unblock", &watched],
        &["block", &watched, "--reason", "again"],
        &["unblock", &watched, "--release"],
        &["quarantine", "release", "--account", &thief],
    ];
    for command in commands.iter().cycle() {
        if over.load(Ordering::SeqCst) {
            return;
        }
        if patient && command.contains(&doubtful.as_str()) {
            continue;
        }
        if command[0] == "unblock" {
            // Until it is known how that ended.
            promises.lock().unwrap().blocked.remove(&watched);
        }
        let finished = gatepost.run(command);
        if command[0] == "block" && finished.status.success() {
            promises.lock().unwrap().blocked.insert(watched.clone());
        }
    }
}
