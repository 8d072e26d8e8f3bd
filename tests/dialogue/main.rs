//! Dialogue scripts: `tests/dialogue/*.smtp`, one rule each, played against the real binary. docs/testing.md has the format.
//!
//! A script plays the client and the upstream. Scripts that need the same configuration share a Gatepost; each has a client
//! address and upstream connections of its own. `DIALOGUE=3461 cargo test --test dialogue` plays those whose names have that in
//! them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a panic is how a test fails"
)]

#[allow(dead_code, reason = "what the black-box tests share; these need a part of it")]
#[path = "../support/mod.rs"]
mod support;

mod map;
mod play;
mod script;
mod stage;
mod text;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use play::{Failure, play};
use script::{Script, Setting};
use stage::Stage;

/// Gateposts at a time, and scripts at a time on each.
const STAGES: usize = 6;
const SCRIPTS: usize = 8;

/// `tests/dialogue`, or a folder in it.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogue").join(name)
}

/// The scripts of a folder, in the order of their names.
fn scripts(name: &str) -> Vec<Script> {
    let Ok(entries) = std::fs::read_dir(folder(name)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "smtp"));
    paths.sort();
    paths.iter().map(|path| Script::read(path).unwrap_or_else(|error| panic!("{error}"))).collect()
}

/// Plays them all; the failures in the order of the names.
fn run(scripts: Vec<Script>) -> BTreeMap<String, Failure> {
    let mut stages: BTreeMap<Setting, Vec<(usize, Script)>> = BTreeMap::new();
    for (number, script) in scripts.into_iter().enumerate() {
        stages.entry(script.setting.clone()).or_default().push((number, script));
    }
    let waiting = Mutex::new(stages.into_iter().collect::<Vec<_>>());
    let failures = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..STAGES {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap().pop();
                    let Some((setting, scripts)) = next else { return };
                    let stage = Stage::set(&setting);
                    on_stage(&stage, &scripts, &failures);
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

fn on_stage(stage: &Stage, scripts: &[(usize, Script)], failures: &Mutex<BTreeMap<String, Failure>>) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..SCRIPTS.min(scripts.len()) {
            scope.spawn(|| {
                while let Some((number, script)) = scripts.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let played = catch_unwind(AssertUnwindSafe(|| play(stage, *number, script)));
                    let outcome = played.unwrap_or_else(|_| Err(Failure::panicked(script)));
                    if let Err(failure) = outcome {
                        failures.lock().unwrap().insert(script.name.clone(), failure);
                    }
                }
            });
        }
    });
}

/// STYLE, Tests: the dialogues of the standards and of the contract.
#[test]
fn every_script_plays() {
    let wanted = std::env::var("DIALOGUE").unwrap_or_default();
    let mut scripts = scripts("");
    if wanted.is_empty() {
        assert!(scripts.len() >= 120, "{} scripts are left", scripts.len());
    }
    scripts.retain(|script| script.name.contains(&wanted));
    let count = scripts.len();
    let failures = run(scripts);
    for failure in failures.values() {
        println!("{failure}");
    }
    let names: Vec<_> = failures.keys().cloned().collect();
    assert!(names.is_empty(), "{} of {count} scripts failed: {}", names.len(), names.join(" "));
}

/// Faults that are known: what they script must fail still, else it is a rule kept and belongs with the others.
#[test]
fn what_is_known_to_fail_fails_still() {
    let scripts = scripts("known");
    let names: Vec<_> = scripts.iter().map(|script| script.name.clone()).collect();
    let failures = run(scripts);
    let mended: Vec<_> = names.iter().filter(|name| !failures.contains_key(*name)).collect();
    assert!(mended.is_empty(), "these play now; move them up: {mended:?}");
}

/// The runner itself: what a script must not get away with, and where it is told.
#[test]
fn a_script_that_is_wrong_fails() {
    let folder = tempfile::tempdir().unwrap();
    let begin = "# RFC 0 0: none\nrelay\nmail\n";
    for (name, wrong, trouble) in [
        ("reply", "C: NOOP\nS: 250 2.0.0 No\n", "expected: 250 2.0.0 No\n    got:      250 2.0.0 Ok"),
        ("offer", "lacks DSN\n", "expected: no line DSN"),
        (
            "upstream",
            "C: RCPT TO:<bob@mta.example>\nU> RCPT TO:<carol@mta.example>\n",
            "got:      RCPT TO:<bob@",
        ),
        ("nothing", "C: RSET\nS: 250 *\nU nothing\n", "expected: nothing\n    got:      RSET"),
        (
            "rest",
            "rcpt\ndata\nhead\nC: .\nU head\nU> .\nU< 250 2.0.0 Ok\nS: 250 *\nC: MAIL FROM:<>\n\
                  U> MAIL FROM:<>\nU< 250 Ok\nS: 250 *\nC: RCPT TO:<bob@mta.example>\nC: RCPT TO:<x@mta.example>\n\
                  U> RCPT TO:<bob@mta.example>\nU< 250 Ok\nU< 250 Ok\nS: 250 *\nS: 250 *\n",
            "nothing more upstream",
        ),
    ] {
        let path = folder.path().join(format!("{name}.smtp"));
        std::fs::write(&path, format!("{begin}{wrong}")).unwrap();
        let failures = run(vec![Script::read(&path).unwrap()]);
        let told = failures.get(name).map_or_else(|| panic!("{name} plays"), ToString::to_string);
        assert!(told.contains(trouble), "{told}");
    }
    for (text, trouble) in [
        ("connect\n", ":1: the first line"),
        ("# RFC 1 2: x\nS 250\n", ":2: no line of a script"),
        ("# RFC 1 2: x\nC: \\q\n", ":2: \\q means nothing"),
    ] {
        let path = folder.path().join("text.smtp");
        std::fs::write(&path, text).unwrap();
        let error = Script::read(&path).unwrap_err();
        assert!(error.contains(trouble), "{error}");
    }
}
