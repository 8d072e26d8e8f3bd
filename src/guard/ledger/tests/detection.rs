//! The sequential test in the ledger: alarms, probation, and what survives on the disk.

use super::*;
use crate::guard::window::Key;

/// The test alone: the limit is far away.
fn watchful(on_alarm: OnAlarm) -> Policy {
    Policy { detection: Detection { on_alarm, ..DETECTION }, ..policy(1000) }
}

/// Seven invalid recipients in a row, each of its own domain, are an alarm: 7 ln 6 > 12.
async fn seven(watch: &Watch, from: u32, now: Timestamp) -> Vec<String> {
    let mut verdicts = Vec::new();
    for n in from..from + 7 {
        verdicts.push(word(&count(watch, &format!("a@{n}.example"), now).await));
    }
    verdicts
}

const MINUTE: u64 = 60_000;

#[tokio::test]
async fn probation_begins_is_prolonged_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), watchful(OnAlarm::Probation));
    let watch = ledger.watch(&account("anna"), at(0)).await;
    assert_eq!(seven(&watch, 0, at(0)).await, ["1", "2", "3", "4", "5", "6", "alarmed 7"]);
    assert_eq!(watch.probation(at(1)), Some(at(30 * MINUTE)));
    assert_eq!(watch.standing(), Standing::Open);
    assert_eq!(seven(&watch, 7, at(20 * MINUTE)).await.last().unwrap(), "alarmed again 14");
    let probation = watch.record(at(20 * MINUTE)).probation.unwrap();
    assert_eq!((probation.since, probation.until), (at(0), at(50 * MINUTE)));
    assert_eq!(watch.probation(at(50 * MINUTE - 1)), Some(at(50 * MINUTE)));
    assert_eq!(watch.probation(at(50 * MINUTE)), None);
    // One that comes later is another.
    assert_eq!(seven(&watch, 14, at(50 * MINUTE)).await.last().unwrap(), "alarmed 21");
    assert_eq!(watch.record(at(50 * MINUTE)).probation.unwrap().since, at(50 * MINUTE));

    assert_eq!(soon(ledger.unblock(watch.account(), at(51 * MINUTE))).await.unwrap(), Change::Made);
    assert_eq!(watch.probation(at(51 * MINUTE)), None);
    assert_eq!(soon(ledger.unblock(watch.account(), at(51 * MINUTE))).await.unwrap(), Change::WasSo);
    // Window and test start from zero.
    assert_eq!(seven(&watch, 0, at(52 * MINUTE)).await, ["1", "2", "3", "4", "5", "6", "alarmed 7"]);
}

async fn living(watch: &Watch, n: u32, now: Timestamp) {
    for n in 0..n {
        watch.accepted(&format!("{n}@living.example"), Some(Key::of_domain("living.example")), now);
    }
}

/// Ten living recipients outweigh two dead ones; ten names of one mailbox do not.
#[tokio::test]
async fn subaddresses_are_one_recipient() {
    for (living, alarms) in
        [("me+{}@living.example", true), ("me{}@living.example", false), ("+{}@living.example", false)]
    {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path(), watchful(OnAlarm::Probation));
        let watch = ledger.watch(&account("anna"), at(0)).await;
        for n in 0..6 {
            count(&watch, &format!("{n}@{n}.example"), at(0)).await;
        }
        for n in 0..10 {
            watch.accepted(
                &living.replace("{}", &n.to_string()),
                Some(Key::of_domain("living.example")),
                at(1),
            );
        }
        count(&watch, "6@6.example", at(2)).await;
        assert_eq!(watch.probation(at(3)).is_some(), alarms, "{living}");
    }
}

#[tokio::test]
async fn the_limit_outweighs_an_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let policy = Policy { invalid_recipients: 7, ..watchful(OnAlarm::Probation) };
    let ledger = open(dir.path(), policy);
    let watch = ledger.watch(&account("anna"), at(0)).await;
    assert_eq!(seven(&watch, 0, at(0)).await.last().unwrap(), "crossed 7");
    assert_eq!(watch.block().unwrap().by, BlockedBy::Limit);
    assert_eq!(watch.probation(at(0)), None);
}

#[tokio::test]
async fn an_alarm_that_blocks_is_like_a_crossed_limit() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), watchful(OnAlarm::Block));
    let watch = ledger.watch(&account("anna"), at(0)).await;
    assert_eq!(seven(&watch, 0, at(0)).await.last().unwrap(), "crossed 7");
    let block = watch.block().unwrap();
    assert_eq!((block.by, watch.probation(at(0))), (BlockedBy::Detection, None));
    assert!(block.reason.unwrap().contains("7 of them within 1h"));
    assert_eq!(untold_blocks(&ledger, at(1)).await.len(), 1);
    assert_eq!(watch.try_extend(&mut watch.no_leave(), 1, at(1)), None);
    assert_eq!(soon(ledger.unblock(watch.account(), at(2))).await.unwrap(), Change::Made);
    assert_eq!(seven(&watch, 0, at(3)).await, ["1", "2", "3", "4", "5", "6", "crossed 7"]);
}

/// CONTRACT: one "would have blocked" a day, whether it is an alarm or the limit that would have.
#[tokio::test]
async fn an_alarm_and_the_limit_would_block_once_a_day() {
    let dir = tempfile::tempdir().unwrap();
    for (on_alarm, at_the_limit) in [(OnAlarm::Block, "10"), (OnAlarm::Probation, "would block 10")] {
        let policy = Policy { observe: true, invalid_recipients: 10, ..watchful(on_alarm) };
        let ledger = open(dir.path(), policy);
        let watch = ledger.watch(&account(&format!("{on_alarm:?}")), at(0)).await;
        assert_eq!(seven(&watch, 0, at(0)).await.last().unwrap(), "would alarm 7");
        assert_eq!(seven(&watch, 7, at(1)).await[2], at_the_limit);
        drop(watch);
        soon(ledger.close()).await;
    }
}

#[tokio::test]
async fn alarms_that_do_nothing_are_told_of_once_a_day() {
    let observed = |on_alarm| Policy { observe: true, ..watchful(on_alarm) };
    let exempt = |on_alarm| Policy { exempt: [account("anna")].into(), ..watchful(on_alarm) };
    for (policy, word) in [
        (watchful(OnAlarm::Notify), "suspected"),
        (observed(OnAlarm::Notify), "suspected"),
        (observed(OnAlarm::Probation), "would alarm"),
        (observed(OnAlarm::Block), "would alarm"),
        (exempt(OnAlarm::Probation), "would alarm"),
        (exempt(OnAlarm::Notify), "would alarm"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path(), policy.clone());
        let watch = ledger.watch(&account("anna"), at(0)).await;
        assert_eq!(seven(&watch, 0, at(0)).await.last().unwrap(), &format!("{word} 7"));
        assert_eq!(seven(&watch, 7, at(1)).await.last().unwrap(), "14");
        drop(watch);
        soon(ledger.close()).await;
        let ledger = open(dir.path(), policy);
        let watch = ledger.watch(&account("anna"), at(0)).await;
        assert_eq!(seven(&watch, 14, at(2)).await.last().unwrap(), "21");
        assert_eq!(
            seven(&watch, 21, at(20 * HOUR)).await.last().unwrap(),
            &format!("{word} 7"),
            "another day"
        );
        assert_eq!((watch.standing(), watch.probation(at(20 * HOUR))), (Standing::Open, None));
        assert!(untold_probations(&ledger, at(20 * HOUR)).await.is_empty());
    }
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), watchful(OnAlarm::Off));
    let watch = ledger.watch(&account("anna"), at(0)).await;
    assert_eq!(seven(&watch, 0, at(0)).await.last().unwrap(), "7");
}

/// A clock that was ahead silences none of these: neither that of the limit nor that of an alarm.
#[tokio::test]
async fn once_a_day_goes_on_after_a_clock_that_was_ahead() {
    let day = 24 * HOUR;
    for (policy, expected) in [
        (Policy { observe: true, ..policy(7) }, "would block 7"),
        (Policy { observe: true, ..watchful(OnAlarm::Probation) }, "would alarm 7"),
        (Policy { observe: true, ..watchful(OnAlarm::Block) }, "would alarm 7"),
        (watchful(OnAlarm::Notify), "suspected 7"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path(), policy);
        let anna = account("anna");
        let told = async |from, now| {
            // Nothing is left in window and test.
            soon(ledger.unblock(&anna, at(now))).await.unwrap();
            let watch = ledger.watch(&anna, at(now)).await;
            seven(&watch, from, at(now)).await.last().unwrap() == expected
        };
        assert!(told(0, 40 * day).await, "{expected}: ahead");
        assert!(told(10, 10 * day).await, "{expected}: back");
        assert!(!told(20, 10 * day + 1).await, "{expected}: once a day");
        assert!(!told(30, 9 * day).await, "{expected}: on the other side of midnight");
        assert!(told(40, 11 * day).await, "{expected}: the next day");
    }
}

#[tokio::test]
async fn what_is_different_for_an_account() {
    let dir = tempfile::tempdir().unwrap();
    let rule = AccountRule {
        matches: Match::User("newsletter".into()),
        invalid_recipients: Some(9),
        period: Some(Duration::from_secs(60)),
        usual_share: Some(0.25),
        observe: None,
        exempt: None,
    };
    let policy = Policy { rules: vec![rule], ..watchful(OnAlarm::Probation) };
    let ledger = open(dir.path(), policy.clone());
    let watch = ledger.watch(&account("newsletter"), at(0)).await;
    // 7 ln 1.2 is far from 12.
    assert_eq!(seven(&watch, 0, at(0)).await.last().unwrap(), "7");
    let record = watch.record(at(0));
    assert_eq!((record.limit, record.period), (9, Duration::from_secs(60)));
    assert_eq!(watch.try_extend(&mut watch.no_leave(), 100, at(1)), Some(2));
    assert_eq!(watch.record(at(MINUTE)).invalid_recipients, 0);
    count(&watch, "8@x", at(1)).await;
    assert_eq!(word(&count(&watch, "9@x", at(1)).await), "crossed 9");
    // After a policy change, terms from the old policy no longer hold.
    let anna = ledger.watch(&account("anna"), at(0)).await;
    assert_eq!(anna.terms().rule.limit, 1000);
    seven(&anna, 0, at(0)).await;
    assert!(anna.probation(at(1)).is_some());
    ledger.set_policy(Policy { exempt: [account("anna")].into(), invalid_recipients: 50, ..policy });
    assert_eq!((anna.terms().rule.limit, anna.probation(at(1))), (50, None));
}

#[tokio::test]
async fn a_restart_keeps_probation_test_and_what_is_to_be_told() {
    let dir = tempfile::tempdir().unwrap();
    let (anna, ben, carl) = (account("anna"), account("ben"), account("carl"));
    let ledger = open(dir.path(), watchful(OnAlarm::Probation));
    for name in [&anna, &ben, &carl] {
        seven(&ledger.watch(name, at(0)).await, 0, at(0)).await;
    }
    let dora = ledger.watch(&account("dora"), at(0)).await;
    for n in 0..6 {
        count(&dora, &format!("a@{n}.example"), at(0)).await;
    }
    let untold = untold_probations(&ledger, at(1)).await;
    assert_eq!(untold.len(), 3);
    told_probation(&ledger, &untold[0]);
    // The probation of a blocked account need not be reported.
    soon(ledger.block(&carl, None, at(2))).await.unwrap();
    let accounts =
        |records: Vec<Record>| -> Vec<Account> { records.into_iter().map(|record| record.account).collect() };
    assert_eq!(accounts(untold_probations(&ledger, at(3)).await), std::slice::from_ref(&ben));
    drop(dora);
    soon(ledger.close()).await;

    let ledger = open(dir.path(), watchful(OnAlarm::Probation));
    assert_eq!(accounts(untold_probations(&ledger, at(3 * HOUR)).await), std::slice::from_ref(&ben));
    let anna = ledger.watch(&anna, at(MINUTE)).await;
    assert_eq!(anna.probation(at(MINUTE)), Some(at(30 * MINUTE)));
    let listed = soon(ledger.records(None, 9, at(MINUTE))).await.unwrap();
    let on_probation = |record: &Record| record.probation.map(|probation| probation.until);
    assert_eq!(listed.iter().filter_map(on_probation).collect::<Vec<_>>(), [at(30 * MINUTE); 3]);
    // A block keeps it, and ends it when it is lifted.
    assert_eq!(soon(ledger.unblock(&carl, at(MINUTE))).await.unwrap(), Change::Made);
    assert_eq!(ledger.watch(&carl, at(MINUTE)).await.probation(at(MINUTE)), None);
    let dora = ledger.watch(&account("dora"), at(MINUTE)).await;
    assert_eq!(word(&count(&dora, "a@6.example", at(MINUTE)).await), "alarmed 7");
    // A probation that is over and told leaves the disk.
    told_probation(&ledger, &soon(ledger.record(&ben, at(MINUTE))).await.unwrap());
    ledger.shared().tell_time(at(2 * HOUR));
    ledger.shared().end_probations();
    drop((anna, dora));
    soon(ledger.close()).await;
    let ledger = open(dir.path(), watchful(OnAlarm::Probation));
    assert_eq!(accounts(untold_probations(&ledger, at(3 * HOUR)).await), [account("dora")]);
    let kept = ledger.shared().accounts.page(None, 9);
    assert!(kept.iter().all(|entry| entry.account != ben), "its probation is over, and told");
    // Under a policy without probation there is none.
    soon(ledger.close()).await;
    let ledger = open(dir.path(), watchful(OnAlarm::Notify));
    assert!(untold_probations(&ledger, at(3 * HOUR)).await.is_empty());
}

/// A probation that began or was extended while the clock was ahead ends a delay after the clock is back; also over a
/// restart.
#[tokio::test]
async fn a_probation_from_the_future_is_brought_back() {
    let dir = tempfile::tempdir().unwrap();
    let anna = account("anna");
    let ledger = open(dir.path(), watchful(OnAlarm::Probation));
    let watch = ledger.watch(&anna, at(48 * HOUR)).await;
    assert!(seven(&watch, 0, at(48 * HOUR)).await.last().unwrap().starts_with("alarmed"));
    // Whoever asks is told of a delay at most; that alone brings nothing back.
    assert_eq!(watch.probation(at(MINUTE)), Some(at(31 * MINUTE)));
    assert_eq!(watch.probation(at(20 * MINUTE)), Some(at(50 * MINUTE)));
    assert_eq!(watch.probation(at(48 * HOUR)), Some(at(48 * HOUR + 30 * MINUTE)));
    // The clock was behind for a moment: nothing happens.
    ledger.bring_back(at(48 * HOUR));
    assert_eq!(watch.probation(at(48 * HOUR)), Some(at(48 * HOUR + 30 * MINUTE)));
    ledger.bring_back(at(40 * MINUTE));
    for now in [41, 60, 69] {
        assert_eq!(watch.probation(at(now * MINUTE)), Some(at(70 * MINUTE)), "{now}");
        ledger.bring_back(at(now * MINUTE));
    }
    assert_eq!(watch.probation(at(70 * MINUTE)), None);
    drop(watch);
    soon(ledger.close()).await;
    let ledger = open(dir.path(), watchful(OnAlarm::Probation));
    let untold = untold_probations(&ledger, at(50 * MINUTE)).await;
    assert_eq!(untold[0].probation.unwrap().until, at(70 * MINUTE));
}

/// Valid recipients count in memory; their effect reaches the disk with the next invalid one, or when the account leaves
/// memory.
#[tokio::test]
async fn who_connects_anew_for_each_message_is_not_the_worse_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), watchful(OnAlarm::Probation));
    let anna = account("anna");
    for n in 0..50u32 {
        // A newsletter with 5 % bad addresses, a connection each.
        let watch = ledger.watch(&anna, at(u64::from(n))).await;
        for k in 0..19 {
            watch.accepted(
                &format!("{n}-{k}@living.example"),
                Some(Key::of_domain("living.example")),
                at(u64::from(n)),
            );
        }
        let verdict = count(&watch, &format!("a@{n}.example"), at(u64::from(n))).await;
        assert_eq!(word(&verdict), (n + 1).to_string());
    }
    // Three misses in a row, then a hundred hits: after a restart in good order it starts from zero.
    let watch = ledger.watch(&anna, at(100)).await;
    for n in 100..103 {
        count(&watch, &format!("a@{n}.example"), at(100)).await;
    }
    living(&watch, 100, at(100)).await;
    drop(watch);
    soon(ledger.close()).await;
    let ledger = open(dir.path(), watchful(OnAlarm::Probation));
    let watch = ledger.watch(&anna, at(200)).await;
    let mut verdicts = seven(&watch, 200, at(200)).await;
    assert!(verdicts.pop().unwrap().starts_with("alarmed"));
    assert!(verdicts.iter().all(|verdict| !verdict.contains("alarmed")), "{verdicts:?}");

    // The same if the account leaves memory while the process goes on. What kept it there is an hour old by then.
    living(&watch, 100, at(300)).await;
    for n in 300..306 {
        count(&watch, &format!("a@{n}.example"), at(300)).await;
    }
    for n in 0..100 {
        watch.accepted(&format!("new-{n}@living.example"), Some(Key::of_domain("living.example")), at(300));
    }
    drop(watch);
    ledger.shared().dismiss_idle(Instant::now() + Duration::from_secs(3600));
    soon(async {
        while ledger.shared().accounts.find(&anna).is_some_and(|entry| entry.lock().is_dirty()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let watch = ledger.watch(&anna, at(400)).await;
    assert!(!word(&count(&watch, "a@400.example", at(400)).await).starts_with("alarmed"));
}

#[tokio::test]
async fn a_domain_that_refuses_everybody_counts_against_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), Policy { invalid_recipients: 30, ..watchful(OnAlarm::Probation) });
    let names = ["anna", "ben", "carl"];
    let mut watches = Vec::new();
    for name in names {
        let watch = ledger.watch(&account(name), at(0)).await;
        count(&watch, "before@other.example", at(0)).await;
        watches.push(watch);
    }
    // Nineteen count; with the twentieth they are taken back.
    for n in 0..19usize {
        let verdict = count(&watches[n % 3], &format!("{n}@down.example"), at(n as u64)).await;
        let amid = usize::from(n % 3 == 1 && n > 10);
        assert_eq!(word(&verdict), (n / 3 + 2 + amid).to_string());
        if n == 10 {
            count(&watches[1], "amid@other.example", at(n as u64)).await;
        }
    }
    assert_eq!(watches[0].record(at(20)).invalid_recipients, 8);
    let before = ledger.common_causes(at(20)).len();
    assert_eq!(word(&count(&watches[1], "19@Down.example", at(20)).await), "common cause");
    for (watch, expected) in watches.iter().zip([1, 2, 1]) {
        let record = watch.record(at(21));
        assert_eq!(record.invalid_recipients, expected);
        let samples: Vec<&str> = record.samples.iter().map(|sample| sample.address.as_str()).collect();
        assert_eq!(samples[0], "before@other.example");
        assert!(samples.iter().all(|address| address.ends_with("@other.example")), "{samples:?}");
        let uncounted = &record.uncounted[0];
        assert_eq!((uncounted.domain.as_str(), uncounted.answers / 6), ("down.example", 1));
    }
    assert_eq!((before, ledger.common_causes(at(21)).len()), (0, 1));
    assert!(
        matches!(&ledger.cause_changes(at(21))[..], [CauseChange::Began(cause)] if cause.domain == "down.example")
    );
    // Whatever comes now changes nothing, neither window nor test.
    for n in 0..100 {
        let verdict = count(&watches[2], &format!("more-{n}@down.example"), at(30)).await;
        assert_eq!(word(&verdict), "common cause");
    }
    assert_eq!(word(&count(&watches[2], "after@other.example", at(31)).await), "2");
    let uncounted = watches[2].record(at(31)).uncounted;
    assert_eq!(uncounted[0].answers, 106);
    // It accepts somebody: over.
    watches[0].accepted("somebody@down.example", Some(Key::of_domain("down.example")), at(40));
    assert!(matches!(&ledger.cause_changes(at(40))[..], [CauseChange::Ended(cause)] if cause.answers == 101));
    assert_eq!(word(&count(&watches[2], "late@down.example", at(41)).await), "3");
    drop(watches);
    soon(ledger.close()).await;

    // The same on the disk.
    let ledger = open(dir.path(), watchful(OnAlarm::Probation));
    for (name, expected) in names.into_iter().zip([1, 2, 3]) {
        let record = soon(ledger.record(&account(name), at(50))).await.unwrap();
        assert_eq!(
            (record.invalid_recipients, record.samples.len()),
            (expected, expected as usize),
            "{name}"
        );
    }
    let carl = ledger.watch(&account("carl"), at(50)).await;
    assert_eq!(seven(&carl, 0, at(50)).await[..4], ["4", "5", "6", "alarmed 7"], "three are on the test");
}

/// Three stolen accounts at one big provider, where some of the recipients exist.
#[tokio::test]
async fn a_wave_at_one_provider_is_caught() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), Policy { invalid_recipients: 30, ..watchful(OnAlarm::Probation) });
    let mut watches = Vec::new();
    for name in ["anna", "ben", "carl"] {
        watches.push(ledger.watch(&account(name), at(0)).await);
    }
    let mut verdicts = Vec::new();
    for n in 0..120usize {
        let (watch, now) = (&watches[n % 3], at(n as u64));
        let address = format!("{n}@big.example");
        if n % 10 == 9 {
            watch.accepted(&address, Some(Key::of_domain("big.example")), now);
        } else {
            verdicts.push(word(&count(watch, &address, now).await));
        }
    }
    assert!(verdicts.iter().all(|verdict| verdict != "common cause"));
    assert!(verdicts.iter().filter(|verdict| verdict.starts_with("alarmed ")).count() >= 9, "{verdicts:?}");
    assert_eq!(verdicts.iter().filter(|verdict| verdict.starts_with("crossed ")).count(), 3);
}

/// Refusals for other reasons count against nobody, but add to a common cause.
#[tokio::test]
async fn a_provider_that_has_had_enough_of_us() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path(), watchful(OnAlarm::Probation));
    let mut watches = Vec::new();
    for name in ["anna", "ben", "carl"] {
        watches.push(ledger.watch(&account(name), at(0)).await);
    }
    (0..19usize).for_each(|n| watches[n % 3].refused("fed-up.example", at(n as u64)));
    assert_eq!(word(&count(&watches[0], "a@fed-up.example", at(20)).await), "common cause");
}
