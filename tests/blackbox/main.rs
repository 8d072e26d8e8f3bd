//! Black-box tests: the real binary in front of real and scripted upstreams, with real clients.
//!
//! Each test names the line of the contract that it proves. Those that need what tests/install installs are `#[ignore]`d with that
//! reason, so that `cargo test` names them; `tests/run` runs all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a panic is how a test fails"
)]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "some of it is for tests/faults alone")]
mod support;

mod assumptions;
mod attacks;
mod binding;
mod certificates;
mod check;
mod commands;
mod crash;
mod demo;
mod detection;
mod dialogue;
mod digest;
mod front_in;
mod front_upstream;
mod hooks;
mod interop;
mod life;
mod load;
mod obstacle;
mod oracle;
mod probation;
mod quarantine;
mod recovery;
mod replay;
mod seed;
mod smuggling;
mod testers;
mod upstream;
mod users;
mod verifying;
