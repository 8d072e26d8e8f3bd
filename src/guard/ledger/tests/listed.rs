//! The block list as text, beside the database.

use super::*;

/// The lines of accounts.
fn lines(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("blocked")).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[tokio::test]
async fn it_has_every_block_when_the_call_returns_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (anna, ben, carl) = (account("anna"), account("ben"), account("carl"));
    let ledger = open(dir.path(), policy(2));
    soon(ledger.block(&anna, Some("spam"), at(0))).await.unwrap();
    assert_eq!(lines(dir.path()), [format!("user:anna {} operator untold spam", at(0))]);
    let watch = ledger.watch(&ben, at(0)).await;
    count(&watch, "1@x", at(1)).await;
    assert_eq!(lines(dir.path()).len(), 1);
    assert_eq!(word(&count(&watch, "2@x", at(2)).await), "crossed 2");
    let limit = "2 invalid recipients within 1h";
    assert_eq!(lines(dir.path())[1], format!("user:ben {} limit untold {limit}", at(2)));
    soon(ledger.block(&carl, None, at(3))).await.unwrap();
    soon(ledger.unblock(&anna, at(4))).await.unwrap();
    assert_eq!(lines(dir.path()).len(), 2);
    for record in untold_blocks(&ledger, at(4)).await {
        told_block(&ledger, &record);
    }
    soon(async {
        while lines(dir.path()).iter().any(|line| line.contains("untold")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let day = Duration::from_secs(86_400);
    assert_eq!(ledger.lapsed(day, long_after(at(24 * HOUR + 2))), std::slice::from_ref(&ben));
    soon(ledger.lapse(&ben, day, long_after(at(24 * HOUR + 2)))).await.unwrap();
    assert_eq!(lines(dir.path()), [format!("user:carl {} operator told", at(3))]);
    soon(ledger.close()).await;
}

/// An older Gatepost had none; somebody removed it.
#[tokio::test]
async fn it_is_made_anew_from_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(10));
    soon(ledger.block(&account("anna"), None, at(0))).await.unwrap();
    soon(ledger.close()).await;
    for damage in [None, Some(&b"garbage\xff"[..])] {
        std::fs::remove_file(dir.path().join("blocked")).unwrap();
        if let Some(octets) = damage {
            std::fs::write(dir.path().join("blocked"), octets).unwrap();
        }
        soon(open(dir.path(), policy(10)).close()).await;
        assert_eq!(lines(dir.path()), [format!("user:anna {} operator untold", at(0))]);
    }
}

#[tokio::test]
async fn its_first_line_tells_the_time_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let head =
        || std::fs::read_to_string(dir.path().join("blocked")).unwrap().lines().next().map(str::to_owned);
    let ledger = open(dir.path(), policy(2));
    soon(ledger.close()).await;
    let none = head().unwrap();
    assert!(none.ends_with(&format!(", 0 accounts, at {}", at(0))), "{none}");
    let ledger = open(dir.path(), policy(2));
    soon(ledger.block(&account("anna"), None, at(1))).await.unwrap();
    let one = head().unwrap();
    assert!(one.ends_with(&format!(", 1 account, at {}", at(1))), "{one}");
    soon(ledger.close()).await;
}

/// A block is on the disk when both have it: one that can be written in one place only holds in memory, and is retried.
#[tokio::test]
async fn while_it_cannot_be_written_memory_holds_and_then_it_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let anna = account("anna");
    let ledger = open(dir.path(), policy(10));
    let mut trouble = ledger.trouble();
    soon(ledger.block(&account("ben"), None, at(0))).await.unwrap();
    std::fs::remove_file(dir.path().join("blocked")).unwrap();
    std::fs::create_dir(dir.path().join("blocked")).unwrap();
    let Err(LedgerError::Write(why)) = soon(ledger.block(&anna, None, at(1))).await else {
        panic!("written")
    };
    assert!(why.contains("/blocked: Is a directory"), "{why}");
    assert_eq!(ledger.watch(&anna, at(1)).await.standing(), Standing::Blocked);
    assert!(soon(trouble.wait_for(|trouble| trouble.is_some())).await.is_ok());
    std::fs::remove_dir(dir.path().join("blocked")).unwrap();
    assert!(soon(trouble.wait_for(Option::is_none)).await.is_ok());
    assert_eq!(lines(dir.path()).len(), 2);
    soon(ledger.close()).await;
}

/// Right after a failure a count waits for the next try, a second later; a block does not, since a crash would forget it.
#[tokio::test]
async fn a_block_does_not_wait_until_writing_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(2));
    let ben = ledger.watch(&account("ben"), at(0)).await;
    soon(ledger.block(&account("anna"), None, at(0))).await.unwrap();
    std::fs::remove_file(dir.path().join("blocked")).unwrap();
    std::fs::create_dir(dir.path().join("blocked")).unwrap();
    assert!(soon(ledger.unblock(&account("anna"), at(1))).await.is_err());
    assert_eq!(word(&count(&ben, "1@x", at(2)).await), "1");
    assert!(ledger.trouble().borrow().is_some());
    std::fs::remove_dir(dir.path().join("blocked")).unwrap();
    assert_eq!(word(&count(&ben, "2@x", at(3)).await), "crossed 2");
    assert_eq!(
        lines(dir.path()),
        [format!("user:ben {} limit untold 2 invalid recipients within 1h", at(3))]
    );
    assert!(ledger.trouble().borrow().is_none());
    soon(ledger.close()).await;
}
