//! `gatepost demo`, the real binary: it tells its story to the end, and leaves nothing behind however it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// For all that a run prints; a story takes some seconds.
const DEADLINE: Duration = Duration::from_secs(120);

/// A running demo, and its lines as they come.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    told: Vec<String>,
    deadline: Instant,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command.arg("demo").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, told: Vec::new(), deadline: Instant::now() + DEADLINE }
    }

    /// Reads on until a line has `part` in it, or to the end; says whether it came.
    fn tells(&mut self, part: &str) -> bool {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                assert!(Instant::now() < self.deadline, "no end in time:\n{}", self.told.join("\n"));
                return false;
            };
            let found = line.contains(part);
            self.told.push(line);
            if found {
                return true;
            }
        }
    }

    /// Its exit status, once it has closed its output.
    fn ended(&mut self) -> Option<i32> {
        while self.tells("\0") {}
        self.child.wait().unwrap().code()
    }

    fn folder(&self) -> PathBuf {
        let line = self.told.iter().find(|line| line.contains("files, log")).expect("no folder is named");
        line.split_whitespace().find(|word| word.starts_with('/')).unwrap().into()
    }

    fn interrupt(&self) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
    }
}

#[test]
fn the_story_is_told_to_its_end() {
    let mut demo = Demo::start(&["--exit"]);
    for part in [
        "1. An honest mistake",
        "550 5.1.1 <dorra@example.org>: Recipient address rejected:",
        "user:anna  counting  1 of 100 in 1h",
        "2. A stolen password",
        ": on probation",
        "3. An alarm",
        "user:carl  probation",
        "100 of 100: blocked",
        "4. The hundredth",
        "a dead address    550 5.1.1 ... User unknown ...        250 2.1.5 Ok",
        "5. The abuse desk is told",
        "| Subject: Blocked: user:carl, 100 invalid recipients within 1 hour",
        "$ gatepost quarantine list --account carl",
        "Invoice 2207",
        "the thief is told      421 4.7.0",
        "released, delivered to 1 recipient",
        "Carl's next mail       250 2.0.0 Ok: queued as",
        "The end",
    ] {
        assert!(demo.tells(part), "not told: {part}\n{}", demo.told.join("\n"));
    }
    assert_eq!(demo.ended(), Some(0), "{}", demo.told.join("\n"));
    assert!(!demo.folder().exists());
}

#[test]
fn it_stays_up_until_it_is_interrupted() {
    let mut demo = Demo::start(&[]);
    assert!(demo.tells("Ctrl-C ends it"), "{}", demo.told.join("\n"));
    let folder = demo.folder();
    assert!(folder.join("config.toml").exists());
    for part in ["swaks --server 127.0.0.1 --port ", "curl --verbose --url smtps://127.0.0.1:"] {
        assert!(demo.told.iter().any(|line| line.contains(part)), "{part}");
    }
    demo.interrupt();
    assert_eq!(demo.ended(), Some(0));
    assert!(!folder.exists());
}

#[test]
fn an_interrupted_story_leaves_nothing_behind() {
    let mut demo = Demo::start(&[]);
    assert!(demo.tells("1. An honest mistake"), "{}", demo.told.join("\n"));
    let folder = demo.folder();
    demo.interrupt();
    assert_eq!(demo.ended(), Some(0));
    assert!(!folder.exists());
}
