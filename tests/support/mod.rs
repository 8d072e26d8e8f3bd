//! What the black-box tests share: the real binary, a client that cannot hang, an upstream that does as it is told, real MTAs.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub(crate) mod gatepost;
pub(crate) mod mta;
pub(crate) mod program;
pub(crate) mod random;
pub(crate) mod receiver;
pub(crate) mod scripted;
pub(crate) mod smtp;
pub(crate) mod tls;

/// The longest that a test waits for one thing to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Below those that Linux gives away by itself (`ip_local_port_range`): whoever binds port 0, or connects, gets none of them.
const PORTS: Range<u16> = 12_000..32_000;

/// A loopback address that is free, and that no test beside us takes before the process ends: who is given it may bind it late, or never.
pub(crate) fn free_address() -> SocketAddr {
    /// Locks of files that are named for ports; the system lets go of them with the process.
    static TAKEN: Mutex<Vec<(u16, File)>> = Mutex::new(Vec::new());
    let folder = std::env::temp_dir().join(format!("gatepost-ports-{}", rustix::process::geteuid().as_raw()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut taken = TAKEN.lock().unwrap();
    let first = taken.last().map_or(PORTS.start, |(port, _)| port + 1);
    for port in first..PORTS.end {
        let lock = File::create(folder.join(port.to_string())).unwrap();
        if lock.try_lock().is_ok()
            && let Ok(free) = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        {
            taken.push((port, lock));
            return free.local_addr().unwrap();
        }
    }
    panic!("no free port in {PORTS:?}");
}

/// Asks `question` until it answers, at most for `deadline`.
pub(crate) fn wait_for<T>(deadline: Duration, mut question: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = question() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        // A poll's pace, not a guess at how long something takes.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Longer than the longest pause between two looks at what is due to go out (`TICK` in `src/release/rounds.rs`): what has not gone by then
/// does not go by itself.
pub(crate) const LONGER_THAN_A_LOOK: Duration = Duration::from_secs(6);

/// Longer than two pauses before what a disk did not take is written again (`DISK_AGAIN` in `src/release.rs`, `RETRY` in
/// `src/guard/ledger/writer.rs`).
pub(crate) const LONGER_THAN_TWO_TRIES: Duration = Duration::from_millis(2_500);

/// Makes sure that something stays so: `asserted` is asked all the time for `duration`, and at its end once more; it fails as soon as it does.
pub(crate) fn throughout(duration: Duration, mut asserted: impl FnMut()) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        asserted();
        // A poll's pace, as above.
        std::thread::sleep(Duration::from_millis(10));
    }
    asserted();
}

/// Octets as a person would write them: `\r`, `\n`, `\x00`.
pub(crate) fn shown(octets: &[u8]) -> String {
    octets.escape_ascii().to_string()
}

/// Whether `needle` stands somewhere in `haystack`.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
