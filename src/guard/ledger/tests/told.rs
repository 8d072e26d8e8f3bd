//! Which blocks are still to be told to the abuse desk.

use super::*;

async fn untold(ledger: &Ledger) -> Vec<(String, Option<BlockedBy>, u32, usize)> {
    let records = untold_blocks(ledger, at(HOUR)).await;
    let shown = |record: Record| {
        let block = record.block.map(|block| block.by);
        (record.account.to_string(), block, record.invalid_recipients, record.samples.len())
    };
    records.into_iter().map(shown).collect()
}

#[tokio::test]
async fn a_block_is_untold_until_it_is_told_over_restarts_too() {
    let dir = tempfile::tempdir().unwrap();
    let (anna, ben) = (account("anna"), account("ben"));
    let block = vec![("user:anna".to_owned(), Some(BlockedBy::Limit), 2, 2)];
    let ledger = open(dir.path(), policy(2));
    let watch = ledger.watch(&anna, at(0)).await;
    count(&watch, "a@x", at(1)).await;
    assert_eq!(untold(&ledger).await, []);
    count(&watch, "b@x", at(2)).await;
    soon(ledger.crossed()).await;
    // Whoever blocks by hand knows of it, but a program may not.
    soon(ledger.block(&ben, None, at(3))).await.unwrap();
    let by_hand = ("user:ben".to_owned(), Some(BlockedBy::Operator), 0, 0);
    assert_eq!(untold(&ledger).await, [block.clone(), vec![by_hand]].concat());
    told_block(&ledger, &untold_blocks(&ledger, at(HOUR)).await[1]);
    soon(ledger.close()).await;

    // With everything the notice says; and still blocked once it is reported.
    let ledger = open(dir.path(), policy(2));
    assert_eq!(untold(&ledger).await, block);
    told_block(&ledger, &untold_blocks(&ledger, at(HOUR)).await[0]);
    assert_eq!(untold(&ledger).await, []);
    soon(ledger.close()).await;

    let ledger = open(dir.path(), policy(2));
    assert_eq!(untold(&ledger).await, []);
    for account in [&anna, &ben] {
        assert_eq!(ledger.watch(account, at(HOUR)).await.standing(), Standing::Blocked);
    }
    let block = ledger.watch(&anna, at(HOUR)).await.block().unwrap();
    assert_eq!((block.at, block.by), (at(2), BlockedBy::Limit));
}

#[tokio::test]
async fn another_block_is_another_notice() {
    let dir = tempfile::tempdir().unwrap();
    let anna = account("anna");
    let ledger = open(dir.path(), policy(1));
    let watch = ledger.watch(&anna, at(0)).await;
    count(&watch, "a@x", at(1)).await;
    let first = untold_blocks(&ledger, at(1)).await.remove(0);
    // Lifted and made again before the first notice is written.
    soon(ledger.unblock(&anna, at(2))).await.unwrap();
    assert_eq!(untold(&ledger).await, []);
    count(&watch, "a@x", at(3)).await;
    told_block(&ledger, &first);
    assert_eq!(untold(&ledger).await.len(), 1);
    told_block(&ledger, &untold_blocks(&ledger, at(3)).await[0]);
    assert_eq!(untold(&ledger).await, []);
}

/// The session's task ends before the block is on the disk, so nobody gets the verdict.
#[tokio::test]
async fn a_count_that_is_dropped_leaves_the_block_to_be_told() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(1));
    let watch = ledger.watch(&account("anna"), at(0)).await;
    let client = "192.0.2.1".parse().unwrap();
    let mut counting =
        Box::pin(watch.count(Attempt { address: "a@x", key: b"a@x", domain: Some("x"), client, now: at(0) }));
    std::future::poll_fn(|cx| {
        let _ = counting.as_mut().poll(cx);
        std::task::Poll::Ready(())
    })
    .await;
    drop(counting);
    soon(async {
        while untold(&ledger).await.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
