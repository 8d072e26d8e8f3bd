//! The ledger as its callers see it, on a real database.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;

mod cost;
mod counting;
mod detection;
mod durability;
mod lifted;
mod listed;
mod listing;
mod rebuild;
mod told;
mod trouble;

/// Noon of some day, so that no test crosses midnight.
const NOON: u64 = 20_000 * 86_400_000 + 43_200_000;
const HOUR: u64 = 3_600_000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(NOON + millis)
}

fn account(text: &str) -> Account {
    text.parse().unwrap()
}

const DETECTION: Detection = Detection {
    on_alarm: OnAlarm::Probation,
    delay: Duration::from_secs(1800),
    usual_share: 0.05,
    thief_share: 0.30,
    threshold: 12.0,
};

fn policy(limit: u32) -> Policy {
    Policy {
        invalid_recipients: limit,
        period: Duration::from_secs(3600),
        count: Count::Distinct,
        observe: false,
        exempt: Vec::new(),
        detection: Detection { on_alarm: OnAlarm::Off, ..DETECTION },
        rules: Vec::new(),
    }
}

fn open(dir: &Path, policy: Policy) -> Ledger {
    Ledger::open(dir, policy, &Vec::new, at(0)).unwrap()
}

/// Waits for something that comes soon, or never.
async fn soon<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("within 20 s")
}

/// Addresses at x have no domain, so that many accounts asking for them are no common cause.
fn domain(address: &str) -> Option<&str> {
    address.rsplit_once('@').map(|(_, domain)| domain).filter(|domain| *domain != "x")
}

async fn count(watch: &Watch, address: &str, now: Timestamp) -> Verdict {
    let client = "192.0.2.1".parse().unwrap();
    soon(watch.count(Attempt { address, key: address.as_bytes(), domain: domain(address), client, now }))
        .await
}

/// The blocks that are still to be reported.
async fn untold_blocks(ledger: &Ledger, now: Timestamp) -> Vec<Record> {
    let news = soon(ledger.untold(now)).await.into_iter();
    news.filter_map(|news| if let News::Blocked(record) = news { Some(record) } else { None }).collect()
}

/// A moment at which all of that time has passed for this process, too.
fn long_after(at: Timestamp) -> Moment {
    Moment { at, instant: Instant::now() + Duration::from_secs(10_000 * 86_400) }
}

/// The liftings that are still to be reported.
async fn untold_unblocks(ledger: &Ledger) -> Vec<(Account, Timestamp)> {
    let unblocked =
        |news| if let News::Unblocked { account, at } = news { Some((account, at)) } else { None };
    soon(ledger.untold(at(HOUR))).await.into_iter().filter_map(unblocked).collect()
}

/// The probations that are still to be reported.
async fn untold_probations(ledger: &Ledger, now: Timestamp) -> Vec<Record> {
    let news = soon(ledger.untold(now)).await.into_iter();
    news.filter_map(|news| if let News::Probation(record) = news { Some(record) } else { None }).collect()
}

fn told_block(ledger: &Ledger, record: &Record) {
    ledger.told(&News::Blocked(record.clone()));
}

fn told_unblocked(ledger: &Ledger, account: &Account, at: Timestamp) {
    ledger.told(&News::Unblocked { account: account.clone(), at });
}

fn told_probation(ledger: &Ledger, record: &Record) {
    ledger.told(&News::Probation(record.clone()));
}

/// The verdict in a word, for tables.
fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Counted { count } => count.to_string(),
        Verdict::Repeated => "repeated".into(),
        Verdict::Crossed(record) => format!("crossed {}", record.invalid_recipients),
        Verdict::WouldBlock(record) => format!("would block {}", record.invalid_recipients),
        Verdict::Blocked => "blocked".into(),
        Verdict::CommonCause => "common cause".into(),
        Verdict::Alarmed(record) => format!("alarmed {}", record.invalid_recipients),
        Verdict::AlarmedAgain(record) => format!("alarmed again {}", record.invalid_recipients),
        Verdict::Suspected(record) => format!("suspected {}", record.invalid_recipients),
        Verdict::WouldAlarm(record) => format!("would alarm {}", record.invalid_recipients),
    }
}
