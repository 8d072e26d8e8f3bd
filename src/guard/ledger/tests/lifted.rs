//! Blocks that lapse, and liftings that are still to be reported.

use super::entry::Entry;
use super::*;

const DAY: Duration = Duration::from_secs(86_400);

async fn tell_all(ledger: &Ledger, now: Timestamp) {
    for record in untold_blocks(ledger, now).await {
        told_block(ledger, &record);
    }
}

async fn lapse(ledger: &Ledger, now: Timestamp) -> Vec<String> {
    lapse_at(ledger, long_after(now)).await
}

async fn lapse_at(ledger: &Ledger, now: Moment) -> Vec<String> {
    let mut lapsed = Vec::new();
    for account in ledger.lapsed(DAY, now) {
        let block = soon(ledger.lapse(&account, DAY, now)).await.unwrap();
        lapsed.push(format!("{account} {:?}", block.by));
    }
    lapsed
}

#[tokio::test]
async fn automatic_blocks_lapse_and_all_begins_from_zero() {
    let dir = tempfile::tempdir().unwrap();
    let (anna, ben) = (account("anna"), account("ben"));
    let ledger = open(dir.path(), policy(2));
    let watch = ledger.watch(&anna, at(0)).await;
    count(&watch, "a@x", at(1)).await;
    count(&watch, "b@x", at(2)).await;
    soon(ledger.block(&ben, None, at(3))).await.unwrap();
    let later = at(2).after(DAY);
    assert_eq!(lapse(&ledger, later).await, [""; 0], "not before the abuse desk was told");
    tell_all(&ledger, at(4)).await;
    assert_eq!(lapse(&ledger, later.before(Duration::from_millis(1))).await, [""; 0]);
    drop(watch);
    soon(ledger.close()).await;

    // Older than that at the start: over a restart, too.
    let ledger = open(dir.path(), policy(2));
    assert_eq!(lapse(&ledger, later).await, ["user:anna Limit"]);
    assert_eq!(lapse(&ledger, later).await, [""; 0]);
    let watch = ledger.watch(&anna, later).await;
    assert_eq!(watch.standing(), Standing::Open);
    assert_eq!(ledger.watch(&ben, later).await.standing(), Standing::Blocked, "by hand");
    assert_eq!(word(&count(&watch, "a@x", later).await), "1", "the window begins from zero");
    soon(ledger.close()).await;

    let ledger = open(dir.path(), policy(2));
    assert_eq!(ledger.watch(&anna, later).await.standing(), Standing::Open);
    assert_eq!(ledger.record(&anna, later).await.unwrap().invalid_recipients, 1);
}

/// A machine without a battery starts in 1970, and blocks somebody before its clock is right.
#[tokio::test]
async fn a_block_is_no_older_than_the_time_that_has_passed() {
    let dir = tempfile::tempdir().unwrap();
    let anna = account("anna");
    let ledger = open(dir.path(), policy(2));
    let floor = at(0).after(10_000 * DAY);
    ledger.raise_floor(floor);
    let watch = ledger.watch(&anna, at(0)).await;
    let block = async |address: &str, now| {
        count(&watch, address, now).await;
        count(&watch, &format!("{address}y"), now).await;
        tell_all(&ledger, now).await;
        ledger.record(&anna, now).await.unwrap().block.unwrap().at
    };
    assert_eq!(block("a@x", at(1)).await, floor, "not in 1970");
    let right = floor.after(5 * DAY);
    let record = ledger.record(&anna, right).await.unwrap();
    assert_eq!((record.invalid_recipients, record.samples.len()), (2, 2), "what led to it stays to be seen");
    let (minute, begun) = (Duration::from_secs(60), Instant::now());
    let lapse_after = async |passed, at| lapse_at(&ledger, Moment { at, instant: begun + passed }).await;
    assert_eq!(lapse_after(minute, right).await, [""; 0], "the clock was put right a minute later");
    assert_eq!(lapse_after(DAY - minute, right.after(DAY)).await, [""; 0]);
    assert_eq!(lapse_after(2 * DAY, floor.after(DAY - minute)).await, [""; 0], "by both clocks");

    // Lifted and made again while the clock is behind: each has a time of its own, and the lifting is between them.
    soon(ledger.unblock(&anna, at(2))).await.unwrap();
    assert_eq!(untold_unblocks(&ledger).await, [(anna.clone(), floor)]);
    assert_eq!(block("b@x", at(3)).await, floor.after(Duration::from_millis(1)));
    drop(watch);
    soon(ledger.close()).await;
    let ledger = open(dir.path(), policy(2));
    assert_eq!(lapse(&ledger, floor.after(DAY)).await, [""; 0]);
    assert_eq!(lapse(&ledger, floor.after(2 * DAY)).await, ["user:anna Limit"]);
}

/// An operator who blocks a blocked account has looked at it, and means it to stay blocked.
#[tokio::test]
async fn a_block_that_is_made_again_by_hand_stays() {
    let dir = tempfile::tempdir().unwrap();
    let anna = account("anna");
    let ledger = open(dir.path(), policy(2));
    let watch = ledger.watch(&anna, at(0)).await;
    count(&watch, "a@x", at(1)).await;
    count(&watch, "b@x", at(2)).await;
    tell_all(&ledger, at(3)).await;
    let made = soon(ledger.block(&anna, Some("phished"), at(4))).await.unwrap();
    assert_eq!(made, Change::WasSo);
    drop(watch);
    soon(ledger.close()).await;
    let ledger = open(dir.path(), policy(2));
    assert_eq!(lapse(&ledger, at(2).after(2 * DAY)).await, [""; 0]);
    let block = ledger.record(&anna, at(5)).await.unwrap().block.unwrap();
    assert_eq!((block.by, block.reason.as_deref(), block.at), (BlockedBy::Operator, Some("phished"), at(2)));
    assert_eq!(untold_blocks(&ledger, at(5)).await, [], "it was told of");
    soon(ledger.close()).await;
}

#[tokio::test]
async fn a_lifting_is_untold_until_it_is_told_over_restarts_too() {
    let dir = tempfile::tempdir().unwrap();
    let (anna, ben) = (account("anna"), account("ben"));
    let ledger = open(dir.path(), policy(2));
    soon(ledger.unblock(&anna, at(0))).await.unwrap();
    assert_eq!(untold_unblocks(&ledger).await, [], "it was not blocked");
    soon(ledger.block(&anna, None, at(1))).await.unwrap();
    soon(ledger.unblock(&anna, at(2))).await.unwrap();
    soon(ledger.crossed()).await;
    assert_eq!(untold_unblocks(&ledger).await, [(anna.clone(), at(2))]);
    soon(ledger.close()).await;

    let ledger = open(dir.path(), policy(2));
    assert_eq!(untold_unblocks(&ledger).await, [(anna.clone(), at(2))]);
    assert_eq!(ledger.record(&anna, at(3)).await, None, "nothing else is to be said of it");
    // Blocked again meanwhile, and lifted again before the first is reported.
    soon(ledger.block(&anna, None, at(3))).await.unwrap();
    assert_eq!(untold_unblocks(&ledger).await, [(anna.clone(), at(2))]);
    soon(ledger.unblock(&anna, at(4))).await.unwrap();
    told_unblocked(&ledger, &anna, at(2));
    assert_eq!(untold_unblocks(&ledger).await, [(anna.clone(), at(4))]);
    told_unblocked(&ledger, &anna, at(4));
    assert_eq!(untold_unblocks(&ledger).await, []);
    // The commit also takes it out of memory; ben's lifting is still to be reported.
    soon(ledger.block(&ben, None, at(5))).await.unwrap();
    soon(ledger.unblock(&ben, at(6))).await.unwrap();
    soon(ledger.block(&ben, None, at(7))).await.unwrap();
    soon(ledger.close()).await;

    let ledger = open(dir.path(), policy(2));
    assert_eq!(untold_unblocks(&ledger).await, [(ben.clone(), at(6))]);
    assert_eq!(ledger.watch(&ben, at(8)).await.standing(), Standing::Blocked);
    assert_eq!(ledger.watch(&anna, at(8)).await.standing(), Standing::Open);
}

/// `status` shows a block until its lifting is on the disk, or cannot be written for now.
#[test]
fn a_block_is_shown_until_its_lifting_is_in_force() {
    let (anna, policy) = (account("anna"), Arc::new(policy(3)));
    let block = Block { at: at(0), by: BlockedBy::Limit, reason: None };
    for written in [true, false] {
        let kept = rows::KeptBlock { block: block.clone(), told: true };
        let entry = Entry::withheld(&anna, Some(kept), None);
        let shown = || {
            let mut state = entry.lock();
            let terms = state.terms(&policy);
            (entry.standing(), state.is_notable(at(2), &terms), state.record(at(2), &terms).block)
        };
        let blocked = (Standing::Blocked, true, Some(block.clone()));
        assert_eq!(shown(), blocked);
        let commit = {
            let mut state = entry.lock();
            assert!(state.unblock(at(1)));
            state.commit()
        };
        assert_eq!(shown(), blocked);
        if written {
            entry.committed(&commit);
        } else {
            entry.show_unwritten();
        }
        assert_eq!(shown(), (Standing::Open, false, None));
    }
}
