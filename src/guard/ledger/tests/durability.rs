//! Restarts, kills, and databases that are not as they should be.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;
use crate::smtp::Enhanced;

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (anna, ben) = (account("anna"), account("host:2001:db8::1"));
    let ledger = open(dir.path(), policy(30));
    let watch = ledger.watch(&anna, at(0)).await;
    for n in 0..29 {
        count(&watch, &format!("{n}@x"), at(n * HOUR / 60)).await;
    }
    soon(ledger.block(&ben, Some("spam"), at(0))).await.unwrap();
    assert!((0..999).all(|_| ledger.tally(false, false, at(0)).is_none()));
    let before = watch.record(at(HOUR / 2));
    assert_eq!((before.invalid_recipients, before.samples.len()), (29, SAMPLES));
    soon(ledger.close()).await;

    let ledger = open(dir.path(), policy(30));
    let watch = ledger.watch(&anna, at(HOUR / 2)).await;
    assert_eq!(watch.record(at(HOUR / 2)), before);
    assert_eq!(word(&count(&watch, "0@x", at(HOUR / 2)).await), "repeated");
    assert_eq!(word(&count(&watch, "new@x", at(HOUR / 2)).await), "crossed 30");
    let ben = ledger.watch(&ben, at(1)).await;
    assert_eq!(ben.block().unwrap().reason.as_deref(), Some("spam"));
    assert_eq!(ledger.tally(false, false, at(0)), Some(Blindness::Everybody), "the thousandth");
}

/// Values that nobody waits for are written without the ledger being closed.
#[tokio::test]
async fn precedents_and_the_day_are_on_the_disk_soon() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(10));
    let ok = Reply::fixed(250, Enhanced { class: 2, subject: 1, detail: 5 }, "Recipient <anna@x> fine");
    ledger.learn(Place::Rcpt, About::address("anna@x"), &ok);
    assert_eq!(ledger.precedents().rcpt.as_ref().unwrap().reply, ok);
    ledger.tally(true, false, at(0));
    let written = async {
        let store = &ledger.shared().store;
        for key in [writer::PRECEDENTS, writer::DAY] {
            while store.value(store::Tree::Meta, key).unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    soon(written).await;
    let precedents = ledger.precedents();
    drop(ledger);
    assert_eq!(open(dir.path(), policy(10)).precedents(), precedents);
}

#[tokio::test]
async fn a_clock_that_steps_back_does_no_harm_over_a_restart_either() {
    let dir = tempfile::tempdir().unwrap();
    let anna = account("anna");
    let ledger = open(dir.path(), policy(10));
    let watch = ledger.watch(&anna, at(0)).await;
    // Years ahead, then right again.
    count(&watch, "a@x", at(100_000 * HOUR)).await;
    assert_eq!(word(&count(&watch, "b@x", at(0)).await), "2");
    soon(ledger.close()).await;
    drop(watch);
    let ledger = open(dir.path(), policy(10));
    let watch = ledger.watch(&anna, at(1)).await;
    assert_eq!(word(&count(&watch, "c@x", at(HOUR - 1)).await), "3");
    assert_eq!(word(&count(&watch, "d@x", at(HOUR)).await), "2");
}

#[tokio::test]
async fn when_all_are_gone_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(10));
    let watch = ledger.watch(&account("anna"), at(0)).await;
    match Ledger::open(dir.path(), policy(10), &Vec::new, at(0)).err() {
        Some(LedgerError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    drop(ledger);
    assert!(
        matches!(Ledger::open(dir.path(), policy(10), &Vec::new, at(0)), Err(LedgerError::InUse { .. })),
        "the watch has it"
    );
    drop(watch);
    drop(open(dir.path(), policy(10)));

    let ledger = open(dir.path(), policy(10));
    let watch = ledger.watch(&account("anna"), at(0)).await;
    soon(ledger.close()).await;
    soon(ledger.close()).await;
    assert_eq!(word(&count(&watch, "a@x", at(0)).await), "1", "in memory");
    assert!(matches!(soon(ledger.block(&account("ben"), None, at(0))).await, Err(LedgerError::Write(_))));
    drop(open(dir.path(), policy(10)));
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = store::Store::open(dir.path()).unwrap();
    let value = Some(2u32.to_be_bytes().to_vec());
    store.apply(&[store::Edit { tree: store::Tree::Meta, key: b"schema".into(), value }]).unwrap();
    store.close();
    for _ in 0..2 {
        match Ledger::open(dir.path(), policy(10), &Vec::new, at(0)).err() {
            Some(LedgerError::Newer { found: 2, known: 1, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// sled#1533: a kill during an open leaves a half-written snapshot, which the next open takes for the newest.
#[tokio::test]
async fn a_half_written_snapshot_is_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(10));
    count(&ledger.watch(&account("anna"), at(0)).await, "a@x", at(0)).await;
    soon(ledger.close()).await;
    let leftover = dir.path().join("ledger/snap.00000000FFFFFFFF.generating");
    std::fs::write(&leftover, b"half").unwrap();
    // Without the remedy sled does not open; if it does one day, the remedy can go.
    assert!(store::tests::sled_opens(&dir.path().join("ledger")).is_err());
    std::fs::write(&leftover, b"half").unwrap();
    let ledger = open(dir.path(), policy(10));
    assert_eq!(soon(ledger.record(&account("anna"), at(0))).await.unwrap().invalid_recipients, 1);
    assert!(!leftover.exists());
}

const CHILD: &str = "GATEPOST_TEST_LEDGER";
const ROUNDS: usize = 20;
/// More rounds, each with more time, where the machine is so busy that hardly anything was acknowledged.
const ROUNDS_MORE: usize = 60;
const ENOUGH: u32 = 100;
const TASKS: usize = 8;

/// Killed at random moments, during opening too: no count or block that had returned is missing.
#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = seed;
    let mut acknowledged: HashMap<String, u32> = HashMap::new();
    for round in 0..ROUNDS + ROUNDS_MORE {
        if round >= ROUNDS && acknowledged.values().sum::<u32>() > ENOUGH {
            break;
        }
        let patience = 250 * (1 + round / ROUNDS) as u64;
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let lines = run_and_kill(dir.path(), round, Duration::from_millis((random >> 33) % patience));
        for line in &lines {
            *acknowledged.entry(line.clone()).or_default() += 1;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ledger = open(dir.path(), policy(10_000));
            for (name, counts) in &acknowledged {
                let record = soon(ledger.record(&account(name), at(HOUR - 1))).await;
                let record = record.unwrap_or_else(|| panic!("round {round}: {name} is gone"));
                assert!(
                    record.invalid_recipients >= *counts || record.block.is_some(),
                    "round {round}: {name}"
                );
                assert_eq!(record.block.is_some(), name.starts_with("blocked"), "round {round}: {name}");
            }
            soon(ledger.close()).await;
        });
    }
    let all: u32 = acknowledged.values().sum();
    println!("{all} acknowledged");
    assert!(all > ENOUGH, "{all} acknowledged in all");
}

/// What the child printed before its end.
fn run_and_kill(dir: &Path, round: usize, after: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["guard::ledger::tests::durability::child_that_counts", "--exact", "--ignored", "--nocapture"])
        .env(CHILD, dir)
        .env("GATEPOST_TEST_ROUND", round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n');
    let reader = std::thread::spawn(move || {
        let text = lines.by_ref().map_while(Result::ok).map(|line| String::from_utf8(line).unwrap());
        // The last line may be cut off: each ends with a full stop.
        text.filter_map(|line| line.strip_prefix("done ")?.strip_suffix('.').map(str::to_owned)).collect()
    });
    std::thread::sleep(after); // the random moment
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[test]
#[ignore = "the child process of a_kill_loses_nothing_that_was_acknowledged"]
fn child_that_counts() {
    let dir = std::env::var(CHILD).unwrap();
    let round = std::env::var("GATEPOST_TEST_ROUND").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ledger = open(Path::new(&dir), policy(10_000));
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..TASKS {
            let (ledger, round) = (ledger.clone(), round.clone());
            tasks.spawn(async move {
                let name = format!("user-{task}");
                let watch = ledger.watch(&account(&name), at(0)).await;
                for n in 0.. {
                    if n % 50 == 49 {
                        let name = format!("blocked-{round}-{task}-{n}");
                        ledger.block(&account(&name), None, at(0)).await.unwrap();
                        println!("done {name}.");
                    }
                    let verdict = count(&watch, &format!("{round}-{n}@x"), at(n % 1000)).await;
                    if matches!(verdict, Verdict::Counted { .. }) {
                        println!("done {name}.");
                    }
                }
            });
        }
        tasks.join_next().await;
    });
}
