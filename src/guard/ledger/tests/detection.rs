//! The sequential test in the ledger: alarms, probation, and what of them the disk keeps.

use super::*;

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
