//! One Gatepost, its upstream, and what was promised by it, over all rounds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::audit::{Again, Books};
use crate::disk::{self, Filler};
use crate::load::{self, Promises, ROLES};
use crate::plan::{Full, Plan, Whim};
use crate::support::gatepost::{Gatepost, Setup};
use crate::support::random::Random;
use crate::support::scripted::Scripted;
use crate::support::{PATIENCE, wait_for};
use crate::upstream::{self, Mood};

/// How long a step is waited for.
const STEP_PATIENCE: Duration = Duration::from_secs(8);
/// The load before and after a fault, and under one that does not kill.
const BEFORE: Duration = Duration::from_millis(120);
const UNDER: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_millis(100);

pub(crate) struct World {
    pub(crate) gatepost: Gatepost,
    pub(crate) upstream: Scripted,
    pub(crate) promises: Mutex<Promises>,
    pub(crate) books: Books,
    mood: Arc<Mood>,
    clock: PathBuf,
    /// How often each kind of fault came, and each step was reached; 0: it was tried, in vain.
    faults: BTreeMap<String, usize>,
}

/// The binary with fail points: `GATEPOST_FAULTS_BINARY`, or built here, beside the other one.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("GATEPOST_FAULTS_BINARY") {
        return path.into();
    }
    let folder = PathBuf::from(env!("CARGO_BIN_EXE_gatepost")).parent().unwrap().to_owned();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--features", "fail-points", "--bin", "gatepost-faults", "--target-dir"]);
    cargo.arg(folder.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success(), "the binary with fail points does not build");
    folder.join("gatepost-faults")
}

pub(crate) fn setup(upstream: &Scripted) -> Setup {
    Setup::new(upstream.address)
        .limit(i64::try_from(load::LIMIT).unwrap())
        .notify("abuse@mta.example")
        .set("relay.hosts", vec!["127.1.0.0/16"])
        .set("session.max_connections_per_ip", 10_000)
        .set("session.max_new_connections_per_ip", 1_000_000)
        .set("detection.threshold", 3.0)
        .set("detection.delay", "1s")
        .set("upstream.timeout", "1s")
        .set("upstream.connect_timeout", "1s")
        .set("upstream.data_timeout", "1s")
}

impl World {
    pub(crate) fn new(mounts: bool) -> Self {
        let mood = Arc::new(Mood::default());
        let upstream = upstream::start(&mood);
        let mut gatepost = setup(&upstream).write();
        gatepost.use_binary(binary());
        // In the one folder that its sandbox leaves it to write to, and so surely to read.
        let clock = gatepost.data_dir().join("clock");
        gatepost.set_environment("GATEPOST_CLOCK", clock.to_str().unwrap());
        if mounts {
            // Gatepost leaves 16 MiB free.
            disk::mount(&gatepost.data_dir(), 160);
            disk::mount(&gatepost.data_dir().join("ledger"), 24);
        }
        gatepost.start();
        Self {
            gatepost,
            upstream,
            promises: Mutex::default(),
            books: Books::default(),
            mood,
            clock,
            faults: BTreeMap::new(),
        }
    }

    /// One round: load, a fault, an audit.
    pub(crate) fn play(&mut self, round: usize, plan: &Plan, random: &mut Random) {
        let began = Instant::now();
        if let Plan::KillAt { step, times } = plan {
            self.gatepost.terminate();
            self.gatepost.set_environment("GATEPOST_FAIL", &format!("{step}#{times}"));
            self.gatepost.start_if_it_lives();
        }
        let over = AtomicBool::new(false);
        let server = self.gatepost.starttls;
        let (gatepost, promises) = (&self.gatepost, &self.promises);
        let (mut killed, mut reached) = (false, true);
        let (mood, clock, data) = (&self.mood, &self.clock, self.gatepost.data_dir());
        std::thread::scope(|scope| {
            let over = &over;
            for role in ROLES {
                scope.spawn(move || load::send(server, round, role, over, promises));
            }
            // What the operator releases never falls due.
            let patient = matches!(plan, Plan::KillAt { step: "probation.due", .. });
            scope.spawn(move || load::operate(gatepost, round, patient, over, promises));
            let pause = |time: Duration| std::thread::sleep(time);
            match plan {
                Plan::KillAt { .. } => {
                    reached = wait_for(STEP_PATIENCE, || gatepost.has_ended().then_some(())).is_some();
                    killed = true;
                    if !reached {
                        gatepost.signal_kill();
                    }
                }
                Plan::KillAfter(millis) => {
                    pause(Duration::from_millis(*millis));
                    killed = true;
                    gatepost.signal_kill();
                }
                Plan::Upstream { verb, whim, one_in } => {
                    pause(BEFORE);
                    mood.set(Some((verb, *whim, *one_in)));
                    pause(if *whim == Whim::Stall { 3 * UNDER } else { UNDER });
                    mood.set(None);
                    pause(AFTER);
                }
                Plan::Disk(full) => {
                    pause(BEFORE);
                    let spool = (*full != Full::Database).then(|| Filler::fill(&data));
                    let database = (*full != Full::Spool).then(|| Filler::fill(&data.join("ledger")));
                    pause(2 * UNDER);
                    drop((spool, database));
                    pause(AFTER);
                }
                Plan::Unreadable => {
                    pause(BEFORE);
                    let hidden = Hidden::some(&data.join("quarantine"), random);
                    pause(UNDER);
                    drop(hidden);
                }
                Plan::Clock(seconds) => {
                    pause(BEFORE);
                    std::fs::write(clock, seconds.to_string()).unwrap();
                    pause(UNDER);
                    std::fs::write(clock, "0").unwrap();
                    pause(AFTER);
                }
                Plan::Descriptors(left) => {
                    pause(BEFORE);
                    let before = gatepost.limit_descriptors(gatepost.descriptors() + left);
                    pause(UNDER);
                    gatepost.limit_descriptors(before);
                    pause(AFTER);
                }
            }
            over.store(true, Ordering::SeqCst);
        });
        let kind = match plan {
            Plan::KillAt { step, .. } => format!("kill at {step}"),
            Plan::KillAfter(_) => "kill".to_owned(),
            Plan::Upstream { .. } => "upstream".to_owned(),
            Plan::Disk(_) => "disk".to_owned(),
            Plan::Unreadable => "unreadable".to_owned(),
            Plan::Clock(_) => "clock".to_owned(),
            Plan::Descriptors(_) => "descriptors".to_owned(),
        };
        *self.faults.entry(kind).or_default() += usize::from(reached);
        self.gatepost.set_environment("GATEPOST_FAIL", "");
        let context = format!("round {round}, {plan:?}");
        if killed {
            self.expect_no_panic(&context);
            self.gatepost.reap();
            self.gatepost.start();
        } else {
            assert!(!self.gatepost.has_ended(), "{context}: it died\n{}", self.gatepost.log_text());
        }
        self.audit(
            &context,
            match plan {
                Plan::Upstream { .. } => Again::Often,
                _ if killed => Again::Once,
                _ => Again::Never,
            },
        );
        if std::env::var_os("GATEPOST_FAULTS_VERBOSE").is_some() {
            println!("{context}: {} ms", began.elapsed().as_millis());
        }
    }

    /// The upstream takes all that is left, but for what it refused for good.
    pub(crate) fn settle(&mut self) {
        self.gatepost.terminate();
        self.expect_no_panic("before a pause");
        self.gatepost.start();
        let empty = wait_for(PATIENCE, || {
            self.gatepost.run(&["quarantine", "release", "--all"]);
            // Nobody may have been left to send it to: that stays for the operator.
            self.gatepost.parked().iter().all(|object| object["state"] == "failed").then_some(())
        });
        assert!(empty.is_some(), "{:?}\n{}", self.gatepost.parked(), self.gatepost.log_text());
        self.audit("a pause", Again::Never);
    }

    pub(crate) fn expect_no_panic(&self, context: &str) {
        let log = self.gatepost.log_text();
        assert!(!log.contains("panicked at"), "{context}\n{log}");
    }

    /// Steps that were waited for in vain, each time.
    pub(crate) fn never_reached(&self) -> Vec<&str> {
        self.faults.iter().filter(|(_, times)| **times == 0).map(|(kind, _)| kind.as_str()).collect()
    }

    pub(crate) fn summary(&self) -> String {
        let promises = self.promises.lock().unwrap();
        let kinds = self.faults.iter().filter(|(kind, _)| !kind.starts_with("kill at"));
        let kinds: Vec<_> = kinds.map(|(kind, times)| format!("{kind} {times}")).collect();
        let steps: Vec<usize> = self
            .faults
            .iter()
            .filter(|(kind, _)| kind.starts_with("kill at"))
            .map(|(_, times)| *times)
            .collect();
        format!(
            "{} messages acknowledged, {} accounts blocked, {} sent twice; killed {} times at {} steps; {}",
            promises.acknowledged.len(),
            promises.blocked.len(),
            self.books.twice(),
            steps.iter().sum::<usize>(),
            steps.iter().filter(|times| **times > 0).count(),
            kinds.join(", ")
        )
    }
}

/// Files of parked messages in whose place something unreadable is; put back when dropped.
pub(crate) struct Hidden(Vec<(PathBuf, PathBuf)>);

impl Hidden {
    pub(crate) fn some(quarantine: &std::path::Path, random: &mut Random) -> Self {
        let mut hidden = Vec::new();
        for file in std::fs::read_dir(quarantine).unwrap().map_while(Result::ok) {
            let name = file.file_name().into_string().unwrap();
            if !name.contains(".message") && !name.contains(".envelope") || random.below(3) > 0 {
                continue;
            }
            // As one that may not be read, also for root: a folder of that name.
            let (path, aside) = (file.path(), quarantine.join(format!("hidden-{name}")));
            if std::fs::rename(&path, &aside).is_ok() {
                let _ = std::fs::create_dir(&path);
                hidden.push((path, aside));
            }
        }
        Self(hidden)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        for (path, aside) in &self.0 {
            let _ = std::fs::remove_dir(path);
            if path.exists() {
                continue;
            }
            std::fs::rename(aside, path).unwrap();
        }
    }
}
