//! A disk that takes no more: a child process with a limit on its files' size.

use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

const CHILD: &str = "GATEPOST_TEST_LEDGER";

#[test]
fn while_nothing_can_be_written_memory_holds_and_then_the_disk_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    // Beyond the limit write(2) fails with EFBIG, where the signal is ignored.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args([
            "guard::ledger::tests::trouble::child_with_a_full_disk",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("all is well"), "{text}");
}

fn allow_files_of(octets: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: octets.or(maximum), maximum }).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the child process of while_nothing_can_be_written_memory_holds_and_then_the_disk_catches_up"]
async fn child_with_a_full_disk() {
    let dir = std::env::var(CHILD).unwrap();
    let dir = Path::new(&dir);
    let ledger = open(dir, policy(9_000));
    let mut trouble = ledger.trouble();
    let anna = ledger.watch(&account("anna"), at(0)).await;
    assert_eq!(word(&count(&anna, "first@x", at(0)).await), "1");

    // As large as they are, files may be: nothing new fits.
    allow_files_of(Some(std::fs::metadata(dir.join("ledger/db")).unwrap().len()));
    let mut counted = 1;
    while trouble.borrow_and_update().is_none() {
        counted += 1;
        let address = format!("{}-{counted}@x", "x".repeat(250));
        assert_eq!(word(&count(&anna, &address, at(1)).await), counted.to_string());
        assert!(counted < 8_000, "the disk is not full");
    }
    println!("full after {counted}: {:?}", trouble.borrow().as_deref());

    // Replies go on as they would: counts, the limit, blocks by hand.
    assert_eq!(word(&count(&anna, "more@x", at(2)).await), (counted + 1).to_string());
    ledger.set_policy(policy(counted + 2));
    assert_eq!(word(&count(&anna, "last@x", at(3)).await), format!("crossed {}", counted + 2));
    assert_eq!(anna.standing(), Standing::Blocked);
    let ben = account("ben");
    assert!(matches!(soon(ledger.block(&ben, None, at(3))).await, Err(LedgerError::Write(_))));
    assert_eq!(ledger.watch(&ben, at(3)).await.standing(), Standing::Blocked);
    // The list still fits: a crash now would not forget who is blocked.
    let listed = std::fs::read_to_string(dir.join("blocked")).unwrap();
    assert!(["user:anna ", "user:ben "].iter().all(|user| listed.contains(user)), "{listed}");
    let carl = ledger.watch(&account("carl"), at(3)).await;
    assert_eq!(word(&count(&carl, "a@x", at(3)).await), "1");
    assert!(trouble.borrow().is_some());

    // There is room again: within a second or so all is written.
    allow_files_of(None);
    soon(trouble.wait_for(Option::is_none)).await.unwrap();
    assert_eq!(soon(ledger.block(&ben, None, at(4))).await.unwrap(), Change::WasSo);
    assert_eq!(word(&count(&carl, "b@x", at(4)).await), "2");
    let before = anna.record(at(5));
    drop((anna, carl));
    soon(ledger.close()).await;

    let ledger = open(dir, policy(9_000));
    let before = Record { limit: 9_000, ..before };
    assert_eq!(soon(ledger.record(&account("anna"), at(5))).await, Some(before));
    assert_eq!(soon(ledger.record(&account("carl"), at(5))).await.unwrap().invalid_recipients, 2);
    assert!(soon(ledger.record(&ben, at(5))).await.unwrap().block.is_some());
    soon(ledger.close()).await;
    println!("all is well");
}
