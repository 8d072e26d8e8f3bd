//! Databases that are damaged, truncated, or gone: the blocks survive.

use super::*;

/// A data directory with two blocks (anna by hand, ben by the limit, both told; carl's is lifted) and some counts.
async fn made() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(40));
    soon(ledger.block(&account("anna"), Some("spam"), at(0))).await.unwrap();
    let watch = ledger.watch(&account("ben"), at(0)).await;
    let mut crossed = 0;
    for n in 0..40 {
        if matches!(count(&watch, &format!("{n}@x"), at(n)).await, Verdict::Crossed(_)) {
            crossed += 1;
        }
    }
    assert_eq!(crossed, 1);
    for n in 0..200 {
        let watch = ledger.watch(&account(&format!("user-{n}")), at(0)).await;
        count(&watch, "1@x", at(n)).await;
    }
    soon(ledger.block(&account("carl"), None, at(1))).await.unwrap();
    soon(ledger.unblock(&account("carl"), at(2))).await.unwrap();
    for record in untold_blocks(&ledger, at(2)).await {
        told_block(&ledger, &record);
    }
    soon(ledger.close()).await;
    dir
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for name in ["", "ledger"] {
        std::fs::create_dir_all(to.path().join(name)).unwrap();
        for file in std::fs::read_dir(from.join(name)).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file() {
                std::fs::copy(file.path(), to.path().join(name).join(file.file_name())).unwrap();
            }
        }
    }
    to
}

fn reopen(dir: &Path, parked: &[(&str, BlockedBy)]) -> Ledger {
    let block = |by| Block { at: at(7), by, reason: None };
    let parked = || parked.iter().map(|(name, by)| (account(name), block(*by))).collect();
    Ledger::open(dir, policy(40), &parked, at(9)).unwrap()
}

/// `anna operator`, ...
async fn blocks(ledger: &Ledger) -> Vec<String> {
    let records = soon(ledger.records(None, 1000, at(3))).await.unwrap();
    let blocked = |record: &Record| Some(format!("{} {:?}", record.account, record.block.as_ref()?.by));
    records.iter().filter_map(blocked).collect()
}

fn aside(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("ledger.broken-")).collect()
}

const ALL: [&str; 2] = ["user:anna Operator", "user:ben Limit"];

/// Whatever happens to the database's files: it opens, the blocks are exactly those that should be, and the next opening finds
/// nothing amiss.
#[tokio::test]
async fn no_damage_loses_a_block() {
    let whole = made().await;
    soon(reopen(whole.path(), &[]).close()).await; // with a snapshot
    let db = std::fs::read(whole.path().join("ledger/db")).unwrap();
    let snapshot = std::fs::read_dir(whole.path().join("ledger")).unwrap();
    let snapshot = snapshot.map(|file| file.unwrap().file_name().into_string().unwrap());
    let snapshot = snapshot.filter(|name| name.starts_with("snap")).max();
    let mut damages: Vec<(String, String, Vec<u8>)> = Vec::new();
    let used = db.iter().rposition(|octet| *octet != 0).unwrap();
    for part in 0..8 {
        let end = used * part / 8;
        damages.push((format!("cut at {end}"), "db".into(), db[..end].to_vec()));
    }
    for part in 0..24 {
        let place = used * part / 24 + part % 5;
        let mut flipped = db.clone();
        flipped[place] ^= 1 << (part % 8);
        damages.push((format!("flipped at {place}"), "db".into(), flipped));
    }
    damages.push(("a page of zeros".into(), "db".into(), {
        let mut zeroed = db.clone();
        zeroed[used / 2..used / 2 + 4096].fill(0);
        zeroed
    }));
    damages.push(("garbage".into(), "db".into(), (0..db.len()).map(|n| (n * 31 % 251) as u8).collect()));
    damages.push(("garbage".into(), "conf".into(), b"garbage".to_vec()));
    damages.push(("nothing".into(), "conf".into(), Vec::new()));
    if let Some(name) = snapshot {
        let octets = std::fs::read(whole.path().join("ledger").join(&name)).unwrap();
        damages.push(("half".into(), name.clone(), octets[..octets.len() / 2].to_vec()));
        let mut flipped = octets;
        let middle = flipped.len() / 2;
        flipped[middle] ^= 4;
        damages.push(("flipped".into(), name, flipped));
    }
    let (mut set_aside, mut behind) = (0, 0);
    for (what, file, octets) in damages {
        let dir = copy(whole.path());
        std::fs::write(dir.path().join("ledger").join(&file), octets).unwrap();
        let ledger = reopen(dir.path(), &[("wrong", BlockedBy::Limit)]);
        assert_eq!(blocks(&ledger).await, ALL, "{file}: {what}");
        let recovery = ledger.recovery();
        match (aside(dir.path()).as_slice(), &recovery) {
            ([name], Some(text)) => {
                set_aside += 1;
                assert!(
                    text.contains(name) && text.contains("2 blocked account(s) from"),
                    "{file}: {what}: {text}"
                );
            }
            ([], Some(_)) => behind += 1,
            ([], None) => {}
            other => panic!("{file}: {what}: {other:?}"),
        }
        ledger.told_recovery().unwrap_or_else(|error| assert!(recovery.is_none(), "{error}"));
        soon(ledger.close()).await;
        let again = reopen(dir.path(), &[]);
        assert_eq!(
            (blocks(&again).await, again.recovery()),
            (ALL.map(str::to_owned).into(), None),
            "{file}: {what}"
        );
        soon(again.close()).await;
    }
    println!("{set_aside} set aside, {behind} behind");
    assert!(set_aside > 5, "{set_aside}");
}

/// sled takes a truncated log for a shorter one; the list knows better.
#[tokio::test]
async fn a_database_that_has_lost_its_end_is_told_by_the_list() {
    let dir = made().await;
    let older = copy(dir.path());
    let ledger = reopen(dir.path(), &[]);
    soon(ledger.block(&account("dora"), None, at(4))).await.unwrap();
    soon(ledger.unblock(&account("anna"), at(5))).await.unwrap();
    for (account, at) in untold_unblocks(&ledger).await {
        told_unblocked(&ledger, &account, at);
    }
    soon(ledger.close()).await;
    std::fs::remove_dir_all(dir.path().join("ledger")).unwrap();
    std::fs::rename(older.path().join("ledger"), dir.path().join("ledger")).unwrap();
    let ledger = reopen(dir.path(), &[("wrong", BlockedBy::Limit)]);
    assert_eq!(blocks(&ledger).await, ["user:ben Limit", "user:dora Operator"]);
    assert!(ledger.recovery().unwrap().contains("had lost its latest changes"));
    assert_eq!(aside(dir.path()).len(), 0);
    let unblocked = untold_unblocks(&ledger).await;
    assert!(unblocked.contains(&(account("anna"), at(9))), "nobody knows whether it was told: {unblocked:?}");
    soon(ledger.close()).await;
    assert_eq!(blocks(&reopen(dir.path(), &[])).await, ["user:ben Limit", "user:dora Operator"]);
}

#[tokio::test]
async fn without_database_and_list_what_is_parked_speaks() {
    let parked = [("anna", BlockedBy::Operator), ("eve", BlockedBy::Limit)];
    for (ledger_too, list, expected) in [
        (true, None, vec!["user:anna Operator", "user:eve Limit"]),
        // What can be read of a damaged list is read too.
        (
            true,
            Some("# garbage\nuser:zoe 2024-10-01T16:05:28Z limit told x\n"),
            vec!["user:anna Operator", "user:eve Limit", "user:zoe Limit"],
        ),
        // The database is undamaged and needs neither.
        (false, None, ALL.to_vec()),
        (false, Some("# garbage"), ALL.to_vec()),
    ] {
        let dir = made().await;
        if ledger_too {
            std::fs::remove_dir_all(dir.path().join("ledger")).unwrap();
        }
        std::fs::remove_file(dir.path().join("blocked")).unwrap();
        if let Some(text) = list {
            std::fs::write(dir.path().join("blocked"), text).unwrap();
        }
        let ledger = reopen(dir.path(), &parked);
        assert_eq!(blocks(&ledger).await, expected);
        assert_eq!(ledger.recovery().is_some(), ledger_too);
        // A block by hand lasts; one by the limit lapses, as `unblock_after` says.
        let day = Duration::from_secs(86_400);
        let lapsed: Vec<_> =
            ledger.lapsed(day, long_after(at(48 * HOUR))).iter().map(ToString::to_string).collect();
        let automatic = expected.iter().filter_map(|block| block.strip_suffix(" Limit"));
        assert_eq!(lapsed, automatic.collect::<Vec<_>>());
        soon(ledger.close()).await;
    }
}

#[tokio::test]
async fn a_first_start_has_nothing_to_tell() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(10));
    assert_eq!((ledger.recovery(), blocks(&ledger).await.len()), (None, 0));
}

/// A database whose opening was cut short before the blocks were taken over is not taken for a complete one.
#[tokio::test]
async fn a_database_counts_as_made_once_the_blocks_are_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store::Store::open(dir.path()).unwrap();
    assert!(store.is_fresh());
    store.close();
    let ledger = reopen(dir.path(), &[("anna", BlockedBy::Limit)]);
    assert_eq!(blocks(&ledger).await, ["user:anna Limit"]);
    soon(ledger.close()).await;
    std::fs::remove_file(dir.path().join("blocked")).unwrap();
    let ledger = reopen(dir.path(), &[("eve", BlockedBy::Limit)]);
    assert_eq!(blocks(&ledger).await, ["user:anna Limit"], "now it is whole");
}

/// A database on a full disk, or of another user, is not broken: it stays where it is.
#[test]
fn what_another_database_would_not_cure_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("ledger.lock")).unwrap();
    let opened = Ledger::open(dir.path(), policy(10), &Vec::new, at(0)).err();
    assert!(matches!(opened, Some(LedgerError::Unopenable { .. })), "{opened:?}");
    assert_eq!(aside(dir.path()).len(), 0);
}
