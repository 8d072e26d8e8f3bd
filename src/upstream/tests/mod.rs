//! Transactions against a scripted upstream: what goes over the wire, and what the caller is told.

mod ahead;
mod chunks;
mod connections;
mod content;
mod login;
mod preparation;
mod questions;
mod replacement;
mod several;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::scripted::{DEADLINE, Scripted};
use super::*;
use crate::clock::Timestamp;
use crate::smtp::Command;

/// Script: up to MAIL, with PIPELINING.
const READY: &str = "> 220 mail ESMTP\n< EHLO gatepost.test\n> 250-mail\n> 250-8BITMIME\n> 250 PIPELINING\n";
/// The same without any extension.
const READY_PLAIN: &str = "> 220 mail ESMTP\n< EHLO gatepost.test\n> 250 mail\n";
const MAIL: &str = "MAIL FROM:<s@a.example>";

fn endpoint(address: SocketAddr) -> Endpoint {
    let address = Address::Tcp { host: address.ip().to_string(), port: address.port() };
    Endpoint { address, tls_name: "mail.example.org".to_owned() }
}

fn settings(address: SocketAddr) -> Settings {
    Settings {
        endpoints: vec![endpoint(address)],
        protection: Protection::Off,
        ca: None,
        identity: None,
        credentials: None,
        hostname: "gatepost.test".to_owned(),
        xclient: true,
        connect_timeout: Duration::from_secs(5),
        timeouts: Timeouts::new(Duration::from_secs(5), Duration::from_secs(5)),
        max_connections: 10,
    }
}

/// Settings with these times for a reply, and for the reply to the end of data.
fn impatient(address: SocketAddr, reply: Duration, end: Duration) -> Settings {
    Settings { timeouts: Timeouts::new(reply, end), ..settings(address) }
}

fn upstream(address: SocketAddr) -> Upstream {
    Upstream::open(settings(address)).unwrap()
}

pub(super) fn identity(login: &str) -> Arc<ClientIdentity> {
    Arc::new(ClientIdentity {
        session: SessionId::new(Timestamp::default()),
        name: None,
        address: "192.0.2.7:4711".parse().unwrap(),
        helo: Some("pc".to_owned()),
        extended: true,
        login: Some(login.to_owned()),
    })
}

fn question(line: &str) -> Question {
    match Command::parse(line.as_bytes()).unwrap() {
        Command::Mail(mail) => Question::Mail(mail),
        Command::Rcpt(rcpt) => Question::Rcpt(rcpt),
        other => panic!("{other:?}"),
    }
}

fn rcpt(name: &str) -> String {
    format!("RCPT TO:<{name}@b.example>")
}

/// Returns the reply, or the name of the fault.
fn told(answer: &Answer) -> String {
    match answer {
        Answer::Replied(reply) => reply.to_string(),
        Answer::None(fault) => {
            let name = format!("{fault:?}");
            name.split('(').next().unwrap().to_owned()
        }
    }
}

async fn answer(transaction: &mut Transaction) -> String {
    told(&timeout(DEADLINE, transaction.answer()).await.expect("an answer in time"))
}

/// Asks all questions at once and returns the answers.
async fn ask(transaction: &mut Transaction, lines: &[String]) -> Vec<String> {
    for line in lines {
        transaction.ask(question(line));
    }
    let mut answers = Vec::new();
    while transaction.outstanding() > 0 {
        answers.push(answer(transaction).await);
    }
    answers
}

async fn ask_one(transaction: &mut Transaction, line: &str) -> String {
    ask(transaction, &[line.to_owned()]).await.remove(0)
}

/// Returns a transaction with one recipient that is ready for DATA.
async fn ready_for_data(upstream: &Upstream) -> Transaction {
    let mut transaction = upstream.transaction(identity("alice"));
    let answers = ask(&mut transaction, &[MAIL.to_owned(), rcpt("r1")]).await;
    assert_eq!(answers, ["250 2.1.0 ok", "250 2.1.5 ok"]);
    transaction
}

/// Script: [`READY`] and one accepted recipient.
fn one_recipient() -> String {
    format!("{READY}< {MAIL}\n<+ {}\n> 250 2.1.0 ok\n> 250 2.1.5 ok\n", rcpt("r1"))
}
