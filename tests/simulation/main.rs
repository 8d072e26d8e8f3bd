//! What the limit and the sequential test do to thieves and to honest people: a simulation, and the table in `docs/detection.md`.
//!
//! Seeded, and time is an argument, so that each run gives the same table; nothing here but the pure parts of the guard is
//! tried. With `GATEPOST_REGENERATE=1` in the environment the table is written into the page, without it compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod gate;
mod lists;
mod random;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use gatepost::clock::Timestamp;
use gatepost::guard::detector::{Detector, Evidence, Test};
use gatepost::guard::window::Key;

use gate::{Desk, Setting};
use lists::{Kind, honest, thieves};
use report::Row;

/// The seed of all that is random.
const SEED: u64 = 20_261_124;

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/detection.md")
}

fn row(rows: &[Row], name: &str) -> Row {
    rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no row {name}")).clone()
}

#[test]
fn what_the_page_says() {
    let (thieves, honest, others) = std::thread::scope(|scope| {
        let thieves =
            scope.spawn(|| thieves().iter().map(|kind| report::play(kind, SEED)).collect::<Vec<Row>>());
        let others = scope.spawn(|| report::other_settings(SEED));
        let honest: Vec<Row> = honest().iter().map(|kind| report::play(kind, SEED)).collect();
        (thieves.join().unwrap(), honest, others.join().unwrap())
    });
    let found = report::tables(&thieves, &honest, SEED) + "\n" + &others;
    let written = std::fs::read_to_string(page()).unwrap();
    let (before, rest) = written.split_once(report::BEGIN).expect("the page has a place for the tables");
    let (documented, after) = rest.split_once(report::END).expect("and the place an end");
    if std::env::var_os("GATEPOST_REGENERATE").is_some() {
        let page_text = format!("{before}{}\n{found}{}{after}", report::BEGIN, report::END);
        std::fs::write(page(), page_text).unwrap();
    } else {
        assert_eq!(
            documented.trim(),
            found.trim(),
            "regenerate docs/detection.md with GATEPOST_REGENERATE=1"
        );
    }

    // What the defaults are chosen for.
    let thief = row(&thieves, "30 % dead, 500 an hour");
    assert!(thief.limit.reached > 200.0 && thief.awake.reached < 30.0, "{thief:?}");
    assert!(thief.test.blocked == 1.0, "each is caught: {thief:?}");
    let newsletter = row(&honest, "newsletter to 2,000, 5 % stale");
    assert!((0.4..0.65).contains(&newsletter.limit.blocked), "{newsletter:?}");
    assert!(newsletter.test.blocked < 0.01, "{newsletter:?}");
    for name in [
        "people who mistype",
        "stuck outboxes",
        "a provider refuses everybody for an hour: 50 people",
        "the same, and a newsletter 15 minutes later",
    ] {
        let row = row(&honest, name);
        let harm = [row.limit.blocked, row.test.blocked, row.away.blocked, row.away.delayed];
        assert!(harm.iter().all(|share| *share == 0.0), "{row:?}");
    }
    // Nobody in a thousand of its days: without forgiveness each such account would be delayed every third day.
    let desk = row(&honest, "a desk that never sleeps, to the same hundred");
    assert!(desk.limit.blocked == 0.0 && desk.away.delayed < 0.05, "{desk:?}");
    // Without the rule for dead domains each run of ten would be an alarm.
    let by_domain = row(&honest, "newsletter by domain, dead ones in runs of 10, 5 %");
    assert!(by_domain.test.blocked < 0.08, "{by_domain:?}");
    // Honest people are delayed, and never blocked by the test: what blocks them is the limit.
    assert!(honest.iter().all(|row| row.away.blocked <= row.limit.blocked), "{honest:?}");
}

/// The chain says the same as a simulation, where a simulation can.
#[test]
fn how_often_the_test_is_wrong() {
    const RECIPIENTS: u64 = 200_000;
    let mut random = random::Random::new(SEED);
    let test = Test::new(gate::TEST.0, gate::TEST.1, gate::TEST.2);
    let (mut detector, mut alarms) = (Detector::default(), 0u32);
    for n in 0..RECIPIENTS {
        let (now, key) = (Timestamp::from_millis(SEED + n), Key::of(&n.to_be_bytes()));
        if random.chance(0.12) {
            let evidence = detector.invalid(key, None, now, Duration::from_secs(3_600), &test);
            alarms += u32::from(evidence == Evidence::Alarm);
        } else {
            detector.valid(n, None, now, &test);
        }
    }
    let (simulated, computed) =
        (RECIPIENTS as f64 / f64::from(alarms), report::between_alarms(gate::TEST, 0.12));
    assert!((0.85..1.15).contains(&(simulated / computed)), "{simulated} {computed}");
}

/// How many recipients it takes: a list of which 30 % are dead, and the limit's 100th.
#[test]
fn how_soon_a_thief_is_noticed() {
    let asked = |setting: &Setting| {
        let mut asked: Vec<u64> = (0..400)
            .map(|run| {
                let kind = Kind::Thief(lists::Thief { list: 600, ..lists::Thief::TYPICAL });
                gate::play(&lists::events(&kind, SEED + run), setting).asked
            })
            .collect();
        asked.sort_unstable();
        (asked.iter().sum::<u64>() as f64 / asked.len() as f64, asked[asked.len() / 2])
    };
    let (mean, median) = asked(&Setting { desk: Desk::Away, ..Setting::TEST });
    assert!((29.0..=40.0).contains(&mean) && (29..=36).contains(&median), "{mean} {median}");
    let (mean, _) = asked(&Setting::LIMIT);
    assert!((325.0..=341.0).contains(&mean), "{mean}");
}
