//! Records from disk and memory, and the removal of those that nobody needs.

use std::collections::BTreeSet;

use super::*;

async fn names(ledger: &Ledger, page: usize, now: Timestamp) -> Vec<String> {
    let mut names = Vec::new();
    let mut after: Option<Account> = None;
    loop {
        let records = soon(ledger.records(after.as_ref(), page, now)).await.unwrap();
        assert!(records.len() <= page);
        let Some(last) = records.last() else { break };
        after = Some(last.account.clone());
        names.extend(records.iter().map(|record| record.account.to_string()));
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_over_disk_and_memory_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(100));
    let mut expected = BTreeSet::new();
    let mut held = Vec::new();
    let mut work = tokio::task::JoinSet::new();
    for n in 0..1000u64 {
        let name = account(&format!("user-{}", n * 7919 % 1000));
        match n % 10 {
            // Expired by the time of the look: on the disk, and in memory.
            0 => {}
            1 => held.push(ledger.watch(&name, at(0)).await),
            _ => {
                expected.insert(name.to_string());
            }
        }
        let (ledger, kind) = (ledger.clone(), n % 10);
        work.spawn(async move {
            match kind {
                0 | 1 => drop(count(&ledger.watch(&name, at(0)).await, "a@x", at(0)).await),
                2 => assert_eq!(ledger.block(&name, None, at(HOUR)).await.unwrap(), Change::Made),
                _ => drop(count(&ledger.watch(&name, at(HOUR)).await, "a@x", at(HOUR)).await),
            }
        });
    }
    while let Some(done) = soon(work.join_next()).await {
        done.unwrap();
    }
    let expected: Vec<String> = expected.into_iter().collect();
    for page in [1, 7, 256, 2000] {
        assert!(names(&ledger, page, at(HOUR)).await == expected, "pages of {page}");
    }
    drop(held);
    soon(ledger.close()).await;
    let ledger = open(dir.path(), policy(100));
    assert!(names(&ledger, 100, at(HOUR)).await == expected, "after a restart");
    assert_eq!(ledger.shared().accounts.page(None, 2000).len(), 100, "the blocked ones alone are in memory");
}

/// A disk that takes nothing keeps the database closed: what is in memory is in force, and shown.
#[tokio::test]
async fn without_the_database_those_in_memory_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(5));
    let watches = [ledger.watch(&account("anna"), at(0)).await, ledger.watch(&account("bob"), at(0)).await];
    for watch in &watches {
        count(watch, "a@x", at(0)).await;
    }
    ledger.handle.shared.store.close();
    assert_eq!(names(&ledger, 1, at(1)).await, ["user:anna", "user:bob"]);
}

/// Accounts come and go: expired ones leave the disk.
#[tokio::test]
async fn the_disk_stays_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(100));
    for n in 0..300 {
        // One in eight days: when the next comes, the one before is of no more use to the test either.
        let now = at(n * 8 * 24 * HOUR);
        let watch = ledger.watch(&account(&format!("user-{n}")), now).await;
        watch.relayed(Relayed { at: now, reply: "250 Ok".into(), message_id: None });
        count(&watch, "a@x", now).await;
    }
    // The writer sweeps after it answers; closing waits for that.
    soon(ledger.close()).await;
    let store = store::Store::open(dir.path()).unwrap();
    for tree in [store::Tree::Attempts, store::Tree::Relayed] {
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let rows = store.scan(tree, all, usize::MAX).unwrap().len();
        assert!((1..20).contains(&rows), "{rows} rows in {tree:?}");
    }
    store.close();
}

#[tokio::test]
async fn an_unblocked_account_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(5));
    let anna = account("anna");
    for n in 0..5 {
        count(&ledger.watch(&anna, at(n)).await, &format!("{n}@x"), at(n)).await;
    }
    assert!(soon(ledger.record(&anna, at(9))).await.unwrap().block.is_some());
    assert_eq!(soon(ledger.unblock(&anna, at(10))).await.unwrap(), Change::Made);
    assert!(soon(ledger.record(&anna, at(10))).await.is_none());
    soon(ledger.close()).await;
    let ledger = open(dir.path(), policy(5));
    let watch = ledger.watch(&anna, at(11)).await;
    assert_eq!(watch.standing(), Standing::Open);
    assert_eq!(word(&count(&watch, "0@x", at(11)).await), "1");
}
