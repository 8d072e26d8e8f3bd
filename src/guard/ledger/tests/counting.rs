//! Verdicts, reservations, blocks and what they do to each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test]
async fn the_nth_crosses_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(3));
    let watch = ledger.watch(&account("anna"), at(0)).await;
    let mut verdicts = Vec::new();
    for (address, now) in [
        ("a@x", 0),
        ("a@x", 1),
        ("b@x", HOUR - 1),
        ("c@x", HOUR), // a@x no longer counts
        ("b@x", HOUR + 1),
        ("d@x", HOUR + 2),
        ("e@x", HOUR + 3),
    ] {
        verdicts.push(word(&count(&watch, address, at(now)).await));
    }
    assert_eq!(verdicts, ["1", "repeated", "2", "2", "repeated", "crossed 3", "blocked"]);

    // A day later the record still shows the window at the time of the block.
    let record = watch.record(at(30 * HOUR));
    assert_eq!(record.invalid_recipients, 3);
    assert_eq!((record.first, record.last), (Some(at(HOUR - 1)), Some(at(HOUR + 2))));
    let addresses: Vec<&str> = record.samples.iter().map(|sample| sample.address.as_str()).collect();
    assert_eq!(addresses, ["b@x", "c@x", "d@x"]);
    let block = watch.block().unwrap();
    assert_eq!(block.by, BlockedBy::Limit);
    assert_eq!(block.reason.as_deref(), Some("3 invalid recipients within 1h"));
    assert_eq!(watch.standing(), Standing::Blocked);
}

#[tokio::test]
async fn observed_and_exempt_accounts_are_never_blocked_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let exempt = account("newsletter");
    for (name, policy) in [
        ("anna", Policy { observe: true, ..policy(2) }),
        ("newsletter", Policy { exempt: [exempt.clone()].into(), ..policy(2) }),
    ] {
        let ledger = open(dir.path(), policy.clone());
        let watch = ledger.watch(&account(name), at(0)).await;
        let mut verdicts = Vec::new();
        for n in 0..4 {
            verdicts.push(word(&count(&watch, &format!("{n}@x"), at(n)).await));
        }
        assert_eq!(verdicts, ["1", "would block 2", "3", "4"], "and beyond the limit");
        let record = watch.record(at(4));
        assert_eq!((record.invalid_recipients, record.first), (4, Some(at(0))));
        assert_eq!(word(&count(&watch, "0@x", at(4)).await), "repeated", "also what is beyond the limit");
        let mut all = watch.no_leave();
        assert_eq!(watch.try_extend(&mut all, 500, at(5)), Some(500));
        drop((all, watch));
        soon(ledger.close()).await;

        // Once a day, over a restart; on the next day again.
        let ledger = open(dir.path(), policy);
        let watch = ledger.watch(&account(name), at(0)).await;
        assert_eq!(word(&count(&watch, "5@x", at(6)).await), "5");
        assert_eq!(word(&count(&watch, "6@x", at(20 * HOUR)).await), "1");
        assert_eq!(word(&count(&watch, "7@x", at(20 * HOUR)).await), "would block 2");

        // A block by hand holds for everyone.
        let blocked = soon(ledger.block(watch.account(), Some("called in"), at(20 * HOUR))).await.unwrap();
        assert_eq!(blocked, Change::Made);
        assert_eq!(watch.try_extend(&mut watch.no_leave(), 1, at(20 * HOUR)), None);
        assert_eq!(word(&count(&watch, "8@x", at(20 * HOUR)).await), "blocked");
        let block = watch.block().unwrap();
        assert_eq!((block.by, block.reason.as_deref()), (BlockedBy::Operator, Some("called in")));
    }
}

#[tokio::test]
async fn what_is_so_already_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(5));
    let anna = account("anna");
    let watch = ledger.watch(&anna, at(0)).await;
    count(&watch, "a@x", at(0)).await;
    assert_eq!(soon(ledger.unblock(&anna, at(1))).await.unwrap(), Change::WasSo);
    assert_eq!(watch.record(at(1)).invalid_recipients, 0, "the window is forgotten all the same");
    assert_eq!(soon(ledger.block(&anna, None, at(2))).await.unwrap(), Change::Made);
    assert_eq!(soon(ledger.block(&anna, Some("again"), at(3))).await.unwrap(), Change::WasSo);
    assert_eq!(
        watch.block().unwrap().reason.as_deref(),
        Some("again"),
        "what is known better later is shown"
    );
    assert_eq!(soon(ledger.block(&anna, None, at(3))).await.unwrap(), Change::WasSo);
    assert_eq!(watch.block().unwrap().reason.as_deref(), Some("again"));
    assert_eq!(soon(ledger.unblock(&anna, at(4))).await.unwrap(), Change::Made);
    assert_eq!((watch.standing(), watch.block()), (Standing::Open, None));
    assert_eq!(word(&count(&watch, "a@x", at(5)).await), "1");
    assert!(soon(ledger.record(&account("nobody"), at(6))).await.is_none());
}

#[tokio::test]
async fn who_waits_is_woken() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), Policy { period: Duration::from_millis(300), ..policy(3) });
    let watch = ledger.watch(&account("anna"), at(0)).await;
    let other = ledger.watch(&account("anna"), at(0)).await;

    // In part, as far as there is room.
    let (mut first, mut second, mut third) = (watch.no_leave(), other.no_leave(), other.no_leave());
    assert_eq!(soon(watch.reserve(&mut first, 2, at(0))).await, Some(2));
    assert_eq!(soon(other.reserve(&mut second, 5, at(0))).await, Some(1));
    assert_eq!(other.try_extend(&mut third, 1, at(0)), Some(0));

    // By one that is given back,
    let back = async { first.release_some(1) };
    let (granted, ()) = soon(async { tokio::join!(other.reserve(&mut third, 1, at(0)), back) }).await;
    assert_eq!(granted, Some(1));
    drop(third);
    // by one that expires,
    drop(first);
    count(&watch, "a@x", at(10)).await;
    count(&watch, "b@x", at(10)).await;
    let mut fourth = other.no_leave();
    assert_eq!(soon(other.reserve(&mut fourth, 1, at(20))).await, Some(1), "second is still in flight");
    // by a higher limit,
    count(&watch, "c@x", at(1000)).await;
    let mut fifth = other.no_leave();
    assert_eq!(other.try_extend(&mut fifth, 1, at(1000)), Some(0));
    let raise = async { ledger.set_policy(policy(4)) };
    let (granted, ()) = soon(async { tokio::join!(other.reserve(&mut fifth, 1, at(1000)), raise) }).await;
    assert_eq!(granted, Some(1));
    // and by a block, with nothing.
    let block = async { ledger.block(&account("anna"), None, at(1001)).await.unwrap() };
    let mut sixth = other.no_leave();
    let (granted, _) = soon(async { tokio::join!(other.reserve(&mut sixth, 1, at(1001)), block) }).await;
    assert_eq!(granted, None);
    drop((second, fourth, fifth, sixth));
}

#[tokio::test]
async fn leave_is_extended_and_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(5));
    let watch = ledger.watch(&account("anna"), at(0)).await;
    let free = || watch.try_extend(&mut watch.no_leave(), 9, at(0));
    let mut leave = watch.no_leave();
    assert_eq!(watch.try_extend(&mut leave, 2, at(0)), Some(2));
    assert_eq!(watch.try_extend(&mut leave, 1, at(0)), Some(1));
    assert_eq!(free(), Some(2));
    assert_eq!(soon(watch.reserve(&mut leave, 1, at(0))).await, Some(1));
    assert_eq!(free(), Some(1));
    leave.release_some(1);
    assert_eq!(free(), Some(2));
    // A waiter is woken by it.
    assert_eq!(watch.try_extend(&mut leave, 9, at(0)), Some(2));
    let (mut other, back) = (watch.no_leave(), async { leave.release() });
    let (woken, ()) = soon(async { tokio::join!(watch.reserve(&mut other, 9, at(0)), back) }).await;
    assert_eq!(woken, Some(5));
    drop(other);
    leave.release();
    assert_eq!(free(), Some(5), "what it had is given back once");
    ledger.block(&account("anna"), None, at(1)).await.unwrap();
    assert_eq!(watch.try_extend(&mut leave, 1, at(1)), None);
}

/// A dropped wait takes no leave with it.
#[tokio::test]
async fn a_wait_that_is_given_up_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(1));
    let watch = ledger.watch(&account("anna"), at(0)).await;
    let (mut first, mut second) = (watch.no_leave(), watch.no_leave());
    assert_eq!(watch.try_extend(&mut first, 1, at(0)), Some(1));
    {
        let mut waiting = Box::pin(watch.reserve(&mut second, 1, at(0)));
        std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await;
    }
    assert_eq!(watch.entry().waiting.load(Ordering::SeqCst), 0);
    drop(first);
    assert_eq!(watch.try_extend(&mut second, 9, at(0)), Some(1));
}

/// Leave given back in one step goes to as many waiters as it suffices for, and no more.
#[tokio::test]
async fn one_who_is_woken_wakes_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(5));
    let watch = ledger.watch(&account("anna"), at(0)).await;
    let mut all = watch.no_leave();
    assert_eq!(soon(watch.reserve(&mut all, 5, at(0))).await, Some(5));
    let waiting: Vec<_> = [2, 2, 3, 3]
        .into_iter()
        .map(|wanted| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let watch = ledger.watch(&account("anna"), at(0)).await;
                let mut leave = watch.no_leave();
                watch.reserve(&mut leave, wanted, at(0)).await.map(|granted| (granted, leave))
            })
        })
        .collect();
    while watch.entry().waiting.load(Ordering::SeqCst) < 4 {
        tokio::task::yield_now().await;
    }
    all.release_some(5);
    let (mut granted, mut held) = (Vec::new(), Vec::new());
    for (place, waiting) in waiting.into_iter().enumerate() {
        if place == 3 {
            assert!(!waiting.is_finished());
            held.clear();
        }
        let (some, leave) = soon(waiting).await.unwrap().unwrap();
        granted.push(some);
        held.push(leave);
    }
    assert_eq!(granted, [2, 2, 1, 3]);
}

#[tokio::test]
async fn a_lower_limit_lets_one_ask_and_the_next_crosses() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(10));
    let watch = ledger.watch(&account("anna"), at(0)).await;
    for n in 0..8 {
        count(&watch, &format!("{n}@x"), at(n)).await;
    }
    ledger.set_policy(policy(5));
    let (mut one, mut another) = (watch.no_leave(), watch.no_leave());
    assert_eq!(soon(watch.reserve(&mut one, 3, at(10))).await, Some(1));
    assert_eq!(watch.try_extend(&mut another, 1, at(10)), Some(0));
    assert_eq!(word(&count(&watch, "new@x", at(10)).await), "crossed 5");
    drop(one);
    assert_eq!(soon(watch.reserve(&mut another, 1, at(11))).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_sessions_of_one_account() {
    const LIMIT: usize = 500;
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(LIMIT as u32));
    // RCPTs in flight and counted, as seen from outside.
    let taken = Arc::new(AtomicUsize::new(0));
    let sessions: Vec<_> = (0..100)
        .map(|session| {
            let (ledger, taken) = (ledger.clone(), taken.clone());
            tokio::spawn(async move {
                let watch = ledger.watch(&account("anna"), at(0)).await;
                let (mut counted, mut crossed) = (Vec::new(), 0);
                let mut leave = watch.no_leave();
                for round in 0.. {
                    let wanted = 1 + round % 7;
                    let Some(granted) = watch.reserve(&mut leave, wanted, at(round as u64)).await else {
                        break;
                    };
                    let now = taken.fetch_add(granted, Ordering::SeqCst) + granted;
                    assert!(now <= LIMIT, "{now} in flight or counted");
                    for n in 0..granted {
                        tokio::task::yield_now().await;
                        if (round + n) % 3 == 0 {
                            taken.fetch_sub(1, Ordering::SeqCst);
                        } else {
                            match count(&watch, &format!("{session}-{round}-{n}@x"), at(round as u64)).await {
                                Verdict::Counted { count } => counted.push(count as usize),
                                Verdict::Crossed(record) => {
                                    assert_eq!(record.invalid_recipients as usize, LIMIT);
                                    crossed += 1;
                                }
                                other => panic!("{other:?}"),
                            }
                        }
                        leave.release_some(1);
                    }
                }
                assert_eq!(watch.standing(), Standing::Blocked);
                (counted, crossed)
            })
        })
        .collect();
    let (mut counted, mut crossed) = (Vec::new(), 0);
    for session in sessions {
        let (mut some, one) = soon(session).await.unwrap();
        counted.append(&mut some);
        crossed += one;
    }
    counted.sort_unstable();
    assert_eq!(crossed, 1);
    assert_eq!(counted, (1..LIMIT).collect::<Vec<_>>(), "each number once");
}

#[tokio::test]
async fn the_messages_of_a_program_that_connects_anew_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), policy(2));
    let anna = account("anna");
    for n in 0..60 {
        let watch = ledger.watch(&anna, at(n)).await;
        watch.relayed(Relayed {
            at: at(n),
            reply: format!("250 2.0.0 Ok: queued as {n}"),
            message_id: Some(format!("<{n}@x>")),
        });
    }
    let watch = ledger.watch(&anna, at(100)).await;
    count(&watch, "a@x", at(100)).await;
    let Verdict::Crossed(record) = count(&watch, "b@x", at(101)).await else { panic!("not crossed") };
    assert_eq!(record.relayed.len(), RELAYED);
    assert_eq!(record.relayed[0].reply, "250 2.0.0 Ok: queued as 10");
    drop(watch);
    soon(ledger.close()).await;
    let ledger = open(dir.path(), policy(2));
    assert_eq!(soon(ledger.record(&anna, at(102))).await, Some(*record), "the same after a restart");
}
