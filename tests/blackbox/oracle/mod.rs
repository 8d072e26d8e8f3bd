//! Clients that say what a seed has them say, in front of an upstream whose answers are known beforehand: each reply must be the one that
//! follows from these, and what was acknowledged must be in one place at the end, whole and for those who were accepted.
//!
//! `GATEPOST_SEED=N` draws the same sessions again (not the same moments); `GATEPOST_ORACLE=N` goes on for so many seconds.

mod session;
mod upstream;

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use session::{Said, Session};
use upstream::Oracle;

use crate::support::gatepost::{Gatepost, Setup};
use crate::support::random::Random;
use crate::support::{PATIENCE, wait_for};

/// How long without being told.
const DEFAULT: Duration = Duration::from_secs(5);
/// As many of ten recipients as a harvester's that do not exist: then they alone are counted.
const MOST: u64 = 8;
/// So many messages acknowledged say something.
const ENOUGH: usize = 20;

/// What all clients of a test share.
struct Scene {
    /// As it is to be given again.
    given: u64,
    /// The same, and another one in each test.
    seed: u64,
    clients: u64,
    /// How many of ten recipients do not exist.
    dead: u64,
    oracle: Oracle,
    /// Transactions so far.
    transactions: AtomicU64,
    /// When the account may have been blocked.
    blocked: Mutex<Vec<(Instant, Option<Instant>)>>,
    acknowledged: Mutex<BTreeMap<String, Said>>,
}

impl Scene {
    fn new(salt: u64, clients: u64, dead: u64) -> Self {
        let given = std::env::var("GATEPOST_SEED").ok().map(|text| text.parse().expect("a number"));
        let given = given.unwrap_or_else(|| u64::from(std::process::id()));
        println!("GATEPOST_SEED={given}");
        let seed = given.wrapping_add(salt);
        Self {
            given,
            seed,
            clients,
            dead,
            oracle: Oracle::start(seed),
            transactions: AtomicU64::new(0),
            blocked: Mutex::default(),
            acknowledged: Mutex::default(),
        }
    }

    /// Whether paths that are none, which count too, are among them.
    fn has_broken_paths(&self) -> bool {
        (1..MOST).contains(&self.dead)
    }

    /// Whether the account may have been blocked at any time from `since` on.
    fn may_be_blocked(&self, since: Instant) -> bool {
        self.blocked.lock().unwrap().iter().any(|(_, end)| end.is_none_or(|end| end >= since))
    }

    /// Clients come and go until the time is over and the `operator` has done enough.
    fn play(&self, gatepost: &Gatepost, mut operator: impl FnMut(&mut Random) -> bool) {
        let given = std::env::var("GATEPOST_ORACLE").ok().map(|text| text.parse().expect("seconds"));
        let end = Instant::now() + given.map_or(DEFAULT, Duration::from_secs);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for client in 0..self.clients {
                let over = &over;
                scope.spawn(move || {
                    // Where another one fails as well.
                    let _over = Over(over);
                    for number in 0.. {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        let seed = self.seed.wrapping_add(client * 1_000_003 + number * 7);
                        Session::new(self, gatepost.relay(), Random::new(seed)).play();
                    }
                });
            }
            // The clients end with the operator as well, should he fail.
            let _over = Over(&over);
            let mut random = Random::new(self.seed);
            let is_enough = || self.acknowledged.lock().unwrap().len() > ENOUGH;
            wait_for(end.saturating_duration_since(Instant::now()) + PATIENCE, || {
                let done = operator(&mut random) && is_enough() && Instant::now() >= end;
                (done || over.load(Ordering::Relaxed)).then_some(())
            });
        });
        let transactions = self.transactions.load(Ordering::Relaxed);
        let acknowledged = self.acknowledged.lock().unwrap().len();
        println!("{transactions} transactions, {acknowledged} messages acknowledged");
        assert!(acknowledged > ENOUGH, "too few to say anything");
    }

    /// Each message that was acknowledged is delivered or parked, once; nothing else is.
    fn expect_each_once(&self, gatepost: &Gatepost) -> usize {
        self.oracle.expect_no_fault();
        let parked = gatepost.parked();
        let mut places: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
        for object in &parked {
            let mut recipients: Vec<String> = serde_json::from_value(object["recipients"].clone()).unwrap();
            recipients.sort();
            places.entry(object["subject"].as_str().unwrap().to_owned()).or_default().push(recipients);
        }
        for (subject, deliveries) in self.oracle.all() {
            places.entry(subject).or_default().extend(deliveries.into_iter().map(|taken| taken.recipients));
        }
        let acknowledged = self.acknowledged.lock().unwrap();
        let expected: BTreeMap<_, _> = acknowledged
            .iter()
            .map(|(subject, said)| (subject.clone(), vec![said.recipients.clone()]))
            .collect();
        let odd: Vec<_> = expected
            .keys()
            .chain(places.keys())
            .filter(|subject| expected.get(*subject) != places.get(*subject))
            .map(|subject| format!("{subject}: {:?} for {:?}", places.get(subject), expected.get(subject)))
            .collect();
        assert!(odd.is_empty(), "GATEPOST_SEED={}: {odd:#?}", self.given);
        for object in parked.iter().take(20) {
            let id = object["id"].as_str().unwrap();
            let raw = gatepost.run(&["quarantine", "show", id, "--raw"]).expect(0).stdout;
            let said = &acknowledged[object["subject"].as_str().unwrap()];
            assert_eq!(raw.as_bytes(), said.content, "{object}");
        }
        parked.len()
    }
}

/// The others end with the one that failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn setup(scene: &Scene, limit: i64, period: &str) -> Gatepost {
    Setup::new(scene.oracle.address)
        .relay()
        .limit(limit)
        .set("limit.period", period)
        .set("detection.on_alarm", "off")
        .set("session.max_errors", 1_000)
        .start()
}

fn expect_no_block(scene: &Scene, limit: i64, period: &str) {
    let gatepost = setup(scene, limit, period);
    scene.play(&gatepost, |_| true);
    assert_eq!(scene.expect_each_once(&gatepost), 0, "nobody was blocked");
}

/// CONTRACT, SMTP: the upstream's own replies, each to its own command, whatever is pipelined, refused, or breaks.
#[test]
fn each_reply_is_the_upstreams() {
    expect_no_block(&Scene::new(0, 6, 2), 10_000, "10s");
}

/// Six sessions with places for 20 RCPTs in flight: who waits for others gets the same replies in the end.
#[test]
fn sessions_that_wait_for_each_other() {
    expect_no_block(&Scene::new(1, 6, 0), 20, "1h");
}

/// CONTRACT, Block: it begins and ends at any moment of any transaction. What a client was told of a recipient holds for its message,
/// and each message is delivered or parked, not both and not neither.
#[test]
fn blocks_come_and_go() {
    const BLOCKS: usize = 3;
    let scene = Scene::new(2, 6, 2);
    let gatepost = setup(&scene, 10_000, "10s");
    scene.play(&gatepost, |random| {
        std::thread::sleep(Duration::from_millis(random.one_of(&[50, 100, 300, 600])));
        scene.blocked.lock().unwrap().push((Instant::now(), None));
        gatepost.run(&["block", "host:127.0.0.2"]).expect(0);
        std::thread::sleep(Duration::from_millis(random.one_of(&[0, 50, 200, 500])));
        gatepost.run(&["unblock", "host:127.0.0.2"]).expect(0);
        let mut blocked = scene.blocked.lock().unwrap();
        blocked.last_mut().unwrap().1 = Some(Instant::now());
        blocked.len() >= BLOCKS
    });
    assert!(scene.expect_each_once(&gatepost) > 0, "no message met a block");
}

/// CONTRACT, SMTP, RCPT in flight: two sessions of one account, which ask for more all the time, learn of no more dead recipients than its
/// limit until it is blocked, however their batches, the upstream's pauses and its lost connections fall.
#[test]
fn nobody_learns_more_than_the_limit() {
    const LIMIT: usize = 20;
    const BLOCKS: usize = 3;
    const SETTLED: Duration = Duration::from_secs(1);
    let scene = Scene::new(3, 2, MOST);
    let gatepost = setup(&scene, LIMIT as i64, "1h");
    // It comes by itself, at any time.
    scene.blocked.lock().unwrap().push((Instant::now(), None));
    let (mut blocks, mut known) = (0, HashSet::new());
    scene.play(&gatepost, |_| {
        let status = gatepost.status("host:127.0.0.2");
        if !status.is_some_and(|status| status["state"] == "blocked") {
            return blocks >= BLOCKS;
        }
        // What is on its way to the upstream arrives.
        let mut asked = scene.oracle.dead();
        loop {
            std::thread::sleep(SETTLED);
            if std::mem::replace(&mut asked, scene.oracle.dead()) == asked {
                break;
            }
        }
        let asked = asked.difference(&known).count();
        assert!(asked <= LIMIT, "{asked} asked before block {blocks}; GATEPOST_SEED={}", scene.given);
        blocks += 1;
        known.extend(scene.oracle.dead());
        gatepost.run(&["unblock", "host:127.0.0.2"]).expect(0);
        blocks >= BLOCKS
    });
    assert!(scene.expect_each_once(&gatepost) > 0, "no message met a block");
}
