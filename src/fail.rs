//! Named steps at which a test can kill the process, and a clock that it can set: only for `tests/faults`.
//!
//! Without the feature `fail-points`, which only that test's build has, all of this does nothing. With it,
//! `GATEPOST_FAIL=NAME#N` kills the process (SIGKILL) when it reaches the step for the Nth time, and
//! `GATEPOST_CLOCK=FILE` names a file with the number of seconds by which the clock is off.

/// All steps, for tests that go through them.
pub const STEPS: &[&str] = &[
    // A message is parked: written and synced, likewise the envelope; renamed; the envelope too; the folder synced.
    "park.message",
    "park.envelope",
    "park.message-named",
    "park.envelope-named",
    "park.synced",
    // A message is released: claimed; the decision on disk; answered by the upstream but not noted; noted; the sender
    // notified; gone.
    "release.claimed",
    "release.decided",
    "release.answered",
    "release.noted",
    "release.told",
    "release.envelope-gone",
    "release.done",
    // The ledger is written: applied to the database; synced; the block list too.
    "block.applied",
    "block.synced",
    "block.listed",
    "unblock.marked",
    "unblock.applied",
    "unblock.synced",
    "unblock.listed",
    "probation.applied",
    "probation.synced",
    "probation.listed",
    "count.applied",
    "count.synced",
    // A delayed message becomes due.
    "probation.due",
    // The abuse desk is notified: the mail in the outbox; that noted.
    "notice.written",
    "notice.noted",
    // Our own mail: renamed; synced; accepted by the upstream; removed.
    "outbox.named",
    "outbox.synced",
    "outbox.sent",
    "outbox.removed",
];

/// Marks that a step is done.
#[cfg(not(feature = "fail-points"))]
#[inline(always)]
pub fn point(_step: &str) {}

/// Marks that a `stage` of a `deed` is done.
#[cfg(not(feature = "fail-points"))]
#[inline(always)]
pub fn stage(_deed: &str, _stage: &str) {}

#[cfg(feature = "fail-points")]
pub use armed::{offset_millis, point, stage};

#[cfg(feature = "fail-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The step, and how many more times it is passed before the process is killed.
    static ARMED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();

    /// Marks that a step is done; kills the process if this is the one.
    pub fn point(step: &str) {
        assert!(super::STEPS.contains(&step), "no such step: {step}");
        let armed = ARMED.get_or_init(|| {
            let text = std::env::var("GATEPOST_FAIL").ok()?;
            let (step, times) = text.split_once('#')?;
            Some((step.to_owned(), AtomicU64::new(times.parse().ok()?)))
        });
        if let Some((armed, left)) = armed
            && armed == step
            && left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }

    /// Marks that a `stage` of a `deed` is done.
    pub fn stage(deed: &str, stage: &str) {
        let step = format!("{deed}.{stage}");
        if super::STEPS.contains(&step.as_str()) {
            point(&step);
        }
    }

    /// By how much the clock is off.
    pub fn offset_millis() -> i64 {
        static FILE: OnceLock<Option<String>> = OnceLock::new();
        let file = FILE.get_or_init(|| std::env::var("GATEPOST_CLOCK").ok());
        let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        text.and_then(|text| text.trim().parse::<i64>().ok()).map_or(0, |seconds| seconds * 1000)
    }
}
