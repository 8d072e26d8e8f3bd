//! Other programs, run with a deadline.

use std::io::Write as _;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use super::{PATIENCE, wait_for};

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Panics unless the exit status is `code`.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.status.code(),
            Some(code),
            "exit status\nstdout: {}\nstderr: {}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Standard output as JSON Lines.
    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        self.stdout.lines().map(parse).collect()
    }
}

/// Runs `command` with `input` on its standard input, at most for [`PATIENCE`].
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Finished {
    run_within(command, input, PATIENCE)
}

/// Runs `command` with `input` on its standard input, at most for `deadline`.
pub(crate) fn run_within(command: &mut Command, input: &[u8], deadline: std::time::Duration) -> Finished {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; run tests/install"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A program that reads nothing closes the pipe early; that is its business.
    let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
    let mut pipes = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let stdout = thread::spawn(move || read_all(&mut pipes.0));
    let stderr = thread::spawn(move || read_all(&mut pipes.1));
    let status = wait_for(deadline, || child.try_wait().unwrap());
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    feeder.join().unwrap();
    let finished = (stdout.join().unwrap(), stderr.join().unwrap());
    let status = status
        .unwrap_or_else(|| panic!("{command:?} did not end\nstdout: {}\nstderr: {}", finished.0, finished.1));
    Finished { status, stdout: finished.0, stderr: finished.1 }
}

fn read_all(pipe: &mut impl std::io::Read) -> String {
    let mut octets = Vec::new();
    pipe.read_to_end(&mut octets).unwrap();
    String::from_utf8_lossy(&octets).into_owned()
}
