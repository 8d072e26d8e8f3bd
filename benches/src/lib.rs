//! The pure modules of Gatepost, as they stand in its sources, and one piece of work for each.
//!
//! Taken in by their paths: they use nothing of the program but each other (`tests/tidy.rs` sees to that), so that this builds
//! in seconds and counts the same instructions whatever else is linked.
#![allow(dead_code, unreachable_pub, reason = "what the rest of the program uses is not here")]

#[path = "../../src/account.rs"]
pub mod account;
#[path = "../../src/clock.rs"]
pub mod clock;
#[path = "../../src/decimal.rs"]
pub mod decimal;
pub mod guard;
#[path = "../../src/history.rs"]
pub mod history;
#[path = "../../src/id.rs"]
pub mod id;
pub mod quarantine;
pub mod sender;
#[path = "../../src/session/mod.rs"]
pub mod session;
#[path = "../../src/smtp/mod.rs"]
pub mod smtp;
#[path = "../../src/visible.rs"]
pub mod visible;
pub mod work;
