//! The connections to the upstream: bounded in number, reused within a session, given up when another session waits.
