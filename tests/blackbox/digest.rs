//! Issue 5, Digest: one mail an interval while something waits; nothing expires that none announced.

use std::time::{Duration, Instant};

use crate::support::gatepost::{Gatepost, Setup};
use crate::support::scripted::Scripted;
use crate::support::smtp::message;
use crate::support::{PATIENCE, throughout, wait_for};

/// The digests that the upstream took, as text.
fn digests(upstream: &Scripted) -> Vec<String> {
    let taken = upstream.taken().into_iter().map(|mail| String::from_utf8(mail.data).unwrap());
    taken.filter(|text| text.contains("in the quarantine") && text.contains("Subject: ")).collect()
}

fn expect_digests(upstream: &Scripted, count: usize) -> Vec<String> {
    wait_for(PATIENCE, || Some(digests(upstream)).filter(|found| found.len() >= count))
        .unwrap_or_else(|| panic!("{count} digests did not come: {:?}", upstream.taken()))
}

/// Longer than two intervals of two seconds, and a look (`DIGEST_TICK` in `src/server/watchers.rs`).
const LONGER_THAN_TWO_INTERVALS: Duration = Duration::from_millis(5_500);
/// Longer than the pause between two looks at what has expired (`EXPIRY_TICK` in `src/release/rounds.rs`), and shorter than the interval there.
const LONGER_THAN_AN_EXPIRY_LOOK: Duration = Duration::from_secs(15);

fn park(gatepost: &Gatepost, user: &str, count: usize) {
    gatepost.run(&["block", user]).expect(0);
    let mut client = gatepost.login(user);
    for number in 0..count {
        client.submit(
            &format!("{user}@mta.example"),
            &["carol@mta.example"],
            &message(&format!("number {number}")),
        );
    }
}

/// Per account how much, since when, what expires within three days; again each interval, and no more once nothing waits.
#[test]
fn while_something_waits() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address)
        .notify("desk@mta.example")
        .set("notify.digest", "2s")
        .set("quarantine.expire_after", "2d")
        .start();
    park(&gatepost, "alice", 3);
    park(&gatepost, "bob", 1);
    // The subject is folded.
    let digest = expect_digests(&upstream, 2).remove(1).replace("at\r\n 2", "at 2");
    for part in [
        "Subject: 4 messages of 2 accounts wait in the quarantine, 4 expire, first at ",
        "user:alice\r\n    3 messages, 1 KiB, the oldest since 20",
        "    3 expire within 3 days, the first at 20",
        "    1 expires within 3 days",
        "gatepost quarantine list --account user:bob\r\n",
        "Parked messages expire after 2 days",
    ] {
        assert!(digest.contains(part), "{part}\n{digest}");
    }
    gatepost.run(&["quarantine", "delete", "--account", "alice"]).expect(0);
    gatepost.run(&["quarantine", "delete", "--account", "bob"]).expect(0);
    gatepost.expect_log("that a digest was written", |line| {
        line.to_string().contains("digest of the quarantine")
    });
    let so_far = digests(&upstream).len();
    // One may be on its way.
    throughout(LONGER_THAN_TWO_INTERVALS, || {
        let count = digests(&upstream).len();
        assert!(count <= so_far + 1, "{count} after {so_far}");
    });
}

/// Nothing expires that no digest has announced an interval before: over a restart too; and not while nobody can be told.
#[test]
fn nothing_expires_unannounced() {
    let upstream = Scripted::start();
    let mut gatepost = Setup::new(upstream.address)
        .notify("desk@mta.example")
        .set("notify.digest", "20s")
        .set("quarantine.expire_after", "1s")
        .start();
    park(&gatepost, "alice", 1);
    throughout(LONGER_THAN_AN_EXPIRY_LOOK, || {
        assert_eq!(gatepost.parked().len(), 1, "it expired before a digest told of it");
        assert_eq!(digests(&upstream).len(), 0);
    });
    expect_digests(&upstream, 1);
    assert_eq!(gatepost.parked().len(), 1, "nobody can have acted on it");
    gatepost.kill();
    gatepost.start();
    let gone = wait_for(Duration::from_secs(60), || gatepost.parked().is_empty().then_some(()));
    assert!(gone.is_some(), "it is still there");
    gatepost.expect_log("that it expired", |line| line.to_string().contains("expired"));
}

/// An interval that is shorter than what expiry looks back by: what was announced expires as well.
#[test]
fn short_intervals_expire_too() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address)
        .notify("desk@mta.example")
        .set("notify.digest", "2s")
        .set("quarantine.expire_after", "4s")
        .start();
    park(&gatepost, "alice", 1);
    let gone = wait_for(Duration::from_secs(60), || gatepost.parked().is_empty().then_some(()));
    assert!(gone.is_some(), "it is still there");
    assert!(!digests(&upstream).is_empty());
}

/// A digest that is in the outbox, and cannot be noted as sent, is not sent again and again.
#[test]
fn one_that_cannot_be_noted_is_sent_once() {
    let upstream = Scripted::start();
    let gatepost = Setup::new(upstream.address).notify("desk@mta.example").set("notify.digest", "4s").start();
    // A file cannot replace a folder.
    let file = gatepost.data_dir().join("digests");
    std::fs::create_dir(&file).unwrap();
    park(&gatepost, "alice", 1);
    expect_digests(&upstream, 1);
    gatepost.expect_log("that it cannot be noted", |line| line.to_string().contains("digests"));
    // The next one comes after an interval all the same.
    let (begun, second) = (Instant::now(), expect_digests(&upstream, 2));
    assert!(begun.elapsed() > Duration::from_secs(2) && second.len() == 2, "{second:?}");
    std::fs::remove_dir(&file).unwrap();
    wait_for(PATIENCE, || file.is_file().then_some(())).expect("noted");
}

/// `digest = "off"`, and nobody to be told: expiry waits for nothing.
#[test]
fn without_digests_things_expire_as_ever() {
    let upstream = Scripted::start();
    let told = Setup::new(upstream.address).notify("desk@mta.example").set("notify.digest", "off");
    for setup in [told, Setup::new(upstream.address)] {
        let gatepost = setup.set("quarantine.expire_after", "1s").start();
        park(&gatepost, "alice", 1);
        let gone = wait_for(PATIENCE, || gatepost.parked().is_empty().then_some(()));
        assert!(gone.is_some(), "it is still there");
    }
    assert_eq!(digests(&upstream).len(), 0);
}
