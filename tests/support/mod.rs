//! What the black-box tests share: the real binary, a client that cannot hang, an upstream that does as it is told, real MTAs.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

pub(crate) mod gatepost;
pub(crate) mod mta;
pub(crate) mod program;
pub(crate) mod receiver;
pub(crate) mod scripted;
pub(crate) mod smtp;
pub(crate) mod tls;

/// The longest that a test waits for one thing to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A loopback address that was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
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

/// Octets as a person would write them: `\r`, `\n`, `\x00`.
pub(crate) fn shown(octets: &[u8]) -> String {
    octets.escape_ascii().to_string()
}

/// Whether `needle` stands somewhere in `haystack`.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
