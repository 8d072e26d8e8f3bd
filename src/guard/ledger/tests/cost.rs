//! The cost of the ledger: for a recipient that exists, and at a start with a million accounts.

use std::process::Command;

use super::super::rows::{self, AttemptRow};
use super::super::store::{Edit, Store, Tree};
use super::*;
use crate::guard::window::{Key, Mark};
use crate::smtp::Reply;

const ACCOUNTS: u64 = 1_000_000;
/// The environment variable that tells the test's child processes where to create, or open, the ledger.
const TO_FILL: &str = "GATEPOST_TEST_MANY_TO_FILL";
const TO_OPEN: &str = "GATEPOST_TEST_MANY_TO_OPEN";

/// The environment variable that tells the child process of [`a_recipient_that_exists_needs_no_disk`] where its ledger is.
const CHILD: &str = "GATEPOST_TEST_LEDGER";

#[test]
fn a_recipient_that_exists_needs_no_disk() {
    let dir = tempfile::tempdir().unwrap();
    let name = "guard::ledger::tests::cost::child_that_asks_for_the_living";
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--ignored", "--nocapture"])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let told = text.lines().find(|line| line.contains("octets written"));
    assert!(output.status.success() && told.is_some(), "{text}");
    println!("{}", told.unwrap());
}

/// How many octets this process has written so far (Linux).
fn written() -> u64 {
    let found = std::fs::read_to_string("/proc/self/io").unwrap();
    found.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the child process of a_recipient_that_exists_needs_no_disk"]
async fn child_that_asks_for_the_living() {
    const RECIPIENTS: u32 = 100_000;
    let dir = std::env::var(CHILD).unwrap();
    let rule = Policy { detection: DETECTION, ..policy(100) };
    let ledger = open(Path::new(&dir), rule);
    let watch = ledger.watch(&account("anna"), at(0)).await;
    let reply = Reply::parse(b"250 2.1.5 Ok\r\n").unwrap().unwrap().0;
    let addresses: Vec<String> = (0..RECIPIENTS).map(|n| format!("user{n}@living.example")).collect();
    // As `submission/probe.rs` does it.
    let ask = |address: &str| {
        let mut leave = watch.no_leave();
        watch.try_extend(&mut leave, 1, at(1));
        ledger.learn(Place::Rcpt, About::address(address), &reply);
        let _ = ledger.tally(true, false, at(1));
        watch.accepted(address, Some(Key::of_domain("living.example")), at(1));
        drop(leave);
    };
    // The first one teaches the upstream's 250, and begins the day.
    ask("first@living.example");
    let (before, begun) = (written(), Instant::now());
    addresses.iter().for_each(|address| ask(address));
    let each = begun.elapsed() / RECIPIENTS;
    drop(watch);
    soon(ledger.close()).await;
    // The account's and the day's data are written once in a while, and at the end.
    let octets = written() - before;
    println!("{each:?} for each of {RECIPIENTS} recipients, and {octets} octets written");
    assert!(octets < u64::from(RECIPIENTS), "{octets} octets written");
    assert!(cfg!(debug_assertions) || each < Duration::from_micros(2), "{each:?} for each recipient");
}

/// The resident memory of this process, in octets (Linux).
fn resident() -> u64 {
    let found = std::fs::read_to_string("/proc/self/statm").unwrap();
    found.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// One attempt for each.
fn fill(dir: &Path) {
    let store = Store::open(dir).unwrap();
    let sample = Some(("nobody@example.org".to_owned(), "192.0.2.1".parse().unwrap()));
    for begin in (0..ACCOUNTS).step_by(10_000) {
        let edits: Vec<Edit> = (begin..begin + 10_000)
            .map(|number| {
                let row = AttemptRow {
                    mark: Mark::new(at(0), Key::of(&number.to_be_bytes())),
                    sample: sample.clone(),
                };
                let key = rows::row_key(&account(&format!("user{number}@example.org")), 0);
                Edit { tree: Tree::Attempts, key, value: Some(rows::encode(&row)) }
            })
            .collect();
        store.apply(&edits).unwrap();
    }
    store.sync().unwrap();
}

async fn measure(dir: &Path) {
    let begun = Instant::now();
    let ledger = open(dir, policy(100));
    let (took, kib) = (begun.elapsed(), resident() / 1024);
    eprintln!("opened in {took:.2?}, {kib} KiB resident");
    // Unoptimized, beside other tests, it may take its time.
    let most = Duration::from_secs(if cfg!(debug_assertions) { 60 } else { 2 });
    assert!(took < most && kib < 200 * 1024, "{took:?}, {kib} KiB");
    let record = ledger.record(&account("user999999@example.org"), at(1)).await.unwrap();
    assert_eq!(record.invalid_recipients, 1);
}

/// The last step of each runs in a process of its own, so that memory used before is not counted.
#[tokio::test]
#[ignore = "writes 1,000,000 accounts, and measures"]
async fn a_million_accounts_open_within_two_seconds() {
    if let Some(dir) = std::env::var_os(TO_FILL) {
        return fill(Path::new(&dir));
    }
    if let Some(dir) = std::env::var_os(TO_OPEN) {
        return measure(Path::new(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let name = "guard::ledger::tests::cost::a_million_accounts_open_within_two_seconds";
    for order in [TO_FILL, TO_OPEN] {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env(order, dir.path())
            .status();
        assert!(status.unwrap().success(), "{order}");
    }
}
