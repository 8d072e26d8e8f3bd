//! A process killed at a random moment: what was acknowledged is there and whole.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

/// Tells the test's own child process where to park.
const CHILD: &str = "GATEPOST_TEST_PARK_IN";
const ROUNDS: usize = 20;
const SIZES: [usize; 4] = [10, 4096, BUFFER, 3 * BUFFER + 17];

fn random(below: u64) -> u64 {
    let mut octets = [0; 8];
    getrandom::fill(&mut octets).unwrap();
    u64::from_le_bytes(octets) % below
}

/// Parks, changes and removes forever; writes a line once each is acknowledged.
async fn park_for_ever(home: &Path) {
    let spool = open(home).await;
    let tasks: Vec<_> = (0..4_usize)
        .map(|task| {
            let spool = spool.clone();
            tokio::spawn(async move {
                for turn in 0.. {
                    let content = vec![b'a' + task as u8; SIZES[(task + turn) % SIZES.len()]];
                    let id = park(&spool, &content).await;
                    say(&format!("parked {id} {}", sha256(&content)));
                    let mut claim = spool.claim(id).await.unwrap();
                    let changed = releasing(claim.envelope(), None);
                    claim.update(changed).await.unwrap();
                    say(&format!("changed {id} -"));
                    if turn % 3 == 0 {
                        // Announced before the removal: from here on it may be there or not.
                        say(&format!("removing {id} -"));
                        claim.finish().await.unwrap();
                        say(&format!("removed {id} -"));
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").and_then(|()| out.flush()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    if let Some(home) = std::env::var_os(CHILD) {
        return park_for_ever(Path::new(&home)).await;
    }
    let home = tempfile::tempdir().unwrap();
    let mut said: Vec<(String, QuarantineId, String)> = Vec::new();
    for _ in 0..ROUNDS {
        said.extend(killed_after(home.path(), Duration::from_micros(random(60_000))));
        check(home.path(), &said).await;
    }
    assert!(said.len() > ROUNDS, "{} lines", said.len());
}

/// Returns the output of a child that was killed `time` after its first line.
fn killed_after(home: &Path, time: Duration) -> Vec<(String, QuarantineId, String)> {
    let name = "quarantine::tests::crash::what_was_acknowledged_survives_a_kill";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, home)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = Vec::new();
    let mut parse = |line: &str| {
        let mut words = line.split(' ');
        let (word, id, hash) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        said.push((word.to_owned(), id, hash.to_owned()));
        Some(())
    };
    for line in lines.by_ref() {
        if parse(&line).is_some() {
            break;
        }
    }
    // This waits for nothing: the moment of the kill is the random part of the test.
    std::thread::sleep(time);
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines {
        // A line cut in the middle does not count: its hash or word does not compare.
        parse(&line);
    }
    said
}

async fn check(home: &Path, said: &[(String, QuarantineId, String)]) {
    let spool = open(home).await;
    let has = |word: &str, id: QuarantineId| said.iter().any(|(said, of, _)| said == word && *of == id);
    for (word, id, hash) in said {
        if word == "parked" && hash.len() == 64 {
            match spool.envelope(*id).await {
                Ok(envelope) => {
                    let octets = content(spool.message(*id).await.unwrap()).await;
                    assert_eq!((&sha256(&octets), &envelope.sha256), (hash, hash));
                    assert!(!has("removed", *id), "{id} came back");
                    assert!(!has("changed", *id) || envelope.release.is_some(), "{id} changed back");
                }
                Err(error) => assert!(has("removing", *id), "{error}"),
            }
        }
    }
    for entry in spool.list(&Filter::default(), None, usize::MAX).await {
        if let Entry::Unreadable { id, cause, .. } = entry {
            panic!("{id}: {cause}");
        }
    }
    for name in names(home) {
        assert!(name.ends_with(".message") || name.ends_with(".envelope"), "{name}");
    }
}
